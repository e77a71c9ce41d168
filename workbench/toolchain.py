"""Toolchains: where a backend's code runs, and the processes started there."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from workbench import files
from workbench.containers import Container, Door, variables
from workbench.environments import find_conda, variables_of
from workbench.errors import ToolchainError
from workbench.gpus import driver

WORKER = Path(__file__).parent / "worker"
"""The toolchain side: a folder that runs without the workbench being installed."""

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

    def require(self, packages: tuple[str, ...], install: str) -> dict[str, str]:
        """Return the versions of all packages.

        Raises:
            ToolchainError: Some are missing; names them and the command that gets them.
        """
        versions = self.versions(packages)
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
    ) -> tuple[list[str], dict[str, str]]:
        """Return the command and the environment that run the worker folder.

        Args:
            arguments: Role and options of the worker.
            label: Name of the container.
            mounts: What the worker reads outside the workbench's own folder, in a container.
            writable: What it writes there.

        Raises:
            ToolchainError: An NVIDIA driver is there, but does not answer.
        """
        if self.container is None:
            return [self.python, str(WORKER), *arguments], _environment(self.python)
        inside = variables(ORDER | QUIET)
        command = self.container.command(
            [str(WORKER), *arguments],
            name=label or _label(),
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


def _label() -> str:
    """Return a name that no other container has."""
    return f"workbench-{uuid.uuid4().hex[:12]}"


def _environment(python: str) -> dict[str, str]:
    """Return the environment of a toolchain's process.

    Another interpreter must not be led to our packages.
    """
    environment = ORDER | os.environ | variables_of(Path(python)) | QUIET
    if python != sys.executable:
        for name in ("PYTHONPATH", "PYTHONHOME"):
            environment.pop(name, None)
    return environment


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


class Worker:
    """A process on the toolchain side with a channel of JSON lines.

    stdout and stderr go to the log file; messages have a socket of their own, because runtimes
    print what they like.
    """

    def __init__(
        self,
        toolchain: Toolchain,
        role: str,
        log: IO[bytes] | int,
        mounts: Sequence[Path] = (),
    ) -> None:
        """Start `python <worker folder> role`; in a container, returns when it is running.

        Args:
            toolchain: Where it runs.
            role: "build" or "session".
            log: Takes what it prints.
            mounts: Files and directories that it reads outside the workbench's own folder.

        Raises:
            ToolchainError: The interpreter or the container cannot be started.
        """
        self._toolchain, self._log = toolchain, log
        self._label = _label()
        # Reentrant: an iterator that is collected while we send cancels its generation.
        self._sending = threading.RLock()
        if toolchain.container:
            self._socket = self._start_inside(role, mounts)
        else:
            self._socket = self._start_here(role)
        self._reader = self._socket.makefile("rb")

    def _start_here(self, role: str) -> socket.socket:
        """Start the interpreter with an inherited socket; return our end of it."""
        ours, theirs = socket.socketpair()
        arguments = (role, "--channel", str(theirs.fileno()))
        try:
            self._process = self._start(*self._toolchain.command(arguments), theirs.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours

    def _start_inside(self, role: str, mounts: Sequence[Path]) -> socket.socket:
        """Start the container and wait until the worker inside connects."""
        with Door() as door:
            command, environment = self._toolchain.command(
                (role, "--connect", str(door.path)),
                label=self._label,
                mounts=mounts,
                writable=[door.folder],
            )
            self._process = self._start(command, environment)
            try:
                channel = door.wait(self._process)
            except BaseException:
                self.kill()
                self._process.wait()
                raise
        if channel is None:
            raise ToolchainError(
                f"The container {self._toolchain.name} {describe_exit(self._status())} before it "
                "was running. The log has the reason."
            )
        return channel

    def _start(
        self, command: list[str], environment: dict[str, str], *descriptors: int
    ) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=subprocess.STDOUT,
                pass_fds=descriptors,
                env=environment,
                # A kernel interrupt goes to the kernel's process group: not to ours.
                process_group=0,
            )
        except OSError as error:
            what = "container" if self._toolchain.container else "interpreter"
            raise ToolchainError(
                f"The {what} {self._toolchain.name} cannot be started: {error.strerror}."
            ) from error

    @property
    def pid(self) -> int:
        """Process id of the worker, also of one inside a container."""
        if self._toolchain.container and hasattr(socket, "SO_PEERCRED"):
            # unix(7), struct ucred: pid, uid and gid of whoever connected, the pid as seen here.
            ends = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            return int(struct.unpack("3i", ends)[0]) or self._process.pid
        return self._process.pid

    def send(self, **message: Any) -> None:
        """Send one message.

        Raises:
            OSError: The worker is gone.
        """
        data = json.dumps(message).encode() + b"\n"
        with self._sending:
            self._socket.sendall(data)

    def messages(self) -> Iterator[dict[str, Any]]:
        """Yield messages until the worker closes its end; a killed worker just ends them."""
        try:
            for line in self._reader:
                yield json.loads(line)
        except (ConnectionError, ValueError):
            # A line that death cut short says nothing.
            return

    def close(self, patience: float = 5.0) -> int:
        """End the worker and everything it started; return its exit status.

        It is asked first (the channel closes), and killed after `patience` seconds. Closing
        twice changes nothing.
        """
        with contextlib.suppress(OSError):  # the other end was faster
            self._socket.shutdown(socket.SHUT_RDWR)
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
        container = self._toolchain.container
        if self._process.wait() < 0 and container:
            # The program that started it was killed, which alone would leave it running.
            container.kill(self._label)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # It led a process group; whatever it left behind is in there.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._reader.close()
        self._socket.close()
        return self._status()

    def kill(self) -> None:
        """Kill the worker at once; `close` still has to be called."""
        if self._toolchain.container:
            # It is no child of the program that started it.
            self._toolchain.container.kill(self._label)
        self._process.kill()

    def _status(self) -> int:
        """Return how the worker ended, as subprocess counts: -9 for signal 9."""
        status = self._process.wait()
        # A container hands on 128 + signal, as shells do.
        return 128 - status if self._toolchain.container and status > 128 else status


def describe_exit(status: int) -> str:
    """Say in words how a process ended."""
    if status >= 0:
        return f"ended with status {status}"
    number = -status
    names = {9: "was killed (signal 9; out of memory is a usual cause)", 11: "crashed (signal 11)"}
    return names.get(number, f"was ended by signal {number}")
