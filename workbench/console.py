"""What the command line shows: plans, live progress, streams."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Self

from workbench.build import Plan, engine_of, successor
from workbench.engine import Engine
from workbench.errors import JobError, WorkbenchError
from workbench.generation import Generation
from workbench.history import peak_range, stage_ranges
from workbench.jobs import Job
from workbench.journal import ENDED, View
from workbench.listing import health_line
from workbench.recipe import stage_order
from workbench.spec import BuildSpec
from workbench.summaries import (
    fact_line,
    finding_lines,
    fit_lines,
    model_lines,
    remaining,
    stage_line,
    timing_line,
)
from workbench.units import format_bytes, printable


def print_plan(plan: Plan) -> None:
    """Print the model, the findings and the fit."""
    changed = plan.spec.model_dump(exclude_defaults=True, exclude={"backend", "model"})
    memory = fit_lines(plan.fit) if plan.fit else []
    lines = [
        f"Model    {plan.model.source}",
        *(f"         {line}" for line in model_lines(plan.model)),
        f"Backend  {plan.backend.title}",
        f"Spec     {', '.join(f'{k}={v}' for k, v in changed.items()) or 'all defaults'}",
        *(f"Finding  {line}" for line in finding_lines(plan.findings)),
        *(f"{'' if n else 'Memory':<8} {line}" for n, line in enumerate(memory)),
    ]
    for line in lines:
        print(printable(line))
    sys.stdout.flush()


def finish(job: Job, plan: Plan | None, spec: BuildSpec | None = None) -> Engine:
    """Show a build to its end; when its process dies, once more that of the one that takes over.

    Args:
        job: The build.
        plan: What is known about it, for what past builds like it took.
        spec: Under whose limits the engine is wanted; by default those of the job.

    Raises:
        JobError: It published no engine; says why.
    """
    # Who looks at one that died long ago wants no build.
    waits = job.state() not in ENDED
    view = follow(job, plan)
    if waits and (after := successor(job, view)):
        print(f"The process of {job.id} is gone; {after.id} takes over.", flush=True)
        job, view = after, follow(after, plan)
    return engine_of(job, view, spec)


def follow(job: Job, plan: Plan | None) -> View:
    """Print stages while a job runs, until it has ended; return its last view.

    On a terminal the running stage is one line that is written over; elsewhere each stage is
    printed once, when it is over.
    """
    ranges, peak, order = {}, None, list[str]()
    if plan:
        quantization = str(getattr(plan.spec, "quantization", ""))
        family = (plan.backend.name, quantization, plan.model.parameters, plan.device.name)
        ranges, peak, order = stage_ranges(*family), peak_range(*family), stage_order(plan.backend)
    print(printable(f"Job      {job.id}, log in {job.log}"), flush=True)
    live = sys.stdout.isatty()
    printed: set[str] = set()
    notes, health = 0, ""
    for view in job.follow():
        if live:
            print("\r\x1b[K", end="")
        for note in view.notes[notes:]:
            print(printable(note), flush=True)
        notes = len(view.notes)
        if (told := health_line(view.facts)) != health:
            print(printable(f"It is {told or 'healthy again'}."), flush=True)
        health = told
        for stage in view.stages.values():
            if stage.ended and stage.name not in printed:
                printed.add(stage.name)
                print(f"  {stage_line(stage, ranges)}", flush=True)
            elif live and not stage.ended:
                now = time.time()
                left = remaining(view, ranges, order, now)
                # What is left stands first: a narrow terminal cuts the line.
                line = "  " + "  ".join(filter(None, [left, stage_line(stage, ranges, now)]))
                # A line that wraps could not be written over.
                width = shutil.get_terminal_size().columns - 1
                print(line[:width], end="", flush=True)
    if facts := fact_line(view, peak):
        print(f"  {facts}", flush=True)
    return view


def watch_sweep(job: Job) -> int:
    """Show a sweep to its end; return the exit status, 0 where every point has a sound trial.

    Raises:
        JobError: It did not get to its end; says why.
    """
    view = follow(job, None)
    words = str(view.end.get("text", "")) if view.end else ""
    if view.state() != "done":
        raise JobError(
            f"The sweep {job.id} is {view.state()}. {words} What was measured is kept; started "
            "again, it does what is left."
        )
    print(printable(words))
    return 0 if view.facts.get("sound") == view.facts.get("points") else 1


def watch_server(job: Job) -> int:
    """Show a server to its end; return the exit status.

    Raises:
        JobError: It ended otherwise than by being stopped; says why.
    """
    view = follow(job, None)
    words = str(view.end.get("text", "")) if view.end else ""
    if view.state() in ("done", "cancelled"):
        print(printable(words))
        return 0
    raise JobError(words or f"The server of the job {job.id} is {view.state()}.")


class ByteProgress:
    """A line on a terminal with what was really read or written; elsewhere it says nothing."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._shown = 0.0

    def __enter__(self) -> Self:
        return self

    def __call__(self, done: int, total: int) -> None:
        """Take note of the bytes done, a few times a second."""
        if sys.stderr.isatty() and time.monotonic() - self._shown > 0.1:
            self._shown = time.monotonic()
            size = f"{format_bytes(done)} of {format_bytes(total)}"
            print(f"\r\x1b[K{self._what} {size}", end="", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def print_stream(generation: Generation) -> None:
    """Print a generation token by token, then its timings; Ctrl-C stops it.

    Raises:
        WorkbenchError: The engine refused the request, or its worker died.
    """
    try:
        for delta in generation:
            print(printable(delta.text), end="", flush=True)
    except KeyboardInterrupt:
        generation.cancel()
        generation.wait()
        print(" [stopped]", end="")
    except WorkbenchError:
        print()
        raise
    print(f"\n\n{timing_line(generation.record())}")
