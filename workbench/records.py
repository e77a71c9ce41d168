"""Records kept as lines of a file, of which the latest are read again and again."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from workbench import files

TAIL = 1 << 19
"""Bytes at the end of a file in which the latest records are looked for: some 1,000 records, so
that a longer history costs no more time."""

Parsed = TypeVar("Parsed")


def latest_of(
    path: Path, parse: Callable[[Mapping[str, Any]], Parsed | None]
) -> tuple[Parsed, ...]:
    """Return the latest records of a file; it is read anew only when something was written.

    Args:
        path: The file, which need not be there.
        parse: Returns what a line says, or None where it holds no record.
    """
    try:
        status = path.stat()
    except OSError:
        return ()
    found: tuple[Parsed, ...] = _parsed(path, status.st_size, status.st_mtime_ns, parse)
    return found


@functools.lru_cache(maxsize=32)
def _parsed(path: Path, size: int, changed: int, parse: Callable[..., Any]) -> tuple[Any, ...]:
    del changed
    with contextlib.suppress(OSError):
        # A line that this cuts in two is passed over like any other that holds no record.
        lines = files.read_lines(path, max(0, size - TAIL))[0] if path.is_file() else []
        return tuple(one for one in map(parse, lines) if one is not None)
    return ()
