"""Who uses an engine, when it was last used, and whether it is pinned: what eviction must know.

    usage/<key>/<unique>.using      a claim of a process that loads or runs the engine
    usage/<key>/<unique>.evicting   the mark of a process that is about to remove it
    usage/<key>/used                empty; its date is that of the last use
    usage/<key>/pinned              keeps the engine; says why

Whoever uses an engine writes a claim and then looks for marks; whoever removes it writes a mark and
then looks for claims. So of two that come at the same moment at least one sees the other, without a
lock: the one who removes gives way, and the one who uses waits until it has.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workbench import files
from workbench.errors import StoreError
from workbench.owner import Owner

USING, EVICTING = ".using", ".evicting"

PATIENCE = 10.0
"""Seconds that a use waits for somebody who is just looking whether he may remove the engine."""


@dataclass(frozen=True)
class Claim:
    """A claim or a mark; `release` ends it, also twice."""

    path: Path

    def release(self) -> None:
        """Take the claim back."""
        with contextlib.suppress(OSError):  # a store that became read-only keeps a dead claim
            self.path.unlink(missing_ok=True)


def folder(key: str) -> Path:
    """Return the folder of what is known about the use of an engine."""
    return files.make_folder(files.home() / "usage" / key)


def claim(key: str) -> Claim:
    """Say that this process uses an engine; nobody removes it until the claim is released.

    A store that cannot be written to has nobody who could remove something, so the claim is empty.

    Raises:
        StoreError: Another process has been removing it for `PATIENCE` seconds.
    """
    try:
        mine = _write(key, USING)
        touch(key)
    except (OSError, StoreError):
        return Claim(Path(os.devnull) / "nothing")
    deadline = time.monotonic() + PATIENCE
    while others := _living(key, EVICTING):
        if time.monotonic() > deadline:
            mine.release()
            raise StoreError(
                f"The engine {key} is being removed by process {others[0].pid} on "
                f"{others[0].host}. Build it again, or wait and try again."
            )
        time.sleep(0.02)
    return mine


@contextlib.contextmanager
def removing(key: str) -> Iterator[list[Owner]]:
    """Keep new users out while the context is open; yield those who are there already.

    Only where there is none may the engine be removed.

    Raises:
        OSError: The store cannot be written to.
    """
    mark = _write(key, EVICTING)
    try:
        yield users(key)
    finally:
        mark.release()


def users(key: str) -> list[Owner]:
    """Return the processes that use an engine; one on another host counts, since nobody knows."""
    return _living(key, USING)


def last_used(key: str) -> float:
    """Return when an engine was last used, in seconds since 1970; 0 where it never was."""
    try:
        return (files.home() / "usage" / key / "used").stat().st_mtime
    except OSError:
        return 0.0


def touch(key: str) -> None:
    """Note that an engine was used now; a store that cannot be written to forgets it."""
    with contextlib.suppress(OSError, StoreError):
        (folder(key) / "used").touch()


def pin(key: str, why: str = "") -> None:
    """Keep an engine whatever the budget is.

    Raises:
        OSError: The store cannot be written to.
    """
    files.write_json(folder(key) / "pinned", {"why": why, "time": time.time()})


def unpin(key: str) -> None:
    """Let an engine be evicted again."""
    (folder(key) / "pinned").unlink(missing_ok=True)


def is_pinned(key: str) -> bool:
    """Say whether an engine is kept whatever the budget is."""
    return (files.home() / "usage" / key / "pinned").is_file()


def forget(key: str) -> None:
    """Remove what is known about the use of an engine that is gone."""
    shutil.rmtree(files.home() / "usage" / key, ignore_errors=True)


def _write(key: str, suffix: str) -> Claim:
    path = folder(key) / f"{uuid.uuid4().hex}{suffix}"
    files.write_json(path, {"owner": Owner.current().record(), "time": time.time()})
    return Claim(path)


def _living(key: str, suffix: str) -> list[Owner]:
    """Return the owners of claims of one kind; claims of the dead are removed."""
    found = []
    try:
        paths = list((files.home() / "usage" / key).glob(f"*{suffix}"))
    except OSError:
        return []
    for path in paths:
        record = files.read_json(path)
        owner = Owner.from_record(record.get("owner")) if isinstance(record, dict) else None
        if owner is None:
            continue  # just released, or nothing of ours
        if owner.presence() == "gone":
            Claim(path).release()
        else:
            found.append(owner)
    return found
