"""What can stand where a record should be: every kind of damage, by name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path


def _replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Put something else in the place of a file."""

    def spoil(path: Path) -> None:
        path.unlink(missing_ok=True)
        make(path)

    return spoil


def _elsewhere(path: Path) -> None:
    """A link to a FIFO, which only a look at what was opened tells."""
    target = path.with_name(f"{path.name}.fifo")
    os.mkfifo(target)
    path.symlink_to(target)


SPOIL: dict[str, Callable[[Path], None]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b"") and None,
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "binary": lambda path: path.write_bytes(bytes(range(256)) * 64) and None,
    "utf-16": lambda path: path.write_bytes('["a", 1]'.encode("utf-16")) and None,
    "another type": lambda path: path.write_text('["a", 1]\n') and None,
    "without fields": lambda path: path.write_text("{}\n") and None,
    "too deep": lambda path: path.write_text("[" * 100_000) and None,
    "a directory": _replaced(Path.mkdir),
    "a FIFO": _replaced(os.mkfifo),
    "a link to nowhere": _replaced(lambda path: path.symlink_to("nowhere")),
    "a link to itself": _replaced(lambda path: path.symlink_to(path.name)),
    "a link to a FIFO": _replaced(_elsewhere),
    "a link to a device": _replaced(lambda path: path.symlink_to("/dev/zero")),
}
"""Name of a kind of damage, and what does it to a file."""


def swap(first: Path, second: Path) -> None:
    """Let two files change places."""
    between = first.with_name("between")
    shutil.move(first, between)
    shutil.move(second, first)
    shutil.move(between, second)
