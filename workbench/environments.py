"""Environments of interpreters on this machine: conda's, and what activating one would set."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from workbench.errors import ToolchainError


def list_conda() -> list[Path]:
    """Return the prefixes of all conda environments that have a Python.

    conda writes each environment that it makes into ~/.conda/environments.txt; those of the
    active installation are found beside it too.
    """
    found: dict[Path, None] = {}
    for prefix in (*_registered(), *_beside()):
        if (prefix / "bin" / "python").exists():
            found[prefix] = None
    return list(found)


def find_conda(name: str) -> Path:
    """Return the prefix of a conda environment.

    Args:
        name: Its name, or its prefix (with a slash in it).

    Raises:
        ToolchainError: There is none, or more than one; says which there are.
    """
    if "/" in name:
        return Path(name).expanduser()
    known = list_conda()
    matches = [prefix for prefix in known if prefix.name == name]
    if len(matches) == 1:
        return matches[0]
    shown = ", ".join(map(str, matches or known)) or "none"
    what = "no conda environment" if not matches else "more than one conda environment"
    raise ToolchainError(
        f"There is {what} of the name '{name}'; found: {shown}. Give its prefix: conda:/PATH."
    )


def variables_of(python: Path) -> dict[str, str]:
    """Return what activating the environment of an interpreter would set.

    MPI starts its helpers through PATH, and a kernel runs its interpreter without activating it.
    """
    folder = python.parent
    variables = {}
    if (folder.parent / "conda-meta").is_dir():
        variables["CONDA_PREFIX"] = str(folder.parent)
    elif (folder.parent / "pyvenv.cfg").is_file():
        variables["VIRTUAL_ENV"] = str(folder.parent)
    places = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if str(folder) not in places:
        variables["PATH"] = os.pathsep.join([str(folder), *places])
    return variables


def _registered() -> Iterator[Path]:
    try:
        lines = (Path.home() / ".conda" / "environments.txt").read_text(encoding="utf-8")
    except OSError:
        return
    for line in lines.splitlines():
        if line.strip():
            yield Path(line.strip())


def _beside() -> Iterator[Path]:
    """Yield the active environment, the one that it is based on, and all beside that."""
    for variable in ("CONDA_PREFIX", "MAMBA_ROOT_PREFIX"):
        if not os.environ.get(variable):
            continue
        prefix = Path(os.environ[variable])
        base = prefix.parents[1] if prefix.parent.name == "envs" else prefix
        yield prefix
        yield base
        yield from sorted((base / "envs").glob("*"))
