"""The list of all jobs, quick for ten thousand of them.

What a job that has ended was is kept in one file, so that a list does not read every journal again:

    jobs/index.jsonl

It is a cache: a line that is missing is made from the job's own files, and one is only believed for
the very directory that it was made from, which nobody has changed since. (The inode alone would not
do: file systems give that of a removed directory to the next one.)
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from workbench import backends, files, jobs
from workbench.errors import JobError, WorkbenchError
from workbench.jobs import Job
from workbench.journal import ENDED, State, View

INDEX = "index.jsonl"


@dataclass(frozen=True)
class Entry:
    """One line of the list.

    Attributes:
        id: Of the job.
        state: As it is now.
        created: Seconds since 1970.
        last_sign: Of its last sign of life; when it ended, if it has.
        what: What it was asked for, in a few words.
        outcome: The key of its engine, why it ended otherwise, or the stage that runs.
    """

    id: str
    state: State
    created: float
    last_sign: float
    what: str
    outcome: str

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ENDED


def list_entries() -> list[Entry]:
    """Return all jobs of the store, the newest first; whatever is no job is left out."""
    known = _known()
    found = []
    with os.scandir(jobs.folder()) as items:
        for item in items:
            try:
                made = _identity(item.stat())
            except OSError:
                continue  # removed meanwhile, or a link to nowhere
            entry = known.get((item.name, *made))
            if entry is None and not item.name.startswith(".") and item.is_dir():
                entry = remember(Job(Path(item.path)))
            if entry:
                found.append(entry)
    return sorted(found, key=lambda entry: (entry.created, entry.id), reverse=True)


def entry_of(job: Job, view: View) -> Entry:
    """Return a job's line as it is now."""
    return Entry(
        id=job.id,
        state=view.state(),
        created=view.created,
        last_sign=view.last_sign,
        what=describe(job),
        outcome=_outcome(view),
    )


def describe(job: Job) -> str:
    """Say in a few words what a job was asked for."""
    try:
        spec = backends.make_spec(job.request.get("spec", {}))
    except WorkbenchError:
        return "a request that this version cannot read"
    changed = spec.model_dump(exclude_defaults=True, exclude={"backend", "model"})
    return " ".join([spec.backend, spec.model, *(f"{n}={value}" for n, value in changed.items())])


def _outcome(view: View) -> str:
    if view.end:
        return str(view.end.get("engine") or view.end.get("text", ""))
    running = [stage.title for stage in view.stages.values() if stage.ended is None]
    return running[-1] if running else ""


def remember(job: Job) -> Entry | None:
    """Return a job's line, or None where it is no job; one that has ended is kept."""
    try:
        # Before its files are read: what is changed meanwhile is then read again.
        inode, changed = _identity(job.path.stat())
        if not (job.path / "spec.json").is_file():
            return None
        view = job.view()
    except (OSError, JobError):
        return None  # removed meanwhile
    entry = entry_of(job, view)
    if view.end:
        line = {"inode": inode, "changed": changed, **asdict(entry)}
        with contextlib.suppress(OSError):  # a store that cannot be written to is only slower
            files.append_line(job.path.parent / INDEX, line)
    return entry


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_ino, status.st_mtime_ns


def _known() -> dict[tuple[str, int, int], Entry]:
    """Return what is remembered, by name and identity; any other line is passed over."""
    known: dict[tuple[str, int, int], Entry] = {}
    for record in _records(jobs.folder() / INDEX):
        values: tuple[Any, ...] = ()
        if isinstance(record, dict):
            values = tuple(map(record.get, _KINDS))
        if tuple(map(type, values)) == _TYPES and values[3] in ENDED:
            inode, changed, *fields = values
            entry = Entry(*fields)
            known[entry.id, inode, changed] = entry
    return known


_KINDS = {
    "inode": int,
    "changed": int,
    "id": str,
    "state": str,
    "created": float,
    "last_sign": float,
    "what": str,
    "outcome": str,
}
"""What a line holds: the identity of the directory, and the fields of an entry in their order."""

_TYPES = tuple(_KINDS.values())


def _records(path: Path) -> list[Any]:
    """Return the values of all lines; at once where all are whole, which is much quicker."""
    try:
        found: list[Any] = json.loads(
            b"[" + b",".join((files.read_file(path) or b"").splitlines()) + b"]"
        )
    except (ValueError, RecursionError):
        return list(files.read_lines(path)[0])
    return found
