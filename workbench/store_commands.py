"""The verbs of the command line that care for the store: engines and jobs."""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workbench import (
    archive,
    backends,
    eviction,
    explanations,
    files,
    jobs,
    listing,
    store,
    usage,
)
from workbench.build import Plan, cancel
from workbench.console import ByteProgress, finish, watch_server, watch_sweep
from workbench.errors import InputError, StoreError
from workbench.journal import ENDED, State
from workbench.summaries import command_line, fact_line, job_line, stage_line
from workbench.units import format_bytes, printable, printable_json

Action = Callable[[argparse.Namespace], int]
Verb = tuple[str, Callable[[argparse.ArgumentParser], None], Action]
"""What a verb is for, how its flags are declared, and what it does."""


def declare_engines(parser: argparse.ArgumentParser, words: list[str]) -> Action:
    """Declare `workbench engines ...`."""
    del words
    return _declare(parser, _ENGINES)


def declare_jobs(parser: argparse.ArgumentParser, words: list[str]) -> Action:
    """Declare `workbench jobs ...`."""
    del words
    return _declare(parser, _JOBS)


def _declare(parser: argparse.ArgumentParser, verbs: Mapping[str, Verb]) -> Action:
    """Declare verbs below a verb; without one, `list` runs with its defaults."""
    chooser = parser.add_subparsers(dest="what", metavar="WHAT")
    for name, (purpose, flags, _) in verbs.items():
        below = chooser.add_parser(
            name, help=purpose, description=f"{purpose.capitalize()}.", allow_abbrev=False
        )
        flags(below)
        if name == "list":
            # What was given before the word counts too.
            for action in below._actions:  # noqa: SLF001 - argparse has no other way
                action.default = argparse.SUPPRESS
    verbs["list"][1](parser)
    return lambda parsed: verbs[parsed.what or "list"][2](parsed)


def _key(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key", metavar="KEY", help="Key of an engine, or the beginning of one.")


def _job_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="Id of a job, or the beginning of one.")


def _json_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="Print everything as JSON.")


def _list_engines(parsed: argparse.Namespace) -> int:
    engines = store.list_engines()
    if parsed.json:
        print(printable_json([dict(engine.manifest) for engine in engines]))
        return 0
    for engine in engines:
        why = "; ".join(filter(None, [usage.crash(engine.key), eviction.why_kept(engine.key)]))
        print(printable(f"{engine}{f'  ({why})' if why else ''}"))
    if not engines:
        print("The store holds no engine yet. `workbench demo` builds one.")
    for path in store.list_damaged():
        print(f"{path.name}  was damaged and set aside")
    print(f"Together {eviction.store_usage()}")
    return 0


def _show_engine(parsed: argparse.Namespace) -> int:
    engine = store.find_engine(parsed.key)
    print(printable_json(engine.manifest))
    if suspicion := usage.suspicion(engine.key):
        print(suspicion.strip(), file=sys.stderr)
    return 0


def _some_keys(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("keys", nargs="*", metavar="KEY", help="Engines; by default all.")


def _verify(parsed: argparse.Namespace) -> int:
    """Read every byte of engines; set aside what is damaged, and say so with the status."""
    engines = [store.find_engine(key) for key in parsed.keys] or store.list_engines()
    if not engines:
        print("The store holds no engine yet.")
    damaged = 0
    for engine in engines:
        try:
            with ByteProgress(f"{engine.key}  reading") as progress:
                why = engine.damage(thorough=True, progress=progress)
        except StoreError as error:
            damaged += 1
            print(f"{engine.key}  {error}", flush=True)
            continue
        if why and not engine.path.exists():
            print(f"{engine.key}  was removed meanwhile", flush=True)
            continue
        damaged += bool(why)
        print(
            printable(store.set_aside(engine, why) if why else f"{engine.key}  sound"), flush=True
        )
    return 1 if damaged else 0


def _evict_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "keys",
        nargs="*",
        metavar="KEY",
        help="Engines to remove; also the name of one that was set aside.",
    )
    parser.add_argument(
        "--to",
        metavar="SIZE",
        help="Remove the least recently used engines until the store holds no more than this; "
        "without keys, the budget counts.",
    )


def _tell(text: str) -> None:
    print(printable(text), flush=True)


def _evict(parsed: argparse.Namespace) -> int:
    for key in parsed.keys:
        if key.startswith(store.DAMAGED):
            eviction.drop(key, tell=_tell)
            continue
        key = store.find_engine(key).key  # noqa: PLW2901 - the whole key from here on
        print(f"Removed the engine {key} ({format_bytes(eviction.evict(key))}).")
    if parsed.keys and not parsed.to:
        return 0
    limit = eviction.parse_bytes(parsed.to, "--to") if parsed.to else eviction.budget()
    if limit is None:
        raise InputError(
            "Say what shall go: keys of engines, or --to SIZE. There is no budget yet; "
            "`workbench engines budget 200GiB` sets one."
        )
    over = eviction.make_room(limit, tell=_tell)
    print(f"The store holds {eviction.store_usage()}.")
    if over:
        raise StoreError(
            f"It is still {format_bytes(over)} too large: everything else is in use or pinned."
        )
    return 0


def _pin_flags(parser: argparse.ArgumentParser) -> None:
    _key(parser)
    parser.add_argument("--why", default="", help="A note on why it is kept.")


def _pin(parsed: argparse.Namespace) -> int:
    key = store.find_engine(parsed.key).key
    usage.pin(key, parsed.why)
    print(f"The engine {key} is kept whatever the budget is. `workbench engines unpin {key}`")
    return 0


def _unpin(parsed: argparse.Namespace) -> int:
    key = store.find_engine(parsed.key).key
    usage.unpin(key)
    print(f"The engine {key} may be removed again.")
    return 0


def _budget_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("size", nargs="?", help="Such as 200GiB; none takes the budget away.")


def _budget(parsed: argparse.Namespace) -> int:
    if parsed.size:
        eviction.set_budget(eviction.read_size(parsed.size))
    held = eviction.store_usage()
    print(f"The store holds {held}{'' if held.budget else ', without a budget'}.")
    return 0


def _export_flags(parser: argparse.ArgumentParser) -> None:
    _key(parser)
    parser.add_argument("file", type=Path, help="The archive to write.")
    parser.add_argument("--overwrite", action="store_true", help="Replace a file of that name.")


def _export(parsed: argparse.Namespace) -> int:
    engine = store.find_engine(parsed.key)
    with ByteProgress("writing") as progress:
        archive.export_engine(engine, parsed.file, overwrite=parsed.overwrite, progress=progress)
    size = format_bytes(parsed.file.stat().st_size)
    print(f"The engine {engine.key} is in {parsed.file} ({size}).")
    return 0


def _import_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, help="An archive that `engines export` wrote.")
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="Take also an engine that may run code of its model's repository.",
    )


def _import(parsed: argparse.Namespace) -> int:
    told: list[str] = []
    with ByteProgress("reading") as progress:
        engine, new = archive.import_engine(
            parsed.file,
            trust_remote_code=parsed.trust_remote_code,
            progress=progress,
            tell=told.append,
        )
    print(f"{'Imported' if new else 'It is there already:'} {printable(str(engine))}")
    for sentence in told:
        _tell(sentence)
    return 0


def _list_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state", help="Only jobs in this state, such as running or failed.")
    parser.add_argument("--all", action="store_true", help=f"More than the newest {NEWEST}.")
    _json_flag(parser)


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


_ENGINES: dict[str, Verb] = {
    "list": ("list the engines and what the store holds", _json_flag, _list_engines),
    "show": ("show the manifest of an engine", _key, _show_engine),
    "verify": ("read every byte of engines and compare checksums", _some_keys, _verify),
    "evict": ("remove engines by key, or the least recently used", _evict_flags, _evict),
    "pin": ("keep an engine whatever the budget is", _pin_flags, _pin),
    "unpin": ("let an engine be removed again", _key, _unpin),
    "budget": ("show or set the most that the store shall hold", _budget_flags, _budget),
    "export": ("write an engine into one file", _export_flags, _export),
    "import": ("bring an engine from such a file into the store", _import_flags, _import),
}

_JOBS: dict[str, Verb] = {
    "list": ("list jobs, the newest first", _list_flags, _list_jobs),
    "show": ("show what a job was asked for and what became of it", _show_flags, _show_job),
    "log": ("print what a job's processes printed", _job_id, _log),
    "attach": ("watch a job to its end", _job_id, _attach),
    "cancel": ("stop jobs and all that they started", _cancel_flags, _cancel),
    "retry": ("start what an ended job was asked for once more", _retry_flags, _retry),
}
