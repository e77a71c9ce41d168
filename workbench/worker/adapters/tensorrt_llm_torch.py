"""Load a checkpoint with TensorRT-LLM's PyTorch backend and serve it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .channel import Channel, Refusal
from .own_code import code_free
from .recipe_build import RECIPE
from .tensorrt_llm_session import end_ids, load_and_serve
from .trtllm_chat import TOKENIZER
from .trtllm_lacks import torch_lacks
from .trtllm_llm_api import LlmApi


def run(order: dict[str, Any], channel: Channel) -> None:
    """Load the checkpoint of `order["engine"]`'s recipe and serve until closed.

    Raises:
        Refusal: The checkpoint is not where it was.
    """
    engine = Path(order["engine"])
    recipe = json.loads((engine / RECIPE).read_text(encoding="utf-8"))
    checkpoint = order["limits"].get("checkpoint") or recipe["model"]
    if not Path(checkpoint).is_dir():
        raise Refusal(
            f"The checkpoint {checkpoint} is gone; this backend copies no weights. Bring it back, "
            "or build again from where it is now."
        )

    limits = order["limits"]

    def load() -> LlmApi:
        llm = _load(checkpoint, engine, limits)
        import tensorrt_llm

        return LlmApi(llm, end_ids(order), torch_lacks(limits, tensorrt_llm.__version__))

    load_and_serve(load, order, channel)


def _load(model: str, engine: Path, limits: dict[str, Any]) -> Any:
    from tensorrt_llm import LLM
    from tensorrt_llm.llmapi import CudaGraphConfig, KvCacheConfig

    graphs = CudaGraphConfig(max_batch_size=limits["max_batch_size"], enable_padding=True)
    # Engines of earlier versions do not say; nothing ran then.
    trusted = bool(limits.get("trust_remote_code", False))
    guide = limits.get("guided_decoding_backend", "none")
    return LLM(
        model=model if trusted else str(code_free(Path(model))),
        trust_remote_code=trusted,
        tokenizer=str(engine / TOKENIZER),
        dtype=limits["dtype"],
        tensor_parallel_size=limits["tp_size"],
        pipeline_parallel_size=limits["pp_size"],
        max_batch_size=limits["max_batch_size"],
        max_num_tokens=limits["max_num_tokens"],
        max_seq_len=limits["max_seq_len"],
        enable_chunked_prefill=limits["enable_chunked_prefill"],
        guided_decoding_backend=None if guide == "none" else guide,
        cuda_graph_config=graphs if limits["use_cuda_graph"] else None,
        kv_cache_config=KvCacheConfig(
            dtype=limits["kv_cache_dtype"],
            enable_block_reuse=limits["enable_block_reuse"],
            free_gpu_memory_fraction=limits["kv_cache_free_gpu_memory_fraction"],
        ),
    )
