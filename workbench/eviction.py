"""Room in the store: a budget, what may go first, and the sweep of what nobody needs.

The least recently used engine goes first. What is pinned, used, built or published at this moment
never goes, and neither does anything that is not ours.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from workbench import files, history, store, strays, usage
from workbench.engine import Engine
from workbench.errors import InputError, StoreError
from workbench.jobs import Job
from workbench.journal import ENDED
from workbench.units import format_bytes

VARIABLE = "WORKBENCH_STORE_BUDGET"
"""Decides the budget where it is set; else what `set_budget` kept."""

_EVICTED = re.compile(re.escape(files.TEMPORARY) + "evicted-[0-9a-f]{20}-[0-9a-f]{12}")
"""Names of engines that are being removed: nobody finds them any more."""


@dataclass(frozen=True)
class Usage:
    """What the store holds: engines and what was set aside, in bytes, and the budget, if any."""

    engines: int
    damaged: int
    budget: int | None

    def __str__(self) -> str:
        words = format_bytes(self.engines)
        if self.damaged:
            words += f" and {format_bytes(self.damaged)} set aside"
        return f"{words} of a budget of {format_bytes(self.budget)}" if self.budget else words


def store_usage(listed: Iterable[Engine] | None = None) -> Usage:
    """Return what the store holds now.

    Args:
        listed: Its engines, where they were listed just now: each manifest is read for that.
    """
    engines = sum(engine.bytes for engine in (store.list_engines() if listed is None else listed))
    return Usage(engines, sum(_size(path) for path in store.list_damaged()), budget())


def budget() -> int | None:
    """Return the most bytes that the store shall hold, or None for no limit.

    Raises:
        InputError: The variable holds no size.
    """
    if text := os.environ.get(VARIABLE):
        return read_size(text, VARIABLE)
    value = files.read_json(files.home() / "budget.json")
    return value if isinstance(value, int) and value > 0 else None


def set_budget(size: int | None) -> None:
    """Keep a budget for all who share this home; None takes it away.

    Raises:
        OSError: The home cannot be written to.
    """
    path = files.home() / "budget.json"
    if not size:
        path.unlink(missing_ok=True)
    else:
        files.write_json(path, size)


def why_kept(key: str) -> str:
    """Say why an engine may not be removed, or nothing.

    Of a process that nobody here can ask, also which file keeps the engine.
    """
    if (store.folder() / key).is_symlink():
        return "it is a link that somebody made"
    try:
        claims = usage.claims(key)
    except StoreError as error:
        return f"nobody can tell who uses it ({error})"
    if claims:
        path, user = claims[0]
        why = f"process {user.pid} on {user.host} uses it"
        lost = user.presence() == "elsewhere"
        return f"{why}; where that is gone for good, delete {path}" if lost else why
    # Last: who pins it claims it meanwhile, so a claim that is gone has left its pin.
    if not usage.is_pinned(key):
        return ""
    note = usage.pin_note(key)
    return f"it is pinned ({note})" if note else "it is pinned"


def evict(key: str) -> int:
    """Remove an engine; return its bytes.

    Raises:
        StoreError: It is pinned or in use, or there is no such engine.
        OSError: The store cannot be written to.
    """
    engine = store.find_engine(key)
    history.keep([engine])  # what its build took stays known
    gone = files.temporary_name(store.folder(), f"evicted-{engine.key}")
    with usage.removing(engine.key):
        # Only now: whoever begins to use or pins it from here on waits for us.
        if why := why_kept(engine.key):
            raise StoreError(f"The engine {engine.key} was not removed: {why}.")
        try:
            engine.path.rename(gone)
        except FileNotFoundError:
            raise StoreError(f"The engine {engine.key} was removed by somebody else.") from None
    usage.forget(engine.key)
    shutil.rmtree(gone, ignore_errors=True)
    return engine.bytes


def candidates() -> list[Engine]:
    """Return the engines that may go, the least recently used first."""
    free = [engine for engine in store.list_engines() if not why_kept(engine.key)]
    return sorted(free, key=lambda engine: max(engine.created, usage.last_used(engine.key)))


def make_room(
    limit: int | None = None,
    *,
    extra: int = 0,
    keep: str = "",
    tell: Callable[[str], None] = lambda _: None,
) -> int:
    """Remove what the dead and the damaged left, then engines, until the store is within a limit.

    Args:
        limit: Most bytes that it shall hold; by default the budget, and without one nothing is
            removed.
        extra: Bytes that are about to come. Where they alone are more than the limit no engine is
            removed: it would be lost, and the store over its limit all the same.
        keep: Key of an engine that stays.
        tell: Called with a sentence for each thing that was removed.

    Returns:
        The bytes by which the store is still over the limit, because nothing else may go.

    Raises:
        OSError: The store cannot be written to.
    """
    limit = budget() if limit is None else limit
    if limit is None:
        return 0

    def over() -> int:
        # Looked at each time: somebody else may make room at this very moment.
        held = store_usage()
        return max(0, held.engines + held.damaged + extra - limit)

    sweep()
    if not over():
        return 0
    for path in store.list_damaged():
        _drop(path, tell)
        if not over():
            return 0
    if extra > limit:
        tell(
            f"No engine was removed for {format_bytes(extra)} that are about to come: that alone "
            f"is more than the store shall hold, {format_bytes(limit)}."
        )
        return over()
    for engine in candidates():
        if engine.key != keep:
            _try_to_evict(engine, tell)
            if not over():
                return 0
    return over()


def keep_budget(engine: Engine, tell: Callable[[str], None]) -> None:
    """Make room after an engine has come, and tell where the store is over its budget all the same.

    Nothing goes for an engine that alone is larger than the budget.

    Raises:
        OSError: The store cannot be written to.
    """
    limit = budget()
    if limit is None:
        return
    if engine.bytes > limit:
        tell(
            f"The engine alone has {format_bytes(engine.bytes)}, more than the store's budget of "
            f"{format_bytes(limit)}: nothing was removed for it."
        )
    elif over := make_room(limit, keep=engine.key, tell=tell):
        tell(
            f"The store is {format_bytes(over)} over its budget: everything else in it is in use "
            "or pinned."
        )


def spare(extra: int, *, keep: str = "") -> int:
    """Return the bytes that `make_room` would free, given the same."""
    limit = budget()
    if limit is None:
        return 0
    held = store_usage()
    over = held.engines + held.damaged + extra - limit
    if over <= 0:
        return 0
    engines = [] if extra > limit else [e.bytes for e in candidates() if e.key != keep]
    freed = 0
    for size in [*map(_size, store.list_damaged()), *engines]:
        if freed < over:
            freed += size
    return freed


def drop(name: str, tell: Callable[[str], None]) -> None:
    """Remove an engine that was set aside, by its name in the store.

    Raises:
        StoreError: There is none of that name, or somebody has it open.
    """
    path = next((path for path in store.list_damaged() if path.name == name), None)
    if path is None:
        raise StoreError(f"Nothing was set aside as {name}. `workbench engines` lists what was.")
    _drop(path, tell)
    if path.exists():
        raise StoreError(f"{name} was not removed: it is in use, or cannot be removed.")


def _drop(path: Path, tell: Callable[[str], None]) -> None:
    """Remove what was set aside, unless somebody had it open before."""
    key = path.name.removeprefix(store.DAMAGED).rpartition("-")[0]
    try:
        used = bool(usage.users(key))
    except StoreError:
        used = True  # nobody can tell
    if used:
        return
    size = _size(path)
    shutil.rmtree(path, ignore_errors=True)
    if not path.exists():
        tell(f"Removed {path.name}, which was set aside ({format_bytes(size)}).")


def _try_to_evict(engine: Engine, tell: Callable[[str], None]) -> None:
    try:
        evict(engine.key)
    except StoreError:
        return  # somebody has begun to use it, or was faster
    except OSError as error:
        tell(f"The engine {engine.key} could not be removed: {error.strerror}.")
        return
    tell(f"Removed the engine {engine} to make room.")


def sweep() -> None:
    """Remove what builds, imports, evictions and other writers that were killed left.

    A temporary directory of an engine is named after its job or after what makes it; one of a job
    that lives, or of nothing that we know, is not touched.
    """
    strays.sweep()
    for path in store.folder().glob(f"{files.TEMPORARY}*"):
        if _is_left(path):
            shutil.rmtree(path, ignore_errors=True)
            usage.forget(path.name)


def _is_left(temporary: Path) -> bool:
    """Say whether nobody works on a temporary directory any more, as far as we know what it is."""
    label = temporary.name.removeprefix(files.TEMPORARY).rpartition("-")[0]
    if _EVICTED.fullmatch(temporary.name):
        return True  # nobody finds it, so nobody needs it
    if re.fullmatch("import-[0-9a-f]{20}", label):
        return not usage.users(temporary.name)
    job = Job.named(label)
    return (job.path / "spec.json").is_file() and job.state() in ENDED


def _size(directory: Path) -> int:
    """Return the bytes of all files in a directory; what vanishes meanwhile counts nothing."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += Path(folder, name).lstat().st_size
    return total


def read_size(text: str, name: str = "The budget") -> int | None:
    """Return the bytes that somebody wrote as a budget; None for "none".

    Raises:
        InputError: It is no size that a store can have.
    """
    if text.strip().lower() in ("none", "no"):
        return None
    size = parse_bytes(text, name)
    if size == 0 or text.strip()[-1].isdecimal():
        # Nobody means 200 bytes, and every engine would go.
        raise InputError(
            f"{name} must be a size with its unit, such as 200GiB; got {text!r}. none takes a "
            "budget away."
        )
    return size


def parse_bytes(text: str, name: str) -> int:
    """Return the bytes of a size such as "200 GiB", "50GB" or "1048576".

    Args:
        text: A number, and a unit where it is not bytes; B, kB, MB, GB, TB are powers of 1000.
        name: What it is the size of, for the sentence.

    Raises:
        InputError: It is no size.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise InputError(f"{name} must be a size such as 200GiB or 50GB; got {text!r}.")
    prefix, binary = match["prefix"].upper(), bool(match["binary"])
    power = "KMGTP".index(prefix) + 1 if prefix else 0
    return int(float(match["number"]) * (1024 if binary else 1000) ** power)


_SIZE = re.compile(
    r"(?P<number>[0-9]+(\.[0-9]+)?)\s*(?P<prefix>[kmgtp]?)(?P<binary>i?)b?", re.IGNORECASE
)
