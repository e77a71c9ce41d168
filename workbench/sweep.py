"""Sweeps: many trials over a grid or a list of specs and workloads; nothing finished is lost.

    name = "precision"
    time_limit = 600                # seconds a point may build, and again measure
    silence_limit = 1800            # seconds without a sign of life; the default, 0 for no limit
    [spec]                          # what all points share
    model = "demo"
    [workload]
    output_len = 32
    [grid.spec]                     # every combination is a point ...
    quantization = ["none", "int8", "int4"]
    [grid.workload]
    concurrency = [1, 4]
    [quality]                       # what the answers of all points are compared with
    reference = "quantization=none"
    [[points]]                      # ... and each of these is one
    spec = { quantization = "int4", max_batch_size = 8 }
    [[points]]                      # a server in place of an engine, with the shared workload
    server = { url = "http://127.0.0.1:8000", tokenizer = "FOLDER" }

A sweep keeps no state of its own. What is done stands in the store of trials, under the name of
each point (a hash of spec and workload), so a sweep that was killed and is started again does what
is left, and two sweeps that share a point measure it once. A trial of other weights, versions or of
another device is none of what is asked for now: `workbench.freshness`. A sweep runs as a job
(`workbench.sweep_job`): closing the notebook or the terminal does not stop it. On several machines:
`workbench.cluster`.
"""

from __future__ import annotations

import tomllib
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from workbench import files, results
from workbench.backends import make_spec
from workbench.bench import run_trial
from workbench.build import with_absolute_paths
from workbench.errors import InputError, SpecError, WorkbenchError
from workbench.freshness import ANY, Demand, Here, Standing
from workbench.grid import KEYS, combinations, seconds
from workbench.measuring import Report
from workbench.quality import Quality
from workbench.served import run_server_trial, server_point
from workbench.server_spec import ServerSpec
from workbench.silence import SILENCE_LIMIT
from workbench.spec import BuildSpec, unknown_names
from workbench.trial import Trial, new_record, point_of
from workbench.workload import Workload


@dataclass(frozen=True)
class Point:
    """One trial of a sweep: of an engine, or of a server."""

    spec: BuildSpec | ServerSpec
    workload: Workload
    quality: Quality = field(default_factory=Quality)
    known_as: str = ""
    """Its id, where somebody has worked it out before: files that it names may be gone by now."""

    @cached_property
    def id(self) -> str:
        """What tells it from all others, see `point_of`.

        Raises:
            InputError: A file that it names is not there.
        """
        if self.known_as:
            return self.known_as
        if isinstance(self.spec, ServerSpec):
            return server_point(self.spec, self.workload)
        return point_of(self.spec, self.workload, self.quality)

    @property
    def title(self) -> str:
        """What is special about it, in a few words."""
        spec = self.spec.model_dump(mode="json", exclude_defaults=True, exclude={"backend"})
        words = {**spec, **self.workload.words()}
        return " ".join([self.backend, *(f"{name}={value}" for name, value in words.items())])

    @property
    def backend(self) -> str:
        """Name of what runs it, as its trial has it."""
        return self.spec.backend if isinstance(self.spec, BuildSpec) else "endpoint"

    def record(self) -> dict[str, Any]:
        """Return plain values that `Point.parse` takes."""
        what = "server" if isinstance(self.spec, ServerSpec) else "spec"
        return {
            "id": self.id,
            what: self.spec.model_dump(mode="json"),
            "workload": self.workload.model_dump(mode="json"),
            "quality": self.quality.model_dump(mode="json"),
        }

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Make a point from plain values; what it names by a path means the same everywhere.

        Raises:
            SpecError: A value is unknown or ill-typed.
        """
        workload = Workload.parse(_absolute(values.get("workload", {}), "prompts"))
        known_as = str(values.get("id", ""))
        if "server" in values:
            server = ServerSpec.parse(_absolute(values["server"], "tokenizer"))
            if server.url is None:
                raise SpecError("A server needs the url at which its API begins.")
            return cls(server, workload, known_as=known_as)
        spec = make_spec(values.get("spec", {}))
        model = Path(spec.model).expanduser()
        spec = with_absolute_paths(spec, model if model.is_dir() else None)
        quality = Quality.parse(
            _absolute(values.get("quality", {}), "quality_prompts", "quality_text")
        )
        return cls(spec, workload, quality, known_as)


def _absolute(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return values with those that are paths made absolute."""
    paths = {name: Path(values[name]) for name in names if isinstance(values.get(name), str)}
    return {**values, **{name: str(path.expanduser().absolute()) for name, path in paths.items()}}


@dataclass(frozen=True)
class Sweep:
    """What to measure: points in their order, each once.

    Limits are in seconds, see `run_trial`. Without a `time_limit` a point takes as long as it
    takes; one that gives no sign of life for as long as `silence_limit` hangs, and is given up.
    """

    name: str
    points: tuple[Point, ...]
    time_limit: float | None = None
    silence_limit: float | None = SILENCE_LIMIT

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Make a sweep from plain values, as a TOML file has them; see the module docstring.

        Raises:
            SpecError: A name is unknown, or a value is not what it should be; with the point.
            InputError: A file of prompts is not there, or there is no point at all.
        """
        if wrong := unknown_names(list(values), dict.fromkeys(KEYS)):
            raise SpecError(wrong)
        points: dict[str, Point] = {}
        for number, combination in enumerate(combinations(values), start=1):
            try:
                point = Point.parse(combination)
            except SpecError as error:
                raise SpecError(f"Point {number} of the sweep: {error}") from None
            points.setdefault(point.id, point)
        if not points:
            raise InputError(
                "This sweep has no points. Give lists of values in [grid.spec] or "
                "[grid.workload], or single ones in [[points]]."
            )
        limit, silence = seconds(values, "time_limit"), seconds(values, "silence_limit")
        silence = SILENCE_LIMIT if silence is None else silence or None
        return cls(str(values.get("name", "sweep")), tuple(points.values()), limit, silence)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a sweep from a TOML file.

        Raises:
            InputError: There is no such file, or it is no TOML.
            SpecError: As `parse`.
        """
        data = files.read_file(path)
        if data is None:
            raise InputError(f"There is no sweep file {path}.")
        try:
            values = tomllib.loads(data.decode())
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"The sweep file {path} is no TOML: {error}.") from None
        return cls.parse({"name": path.stem, **values})

    def standings(self, demand: Demand = ANY) -> list[tuple[Point, Standing]]:
        """Return each point with the trial that is taken for it, and why where there is none."""
        here = Here()
        return [(point, _standing(here, point, demand)) for point in self.points]

    def left(self, demand: Demand = ANY) -> list[Point]:
        """Return the points that have to be measured.

        Args:
            demand: Which trials are taken in place of that; by default all that still stand.
        """
        return [point for point, standing in self.standings(demand) if standing.trial is None]

    def trials(self, demand: Demand = ANY) -> list[Trial]:
        """Return the trial of each point that has one, in the order of the points.

        That is the one which is taken for it; where none is, the newest.

        Args:
            demand: Which trials are taken.
        """
        found = (known.trial or results.latest(p.id) for p, known in self.standings(demand))
        return [trial for trial in found if trial]


def _standing(here: Here, point: Point, demand: Demand) -> Standing:
    """Return what is known of a point; of a server nobody can tell what has changed in it."""
    if isinstance(point.spec, BuildSpec):
        return here.standing(point.id, point.spec, point.quality, demand)
    trial = results.latest(point.id)
    return Standing(trial if trial and demand.takes(trial) else None)


Progress = Callable[[int, Point], Report]
"""Is told the place of a point that begins, from 0; what it returns is told what goes on."""


def run_sweep(sweep: Sweep, progress: Progress, demand: Demand = ANY) -> list[Trial]:
    """Measure what is left of a sweep in this process; return the trial of each point.

    A point that fails for whatever reason, or takes longer than the limit, is recorded, and the
    others go on.

    Raises:
        OSError: A record cannot be written: nothing that follows could be kept either.
    """
    left = sweep.left(demand)
    before = len(sweep.points) - len(left)
    for number, point in enumerate(left, start=before):
        try:
            _run_point(sweep, point, demand, progress(number, point))
        except Exception as error:  # noqa: BLE001 - the boundary: a point never ends its sweep
            record_failure(point, error)
    return sweep.trials(demand)


def _run_point(sweep: Sweep, point: Point, demand: Demand, report: Report) -> None:
    """Measure a point; what comes out, also a failure that was foreseen, is in the store."""
    if isinstance(point.spec, ServerSpec):
        run_server_trial(
            point.spec,
            point.workload,
            time_limit=sweep.time_limit,
            silence_limit=sweep.silence_limit,
            point=point.id,
            report=report,
        )
        return
    run_trial(
        point.spec,
        point.workload,
        point.quality,
        time_limit=sweep.time_limit,
        silence_limit=sweep.silence_limit,
        again=False,
        demand=demand,
        report=report,
    )


def record_failure(point: Point, error: Exception) -> Trial:
    """Write down that a point ended with an error which its trial did not foresee.

    Raises:
        OSError: The record cannot be written.
    """
    spec, workload = (part.model_dump(mode="json") for part in (point.spec, point.workload))
    record = new_record(point.id, {**spec, "backend": point.backend}, workload)
    record["quality_asked"] = point.quality.model_dump(mode="json", exclude_defaults=True)
    if isinstance(error, WorkbenchError):
        return results.save({**record, "reasons": [str(error)]})
    # Where it happened is for whoever mends it: in the log of the job.
    traceback.print_exception(error)
    words = " ".join(traceback.format_exception_only(error)[-1].split())
    return results.save({**record, "reasons": [f"An unexpected error ended this point: {words}"]})
