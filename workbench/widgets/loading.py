"""What a panel says of a session that it does not ask anything: it loads, or it has ended."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from workbench.session import Session
from workbench.units import format_seconds

LOOK = 0.2
"""Seconds between two looks at what loads or may die."""


class Watcher(Protocol):
    """A panel that wants to know when the session that it shows ends."""

    def shows(self, session: Session) -> bool:
        """Say whether it is this session that it shows."""
        ...

    def ended(self, session: Session) -> None:
        """Take note that it has ended."""
        ...


@contextmanager
def shown_seconds(show: Callable[[str], None]) -> Iterator[None]:
    """Call `show` with how long it takes so far, until the block ends."""
    done = threading.Event()

    def run() -> None:
        began = time.monotonic()
        while not done.is_set():
            show(format_seconds(time.monotonic() - began))
            done.wait(LOOK)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def watch(panel: Watcher, session: Session) -> None:
    """Tell a panel when a session ends, in a thread that lasts while it shows that session.

    The worker has died, or another panel has let go of the engine. The thread does not keep the
    panel alive.
    """
    reference = weakref.ref(panel)

    def run() -> None:
        while not session.closed:
            time.sleep(LOOK)
            watcher = reference()
            if watcher is None or not watcher.shows(session):
                return
            del watcher
        watcher = reference()
        if watcher is not None and watcher.shows(session):
            watcher.ended(session)

    threading.Thread(target=run, name="session-watch", daemon=True).start()
