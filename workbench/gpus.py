"""GPUs: what NVIDIA's driver says of them, without starting CUDA.

NVML numbers GPUs in the order of the PCI bus, CUDA by default the fastest first; toolchains are
started with CUDA_DEVICE_ORDER=PCI_BUS_ID, so that both mean the same.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import psutil

from workbench.errors import ToolchainError


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        index: Number in the order of the PCI bus, as nvidia-smi shows it.
        name: What NVIDIA calls it.
        compute_capability: Major and minor number, (9, 0) for Hopper.
        memory_bytes: Memory on it, in bytes; the host's where both share one memory.
        memory_free: Bytes of it that nobody has taken.
        uuid: "GPU-..." of this very piece of hardware; "planned-..." where there is none.
    """

    index: int
    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int
    memory_free: int
    uuid: str

    @property
    def sm(self) -> int:
        """The compute capability as one number, as architectures are named: 90, 120."""
        major, minor = self.compute_capability
        return 10 * major + minor

    @property
    def is_planned(self) -> bool:
        """Whether it stands for one that is elsewhere, see `workbench.gpu_table`."""
        return self.uuid.startswith("planned-")


def list_gpus(visible: str | None = None) -> tuple[Gpu, ...]:
    """Return the GPUs that a build would see; none where there is no NVIDIA driver.

    CUDA_VISIBLE_DEVICES selects and orders them, see `select`. A slice of a GPU (MIG) is not
    described yet: an entry that names one ends the list.

    Args:
        visible: A value of that variable in place of our own.

    Raises:
        ToolchainError: There is a driver, but it does not answer.
    """
    with _nvml() as nvml:
        if nvml is None:
            return ()
        found = tuple(_describe(nvml, index) for index in range(nvml.nvmlDeviceGetCount()))
    return select(found, os.environ.get("CUDA_VISIBLE_DEVICES") if visible is None else visible)


def driver() -> tuple[str, str] | None:
    """Return the version of the driver and of the newest CUDA that it supports, or None.

    Raises:
        ToolchainError: There is a driver, but it does not answer.
    """
    with _nvml() as nvml:
        if nvml is None:
            return None
        return _text(nvml.nvmlSystemGetDriverVersion()), cuda_version(
            nvml.nvmlSystemGetCudaDriverVersion_v2()
        )


def select(gpus: Sequence[Gpu], visible: str | None) -> tuple[Gpu, ...]:
    """Return the GPUs that CUDA shows to a program under CUDA_VISIBLE_DEVICES.

    Entries are indices, or UUIDs that may be cut short; the first one that names no GPU, or one
    for the second time, ends the list. (CUDA C++ Programming Guide, "CUDA Environment Variables":
    only devices before an invalid index are visible. -1 is the usual way to hide all.)

    Args:
        gpus: All GPUs of this machine, in the order of the PCI bus.
        visible: Value of the variable; None where it is not set.
    """
    if visible is None:
        return tuple(gpus)
    chosen: list[Gpu] = []
    for word in visible.split(","):
        entry = word.strip()
        named = [
            gpu
            for gpu in gpus
            if entry == str(gpu.index) or (entry.startswith("GPU-") and gpu.uuid.startswith(entry))
        ]
        if len(named) != 1 or named[0] in chosen:
            break
        chosen += named
    return tuple(chosen)


def cuda_version(number: int) -> str:
    """Return "13.0" for 13000: the driver tells 1000 x major + 10 x minor."""
    return f"{number // 1000}.{number % 1000 // 10}"


@contextlib.contextmanager
def _nvml() -> Iterator[ModuleType | None]:
    """Yield NVML, ready to be asked, or None where there is no driver; errors become sentences."""
    import pynvml  # noqa: PLC0415 - only where a GPU is asked for

    try:
        pynvml.nvmlInit()
    except (pynvml.NVMLError_LibraryNotFound, pynvml.NVMLError_DriverNotLoaded):
        yield None
        return
    except pynvml.NVMLError as error:
        raise _broken(error) from error
    try:
        yield pynvml
    except pynvml.NVMLError as error:
        raise _broken(error) from error
    finally:
        pynvml.nvmlShutdown()


def _broken(error: Exception) -> ToolchainError:
    return ToolchainError(
        f"The NVIDIA driver does not answer: {error}. See what `nvidia-smi` says; after an update "
        "of the driver, restart this machine."
    )


def _describe(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        total, free = memory.total, memory.free
    except nvml.NVMLError_NotSupported:
        # The chip shares the host's memory and has none of its own (GB10, Jetson).
        shared = psutil.virtual_memory()
        total, free = shared.total, shared.available
    return Gpu(
        index=index,
        name=_text(nvml.nvmlDeviceGetName(handle)),
        compute_capability=(major, minor),
        memory_bytes=total,
        memory_free=free,
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
    )


def _text(value: str | bytes) -> str:
    """Return a text of NVML, which older bindings give as bytes."""
    return value.decode() if isinstance(value, bytes) else value
