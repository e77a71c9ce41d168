"""The doctor: what this machine has, what can run on it, and how to get what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from workbench.backends import DEFAULT, get_backend
from workbench.containers import ENGINES
from workbench.environments import list_conda, variables_of
from workbench.errors import ToolchainError
from workbench.gpus import Gpu, driver, list_gpus
from workbench.hardware import host
from workbench.releases import (
    CUDA_MAJOR,
    IMAGE,
    INSTALL,
    LAST_STABLE,
    TENSORRT,
    engine_api,
)
from workbench.report import BACKENDS, Examined, Remedy, Report, lines
from workbench.toolchain import VARIABLE, Toolchain, find_toolchain

__all__ = ["Report", "examine", "lines"]

SHOWN = (
    "tensorrt-llm",
    *TENSORRT,
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


def examine() -> Report:
    """Look at this machine and every toolchain on it; imports none of their packages."""
    gpus: tuple[Gpu, ...] = ()
    versions, problem = None, ""
    try:
        gpus, versions = list_gpus(), driver()
    except ToolchainError as error:
        problem = str(error)
    toolchains = tuple(examine_toolchain(*found) for found in find_toolchains())
    return Report(
        python=platform.python_version(),
        platform=platform.platform(),
        host=host(),
        gpus=gpus,
        driver=versions,
        gpu_problem=problem,
        engines=_engines(),
        toolchains=toolchains,
        remedies=tuple(_remedies(toolchains, gpus, versions, problem)),
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
    backend = get_backend(DEFAULT)
    asked = tuple(dict.fromkeys((*SHOWN, *CUDA_RUNTIMES, *backend.packages)))
    try:
        toolchain = Toolchain.parse(name)
        if toolchain.container:
            toolchain.container.require()
        versions = toolchain.versions(asked)
    except ToolchainError as error:
        return Examined(name, origin, problem=str(error))
    able = runnable(versions)
    torch_only = "tensorrt_llm_torch" in able and "tensorrt_llm" not in able
    return Examined(
        name=toolchain.name,
        origin=origin,
        versions={package: versions[package] or "" for package in SHOWN if versions[package]},
        cuda=cuda_of(versions),
        mpi=None if toolchain.container else _mpi(Path(toolchain.python)),
        backends=able,
        problem=TORCH_ONLY if torch_only else "",
    )


def runnable(versions: Mapping[str, str | None]) -> tuple[str, ...]:
    """Return the names of the backends whose packages are all there."""
    able = {
        DEFAULT: all(versions.get(name) for name in get_backend(DEFAULT).packages),
        "tensorrt_llm": engine_api(versions),
        "tensorrt_llm_torch": bool(versions.get("tensorrt-llm")),
    }
    return tuple(name for name in BACKENDS if able[name])


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
) -> Iterator[Remedy]:
    """Yield what each backend lacks: first a GPU, then a toolchain, then that it is chosen."""
    for name in BACKENDS:
        if name != DEFAULT and not gpus:
            yield _no_gpu(name, versions, problem)
            continue
        try:
            chosen = find_toolchain(name).name
        except ToolchainError as error:
            yield Remedy(name, str(error), f"unset {VARIABLE}{name.upper()}")
            continue
        able = [found.name for found in toolchains if name in found.backends]
        if chosen in able:
            if name != DEFAULT and versions and int(versions[1].split(".")[0]) < CUDA_MAJOR:
                yield _old_driver(name, versions)
        elif able:
            yield Remedy(
                name,
                f"{chosen} lacks its packages; another toolchain has them.",
                f"export {VARIABLE}{name.upper()}={able[0]}",
            )
        else:
            yield Remedy(name, "no toolchain has its packages.", _install(name))


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


def _install(name: str) -> str:
    """Return the one command that gets a backend's packages, as a container where one can run."""
    if name == DEFAULT:
        return get_backend(name).install
    variable = f"{VARIABLE}{name.upper()}"
    for engine in ("docker", "podman"):
        if shutil.which(engine):
            return f"{engine} pull {IMAGE} && export {variable}={engine}:{IMAGE}"
    return f"{INSTALL} && export {variable}=$PWD/trtllm/bin/python"


def _engines() -> dict[str, str]:
    """Return what runs containers here, with its version and whether it can."""
    found = {}
    for engine in ENGINES:
        if shutil.which(engine) is None:
            continue
        version = _first_line([engine, "--version"]) or "does not answer"
        if engine == "docker" and _first_line(["docker", "info"]) is None:
            version += "; its daemon does not answer (see `docker info`)"
        elif engine != "apptainer" and shutil.which("nvidia-ctk") is None:
            version += "; without nvidia-ctk, so containers get no GPU"
        found[engine] = version
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
