"""What trials are compared by: each figure with its unit, which way is better, and its interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.errors import InputError
from workbench.spec import nearest
from workbench.trial import Trial

HOUR, MILLION = 3600, 1_000_000


@dataclass(frozen=True)
class Axis:
    """One figure of a trial.

    Attributes:
        name: As `results.rows` calls it, or "cost".
        title: What it is, for people.
        unit: In which it is shown.
        higher: Whether more is better.
        scale: By which a recorded value is multiplied to have that unit.
    """

    name: str
    title: str
    unit: str
    higher: bool = False
    scale: float = 1.0

    @property
    def label(self) -> str:
        """Title and unit."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def shown(self, value: float) -> str:
        """Return a recorded value with its unit."""
        digits = self.digits(value)
        return f"${digits}" if self.unit == "$" else f"{digits} {self.unit}".rstrip()

    def digits(self, value: float) -> str:
        """Return a recorded value in the unit, with the digits that can mean something."""
        scaled = value * self.scale
        return f"{scaled:,.0f}" if abs(scaled) >= 999.5 else f"{scaled:.3g}"


THROUGHPUT = "output_tokens_per_second"
COST = "cost"

_TIMES = {"ttft": "TTFT", "itl": "ITL", "tpot": "TPOT", "e2e": "E2E latency", "queued": "Queued"}

AXES = {
    axis.name: axis
    for axis in (
        Axis(THROUGHPUT, "Throughput", "tokens/s", higher=True),
        Axis(f"{THROUGHPUT}_per_device", "Throughput per device", "tokens/s", higher=True),
        Axis(f"{THROUGHPUT}_per_user", "Throughput per user", "tokens/s", higher=True),
        Axis("requests_per_second", "Requests", "requests/s", higher=True),
        *(
            Axis(f"{name}.{part}", f"{title} {part}", "ms", scale=1000)
            for name, title in _TIMES.items()
            for part in ("p50", "p90", "p99", "mean")
        ),
        Axis(COST, "Cost of a million output tokens", "$"),
        Axis("engine.build_seconds", "Build time", "s"),
        Axis("engine.bytes", "Engine size", "MiB", scale=2**-20),
        Axis("engine.load_seconds", "Load time", "s"),
        Axis("memory.host_peak_bytes", "Peak host memory", "MiB", scale=2**-20),
        Axis("memory.gpu_bytes", "GPU memory", "MiB", scale=2**-20),
        Axis("quality.token_match", "Token match", "%", higher=True, scale=100),
        Axis("quality.mean_kl", "Mean KL", "nats/token"),
        Axis("quality.perplexity", "Perplexity", ""),
        Axis(f"predicted.{THROUGHPUT}", "Predicted throughput", "tokens/s", higher=True),
        Axis(
            f"predicted.{THROUGHPUT}_per_device",
            "Predicted throughput per device",
            "tokens/s",
            higher=True,
        ),
        Axis("predicted.ttft", "Predicted TTFT", "ms", scale=1000),
        Axis("predicted.itl", "Predicted ITL", "ms", scale=1000),
        Axis("predicted.e2e", "Predicted E2E latency", "ms", scale=1000),
    )
}
"""All axes by name. Times are recorded in seconds, sizes in bytes, shares from 0 to 1."""


def predicted_axis(axis: Axis) -> Axis | None:
    """Return the axis of what was predicted of a figure; None of what nobody predicts.

    The database predicts one time of each kind, which is compared with the mean and the median.
    """
    part, _, key = axis.name.partition(".")
    if key not in ("", "p50", "mean"):
        return None
    return AXES.get(f"predicted.{'itl' if part == 'tpot' else part}")


def find_axis(name: str) -> Axis:
    """Return an axis by its name.

    Raises:
        InputError: There is none.
    """
    if name not in AXES:
        raise InputError(
            f"There is no axis '{name}'.{nearest(name, AXES)} There is: {', '.join(AXES)}."
        )
    return AXES[name]


@dataclass(frozen=True)
class Interval:
    """The median of repetitions, and the lowest and highest of them.

    Few repetitions are usual, and their distribution is not known: the range claims nothing more
    than what was seen.
    """

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval | None:
        """Return the interval of some values; None of none."""
        if not values:
            return None
        return cls(statistics.median(values), min(values), max(values), len(values))


def cost_per_million(price: float, devices: int, tokens_per_second: float) -> float:
    """Return what a million tokens cost, in the currency of the price.

    Args:
        price: Of one device for an hour.
        devices: How many work on it.
        tokens_per_second: What they give together; more than 0.
    """
    return price * devices / (tokens_per_second * HOUR) * MILLION


def values_of(trial: Trial, name: str, price: float | None = None) -> list[float]:
    """Return a figure of a trial for each of its repetitions, or once where it has no more.

    Args:
        trial: A valid one.
        name: Of the axis.
        price: Of a device for an hour; without it there is no cost.
    """
    if name == COST:
        devices = int(trial.record.get("devices") or 1)
        speeds = values_of(trial, THROUGHPUT) if price is not None else []
        return [cost_per_million(price or 0.0, devices, speed) for speed in speeds if speed > 0]
    part, _, key = name.partition(".")
    if part in ("engine", "memory", "quality", "predicted"):
        return _numbers([(trial.record.get(part) or {}).get(key)])
    parts = trial.summary.get("repetitions") or [trial.summary]
    return _numbers(_figure(figures, part, key) for figures in parts)


def _figure(figures: Mapping[str, Any], part: str, key: str) -> Any:
    value = figures.get(part)
    return value.get(key) if key and isinstance(value, Mapping) else value


def _numbers(values: Iterable[Any]) -> list[float]:
    """Return those that are numbers; a record may come from elsewhere."""
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    return [float(value) for value in numbers if math.isfinite(value)]
