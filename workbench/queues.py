"""The queue of a device: one build at a time, in the order in which they came.

    queues/<device>/<number>-<job>.json   a ticket of each build that waits or runs
    queues/<device>/lock                  held (flock) by the one whose turn it is

Two builds on one device would disturb each other's tuning and memory. A ticket names its owner, so
that the place of one whose process is gone is free at once; the lock is let go by the system itself
when its holder dies. Where a file system has no locks, or says yes to everybody, the tickets alone
decide: at the worst two builds run at the same time, which costs time and harms no engine.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import psutil

from workbench import files
from workbench.jobs import Job, end_leftovers
from workbench.journal import ENDED
from workbench.owner import Owner, boot

POLL = 0.5
"""Seconds between two looks of the next in line; the others look half as often."""

SIGN = 10.0
"""Seconds between two signs of life of one who waits."""


@dataclass(frozen=True)
class Slot:
    """A device that one build at a time may have: its name on disk, and one for people."""

    name: str
    title: str


CPU = "the processor"


def processor() -> Slot:
    """Return this machine's processor: containers on one machine share it, and its boot id."""
    return Slot(f"cpu-{boot()[:8]}", CPU)


@dataclass(frozen=True)
class Place:
    """Where somebody stands in a queue: `number` builds are before, the last of them `behind`."""

    number: int
    behind: str
    host: str

    def record(self, slot: Slot) -> dict[str, Any]:
        """Return plain values for a journal."""
        return {
            "device": slot.title,
            "place": self.number,
            "behind": self.behind,
            "host": self.host,
        }


@contextlib.contextmanager
def turn(slot: Slot, job: str, report: Callable[[Place], None]) -> Iterator[None]:
    """Wait until it is a job's turn on a device, and keep the device while the context is open.

    Args:
        slot: The device.
        job: Id of the job.
        report: Called with the place in the queue when it changes, and every `SIGN` seconds; not
            at all where the device is free.

    Raises:
        OSError: The ticket cannot be written.
    """
    queue = files.make_folder(files.home() / "queues" / slot.name)
    ticket = _draw(queue, job)
    try:
        with (queue / "lock").open("ab") as lock:
            _await(queue, ticket, lock, report)
            yield
    finally:
        ticket.unlink(missing_ok=True)


def _draw(queue: Path, job: str) -> Path:
    """Put a ticket behind all others; two with the same number are ordered by their jobs."""
    number = max((_number(name) for name in _tickets(queue)), default=0) + 1
    ticket = queue / f"{number:08d}-{job}.json"
    files.write_json(ticket, {"job": job, "owner": Owner.current().record(), "time": time.time()})
    return ticket


def _number(name: str) -> int:
    return int(name.partition("-")[0])


def _tickets(queue: Path) -> list[str]:
    """Return the names of all tickets in their order; whatever else lies there is none."""
    names = [path.name for path in queue.glob("*.json")]
    return sorted(name for name in names if name.partition("-")[0].isdecimal())


def _await(queue: Path, ticket: Path, lock: IO[bytes], report: Callable[[Place], None]) -> None:
    told: Place | None = None
    when = 0.0
    while True:
        place, blocked = _look(queue, ticket.name)
        if not blocked and _take(lock):
            return
        # Nobody is before us, and the lock is taken all the same: it is about to be let go.
        place = place or Place(1, "", "")
        if place != told or time.monotonic() - when > SIGN:
            report(place)
            told, when = place, time.monotonic()
        time.sleep(POLL if place.number == 1 else 2 * POLL)


def _look(queue: Path, mine: str) -> tuple[Place | None, bool]:
    """Return who stands directly before us, and whether somebody before us can still move.

    Only as many tickets are read as it takes to find one whose owner lives.
    """
    names = _tickets(queue)
    before = names[: names.index(mine)] if mine in names else names
    nearest: Place | None = None
    for number in range(len(before), 0, -1):
        record = _read(queue / before[number - 1])
        owner = Owner.from_record(record.get("owner"))
        if owner is None:
            continue  # not a ticket of ours: in nobody's way
        job = str(record.get("job"))
        if _is_over(owner, job):
            end_leftovers(job)
            (queue / before[number - 1]).unlink(missing_ok=True)
            continue
        nearest = nearest or Place(number, job, owner.host)
        if not _stands_still(owner):
            return nearest, True
    return nearest, False


@functools.lru_cache(maxsize=256)
def _read(ticket: Path) -> dict[str, Any]:
    """Return what a ticket says; its name is used once, and its content never changes."""
    record = files.read_json(ticket)
    return record if isinstance(record, dict) else {}


def _is_over(owner: Owner, job: str) -> bool:
    """Say whether a ticket counts no more: nobody else's process is ever declared dead."""
    presence = owner.presence()
    if presence == "elsewhere":
        # Another container on this machine: its journal is all that we can see of it.
        return (Job.named(job).path / "spec.json").is_file() and Job.named(job).state() in ENDED
    return presence == "gone"


def _stands_still(owner: Owner) -> bool:
    """Say whether a process was stopped (SIGSTOP): it keeps its place, but nobody waits for it."""
    process = owner.process()
    try:
        return process is not None and process.status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False


def _take(lock: IO[bytes]) -> bool:
    """Take the lock if it is free; a file system without locks does not stand in the way."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
