"""The process of a server: the program itself, or the one that runs the container it is in.

A container is no child of the program that started it, so that killing that one leaves the
container running. Inside, the server is therefore on a leash (worker/leashed.py): a socket of this
process, which the system closes however this process ends.

That was tried with a stand-in for docker, not with trtllm-serve in NVIDIA's container.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from workbench.containers import Container, Door
from workbench.errors import JobError
from workbench.gpus import driver
from workbench.toolchain import LEASHED, WORKER, inside_variables, new_label

PATIENCE = 3.0
"""Seconds that a server has to end when it is asked; less than a cancelled job has."""

INSIDE_PATIENCE = 5.0
"""The same for one in a container, which first ends what is inside."""


class ServerProcess:
    """A server that was started; `stop` has to be called, also when it has ended.

    `container_name` is empty for one that runs in none.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], container: Container | None, container_name: str
    ) -> None:
        self._process, self._container = process, container
        self.container_name = container_name
        self._undo = contextlib.ExitStack()

    @classmethod
    def here(cls, command: Sequence[str], variables: Mapping[str, str]) -> Self:
        """Start a program of this machine.

        Raises:
            JobError: It cannot be started.
        """
        return cls(_popen(command, {**os.environ, **variables}), None, "")

    @classmethod
    def inside(
        cls,
        container: Container,
        command: Sequence[str],
        variables: Mapping[str, str],
        *,
        readable: Sequence[Path],
        address: tuple[str, int],
    ) -> Self:
        """Start a program of an image, in a container of its own.

        Args:
            container: The image, and what runs it.
            command: The program and its arguments.
            variables: Added to the environment inside.
            readable: What it reads, which it sees read-only under the same paths.
            address: Where the port is published on this machine; nothing else of it is reachable.

        Raises:
            JobError: What runs containers cannot be started.
            ToolchainError: An NVIDIA driver is there, but does not answer.
        """
        name, given = new_label(), {**inside_variables(), **variables}
        with contextlib.ExitStack() as undo:
            door = undo.enter_context(Door())
            words = container.command(
                [str(LEASHED), str(door.path), *command],
                name=name,
                variables=given,
                readable=[WORKER, *readable],
                writable=[container.home(), door.folder],
                gpus=driver() is not None,
                published=address,
            )
            server = cls(_popen(words, container.environment(given)), container, name)
            server._undo = undo.pop_all()
        return server

    def status(self, timeout: float = 0.0) -> int | None:
        """Return how it ended, as subprocess counts; None where it runs on after `timeout` s."""
        try:
            status = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        # A container hands on 128 + signal, as shells do.
        return 128 - status if self._container and status > 128 else status

    def stop(self) -> None:
        """End the server, and its container: asked first, then killed."""
        # `docker run` hands the signal on to what runs inside.
        self._process.terminate()
        status = self.status(INSIDE_PATIENCE if self._container else PATIENCE)
        if self._container and (status is None or self._process.returncode < 0):
            self._container.kill(self.container_name)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # It led a process group; whatever it left behind is in there.
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._undo.close()


def _popen(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start a command; what it prints goes where ours does, into the job's log."""
    try:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, process_group=0)
    except OSError as error:
        raise JobError(
            f"{command[0]} cannot be started: {error.strerror}. Check that it is installed, "
            "and give its path."
        ) from error
