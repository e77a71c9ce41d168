"""Many generations at once on one session, and what they take together."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from workbench.errors import InputError, WorkbenchError
from workbench.generation import Generation
from workbench.metrics import percentiles
from workbench.opened import Opened, Prompt
from workbench.sampling import Sampling

MOST = 256
"""Generations that one batch may have: each is a line on the page."""

_LAST = 60
"""Characters of a text that its line shows."""


@dataclass(frozen=True)
class Row:
    """How far one generation is. `last_words` has no line breaks."""

    number: int
    phase: str
    tokens: int
    tokens_per_second: float | None
    last_words: str


class Batch:
    """Generations that were started together."""

    def __init__(self, generations: Sequence[Generation]) -> None:
        self.generations = list(generations)

    @classmethod
    def start(cls, session: Opened, requests: Sequence[tuple[Prompt, Sampling]]) -> Batch:
        """Start a generation for each request.

        Raises:
            InputError: There is none, or there are too many.
            WorkbenchError: One of them is refused; then those before it are stopped.
        """
        if not 1 <= len(requests) <= MOST:
            raise InputError(f"Send between 1 and {MOST} prompts at once; got {len(requests)}.")
        batch = cls([])
        try:
            for prompt, sampling in requests:
                batch.generations.append(session.generate(prompt, sampling))
        except WorkbenchError:
            batch.cancel()
            raise
        return batch

    @property
    def ended(self) -> bool:
        """Whether all have ended."""
        return all(generation.finished.is_set() for generation in self.generations)

    def cancel(self) -> None:
        """Stop all of them."""
        for generation in self.generations:
            generation.cancel()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until all have ended, however they did.

        Raises:
            TimeoutError: One goes on after `timeout` seconds.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        for generation in self.generations:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not generation.finished.wait(left):
                raise TimeoutError(f"A generation goes on after {timeout} s.")

    def rows(self) -> list[Row]:
        """Return how far each one is."""
        return [_row(number, one) for number, one in enumerate(self.generations, 1)]

    def totals(self) -> dict[str, Any]:
        """Return what they took together so far, as plain values; quick.

        "tokens_per_second" is the output throughput: all tokens by the time from the first
        request to the last token.
        """
        timings = [one.timings for one in self.generations]
        tokens = sum(t.output_tokens or 0 for t in timings)
        last = max((t.tokens[-1] for t in timings if t.tokens), default=None)
        seconds = last - min(t.requested for t in timings) if last is not None else None
        return {
            "streams": len(timings),
            "output_tokens": tokens,
            "seconds": seconds,
            "tokens_per_second": tokens / seconds if seconds else None,
            "failed": sum(one.phase == "failed" for one in self.generations),
            "stopped": sum(one.phase == "stopped" for one in self.generations),
        }

    def record(self) -> dict[str, Any]:
        """Return the totals, and the medians of TTFT and ITL over all streams, in seconds."""
        timings = [one.timings for one in self.generations]
        ttft = [t.ttft for t in timings if t.ttft is not None]
        itl = [gap for t in timings for gap in t.itl]
        return {
            **self.totals(),
            "ttft_p50": percentiles(ttft).p50 if ttft else None,
            "itl_p50": percentiles(itl).p50 if itl else None,
        }


def _row(number: int, generation: Generation) -> Row:
    timings = generation.timings
    words = " ".join(generation.text[-2 * _LAST :].split())
    if generation.error:
        words = str(generation.error)
    phase: str = generation.phase
    if phase == "queued" and generation.queue_place:
        phase = f"queued, place {generation.queue_place}"
    tokens = timings.output_tokens
    return Row(
        number,
        phase,
        len(timings.tokens) if tokens is None else tokens,
        timings.tokens_per_second,
        words[-_LAST:],
    )


def requests(
    prompts: Sequence[Prompt], sampling: Sampling, count: int | None = None
) -> list[tuple[Prompt, Sampling]]:
    """Return a request for each prompt, or `count` of them that take turns with the prompts.

    Each has a seed of its own, the first one that of `sampling`, so that one prompt gives
    different texts where it is sampled, and the same ones the next time.

    Raises:
        InputError: There is no prompt.
    """
    if not prompts:
        raise InputError("There is no prompt to send. Write one a line.")
    first = sampling.with_seed().seed or 0
    return [
        (prompts[n % len(prompts)], sampling.replace(seed=(first + n) % 2**31))
        for n in range(len(prompts) if count is None else count)
    ]
