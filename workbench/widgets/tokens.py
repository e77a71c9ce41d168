"""A panel that shows one stream of generated text while it arrives.

Text travels as messages of one shape, from the kernel to every browser that shows the view:

    {"epoch": 3, "offset": 120, "text": " more", "total": None,
     "phase": "decode", "facts": [["tokens", "31"]], "title": "..."}

`epoch` numbers the streams of a view, `offset` is the place of `text` in its stream and `total`
the length of a stream that has ended; both count code points. `title` is left out of a batch in
mid-stream. Jupyter drops messages under load and tells nobody, so a browser that misses something
sends `{"kind": "resync", "epoch": 3, "have": 120}` and gets a message with the rest.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import anywidget
import traitlets

from workbench.errors import InputError
from workbench.units import printable

Phase = Literal["waiting", "queued", "prefill", "decode", "finished", "stopped", "failed"]
Fact = str | int | float | None
Message = dict[str, Any]

ENDED = ("finished", "stopped", "failed")

# 20 Hz: an eye sees it as continuous, and an envelope of about 600 bytes a message stays small
# beside the text. The server drops everything above 1000 messages/s.
_PERIOD = 0.05  # seconds
# The flusher outlives a pause of the stream by this much, so that slow streams reuse the thread.
_LINGER = 0.5  # seconds
_STATIC = Path(__file__).parent / "static"
_UNPAIRED_SURROGATE = re.compile("[\ud800-\udfff]")


class TokenView(anywidget.AnyWidget):
    """Shows one stream of text; every method may be called from any thread.

    Text leaves in batches, 20 a second at most, from a thread that exists only while there is
    something to send. The complete text is synchronised once, when the stream ends, so that a
    saved notebook shows it without a kernel.

    Args:
        title: what the panel is headed with, for instance the name of an engine.

    Raises:
        InputError: `title` is not a string.
    """

    _esm = _STATIC / "tokens.js"
    _css = _STATIC / "tokens.css"
    # The message from which a browser that mounts the view starts.
    _saved = traitlets.Dict().tag(sync=True)

    def __init__(self, title: str = "") -> None:
        self._stream = _Stream(epoch=0, title=_clean(title, "title"))
        self._news = threading.Condition()  # guards _stream and _flusher
        self._sending = threading.Lock()  # keeps messages in order; taken before _news
        self._flusher: threading.Thread | None = None
        super().__init__(_saved=self._stream.message(0))
        self.on_msg(self._answer)

    @property
    def text(self) -> str:
        """The text of the current stream so far."""
        with self._news:
            return self._stream.text_from(0)

    def reset(self, title: str = "") -> None:
        """Begin a new, empty stream in the phase "waiting".

        Args:
            title: what the panel is headed with from now on.

        Raises:
            InputError: `title` is not a string.
        """
        title = _clean(title, "title")
        with self._sending:
            with self._news:
                self._stream = _Stream(self._stream.epoch + 1, title)
                start = self._stream.message(0)
            self._saved = start

    def append(self, text: str) -> None:
        """Add text to the end of the stream; a stream that was waiting is decoding from now on.

        Args:
            text: any string. Unpaired surrogates, which no encoding can carry, become U+FFFD.

        Raises:
            InputError: `text` is not a string, or the stream has ended.
        """
        text = _clean(text, "text")
        with self._news:
            self._begin_if_new()
            self._stream.add(text)
            self._wake_flusher()

    def status(self, phase: Phase, **facts: Fact) -> None:
        """Say where the stream is, and what the status line shows.

        Args:
            phase: one of "waiting", "queued", "prefill", "decode"; or one of the three that end
                a stream, which is the same as calling `finish`.
            **facts: short strings and numbers by name, for instance `tokens=31, TTFT="0.21 s"`
                or `**{"tokens/s": 38.2}`. They replace the ones that were shown; None is left
                out, and an underscore in a name shows as a space.

        Raises:
            InputError: an unknown phase, a fact of another type, or the stream has ended.
        """
        if phase in ENDED:
            self.finish(phase, **facts)
            return
        _check_phase(phase, get_args(Phase))
        shown = _shown(facts)
        with self._news:
            self._begin_if_new()
            self._stream.enter(phase, shown)
            self._wake_flusher()

    def finish(self, phase: Phase, **facts: Fact) -> None:
        """End the stream; when this returns everything was sent.

        Calling it again changes the phase and the facts of the stream that has ended.

        Args:
            phase: "finished", "stopped" or "failed".
            **facts: as for `status`.

        Raises:
            InputError: another phase, or a fact that is neither string nor number.
        """
        _check_phase(phase, ENDED)
        shown = _shown(facts)
        with self._sending:
            with self._news:
                self._begin_if_new()
                self._stream.end(phase, shown)
                last = self._stream.take()
                whole = self._stream.message(0)
                self._news.notify_all()
            if last is not None:
                self.send(last)
            self._saved = whole

    def _begin_if_new(self) -> None:
        if self._stream.epoch == 0:
            self._stream = _Stream(1, self._stream.title)

    def _wake_flusher(self) -> None:
        if self._flusher is None:
            self._flusher = threading.Thread(target=self._flush, name="token-view", daemon=True)
            self._flusher.start()
        else:
            self._news.notify_all()

    def _flush(self) -> None:
        try:
            while self._wait_for_news():
                self._send_batch()
                time.sleep(_PERIOD)
        finally:
            with self._news:
                if self._flusher is threading.current_thread():
                    self._flusher = None

    def _wait_for_news(self) -> bool:
        """Return whether there is something to send; if not, the flusher has been dismissed."""
        with self._news:
            if not self._stream.dirty and not self._stream.ended:
                self._news.wait(_LINGER)
            if not self._stream.dirty:
                # In the same breath as the decision, so that the next append starts a new one.
                self._flusher = None
            return self._flusher is not None

    def _send_batch(self) -> None:
        with self._sending:
            with self._news:
                batch = self._stream.take()
            if batch is not None:
                self.send(batch)

    def _answer(self, _widget: object, request: Message, _buffers: object) -> None:
        if request.get("kind") != "resync":
            return
        with self._sending:
            with self._news:
                same = request.get("epoch") == self._stream.epoch
                have = int(request.get("have", 0)) if same else 0
                rest = self._stream.message(have)
            self.send(rest)

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Add the text itself, for readers of a notebook that cannot show widgets."""
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is not None:
            with self._news:
                bundle[0]["text/plain"] = printable(self._stream.plain())
        return bundle


@dataclass
class _Stream:
    """The text and the state of one stream. It has no lock of its own."""

    epoch: int
    title: str
    phase: str = "waiting"
    facts: list[list[str]] = field(default_factory=list)
    sent: int = 0  # code points that have left in batches
    dirty: bool = False
    _parts: list[str] = field(default_factory=list)
    _pending: list[str] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        return self.phase in ENDED

    def text_from(self, offset: int) -> str:
        self._parts = ["".join(self._parts)]
        return (self._parts[0] + "".join(self._pending))[offset:]

    def add(self, text: str) -> None:
        self._refuse_if_ended("text")
        if not text:
            return
        self._pending.append(text)
        self.phase = "decode"
        self.dirty = True

    def enter(self, phase: str, facts: list[list[str]]) -> None:
        self._refuse_if_ended(f'the phase "{phase}"')
        self.phase, self.facts, self.dirty = phase, facts, True

    def end(self, phase: str, facts: list[list[str]]) -> None:
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
        return message | {"title": self.title} if offset == 0 else message

    def message(self, offset: int) -> Message:
        """Return the stream from `offset` on, whether sent before or not."""
        text = self.text_from(offset)
        return self._message(offset, text, offset + len(text)) | {"title": self.title}

    def _message(self, offset: int, text: str, length: int) -> Message:
        return {
            "epoch": self.epoch,
            "offset": offset,
            "text": text,
            "total": length if self.ended else None,
            "phase": self.phase,
            "facts": self.facts,
        }

    def plain(self) -> str:
        head = [self.title, self.phase, *(f"{name} {value}" for name, value in self.facts)]
        line = " · ".join(part for part in head if part)
        return f"{line}\n{self.text_from(0) or 'No text yet.'}"

    def _refuse_if_ended(self, what: str) -> None:
        if self.ended:
            raise InputError(
                f"The token view got {what} after its stream had ended ({self.phase}). "
                "Call reset() to begin a new stream."
            )


def _clean(text: str, name: str) -> str:
    if not isinstance(text, str):
        raise InputError(
            f"The token view got {type(text).__name__} as {name}. It shows text only: "
            "decode tokens to a string first."
        )
    return _UNPAIRED_SURROGATE.sub("\ufffd", text)


def _check_phase(phase: str, allowed: tuple[str, ...]) -> None:
    if phase not in allowed:
        raise InputError(f'"{phase}" is no phase that fits here. Use one of: {", ".join(allowed)}.')


def _shown(facts: dict[str, Fact]) -> list[list[str]]:
    """Return pairs of name and value as they are displayed, in the order given."""
    return [
        [_clean(name, "a fact's name").replace("_", " "), _shown_value(name, value)]
        for name, value in facts.items()
        if value is not None
    ]


def _shown_value(name: str, value: Fact) -> str:
    if isinstance(value, str):
        return _clean(value, name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(
            f'The fact "{name}" is {type(value).__name__}. The status line shows strings and '
            "numbers: format it first."
        )
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
