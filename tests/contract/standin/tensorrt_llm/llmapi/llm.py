"""LLM on an engine; the PyTorch one has a page of its own."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

from tensorrt_llm._settings import error, fields, follows, gpu, line
from tensorrt_llm.executor.engine import Executor, Limits
from tensorrt_llm.executor.spawn import spawn
from tensorrt_llm.logger import logger

from .base import NAMED, BaseLLM
from .llm_args import KvCacheConfig
from .tokenizer import end_ids, load_tokenizer
from .torch_llm import LLM

__all__ = ["LLM", "TrtLLM"]


class TrtLLM(BaseLLM):
    """Runs an engine directory.

    Raises:
        ValueError: An argument is unknown, or contradicts the engine.
        RuntimeError: The engine does not load.
    """

    @follows("LLM")
    def __init__(self, **given: Any) -> None:
        level = logger.level
        logger.set_level("info")
        logger.say("trt_backend")
        logger.set_level(level)
        known = {**fields.LLM_ARGS, **fields.TRT_LLM_ARGS}
        for name in given:
            if name not in known and name not in NAMED:
                raise ValueError(error("argument", cls="LLM", name=name))
        self.args = {**known, **given}
        self._executor: Executor | None = None
        directory = Path(given["model"])
        self._engine = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        if "build_config" not in self._engine:
            raise NotImplementedError("(stand-in) LLM builds nothing; give it an engine directory.")
        self._check(given)
        self.tokenizer = None
        if not given["skip_tokenizer_init"]:
            self.tokenizer = load_tokenizer(given["tokenizer"] or directory)
        # The library reads it beside the model, and an engine directory has none.
        self._ends = end_ids(directory)
        self._executor = self._start(directory)

    def _check(self, given: dict[str, Any]) -> None:
        mapping = self._engine["pretrained_config"]["mapping"]
        if self.args["build_config"] is not None:
            logger.warn("ignored_build_config")
        if given["tensor_parallel_size"] not in (1, mapping["tp_size"]):
            values = {"value": given["tensor_parallel_size"], "limit": mapping["tp_size"]}
            raise ValueError(error("tp_size", **values))
        self.kv_cache_config = self.args["kv_cache_config"]
        if self.kv_cache_config == fields.LLM_ARGS["kv_cache_config"]:
            self.kv_cache_config = KvCacheConfig()
        assert self.kv_cache_config.dtype == "auto", error("kv_dtype")
        if mapping["world_size"] > gpu().count:
            raise RuntimeError(error("gpus", have=gpu().count, want=mapping["world_size"]))

    def _start(self, directory: Path) -> Executor:
        limits = Limits(
            max_batch_size=self.args["max_batch_size"],
            max_num_tokens=self.args["max_num_tokens"],
            max_beam_width=self.args["max_beam_width"] or 1,
            kv_fraction=self.kv_cache_config.free_gpu_memory_fraction,
            kv_tokens=self.kv_cache_config.max_tokens,
            chunked_context=self.args["enable_chunked_prefill"],
        )
        spawn()
        try:
            return Executor(directory, limits)
        except RuntimeError as failure:
            logger.error(line("init_error", error=traceback.format_exc()))
            raise RuntimeError(error("worker")) from failure

    def _check_request(self, length: int, sampling: Any) -> None:
        build = self._engine["build_config"]
        limit = build["max_seq_len"]
        chunked = self.args["enable_chunked_prefill"]
        if not chunked and length + (sampling.max_tokens or 0) > limit:
            values = {"prompt": length / 1, "tokens": sampling.max_tokens, "limit": limit}
            raise ValueError(error("too_long", **values))
        if sampling.use_beam_search and sampling.best_of > build["max_beam_width"]:
            values = {"value": sampling.n, "limit": build["max_beam_width"]}
            raise ValueError(error("beams", **values))
        if sampling.prompt_logprobs and not build["gather_context_logits"]:
            raise ValueError(error("prompt_logprobs", value=sampling.prompt_logprobs))
        if sampling.logprobs is not None and not self.args["gather_generation_logits"]:
            raise ValueError(error("logprobs", value=sampling.logprobs))
