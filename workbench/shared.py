"""Open sessions of this process, shared by all that generate with the same source.

Running a cell again makes a new panel, and loading its engine a second time would double its
memory. Which panels are still on a page, a kernel does not know: so what is open stays open while
there is room for what comes, and what nobody generates with goes first.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from workbench.devices import gpus_of_engine
from workbench.endpoint import Endpoint
from workbench.errors import SessionError
from workbench.hardware import memory
from workbench.opened import Opened
from workbench.sources import Source, least_memory, open_source, source_label, source_name
from workbench.units import format_bytes


@dataclass(frozen=True)
class _Held:
    """An open session and what it was opened from."""

    source: Source
    session: Opened


_OPEN: dict[str, _Held] = {}
"""By name of the source, the one that was used longest ago first."""

_LOCK = threading.RLock()

_HOLDERS: dict[str, weakref.WeakSet[Any]] = {}
"""By name of the source, who wants it open also while nobody generates."""

_HOLDING = threading.Lock()
"""For the holders alone: the other lock is taken while an engine loads."""


def acquire(
    source: Source,
    *,
    holder: Any = None,
    keep: Collection[Source] = (),
    stage: Callable[[str], None] = lambda _: None,
) -> Opened:
    """Return the session of a source, opened if there is none that lives.

    Args:
        source: What to open.
        holder: Who wants it open from now on, see `let_go`. It is not kept alive by that.
        keep: Sources whose sessions stay open, even where their memory is wanted.
        stage: Called with each stage of loading an engine, see `session.LOADING`.

    Raises:
        SessionError: There is no room for it, or it cannot be opened.
        WorkbenchError: Other reasons why it cannot be opened.
    """
    name = source_name(source)
    with _LOCK:
        held = _OPEN.pop(name, None)
        if held and isinstance(source, Endpoint) and not held.session.active:
            # Whether it still serves, and which model, only asking tells.
            held.session.close()
        if held is None or held.session.closed:
            _drop_holders(name)
            _make_room(source, {source_name(other) for other in keep})
            held = _Held(source, open_source(source, stage))
        _OPEN[name] = held
        if holder is not None:
            hold(source, holder)
        return held.session


def hold(source: Source, holder: Any) -> None:
    """Note that somebody wants an open source to stay open."""
    with _HOLDING:
        _HOLDERS.setdefault(source_name(source), weakref.WeakSet()).add(holder)


def let_go(source: Source, holder: Any) -> bool:
    """Note that somebody does not want a source any more; say whether nobody else does.

    It is not closed: whoever comes next may want it.
    """
    with _HOLDING:
        holders = _HOLDERS.get(source_name(source), weakref.WeakSet())
        holders.discard(holder)
        return not holders


def forget(holder: Any) -> None:
    """Note that somebody wants nothing any more."""
    with _HOLDING:
        for holders in _HOLDERS.values():
            holders.discard(holder)


def release(source: Source) -> bool:
    """Close the session of a source unless somebody generates with it; say whether it is closed."""
    with _LOCK:
        held = _OPEN.get(source_name(source))
        if held is None:
            return True
        if held.session.busy:
            return False
        _close(held)
        return True


def opened() -> list[tuple[Source, Opened]]:
    """Return what is open and lives, the one that was used longest ago first."""
    with _LOCK:
        return [(h.source, h.session) for h in _OPEN.values() if not h.session.closed]


def room_line(source: Source) -> str:
    """Return a sentence on the memory that opening needs and what there is; empty for servers."""
    if isinstance(source, Endpoint):
        return ""
    what, free = _free(source)
    return (
        f"It needs at least {format_bytes(least_memory(source))}; {format_bytes(free)} "
        f"of {what} are free."
    )


def _make_room(source: Source, keep: Collection[str]) -> None:
    """Close what nobody generates with, the oldest first, until the source has room.

    Raises:
        SessionError: There is no room, whatever is closed.
    """
    if isinstance(source, Endpoint):
        return
    needed = least_memory(source)
    idle = [held for name, held in _OPEN.items() if name not in keep and not held.session.busy]
    for held in [None, *idle]:
        if held:
            _close(held)
        if _free(source)[1] >= needed:
            return
    others = [source_label(held.source) for held in _OPEN.values()]
    in_use = f" Open and in use: {'; '.join(others)}. Unload one first." if others else ""
    raise SessionError(f"{source_label(source)} was not loaded. {room_line(source)}{in_use}")


def _drop_holders(name: str) -> None:
    """Forget who wanted what is closed now; they are told by their own watch."""
    with _HOLDING:
        _HOLDERS.pop(name, None)


def _close(held: _Held) -> None:
    name = source_name(held.source)
    _OPEN.pop(name, None)
    _drop_holders(name)
    held.session.close()


def _free(source: Source) -> tuple[str, int]:
    """Return the kind of memory that an engine takes first, and how much of it is free."""
    gpus = () if isinstance(source, Endpoint) else gpus_of_engine(source)
    if gpus:
        return "GPU memory", sum(gpu.memory_free for gpu in gpus)
    return "memory", memory()[1]


class IdleTimer:
    """Calls an action when nothing has happened for a while; it has a thread only meanwhile."""

    def __init__(self, minutes: float | None, action: Callable[[], None]) -> None:
        """Wait for the first `restart`.

        Args:
            minutes: How long; None never calls.
            action: What is called, in a thread of its own.
        """
        self._seconds = None if minutes is None else 60.0 * minutes
        self._action = action
        self._timer: threading.Timer | None = None

    def restart(self) -> None:
        """Begin to wait anew."""
        self.stop()
        if self._seconds is not None:
            self._timer = threading.Timer(self._seconds, self._action)
            self._timer.daemon = True
            self._timer.start()

    def stop(self) -> None:
        """Do not wait any more."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
