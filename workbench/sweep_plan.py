"""What a sweep will take, before anything is spent: builds, time and disk, from what is known."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench import results, store
from workbench.backends import make_spec
from workbench.bench import check_lengths
from workbench.build import Plan, built_for, key_values, toolchain_of, with_absolute_paths
from workbench.digests import cache_folder
from workbench.engine import Engine, Identity
from workbench.errors import WorkbenchError
from workbench.fingerprint import fingerprint, is_known
from workbench.freshness import ANY, Demand
from workbench.history import stage_ranges
from workbench.quality import Quality
from workbench.spec import BuildSpec
from workbench.sweep import Point, Sweep
from workbench.trial import Trial
from workbench.units import format_bytes, format_seconds, printable
from workbench.workload import Workload


@dataclass
class Amount:
    """A range that is summed up, and how many of its parts nobody knows."""

    low: float = 0.0
    high: float = 0.0
    unknown: int = 0

    def add(self, values: Iterable[float]) -> None:
        """Add the range of one part; one without values is not known."""
        found = list(values)
        if not found:
            self.unknown += 1
            return
        self.low, self.high = self.low + min(found), self.high + max(found)


@dataclass
class SweepPlan:
    """What is known about a sweep that has not begun.

    Attributes:
        points: All of it.
        done: Points that have a trial already.
        builds: Engines that have to be built.
        engines: Engines that are there.
        build_seconds: What building takes, by past builds like these.
        trial_seconds: What measuring takes, by past trials of the same workload and backend.
        disk: Bytes that the new engines take.
        refused: Points that cannot work, with the reason.
        stale: Points whose trials do not stand any more, by their ids, with what has changed.
        unsure: Points whose trials count although nobody can tell whether they do, with the reason.
        standing: The trials that count, by the ids of their points.
    """

    points: int
    done: int
    builds: int = 0
    engines: int = 0
    build_seconds: Amount = field(default_factory=Amount)
    trial_seconds: Amount = field(default_factory=Amount)
    disk: Amount = field(default_factory=Amount)
    refused: dict[str, str] = field(default_factory=dict)
    stale: dict[str, str] = field(default_factory=dict)
    unsure: dict[str, str] = field(default_factory=dict)
    standing: dict[str, Trial] = field(default_factory=dict)

    @classmethod
    def make(cls, sweep: Sweep, demand: Demand = ANY) -> SweepPlan:
        """Look at models, store and history; nothing is built, loaded or downloaded.

        Weights that were touched since they were measured are read, to know what they are now.

        Args:
            sweep: What to measure.
            demand: Which trials are taken in place of measuring.
        """
        standings = sweep.standings(demand)
        left = [point for point, standing in standings if standing.trial is None]
        plan = cls(len(sweep.points), len(sweep.points) - len(left))
        plan.stale = {p.id: standing.stale for p, standing in standings if standing.stale}
        plan.unsure = {p.id: s.unsure for p, s in standings if s.unsure and s.trial}
        plan.standing = {p.id: standing.trial for p, standing in standings if standing.trial}
        past = results.list_trials()
        seen: set[str] = set()
        for point in left:
            try:
                if isinstance(point.spec, BuildSpec):
                    plan._add_engines(point.spec, point, seen)
            except WorkbenchError as error:
                plan.refused[point.title] = str(error)
                continue
            plan.trial_seconds.add(_seconds(point, past))
        return plan

    @classmethod
    def of_one(cls, spec: BuildSpec, workload: Workload, quality: Quality) -> SweepPlan:
        """Look at what a single trial will take, whether it was measured before or not."""
        return cls.make(Sweep("trial", (Point(spec, workload, quality),)), Demand(again=True))

    def _add_engines(self, spec: BuildSpec, point: Point, seen: set[str]) -> None:
        """Count the engine of a point, and that of its reference.

        Raises:
            WorkbenchError: One of them cannot work here.
        """
        check_lengths(spec, point.workload)
        self._add_engine(spec, seen)
        if point.quality.reference:
            self._add_engine(make_spec(point.quality.reference_of(spec)), seen)

    def _add_engine(self, spec: BuildSpec, seen: set[str]) -> None:
        """Count the engine of a spec, once for all points that share it.

        Raises:
            WorkbenchError: The spec cannot work here.
        """
        build = Plan.make(spec)
        build.check_rules()
        key = json.dumps([key_values(spec), str(build.model.source)], sort_keys=True)
        if key in seen:
            return
        seen.add(key)
        if _engine_there(build):
            self.engines += 1
            return
        self.builds += 1
        quantization = str(getattr(spec, "quantization", ""))
        stages = stage_ranges(
            build.backend.name, quantization, build.model.parameters, build.device.name
        ).values()
        whole = (sum(stage.low for stage in stages), sum(stage.high for stage in stages))
        self.build_seconds.add(whole if stages else ())
        self.disk.add((build.need.disk.low, build.need.disk.high) if build.need else ())

    def lines(self) -> list[str]:
        """Return the plan in short lines for people."""
        left = self.points - self.done
        lines = [
            f"Points   {self.points}, of which {self.done} are measured and {left} are left",
            *_counted("Stale", self.stale, "measured, but not what there is now"),
            *_counted("Unsure", self.unsure, "taken for measured, though nobody can tell now"),
            f"Engines  {self.builds} to build, {self.engines} there already",
            f"Time     building {_time(self.build_seconds)}; measuring {_time(self.trial_seconds)}",
            f"Disk     {_size(self.disk)}",
        ]
        lines += (f"Refused  {title}: {why}" for title, why in self.refused.items())
        return [printable(line) for line in lines]

    def record(self) -> dict[str, Any]:
        """Return plain values; seconds and bytes as [low, high, parts that are not known]."""
        amounts = {
            name: [amount.low, amount.high, amount.unknown]
            for name, amount in (
                ("build_seconds", self.build_seconds),
                ("trial_seconds", self.trial_seconds),
                ("disk_bytes", self.disk),
            )
        }
        counts = {name: getattr(self, name) for name in ("points", "done", "builds", "engines")}
        reasons = {name: dict(getattr(self, name)) for name in ("refused", "stale", "unsure")}
        return {**counts, **amounts, **reasons}


def _counted(title: str, found: Mapping[str, str], what: str) -> list[str]:
    """Return how many points share a reason, a line each."""
    counted = Counter(found.values())
    return [f"{title:<8} {count} {what}: {why}" for why, count in counted.items()]


def _engine_there(build: Plan) -> Engine | None:
    """Return the engine of a plan; None also where its weights were never read."""
    path = build.model.path
    if path is None or not is_known(path, cache_folder()):
        return None
    _, versions = toolchain_of(build.backend)
    values = key_values(with_absolute_paths(build.spec, path))
    weights = fingerprint(path, cache_folder())
    return store.look_up(Identity(values, weights, versions, built_for(build.backend)))[0]


def _seconds(point: Point, past: Iterable[Trial]) -> list[float]:
    """Return what measuring took in the trials of this backend and workload, whatever the seed."""
    wanted = _comparable(point.workload.model_dump(mode="json"))
    return [
        float(trial.record["seconds"])
        for trial in past
        if trial.summary
        and trial.spec.get("backend") == point.backend
        and _comparable(trial.workload) == wanted
    ]


def _comparable(workload: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in workload.items() if name != "seed"}


def _time(amount: Amount) -> str:
    return _words(amount, format_seconds)


def _size(amount: Amount) -> str:
    return _words(amount, format_bytes)


def _words(amount: Amount, shown: Any) -> str:
    """Return a range, and how much of it is not known."""
    low, high = shown(amount.low), shown(amount.high)
    words = low if low == high else f"{low} to {high}"
    if not amount.unknown:
        return words
    if not amount.high:
        return "not known: nothing like it was done here before"
    return f"{words}, and {amount.unknown} of which nothing like it was done here before"
