"""What past builds took: the honest basis of an expected time and of an expected peak of memory.

    history/<backend>-<quantization>.jsonl

One line a finished build, appended by its job; it stays when the engine is evicted. A file holds
one family: backend and weight precision decide which stages there are and what happens in them,
so builds of other families say nothing about this one and are never read. Size and device only
scale it; they stand in each record and are chosen by when it is read.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from workbench import files
from workbench.engine import Engine
from workbench.errors import StoreError
from workbench.journal import WAIT, View
from workbench.records import TAIL
from workbench.store import list_engines
from workbench.units import format_bytes

RECENT = 20
"""Builds that count, the latest: a slow one of long ago, with other versions, fades out."""

TAKEN_IN = "taken-in"
"""File that says that engines from before there were records have theirs."""


@dataclass(frozen=True)
class Range:
    """Least and most of something in a number of past builds: seconds of a stage, or bytes.

    `note` says where the builds are less like this one than one may think.
    """

    low: float
    high: float
    builds: int
    unit: Literal["s", "bytes"] = "s"
    note: str = ""

    def __str__(self) -> str:
        builds = f"{self.builds} build{'s' if self.builds > 1 else ''} like this{self.note}"
        if self.unit == "bytes":
            low, high = format_bytes(self.low), format_bytes(self.high)
            return f"{low if low == high else f'{low} to {high}'} in {builds}"
        if round(self.low) == round(self.high):
            return f"{self.high:.0f} s in {builds}"
        return f"{self.low:.0f}-{self.high:.0f} s in {builds}"


ELSEWHERE = ", on devices that may differ"
"""Note of a range without a build on this kind of device. Manifests do not name a processor."""


@dataclass(frozen=True)
class Past:
    """One finished build: its job and when its engine was published tell it from all others.

    `device` is empty where it is not known. `predicted` has the high ends of what it was expected
    to take, by resource, as the resource guard journals them; nothing from before it did.
    """

    build: tuple[str, float]
    device: str
    parameters: int
    stages: Mapping[str, float]
    memory: int | None
    gpu_memory: int | None
    predicted: Mapping[str, int]


def record(engine: Engine, view: View, device: str) -> None:
    """Append the record of a build that has just published its engine.

    Whatever the disk says: the engine is there, and `keep` finds the same in its manifest.

    Args:
        engine: What came out.
        view: Of its job, brought up to date; with the stage that published, which no manifest has.
        device: Name of the processor or GPU that it was built on, as `Plan.device` has it.
    """
    now = time.time()
    stages = {stage.name: round(stage.seconds(now), 3) for stage in view.stages.values()}
    gpu = [view.facts.get(name) for name in ("peak_gpu_memory_bytes", "gpu_peak_bytes")]
    peaks = {
        "peak_memory_bytes": view.facts.get("peak_memory_bytes"),
        "peak_gpu_memory_bytes": max((n for n in gpu if isinstance(n, int)), default=None),
        "predicted": view.facts.get("need"),
    }
    with contextlib.suppress(OSError, StoreError):
        _append(engine, {"job": view.path.name, "device": device, "stages": stages, **peaks})


def keep(engines: Iterable[Engine]) -> None:
    """Append the records of engines from their manifests, unless their builds have theirs.

    For engines of versions that kept no records, and before an engine is removed.
    """
    known: dict[Path, set[tuple[str, float]]] = {}
    for engine in engines:
        with contextlib.suppress(OSError, StoreError, KeyError, TypeError, AttributeError):
            build = engine.manifest["build"]
            job = str(build.get("job") or engine.key)
            path = _file(engine)
            if path not in known:
                known[path] = {past.build for past in _read(path)}
            if (job, engine.created) not in known[path]:
                stages = {stage["name"]: stage["seconds"] for stage in build["stages"]}
                device = engine.manifest["identity"].get("device", {}).get("name", "")
                peaks = {"peak_memory_bytes": build.get("peak_memory_bytes")}
                _append(engine, {"job": job, "device": device, "stages": stages, **peaks})
                known[path].add((job, engine.created))


def built_on(engine: Engine) -> str:
    """Return the name of the processor or GPU that an engine was built on; empty if nobody knows.

    It is no part of an engine's manifest where the engine is for no certain device, and not known
    of one that was built elsewhere.
    """
    job = str(engine.manifest["build"].get("job") or engine.key)
    found = [past for past in _read(_file(engine)) if past.build == (job, engine.created)]
    return found[-1].device if found else ""


def stage_ranges(
    backend: str, quantization: str, parameters: int, device: str = ""
) -> dict[str, Range]:
    """Return how long each stage took in the latest builds like this one.

    Alike are builds of the same backend and weight precision, of models with at least half and
    at most twice the parameters; on the same kind of device where there is one, else on any, and
    the ranges say so.

    Args:
        backend: Name of the backend.
        quantization: Weight precision; empty for a backend that has none.
        parameters: Of the model.
        device: Name of the processor or GPU; empty for any.
    """
    builds, note = alike(backend, quantization, parameters, device)
    times: dict[str, list[float]] = {}
    for build in builds:
        for name, seconds in build.stages.items():
            times.setdefault(name, []).append(seconds)
    return {name: Range(min(t), max(t), len(t), note=note) for name, t in times.items()}


def peak_range(
    backend: str, quantization: str, parameters: int, device: str = "", *, gpu: bool = False
) -> Range | None:
    """Return the peak of host memory in the latest builds like this one; None without any.

    Args:
        backend: As the others, see `stage_ranges`.
        quantization: As there.
        parameters: As there.
        device: As there.
        gpu: Of the GPU's memory instead.
    """
    builds, note = alike(backend, quantization, parameters, device)
    found = [build.gpu_memory if gpu else build.memory for build in builds]
    peaks = [peak for peak in found if peak is not None]
    return Range(min(peaks), max(peaks), len(peaks), "bytes", note) if peaks else None


def alike(backend: str, quantization: str, parameters: int, device: str) -> tuple[list[Past], str]:
    """Return the latest builds like one, and the note on what they are."""
    _take_in()
    builds = [
        past
        for past in _latest(family_file(backend, quantization))
        if parameters / 2 <= past.parameters <= parameters * 2
    ]
    here = [past for past in builds if device in ("", past.device)]
    return (here[-RECENT:], "") if here else (builds[-RECENT:], ELSEWHERE)


def _take_in() -> None:
    """Give the engines of versions that kept no records theirs, once.

    Two processes may do it at the same time, or one that was killed again: what is written twice
    counts once when it is read.
    """
    with contextlib.suppress(OSError, StoreError):
        done = files.home() / "history" / TAKEN_IN
        if not done.exists():
            _folder()
            keep(reversed(list_engines()))
            done.touch(mode=0o600)


def _append(engine: Engine, values: Mapping[str, Any]) -> None:
    identity, model = engine.manifest["identity"], engine.manifest["model"]
    line = {
        "time": engine.created,
        "engine": engine.key,
        "backend": engine.backend,
        "quantization": _quantization(engine),
        "parameters": model["parameters"],
        "bytes": engine.bytes,
        "versions": dict(identity.get("toolchain", {})),
        **values,
    }
    _folder()
    files.append_line(_file(engine), line, sync=True)


def _folder() -> Path:
    return files.make_folder(files.home() / "history")


def _file(engine: Engine) -> Path:
    return family_file(engine.backend, _quantization(engine))


def _quantization(engine: Engine) -> str:
    return str(engine.manifest["identity"]["spec"].get("quantization") or "")


def family_file(*parts: str) -> Path:
    """Return the file of a family; a name from a foreign manifest cannot lead out of the folder."""
    names = [re.sub(r"\W", "_", name)[:60] for name in parts if name]
    # Who only reads makes no folder: a plan can be made where nothing may be written.
    return files.home() / "history" / f"{'-'.join(names)}.jsonl"


def _latest(path: Path) -> tuple[Past, ...]:
    """Return the latest records of a family; read anew only when something was written.

    A form asks at every change, and a long history takes longer to read than it may think.
    """
    try:
        status = path.stat()
    except OSError:
        return ()
    return _as_it_was(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _as_it_was(path: Path, size: int, changed: int) -> tuple[Past, ...]:
    del size, changed
    return tuple(_read(path, TAIL))


def _read(path: Path, tail: int | None = None) -> list[Past]:
    """Return the records of a family, each build once, in the order in which they were written.

    With `tail`, those in the last bytes of the file.

    Lines that hold no record are passed over, and what is no file that can be read counts as
    empty: without a history a build only has no range to show.
    """
    found: dict[tuple[str, float], Past] = {}
    with contextlib.suppress(OSError):
        if not path.is_file():
            return []
        # A line that this cuts in two is passed over like any other that holds no record.
        offset = max(0, path.stat().st_size - tail) if tail else 0
        for values in files.read_lines(path, offset)[0]:
            past = _past(values)
            # Of two, the one that knows its device: the other was read off the manifest.
            if past and not (past.build in found and found[past.build].device):
                found[past.build] = past
    return list(found.values())


def _past(values: Mapping[str, Any]) -> Past | None:
    """Return what a line of a history says, or None where it holds no record."""
    try:
        stages = {str(name): float(seconds) for name, seconds in values["stages"].items()}
        # How long it waited for its turn says nothing about the work.
        stages.pop(WAIT, None)
        past = Past(
            (str(values["job"]), float(values["time"])),
            str(values.get("device", "")),
            int(values["parameters"]),
            stages,
            _bytes(values.get("peak_memory_bytes")),
            _bytes(values.get("peak_gpu_memory_bytes")),
            _high_ends(values.get("predicted")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    # A clock that was set back makes a time that nobody took.
    return past if all(math.isfinite(s) and s >= 0 for s in stages.values()) else None


def _high_ends(predicted: Any) -> dict[str, int]:
    """Return the high ends of the ranges of a prediction, as far as it holds any."""
    found = {}
    for resource, ends in predicted.items() if isinstance(predicted, Mapping) else ():
        match ends:
            case [int(), int(high)]:
                found[str(resource)] = high
    return found


def _bytes(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None
