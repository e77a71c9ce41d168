"""Toolchains: where a backend's code runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from workbench import files
from workbench.containers import Container, variables
from workbench.environments import find_conda, variables_of
from workbench.errors import ToolchainError
from workbench.gpus import driver

WORKER = Path(__file__).parent / "worker"
"""The toolchain side: a folder that runs without the workbench being installed."""

ENTRY = WORKER / "__main__.py"
"""What is run. Not the folder: processes that mpi4py spawns import the main module anew, which
they find by the path of a file, but not by the name that a folder has."""

LEASHED = WORKER / "leashed.py"
"""What runs a server in a container."""

QUIET = {
    # What the packages of the toolchains would send home, switched off in all our processes.
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # A worker gets a local directory and has nothing to look up.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    # The log of a worker is read while it is written, also where the locale is not UTF-8.
    "PYTHONUNBUFFERED": "1",
    "PYTHONUTF8": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
"""What is left out for a worker that has to look something up."""

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
"""The user's access to the hub, for such a worker alone: any other runs code of many libraries,
and possibly of a model's repository, and has no use for it."""

AS_ROOT = {
    f"{prefix}_ALLOW_RUN_AS_ROOT{suffix}": "1"
    for prefix in ("OMPI", "PRTE")
    for suffix in ("", "_CONFIRM")
}
"""Open MPI 4 and 5 do not start as root without being told twice, and TensorRT-LLM then waits for
them for ever. Notebooks in the cloud often run as root."""

ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""CUDA numbers GPUs as the driver does, unless the user wants it otherwise; see `gpus`."""

VARIABLE = "WORKBENCH_TOOLCHAIN_"
"""Beginning of the variables that choose a toolchain, one for each backend."""

FORMS = (
    "Give the path of a Python interpreter, such as DIRECTORY/bin/python, or conda:NAME, "
    "docker:IMAGE, podman:IMAGE or apptainer:FILE.sif."
)


@dataclass(frozen=True)
class Toolchain:
    """An interpreter of its own with its own pins, or one inside a container image."""

    python: str
    container: Container | None = None

    @classmethod
    def parse(cls, text: str) -> Toolchain:
        """Return the toolchain that a text names; `name` gives a text that names it again.

        Args:
            text: Path of an interpreter, conda:NAME or conda:PREFIX, docker:IMAGE, podman:IMAGE
                or apptainer:FILE.

        Raises:
            ToolchainError: There is no such conda environment, or no image is named.
        """
        if container := Container.parse(text):
            return cls("python3", container)
        if text.startswith("conda:"):
            text = str(find_conda(text.removeprefix("conda:")) / "bin" / "python")
        # Absolute, since jobs run elsewhere; links stay, since they are what makes a venv one.
        return cls(str(Path(text).expanduser().absolute()))

    @property
    def name(self) -> str:
        """What `parse` makes this toolchain from, in any directory."""
        return str(self.container) if self.container else self.python

    def versions(self, packages: tuple[str, ...]) -> dict[str, str | None]:
        """Return the versions of distributions in this toolchain; None for one not installed.

        Raises:
            ToolchainError: The interpreter cannot be run.
        """
        if self.python == sys.executable:
            # Asking ourselves saves starting an interpreter, which a cache hit would feel.
            return {name: _version(name) for name in packages}
        command, environment = self.command(("versions", *packages))
        try:
            answer = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
                env=environment,
            )
            versions: dict[str, str | None] = json.loads(answer.stdout.splitlines()[-1])
        except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
            raise ToolchainError(self._silence(error)) from error
        return versions

    def _silence(self, error: Exception) -> str:
        if self.container is None:
            return (
                f"The interpreter {self.python} does not answer ({error}). Give the path of a "
                "working Python 3.10 or newer."
            )
        words = str(getattr(error, "stderr", None) or "").strip().splitlines()
        # Docker ends with advice about itself.
        said = [line for line in words if line and not line.startswith("Run '")] or [str(error)]
        return f"The container {self.name} does not run: {said[-1]}. {self.container.hint}"

    def require(
        self,
        packages: tuple[str, ...],
        install: str,
        found: Mapping[str, str | None] | None = None,
    ) -> dict[str, str]:
        """Return the versions of all packages.

        Args:
            packages: Distributions.
            install: The command that gets them.
            found: Their versions, where they are known already.

        Raises:
            ToolchainError: Some are missing; names them and the command that gets them.
        """
        versions = found or self.versions(packages)
        missing = [name for name, version in versions.items() if version is None]
        if missing:
            remedy = (
                "Choose an image that has them." if self.container else f"Install with: {install}"
            )
            raise ToolchainError(
                f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed for "
                f"{self.name}. {remedy}"
            )
        return {name: version for name, version in versions.items() if version}

    def command(
        self,
        arguments: Sequence[str],
        *,
        label: str | None = None,
        mounts: Sequence[Path] = (),
        writable: Sequence[Path] = (),
        online: bool = False,
    ) -> tuple[list[str], dict[str, str]]:
        """Return the command and the environment that run the worker folder.

        Args:
            arguments: Role and options of the worker.
            label: Name of the container.
            mounts: What the worker reads outside the workbench's own folder, in a container.
            writable: What it writes there.
            online: Whether it may look things up on the hub.

        Raises:
            ToolchainError: An NVIDIA driver is there, but does not answer.
        """
        if self.container is None:
            return [self.python, str(ENTRY), *arguments], _environment(self.python, online)
        inside = inside_variables(online=online)
        command = self.container.command(
            [str(ENTRY), *arguments],
            name=label or new_label(),
            variables=inside,
            readable=[WORKER, *mounts],
            writable=[files.home(), *writable],
            gpus=driver() is not None,
        )
        return command, self.container.environment(inside)


def find_toolchain(backend: str) -> Toolchain:
    """Return the toolchain of a backend.

    `WORKBENCH_TOOLCHAIN_<BACKEND>` may name one, in the forms of `Toolchain.parse`; otherwise it
    is the interpreter that runs this code.

    Raises:
        ToolchainError: The variable names something that is not there.
    """
    variable = f"{VARIABLE}{backend.upper()}"
    text = os.environ.get(variable)
    if text is None:
        return Toolchain(sys.executable)
    try:
        toolchain = Toolchain.parse(text)
        if toolchain.container:
            toolchain.container.require()
    except ToolchainError as error:
        raise ToolchainError(f"{variable}: {error}") from error
    if toolchain.container:
        return toolchain
    if not os.access(toolchain.python, os.X_OK) or Path(toolchain.python).is_dir():
        raise ToolchainError(f"{variable} names {text}, which is not an executable file. {FORMS}")
    return toolchain


def new_label() -> str:
    """Return a name for a container that no other has."""
    return f"workbench-{uuid.uuid4().hex[:12]}"


def inside_variables(*, online: bool = False) -> dict[str, str]:
    """Return the environment inside a container, see `containers.variables`."""
    return variables(ORDER | _quiet(online), online=online)


def _quiet(online: bool) -> dict[str, str]:
    quiet = {name: value for name, value in QUIET.items() if not (online and name in OFFLINE)}
    return quiet | AS_ROOT if os.geteuid() == 0 else quiet


def _environment(python: str, online: bool = False) -> dict[str, str]:
    """Return the environment of a toolchain's process.

    Another interpreter must not be led to our packages.
    """
    environment = ORDER | os.environ | variables_of(Path(python)) | _quiet(online)
    for name in () if online else TOKENS:
        environment.pop(name, None)
    if python != sys.executable:
        for name in ("PYTHONPATH", "PYTHONHOME"):
            environment.pop(name, None)
    return environment


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
