"""What a measurement depends on outside the engine: versions, the device, and who else computes."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping, Sequence
from typing import Any

import psutil

import workbench
from workbench.gpus import Gpu, driver
from workbench.hardware import host

LOOK = 0.2
"""Seconds for which the processor is watched before a measurement."""

BUSY = 0.25
"""Share of the processor that others may take before a measurement is called doubtful."""


def surroundings(versions: Mapping[str, str], gpus: Sequence[Gpu]) -> dict[str, Any]:
    """Return versions and device of a measurement that is about to start, and the load before it.

    Args:
        versions: Of the toolchain's packages.
        gpus: Those that the engine runs on; none where the processor computes.

    Raises:
        ToolchainError: There is a GPU driver that does not answer.
    """
    machine = host()
    told: dict[str, Any] = {
        "workbench": workbench.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "toolchain": dict(versions),
        "device": device_name(gpus),
        "processor": machine.name,
        "threads": machine.threads,
        "memory_bytes": machine.memory_bytes,
        "load_before": os.getloadavg()[0],
        "busy_before": busy(LOOK),
    }
    if gpus:
        told |= {"gpus": [gpu.name for gpu in gpus], "driver": driver()}
    return told


def device_name(gpus: Sequence[Gpu]) -> str:
    """Return what an engine runs on: the first of its GPUs, or the processor."""
    return gpus[0].name if gpus else host().name


def busy(seconds: float) -> float:
    """Watch the processor for some seconds; return the share of it that is in use, 0 to 1."""
    watch = Watch()
    time.sleep(seconds)
    return watch.share()


class Watch:
    """The use of the processor from now on."""

    def __init__(self) -> None:
        self._before = psutil.cpu_times()

    def share(self) -> float:
        """Return the share of the whole machine's processor that was in use since the start."""
        now = psutil.cpu_times()
        total, idle = sum(now) - sum(self._before), now.idle - self._before.idle
        # On Linux the time that waits for a disk is idle too (proc_stat(5), iowait).
        idle += getattr(now, "iowait", 0.0) - getattr(self._before, "iowait", 0.0)
        return min(1.0, max(0.0, 1 - idle / total)) if total > 0 else 0.0


def doubts(environment: Mapping[str, Any]) -> list[str]:
    """Return what of the surroundings makes a measurement doubtful, a sentence each."""
    share = environment.get("busy_before", 0.0)
    if share <= BUSY:
        return []
    words = (
        f"{share:.0%} of the processor was in use before the measurement began: others compute on "
        "this machine, and the figures are lower than it can do."
    )
    return [words]
