"""The channel to the notebook side: JSON objects, one a line, over a socket."""

from __future__ import annotations

import json
import os
import select
import socket
import threading
from typing import Any


class Refusal(Exception):
    """Something that the user asked for cannot be done; the message is shown as it is."""


class Channel:
    """One end of a socket; sending is thread-safe, receiving is for one thread."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._lock = threading.Lock()
        self._buffer = b""
        self.closed = False

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

    def pending(self, *, wait: bool) -> list[dict[str, Any]]:
        """Return the messages that are there; with `wait`, at least one unless closed."""
        found = []
        while not self.closed:
            if b"\n" in self._buffer:
                found.append(self._next())
            elif (wait and not found) or select.select([self._socket], [], [], 0)[0]:
                self._fill()
            else:
                break
        return found

    def exit_when_closed(self) -> None:
        """End this process when the other side closes: nobody would want its work any more."""

        def watch() -> None:
            while self._fill():
                pass
            os._exit(3)

        threading.Thread(target=watch, daemon=True).start()

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
