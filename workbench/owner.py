"""Who owns a job or a claim: a process that can be named and told from every other.

A pid alone is reused; host, boot and the start time of the process make it unique. Whether an
owner runs is asked of the system each time, never stored.
"""

from __future__ import annotations

import functools
import socket
import sys
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

MOST_PIDS = (1 << 31) - 1
"""Largest number that a pid_t holds."""


@dataclass(frozen=True)
class Owner:
    """One process on one boot of one host; for `started` see `_started`.

    `namespace` tells containers of one machine apart, whose pids count from one each, and `machine`
    tells machines apart that have the same host name; both are empty in records that do not know
    them.
    """

    host: str
    boot: str
    pid: int
    started: float
    namespace: str = ""
    machine: str = ""

    @classmethod
    def current(cls) -> Owner:
        """Return the owner that this very process is."""
        process = psutil.Process()
        return cls(
            socket.gethostname(),
            boot(),
            process.pid,
            _started(process),
            _namespace(),
            machine(),
        )

    @classmethod
    def from_record(cls, record: Any) -> Owner | None:
        """Return the owner that a record names, or None when it names none."""
        if not isinstance(record, Mapping):
            return None
        try:
            pid, started = int(record["pid"]), float(record["started"])
            host, boot = str(record["host"]), str(record["boot"])
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        if not 0 < pid <= MOST_PIDS:
            return None
        names = [str(record.get(name, "")) for name in ("namespace", "machine")]
        return cls(host, boot, pid, started, *names)

    def record(self) -> dict[str, Any]:
        """Return the owner as plain values for a journal."""
        return asdict(self)

    def presence(self) -> Literal["alive", "gone", "elsewhere"]:
        """Say whether the process lives; "elsewhere" when another host would have to be asked.

        What another boot started is gone where it was this very machine that booted again. A host
        name alone does not tell: containers and machines made from one image may share it. So
        where the record or this machine has no identity nobody knows, and nothing is taken from
        anybody.
        """
        if self.boot != boot():
            here = self.host == socket.gethostname() and self.machine == machine() != ""
            return "gone" if here else "elsewhere"
        if not self.counts_here():
            return "elsewhere"
        # The very kernel that started it answers, also under a host name that has changed.
        return "alive" if self.process() else "gone"

    def counts_here(self) -> bool:
        """Whether its pid means to us what it means to itself."""
        return self.boot == boot() and self.namespace in ("", _namespace())

    def process(self) -> psutil.Process | None:
        """Return the living process, or None; never another one that got the same pid."""
        if not self.counts_here():
            return None
        try:
            process = psutil.Process(self.pid)
            if _started(process) != self.started:
                return None
            return None if process.status() == psutil.STATUS_ZOMBIE else process
        except psutil.NoSuchProcess:
            return None


def _started(process: psutil.Process) -> float:
    """Return the start time of a process as the system keeps it.

    On Linux in clock ticks since boot, which no change of the wall clock moves (psutil adds the
    boot time, which moves with it); elsewhere in seconds since 1970.
    """
    if not sys.platform.startswith("linux"):
        return process.create_time()
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        raise psutil.NoSuchProcess(process.pid) from None
    # proc_pid_stat(5): field 22; the name in parentheses, field 2, may contain anything.
    return float(stat.rpartition(")")[2].split()[19])


@functools.cache
def boot() -> str:
    """Return an identity of this boot."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        # Outside Linux: the boot time, as a name.
        return str(uuid.uuid5(uuid.NAMESPACE_OID, str(int(psutil.boot_time()))))


@functools.cache
def machine() -> str:
    """Return an identity of this machine that outlives its boots; empty where it has none.

    machine-id(5). Containers seldom have one, and then their host name says nothing either. Outside
    Linux there is none, nor are there containers: there the host name has to do.
    """
    if not sys.platform.startswith("linux"):
        return socket.gethostname()
    try:
        return Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


@functools.cache
def _namespace() -> str:
    """Return an identity of the pid namespace that we count in (pid_namespaces(7))."""
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
