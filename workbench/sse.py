"""Server-sent events: the data of each event, from bytes as they come.

https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6; of the fields only
`event` and `data` matter here.
"""

from __future__ import annotations

import re
from typing import NamedTuple

LONGEST = 16 << 20
"""Most bytes of one unfinished event: a server that never ends a line shall not fill the memory."""


_LINE_END = re.compile(rb"\r\n|\n|\r")


class Event(NamedTuple):
    """One event; `name` is empty unless the server gave it one."""

    name: str
    data: str


class EventReader:
    """Cuts bytes into events; a character or a line end may be spread over several pieces."""

    def __init__(self) -> None:
        self._buffer = b""
        self._name = ""
        self._data: list[str] = []
        self._size = 0
        self._first = True

    def feed(self, piece: bytes) -> list[Event]:
        """Return the events that a piece completes.

        Raises:
            ValueError: An event is longer than `LONGEST`.
        """
        *lines, self._buffer = self._lines(self._buffer + piece)
        events = [event for line in lines if (event := self._take(line.decode(errors="replace")))]
        if len(self._buffer) + self._size > LONGEST:
            raise ValueError(f"an event of more than {LONGEST >> 20} MiB")
        return events

    def end(self) -> list[Event]:
        """Return the event that was complete but for the empty line after it.

        The standard drops it; servers that forget the line are common.
        """
        rest, self._buffer = self._buffer.removesuffix(b"\r"), b""
        last = [self._take(line) for line in (rest.decode(errors="replace"), "")]
        return [event for event in last if event]

    @staticmethod
    def _lines(data: bytes) -> list[bytes]:
        """Return all lines that have ended, and what has not.

        A line ends with LF, CRLF or CR. After a CR the next byte tells, so it is waited for.
        """
        if b"\r" not in data:
            return data.split(b"\n")
        whole, held = (data[:-1], b"\r") if data.endswith(b"\r") else (data, b"")
        *lines, rest = _LINE_END.split(whole)
        return [*lines, rest + held]

    def _take(self, line: str) -> Event | None:
        """Take one line; an empty one ends an event."""
        if self._first:
            line, self._first = line.removeprefix("\ufeff"), False
        if not line:
            event = Event(self._name, "\n".join(self._data)) if self._data else None
            self._name, self._data, self._size = "", [], 0
            return event
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
            self._size += len(value)
        elif field == "event":
            self._name = value
        return None
