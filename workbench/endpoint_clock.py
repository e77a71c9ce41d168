"""The clock of a session with a server: ends requests that take too long, one thread for all."""

from __future__ import annotations

import threading
from typing import Protocol


class Timed(Protocol):
    """A request that is not waited for for ever."""

    def check_time(self) -> float:
        """End it where its time is up; return the seconds until that may be."""
        ...


class Clock:
    """Looks at all requests that run when the first of them may have to end.

    Its thread starts with a request, and ends with the last one that runs.
    """

    def __init__(self, shortest: float) -> None:
        """Prepare a clock.

        Args:
            shortest: Seconds that every request has at least, from any moment on.
        """
        self._shortest = shortest
        self._watched: set[Timed] = set()
        self._lock = threading.Condition()
        self._thread: threading.Thread | None = None

    def watch(self, one: Timed) -> None:
        """Look at a request from now on."""
        with self._lock:
            self._watched.add(one)
            if self._thread is None:
                self._start()

    def forget(self, one: Timed) -> None:
        """Look no more at a request, which has ended."""
        with self._lock:
            self._watched.discard(one)
            if not self._watched:
                self._lock.notify_all()

    def join(self, timeout: float) -> None:
        """Wait for the thread, when no request runs any more."""
        with self._lock:
            thread = self._thread
        if thread:
            thread.join(timeout)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="workbench-clock", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        """Look until no request runs any more (runs in a thread)."""
        try:
            self._look()
        except BaseException:
            # Whoever is told of an end may raise. The others are still not waited for for ever.
            with self._lock:
                self._start()
            raise

    def _look(self) -> None:
        """Look, and sleep until one may have to end."""
        while True:
            with self._lock:
                watched = list(self._watched)
                if not watched:
                    self._thread = None
                    return
            left = min(one.check_time() for one in watched)
            with self._lock:
                # Whoever comes meanwhile has at least as long, so nobody has to wake this up.
                patience = max(0.0, min(left, self._shortest))
                self._lock.wait_for(lambda: not self._watched, patience)
