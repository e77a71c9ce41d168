"""Candidates: what can be chosen, each with all the trials that measured it."""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench.addresses import place_of
from workbench.axes import THROUGHPUT, Axis, Interval, values_of
from workbench.backends import DEFAULT, make_spec
from workbench.build import DEMO_MODEL
from workbench.errors import WorkbenchError
from workbench.flags import words
from workbench.quality import Quality
from workbench.server_spec import ServerSpec
from workbench.spec import parameters_of
from workbench.trial import Trial
from workbench.workload import Workload
from workbench.yardsticks import yardstick_of

LOAD = frozenset(
    ("concurrency", "request_rate", "arrivals", "requests", "warmup", "repetitions", "seed")
)
"""What of a workload says how it is sent. The rest is what is asked: only equals compete."""

LENGTHS = ("input_len", "output_len")
"""What of a workload other tools tell as the mean of what they found."""

SERIES = ("model", "backend", "quantization")
"""Which fields make a colour, where they differ."""


@dataclass(frozen=True)
class Candidate:
    """One point on one device with one engine, and its trials: repetitions of each other.

    Attributes:
        number: Its name in charts and tables.
        trials: The newest first.
        label: In what it differs from the others, in a few words.
        series: Which of the others have its colour.
        group: Those with which it can be compared: the same device, model and lengths.
    """

    number: int
    trials: tuple[Trial, ...]
    label: str
    series: str
    group: str

    @property
    def newest(self) -> Trial:
        """Its last trial."""
        return self.trials[0]

    @property
    def key(self) -> str:
        """Of its engine; empty for an import, and a server that the workbench does not run."""
        return str(self.newest.record["engine"].get("key", ""))

    @property
    def device(self) -> str:
        """What it ran on."""
        return device_of(self.newest)

    @cached_property
    def command(self) -> str:
        """The command that measures it once more, or nothing where there is none."""
        return command_of(self.newest)

    def figure(
        self, axis: Axis, price: float | None = None, yardstick: str = ""
    ) -> Interval | None:
        """Return a figure over all repetitions, or None where it was not measured.

        Args:
            axis: Which figure.
            price: Of a device for an hour.
            yardstick: What a quality has to be measured with; by default all of it counts.
        """
        values = [
            value
            for trial in self.trials
            if not yardstick or yardstick_of(trial, axis.name) == yardstick
            for value in values_of(trial, axis.name, price)
        ]
        return Interval.of(values)

    def yardsticks(self, axis: Axis) -> list[str]:
        """Return what a quality was measured with in each trial that has it."""
        return [yardstick_of(t, axis.name) for t in self.trials if values_of(t, axis.name)]


def device_of(trial: Trial) -> str:
    """Return what a trial ran on, with the number of devices where it is more than one."""
    environment = trial.record.get("environment") or {}
    url = trial.spec.get("url")
    # Of a server nobody here may know what it runs on; two of them need not run on the same.
    unknown = f"unknown device of {place_of(str(url))}" if url else "unknown device"
    name = str(environment.get("device") or unknown)
    count = trial.record.get("devices") or 1
    return f"{count} x {name}" if count != 1 else name


def candidates_of(trials: Iterable[Trial]) -> list[Candidate]:
    """Return what the valid ones among trials measured, the highest throughput first."""
    gathered: dict[tuple[str, str, str], list[Trial]] = {}
    for trial in trials:
        if trial.valid:
            key = str(trial.record["engine"].get("key", ""))
            gathered.setdefault((trial.point, device_of(trial), key), []).append(trial)
    found = sorted(gathered.values(), key=_order)
    firsts = [trials[0] for trials in found]
    words, series, groups = _labels(firsts), _series(firsts), _groups(firsts)
    return [
        Candidate(place + 1, tuple(trials), words[place], series[place], groups[place])
        for place, trials in enumerate(found)
    ]


def _order(trials: Sequence[Trial]) -> tuple[float, str]:
    speed = Interval.of([value for trial in trials for value in values_of(trial, THROUGHPUT)])
    return (-speed.median if speed else 0.0, trials[0].id)


def _labels(trials: Sequence[Trial]) -> list[str]:
    """Return in what each of some trials differs from the others."""
    fields = [
        {
            **trial.spec,
            **_workload(trial),
            **(trial.record.get("quality_asked") or {}),
            "device": device_of(trial),
        }
        for trial in trials
    ]
    return [words or trial.title for words, trial in zip(labels(fields), trials, strict=True)]


def labels(fields: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return in few words in what each of some records differs from the others, if in anything."""
    names = differing(fields, dict.fromkeys(name for values in fields for name in values))
    return [" ".join(_word(n, v[n]) for n in names if v.get(n) is not None) for v in fields]


def _word(name: str, value: Any) -> str:
    """Return a field in few characters: what makes a colour needs no name."""
    return str(value) if name in SERIES else f"{name}={value}"


def _series(trials: Sequence[Trial]) -> list[str]:
    fields = [trial.spec for trial in trials]
    names = differing(fields, SERIES) or ("quantization", "backend")
    return [" ".join(str(v[name]) for name in names if v.get(name)) or "trials" for v in fields]


def _groups(trials: Sequence[Trial]) -> list[str]:
    """Return in what each trial differs from those that it cannot be compared with."""
    fields = [
        {"device": device_of(trial), "model": _model(trial)}
        | {name: value for name, value in _workload(trial).items() if name not in LOAD}
        for trial in trials
    ]
    names = differing(fields, dict.fromkeys(name for values in fields for name in values))
    return [" ".join(f"{name}={values.get(name)}" for name in names) for values in fields]


def _workload(trial: Trial) -> dict[str, Any]:
    """Return a workload in one form, whoever wrote it down.

    128.0 is 128; what another tool does not know of is what it is here unless one asks for it.
    """
    usual = {
        name: parameter.default
        for name, parameter in parameters_of(Workload).items()
        if name not in LOAD and name not in LENGTHS
    }
    told = usual | {name: value for name, value in trial.workload.items() if value is not None}
    return {name: _number(name, value) for name, value in told.items()}


def _number(name: str, value: Any) -> Any:
    """Return a value without a fraction that means nothing."""
    if not isinstance(value, float) or not math.isfinite(value):
        return value
    return round(value) if name in LENGTHS or value.is_integer() else value


def _model(trial: Trial) -> Any:
    """Return the model of a trial; a directory in one form, however it was named."""
    model = trial.spec.get("model")
    if model == "demo":
        return model
    try:
        folder = Path(str(model)).expanduser().absolute()
        known = folder.is_dir()
    except (OSError, RuntimeError, ValueError):  # a text from elsewhere that can be no path
        return model
    if not known:
        return model
    return "demo" if folder == DEMO_MODEL else str(folder)


def differing(fields: Sequence[Mapping[str, Any]], names: Iterable[str]) -> list[str]:
    """Return the names under which some records have different values."""
    seen = {name: {json.dumps(values.get(name)) for values in fields} for name in names}
    return [name for name, values in seen.items() if len(values) > 1]


def command_of(trial: Trial) -> str:
    """Return the command that measures the same once more.

    Nothing for what another tool measured, a server of which an early version did not write down
    what was said of it, and a spec of a version that knew other parameters.
    """
    if trial.record.get("source") != "workbench":
        return ""
    served = trial.spec.get("backend") == "endpoint"
    try:
        subject = _server_words(trial) if served else _engine_words(trial)
        workload = words(Workload.parse(trial.workload))
    except WorkbenchError:
        return ""
    return shlex.join(["workbench", "trial", *subject, *workload]) if subject is not None else ""


def _engine_words(trial: Trial) -> list[str]:
    """Return the flags that mean the engine of a trial, and what it is compared with.

    Raises:
        SpecError: They are of a version that knew other parameters.
    """
    spec = make_spec(trial.spec)
    compared = Quality.parse(trial.record.get("quality_asked") or {})
    backend = [] if spec.backend == DEFAULT else ["--backend", spec.backend]
    return [*backend, *words(spec), *words(compared)]


def _server_words(trial: Trial) -> list[str] | None:
    """Return the flags that mean the server of a trial; the key stays in its variable.

    Raises:
        SpecError: As `_engine_words`.
    """
    asked = trial.record.get("asked")
    return None if asked is None else words(ServerSpec.parse({**asked, "url": trial.spec["url"]}))
