"""Locks of living processes: the system itself lets go of one when its holder dies.

A process writes a record of itself and holds a lock (flock) on that file. So also those tell that
it is gone who cannot see it, since it ran in another container on this machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path

from workbench import files
from workbench.owner import Owner, boot

GRACE = 10.0
"""Seconds after which who has written a record has locked it too; it does so at once."""


def take(descriptor: int) -> bool:
    """Take a lock if it is free; a file system without locks does not stand in the way."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def is_let_go(path: Path, owner: Owner) -> bool:
    """Say whether a record from another container on this machine has lost its process.

    The kernel that runs both lets go of a lock when its holder dies. A record counts that says
    "locked": earlier versions held none.

    Args:
        path: The record.
        owner: Whom it names.
    """
    if owner.boot != boot() or owner.counts_here():
        return False
    record = files.read_json(path)
    if not isinstance(record, dict) or not record.get("locked"):
        return False
    with contextlib.suppress(OSError), files.open_regular(path) as file:
        if time.time() - os.fstat(file.fileno()).st_mtime > GRACE:
            # Fails where it is held, and where there are no locks: then nobody can tell. Shared,
            # which a file that is only read may be on a network file system too.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
    return False
