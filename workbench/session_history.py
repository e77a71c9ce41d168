"""What past sessions took of the host's memory: it corrects what the next one is expected to take.

    history/<backend>-<quantization>-sessions.jsonl

One line a session that was opened from the store, has generated and was closed. As in
`workbench.history`, a file holds one family; size, precision and device stand in each line.

What a session takes follows from what it is asked: a KV cache that nobody fills is mostly not
there. So weights and runtime alone are corrected, which are there whatever is asked, by what is
left of the peak without the KV cache: without what it was seen to hold at the same time, which is
the most that can be left, and without all that it ever held, which is the least. What may have been
the KV cache narrows a range too little, and never widens one. Activations stay as predicted, though
what was measured has them too: rather too much is expected than too little.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench import engine_history, files, hub
from workbench.backends import get_backend, make_spec
from workbench.checkpoint import is_complete
from workbench.correction import MARGIN, corrected
from workbench.engine import Engine
from workbench.errors import WorkbenchError
from workbench.fit import Fit, Part
from workbench.gpus import list_gpus
from workbench.hardware import Device, host
from workbench.history import ELSEWHERE, RECENT, family_file
from workbench.model import HUB_ID, Model, directory_of
from workbench.records import latest_of
from workbench.session_peak import SessionPeak
from workbench.spec import BuildSpec, parameters_of


def expected_fit(spec: BuildSpec, model: Model, device: Device) -> Fit:
    """Return the memory that a session takes, corrected by the latest sessions like it.

    Of a backend whose builds log what an engine takes, by those: see `workbench.engine_history`.

    Alike are sessions of the same backend, weight precision and compute precision, of models with
    at least half and at most twice the parameters; on the same kind of device where there are any,
    else on any, and the words say so. As in `correction.corrected_need`, three of them narrow a
    range and fewer only widen it. The low end is never raised: pages of a mapped file count in a
    peak, and can be given back all the same.

    Args:
        spec: What would be opened.
        model: Its model.
        device: Where it would run.

    Raises:
        ModelError: The arithmetic does not hold for this model.
    """
    return estimator(spec, model, device)(spec)


def estimator(spec: BuildSpec, model: Model, device: Device) -> Callable[[BuildSpec], Fit]:
    """Return what gives the `expected_fit` of specs that differ from one in nothing but limits.

    The history is looked at once for all of them: a form asks for dozens at every change.
    """
    backend = get_backend(spec.backend)
    if made := backend.corrected_fit:
        correct = engine_history.correction(spec, model.parameters, device.name)
        return lambda other: made(other, model, device, correct)
    if device.kind != "cpu":
        return lambda other: backend.fit(other, model, device)  # the peaks are of the host's memory
    past, note = _alike(spec, model.parameters, device.name)

    def estimate(other: BuildSpec) -> Fit:
        fit = backend.fit(other, model, device)
        if not past or fit.device.kind != "cpu":
            return fit
        return replace(
            fit,
            weights=_corrected(fit.weights, past, note),
            runtime=_corrected(fit.runtime, past, note),
        )

    return estimate


def _corrected(part: Part, past: Iterable[_Past], note: str) -> Part:
    found = corrected(part, [one.ratio for one in past], note, "session")
    return replace(found, low=min(found.low, part.low))


def record(engine: Engine, peak: SessionPeak) -> None:
    """Append the record of a session that was closed.

    Nothing is written where the model is not on this machine any more, so that nobody can say what
    had been expected, or where the disk takes nothing: closing a session must not fail for it.

    Args:
        engine: What it ran.
        peak: What it took.
    """
    # A manifest may come from anywhere, and has perhaps no name or number that means something.
    broken = (KeyError, TypeError, ValueError, AttributeError)
    with contextlib.suppress(OSError, WorkbenchError, *broken):
        backend = get_backend(engine.backend)
        model = _model_of(engine)
        if model is None:
            return
        spec = _spec_of(engine, model)
        fit = backend.fit(spec, model, host())
        if fit.device.kind != "cpu" or backend.takes(spec, list_gpus):
            return  # the peak is of the host's memory
        line = {
            "time": time.time(),
            "engine": engine.key,
            "backend": engine.backend,
            "quantization": _of(spec, "quantization"),
            "dtype": _of(spec, "dtype"),
            "parameters": model.parameters,
            "device": fit.device.name,
            "versions": dict(engine.manifest["identity"].get("toolchain", {})),
            "peak_memory_bytes": peak.memory,
            "most_tokens": peak.most_tokens,
            "all_tokens": peak.all_tokens,
            "kv_tokens": fit.kv_tokens,
            "kv_cache_bytes": fit.kv_cache.low,
            "predicted": {part.name: [part.low, part.high] for part in (fit.weights, fit.runtime)},
        }
        path = _file(spec)
        files.make_folder(path.parent)
        files.append_line(path, line, sync=True)


def _model_of(engine: Engine) -> Model | None:
    """Return the model of an engine as it was, where that is on this machine."""
    told = engine.manifest["model"]
    source = str(told["source"])
    path = directory_of(source)
    if path is None and HUB_ID.fullmatch(source):
        path = hub.cached(source, told.get("revision"))
    if path is None or not is_complete(path):
        return None
    model = Model.read(path)
    return model if model.parameters == told["parameters"] else None


def _spec_of(engine: Engine, model: Model) -> BuildSpec:
    """Return the spec of an engine under the limits that it was opened with."""
    values = dict(engine.manifest["identity"]["spec"])
    limits = engine.limits
    known = parameters_of(get_backend(engine.backend).spec_class)
    values |= {name: limits[name] for name in known if name in limits}
    if "kv_blocks" in limits:
        values["kv_cache_tokens"] = limits["kv_blocks"] * limits["block_tokens"]
    return make_spec({**values, "model": str(model.source)})


@dataclass(frozen=True)
class _Past:
    """One session; `ratio` is what it took beside the KV cache by the most that was predicted."""

    parameters: int
    dtype: str
    device: str
    ratio: float


def _alike(spec: BuildSpec, parameters: int, device: str) -> tuple[tuple[_Past, ...], str]:
    """Return the latest sessions like one, and the note on what they are."""
    sessions = tuple(
        past
        for past in latest_of(_file(spec), _past)
        if parameters / 2 <= past.parameters <= parameters * 2 and past.dtype == _of(spec, "dtype")
    )
    here = tuple(past for past in sessions if past.device == device)
    return (here[-RECENT:], "") if here else (sessions[-RECENT:], ELSEWHERE)


def _file(spec: BuildSpec) -> Path:
    return family_file(spec.backend, _of(spec, "quantization"), "sessions")


def _of(spec: BuildSpec, name: str) -> str:
    return str(getattr(spec, name, "") or "")


def _past(values: Mapping[str, Any]) -> _Past | None:
    """Return what a line says, or None where it holds no record."""
    try:
        expected = sum(int(high) for _, high in values["predicted"].values())
        peak, token = values["peak_memory_bytes"], values["kv_cache_bytes"] / values["kv_tokens"]
        held = [min(values[name], values["kv_tokens"]) for name in ("all_tokens", "most_tokens")]
        least, most = ((peak - tokens * token) / expected for tokens in held)
        # What may have been the KV cache is no reason to expect more than was predicted.
        ratio = max(least, min(most, 1 / MARGIN))
        past = _Past(int(values["parameters"]), str(values["dtype"]), str(values["device"]), ratio)
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
        return None
    return past if math.isfinite(ratio) and ratio > 0 else None
