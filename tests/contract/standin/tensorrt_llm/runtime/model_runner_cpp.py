"""ModelRunnerCpp: whole batches, and tensors that hold everything so far."""

from __future__ import annotations

import json
import queue
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tensorrt_llm._settings import error, follows
from tensorrt_llm.executor.engine import Executor, Limits, Request, Response
from tensorrt_llm.logger import logger


class ModelRunnerCpp:
    """Wraps an executor whose answers all arrive in one queue."""

    def __init__(self, executor: Executor, **limits: int) -> None:
        self.session = executor
        self.max_batch_size = limits["max_batch_size"]
        self.max_input_len = limits["max_input_len"]
        self.max_seq_len = limits["max_seq_len"]
        self.max_beam_width = limits["max_beam_width"]
        self._answers: queue.Queue[Response] = queue.Queue()

    @classmethod
    def from_dir(cls, *given: Any, **named: Any) -> ModelRunnerCpp:
        """Load an engine.

        Raises:
            AssertionError: A limit is above the engine's.
            RuntimeError: The engine does not load.
        """
        runner: ModelRunnerCpp = _from_dir(cls, *given, **named)
        return runner

    @property
    def vocab_size(self) -> int:
        """How many tokens the model knows."""
        return int(self.session.vocabulary)

    def _check_inputs(self, ids: list[list[int]], beams: int, tokens: int) -> None:
        if len(ids) > self.max_batch_size:
            values = {"value": len(ids), "limit": self.max_batch_size}
            raise RuntimeError(error("runner_batch", **values))
        longest = max(len(row) for row in ids)
        if longest > self.max_input_len:
            values = {"value": longest, "limit": self.max_input_len}
            raise RuntimeError(error("runner_input", **values))
        if longest + tokens > self.max_seq_len:
            values = {"value": longest, "tokens": tokens, "limit": self.max_seq_len}
            raise RuntimeError(error("runner_length", **values))
        if beams > self.max_beam_width:
            values = {"value": beams, "limit": self.max_beam_width}
            raise RuntimeError(error("runner_beams", **values))

    @follows("ModelRunnerCpp.generate")
    def generate(self, **given: Any) -> Any:
        """Generate for a batch of tensors of ids.

        Streaming gives an iterator of {"output_ids": int32 (batch, 1, max_seq_len), prompt first
        and `end_id` after the last token; "sequence_lengths": int32 (batch, 1)}; without it, the
        last of these. Without return_dict, the tensor alone.
        """
        if given["stopping_criteria"] is not None:
            raise RuntimeError(error("stopping"))
        ids = [row.tolist() for row in given["batch_input_ids"]]
        self._check_inputs(ids, given.get("num_beams") or 1, given["max_new_tokens"])
        stops = given["stop_words_list"] or [[]] * len(ids)
        chance = any(given.get(name) for name in ("temperature", "top_p")) and (
            given.get("top_k") != 1
        )
        seed = (given.get("random_seed") or 0) + 1 if chance else 0
        numbers = [
            self.session.submit(
                Request(
                    row,
                    given["max_new_tokens"],
                    given["end_id"],
                    self._answers,
                    seed=seed,
                    stops=words or [],
                    streaming=True,
                )
            )
            for row, words in zip(ids, stops, strict=True)
        ]
        steps = self._stream(numbers, ids, given)
        if given["streaming"]:
            return steps
        *_, last = steps
        return last

    def _stream(
        self, numbers: list[int], ids: list[list[int]], given: dict[str, Any]
    ) -> Iterator[Any]:
        rows = [list(row) for row in ids]
        open_ = set(numbers)
        while open_:
            responses = [self._answers.get()]
            while not self._answers.empty():
                responses.append(self._answers.get())
            for response in responses:
                if response.error:
                    raise RuntimeError(response.error)
                # A response to another call's request is an error here, as in the library.
                rows[numbers.index(response.request_id)] += response.tokens
                if response.final:
                    open_.discard(response.request_id)
            yield self._tensors(rows, given)

    def _tensors(self, rows: list[list[int]], given: dict[str, Any]) -> Any:
        import torch

        padded = [[row + [given["end_id"]] * (self.max_seq_len - len(row))] for row in rows]
        ids = torch.tensor(padded, dtype=torch.int32)
        if not given["return_dict"]:
            return ids
        made = {"output_ids": ids}
        if given["output_sequence_lengths"]:
            lengths = [[len(row)] for row in rows]
            made["sequence_lengths"] = torch.tensor(lengths, dtype=torch.int32)
        return made


@follows("ModelRunnerCpp.from_dir")
def _from_dir(cls: type[ModelRunnerCpp], **given: Any) -> ModelRunnerCpp:
    begin = time.time()
    directory = Path(given["engine_dir"])
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    assert given["rank"] == 0
    build = config["build_config"]
    batch = given["max_batch_size"] or build["max_batch_size"]
    assert batch <= build["max_batch_size"]
    longest = given["max_input_len"] or build["max_input_len"]
    length = build["max_seq_len"]
    if given["max_output_len"] is not None:
        length = longest + given["max_output_len"]
        assert length <= build["max_seq_len"]
    beams = given["max_beam_width"] or build["max_beam_width"]
    assert beams <= build["max_beam_width"]
    limits = Limits(
        max_batch_size=batch,
        max_beam_width=beams,
        kv_fraction=given["kv_cache_free_gpu_memory_fraction"],
        kv_tokens=given["max_tokens_in_paged_kv_cache"],
        chunked_context=given["enable_chunked_context"],
    )
    executor = Executor(directory, limits)
    logger.say("loaded_in", seconds=time.time() - begin)
    return cls(
        executor,
        max_batch_size=batch,
        max_input_len=longest,
        max_seq_len=length,
        max_beam_width=beams,
    )


ModelRunnerCpp.from_dir.__func__.__signature__ = _from_dir.__signature__  # type: ignore[attr-defined]
