"""The channel to the notebook side: JSON objects, one a line, over a socket."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any


class Refusal(Exception):
    """Something that the user asked for cannot be done; the message is shown as it is."""


class Channel:
    """One end of a socket; sending is thread-safe, receiving is for one thread."""

    def __init__(self, descriptor: int) -> None:
        # What this process starts must not keep the channel open after its end.
        os.set_inheritable(descriptor, False)
        self._socket = socket.socket(fileno=descriptor)
        self._lock = threading.Lock()
        self._buffer = b""
        self.closed = False

    @classmethod
    def connect(cls, path: str) -> Channel:
        """Return a channel over the socket at a path: no descriptor is inherited by a container.

        Raises:
            BrokenPipeError: Nobody listens there any more.
        """
        end = socket.socket(socket.AF_UNIX)
        try:
            end.connect(path)
        except (ConnectionError, FileNotFoundError) as error:
            raise BrokenPipeError from error
        return cls(end.detach())

    def send(self, **message: Any) -> None:
        """Send one message.

        Raises:
            BrokenPipeError: The other side is gone.
        """
        data = json.dumps(message).encode() + b"\n"
        with self._lock:
            try:
                self._socket.sendall(data)
            except ConnectionError as error:
                raise BrokenPipeError from error

    def receive(self) -> dict[str, Any] | None:
        """Wait for one message; None when the other side has closed."""
        while b"\n" not in self._buffer:
            if not self._fill():
                return None
        return self._next()

    def pending(self, *, wait: bool, company: float = 0.0) -> list[dict[str, Any]]:
        """Return the messages that are there.

        Args:
            wait: Whether to wait for the first one; there is none then only when closed.
            company: Seconds to wait for more after the first one came.
        """
        found = []
        deadline = 0.0
        while not self.closed:
            if b"\n" in self._buffer:
                found.append(self._next())
            elif wait and not found:
                self._fill()
                deadline = time.monotonic() + company
            elif select.select([self._socket], [], [], max(0.0, deadline - time.monotonic()))[0]:
                self._fill()
            else:
                break
        return found

    def exit_when_closed(
        self, before: Callable[[], None] | None = None, patience: float = 0.0
    ) -> None:
        """End this process when the other side closes: nobody would want its work any more.

        Args:
            before: Called first, to ask for a clean end.
            patience: Seconds that a clean end may take.
        """

        def watch() -> None:
            while self._fill():
                pass
            if before:
                before()
            time.sleep(patience)
            os._exit(3)

        threading.Thread(target=watch, daemon=True).start()

    @contextlib.contextmanager
    def exits_when_gone(self) -> Iterator[None]:
        """End this process when the other side goes meanwhile, without taking what it sent."""
        done = threading.Event()
        poll = select.poll()
        poll.register(self._socket, select.POLLHUP | getattr(select, "POLLRDHUP", 0))

        def watch() -> None:
            while not done.is_set():
                if poll.poll(200) and not done.is_set():
                    os._exit(3)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def fileno(self) -> int:
        """Return the descriptor to wait for until there is something to receive."""
        return self._socket.fileno()

    def _fill(self) -> bool:
        try:
            data = self._socket.recv(1 << 16)
        except ConnectionError:
            data = b""
        self._buffer += data
        self.closed = not data
        return bool(data)

    def _next(self) -> dict[str, Any]:
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message
