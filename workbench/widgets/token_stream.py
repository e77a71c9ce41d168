"""The kernel's record of one stream of text, from which the token view's messages are made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from workbench.errors import InputError
from workbench.widgets.spans import Pace, Spans

Phase = Literal["waiting", "queued", "prefill", "decode", "finished", "stopped", "failed"]
Message = dict[str, Any]

ENDED = ("finished", "stopped", "failed")


@dataclass
class Stream:
    """The text, the tokens and the state of one stream. It has no lock of its own."""

    epoch: int
    title: str
    phase: str = "waiting"
    facts: list[list[str]] = field(default_factory=list)
    sent: int = 0  # code points that have left in batches
    dirty: bool = False
    spans: Spans = field(default_factory=Spans)
    _parts: list[str] = field(default_factory=list)
    _pending: list[str] = field(default_factory=list)
    _pace: Pace = field(default_factory=Pace)
    _new_pace: bool = False

    @property
    def ended(self) -> bool:
        """Whether no more text can come."""
        return self.phase in ENDED

    def text_from(self, offset: int) -> str:
        """Return the text behind the first `offset` code points."""
        self._parts = ["".join(self._parts)]
        return (self._parts[0] + "".join(self._pending))[offset:]

    def add(self, text: str, logprobs: Sequence[float]) -> None:
        """Add text and the log-probabilities of its tokens; raise InputError after the end."""
        self._refuse_if_ended("text")
        if not text and not logprobs:
            return
        self.spans.add(len(text), logprobs)
        self._new_pace |= self._pace.add(max(1, len(logprobs)), time.monotonic())
        if text:
            self._pending.append(text)
        self.phase = "decode"
        self.dirty = True

    def enter(self, phase: str, facts: list[list[str]]) -> None:
        """Take a phase and facts; raise InputError after the end."""
        self._refuse_if_ended(f'the phase "{phase}"')
        self.phase, self.facts, self.dirty = phase, facts, True

    def end(self, phase: str, facts: list[list[str]]) -> None:
        """End, or correct the end."""
        self.phase, self.facts, self.dirty = phase, facts, True

    def take(self) -> Message | None:
        """Return what has not been sent, or None; the cost does not grow with the text."""
        if not self.dirty:
            return None
        batch, offset = "".join(self._pending), self.sent
        self._parts.append(batch)
        self._pending.clear()
        self.sent += len(batch)
        self.dirty = False
        message = self._message(offset, batch, self.sent)
        if self._new_pace or self.ended:
            message["pace"] = self._pace.points
            self._new_pace = False
        return message | {"title": self.title} if offset == 0 else message

    def message(self, offset: int) -> Message:
        """Return the stream from `offset` on, whether sent before or not."""
        text = self.text_from(offset)
        message = self._message(offset, text, offset + len(text))
        return message | {"title": self.title, "pace": list(self._pace.points)}

    def _message(self, offset: int, text: str, length: int) -> Message:
        message = {
            "epoch": self.epoch,
            "offset": offset,
            "text": text,
            "total": length if self.ended else None,
            "phase": self.phase,
            "facts": self.facts,
        }
        spans = self.spans.written(offset) if text else ""
        return message | {"spans": spans} if spans else message

    def plain(self) -> str:
        """Return title, status and text for readers that show no widgets."""
        head = [self.title, self.phase, *(f"{name} {value}" for name, value in self.facts)]
        line = " · ".join(part for part in head if part)
        return f"{line}\n{self.text_from(0) or 'No text yet.'}"

    def _refuse_if_ended(self, what: str) -> None:
        if self.ended:
            raise InputError(
                f"The token view got {what} after its stream had ended ({self.phase}). "
                "Call reset() to begin a new stream."
            )
