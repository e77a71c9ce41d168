"""The doctor's report: its parts, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from workbench.containers import ENGINES
from workbench.gpus import Gpu
from workbench.hardware import Device
from workbench.units import format_bytes

BACKENDS = ("openvino", "tensorrt_llm", "tensorrt_llm_torch", "transformers")
"""The backends that compile or load a model themselves, in the order of the report."""


@dataclass(frozen=True)
class Examined:
    """One toolchain.

    Attributes:
        name: As `Toolchain.name`.
        origin: Where it was found.
        versions: Of the distributions that are shown and installed.
        cuda: CUDA that its packages bring, or None.
        mpi: What its MPI calls itself, or None; not looked for inside containers.
        backends: Names of those whose packages are complete.
        problem: A sentence about what is wrong or narrow, or nothing.
    """

    name: str
    origin: str
    versions: Mapping[str, str] = field(default_factory=dict)
    cuda: str | None = None
    mpi: str | None = None
    backends: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Remedy:
    """What keeps a backend from running, and the one command that changes it."""

    backend: str
    missing: str
    command: str


@dataclass(frozen=True)
class Report:
    """Everything that was found.

    Attributes:
        python: Version of the interpreter that runs this.
        platform: The operating system.
        host: Processor and memory.
        gpus: As `list_gpus`.
        driver: As `driver`.
        gpu_problem: Why the driver could not be asked, or nothing.
        engines: What runs containers, with its version or what is wrong with it.
        toolchains: All that were found.
        remedies: One for each backend that cannot run; none for those that can.
        exposed: Who else may read what the workbench keeps, and how to change it, or nothing.
    """

    python: str
    platform: str
    host: Device
    gpus: tuple[Gpu, ...]
    driver: tuple[str, str] | None
    gpu_problem: str
    engines: Mapping[str, str]
    toolchains: tuple[Examined, ...]
    remedies: tuple[Remedy, ...]
    exposed: str = ""

    @property
    def ready(self) -> bool:
        """Whether any backend can run."""
        return not {remedy.backend for remedy in self.remedies}.issuperset(BACKENDS)

    def record(self) -> dict[str, Any]:
        """Return the report as plain values for JSON."""
        values = asdict(self)
        values["host"]["features"] = sorted(self.host.features)
        return {**values, "ready": self.ready}


def lines(report: Report) -> Iterator[str]:
    """Yield the report as lines for a terminal."""
    device = report.host
    yield f"Python      {report.python} on {report.platform}"
    yield f"Processor   {device.name}, {device.cores} cores, {device.threads} threads"
    yield (
        f"Memory      {format_bytes(device.memory_bytes)}, "
        f"{format_bytes(device.memory_available)} available"
    )
    yield from _gpu_lines(report)
    for engine, version in report.engines.items():
        yield f"Containers  {engine}: {version}"
    if not report.engines:
        yield f"Containers  none of {', '.join(ENGINES)} was found"
    if report.exposed:
        yield f"Note        {report.exposed}"
    for toolchain in report.toolchains:
        yield ""
        yield from _toolchain_lines(toolchain)
    yield ""
    missing = {remedy.backend: remedy for remedy in report.remedies}
    for name in BACKENDS:
        remedy = missing.get(name)
        yield f"{name:<20}{f'cannot run: {remedy.missing}' if remedy else 'can run'}"
        if remedy:
            yield f"{'':<20}{remedy.command}"


def _gpu_lines(report: Report) -> Iterator[str]:
    if report.gpu_problem:
        yield f"GPU         {report.gpu_problem}"
    elif report.driver is None:
        yield "GPU         no NVIDIA driver"
    else:
        yield f"Driver      {report.driver[0]}, for CUDA up to {report.driver[1]}"
        for gpu in report.gpus:
            major, minor = gpu.compute_capability
            yield (
                f"GPU {gpu.index:<8}{gpu.name}, compute capability {major}.{minor}, "
                f"{format_bytes(gpu.memory_bytes)}, {format_bytes(gpu.memory_free)} free"
            )
        if not report.gpus:
            yield "GPU         none to be seen (CUDA_VISIBLE_DEVICES may hide them)"


def _toolchain_lines(toolchain: Examined) -> Iterator[str]:
    yield f"Toolchain   {toolchain.name} ({toolchain.origin})"
    found = [f"{name} {version}" for name, version in toolchain.versions.items()]
    found += [f"CUDA {toolchain.cuda}"] if toolchain.cuda else []
    found += [toolchain.mpi] if toolchain.mpi else []
    if found:
        yield f"  has       {', '.join(found)}"
    if toolchain.backends or not toolchain.problem:
        yield f"  runs      {', '.join(toolchain.backends) or 'no backend'}"
    if toolchain.problem:
        yield f"  note      {toolchain.problem}"
