"""What the command line shows: plans, live progress, streams."""

from __future__ import annotations

import re
import sys
import time

from workbench.build import Plan
from workbench.errors import WorkbenchError
from workbench.generation import Generation
from workbench.history import stage_ranges
from workbench.jobs import Job
from workbench.journal import View
from workbench.summaries import (
    finding_lines,
    fit_lines,
    model_line,
    remaining,
    stage_line,
    timing_line,
)


def print_plan(plan: Plan) -> None:
    """Print the model, the findings and the fit."""
    print(f"Model    {plan.model.source}")
    print(f"         {model_line(plan.model)}")
    print(f"Backend  {plan.backend.title}")
    changed = plan.spec.model_dump(exclude_defaults=True, exclude={"backend", "model"})
    print(f"Spec     {', '.join(f'{k}={v}' for k, v in changed.items()) or 'all defaults'}")
    for line in finding_lines(plan.findings):
        print(f"Finding  {line}")
    for number, line in enumerate(fit_lines(plan.fit)):
        print(f"{'' if number else 'Memory':<8} {line}")
    sys.stdout.flush()


def follow(job: Job, plan: Plan) -> View:
    """Print stages while a job runs, until it has ended; return its last view.

    On a terminal the running stage is one line that is written over; elsewhere each stage is
    printed once, when it is over.
    """
    quantization = str(getattr(plan.spec, "quantization", ""))
    ranges = stage_ranges(plan.backend.name, quantization, plan.model.parameters)
    print(f"Job      {job.id}, log in {job.log}", flush=True)
    live = sys.stdout.isatty()
    printed: set[str] = set()
    notes = 0
    for view in job.follow():
        if live:
            print("\r\x1b[K", end="")
        for note in view.notes[notes:]:
            print(note, flush=True)
        notes = len(view.notes)
        for stage in view.stages.values():
            if stage.ended and stage.name not in printed:
                printed.add(stage.name)
                print(f"  {stage_line(stage, ranges)}", flush=True)
            elif live and not stage.ended:
                now = time.time()
                left = remaining(view, ranges, now)
                print(f"  {stage_line(stage, ranges, now)}  {left}", end="", flush=True)
    return view


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


def printable(text: str) -> str:
    """Return a model's text without the control characters that could steer a terminal."""
    return _CONTROL.sub("\ufffd", text)


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
