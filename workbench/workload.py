"""Workload: which requests are sent to an engine, and when. Declared once, and deterministic."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, Self

from pydantic import model_validator

from workbench.spec import Declared, parameter

WARMUP = -1
"""Number of the repetition that is not counted."""


class Longest(NamedTuple):
    """Most tokens of any request: of its input, of its output, and of both together."""

    input: int
    output: int
    both: int


class Workload(Declared):
    """Prompts or lengths, arrivals, and how often. The same values make the same requests."""

    prompts: str | None = parameter(
        None,
        min_length=1,
        help="A file of prompts in place of made ones: one a line, or JSON lines with prompt, "
        "messages or input_ids, and output_tokens where they differ.",
        group="Requests",
        none_means="random tokens of input_len",
        source="trtllm-bench --dataset",
    )
    input_len: int = parameter(
        128,
        ge=1,
        help="Input tokens of a request (ISL); their mean where they differ.",
        unit="tokens",
        group="Requests",
    )
    input_stdev: float = parameter(
        0.0,
        ge=0.0,
        help="Standard deviation of the input length; 0 makes all the same.",
        unit="tokens",
        group="Requests",
        source="trtllm-bench prepare-dataset token-norm-dist",
    )
    output_len: int = parameter(
        64,
        ge=1,
        help="Output tokens of a request (OSL); their mean where they differ.",
        unit="tokens",
        group="Requests",
    )
    output_stdev: float = parameter(
        0.0,
        ge=0.0,
        help="Standard deviation of the output length; 0 makes all the same.",
        unit="tokens",
        group="Requests",
        source="trtllm-bench prepare-dataset token-norm-dist",
    )
    ignore_eos: bool = parameter(
        default=True,
        help="Generate the whole output length, also after the model has said that it is finished.",
        group="Requests",
    )
    concurrency: int = parameter(
        1,
        ge=1,
        le=4096,
        help="Requests that are under way at the same time: as soon as one ends, the next is sent. "
        "With a request_rate it has no effect.",
        unit="requests",
        group="Load",
    )
    request_rate: float | None = parameter(
        None,
        gt=0.0,
        help="Requests sent a second, whatever has become of the ones before (an open loop).",
        unit="requests/s",
        group="Load",
        none_means="as concurrency allows",
    )
    arrivals: Literal["poisson", "constant"] = parameter(
        "poisson",
        help="How requests of a rate are spread: at random, as independent users send them, or "
        "evenly.",
        group="Load",
    )
    requests: int = parameter(
        16,
        ge=1,
        help="Requests of one repetition.",
        unit="requests",
        group="Load",
    )
    warmup: int = parameter(
        2,
        ge=0,
        help="Requests that are sent before and not counted.",
        unit="requests",
        group="Load",
    )
    repetitions: int = parameter(
        1,
        ge=1,
        help="How often it is measured, each time with other prompts, so that no cache knows them.",
        group="Load",
    )
    seed: int = parameter(
        0,
        ge=0,
        help="Decides lengths, random tokens and arrivals.",
        group="Load",
    )

    @model_validator(mode="after")
    def _lengths(self) -> Self:
        """Refuse lengths that a distribution cannot have: it is cut at 1 and as far above.

        Raises:
            ValueError: The deviation is as large as the mean.
        """
        for name in ("input", "output"):
            mean, deviation = getattr(self, f"{name}_len"), getattr(self, f"{name}_stdev")
            if deviation and deviation >= mean:
                raise ValueError(
                    f"{name}_stdev {deviation:g} must be below {name}_len {mean}: no request has "
                    "less than one token."
                )
        return self

    def longest(self) -> Longest:
        """Return the most tokens of any made request, as they are drawn, warm-up included."""
        if not (self.input_stdev or self.output_stdev):
            return Longest(self.input_len, self.output_len, self.input_len + self.output_len)
        numbers = (WARMUP, *range(self.repetitions))
        pairs = [pair for number in numbers for pair in self.lengths(number, self.count(number))]
        inputs, outputs = zip(*pairs, strict=True)
        return Longest(max(inputs), max(outputs), max(map(sum, pairs)))

    def count(self, repetition: int) -> int:
        """Return how many requests a repetition has, or the warm-up."""
        return self.warmup if repetition == WARMUP else self.requests

    def lengths(self, repetition: int, count: int) -> list[tuple[int, int]]:
        """Return the input and output tokens of so many requests of a repetition."""
        draw = self._random("lengths", repetition)
        return [
            (
                _length(draw, self.input_len, self.input_stdev),
                _length(draw, self.output_len, self.output_stdev),
            )
            for _ in range(count)
        ]

    def schedule(self, repetition: int) -> list[float] | None:
        """Return when each request is sent, in seconds from the start; None for a closed loop."""
        if self.request_rate is None:
            return None
        draw = self._random("arrivals", repetition)
        times, now = [], 0.0
        for _ in range(self.requests):
            times.append(now)
            even = self.arrivals == "constant"
            now += 1 / self.request_rate if even else draw.expovariate(self.request_rate)
        return times

    def draws(self, repetition: int, salt: str = "") -> Iterator[random.Random]:
        """Yield a source of random tokens for each request of a repetition, in order.

        Args:
            repetition: Its number.
            salt: Other tokens for each value, where what is measured remembers former ones.
        """
        for number in itertools.count():
            yield self._random(*filter(None, ["tokens", salt]), repetition, number)

    def _random(self, *what: object) -> random.Random:
        """Return a source of its own for each purpose, so that none disturbs another."""
        # A text as seed is hashed by random itself, the same in every process.
        return random.Random(":".join(map(str, (self.seed, *what))))  # noqa: S311 - no secret

    def words(self) -> dict[str, Any]:
        """Return the values that are not the defaults."""
        return self.model_dump(mode="json", exclude_defaults=True)


def _length(draw: random.Random, mean: int, deviation: float) -> int:
    """Return a length of the normal distribution, cut evenly on both sides so its mean stays."""
    if not deviation:
        return mean
    return min(max(1, round(draw.gauss(mean, deviation))), 2 * mean - 1)
