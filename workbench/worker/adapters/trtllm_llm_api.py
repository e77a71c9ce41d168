"""The LLM API of TensorRT-LLM as a runtime: engines, and checkpoints on its PyTorch backend."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

from .tensorrt_llm_session import Step


class LlmApi:
    """A loaded `LLM`; its own scheduler batches all requests."""

    concurrent = 1 << 20

    def __init__(
        self, llm: Any, ends: list[int], lacks: dict[str, str], *, metrics: bool = True
    ) -> None:
        self._llm = llm
        self._ends = ends
        self.lacks = lacks
        self._metrics = metrics

    async def generate(
        self, ids: list[int], length: int, sampling: dict[str, Any]
    ) -> AsyncIterator[Step]:
        """Generate after `ids`; closing the iterator aborts the request.

        One object stands for the whole output and is written over at each step, so only what is
        new is copied out of it, by count: it may also shrink, when a stop token is taken back.
        """
        parameters = sampling_parameters(length, sampling, self._ends, metrics=self._metrics)
        handle = self._llm.generate_async(
            {"prompt_token_ids": ids}, sampling_params=parameters, streaming=True
        )
        seen = 0
        finished = False
        try:
            async for output in handle:
                completion = output.outputs[0]
                first = seen
                new = list(completion.token_ids[seen:])
                seen += len(new)
                if not sampling["ignore_eos"]:
                    # Whether an end token is given out differs between the backends.
                    new = until_end(new, self._ends)
                rows = list(completion.logprobs or [])[first : first + len(new)]
                logprobs = _logprobs(rows, new) if asks_probabilities(sampling) else []
                others = _others(rows, sampling["top_logprobs"])
                finished = bool(output.finished)
                reason = (completion.finish_reason or "stop") if finished else ""
                metrics = _metrics(completion) if finished else {}
                yield Step(new, logprobs, others, reason, metrics)
        finally:
            if not finished:
                # Of a runtime that has broken down, this only says so once more.
                with contextlib.suppress(Exception):
                    handle.abort()

    def broken(self) -> bool:
        """Whether its executor has shut down, as it does after a serious error."""
        executor = getattr(self._llm, "_executor", None)
        return executor is None or bool(executor.is_shutdown())

    def close(self) -> None:
        """End the runtime's processes and free the GPU."""
        self._llm.shutdown()


def asks_probabilities(sampling: dict[str, Any]) -> bool:
    """Whether the probability of each token is wanted, alone or with those of others."""
    return bool(sampling["logprobs"] or sampling["top_logprobs"])


def until_end(ids: list[int], ends: list[int]) -> list[int]:
    """Return the ids before the first end token."""
    return list(itertools.takewhile(lambda number: number not in ends, ids))


def sampling_parameters(
    length: int, sampling: dict[str, Any], ends: list[int], *, metrics: bool
) -> Any:
    """Return SamplingParams; options at their neutral value are left to the library.

    With a temperature, top_k and top_p are always given: the C++ runtime takes both at 0, its own
    defaults, as greedy, whatever the temperature.
    """
    from tensorrt_llm import SamplingParams

    options: dict[str, Any] = {
        "max_tokens": length,
        "detokenize": False,
        "ignore_eos": sampling["ignore_eos"],
        "return_perf_metrics": metrics,
    }
    if ends:
        options["end_id"] = ends[0]
        options["pad_id"] = ends[0]
        if ends[1:]:
            options["stop_token_ids"] = ends[1:]
    if asks_probabilities(sampling):
        options["logprobs"] = max(1, sampling["top_logprobs"])
    options.update(chosen_options(sampling))
    if form := guide(sampling):
        from tensorrt_llm.llmapi import GuidedDecodingParams

        options["guided_decoding"] = GuidedDecodingParams(**form)
    return SamplingParams(**options)


def guide(sampling: dict[str, Any]) -> dict[str, str]:
    """Return the form of the output under the names of GuidedDecodingParams; empty without one."""
    names = {"json": "json_schema", "regex": "regex"}
    return {name: sampling[ours] for name, ours in names.items() if sampling[ours]}


def chosen_options(sampling: dict[str, Any]) -> dict[str, Any]:
    """Return the options that differ from greedy decoding, under TensorRT-LLM's names."""
    neutral = {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
    options = {name: sampling[name] for name, none in neutral.items() if sampling[name] != none}
    if sampling["temperature"] > 0:
        options["temperature"] = sampling["temperature"]
        options["top_k"] = sampling["top_k"]
        options["top_p"] = sampling["top_p"]
        options["seed"] = sampling["seed"]
        if sampling["min_p"]:
            options["min_p"] = sampling["min_p"]
    return options


def _logprobs(rows: list[Any], new: list[int]) -> list[float]:
    """Return the log-probability of each new token: plain numbers, or by token id.

    Raises:
        ValueError: The runtime tells of other tokens alone.
    """
    found = []
    for number, row in zip(new, rows, strict=True):
        if isinstance(row, dict) and number not in row:
            raise ValueError(
                f"this release tells no probability of the token {number}, which is none of the "
                "most probable ones. Ask without logprobs, or with temperature 0"
            )
        found.append(float(row[number].logprob if isinstance(row, dict) else row))
    return found


def _others(rows: list[Any], count: int) -> list[list[tuple[int, float]]]:
    """Return the most probable tokens of each place, best first; empty where nobody asked.

    A row may have one more than was asked for, the token that was chosen.
    """
    if not count:
        return []
    told = [[(int(n), float(one.logprob)) for n, one in row.items()] for row in rows]
    return [sorted(row, key=lambda one: -one[1])[:count] for row in told]


def _metrics(completion: Any) -> dict[str, float]:
    """Return what the runtime itself measured, in seconds; empty where it measured nothing."""
    measured: Any = getattr(completion, "request_perf_metrics", None)
    timing: Any = getattr(measured, "timing_metrics", None)
    names = {
        "queue_seconds": "first_scheduled_time",
        "ttft_seconds": "first_token_time",
        "e2e_seconds": "last_token_time",
    }
    found = {}
    for name, field in names.items():
        # They are of C++ and differ between releases; a time that is not set is below the other.
        with contextlib.suppress(AttributeError, TypeError, ValueError):
            seconds = (getattr(timing, field) - timing.arrival_time).total_seconds()
            if seconds >= 0:
                found[name] = seconds
    with contextlib.suppress(AttributeError, TypeError, ValueError):
        found["kv_cache_hit_rate"] = float(measured.kv_cache_metrics.kv_cache_hit_rate)
    return found
