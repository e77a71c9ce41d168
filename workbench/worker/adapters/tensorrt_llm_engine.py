"""Load a TensorRT-LLM engine and serve it, through the LLM API or through ModelRunnerCpp."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .channel import Channel
from .tensorrt_llm_session import Runtime, end_ids, load_and_serve
from .trtllm_lacks import engine_lacks
from .trtllm_llm_api import LlmApi
from .trtllm_runner_cpp import RunnerCpp


def run(order: dict[str, Any], channel: Channel) -> None:
    """Load `order["engine"]` (a directory) under `order["limits"]` and serve until closed."""
    engine, limits = Path(order["engine"]), order["limits"]

    def load() -> Runtime:
        if limits["runtime"] == "model_runner_cpp":
            return RunnerCpp(engine, limits, end_ids(order))
        return LlmApi(_load(engine, limits), end_ids(order), engine_lacks(limits))

    load_and_serve(load, order, channel)


def _load(engine: Path, limits: dict[str, Any]) -> Any:
    """Load an engine with the LLM API, which takes its own defaults for what it is not told.

    Without max_num_tokens it would run with 8192 whatever the engine was built for, and without
    max_beam_width with 1; a max_batch_size above the engine's ends in an assertion in C++.
    """
    from tensorrt_llm._tensorrt_engine import LLM
    from tensorrt_llm.llmapi import KvCacheConfig

    from .trtllm_chat import TOKENIZER

    cache: dict[str, Any] = {
        "enable_block_reuse": limits["enable_block_reuse"],
        "free_gpu_memory_fraction": limits["kv_cache_free_gpu_memory_fraction"],
    }
    if limits["kv_cache_tokens"]:
        cache["max_tokens"] = limits["kv_cache_tokens"]
    options: dict[str, Any] = {
        "max_batch_size": limits["max_batch_size"],
        "max_num_tokens": limits["max_num_tokens"],
        "max_beam_width": limits["max_beam_width"],
        "max_input_len": limits["max_input_len"],
        "max_seq_len": limits["max_seq_len"],
        "enable_chunked_prefill": limits["enable_chunked_context"],
        "kv_cache_config": KvCacheConfig(**cache),
    }
    if limits["gather_generation_logits"]:
        options["gather_generation_logits"] = True
    # Engines of earlier versions do not say; nothing guided then.
    if limits.get("guided_decoding_backend", "none") != "none":
        options["guided_decoding_backend"] = limits["guided_decoding_backend"]
    return LLM(model=str(engine), tokenizer=str(engine / TOKENIZER), **options)
