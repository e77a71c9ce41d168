"""The queue of a device: one build at a time, in the order in which they came.

    queues/<device>/<number>-<job>.json   a ticket of each build that waits or runs
    queues/<device>/lock                  held (flock) by the one whose turn it is
    queues/<device>/holder                who that is, for those who wait

Two builds on one device would disturb each other's tuning and memory. A ticket names its owner, so
that the place of one whose process is gone is free at once; the lock is let go by the system itself
when its holder dies. Where a file system has no locks, or says yes to everybody, the tickets alone
decide: at the worst two builds run at the same time, which costs time and harms no engine.
"""

from __future__ import annotations

import contextlib
import functools
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from workbench import files
from workbench.jobs import Job, end_leftovers
from workbench.journal import ENDED
from workbench.locks import is_let_go, take
from workbench.owner import Owner, boot

POLL = 0.5
"""Seconds between two looks of the next in line; the others look a quarter as often."""

SIGN = 10.0
"""Seconds between two signs of life of one who waits."""

_TICKET = re.compile(r"([0-9]{8,12})-.+\.json")


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
    # Behind all others; two with the same number are ordered by their jobs.
    number = max((_number(name) for name in _tickets(queue)), default=0) + 1
    ticket = queue / f"{number:08d}-{job}.json"
    record = {"job": job, "owner": Owner.current().record(), "time": time.time(), "locked": True}
    lock = os.open(queue / "lock", os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o600)
    mine = -1
    try:
        files.write_json(ticket, record)
        # Other containers on this machine cannot see our process, but that it holds this.
        mine = os.open(ticket, os.O_RDWR)
        take(mine)
        _await(queue, ticket, lock, report)
        _clear(queue, ticket.name)
        with contextlib.suppress(OSError):  # it is only told to people
            files.write_json(queue / "holder", record)
        try:
            yield
        finally:
            # Before the next one comes: also what has left our process tree, as daemons do.
            end_leftovers(job)
    finally:
        for descriptor in filter(lambda number: number >= 0, (lock, mine)):
            os.close(descriptor)
        with contextlib.suppress(OSError):  # the ticket of one that is gone counts no more
            ticket.unlink(missing_ok=True)


def _number(name: str) -> int:
    return int(name.partition("-")[0])


def _tickets(queue: Path) -> list[str]:
    """Return the names of all tickets in their order; whatever else lies there is none."""
    paths = [path for path in queue.iterdir() if _TICKET.fullmatch(path.name)]
    owned = [path.name for path in paths if _read(path)]
    return sorted(owned, key=lambda name: (_number(name), name))


def _await(queue: Path, ticket: Path, lock: int, report: Callable[[Place], None]) -> None:
    told: Place | None = None
    when = -math.inf
    while True:
        place, blocked = _look(queue, ticket.name)
        if not blocked and take(lock):
            return
        # Nobody is before us, and the lock is taken: somebody passed us while we stood still.
        place = place or _holder(queue)
        if place != told or time.monotonic() - when > SIGN:
            report(place)
            told, when = place, time.monotonic()
        time.sleep(POLL if place.number == 1 else 4 * POLL)


def _look(queue: Path, mine: str) -> tuple[Place | None, bool]:
    """Return who stands directly before us, and whether somebody before us can still move.

    Only as many tickets are looked at as it takes to find one whose owner lives.
    """
    names = _tickets(queue)
    before = names[: names.index(mine)] if mine in names else names
    nearest: Place | None = None
    for number in range(len(before), 0, -1):
        if not (found := _read(queue / before[number - 1])):
            continue
        owner, job = found
        process = owner.process()
        if process is None and _is_removed(queue / before[number - 1]):
            continue
        nearest = nearest or Place(number, job, owner.host)
        if not _stands_still(process):
            return nearest, True
    return nearest, False


def _is_removed(ticket: Path) -> bool:
    """Remove a ticket whose owner is gone, and end all that its job left; say whether it was so."""
    found = _read(ticket)
    if not found or not (_is_over(*found) or is_let_go(ticket, found[0])):
        return False
    end_leftovers(found[1])
    with contextlib.suppress(OSError):  # it is in nobody's way
        ticket.unlink(missing_ok=True)
    return True


def _clear(queue: Path, mine: str) -> None:
    """End what dead jobs left on the device, also those that came after us and passed us."""
    for name in _tickets(queue):
        if name != mine:
            _is_removed(queue / name)


def _holder(queue: Path) -> Place:
    """Return the place behind whoever has the device."""
    owner, job = _parse(queue / "holder") or (None, "")
    return Place(1, job, owner.host if owner else "")


@functools.lru_cache(maxsize=256)
def _read(ticket: Path) -> tuple[Owner, str] | None:
    """Return what a ticket says; its name is used once, and its content never changes."""
    return _parse(ticket)


def _parse(path: Path) -> tuple[Owner, str] | None:
    """Return the owner and the job that a file names, or None where it names none."""
    record = files.read_json(path)
    owner = Owner.from_record(record.get("owner")) if isinstance(record, dict) else None
    return (owner, str(record.get("job"))) if owner else None


def _is_over(owner: Owner, job: str) -> bool:
    """Say whether a ticket counts no more: nobody else's process is ever declared dead."""
    presence = owner.presence()
    if presence == "elsewhere":
        # Another container on this machine: its journal is all that we can see of it.
        return (Job.named(job).path / "spec.json").is_file() and Job.named(job).state() in ENDED
    return presence == "gone"


def _stands_still(process: psutil.Process | None) -> bool:
    """Say whether a process was stopped (SIGSTOP): it keeps its place, but nobody waits for it."""
    try:
        return process is not None and process.status() == psutil.STATUS_STOPPED
    except psutil.NoSuchProcess:
        return False
