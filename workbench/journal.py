"""The journal of a job: what its runner writes, and what can be read from it at any time.

Append-only JSON lines. The state of a job is derived from them and from whether its owner lives;
"running" is never stored.
"""

from __future__ import annotations

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


@dataclass(frozen=True)
class Stage:
    """A part of a job: its name, a title for people, and when it ran (seconds since 1970).

    `broken` says that the job ended in it, and not well.
    """

    name: str
    title: str
    started: float
    ended: float | None = None
    broken: bool = False
    done: int | None = None
    total: int | None = None
    unit: str = ""

    def seconds(self, now: float) -> float:
        """Return how long it took, or has taken until now."""
        return (self.ended or now) - self.started


@dataclass
class View:
    """What a journal says up to a byte offset; `update` reads what is new."""

    path: Path
    offset: int = 0
    owner: Owner | None = None
    created: float = 0.0
    last_sign: float = 0.0
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
        now = float(record.get("time", 0.0))
        self.last_sign = max(self.last_sign, now)
        match record.get("event"):
            case "owner":
                self.owner = Owner.from_record(record.get("owner"))
                self.created = self.created or now
            case "stage":
                self._close_stages(now)
                self.facts.pop("queue", None)  # a place is only had while waiting
                name = str(record["name"])
                self.stages[name] = Stage(name, str(record.get("title", name)), now)
            case "count":
                stage = self.stages.get(str(record["name"]))
                if stage:
                    self.stages[stage.name] = replace(
                        stage,
                        done=int(record["done"]),
                        total=int(record["total"]),
                        unit=str(record.get("unit", "")),
                    )
            case "cancel":
                self.cancelling = True
            case "note":
                self.notes.append(str(record["text"]))
            case "fact":
                self.facts.update(record.get("values", {}))
            case "done" | "failed" | "cancelled" if self.end is None:
                self._close_stages(now, broken=record["event"] != "done")
                self.end = dict(record)

    def _close_stages(self, now: float, *, broken: bool = False) -> None:
        for name, stage in self.stages.items():
            if stage.ended is None:
                self.stages[name] = replace(stage, ended=now, broken=broken)

    def state(self) -> State:
        """Return the state as it is now: running means that the owner's process lives."""
        if self.end is not None:
            state: State = self.end["event"]
            return state
        if self.owner is None:
            return "starting" if time.time() - self.created < START_GRACE else "killed"
        presence = self.owner.presence()
        if presence == "gone":
            # Its last word may have been written between our reading and our asking.
            if self.update():
                return self.state()
            # It could not write its last word itself any more.
            return "cancelled" if self.cancelling else "killed"
        if time.time() - self.last_sign > SILENCE:
            return "silent"
        waits = WAIT in self.stages and self.stages[WAIT].ended is None
        return "waiting" if waits else "running"


def append(path: Path, event: str, **values: Any) -> None:
    """Append one event to the journal in a job's directory."""
    files.append_line(path / "journal.jsonl", {"time": time.time(), "event": event, **values})


class Journal:
    """The writing side of a job, used by its runner."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def own(self) -> None:
        """Write down who runs this job."""
        append(self.path, "owner", owner=Owner.current().record())

    def stage(self, name: str, title: str) -> None:
        """Begin a stage; the one before it ends."""
        append(self.path, "stage", name=name, title=title)

    def count(self, name: str, done: int, total: int, unit: str) -> None:
        """Report something that was really counted within a stage."""
        append(self.path, "count", name=name, done=done, total=total, unit=unit)

    def note(self, text: str) -> None:
        """Write down a sentence for people."""
        append(self.path, "note", text=text)

    def fact(self, **values: Any) -> None:
        """Write down measured values."""
        append(self.path, "fact", values=values)

    def end(self, event: Literal["done", "failed", "cancelled"], **values: Any) -> None:
        """Write the last word."""
        append(self.path, event, **values)
