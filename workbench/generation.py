"""Generations: streams of tokens, as their readers see them while they grow."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any, Literal, NamedTuple, Self

from workbench.errors import RequestError
from workbench.metrics import Timings
from workbench.sampling import Sampling

Phase = Literal["queued", "prefill", "decode", "finished", "stopped", "failed"]

_END = object()


class Alternative(NamedTuple):
    """A token that could have come at a step; `logprob` is the natural logarithm of its chance.

    A server does not always tell the id.
    """

    id: int | None
    text: str
    logprob: float


class Delta(NamedTuple):
    """What one step of the engine added to a generation.

    `text` may be empty while a character is unfinished; `logprobs` are natural logarithms, one a
    token, where `Sampling.logprobs` asked for them; `alternatives` has for each token the most
    probable ones at its place, where `Sampling.top_logprobs` asked for them.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    alternatives: tuple[tuple[Alternative, ...], ...] = ()


class Generation:
    """One stream of tokens. Iterate over it for the deltas, once.

    `phase`, `text` and `token_ids` may be read at any time and from any thread, and grow.
    `prompt_ids` are the tokens that the prompt became, once it was taken up; empty where nobody
    tells.
    """

    def __init__(self, sampling: Sampling, cancel: Callable[[], None]) -> None:
        self._cancel = cancel
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._pieces: list[str] = []
        self._token_times: list[float] = []
        self._started: float | None = None
        self._requested = time.monotonic()
        self.finished = threading.Event()
        self._listeners: list[Callable[[Generation], None]] = []
        # Reentrant: an iterator that is collected while we hold it cancels its generation.
        self._changing = threading.RLock()
        self.sampling = sampling
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.alternatives: list[tuple[Alternative, ...]] = []
        self.input_tokens: int | None = None
        self.prompt_ids: list[int] = []
        self.phase: Phase = "queued"
        self.queue_place = 0
        self.queue_reason = ""
        self.finish_reason: str | None = None
        self.cache_usage: float | None = None
        self.engine_metrics: dict[str, Any] = {}
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[Delta]:
        """Yield deltas until the end; leaving the loop early, or interrupting it, stops.

        Raises:
            RequestError: The engine refused the request.
            SessionError: The worker died.
        """
        try:
            while (item := self._queue.get()) is not _END:
                yield item
            self._queue.put(_END)  # for whoever iterates again
        finally:
            self.cancel()
        if self.error:
            raise self.error

    def __repr__(self) -> str:
        return f"<Generation {self.phase}, {len(self.token_ids)} tokens>"

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._pieces)

    @property
    def timings(self) -> Timings:
        """The time stamps so far."""
        return Timings(self._requested, self._started, tuple(self._token_times))

    def cancel(self) -> None:
        """Stop at once, in whatever phase; the batch slot is free after the running step.

        What the engine makes until then is not taken.
        """
        if not self.finished.is_set():
            self._cancel()

    def wait(self, timeout: float | None = None) -> Self:
        """Wait for the end and return self.

        Raises:
            RequestError: The engine refused the request.
            SessionError: The worker died.
            TimeoutError: It goes on after `timeout` seconds.
        """
        if not self.finished.wait(timeout):
            raise TimeoutError(f"The generation goes on after {timeout} s.")
        if self.error:
            raise self.error
        return self

    def when_finished(self, call: Callable[[Generation], None]) -> None:
        """Call back once at the end, however it ends; at once where it has ended.

        The call comes from whoever stops it, or from the thread that reads the session, which all
        its streams wait for.
        """
        with self._changing:
            if not self.finished.is_set():
                self._listeners.append(call)
                return
        call(self)

    def record(self) -> dict[str, Any]:
        """Return everything about this generation as plain values."""
        return {
            "text": self.text,
            "token_ids": list(self.token_ids),
            "input_tokens": self.input_tokens,
            "finish_reason": self.finish_reason,
            "sampling": self.sampling.model_dump(mode="json"),
            "stamped": self.timings.stamped,
            **self.timings.summary(),
            "itl_seconds": list(self.timings.itl),
            "engine_metrics": dict(self.engine_metrics),
            "logprobs": list(self.logprobs),
            "alternatives": [[list(one) for one in place] for place in self.alternatives],
        }

    def take(self, event: Mapping[str, Any]) -> None:
        """Apply one event of the worker (called by the session's reader thread).

        After the end, which Stop may have been, nothing changes any more.
        """
        with self._changing:
            if not self.finished.is_set():
                self._take(event)

    def _take(self, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "queued":
                self.queue_place, self.queue_reason = event["place"], event["reason"]
            case "started":
                self.queue_place = 0
                self.phase = "prefill"
                self.input_tokens = event["input_tokens"]
                self.prompt_ids = [int(number) for number in event.get("ids", ())]
                self._started = event["time"]
            case "end":
                if event["text"]:
                    self._add(Delta(event["text"], (), ()))
                self.cache_usage = event["cache_usage"]
                self.engine_metrics = event.get("metrics", {})
                self._finish(event["reason"])
            case "refused":
                self.fail(RequestError(event["message"]))

    def take_tokens(
        self,
        ids: list[int],
        text: str,
        logprobs: list[float],
        now: float,
        alternatives: Sequence[Sequence[Sequence[Any]]] = (),
    ) -> None:
        """Add the tokens of one step (called by the session's reader thread)."""
        others = tuple(tuple(Alternative(*one) for one in place) for place in alternatives)
        with self._changing:
            if self.finished.is_set():
                return
            self.phase = "decode"
            self.token_ids += ids
            self.logprobs += logprobs
            self._token_times += [now] * len(ids)
            self.alternatives += others
            self._add(Delta(text, tuple(ids), tuple(logprobs), others))

    def _add(self, delta: Delta) -> None:
        if delta.text:
            self._pieces.append(delta.text)
        self._queue.put(delta)

    def _finish(self, reason: str) -> None:
        if reason == "ignored":
            self.fail(
                RequestError(
                    "OpenVINO dropped this request: its KV cache had no room left. Build with a "
                    "larger kv_cache_tokens."
                )
            )
            return
        self._end("stopped" if reason == "cancelled" else "finished", reason)

    def stop(self) -> None:
        """End as stopped, unless it has ended before (called by the session)."""
        self._end("stopped", "cancelled")

    def fail(self, error: Exception) -> None:
        """End with an error, unless it has ended before."""
        self._end("failed", "failed", error)

    def _end(self, phase: Phase, reason: str, error: Exception | None = None) -> None:
        with self._changing:
            if self.finished.is_set():
                return
            self.phase, self.finish_reason, self.error = phase, reason, error
            self.finished.set()
        self._queue.put(_END)
        for call in self._listeners:
            call(self)


def prompt_fields(prompt: Any) -> dict[str, Any]:
    """Return a prompt as the field of a message to the worker that suits its kind.

    Raises:
        RequestError: It is none, or a chat message lacks its role or content.
    """
    if isinstance(prompt, str):
        return {"prompt": _encodable(prompt)}
    if isinstance(prompt, Sequence) and not isinstance(prompt, bytes | bytearray):
        if prompt and isinstance(prompt[0], Mapping):
            return {"messages": [_message(item) for item in prompt]}
        # Thousands of ids are usual, and asking an abstract class takes a microsecond each.
        if all(type(item) is int or isinstance(item, Integral) for item in prompt):
            return {"ids": [int(item) for item in prompt]}
    raise RequestError(
        "A prompt is a text, a list of token ids, or a list of chat messages; got "
        f"{type(prompt).__name__}."
    )


def going_on(fields: dict[str, Any], said: Sequence[int], sampling: Sampling) -> dict[str, Any]:
    """Return the fields of a prompt with the tokens that its answer goes on from.

    Raises:
        RequestError: The prompt is not given as token ids, or the answer has a form, which the
            runtimes would begin anew.
    """
    if "ids" not in fields:
        raise RequestError("An answer goes on (said=...) from a prompt of token ids, not of text.")
    if sampling.json_schema is not None or sampling.regex is not None:
        raise RequestError(
            "An answer with a json_schema or regex cannot go on from one of its tokens: the form "
            "would begin anew there. Ask again without it, or for a whole new answer."
        )
    return prompt_fields([*fields["ids"], *said])


def _encodable(text: str) -> str:
    """Return a text with lone surrogates, which no encoding can carry, replaced."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _message(item: Any) -> dict[str, str]:
    """Return a chat message with the two fields that templates rely on."""
    fields = ("role", "content")
    if not isinstance(item, Mapping) or not all(isinstance(item.get(f), str) for f in fields):
        raise RequestError(
            f"A chat message needs a text as 'role' and one as 'content'; got {item!r}."
        )
    return {field: _encodable(item[field]) for field in fields}
