"""Timings of a generation, by the field's definitions.

TTFT is the time from the request to the first token; ITL the gaps between tokens; TPOT their
mean; E2E the time from the request to the last token. All in seconds; TTFT + sum(ITL) = E2E.
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Timings:
    """When a request was made, was started, and gave each token (monotonic clock, seconds).

    `tokens` has one time a token. All stamps are of one host: requests and tokens share a clock.

    From a server comes text in chunks, and a chunk is not always a token: then `tokens` has one
    time a chunk, ITL is the gap between chunks, and `counted` is the number of tokens, or None
    where nobody tells.
    """

    requested: float
    started: float | None
    tokens: tuple[float, ...]
    stamped: Literal["token", "chunk"] = "token"
    counted: int | None = None

    @property
    def output_tokens(self) -> int | None:
        """Number of tokens, or None where it is not known."""
        return len(self.tokens) if self.stamped == "token" else self.counted

    @property
    def queued(self) -> float | None:
        """Seconds from the request until the engine took it up."""
        return None if self.started is None else self.started - self.requested

    @property
    def ttft(self) -> float | None:
        """Time to first token."""
        return self.tokens[0] - self.requested if self.tokens else None

    @property
    def itl(self) -> tuple[float, ...]:
        """Inter-token latencies, one fewer than tokens."""
        return tuple(b - a for a, b in itertools.pairwise(self.tokens))

    @property
    def e2e(self) -> float | None:
        """Time to the last token."""
        return self.tokens[-1] - self.requested if self.tokens else None

    @property
    def tokens_per_second(self) -> float | None:
        """Decode speed: tokens after the first one by the time they took.

        Of chunks the first one is taken for one token; a little too fast where it had more.
        """
        count = self.output_tokens
        if count is None or len(self.tokens) < 2 or self.tokens[-1] <= self.tokens[0]:
            return None
        return (count - 1) / (self.tokens[-1] - self.tokens[0])

    def summary(self) -> dict[str, Any]:
        """Return the figures that panels and reports show, in seconds and tokens/s."""
        return {
            "output_tokens": self.output_tokens,
            "queued": self.queued,
            "ttft": self.ttft,
            "itl": asdict(percentiles(self.itl)) if self.itl else None,
            "e2e": self.e2e,
            "tokens_per_second": self.tokens_per_second,
        }


@dataclass(frozen=True)
class Percentiles:
    """p50, p90 and p99 of a set of values, and its mean."""

    mean: float
    p50: float
    p90: float
    p99: float


def percentiles(values: Sequence[float]) -> Percentiles:
    """Return percentiles with linear interpolation between ranks (numpy's default).

    Raises:
        ValueError: There are no values.
    """
    if not values:
        raise ValueError("percentiles of no values")
    if len(values) == 1:
        return Percentiles(values[0], values[0], values[0], values[0])
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return Percentiles(statistics.fmean(values), cuts[49], cuts[89], cuts[98])
