"""Heartbeat: signs of life of a job in its journal, with what its processes take meanwhile."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psutil

from workbench import files
from workbench.errors import StoreError, ToolchainError
from workbench.gpus import Gpu
from workbench.hardware import address_limit, free_disk, memory, oom_kills
from workbench.journal import HEARTBEAT, Journal


@contextlib.contextmanager
def heartbeat(journal: Journal, gpus: Callable[[], Sequence[Gpu]] = tuple) -> Iterator[None]:
    """Journal a sign of life and the resources of this job every `HEARTBEAT` seconds.

    Args:
        journal: Of the job.
        gpus: Asks the driver for the GPUs that the job may take; by default it takes none.
    """
    vitals = Vitals(journal, gpus)
    stop = threading.Event()

    def run() -> None:
        vitals.beat()
        while not stop.wait(HEARTBEAT):
            vitals.beat()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        # What ended since the last beat has left its peak with us.
        vitals.beat()


class Vitals:
    """What the processes of this job take and leave, and the extremes that were seen."""

    def __init__(self, journal: Journal, gpus: Callable[[], Sequence[Gpu]] = tuple) -> None:
        self._journal = journal
        self._ask = gpus
        self._fullest: Gpu | None = None
        self._has_children = False
        self._extremes: dict[str, int] = {}
        self._constant: dict[str, int] | None = {
            name: value
            for name, value in (
                ("oom_kills", oom_kills()),
                ("address_limit_bytes", address_limit()),
            )
            if value is not None
        }

    def beat(self) -> None:
        """Journal one sign of life.

        A full disk and a driver that does not answer for once must not end the signs of life;
        whoever builds tells of them.
        """
        with contextlib.suppress(OSError, StoreError):
            facts = self._memory() | self._gpu() | self._disk() | (self._constant or {})
            self._journal.fact(**facts)
            self._constant = None

    def _memory(self) -> dict[str, int]:
        sizes = [sizes_of(pid) for pid in descendants(os.getpid())]
        self._has_children = len(sizes) > 1
        now = sum(resident for resident, _ in sizes)
        # Between two beats more may have been taken: no less than the most of a single process,
        # which the kernel keeps, also of those that have ended.
        most = max(_ended_peak(), *(peak for _, peak in sizes))
        total, available = memory()
        return {
            "memory_bytes": now,
            "peak_memory_bytes": self._most("memory", max(now, most)),
            "available_memory_bytes": available,
            "least_available_memory_bytes": self._least("available", available),
            "host_memory_bytes": total,
        }

    def _gpu(self) -> dict[str, int]:
        """Return what is taken on the fullest GPU, also by others: NVML cannot tell in a container.

        Asked for only while something of ours runs that could take it: NVML takes its time.
        """
        gpus: Sequence[Gpu] = ()
        with contextlib.suppress(ToolchainError):
            gpus = self._ask() if self._has_children else ()
        if not gpus:
            return {}
        now = max(gpus, key=_fullness)
        self._fullest = max(self._fullest or now, now, key=_fullness)
        return {
            "gpu_memory_bytes": _taken(now),
            "peak_gpu_memory_bytes": _taken(self._fullest),
            "gpu_memory_total_bytes": self._fullest.memory_bytes,
        }

    def _disk(self) -> dict[str, int]:
        free = free_disk(files.home())
        return {"disk_free_bytes": free, "least_disk_free_bytes": self._least("disk", free)}

    def _most(self, name: str, value: int) -> int:
        self._extremes[name] = max(self._extremes.get(name, value), value)
        return self._extremes[name]

    def _least(self, name: str, value: int) -> int:
        self._extremes[name] = min(self._extremes.get(name, value), value)
        return self._extremes[name]


def _taken(gpu: Gpu) -> int:
    return gpu.memory_bytes - gpu.memory_free


def _fullness(gpu: Gpu) -> float:
    return _taken(gpu) / gpu.memory_bytes


def descendants(pid: int) -> list[int]:
    """Return a process and all that it and its children have started, as far as they live.

    Linux lists the children of each thread (proc_tid_children(5)), so this costs by the size of
    the tree; elsewhere every process of the machine is asked for its parent.
    """
    if not Path(f"/proc/{pid}/task/{pid}/children").exists():
        return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
    found = [pid]
    for known in found:
        # A process may end while it is looked at.
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{known}/task"):  # noqa: PTH208 - as below
                found += map(int, _read(f"/proc/{known}/task/{thread}/children").split())
    return found


def sizes_of(pid: int) -> tuple[int, int]:
    """Return the resident memory of a process and the most that it ever was, in bytes.

    Nothing of a process that has ended; where the system keeps no peak, what is resident now.
    """
    status = _read(f"/proc/{pid}/status")
    if not status and not sys.platform.startswith("linux"):
        with contextlib.suppress(psutil.NoSuchProcess):
            resident = psutil.Process(pid).memory_info().rss
            return resident, resident
    fields = dict(line.split(b":", 1) for line in status.splitlines() if line.startswith(b"Vm"))
    resident, peak = (int(fields.get(n, b"0").split()[0]) << 10 for n in (b"VmRSS", b"VmHWM"))
    return resident, peak


def peak_of(pid: int) -> int:
    """Return the most memory that a process and all that it started ever had, in bytes.

    The sum of what each had at its own peak (proc(5), VmHWM), so rather more than less; nothing
    where it is gone.
    """
    try:
        return sum(peak for _, peak in map(sizes_of, descendants(pid)))
    except psutil.NoSuchProcess:
        return 0


def _ended_peak() -> int:
    """Return the most memory of any process that ended and was waited for, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    # getrusage(2): kilobytes; on macOS bytes.
    return peak if sys.platform == "darwin" else peak << 10


def _read(path: str) -> bytes:
    """Return a file of the kernel; nothing where the process has ended."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a third of the time of pathlib's
            return file.read()
    except OSError:
        return b""
