"""Who uses an engine, when it was last used, and whether it is pinned: what eviction must know.

    usage/<key>/<unique>.using      a claim of a process that loads or runs the engine
    usage/<key>/<unique>.evicting   the mark of a process that is about to remove it
    usage/<key>/used                empty; its date is that of the last use
    usage/<key>/pinned              keeps the engine; says why
    usage/<key>/crashed             its last load ended by a signal; says which, and when

Whoever uses an engine writes a claim and then looks for marks; whoever removes it writes a mark and
then looks for claims. So of two that come at the same moment at least one sees the other, without a
lock: the one who removes gives way, and the one who uses waits until it has.

Its process also holds a lock (flock) on a claim or mark, so that other containers on this machine,
which cannot see the process, see that it is gone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workbench import files
from workbench.engine import Engine, age
from workbench.errors import StoreError
from workbench.locks import is_let_go, take
from workbench.owner import Owner

USING, EVICTING = ".using", ".evicting"

PATIENCE = 10.0
"""Seconds that a use waits for somebody who is just looking whether he may remove the engine."""

READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
"""What the system says of a store that we may only read."""


@dataclass(frozen=True)
class Claim:
    """A claim or a mark; `release` ends it, also twice."""

    path: Path

    def release(self) -> None:
        """Take the claim back."""
        with contextlib.suppress(OSError):  # a store that became read-only keeps a dead claim
            self.path.unlink(missing_ok=True)
        lock = _LOCKS.pop(self.path, None)
        if lock is not None:
            os.close(lock)


_LOCKS: dict[Path, int] = {}
"""Descriptors of the claims of this process. A claim counts until its release, or until the process
dies, also where nobody keeps it: so does its lock."""


NOBODY = Claim(Path(os.devnull) / "nothing")
"""The claim of one who cannot write any."""


def folder(key: str) -> Path:
    """Return the folder of what is known about the use of an engine."""
    return files.make_folder(files.home() / "usage" / key)


def claim(key: str) -> Claim:
    """Say that this process uses an engine; nobody removes it until the claim is released.

    Where the store can only be read nobody removes anything either, and the claim is empty.

    Raises:
        StoreError: Another process has been removing it for `PATIENCE` seconds, or the claim cannot
            be written, as on a full disk.
    """
    try:
        mine = _write(key, USING)
    except OSError as error:
        if error.errno in READ_ONLY:
            return NOBODY
        raise StoreError(
            f"Nobody can be told that the engine {key} is in use, so it could be removed "
            f"meanwhile: {error.strerror} in {files.home()}. Make room for it, then try again."
        ) from error
    with contextlib.ExitStack() as undo:
        undo.callback(mine.release)
        _wait_for_evictors(key)
        undo.pop_all()
    touch(key)
    return mine


@contextlib.contextmanager
def using(engine: Engine) -> Iterator[None]:
    """Keep an engine from being removed while the context is open.

    Raises:
        StoreError: It was removed before; or as `claim`.
    """
    mine = claim(engine.key)
    try:
        if not engine.path.is_dir():
            raise StoreError(f"The engine {engine.key} was removed by somebody else.")
        yield
    finally:
        mine.release()


def claim_if_possible(key: str) -> Claim:
    """Claim an engine that is about to be published, which must not fail for it."""
    try:
        return claim(key)
    except StoreError:
        return NOBODY


def _wait_for_evictors(key: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while others := _living(key, EVICTING):
        if time.monotonic() > deadline:
            raise StoreError(
                f"The engine {key} is being removed by process {others[0][1].pid} on "
                f"{others[0][1].host}. Wait and try again; where that process is gone for good, "
                f"delete the files *{EVICTING} in {files.home() / 'usage' / key}."
            )
        time.sleep(0.02)


@contextlib.contextmanager
def removing(key: str) -> Iterator[None]:
    """Keep new users out while the context is open.

    Only where there is none already, which must be looked for inside, may the engine be removed.

    Raises:
        OSError: The store cannot be written to.
    """
    mark = _write(key, EVICTING)
    try:
        yield
    finally:
        mark.release()


def users(key: str) -> list[Owner]:
    """Return the processes that use an engine; one on another host counts, since nobody knows.

    Raises:
        StoreError: The claims cannot be read just now.
    """
    return [owner for _, owner in claims(key)]


def claims(key: str) -> list[tuple[Path, Owner]]:
    """Return the claims on an engine, each with the process that uses it.

    Raises:
        StoreError: As `users`.
    """
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
        StoreError: As `claim`.
    """
    using = claim(key)  # whoever removes it at this moment has done so, or sees the pin
    try:
        files.write_json(folder(key) / "pinned", {"why": why, "time": time.time()})
    finally:
        using.release()


def unpin(key: str) -> None:
    """Let an engine be evicted again."""
    (files.home() / "usage" / key / "pinned").unlink(missing_ok=True)


def is_pinned(key: str) -> bool:
    """Say whether an engine is kept whatever the budget is."""
    return (files.home() / "usage" / key / "pinned").is_file()


def pin_note(key: str) -> str:
    """Return why somebody pinned an engine, as far as they said it."""
    record = files.read_json(files.home() / "usage" / key / "pinned")
    return str(record.get("why") or "") if isinstance(record, dict) else ""


def note_crash(key: str, number: int) -> None:
    """Note that a signal ended the load of an engine; a store that cannot be written to forgets it.

    Args:
        key: Of the engine.
        number: The signal's.
    """
    with contextlib.suppress(OSError, StoreError):
        files.write_json(folder(key) / "crashed", {"signal": number, "time": time.time()})


def forget_crash(key: str) -> None:
    """Forget that an engine crashed: it was loaded, or is another one now."""
    with contextlib.suppress(OSError):
        (files.home() / "usage" / key / "crashed").unlink(missing_ok=True)


def crash(key: str) -> str:
    """Say that the last load of an engine crashed, by which signal and when; or nothing."""
    match files.read_json(files.home() / "usage" / key / "crashed"):
        case {"signal": int(number), "time": int() | float() as when}:
            known = number in signal.valid_signals()
            name = signal.Signals(number).name if known else f"signal {number}"
            name += ", perhaps for memory" if number == signal.SIGKILL else ""
            return f"crashed on load ({name}, {age(time.time() - when)} ago)"
    return ""


def suspicion(key: str) -> str:
    """Say, as a sentence after another one, what to do about an engine that crashed; or nothing."""
    if why := crash(key):
        return f" It {why}. {crash_remedy(key)}"
    return ""


def crash_remedy(key: str) -> str:
    """Say what to do about an engine that crashes when it is loaded."""
    return (
        "If it does so again, build it anew (`workbench build ... --again`), or remove it "
        f"(`workbench engines evict {key}`)."
    )


def forget(key: str) -> None:
    """Remove what is known about the use of an engine that is gone, but for claims of others.

    They may be of an engine that was published under the same key since.
    """
    known = files.home() / "usage" / key
    with contextlib.suppress(OSError):  # somebody uses it again, or the store is read-only
        (known / "used").unlink(missing_ok=True)
        (known / "crashed").unlink(missing_ok=True)
        known.rmdir()


def _write(key: str, suffix: str) -> Claim:
    """Write a claim or a mark of this process, and lock it.

    Raises:
        OSError: The store cannot be written to.
    """
    record = {"owner": Owner.current().record(), "time": time.time(), "locked": True}
    while True:
        known = files.home() / "usage" / key
        known.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = known / f"{uuid.uuid4().hex}{suffix}"
        try:
            files.write_json(path, record)
        except FileNotFoundError:
            continue  # `forget` took the folder away in this very moment
        return _locked(path)


def _locked(path: Path) -> Claim:
    """Return a claim that is held until it is released, or until this process dies.

    Raises:
        OSError: It cannot be opened; then it is none.
    """
    try:
        _LOCKS[path] = os.open(path, os.O_RDWR)
    except OSError:
        Claim(path).release()
        raise
    take(_LOCKS[path])
    return Claim(path)


def _living(key: str, suffix: str) -> list[tuple[Path, Owner]]:
    """Return the claims of one kind with their owners; those of the dead are removed."""
    found = []
    for path in _listed(files.home() / "usage" / key, suffix):
        record = files.read_json(path)
        owner = Owner.from_record(record.get("owner")) if isinstance(record, dict) else None
        if owner is None:
            continue  # just released, or nothing of ours
        if owner.presence() == "gone" or is_let_go(path, owner):
            Claim(path).release()
        else:
            found.append((path, owner))
    return found


def _listed(known: Path, suffix: str) -> list[Path]:
    """Return the claims of one kind; what cannot be read is no proof that there are none."""
    try:
        return [path for path in known.iterdir() if path.name.endswith(suffix)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(
            f"Nobody can tell who uses the engine {known.name}: {known} cannot be read "
            f"({error.strerror})."
        ) from error
