"""Strays: temporaries that killed writers left outside the folder of engines.

A record gets its name in one step, from a temporary that lives for moments (`files.write_json`,
and `jobs` for a directory). One that is older than a day has lost its writer. What lies among the
engines has a name that tells whose it is, and is swept by `eviction`.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from workbench import files

AGE = 24 * 3600.0
"""Seconds after which a temporary has lost its writer; also between two sweeps, for speed."""

MARK = "swept"
"""Empty file in the home whose date is that of the last sweep."""

_OURS = re.compile(re.escape(files.TEMPORARY) + ".+-[0-9a-f]{12}")


def sweep() -> None:
    """Remove what killed writers left, at most once a day; nothing else is touched."""
    mark = files.home() / MARK
    with contextlib.suppress(FileNotFoundError):
        # Also where the clock was set back since.
        if abs(time.time() - mark.stat().st_mtime) < AGE:
            return
    with contextlib.suppress(OSError):  # from a home that can only be read nothing is removed
        mark.touch(mode=0o600)
    for path in _temporaries():
        _remove_if_old(path)


def _temporaries() -> Iterator[Path]:
    """Yield all temporaries beside records, wherever `files.write_json` puts records."""
    home = files.home()
    folders = [home, *home.glob("*"), *home.glob("usage/*"), *home.glob("queues/*")]
    for folder in folders:
        if folder == home / "engines":
            continue
        with contextlib.suppress(OSError):  # a record, or a folder of somebody else
            yield from [path for path in folder.iterdir() if _OURS.fullmatch(path.name)]


def _remove_if_old(path: Path) -> None:
    with contextlib.suppress(OSError):  # its writer lives, or somebody else sweeps too
        if time.time() - path.lstat().st_mtime < AGE:
            return
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
