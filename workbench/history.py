"""What past builds of this store took: the honest basis of an expected time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.store import list_engines


@dataclass(frozen=True)
class Range:
    """Shortest and longest time of a stage in a number of past builds, in seconds."""

    low: float
    high: float
    builds: int

    def __str__(self) -> str:
        builds = f"{self.builds} build{'s' if self.builds > 1 else ''} like this"
        if round(self.low) == round(self.high):
            return f"{self.high:.0f} s in {builds}"
        return f"{self.low:.0f}-{self.high:.0f} s in {builds}"


def stage_ranges(backend: str, quantization: str, parameters: int) -> dict[str, Range]:
    """Return how long each stage took in builds like this one.

    Alike are builds of the same backend and weight precision, of models with at least half and
    at most twice the parameters.
    """
    times: dict[str, list[float]] = {}
    for engine in list_engines():
        if not _alike(engine.manifest, backend, quantization, parameters):
            continue
        for stage in engine.manifest["build"]["stages"]:
            times.setdefault(stage["name"], []).append(float(stage["seconds"]))
    return {name: Range(min(t), max(t), len(t)) for name, t in times.items()}


def _alike(manifest: Mapping[str, Any], backend: str, quantization: str, parameters: int) -> bool:
    spec = manifest["identity"]["spec"]
    size = manifest["model"]["parameters"]
    return bool(
        spec["backend"] == backend
        and spec.get("quantization") == quantization
        and parameters / 2 <= size <= parameters * 2
    )
