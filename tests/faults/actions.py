"""What a fault does, in whichever process it strikes; the standard library only."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TICK = 0.005
"""Seconds between two looks at a gate."""


class Script:
    """The faults of one build, struck when their point is reached.

    `more` are actions that only some process can do.
    """

    def __init__(self, text: str, more: dict[str, Callable[..., None]] | None = None) -> None:
        self.faults: list[dict[str, Any]] = json.loads(text or "[]")
        self._actions = {**ACTIONS, **(more or {})}

    def at(self, point: str, name: str = "") -> None:
        """Do what is asked for at this point; `name` is the file that it is about."""
        for fault in self.faults:
            values = dict(fault)
            if values.pop("at") != point or values.pop("name", name) != name:
                continue
            self._actions[values.pop("do")](**values)

    def has(self, action: str) -> bool:
        """Whether an action is asked for anywhere."""
        return any(fault["do"] == action for fault in self.faults)


def stall(until: str = "") -> None:
    """Stand still until a file appears, or for ever; a file beside it says that we are there."""
    if until:
        Path(f"{until}.reached").touch()
    while not (until and os.path.exists(until)):  # noqa: PTH110 - a cheap look, many times
        time.sleep(TICK)


def kill() -> None:
    """Die at once, as from the kernel's out-of-memory killer."""
    os.kill(os.getpid(), signal.SIGKILL)


def kill_runner() -> None:
    """Kill the process that started this one, and live on."""
    os.kill(os.getppid(), signal.SIGKILL)


def kill_tree() -> None:
    """Kill every process of this one's session, itself last."""
    mine = os.getsid(0)
    for entry in Path("/proc").iterdir():
        pid = int(entry.name) if entry.name.isdecimal() else os.getpid()
        try:
            if pid != os.getpid() and os.getsid(pid) == mine:
                os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    kill()


def stop() -> None:
    """Stand still as under SIGSTOP: no thread runs on until SIGCONT comes."""
    os.kill(os.getpid(), signal.SIGSTOP)


def segfault() -> None:
    """Crash as native code does."""
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGSEGV)


def leave(status: int = 1) -> None:
    """End without a word."""
    os._exit(status)


def fail(text: str = "played") -> None:
    """Raise what nobody expects."""
    raise RuntimeError(text)


def refuse_system(error: str, path: str | None = None) -> None:
    """Raise what the system says by a name such as EIO."""
    number = getattr(errno, error)
    raise OSError(number, os.strerror(number), path)


def take_descriptors() -> None:
    """Leave this process no descriptor to open."""
    used = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
    while True:
        try:
            os.dup(0)
        except OSError:
            return


def take_memory(mebibytes: int) -> None:
    """Hold that much memory, every page of it touched."""
    _held.append(bytearray(b"\xff") * (mebibytes << 20))


_held: list[bytearray] = []


def start_child(pids: str, *, detached: bool = False) -> None:
    """Start a process that sleeps for ever and ignores SIGTERM; append its pid to a file.

    detached: in a session of its own, where no signal to a group or session reaches it.
    """
    import subprocess  # every process of a played build loads this module, and few need that

    code = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(9e6)"
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", code],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=detached,
    )
    with Path(pids).open("a") as file:
        file.write(f"{child.pid}\n")


def say(text: str, times: int = 1) -> None:
    """Print, as runtimes do."""
    for _ in range(times):
        print(text, flush=True)


def end_wrapped() -> None:
    """Be asked to end where Python makes a RuntimeError of it, as while a class is made."""
    try:
        signal.raise_signal(signal.SIGTERM)
    except KeyboardInterrupt as error:
        raise RuntimeError("Error calling __set_name__") from error


def end_lost() -> None:
    """Be asked to end where Python loses it, as in a callback of importlib."""
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)


def ignore_term() -> None:
    """Do not end at SIGTERM. A worker with this fault does not end when its channel closes."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def shift_clock(seconds: float) -> None:
    """Let the wall clock of this process jump."""
    before = time.time
    time.time = lambda: before() + seconds


def fill(path: str) -> None:
    """Fill the disk with a file that is none of ours, to the last byte."""
    with Path(path).open("ab", buffering=0) as file:
        for size in (1 << 16, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise


def sender(descriptor: int) -> Callable[..., None]:
    """Return the action that puts anything on a channel, such as a line that is no JSON."""

    def send(raw: str) -> None:
        data = raw.encode("latin-1")
        while data:
            data = data[os.write(descriptor, data) :]

    return send


ACTIONS: dict[str, Callable[..., None]] = {
    "stall": stall,
    "kill": kill,
    "kill_runner": kill_runner,
    "kill_tree": kill_tree,
    "stop": stop,
    "segfault": segfault,
    "exit": leave,
    "raise": fail,
    "error": refuse_system,
    "descriptors": take_descriptors,
    "memory": take_memory,
    "child": start_child,
    "print": say,
    "end_wrapped": end_wrapped,
    "end_lost": end_lost,
    "deaf": ignore_term,
    "clock": shift_clock,
    "fill": fill,
}
