"""The processes of a job: all that it started carry its directory in their environment.

Also those that have left its session and its process tree, as daemons do; but not those inside a
container, which end with the program that started it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from workbench.owner import Owner

MARK = "WORKBENCH_JOB"
"""Variable in the environment of all processes of a job: the job's directory."""


def processes_of(job: Path) -> list[psutil.Process]:
    """Return the living processes of the job in a directory."""
    mine = os.path.realpath(job)
    found = []
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(MARK)
            # Whoever started it may know the same home by another path.
            if mark and os.path.realpath(mark) == mine and _lives(process):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            continue
    return found


def end(job: Path, runner: Owner, patience: float) -> None:
    """Ask the runner of a job to end; kill what is still there after `patience` seconds."""
    with contextlib.suppress(psutil.NoSuchProcess):  # it may end by itself at any moment
        if process := runner.process():
            # A stopped process does not see SIGTERM until it is continued.
            process.send_signal(signal.SIGTERM)
            process.send_signal(signal.SIGCONT)
            # Whatever it does not end itself has nobody to ask any more.
            _wait_for_end([process], patience)
    kill(job)


def kill(job: Path) -> None:
    """Kill all processes of a job but this one, and those that they start meanwhile."""
    for _ in range(3):  # what sits in a driver cannot be killed, however often
        if not (alive := [p for p in processes_of(job) if p.pid != os.getpid()]):
            return
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _wait_for_end(alive, 5.0)


def _wait_for_end(processes: Sequence[psutil.Process], seconds: float) -> None:
    """Wait until no process of these lives, with a deadline.

    A zombie does not: in a container nobody may ever come to take it away (psutil would wait).
    """
    deadline = time.monotonic() + seconds
    while any(map(_lives, processes)) and time.monotonic() < deadline:
        time.sleep(0.01)


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
