"""Fit: a memory estimate, its parts and its verdict on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from workbench.units import format_bytes

if TYPE_CHECKING:
    from workbench.hardware import Device

Verdict = Literal["fits", "tight", "does not fit", "unknown"]


@dataclass(frozen=True)
class Part:
    """One use of memory, from `low` to `high` bytes; `how` says where the numbers come from.

    `remedy` says what to do where this is the largest part; without one, `REMEDIES` does.
    `measured` says what the numbers rest on where `exact` does not tell all: the past builds that
    corrected a range, and what it was before; or config.json.
    """

    name: str
    low: int
    high: int
    exact: bool
    how: str
    remedy: str = ""
    measured: str = ""

    @property
    def basis(self) -> str:
        """Where the numbers come from, in a word or, where they were measured, a few."""
        return self.measured or ("exact" if self.exact else "estimate")


Correct = Callable[[Part], Part]
"""Returns a part as what was measured corrects it."""


def as_predicted(part: Part) -> Part:
    """Return a part as it is."""
    return part


@dataclass(frozen=True)
class Ranks:
    """Ranks, from `first` to `last`, that hold the same, on GPUs that have the same left.

    Tensor parallelism gives each GPU of a pipeline stage an equal share.
    """

    first: int
    last: int
    parts: tuple[Part, ...]
    device: Device

    @property
    def title(self) -> str:
        """What these ranks are called."""
        if self.first == self.last:
            return f"rank {self.first}"
        return f"ranks {self.first}-{self.last}"


@dataclass(frozen=True)
class BuildNeed:
    """What a build needs.

    Attributes:
        memory: Of the host, at its peak.
        disk: In the engine store, at its peak: what is written beside the final files counts.
        engine: Least bytes that stay of it: the engine's files. 0 where nobody knows.
        device: On each GPU that it compiles or is tried on; None where it takes none.
        devices: GPUs that it compiles on at the same time; 0 where it compiles on none.
        ranks: GPUs that the engine is loaded on when it is tried; 0 where it is not.
    """

    memory: Part
    disk: Part
    device: Part | None = None
    devices: int = 1
    ranks: int = 1
    engine: int = 0

    @property
    def untried(self) -> BuildNeed:
        """The same without the stage that loads the engine."""
        return replace(self, ranks=0)


@dataclass(frozen=True)
class Fit:
    """The memory that a session takes on a device.

    Attributes:
        device: What it would run on, of several GPUs the one with the least free memory; without
            memory where there is none to compare with.
        weights: The engine's weights.
        kv_cache: The KV cache when it is full.
        activations: What one step computes with.
        runtime: The process without a model.
        kv_tokens: Tokens that the KV cache holds for all requests together.
        full_length_requests: Requests of max_seq_len tokens that it holds at the same time.
        ranks: What each GPU holds, where it runs on several; together they are all ranks. The
            parts above are those of the fullest, part by part.
    """

    device: Device
    weights: Part
    kv_cache: Part
    activations: Part
    runtime: Part
    kv_tokens: int
    full_length_requests: int
    ranks: tuple[Ranks, ...] = ()

    @property
    def parts(self) -> tuple[Part, ...]:
        """All parts, in the order in which people read them."""
        return (self.weights, self.kv_cache, self.activations, self.runtime)

    def from_configuration(self) -> Fit:
        """Return the same, saying that the weights were counted from config.json."""
        words = f"{self.weights.basis}, by config.json"
        return replace(self, weights=replace(self.weights, measured=words))

    @property
    def total_low(self) -> int:
        """Least bytes that are needed."""
        return sum(part.low for part in self.parts)

    @property
    def total_high(self) -> int:
        """Most bytes that are needed."""
        return sum(part.high for part in self.parts)

    @property
    def free_low(self) -> int:
        """Available bytes that are left at the least; negative where they do not suffice."""
        return self.device.memory_available - self.total_high

    @property
    def free_high(self) -> int:
        """Available bytes that are left at the most; negative where they do not suffice."""
        return self.device.memory_available - self.total_low

    @property
    def verdict(self) -> Verdict:
        """Whether the whole range, a part of it or nothing of it is available now."""
        if not self.device.memory_bytes:
            return "unknown"
        if self.free_low >= 0:
            return "fits"
        return "tight" if self.free_high >= 0 else "does not fit"

    @property
    def summary(self) -> str:
        """The verdict in one sentence with its numbers."""
        low, high = format_bytes(self.total_low), format_bytes(self.total_high)
        available = format_bytes(self.device.memory_available)
        one = self.full_length_requests == 1
        holds = (
            f"the KV cache holds {self.kv_tokens:,} tokens, {self.full_length_requests} "
            f"request{'' if one else 's'} of full length"
        )
        largest = max(self.parts, key=lambda part: part.low)
        remedy = largest.remedy or REMEDIES[largest.name]
        if self.verdict == "unknown":
            return (
                f"Unknown: {low} to {high} are needed, and no NVIDIA GPU was found to compare "
                f"with; at the most {holds}."
            )
        if self.verdict == "fits":
            return f"Fits: {low} to {high} of {available} available; {holds}."
        if self.verdict == "tight":
            return (
                f"Tight: {low} to {high} are needed and {available} are available; {holds}; to be "
                f"safe, {remedy}."
            )
        return (
            f"Does not fit: at least {low} are needed and {available} are available, and most is "
            f"for the {largest.name}; {remedy}."
        )


REMEDIES = {
    "weights": "choose a smaller quantization or a smaller model",
    "KV cache": "lower kv_cache_tokens or choose a smaller kv_cache_dtype",
    "activations": "lower max_num_tokens or max_seq_len",
    "runtime": "close other programs",
}
"""What to do about the largest part."""
