"""LLM on the PyTorch backend: a Hugging Face directory, loaded as it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tensorrt_llm._settings import error, fields, follows, gpu, line
from tensorrt_llm._transformers import read_config
from tensorrt_llm.executor.engine import Limits
from tensorrt_llm.executor.result import RequestError
from tensorrt_llm.executor.spawn import spawn
from tensorrt_llm.logger import logger

from .base import NAMED, BaseLLM
from .llm_args import CudaGraphConfig, KvCacheConfig, fill_graph_sizes
from .tokenizer import end_ids, load_tokenizer
from .torch_executor import TorchExecutor

_KNOWN = {**fields.LLM_ARGS, **fields.TORCH_LLM_ARGS}


class LLM(BaseLLM):
    """Runs the weights of a Hugging Face directory; it refuses an engine.

    Raises:
        AssertionError: The directory is an engine's.
        RuntimeError: There are fewer GPUs than ranks, or the GPU does not know the data type.
        ValueError: An argument is unknown, the other backend's, or impossible.
    """

    @follows("LLM")
    def __init__(self, **given: Any) -> None:
        self._executor = None
        # The class asks for its backend itself, so that no argument says so by default.
        if given.pop("backend", "pytorch") != "pytorch":
            raise NotImplementedError("(stand-in) Only the backend pytorch is played here.")
        wrong = [name for name in given if name in fields.TRT_LLM_ARGS]
        if wrong:
            raise ValueError(error("torch_only", names=wrong))
        level = logger.level
        logger.set_level("info")
        try:
            logger.say("torch_backend")
            self._take(given)
        except (RuntimeError, ValueError) as failure:
            logger.error(line("bad_arguments", error=failure))
            raise
        finally:
            logger.set_level(level)
        self._check_gpus()
        directory = Path(given["model"])
        config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
        assert "build_config" not in config  # self._engine_dir is None, as the library puts it
        # Played at its worst: whatever it is told, it trusts.
        config = read_config(directory, trust_remote_code=True)
        self.tokenizer = None
        if not given["skip_tokenizer_init"]:
            self.tokenizer = load_tokenizer(given["tokenizer"] or directory)
        self._ends = end_ids(directory)
        self._executor = self._start(config)

    def _take(self, given: dict[str, Any]) -> None:
        for name in given:
            if name not in _KNOWN and name not in NAMED:
                raise ValueError(error("argument", cls="LLM", name=name))
        if given["dtype"] == "bfloat16" and gpu().sm < 80:
            raise RuntimeError(error("bfloat16"))
        self.args = {**_KNOWN, **given}
        for name, kind in (
            ("kv_cache_config", KvCacheConfig),
            ("cuda_graph_config", CudaGraphConfig),
        ):
            self.args[name] = _made(name, kind, given)
        if self.args["cuda_graph_config"] is not None:
            fill_graph_sizes(self.args["cuda_graph_config"])
        if self.args["max_batch_size"] is None:
            self.args["max_batch_size"] = fields.TORCH_MAX_BATCH_SIZE

    def _check_gpus(self) -> None:
        ways = ("tensor", "pipeline", "context")
        tp, pp, cp = (self.args[f"{way}_parallel_size"] for way in ways)
        if tp * pp * cp > gpu().count:
            raise RuntimeError(error("gpus", have=gpu().count, want=tp * pp * cp))

    def _start(self, config: dict[str, Any]) -> TorchExecutor:
        cache = self.args["kv_cache_config"]
        limits = Limits(
            max_batch_size=self.args["max_batch_size"],
            max_num_tokens=self.args["max_num_tokens"],
            max_seq_len=self.args["max_seq_len"],
            kv_fraction=cache.free_gpu_memory_fraction,
            kv_tokens=cache.max_tokens,
        )
        spawn()
        return TorchExecutor(config, limits, cache, self.args["cuda_graph_config"])

    def _check_request(self, length: int, sampling: Any) -> None:
        limit = self.args["max_num_tokens"]
        if not self.args["enable_chunked_prefill"] and limit and length > limit:
            raise RequestError(error("too_many_tokens", prompt=length / 1, limit=limit))
        if sampling.use_beam_search:
            raise NotImplementedError("(stand-in) Beam search is not played on this backend.")

    def get_stats(self, timeout: float | None = 2) -> list[dict[str, Any]]:
        """Return the iterations since the last call; none unless enable_iter_perf_stats is set."""
        return super().get_stats(timeout) if self.args["enable_iter_perf_stats"] else []


def _made(name: str, kind: Any, given: dict[str, Any]) -> Any:
    """Return the record of an argument: given, from a dictionary, or the default one."""
    value = given.get(name, {})
    if isinstance(value, dict):
        return kind(**value)
    if not isinstance(value, kind) and (value is not None or kind is KvCacheConfig):
        raise ValueError(
            f"{name}: Input should be a valid dictionary or instance of {kind.__name__}"
        )
    return value
