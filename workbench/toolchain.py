"""Toolchains: the interpreter that a backend's code runs in, and the processes started there."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from workbench.errors import ToolchainError

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


@dataclass(frozen=True)
class Toolchain:
    """An interpreter of its own, with its own pins."""

    python: str

    def versions(self, packages: tuple[str, ...]) -> dict[str, str | None]:
        """Return the versions of distributions in this toolchain; None for one not installed.

        Raises:
            ToolchainError: The interpreter cannot be run.
        """
        if self.python == sys.executable:
            # Asking ourselves saves starting an interpreter, which a cache hit would feel.
            return {name: _version(name) for name in packages}
        command = [self.python, str(WORKER), "versions", *packages]
        try:
            answer = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
                env=_environment(self.python),
            )
            versions: dict[str, str | None] = json.loads(answer.stdout)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            raise ToolchainError(
                f"The interpreter {self.python} does not answer ({error}). Give the path of a "
                "working Python 3.10 or newer."
            ) from error
        return versions

    def require(self, packages: tuple[str, ...], install: str) -> dict[str, str]:
        """Return the versions of all packages.

        Raises:
            ToolchainError: Some are missing; names them and the command that gets them.
        """
        versions = self.versions(packages)
        missing = [name for name, version in versions.items() if version is None]
        if missing:
            raise ToolchainError(
                f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed for "
                f"{self.python}. Install with: {install}"
            )
        return {name: version for name, version in versions.items() if version}


def find_toolchain(backend: str) -> Toolchain:
    """Return the toolchain of a backend.

    `WORKBENCH_TOOLCHAIN_<BACKEND>` may name an interpreter; otherwise it is the one that runs
    this code.

    Raises:
        ToolchainError: The variable names something that is no executable file.
    """
    variable = f"WORKBENCH_TOOLCHAIN_{backend.upper()}"
    python = os.environ.get(variable)
    if python is None:
        return Toolchain(sys.executable)
    if not os.access(python, os.X_OK) or Path(python).is_dir():
        raise ToolchainError(
            f"{variable} names {python}, which is not an executable file. Give the path of a "
            "Python interpreter, such as DIRECTORY/bin/python."
        )
    # Absolute, since jobs run elsewhere; links stay, since they are what makes a venv one.
    return Toolchain(str(Path(python).absolute()))


def _environment(python: str) -> dict[str, str]:
    """Return the environment of a toolchain's process.

    Another interpreter must not be led to our packages.
    """
    environment = os.environ | QUIET
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

    def __init__(self, toolchain: Toolchain, role: str, log: IO[bytes] | int) -> None:
        """Start `python <worker folder> role`.

        Raises:
            ToolchainError: The interpreter cannot be started.
        """
        ours, theirs = socket.socketpair()
        command = [toolchain.python, str(WORKER), role, "--channel", str(theirs.fileno())]
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                env=_environment(toolchain.python),
                # A kernel interrupt goes to the kernel's process group: not to ours.
                process_group=0,
            )
        except OSError as error:
            ours.close()
            raise ToolchainError(
                f"The interpreter {toolchain.python} cannot be started: {error.strerror}."
            ) from error
        finally:
            theirs.close()
        self._socket = ours
        # Reentrant: an iterator that is collected while we send cancels its generation.
        self._sending = threading.RLock()
        self._reader = ours.makefile("rb")

    @property
    def pid(self) -> int:
        """Process id of the worker."""
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
            status = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            status = self._process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # It led a process group; whatever it left behind is in there.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._reader.close()
        self._socket.close()
        return status

    def kill(self) -> None:
        """Kill the worker at once; `close` still has to be called."""
        self._process.kill()


def describe_exit(status: int) -> str:
    """Say in words how a process ended."""
    if status >= 0:
        return f"ended with status {status}"
    number = -status
    names = {9: "was killed (signal 9; out of memory is a usual cause)", 11: "crashed (signal 11)"}
    return names.get(number, f"was ended by signal {number}")
