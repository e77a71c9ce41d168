"""A leash: work that ends when the job that it is a part of has ended, in whatever way.

The job may run on another machine that shares the home: its journal is all that is looked at.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

from workbench.errors import StoreError
from workbench.jobs import Job
from workbench.journal import ENDED

TICK = 0.5
"""Seconds between two looks at the other end."""


@contextlib.contextmanager
def leash(parent: Job) -> Iterator[None]:
    """Interrupt this process, as cancelling its job does, when another job is over.

    A job of another host that is dead cannot say so: it is over when it is lost, see `View.lost`.
    """
    let_go = threading.Event()
    view = parent.view()

    def watch() -> None:
        while not let_go.wait(TICK):
            # A file system that fails for once must not end the watch.
            with contextlib.suppress(OSError, StoreError):
                # The state first: it may read what is new itself.
                over = view.state() in ENDED
                view.update()
                if over or view.cancelling or view.lost():
                    os.kill(os.getpid(), signal.SIGTERM)
                    return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        let_go.set()
        thread.join()
