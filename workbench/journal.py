"""The journal of a job: what its runner writes, and what can be read from it at any time.

Append-only JSON lines. Each has the time of day, for people, and the monotonic clock, which all
processes of a boot share and nobody sets: what lasts is measured on that one. The state of a job is
derived from them and from whether its owner lives; "running" is never stored.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from workbench import files
from workbench.owner import Owner

State = Literal["starting", "waiting", "running", "done", "failed", "cancelled", "killed", "silent"]
"""waiting: for its turn on a device; killed: its process is gone without a last word; silent: no
sign of life, and the owner is on another host or stands still, so nothing more is known."""

ENDED: frozenset[State] = frozenset({"done", "failed", "cancelled", "killed"})

START_GRACE = 20.0
"""Seconds that a job may take from its directory to the first word of its runner."""

HEARTBEAT = 2.0
"""Seconds between two signs of life."""

WAIT = "wait"
"""Name of the stage in which a job waits for its turn on a device."""

SILENCE = 30.0
"""Seconds without a sign of life after which a job is shown as silent."""

LOST = 120.0
"""Seconds of silence after which a job of another host is given up by those who wait for it. Longer
than `SILENCE`, since a shared file system may show a journal a minute late (nfs(5), acregmax)."""

RESERVE = "reserve"
"""File of a running job that is given up for its last word, which finds room on a full disk too."""


@dataclass(frozen=True)
class Stage:
    """A part of a job: its name, a title for people, and when it ran (seconds since 1970).

    `broken` says that the job ended in it, and not well. `clock` is when it began and `took` how
    long it ran on the monotonic clock, where the journal knows it.
    """

    name: str
    title: str
    started: float
    ended: float | None = None
    broken: bool = False
    done: int | None = None
    total: int | None = None
    unit: str = ""
    clock: float | None = None
    took: float | None = None

    def seconds(self, now: float) -> float:
        """Return how long it took, or has taken until now; a clock that was set back counts 0."""
        if self.took is not None:
            return self.took
        return max(0.0, (now if self.ended is None else self.ended) - self.started)


@dataclass
class View:
    """What a journal says up to a byte offset; `update` reads what is new."""

    path: Path
    offset: int = 0
    owner: Owner | None = None
    created: float = 0.0
    last_sign: float = 0.0
    last_clock: float | None = None
    stages: dict[str, Stage] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    end: dict[str, Any] | None = None
    cancelling: bool = False

    def update(self) -> bool:
        """Read what was appended since the last call; say whether there was anything."""
        records, self.offset = files.read_lines(self.path / "journal.jsonl", self.offset)
        for record in records:
            self._take(record)
        return bool(records)

    def _take(self, record: Mapping[str, Any]) -> None:
        self.last_sign = _number(record.get("time"), self.last_sign)
        self.last_clock = _number(record.get("clock"), None)
        # A record that is not what its event should be is passed over, as a torn line is.
        with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
            self._apply(record)

    def _apply(self, record: Mapping[str, Any]) -> None:
        match record.get("event"):
            case "owner":
                self.owner = Owner.from_record(record["owner"])
                self.created = self.created or self.last_sign
            case "stage":
                name = _text(record["name"])
                title = _text(record.get("title", name))
                self._close_stages()
                self.facts.pop("queue", None)  # a place is only had while waiting
                self.stages[name] = Stage(name, title, self.last_sign, clock=self.last_clock)
            case "count":
                self._count(_text(record["name"]), record)
            case "cancel":
                self.cancelling = True
            case "note":
                self.notes.append(_text(record["text"]))
            case "fact":
                self.facts.update(dict(record["values"]))
            case "done" | "failed" | "cancelled" if self.end is None:
                self._close_stages(broken=record["event"] != "done")
                self.end = dict(record)
                if not isinstance(record.get("text", ""), str):
                    del self.end["text"]

    def _count(self, name: str, record: Mapping[str, Any]) -> None:
        """Take what was counted; less than nothing, or more than all, was not."""
        stage, done, total = self.stages[name], int(record["done"]), int(record["total"])
        if 0 <= done <= total:
            unit = _text(record.get("unit", ""))
            self.stages[name] = replace(stage, done=done, total=total, unit=unit)

    def _close_stages(self, *, broken: bool = False) -> None:
        for name, stage in self.stages.items():
            if stage.ended is None:
                took = None
                if stage.clock is not None and self.last_clock is not None:
                    took = max(0.0, self.last_clock - stage.clock)
                ended = replace(stage, ended=self.last_sign, took=took, broken=broken)
                self.stages[name] = ended

    def silence(self) -> float:
        """Return the seconds since the last sign of life, whatever was done to the time of day."""
        if self.last_clock is not None and self.owner and self.owner.counts_here():
            return time.monotonic() - self.last_clock
        return time.time() - self.last_sign

    def lost(self) -> bool:
        """Whether nothing was heard for so long of a job of another host that it counts as over.

        By the clocks of both hosts, which must not be minutes apart.
        """
        if self.state() != "silent" or self.silence() <= LOST:
            return False
        return self.owner is not None and self.owner.presence() == "elsewhere"

    def state(self) -> State:
        """Return the state as it is now: running means that the owner's process lives."""
        if self.end is not None:
            state: State = self.end["event"]
            return state
        if self.owner is None:
            # Also where the time of day was set back since: nobody waits a day for a start.
            return "starting" if abs(time.time() - self.created) < START_GRACE else "killed"
        presence = self.owner.presence()
        if presence == "gone":
            # Its last word may have been written between our reading and our asking.
            if self.update():
                return self.state()
            # It could not write its last word itself any more.
            return "cancelled" if self.cancelling else "killed"
        if self.silence() > SILENCE:
            return "silent"
        waits = WAIT in self.stages and self.stages[WAIT].ended is None
        return "waiting" if waits else "running"


def _number(value: Any, otherwise: float | None) -> Any:
    """Return a finite number of a record, or something else where it has none."""
    with contextlib.suppress(OverflowError):
        if isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    return otherwise


def _text(value: Any) -> str:
    """Return a text of a record.

    Raises:
        TypeError: It is none.
    """
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def append(path: Path, event: str, **values: Any) -> None:
    """Append one event to the journal in a job's directory."""
    files.append_line(path / "journal.jsonl", _record(event, values))


def _record(event: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {"time": time.time(), "clock": time.monotonic(), "event": event, **values}


class Journal:
    """The writing side of a job, used by its runner."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def own(self) -> None:
        """Write down who runs this job; from now on its last word needs nothing from the system.

        The journal stays open, for a process that has no descriptor left, and some room on the
        disk is set aside.
        """
        self._descriptor = files.open_journal(self.path / "journal.jsonl")
        self._append("owner", owner=Owner.current().record())
        with contextlib.suppress(OSError):  # full already: it is not the job that shall fail for it
            # Nothing that a file system could keep in less.
            (self.path / RESERVE).write_bytes(os.urandom(4096))

    def stage(self, name: str, title: str) -> None:
        """Begin a stage; the one before it ends."""
        self._append("stage", name=name, title=title)

    def count(self, name: str, done: int, total: int, unit: str) -> None:
        """Report something that was really counted within a stage."""
        self._append("count", name=name, done=done, total=total, unit=unit)

    def note(self, text: str) -> None:
        """Write down a sentence for people."""
        self._append("note", text=text)

    def fact(self, **values: Any) -> None:
        """Write down measured values."""
        self._append("fact", values=values)

    def end(self, event: Literal["done", "failed", "cancelled"], **values: Any) -> None:
        """Write the last word, and wait until it is on the disk: a power cut does not undo it."""
        with contextlib.suppress(OSError):
            (self.path / RESERVE).unlink(missing_ok=True)
        self._append(event, **values)
        if self._descriptor is not None:
            with contextlib.suppress(OSError):  # it is written; only the disk does not say so
                os.fsync(self._descriptor)

    def _append(self, event: str, **values: Any) -> None:
        if self._descriptor is None:
            append(self.path, event, **values)
        else:
            files.append_record(self._descriptor, _record(event, values))
