"""Sweeps as jobs: closing the notebook or the terminal does not stop them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from workbench.errors import JobError
from workbench.freshness import ANY, Demand
from workbench.heartbeat import heartbeat
from workbench.jobs import Job, attach_or_start
from workbench.journal import Journal
from workbench.measuring import Report
from workbench.silence import SILENCE_LIMIT
from workbench.sweep import Point, Sweep, run_sweep
from workbench.trial import Trial


def start_sweep(
    sweep: Sweep | Mapping[str, Any], demand: Demand = ANY, *, scheduler: str = ""
) -> tuple[Job, bool]:
    """Return the job that works on a sweep, started if none does; and whether it is new.

    Args:
        sweep: What to measure; plain values are made into a sweep first.
        demand: Which trials are taken in place of measuring.
        scheduler: Address of a Dask scheduler on whose workers the points are measured, see
            `workbench.cluster`; by default they are measured here.

    Raises:
        SpecError: As `Sweep.parse`.
        JobError: The job could not be started, or a job measures the same points otherwise.
    """
    if not isinstance(sweep, Sweep):
        sweep = Sweep.parse(sweep)
    request = {
        "name": sweep.name,
        "time_limit": sweep.time_limit,
        "silence_limit": sweep.silence_limit,
        "points": [point.record() for point in sweep.points],
        **asdict(demand),
        "scheduler": scheduler,
    }
    job, new = attach_or_start("sweep", request, {"points": sorted(p.id for p in sweep.points)})
    if not new and (other := _unlike(job.request, request)):
        raise JobError(
            f"These points are measured already, but otherwise: {other}. Show what runs with "
            f"`workbench jobs attach {job.id}`, or stop it with `workbench jobs cancel {job.id}` "
            "and start again: what was measured is kept."
        )
    return job, new


def _unlike(running: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Say in what the request of a job that runs differs from what was asked for."""
    usual = {"time_limit": None, "silence_limit": SILENCE_LIMIT, "retry_failed": False,
             "again": False, "scheduler": ""}  # fmt: skip
    pairs = [(name, running.get(name, value), asked[name]) for name, value in usual.items()]
    return ", ".join(f"{n} is {a!r} there and {b!r} here" for n, a, b in pairs if a != b)


def sweep_of(job: Job) -> tuple[Sweep, Demand]:
    """Return the sweep that a job was started for, and which trials it takes.

    Raises:
        JobError: The job is damaged.
        SpecError: It was written by a version that knows other parameters.
    """
    request = job.request
    points = tuple(map(Point.parse, request["points"]))
    # Jobs of earlier versions know of less.
    known = {name: request[name] for name in ("retry_failed", "again", "begun") if name in request}
    demand = Demand(**known, anywhere=bool(request.get("scheduler")))
    silence = request.get("silence_limit", SILENCE_LIMIT)
    return Sweep(str(request["name"]), points, request["time_limit"], silence), demand


def run_sweep_job(journal: Journal) -> dict[str, Any]:
    """Run the sweep of a job; return the last word of its journal.

    Each point is a stage. Facts: `points` (all of them), `trials` (those that have one) and at
    the end `sound` (those whose trial is valid).
    """
    job = Job(journal.path)
    sweep, demand = sweep_of(job)
    total = len(sweep.points)

    def progress(number: int, point: Point) -> Report:
        journal.fact(points=total, trials=number)
        journal.stage(point.id, f"{number + 1} of {total}: {point.title}")
        return lambda text: journal.fact(now=text)

    with heartbeat(journal):
        run_sweep(sweep, progress, demand)
    return closing_words(journal, sweep, demand)


def closing_words(journal: Journal, sweep: Sweep, demand: Demand) -> dict[str, Any]:
    """Write down what came of a sweep; return the last word of its journal."""
    total, trials = len(sweep.points), sweep.trials(demand)
    sound = sum(trial.valid for trial in trials)
    journal.fact(points=total, trials=len(trials), sound=sound)
    return {"text": summary_line(trials), "trials": [trial.id for trial in trials]}


def summary_line(trials: Sequence[Trial]) -> str:
    """Say in one sentence what came of the points of a sweep."""
    counted = Counter(trial.status for trial in trials)
    words = ", ".join(f"{counted[name]} {name}" for name in ("done", "invalid", "failed"))
    return f"{len(trials)} trials: {words}."
