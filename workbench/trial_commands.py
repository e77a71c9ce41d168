"""The verbs of the command line that measure: trial, trials and sweep."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench import results
from workbench.bench import run_trial
from workbench.console import watch_sweep
from workbench.errors import InputError
from workbench.fit_commands import add_spec_flags
from workbench.flags import add_flags, given
from workbench.foreign import import_trials
from workbench.freshness import Demand
from workbench.quality import Quality
from workbench.served import run_server_trial
from workbench.server_spec import ServerSpec
from workbench.silence import SILENCE_LIMIT
from workbench.sweep import Sweep
from workbench.sweep_job import start_sweep
from workbench.sweep_plan import SweepPlan
from workbench.trial import Trial
from workbench.trial_words import trial_lines
from workbench.units import printable, printable_json
from workbench.verbs import Action, json_flag
from workbench.workload import Workload


def declare_trial(parser: argparse.ArgumentParser, words: list[str]) -> Action:
    """Declare `workbench trial`: measure one workload on one engine."""
    add_flags(parser, Workload, "workload")
    add_flags(parser, Quality, "quality")
    spec_class = add_spec_flags(parser, words)
    add_flags(parser, ServerSpec, "a server in place of an engine")
    _limits(parser)
    json_flag(parser)

    def run(parsed: argparse.Namespace) -> int:
        workload = Workload.parse(given(parsed, Workload))
        quality = Quality.parse(given(parsed, Quality))
        values = given(parsed, spec_class)
        server = ServerSpec.parse(given(parsed, ServerSpec))
        limits = {"time_limit": parsed.time_limit, "silence_limit": parsed.silence_limit or None}
        if server.url:
            trial = _served(server, workload, values | given(parsed, Quality), limits)
        else:
            spec = spec_class.parse({"backend": parsed.backend, **values})
            trial = run_trial(spec, workload, quality, **limits, report=_tell)
        if parsed.json:
            print(printable_json(trial.record))
        else:
            print("\n".join(trial_lines(trial)))
        return 0 if trial.valid else 1

    return run


def _served(
    server: ServerSpec,
    workload: Workload,
    values: Mapping[str, Any],
    limits: Mapping[str, Any],
) -> Trial:
    """Measure a server.

    Raises:
        InputError: Something was asked for that only an engine has.
    """
    if values:
        raise InputError(
            f"A server is what it is: {', '.join(values)} cannot be chosen with --url."
        )
    return run_server_trial(server, workload, **limits, report=_tell)


def declare_trials(parser: argparse.ArgumentParser, words: list[str]) -> Action:
    """Declare `workbench trials`: list what was measured, or show one."""
    del words
    parser.add_argument("id", nargs="?", metavar="ID", help="Show this trial; by default, all.")
    parser.add_argument(
        "--import",
        dest="file",
        type=Path,
        metavar="FILE",
        help="Take in a report of trtllm-bench, GuideLLM or AIPerf, and show its trials.",
    )
    parser.add_argument(
        "--model", help="With --import: what it is about, as in a build, to compare it with those."
    )
    parser.add_argument(
        "--device", help="With --import: what that runs on, as our trials name it, such as a GPU."
    )
    parser.add_argument("--valid", action="store_true", help="Only those that may be compared.")
    json_flag(parser)

    def run(parsed: argparse.Namespace) -> int:
        if parsed.id:
            trial = results.find_trial(parsed.id)
            print(printable_json(trial.record) if parsed.json else "\n".join(trial_lines(trial)))
            return 0
        if (parsed.model or parsed.device) and not parsed.file:
            raise InputError("--model and --device are said of a report: give it as --import FILE.")
        about = {"model": parsed.model, "device": parsed.device}
        found = import_trials(parsed.file, **about) if parsed.file else results.list_trials()
        found = [trial for trial in found if trial.valid or not parsed.valid]
        if parsed.json:
            print(printable_json(results.rows(found)))
            return 0
        for trial in found:
            print(trial)
        if not found:
            print("There is no trial yet. `workbench trial` measures one.")
        return 0

    return run


def declare_sweep(parser: argparse.ArgumentParser, words: list[str]) -> Action:
    """Declare `workbench sweep`: many trials, from a TOML file."""
    del words
    parser.add_argument("file", type=Path, help="A TOML file; see workbench/sweep.py.")
    parser.add_argument("--plan", action="store_true", help="Only show what it would take.")
    parser.add_argument(
        "--retry-failed",
        action="store_true",
        help="Measure points again whose trial failed or is invalid.",
    )
    parser.add_argument(
        "--again", action="store_true", help="Measure all points, whatever was measured before."
    )
    parser.add_argument(
        "--scheduler",
        default="",
        metavar="URL",
        help="Measure on the workers of this Dask scheduler, such as tcp://host:8786. All share "
        "one WORKBENCH_HOME. Default: on this machine.",
    )
    parser.add_argument("--detach", action="store_true", help="Do not wait for its end.")

    def run(parsed: argparse.Namespace) -> int:
        sweep = Sweep.read(parsed.file)
        demand = Demand(
            retry_failed=parsed.retry_failed, again=parsed.again, anywhere=bool(parsed.scheduler)
        )
        plan = SweepPlan.make(sweep, demand)
        print("\n".join(plan.lines()), flush=True)
        if parsed.plan:
            return 0
        job, new = start_sweep(sweep, demand, scheduler=parsed.scheduler)
        if not new:
            print(f"This very sweep runs already: {job.id}")
        if parsed.detach:
            print(f"It runs without this terminal. Attach: workbench jobs attach {job.id}")
            return 0
        try:
            status = watch_sweep(job)
        except KeyboardInterrupt:
            print(
                f"\nThe sweep goes on without this terminal. Attach again: workbench jobs attach "
                f"{job.id}; stop it: workbench jobs cancel {job.id}",
                file=sys.stderr,
            )
            raise
        for trial in sweep.trials(demand):
            print(trial)
        return status

    return run


def _limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--time-limit",
        type=float,
        metavar="SECONDS",
        help="Give up when building takes longer, or measuring. Default: no limit.",
    )
    parser.add_argument(
        "--silence-limit",
        type=float,
        default=SILENCE_LIMIT,
        metavar="SECONDS",
        help="Give up when there is no token or other sign of life for so long; 0: never. "
        f"Default: {SILENCE_LIMIT:g}.",
    )


def _tell(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)
