"""What TensorRT said of past engines' memory: it corrects what a session on a GPU takes.

    history/<backend>-<quantization>-engines.jsonl

One line a build whose log told what the weights and the activations of an engine take; of several
ranks, the fullest. As in `workbench.history`, a file holds one family; size, precision and device
stand in each line, with what had been predicted.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench import files
from workbench.backends import get_backend
from workbench.correction import corrected
from workbench.engine import Engine
from workbench.errors import WorkbenchError
from workbench.fit import Correct, Part
from workbench.hardware import Device
from workbench.history import ELSEWHERE, RECENT, family_file
from workbench.model import Model
from workbench.records import latest_of
from workbench.spec import BuildSpec

LOGGED = {"weights": "weights_bytes", "activations": "activation_bytes"}
"""Parts of a fit, and the facts of a build's journal that say what they take."""

NEAR = 0.01
"""How far a measured part may be from what was counted and still confirm it: logs leave out a
table of positions or a few scalars."""


def record(
    engine: Engine, spec: BuildSpec, model: Model, facts: Mapping[str, Any], device: str
) -> None:
    """Append what the log of a build said, where it said anything that was predicted.

    Whatever the disk says: the engine is there.

    Args:
        engine: What came out.
        spec: What was built.
        model: Its model.
        facts: Of the build's journal.
        device: Name of the GPU that it was built on.
    """
    measured = {part: facts.get(fact) for part, fact in LOGGED.items()}
    if not get_backend(spec.backend).corrected_fit or None in measured.values():
        return
    with contextlib.suppress(OSError, WorkbenchError):
        # Neither part depends on the GPU.
        fit = get_backend(spec.backend).fit(spec, model, Device(device, "gpu", 0, 0, 0, 0))
        line = {
            "time": time.time(),
            "engine": engine.key,
            "backend": spec.backend,
            "quantization": _of(spec, "quantization"),
            "dtype": _of(spec, "dtype"),
            "parameters": model.parameters,
            "device": device,
            "versions": dict(engine.manifest["identity"].get("toolchain", {})),
            "measured": measured,
            "predicted": {p.name: [p.low, p.high] for p in fit.parts if p.name in LOGGED},
        }
        path = _file(spec)
        files.make_folder(path.parent)
        files.append_line(path, line, sync=True)


def correction(spec: BuildSpec, parameters: int, device: str) -> Correct:
    """Return what corrects the parts of a fit by the latest builds like it.

    Alike are builds of the same backend, weight precision and compute precision, of models with at
    least half and at most twice the parameters; on the same kind of GPU where there are any, else
    on any, and the words say so. As in `correction.corrected_need`, three of them narrow a range
    and fewer only widen it. What was counted exactly stays so where they confirm it.

    Args:
        spec: What would be opened.
        parameters: Of its model.
        device: Name of the GPU.
    """
    builds = [
        past
        for past in latest_of(_file(spec), _past)
        if parameters / 2 <= past.parameters <= parameters * 2 and past.dtype == _of(spec, "dtype")
    ]
    here = [past for past in builds if past.device == device]
    alike, note = (here[-RECENT:], "") if here else (builds[-RECENT:], ELSEWHERE)

    def correct(part: Part) -> Part:
        return _corrected(part, [past.ratios[part.name] for past in alike], note)

    return correct


def _corrected(part: Part, ratios: list[float], note: str) -> Part:
    if not ratios:
        return part
    if part.exact and all(abs(ratio - 1) < NEAR for ratio in ratios):
        builds = f"{len(ratios)} build{'s' if len(ratios) > 1 else ''} like this{note}"
        return replace(part, measured=f"exact, as measured on {builds}")
    return replace(corrected(part, ratios, note), exact=False)


@dataclass(frozen=True)
class _Past:
    """One build; `ratios` are of what was measured to the most that was predicted, by part."""

    parameters: int
    dtype: str
    device: str
    ratios: Mapping[str, float]


def _file(spec: BuildSpec) -> Path:
    return family_file(spec.backend, _of(spec, "quantization"), "engines")


def _of(spec: BuildSpec, name: str) -> str:
    return str(getattr(spec, name, "") or "")


def _past(values: Mapping[str, Any]) -> _Past | None:
    """Return what a line says, or None where it holds no record."""
    try:
        ratios = {part: values["measured"][part] / values["predicted"][part][1] for part in LOGGED}
        past = _Past(int(values["parameters"]), str(values["dtype"]), str(values["device"]), ratios)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, IndexError):
        return None
    return past if all(math.isfinite(r) and r > 0 for r in ratios.values()) else None
