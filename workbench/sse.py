"""Server-sent events: the data of each event, from bytes as they come.

https://html.spec.whatwg.org/multipage/server-sent-events.html, section 9.2.6; of the fields only
`event` and `data` matter here.
"""

from __future__ import annotations

from dataclasses import dataclass

LONGEST = 16 << 20
"""Most bytes of one unfinished event: a server that never ends a line shall not fill the memory."""


@dataclass(frozen=True)
class Event:
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
        self._buffer += piece
        events = []
        while (line := self._next_line()) is not None:
            event = self._take(line)
            if event:
                events.append(event)
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

    def _next_line(self) -> str | None:
        """Cut the next line off the buffer; None when none is complete.

        A line ends with LF, CRLF or CR. After a CR the next byte tells, so it is waited for.
        """
        ends = [at for at in (self._buffer.find(b"\n"), self._buffer.find(b"\r")) if at >= 0]
        if not ends:
            return None
        at = min(ends)
        if self._buffer[at : at + 1] == b"\r" and at + 1 == len(self._buffer):
            return None
        skip = 2 if self._buffer[at : at + 2] == b"\r\n" else 1
        line, self._buffer = self._buffer[:at], self._buffer[at + skip :]
        return line.decode(errors="replace")

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
