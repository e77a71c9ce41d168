"""What a step prints is kept and read, whatever the system refuses meanwhile."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from workbench.backends import get_backend
from workbench.compilation import Compilation, Printed
from workbench.journal import Journal
from workbench.toolchain import find_toolchain


class Notes:
    """A tracker that makes a note of every line."""

    def feed(self, line: str) -> list[dict[str, Any]]:
        return [{"event": "note", "text": line}]

    def reached(self, stage: str) -> None:
        """Do nothing."""

    def failure(self, status: int | None) -> str:
        del status
        return ""


def _print(journal: Journal, data: bytes) -> Printed:
    """Let a step print `data`; return when all of it was taken."""
    compilation = Compilation(get_backend("openvino"), find_toolchain("openvino"), journal, 0)
    printed = Printed(compilation, Notes())
    theirs = os.dup(printed.entrance)
    printed.start()

    def write() -> None:
        with os.fdopen(theirs, "wb") as file:
            file.write(data)

    writer = threading.Thread(target=write)
    writer.start()
    writer.join(10.0)
    assert not writer.is_alive(), "the step stands still: nobody takes what it prints"
    printed.finish()
    return printed


def test_lines_arrive_whole_also_over_the_edges_of_reads(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    journal = Journal(tmp_path)
    lines = [f"{number}: {'ä€' * 30}" for number in range(1000)]
    printed = _print(journal, "\n".join(lines).encode() + b"\rlast")
    assert printed.error is None
    from workbench.journal import View

    view = View(tmp_path)
    view.update()
    assert view.notes == [*lines, "last"]
    assert capfd.readouterr().out.endswith("last")


def test_a_full_disk_is_told_and_stops_nobody(tmp_path: Path, capfd: pytest.CaptureFixture) -> None:
    class Full(Journal):
        def note(self, text: str) -> None:
            raise OSError(errno.ENOSPC, f"No space left on device for {text!r}")

    printed = _print(Full(tmp_path), b"line\n" * 100_000)
    assert printed.error is not None
    assert printed.error.errno == errno.ENOSPC
    assert capfd.readouterr().out.count("line") == 100_000
