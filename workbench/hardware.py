"""Devices: the processor and memory that an engine may use, within the limits of a container."""

from __future__ import annotations

import os
import platform
import resource
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import psutil

UNLIMITED = 1 << 60
"""cgroup v1 writes "no limit" as a number near 2**63."""


FEATURES = frozenset(
    {"avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "bf16"}
)
"""Instruction sets that decide how a runtime computes, as the kernel spells them; bf16 is ARM's."""


@dataclass(frozen=True)
class Device:
    """Something that engines run on.

    Attributes:
        name: The processor's own name.
        kind: "cpu" or "gpu".
        memory_bytes: Memory that this process may have, in bytes.
        memory_available: Bytes of it that can be taken now without swapping.
        cores: Physical cores that this process may use; 0 where it has no meaning.
        threads: Threads that run at the same time.
        features: Instruction sets among `FEATURES` that the processor has.
        each: All GPUs in their order, where it is the first of those that ranks run on.
    """

    name: str
    kind: Literal["cpu", "gpu"]
    memory_bytes: int
    memory_available: int
    cores: int
    threads: int
    features: frozenset[str] = frozenset()
    each: tuple[Self, ...] = ()

    def of_ranks(self, count: int) -> list[Device]:
        """Return the GPU of each rank; those beyond the GPUs that are there share the last one."""
        each: tuple[Device, ...] = self.each or (self,)
        return [each[min(rank, len(each) - 1)] for rank in range(count)]


def host(root: Path = Path("/")) -> Device:
    """Return this machine's processor, as far as affinity and container let us use it.

    Args:
        root: Where /proc and /sys are.
    """
    total, available = memory(root)
    threads = min([_affinity(), *_cpu_limits(root)])
    return Device(
        name=_cpu_line(root, "model name") or platform.processor() or platform.machine(),
        kind="cpu",
        memory_bytes=total,
        memory_available=available,
        cores=min(psutil.cpu_count(logical=False) or threads, threads),
        threads=threads,
        features=FEATURES.intersection(
            (_cpu_line(root, "flags") or _cpu_line(root, "Features")).split()
        ),
    )


def memory(root: Path = Path("/")) -> tuple[int, int]:
    """Return the bytes that this process may have, and those that it can take without swapping.

    Args:
        root: Where /proc and /sys are.
    """
    machine = psutil.virtual_memory()
    total, available = machine.total, machine.available
    for limit, used in _memory_limits(root):
        total = min(total, limit)
        available = min(available, max(0, limit - used))
    return total, available


def swap(root: Path = Path("/")) -> tuple[int, int]:
    """Return the bytes of swap that this process may have at the most, and those that are free.

    None where the system does not tell. Version 1 groups limit it only together with memory, so
    there the numbers are an upper bound.

    Args:
        root: Where /proc and /sys are.
    """
    numbers = dict.fromkeys(("SwapTotal", "SwapFree"), 0)
    for line in _read(root / "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        if name in numbers:
            numbers[name] = int(rest.split()[0]) * 1024
    total, free = numbers.values()
    for group in _groups(root, ""):
        limit = _number(group / "memory.swap.max")
        if limit is not None:
            total = min(total, limit)
            free = min(free, max(0, limit - (_number(group / "memory.swap.current") or 0)))
    return total, free


def address_limit() -> int | None:
    """Return the limit of this process's address space in bytes (ulimit -v), or None."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if limit == resource.RLIM_INFINITY else limit


def oom_kills(root: Path = Path("/")) -> int | None:
    """Return how many processes of our cgroup the kernel has killed for memory; None if unknown.

    Counted whoever's memory ran out, the group's or the machine's (Linux, cgroup-v2.rst,
    memory.events; cgroup-v1/memory.rst, memory.oom_control).

    Args:
        root: Where /proc and /sys are.
    """
    for controller, name in (("", "memory.events"), ("memory", "memory.oom_control")):
        for group in _groups(root, controller)[:1]:
            for line in _read(group / name).splitlines():
                key, _, value = line.partition(" ")
                if key == "oom_kill":
                    return int(value)
    return None


def free_disk(path: Path) -> int:
    """Return the bytes that we may write where `path` is, or will be once it is made."""
    existing = path.absolute()
    while not existing.exists():
        existing = existing.parent
    return shutil.disk_usage(existing).free


def _affinity() -> int:
    """Return the number of hardware threads that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_limits(root: Path) -> list[tuple[int, int]]:
    """Return (limit, used) of every cgroup around this process that limits memory, in bytes.

    Cached file pages count as used there, but are given back when memory is needed.
    """
    found = []
    for group in _groups(root, ""):
        limit, used = _number(group / "memory.max"), _number(group / "memory.current")
        if limit is not None and used is not None:
            found.append((limit, used - _statistic(group, "inactive_file")))
    for group in _groups(root, "memory"):
        limit = _number(group / "memory.limit_in_bytes")
        used = _number(group / "memory.usage_in_bytes")
        if limit is not None and used is not None and limit < UNLIMITED:
            found.append((limit, used - _statistic(group, "total_inactive_file")))
    return found


def _cpu_limits(root: Path) -> list[int]:
    """Return the processors of every cgroup around this process that has a quota.

    Half a processor more is no further thread: it would be throttled half of the time.
    """
    quotas = []
    for group in _groups(root, ""):
        words = _read(group / "cpu.max").split()
        if len(words) == 2 and words[0] != "max":
            quotas.append((int(words[0]), int(words[1])))
    for group in _groups(root, "cpu"):
        quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        if quota and period and quota > 0:
            quotas.append((quota, period))
    return [max(1, quota // period) for quota, period in quotas]


def _groups(root: Path, controller: str) -> list[Path]:
    """Return the directories of this process's cgroup and of all above it.

    Args:
        root: Where /proc and /sys are.
        controller: "" for version 2, or the name of a version 1 controller.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") and (controller or number == "0"):
            break
    else:
        return []
    mount = root / "sys/fs/cgroup" / controller
    if not controller and not (mount / "cgroup.controllers").exists():
        # Beside version 1 controllers, version 2 is mounted here.
        mount /= "unified"
    # Inside a container the path may be one of the host, and only the top is mounted.
    parts = Path(path.lstrip("/")).parts
    groups = [mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1)]
    return [group for group in groups if group.is_dir()]


def _cpu_line(root: Path, name: str) -> str:
    """Return what /proc/cpuinfo says of the first processor under a name."""
    for line in _read(root / "proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _statistic(group: Path, name: str) -> int:
    for line in _read(group / "memory.stat").splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    """Return the number in a control file, or None where there is none ("max", no file)."""
    text = _read(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _read(path: Path) -> str:
    """Return a file of the kernel, or nothing where this system has no such file."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
