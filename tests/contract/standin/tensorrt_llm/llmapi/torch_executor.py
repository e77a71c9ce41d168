"""The PyTorch backend's executor: the same loop, on the configuration of a Hugging Face model."""

from __future__ import annotations

import math
import os
from typing import Any

from tensorrt_llm._settings import error, line
from tensorrt_llm.executor.engine import Executor, Limits, Request
from tensorrt_llm.logger import logger, runtime_line


class TorchExecutor(Executor):
    """A model that is loaded, with its loop in a thread."""

    def __init__(self, config: dict[str, Any], limits: Limits, cache: Any, graphs: Any) -> None:
        self.config, self.vocabulary = config, config["vocab_size"]
        assert limits.max_batch_size is not None
        self.batch = limits.max_batch_size
        self.length = _sequence_length(config, limits.max_seq_len)
        self.max_input = self.length - 1
        self._fill_cache(limits, cache)
        if graphs is not None:
            self._capture(graphs, limits.max_num_tokens)
        self._begin()

    def _fill_cache(self, limits: Limits, cache: Any) -> None:
        heads = self.config["num_attention_heads"]
        size = self.config.get("head_dim") or self.config["hidden_size"] // heads
        kv_bytes = 2 * self.config["num_hidden_layers"] * size * (1 if cache.dtype == "fp8" else 2)
        kv_bytes *= self.config.get("num_key_value_heads", heads)
        tokens = self._share(kv_bytes, limits, cache.tokens_per_block)
        runtime_line(line("kv_allocated", gib=tokens * kv_bytes / 2**30, tokens=tokens))

    def _capture(self, graphs: Any, max_num_tokens: int | None) -> None:
        largest = min(self.batch, max_num_tokens or self.batch)
        sizes = [size for size in graphs.batch_sizes if size <= largest]
        if graphs.enable_padding and largest < graphs.batch_sizes[-1] and largest not in sizes:
            sizes.append(largest)
        logger.say("cuda_graphs", count=len(sizes))
        for size in reversed(sizes):
            logger.say("cuda_graph", size=size, length=self.length)

    def submit(self, request: Request) -> int:
        """Queue a request and return its number; one that cannot run answers with its error."""
        room = self.length - len(request.ids)
        if room > 0 and request.max_tokens is None:
            request.max_tokens = room
        elif 0 < room < request.max_tokens:
            logger.warn("fewer_new_tokens", value=request.max_tokens, limit=room)
            request.max_tokens = room
        return super().submit(request)

    def _refusal(self, request: Request) -> str:
        room = self.length - len(request.ids)
        if room <= 0:
            return error("no_room", room=room, limit=self.length, prompt=len(request.ids))
        if request.max_tokens <= 0:
            return error("no_tokens", value=request.max_tokens)
        if not all(0 <= number < self.vocabulary for number in request.ids):
            return error("token_range")
        return ""


def _sequence_length(config: dict[str, Any], wanted: int | None) -> int:
    """Return the longest sequence: the wanted one, as far as the model's positions go."""
    scaling = config.get("rope_scaling") or {}
    limit = int(config.get("max_position_embeddings") or 2048)
    kind = scaling.get("type", scaling.get("rope_type"))
    factor = 1 if kind in ("su", "longrope", "llama3", "yarn") else scaling.get("factor", 1)
    if factor != 1:
        limit = math.ceil(limit * factor)
        logger.warn("torch_scaled", value=limit, factor=factor)
    if wanted is None:
        logger.say("torch_length", value=limit)
        return limit
    allowed = os.environ.get("TLLM_ALLOW_LONG_MAX_MODEL_LEN", "0").lower()
    if wanted > limit and allowed not in ("1", "true", "yes", "y"):
        logger.warn("torch_shorter", value=wanted, limit=limit)
        return limit
    return wanted
