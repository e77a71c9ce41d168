"""A panel that shows one stream of generated text while it arrives.

Text travels as messages of one shape, from the kernel to every browser that shows the view:

    {"epoch": 3, "offset": 120, "text": " more", "total": None,
     "phase": "decode", "facts": [["tokens", "31"]], "title": "..."}

`epoch` numbers the streams of a view, `offset` is the place of `text` in its stream and `total`
the length of a stream that has ended; both count code points. `title` is left out of a batch in
mid-stream. Jupyter drops messages under load and tells nobody, so a browser that misses something
sends `{"kind": "resync", "epoch": 3, "have": 120}` and gets a message with the rest. Where tokens
came with the text, `spans` has them (see spans.py); `pace`, if present, is the time between tokens
over the whole stream so far.

About a token a browser may send `{"kind": "alternatives", "epoch": 3, "index": 17}` and
`{"kind": "continue", "epoch": 3, "index": 17, "token_id": 42}`; the answer repeats kind, epoch and
index, and has `choices` or an `error`. Each choice is id, text and log-probability; one without an
id (null) is only shown. A question that waits while a newer one of its kind comes is not asked any
more, and its answer is an error that says so.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import anywidget
import traitlets

from workbench.errors import InputError, WorkbenchError
from workbench.units import printable
from workbench.widgets.spans import finite
from workbench.widgets.token_stream import ENDED, Message, Phase, Stream

Fact = str | int | float | None

# 20 Hz: an eye sees it as continuous, and an envelope of about 600 bytes a message stays small
# beside the text. The server drops everything above 1000 messages/s.
_PERIOD = 0.05  # seconds
# The flusher outlives a pause of the stream by this much, so that slow streams reuse the thread.
_LINGER = 0.5  # seconds
_SUPERSEDED = "Another token was looked at meanwhile. Look at this one again."
_STATIC = Path(__file__).parent / "static"
_UNPAIRED_SURROGATE = re.compile("[\ud800-\udfff]")


def _script() -> str:
    """Return the browser's half as one module: a widget's module cannot import a file beside it."""
    names = ("heat", "popover", "inspect", "pace")
    files = [*(f"tokens_{name}.js" for name in names), "tokens.js"]
    return "\n".join((_STATIC / file).read_text(encoding="utf-8") for file in files)


@dataclass(frozen=True)
class Alternative:
    """A token that could have stood in a place: its text, and its probability's natural log.

    `token_id` is None where nobody tells; then nothing can go on with it.
    """

    token_id: int | None
    text: str
    logprob: float


class TokenView(anywidget.AnyWidget):
    """Shows one stream of text; every method may be called from any thread.

    Text leaves in batches, 20 a second at most, from a thread that exists only while there is
    something to send. The complete text is synchronised once, when the stream ends, so that a
    saved notebook shows it without a kernel.

    A text with log-probabilities can be coloured by them, and each of its tokens looked at. Both
    callbacks are called in a thread of their own, one at a time; a WorkbenchError of theirs is
    shown where it was asked for.

    Args:
        title: what the panel is headed with, for instance the name of an engine.
        heat: whether tokens are coloured by their probability; the panel has a switch for it.
        alternatives: returns the likeliest tokens for the place of the stream's token `index`.
        continue_from: generates again from token `index` on, with token `token_id` in its place.
            It may call `reset`.

    Raises:
        InputError: `title` is not a string.
    """

    _esm = _script()
    _css = _STATIC / "tokens.css"
    # The message from which a browser that mounts the view starts.
    _saved = traitlets.Dict().tag(sync=True)
    # What the browser may ask for about a token.
    _answers = traitlets.List(traitlets.Unicode()).tag(sync=True)
    heat = traitlets.Bool(default_value=False).tag(sync=True)

    def __init__(
        self,
        title: str = "",
        *,
        heat: bool = False,
        alternatives: Callable[[int], Sequence[Alternative]] | None = None,
        continue_from: Callable[[int, int], object] | None = None,
    ) -> None:
        self._alternatives = alternatives
        self._continue_from = continue_from
        self._questions: dict[str, tuple[int, ...]] = {}  # the newest of each kind that waits
        self._answerer: threading.Thread | None = None
        self._stream = Stream(epoch=0, title=_clean(title, "title"))
        self._news = threading.Condition()  # guards all of these, and _flusher
        self._sending = threading.Lock()  # keeps messages in order; taken before _news
        self._flusher: threading.Thread | None = None
        super().__init__(
            _saved=self._stream.message(0),
            _answers=self._answerable(alternatives=True, going_on=True),
            heat=heat,
        )
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
                self._stream = Stream(self._stream.epoch + 1, title)
                start = self._stream.message(0)
            self._saved = start

    def offer(self, *, alternatives: bool, going_on: bool) -> None:
        """Say what a person may ask for about the tokens of this stream.

        Args:
            alternatives: the likeliest tokens for a place; only where there is a callback for it.
            going_on: generating again with another token; likewise.
        """
        self._answers = self._answerable(alternatives=alternatives, going_on=going_on)

    def _answerable(self, *, alternatives: bool, going_on: bool) -> list[str]:
        wanted = {
            "alternatives": alternatives and self._alternatives,
            "continue": going_on and self._continue_from,
        }
        return [kind for kind, answer in wanted.items() if answer]

    def append(self, text: str, logprobs: Sequence[float] = ()) -> None:
        """Add text to the end of the stream; a stream that was waiting is decoding from now on.

        A delta of a generation fits as it is: `append(delta.text, delta.logprobs)`. Tokens without
        text (the first part of a character) belong to the next text that comes.

        Args:
            text: any string. Unpaired surrogates, which no encoding can carry, become U+FFFD.
            logprobs: natural logarithms of the probabilities of the tokens that came with the
                text; for all tokens of a stream or for none.

        Raises:
            InputError: `text` is not a string, a log-probability is none, or the stream has ended.
        """
        text = _clean(text, "text")
        with self._news:
            self._begin_if_new()
            self._stream.add(text, logprobs)
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
            self._stream = Stream(1, self._stream.title)

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
        match request:
            case {"kind": "resync", "epoch": epoch, "have": int(have)}:
                self._send_rest(epoch, have)
            case {"kind": "alternatives", "epoch": int(epoch), "index": int(index)}:
                self._ask("alternatives", epoch, index)
            case {
                "kind": "continue",
                "epoch": int(epoch),
                "index": int(index),
                "token_id": int(token_id),
            }:
                self._ask("continue", epoch, index, token_id)

    def _send_rest(self, epoch: object, have: int) -> None:
        with self._sending:
            with self._news:
                same = epoch == self._stream.epoch
                rest = self._stream.message(max(0, have) if same else 0)
            self.send(rest)

    def _ask(self, kind: str, *place: int) -> None:
        """Have a question answered by a thread: the kernel could read no message meanwhile.

        An answer may take a forward pass of the engine, so only the newest question gets one.
        """
        with self._news:
            older = self._questions.pop(kind, None)
            self._questions[kind] = place
            if self._answerer is None:
                self._answerer = threading.Thread(target=self._tell, name="token", daemon=True)
                self._answerer.start()
        if older:
            self._send_answer(kind, older, {"error": _SUPERSEDED})

    def _tell(self) -> None:
        """Answer what is asked, until nothing is (runs in a thread)."""
        while question := self._next_question():
            kind, place = question
            epoch, index, *token_id = place
            try:
                self._refuse_unknown(epoch, index)
                answer = self._continue(index, *token_id) if token_id else self._choices(index)
            except WorkbenchError as error:
                answer = {"error": str(error)}
            self._send_answer(kind, place, answer)

    def _next_question(self) -> tuple[str, tuple[int, ...]] | None:
        """Take a question; without one, the thread that asks has been dismissed."""
        with self._news:
            if not self._questions:
                self._answerer = None
                return None
            return self._questions.popitem()

    def _send_answer(self, kind: str, place: tuple[int, ...], answer: Message) -> None:
        self.send({"kind": kind, "epoch": place[0], "index": place[1], **answer})

    def _refuse_unknown(self, epoch: int, index: int) -> None:
        with self._news:
            known = epoch == self._stream.epoch and 0 <= index < self._stream.spans.tokens
        if not known:
            raise InputError("This text has been replaced by a newer one. Choose a token of it.")

    def _choices(self, index: int) -> Message:
        if self._alternatives is None:
            raise InputError("Alternatives are not available here.")
        found = self._alternatives(index)
        return {
            "choices": [[a.token_id, _clean(a.text, "a token"), finite(a.logprob)] for a in found]
        }

    def _continue(self, index: int, token_id: int) -> Message:
        if self._continue_from is None:
            raise InputError("Going on with another token is not available here.")
        self._continue_from(index, token_id)
        return {}

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Add the text itself, for readers of a notebook that cannot show widgets."""
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is not None:
            with self._news:
                bundle[0]["text/plain"] = printable(self._stream.plain())
        return bundle


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
