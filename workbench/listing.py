"""The list of all jobs, quick for ten thousand of them.

What a job that has ended was is kept in one file, so that a list does not read every journal again:

    jobs/index.jsonl

It is a cache: a line that is missing is made from the job's own files, and one is only believed for
the very directory that it was made from, which nobody has changed since. (The inode alone would not
do: file systems give that of a removed directory to the next one.)
"""

from __future__ import annotations

import contextlib
import operator
import os
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping
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


class Watch:
    """The list of all jobs, again and again, at the cost of what is new since the last look."""

    def __init__(self) -> None:
        self._offset = 0
        self._stamp: int | None = None
        self._names: list[_Name] = []
        self._known: dict[_Name, Entry] = {}
        self._views: dict[tuple[str, int], View] = {}

    def entries(self) -> list[Entry]:
        """Return all jobs of the store, the newest first; whatever is no job is left out."""
        records, self._offset = files.read_lines(jobs.folder() / INDEX, self._offset)
        self._known.update(_entries(records))
        views, self._views = self._views, {}
        found = []
        for name in self._directories():
            entry = self._known.get(name) or self._look(name, views.get(name[:2]))
            if entry:
                found.append(entry)
        return sorted(found, key=operator.attrgetter("created", "id"), reverse=True)

    def _directories(self) -> list[_Name]:
        """Return what may be jobs; the folder is only read where it has changed."""
        stamp = jobs.folder().stat().st_mtime_ns
        if stamp != self._stamp:
            with os.scandir(jobs.folder()) as items:
                found = [item for item in items if not item.name.startswith(".")]
                names = (_named(item.name, item) for item in found if item.is_dir())
                self._names = [name for name in names if name]
            # Another job could come under the same stamp, which file systems round.
            self._stamp = stamp if time.time_ns() - stamp > _ROUNDING else None
        return self._names

    def _look(self, name: _Name, view: View | None) -> Entry | None:
        """Return the line of a job that is not remembered; its journal is read from where it was.

        One that has ended since the last look is remembered.
        """
        job = Job.named(name[0])
        # Before its files are read: what changes meanwhile is then read again by the next one.
        now = _named(job.id, job.path)
        if now is None or not (job.path / "spec.json").is_file():
            return None
        try:
            view = view or job.view()
        except JobError:
            return None  # removed meanwhile
        view.update()
        entry = entry_of(job, view)
        if view.end:
            _keep(now, entry)
            self._known[name] = entry
        elif entry.state == "killed" and view.owner:
            self._known[name] = entry  # such a process does not come back; for another host it may
        else:
            self._views[name[:2]] = view
        return entry


_ROUNDING = 2 * 10**9
"""Nanoseconds to which the time of a folder may be rounded; some file systems know seconds only."""

_Name = tuple[str, int, int]
"""What a job is remembered by: its name, and the inode and change of its directory."""


def list_entries() -> list[Entry]:
    """Return all jobs of the store, the newest first; whatever is no job is left out."""
    return Watch().entries()


def entry_of(job: Job, view: View) -> Entry:
    """Return a job's line as it is now."""
    state = view.state()
    return Entry(
        id=job.id,
        state=state,
        created=view.created,
        last_sign=view.last_sign,
        what=describe(job),
        outcome=_outcome(view, state),
    )


def describe(job: Job) -> str:
    """Say in a few words what a job was asked for."""
    try:
        if is_sweep(job):
            return f"sweep {job.request.get('name')} of {len(job.request.get('points', ()))} points"
        if is_server(job):
            return f"serve {shlex.join(job.request['server']['command'])}"
        spec = backends.make_spec(job.request.get("spec", {}))
    except WorkbenchError:
        return "a request that this version cannot read"
    changed = spec.model_dump(exclude_defaults=True, exclude={"backend", "model"})
    # The last part of a path tells more in few words than the first ones.
    model = Path(spec.model).name if spec.model.startswith("/") else spec.model
    return " ".join([spec.backend, model, *(f"{n}={value}" for n, value in changed.items())])


def is_sweep(job: Job) -> bool:
    """Say whether a job measures, in place of building; one that cannot be read does not."""
    with contextlib.suppress(JobError):
        return job.request.get("kind") in ("sweep", "point")
    return False


def is_server(job: Job) -> bool:
    """Say whether a job runs a server; one that cannot be read does not."""
    with contextlib.suppress(JobError):
        request = job.request
        server = request.get("server")
        return request.get("kind") == "serve" and isinstance(server, dict) and "command" in server
    return False


def _outcome(view: View, state: State) -> str:
    if view.end:
        return str(view.end.get("engine") or view.end.get("text", ""))
    if place := queue_line(view.facts):
        return place
    running = [stage.title for stage in view.stages.values() if stage.ended is None]
    if running and state != "killed" and (why := health_line(view.facts)):
        return f"{running[-1]}, {why}"
    if state == "killed":
        return f"its process died in the stage '{running[-1]}'" if running else "its process died"
    return running[-1] if running else ""


def health_line(facts: Mapping[str, Any]) -> str:
    """Say since when a server is not healthy, and why; or nothing.

    Args:
        facts: Of its view.
    """
    return f"not healthy {why}" if (why := facts.get("unhealthy")) else ""


def queue_line(facts: Mapping[str, Any]) -> str:
    """Say which place a build has in the queue of a device, and behind whom; or nothing.

    Args:
        facts: Of its view.
    """
    queue = facts.get("queue")
    if not isinstance(queue, Mapping):
        return ""
    line = f"place {queue.get('place')} in the queue for {queue.get('device')}"
    if not (behind := str(queue.get("behind", ""))):
        return line
    line += f", behind the job {behind}"
    if (Job.named(behind).path / "spec.json").is_file():
        line += f" ({describe(Job.named(behind))})"
    return line


def remember(job: Job) -> None:
    """Keep the line of a job that has ended, so that its journal need not be read again."""
    name = _named(job.id, job.path)
    view = job.view()
    if name and view.end:
        _keep(name, entry_of(job, view))


def _named(name: str, directory: Path | os.DirEntry[str]) -> _Name | None:
    """Return what a job is remembered by; None where it was removed meanwhile."""
    try:
        status = directory.stat()
    except OSError:
        return None
    return name, status.st_ino, status.st_mtime_ns


def _keep(name: _Name, entry: Entry) -> None:
    line = {"inode": name[1], "changed": name[2], **asdict(entry)}
    with contextlib.suppress(OSError):  # a store that cannot be written to is only slower
        files.append_line(jobs.folder() / INDEX, line)


def _entries(records: Iterable[Mapping[str, Any]]) -> Iterator[tuple[_Name, Entry]]:
    """Yield what is remembered, by name and identity; any other line is passed over."""
    for record in records:
        values: tuple[Any, ...] = tuple(map(record.get, _KINDS))
        if tuple(map(type, values)) == _TYPES and values[3] in ENDED:
            inode, changed, *fields = values
            entry = Entry(*fields)
            yield (entry.id, inode, changed), entry


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
