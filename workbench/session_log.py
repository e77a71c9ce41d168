"""What the worker of a session prints, and what that means when it ends badly."""

from __future__ import annotations

import tempfile
from typing import IO

from workbench.backends import get_backend


class SessionLog:
    """The file that a worker prints into; read again only when something went wrong."""

    def __init__(self, file: IO[bytes] | None, backend: str) -> None:
        """Take a file.

        Args:
            file: Opened for reading too, and closed by whoever gave it; None makes a temporary
                one.
            backend: Whose lines it gets.
        """
        self.file = file or tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._own = file is None
        self._backend = backend

    def last_words(self) -> str:
        """Return the last line that was printed, as a sentence; empty without any."""
        lines = self._printed()
        return f" Its last words: {lines[-1]}" if lines else ""

    def explanation(self, status: int) -> str:
        """Return what the backend makes of it after the worker ended badly, or nothing."""
        tracker = get_backend(self._backend).tracker
        if tracker is None:
            return ""
        reader = tracker("session", {})
        for line in self._printed():
            reader.feed(line)
        return reader.failure(status)

    def close(self) -> None:
        """Close a temporary file."""
        if self._own:
            self.file.close()

    def _printed(self) -> list[str]:
        self.file.seek(0)
        return self.file.read().decode(errors="replace").strip().splitlines()
