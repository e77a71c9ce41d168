"""Devices of backends: GPUs that they take, or the processor of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from workbench.backends.base import Backend
from workbench.gpus import Gpu
from workbench.hardware import Device, host


def device_of(backend: Backend, gpus: Sequence[Gpu]) -> Device:
    """Return what a backend runs on, given the GPUs that it takes: those, or the processor."""
    return gpu_device(gpus) if gpus or backend.uses_gpu else host()


def gpu_device(gpus: Sequence[Gpu]) -> Device:
    """Return the first GPU as a device that has all of them; without any, one of no memory."""
    if not gpus:
        return Device("no NVIDIA GPU", "gpu", 0, 0, 0, 0)
    each = tuple(Device(g.name, "gpu", g.memory_bytes, g.memory_free, 0, 0) for g in gpus)
    return replace(each[0], each=each)
