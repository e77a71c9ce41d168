"""Time limits for work that cannot be told to stop: it waits for processes, and those can end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import psutil

GRACE = 10.0
"""Seconds after a deadline in which work that watches it may still end by itself."""


@contextlib.contextmanager
def kill_children_at(deadline: float | None) -> Iterator[None]:
    """End, some time after a deadline, the processes that the body has started and waits for.

    A worker that hangs while it loads an engine answers nobody; when it is killed, whoever waits
    for it is told so. What this process had started before is left alone.
    """
    if deadline is None:
        yield
        return
    before = set(psutil.Process().children(recursive=True))

    def kill() -> None:
        for process in set(psutil.Process().children(recursive=True)) - before:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    timer = threading.Timer(max(0.0, deadline - time.monotonic()) + GRACE, kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
