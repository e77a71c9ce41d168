"""Devices of backends: GPUs that they take, or the processor of this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from workbench.backends import get_backend, make_spec
from workbench.backends.base import Backend, ranks
from workbench.engine import Engine
from workbench.gpus import Gpu, list_gpus
from workbench.hardware import Device, host
from workbench.spec import BuildSpec, parameters_of

PLACES = ("device", "tp_size", "pp_size")
"""The parameters that decide on which devices an engine runs, by the names that backends share."""


def gpus_of(spec: BuildSpec) -> Sequence[Gpu]:
    """Return the GPUs here that an engine of a spec runs on; none where the processor computes.

    A build may take more of them, see `Backend.takes`.

    Raises:
        ToolchainError: There is a GPU driver that does not answer.
    """
    return get_backend(spec.backend).takes(spec, list_gpus)[: ranks(spec)]


def gpus_of_engine(engine: Engine) -> Sequence[Gpu]:
    """Return the GPUs here that an engine runs on under its limits, as `gpus_of` does.

    Raises:
        SpecError: Its manifest names a device that its backend does not know.
        ToolchainError: There is a GPU driver that does not answer.
    """
    told = {**engine.manifest["identity"]["spec"], **engine.limits}
    known = parameters_of(get_backend(engine.backend).spec_class)
    placed = {name: told[name] for name in PLACES if name in told and name in known}
    return gpus_of(make_spec({"backend": engine.backend, **placed}))


def needs_gpu(spec: BuildSpec) -> bool:
    """Say whether a spec runs on NVIDIA GPUs and on nothing else."""
    return get_backend(spec.backend).uses_gpu or getattr(spec, "device", None) == "cuda"


def device_of(backend: Backend, gpus: Sequence[Gpu]) -> Device:
    """Return what a backend runs on, given the GPUs that it takes: those, or the processor."""
    return gpu_device(gpus) if gpus or backend.uses_gpu else host()


def gpu_device(gpus: Sequence[Gpu]) -> Device:
    """Return the first GPU as a device that has all of them; without any, one of no memory."""
    if not gpus:
        return Device("no NVIDIA GPU", "gpu", 0, 0, 0, 0)
    each = tuple(Device(g.name, "gpu", g.memory_bytes, g.memory_free, 0, 0) for g in gpus)
    return replace(each[0], each=each)
