"""This machine's GPUs for a form: what they are is asked once, what is free on a thread."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence

from workbench.backends.base import Lister
from workbench.errors import ToolchainError
from workbench.gpus import Gpu, list_gpus

FRESH = 2.0
"""Seconds until the driver is asked again, when somebody wants to know."""


class GpuReader:
    """Knows the GPUs as they were a moment ago.

    A form asks with every change, and NVML answers in milliseconds or, while a program starts on a
    GPU, in seconds. So only the first time waits; later ones get what is known and have it read
    anew for the next.
    """

    def __init__(self, ask: Lister = list_gpus) -> None:
        """Know no GPU yet.

        Args:
            ask: Asks the driver.
        """
        self._ask = ask
        self._known: Sequence[Gpu] | None = None
        self._until = 0.0
        self._thread: threading.Thread | None = None

    def read(self) -> Sequence[Gpu]:
        """Return the GPUs of this machine.

        Raises:
            ToolchainError: There is a driver, but the first time that it was asked it did not
                answer.
        """
        if self._known is None:
            self._learn()
        elif time.monotonic() > self._until and not (self._thread and self._thread.is_alive()):
            self._thread = threading.Thread(
                target=self._learn_quietly, name="workbench-gpus", daemon=True
            )
            self._thread.start()
        return self._known or ()

    def _learn(self) -> None:
        self._known = self._ask()
        self._until = time.monotonic() + FRESH

    def _learn_quietly(self) -> None:
        # Whoever builds is told; a plan can go on with what was known.
        with contextlib.suppress(ToolchainError):
            self._learn()
