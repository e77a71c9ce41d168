"""The verbs of the command line that care for jobs."""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from workbench import backends, explanations, files, jobs, listing
from workbench.build import Plan, cancel
from workbench.console import finish, watch_server, watch_sweep
from workbench.errors import InputError
from workbench.journal import ENDED, State
from workbench.summaries import command_line, fact_line, job_line, stage_line
from workbench.units import format_bytes, printable, printable_json
from workbench.verbs import Action, Verb, declare_verbs, json_flag


def declare_jobs(parser: argparse.ArgumentParser, words: list[str]) -> Action:
    """Declare `workbench jobs ...`."""
    del words
    return declare_verbs(parser, _JOBS)


def _job_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="Id of a job, or the beginning of one.")


def _list_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", help="Only jobs in this state, such as running or failed.")
    parser.add_argument("--all", action="store_true", help=f"More than the newest {NEWEST}.")
    json_flag(parser)


NEWEST = 50
"""Jobs that are listed unless all are asked for."""


def _list_jobs(parsed: argparse.Namespace) -> int:
    states: Sequence[str] = State.__args__  # type: ignore[attr-defined] # of a Literal
    if parsed.state and parsed.state not in states:
        raise InputError(f"There is no state '{parsed.state}'; there is: {', '.join(states)}.")
    found = [e for e in listing.list_entries() if parsed.state in (None, e.state)]
    shown = found if parsed.all else found[:NEWEST]
    if parsed.json:
        print(printable_json([asdict(entry) for entry in shown]))
        return 0
    for entry in shown:
        print(job_line(entry, time.time()))
    if len(shown) < len(found):
        print(f"... and {len(found) - len(shown)} older ones; --all shows them")
    if not found:
        print("There is no such job." if parsed.state else "There is no job yet.")
    return 0


def _show_flags(parser: argparse.ArgumentParser) -> None:
    _job_id(parser)
    parser.add_argument(
        "--json", action="store_true", help="Print its request and its whole journal as JSON."
    )


def _show_job(parsed: argparse.Namespace) -> int:
    job = jobs.find_job(parsed.id)
    if parsed.json:
        journal = files.read_lines(job.path / "journal.jsonl")[0]
        print(printable_json({"id": job.id, "request": job.request, "journal": journal}))
        return 0
    view = job.view()
    print(job_line(listing.entry_of(job, view), time.time()))
    if command := command_line(job.request):
        print(printable(f"  {command}"))
    for line in [*(stage_line(stage, {}) for stage in view.stages.values()), fact_line(view)]:
        if line:
            print(f"  {line}")
    for note in view.notes:
        print(printable(f"  {note}"))
    for words in difference_lines(view.facts):
        print(printable(f"  {words}"))
    if view.end and view.end.get("text"):
        print(printable(f"  {view.end['text']}"))
    print(printable(f"  Its log: {job.log}"))
    return 0


def difference_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return every field in which a build differed from the nearest engine, one a line."""
    differences = facts.get("differences")
    if not isinstance(differences, list) or len(differences) <= explanations.SHORT:
        return []  # a note has them all
    return ["All differences from the nearest engine:", *(f"  {words}" for words in differences)]


def _log(parsed: argparse.Namespace) -> int:
    job = jobs.find_job(parsed.id)
    try:
        with files.open_regular(job.log) as log:
            for line in io.TextIOWrapper(log, encoding="utf-8", errors="replace", newline="\n"):
                # A progress bar writes over its line; what stood last is what a terminal shows.
                print(printable(line.rstrip("\r\n").rpartition("\r")[2]))
    except OSError as error:
        if error.errno not in files.ABSENT:
            raise
        print("It has printed nothing.", file=sys.stderr)
    return 0


def _attach(parsed: argparse.Namespace) -> int:
    return _watch(jobs.find_job(parsed.id))


def _retry_flags(parser: argparse.ArgumentParser) -> None:
    _job_id(parser)
    parser.add_argument("--detach", action="store_true", help="Do not wait for its end.")


def _retry(parsed: argparse.Namespace) -> int:
    job = jobs.retry(jobs.find_job(parsed.id))
    if parsed.detach:
        print(f"{job.id} {job.state()}")
        return 0
    return _watch(job)


def _watch(job: jobs.Job) -> int:
    """Show a job's progress to its end, and say where the engine is."""
    if listing.is_sweep(job):
        return watch_sweep(job)
    if listing.is_server(job):
        return watch_server(job)
    engine = finish(job, _plan_of(job))
    print(f"Engine {engine.key}: {format_bytes(engine.bytes)} in {engine.path}")
    return 0


def _plan_of(job: jobs.Job) -> Plan | None:
    """Return the plan of a job's build; None where its model is not at hand any more, or here."""
    try:
        return Plan.make(backends.make_spec(job.request.get("spec", {})))
    except InputError:
        return None


def _cancel_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="+", metavar="ID", help="Ids, or the beginnings of some.")


def _cancel(parsed: argparse.Namespace) -> int:
    for name in parsed.ids:
        job = jobs.find_job(name)
        over = job.state() in ENDED
        state = cancel(job)
        print(f"{job.id} {f'had ended before: {state}' if over else state}", flush=True)
    return 0


_JOBS: dict[str, Verb] = {
    "list": ("list jobs, the newest first", _list_flags, _list_jobs),
    "show": ("show what a job was asked for and what became of it", _show_flags, _show_job),
    "log": ("print what a job's processes printed", _job_id, _log),
    "attach": ("watch a job to its end", _job_id, _attach),
    "cancel": ("stop jobs and all that they started", _cancel_flags, _cancel),
    "retry": ("start what an ended job was asked for once more", _retry_flags, _retry),
}
