"""Estimates of memory, corrected by what builds and sessions like this one have taken."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from workbench.fit import BuildNeed, Part
from workbench.history import alike
from workbench.units import format_bytes

MARGIN = 1.1
"""What a corrected range is wider by than the measured one, at either end."""

ENOUGH = 3
"""Builds from which on a range is narrowed; fewer only widen it."""


def corrected_need(
    need: BuildNeed, backend: str, quantization: str, parameters: int, device: str = ""
) -> BuildNeed:
    """Return what a build needs, with memory corrected by the latest builds like this one.

    For each of those builds, the measured peak is divided by the high end of what had been
    predicted for it. The least and the most of these ratios, with a margin of a tenth, times the
    high end of this prediction are the new range; with one or two builds, the range from the
    least to the most of both. The ratio takes size out of the comparison, but not the habits of
    another version: 20 builds on, only the present one counts. What was predicted, and by how
    many builds it was corrected, stands in `Part.measured`.

    Args:
        need: As predicted.
        backend: As the others, see `history.stage_ranges`.
        quantization: As there.
        parameters: As there.
        device: As there.
    """
    builds, note = alike(backend, quantization, parameters, device)
    memory = [_ratio(past.memory, past.predicted.get("memory")) for past in builds]
    # Where nothing is compiled, a peak has the KV cache of the stage that tries the engine.
    compiled = builds if need.devices else []
    on_gpu = [_ratio(past.gpu_memory, past.predicted.get("GPU memory")) for past in compiled]
    return replace(
        need,
        memory=corrected(need.memory, memory, note),
        device=corrected(need.device, on_gpu, note) if need.device else None,
    )


def _ratio(peak: int | None, predicted: int | None) -> float | None:
    return peak / predicted if peak and predicted else None


def corrected(part: Part, found: Iterable[float | None], note: str, what: str = "build") -> Part:
    """Return a part with its range corrected by ratios of measured to predicted, if any.

    Args:
        part: As predicted.
        found: Of each that was measured, what it took by the high end of its prediction.
        note: Where they are less like this one than one may think.
        what: "build" or "session".
    """
    ratios = [ratio for ratio in found if ratio]
    if not ratios:
        return part
    least, most = min(ratios), max(ratios)
    low, high = int(part.high * least / MARGIN), int(part.high * most * MARGIN)
    past = f"{len(ratios)} {what}{'s' if len(ratios) > 1 else ''} like this{note}"
    took = f"{least:.0%}" if f"{least:.0%}" == f"{most:.0%}" else f"{least:.0%} to {most:.0%}"
    if len(ratios) < ENOUGH:
        low, high = min(low, part.low), max(high, part.high)
        return replace(
            part, low=low, high=high, measured=f"estimate; {past} took {took} of the most"
        )
    before = f"{format_bytes(part.low)} to {format_bytes(part.high)}"
    words = f"measured on {past}, which took {took} of the most; {before} by arithmetic alone"
    return replace(part, low=low, high=high, measured=words)
