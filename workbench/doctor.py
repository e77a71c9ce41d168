"""The doctor: what this machine has, what can run on it, and how to get what is missing."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from workbench import files
from workbench.backends import get_backend
from workbench.containers import ENGINES
from workbench.environments import list_conda, variables_of
from workbench.errors import ToolchainError
from workbench.gpus import Gpu, driver, list_gpus
from workbench.hardware import host
from workbench.releases import (
    CUDA_MAJOR,
    IMAGE,
    LAST_STABLE,
    engines_gone,
)
from workbench.report import BACKENDS, Examined, Remedy, Report, lines
from workbench.toolchain import VARIABLE, Toolchain, find_toolchain

__all__ = ["Report", "examine", "lines"]

SHOWN = (
    "tensorrt-llm",
    "tensorrt",
    "torch",
    "transformers",
    "mpi4py",
    "openvino",
    "openvino-genai",
    "optimum-intel",
)
"""Distributions whose versions are shown."""

CUDA_RUNTIMES = ("nvidia-cuda-runtime", "nvidia-cuda-runtime-cu13", "nvidia-cuda-runtime-cu12")

TORCH_ONLY = "This tensorrt_llm has no engine API: use backend tensorrt_llm_torch."
NO_TENSORRT = "Without the package tensorrt it has no engines, only backend tensorrt_llm_torch."


def examine() -> Report:
    """Look at this machine and every toolchain on it; imports none of their packages."""
    gpus: tuple[Gpu, ...] = ()
    versions, problem = None, ""
    try:
        gpus, versions = list_gpus(), driver()
    except ToolchainError as error:
        problem = str(error)
    toolchains = tuple(examine_toolchain(*found) for found in find_toolchains())
    engines = find_engines()
    works = [name for name, (_, trouble) in engines.items() if not trouble]
    return Report(
        python=platform.python_version(),
        platform=platform.platform(),
        host=host(),
        gpus=gpus,
        driver=versions,
        gpu_problem=problem,
        engines={name: "; ".join(filter(None, words)) for name, words in engines.items()},
        toolchains=toolchains,
        remedies=tuple(_remedies(toolchains, gpus, versions, problem, works)),
        exposed=_exposed(files.home()),
    )


def _exposed(home: Path) -> str:
    """Say that others may read the workbench's home, which was there with such rights."""
    rights = stat.S_IMODE(home.stat().st_mode)
    if not rights & 0o077:
        return ""
    return (
        f"{home} can be entered by other users (rights {rights:o}). To change that: "
        f"chmod 700 {shlex.quote(str(home))}"
    )


def find_toolchains() -> Iterator[tuple[str, str]]:
    """Yield the name of every toolchain of this machine, with where it was found; each once."""
    places = [(sys.executable, "this interpreter")]
    chosen = sorted(name for name in os.environ if name.startswith(VARIABLE))
    places += [(os.environ[variable], variable) for variable in chosen]
    if os.environ.get("VIRTUAL_ENV"):
        places.append((str(Path(os.environ["VIRTUAL_ENV"]) / "bin" / "python"), "VIRTUAL_ENV"))
    places += [(str(prefix / "bin" / "python"), "conda") for prefix in list_conda()]
    seen = set()
    for text, origin in places:
        name = identity = text
        try:
            toolchain = Toolchain.parse(text)
        except ToolchainError:
            pass  # whoever examines it says what is wrong
        else:
            name = identity = toolchain.name
            if toolchain.container is None:
                # python and python3 of one environment are the same; links alone decide nothing.
                identity = f"{Path(name).parent}:{Path(name).resolve()}"
        if identity not in seen:
            seen.add(identity)
            yield name, origin


def examine_toolchain(name: str, origin: str) -> Examined:
    """Ask a toolchain for its versions; one that does not answer says why."""
    needed = [package for backend in BACKENDS for package in get_backend(backend).packages]
    asked = tuple(dict.fromkeys((*SHOWN, *CUDA_RUNTIMES, *needed)))
    try:
        toolchain = Toolchain.parse(name)
        if toolchain.container:
            toolchain.container.require()
        versions = toolchain.versions(asked)
    except ToolchainError as error:
        return Examined(name, origin, problem=str(error))
    able = runnable(versions)
    return Examined(
        name=toolchain.name,
        origin=origin,
        versions={package: versions[package] or "" for package in SHOWN if versions[package]},
        cuda=cuda_of(versions),
        mpi=None if toolchain.container else _mpi(Path(toolchain.python)),
        backends=able,
        problem=_narrow(versions),
    )


def _narrow(versions: Mapping[str, str | None]) -> str:
    """Say why a toolchain with TensorRT-LLM has no engines, or nothing."""
    version = versions.get("tensorrt-llm")
    if version and engines_gone(version):
        return TORCH_ONLY
    return NO_TENSORRT if version and not versions.get("tensorrt") else ""


def runnable(versions: Mapping[str, str | None]) -> tuple[str, ...]:
    """Return the names of the backends that a build would start with, going by the packages."""
    backends = (get_backend(name) for name in BACKENDS)
    return tuple(
        backend.name
        for backend in backends
        if all(versions.get(package) for package in backend.packages)
        and not backend.obstacle(versions)
    )


def cuda_of(versions: Mapping[str, str | None]) -> str | None:
    """Return the CUDA that a toolchain's packages bring.

    "13.0" for torch 2.9.1+cu130; a torch without such an ending says nothing, then the version of
    NVIDIA's runtime package counts.
    """
    _, _, local = (versions.get("torch") or "").partition("+cu")
    if local.isdecimal() and len(local) > 2:
        return f"{local[:-1]}.{local[-1]}"
    found = next((versions[name] for name in CUDA_RUNTIMES if versions.get(name)), None)
    return ".".join(found.split(".")[:2]) if found else None


def _remedies(
    toolchains: tuple[Examined, ...],
    gpus: tuple[Gpu, ...],
    versions: tuple[str, str] | None,
    problem: str,
    engines: Sequence[str],
) -> Iterator[Remedy]:
    """Yield what each backend lacks: first a GPU, then a toolchain, then that it is chosen.

    `engines` are the programs that can run a container here.
    """
    for name in BACKENDS:
        if get_backend(name).uses_gpu and not gpus:
            yield _no_gpu(name, versions, problem)
            continue
        try:
            chosen = find_toolchain(name).name
        except ToolchainError as error:
            yield Remedy(name, str(error), f"unset {VARIABLE}{name.upper()}")
            continue
        able = [found.name for found in toolchains if name in found.backends]
        if chosen in able:
            if (
                get_backend(name).uses_gpu
                and versions
                and int(versions[1].split(".")[0]) < CUDA_MAJOR
            ):
                yield _old_driver(name, versions)
        elif able:
            yield Remedy(
                name,
                f"{chosen} lacks its packages; another toolchain has them.",
                f"export {VARIABLE}{name.upper()}={shlex.quote(able[0])}",
            )
        else:
            yield Remedy(name, "no toolchain has its packages.", _install(name, engines))


def _no_gpu(name: str, versions: tuple[str, str] | None, problem: str) -> Remedy:
    if problem:
        return Remedy(name, problem, "nvidia-smi")
    if versions is None:
        return Remedy(
            name,
            "it needs an NVIDIA GPU, and no driver answers here. With a GPU, install the driver:",
            "sudo apt-get -y install nvidia-driver-580",
        )
    return Remedy(name, "no GPU is visible.", "unset CUDA_VISIBLE_DEVICES")


def _old_driver(name: str, versions: tuple[str, str]) -> Remedy:
    return Remedy(
        name,
        f"TensorRT-LLM {LAST_STABLE} is made for CUDA {CUDA_MAJOR}; driver {versions[0]} supports "
        f"CUDA up to {versions[1]}.",
        "sudo apt-get -y install nvidia-driver-580",
    )


def _install(name: str, engines: Sequence[str]) -> str:
    """Return the one command that gets a backend's packages, as a container where one can run."""
    variable = f"{VARIABLE}{name.upper()}"
    for engine in ("docker", "podman"):
        if engine in engines and get_backend(name).uses_gpu:
            return f"{engine} pull {IMAGE} && export {variable}={engine}:{IMAGE}"
    return get_backend(name).install


def find_engines() -> dict[str, tuple[str, str]]:
    """Return what runs containers here: its version, and why it cannot run ours, or nothing."""
    found = {}
    for engine in ENGINES:
        if shutil.which(engine) is None:
            continue
        version = _first_line([engine, "--version"])
        trouble = ""
        if version is None:
            trouble = "does not answer"
        elif engine == "docker" and _first_line(["docker", "info"]) is None:
            trouble = "its daemon does not answer (see `docker info`)"
        elif engine != "apptainer" and shutil.which("nvidia-ctk") is None:
            trouble = "without nvidia-ctk, so containers get no GPU"
        found[engine] = (version or "", trouble)
    return found


def _mpi(python: Path) -> str | None:
    """Return the first line of `mpirun --version`, as the toolchain finds it, or what is there."""
    places = variables_of(python).get("PATH", os.environ.get("PATH"))
    program = shutil.which("mpirun", path=places)
    if program:
        return _first_line([program, "--version"])
    libraries = sorted((python.parents[1] / "lib").glob("libmpi.so*"))
    return f"{libraries[0]} without mpirun" if libraries else None


def _first_line(command: list[str]) -> str | None:
    """Return the first line that a program prints, or None when it fails."""
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=20, check=True, errors="replace"
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(answer.stdout.strip().splitlines()), "")
