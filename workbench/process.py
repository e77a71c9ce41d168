"""Workers: processes on the toolchain side, each with a channel of JSON lines."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from workbench.containers import Door
from workbench.errors import ToolchainError
from workbench.toolchain import Toolchain, new_label


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
        *,
        online: bool = False,
    ) -> None:
        """Start `python <worker folder> role`; in a container, returns when it is running.

        Args:
            toolchain: Where it runs.
            role: "build" or "session".
            log: Takes what it prints.
            mounts: Files and directories that it reads outside the workbench's own folder.
            online: Whether it may look things up on the hub.

        Raises:
            ToolchainError: The interpreter or the container cannot be started.
        """
        self._toolchain, self._log, self._online = toolchain, log, online
        self._label = new_label()
        self._closed = False
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
            command, environment = self._toolchain.command(arguments, online=self._online)
            self._process = self._start(command, environment, theirs.fileno())
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
                online=self._online,
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
        """Yield messages until the worker closes its end; a killed worker just ends them.

        Raises:
            ToolchainError: Something else came, such as what a runtime prints.
        """
        try:
            for line in self._reader:
                if not line.endswith(b"\n"):
                    return  # cut short by death
                yield _parse(line)
        except ConnectionError:
            return

    def close(self, patience: float = 5.0) -> int:
        """End the worker and everything it started; return its exit status.

        It is asked first (the channel closes), and killed after `patience` seconds. Closing
        twice changes nothing.
        """
        if self._closed:
            return self._status()  # another process may have its number by now
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
        self._closed = True
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


def _parse(line: bytes) -> dict[str, Any]:
    """Return the message in a line.

    Raises:
        ToolchainError: It is none.
    """
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict) or not isinstance(message.get("event"), str):
        raise no_message(line[:40])
    return message


def no_message(what: object) -> ToolchainError:
    """Return the error for something on the channel that is no message of ours."""
    return ToolchainError(
        f"The worker sent what is no message: {what!s:.80}. Workbench and toolchain may be of "
        "different versions, or a package writes into every open file; the log may tell."
    )


def describe_exit(status: int) -> str:
    """Say in words how a process ended."""
    if status >= 0:
        return f"ended with status {status}"
    number = -status
    names = {9: "was killed (signal 9; out of memory is a usual cause)", 11: "crashed (signal 11)"}
    return names.get(number, f"was ended by signal {number}")


def crash_of(status: int) -> int:
    """Return the signal by which a process ended, unless somebody sent it to stop it; else 0."""
    # Shells and docker-run(1) give 128 more than the number of the signal.
    number = -status if status < 0 else status - 128 if 128 < status <= 128 + 64 else 0
    return 0 if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) else number
