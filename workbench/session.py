"""Sessions: an engine loaded in a worker process, and the generations that stream from it."""

from __future__ import annotations

import contextlib
import itertools
import queue
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, Self

import psutil

from workbench.errors import RequestError, SessionError
from workbench.metrics import Timings
from workbench.sampling import Sampling
from workbench.toolchain import Toolchain, Worker, describe_exit

Phase = Literal["queued", "prefill", "decode", "finished", "stopped", "failed"]

_END = object()


@dataclass(frozen=True)
class Delta:
    """What one step of the engine added to a generation.

    `text` may be empty while a character is unfinished; `logprobs` are natural logarithms, one a
    token.
    """

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]


class Generation:
    """One stream of tokens. Iterate over it for the deltas, once.

    `status` may be read at any time and from any thread; `text` and `token_ids` grow.
    """

    def __init__(self, session: Session, number: int, sampling: Sampling) -> None:
        self._session = session
        self._number = number
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._pieces: list[str] = []
        self._token_times: list[float] = []
        self._started: float | None = None
        self._requested = time.monotonic()
        self._finished = threading.Event()
        self.sampling = sampling
        self.token_ids: list[int] = []
        self.logprobs: list[float] = []
        self.input_tokens: int | None = None
        self.phase: Phase = "queued"
        self.queue_place = 0
        self.queue_reason = ""
        self.finish_reason: str | None = None
        self.cache_usage: float | None = None
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
        finally:
            self.cancel()
        if self.error:
            raise self.error

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._pieces)

    @property
    def timings(self) -> Timings:
        """The time stamps so far."""
        return Timings(self._requested, self._started, tuple(self._token_times))

    def cancel(self) -> None:
        """Stop at once, in whatever phase; the batch slot is free after the running step."""
        if not self._finished.is_set():
            with contextlib.suppress(OSError):  # the worker is gone: the end is on its way
                self._session._worker.send(op="cancel", id=self._number)  # noqa: SLF001

    def wait(self, timeout: float | None = None) -> Self:
        """Wait for the end and return self.

        Raises:
            RequestError: The engine refused the request.
            SessionError: The worker died.
            TimeoutError: It goes on after `timeout` seconds.
        """
        if not self._finished.wait(timeout):
            raise TimeoutError(f"The generation goes on after {timeout} s.")
        if self.error:
            raise self.error
        return self

    def record(self) -> dict[str, Any]:
        """Return everything about this generation as plain values."""
        return {
            "text": self.text,
            "token_ids": list(self.token_ids),
            "input_tokens": self.input_tokens,
            "finish_reason": self.finish_reason,
            "sampling": self.sampling.model_dump(mode="json"),
            **self.timings.summary(),
        }

    def _take(self, event: Mapping[str, Any]) -> None:
        """Apply one event of the worker (called by the session's reader thread)."""
        match event["event"]:
            case "queued":
                self.queue_place, self.queue_reason = event["place"], event["reason"]
            case "started":
                self.queue_place = 0
                self.phase = "prefill"
                self.input_tokens = event["input_tokens"]
                self._started = event["time"]
            case "end":
                if event["text"]:
                    self._add(Delta(event["text"], (), ()))
                self.cache_usage = event["cache_usage"]
                self._finish(event["reason"])
            case "refused":
                self._fail(RequestError(event["message"]))

    def _tokens(self, ids: list[int], text: str, logprobs: list[float], now: float) -> None:
        self.phase = "decode"
        self.token_ids += ids
        self.logprobs += logprobs
        self._token_times += [now] * len(ids)
        self._add(Delta(text, tuple(ids), tuple(logprobs)))

    def _add(self, delta: Delta) -> None:
        if delta.text:
            self._pieces.append(delta.text)
        self._queue.put(delta)

    def _finish(self, reason: str) -> None:
        if reason == "ignored":
            self._fail(
                RequestError(
                    "OpenVINO dropped this request: its KV cache had no room left. Build with a "
                    "larger kv_cache_tokens."
                )
            )
            return
        self.finish_reason = reason
        self.phase = "stopped" if reason == "cancelled" else "finished"
        self._close()

    def _fail(self, error: Exception) -> None:
        if self._finished.is_set():
            return
        self.error = error
        self.finish_reason = "failed"
        self.phase = "failed"
        self._close()

    def _close(self) -> None:
        self._finished.set()
        self._queue.put(_END)


class Session:
    """An engine in a worker process of its own; a context manager.

    Closing ends the worker and frees everything. If the worker dies, its generations fail with a
    SessionError and this process lives on.
    """

    def __init__(
        self,
        directory: Path,
        backend: str,
        limits: Mapping[str, Any],
        toolchain: Toolchain,
        log: IO[bytes] | None = None,
    ) -> None:
        """Load the engine in `directory`; returns when it can generate.

        Args:
            directory: The engine's files.
            backend: Name of the backend that runs it.
            limits: What the session gives to the runtime and enforces, see `Backend.limits`.
            toolchain: Where the worker runs.
            log: File for what the worker prints; a temporary one by default.

        Raises:
            SessionError: The engine cannot be loaded.
            ToolchainError: The worker cannot be started.
        """
        self.limits = dict(limits)
        self._log = log or tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self._own_log = log is None
        self._generations: dict[int, Generation] = {}
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._closed = False
        self._error: SessionError | None = None
        self._worker = Worker(toolchain, "session", self._log)
        self._worker.send(
            op="open", backend=backend, engine=str(directory.absolute()), limits=self.limits
        )
        self._messages = self._worker.messages()
        self.facts = self._await_ready()
        self._reader = threading.Thread(target=self._read, name="workbench-session", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            # What it still computes is for nobody.
            self._worker.kill()
        self.close()

    @property
    def closed(self) -> bool:
        """Whether nothing can be generated any more."""
        return self._closed or self._error is not None

    @property
    def active(self) -> int:
        """Number of generations that wait or run."""
        return len(self._generations)

    @property
    def pid(self) -> int:
        """Process id of the worker."""
        return self._worker.pid

    def memory(self) -> int | None:
        """Return the resident memory of the worker in bytes, or None when it is gone."""
        try:
            return int(psutil.Process(self._worker.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return None

    def generate(
        self,
        prompt: str | Sequence[int] | Sequence[Mapping[str, str]],
        sampling: Sampling | None = None,
        **options: Any,
    ) -> Generation:
        """Start a generation; it streams while others run.

        Args:
            prompt: Text to complete; or token ids; or chat messages, each with "role" and
                "content", which the model's chat template turns into text.
            sampling: Options; `options` change single ones, as in `temperature=0.8`.
            options: Fields of `Sampling`.

        Raises:
            SpecError: An option is unknown or ill-typed.
            RequestError: A message lacks its role or content.
            SessionError: The session is closed or its worker died.
        """
        sampling = (sampling or Sampling()).replace(**options) if options else sampling
        sampling = (sampling or Sampling()).with_seed()
        fields = _prompt_fields(prompt)
        with self._lock:
            if self._error:
                raise self._error
            if self._closed:
                raise SessionError("This session is closed. Open the engine again.")
            generation = Generation(self, next(self._numbers), sampling)
            self._generations[generation._number] = generation  # noqa: SLF001
        try:
            self._worker.send(
                op="generate",
                id=generation._number,  # noqa: SLF001
                sampling=sampling.model_dump(mode="json"),
                **fields,
            )
        except OSError:
            generation._finished.wait(5.0)  # noqa: SLF001 - the reader is about to say why
        return generation

    def close(self) -> None:
        """End the worker; running generations fail. Closing twice changes nothing."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._worker.close()
        self._reader.join(5.0)
        self._close_log()

    def _await_ready(self) -> dict[str, Any]:
        for message in self._messages:
            if message["event"] == "ready":
                return message
            if message["event"] == "error":
                self._abandon()
                raise SessionError(f"The engine was not loaded. {message['message']}")
        status, tail = self._worker.close(), self._log_tail()
        self._abandon()
        raise SessionError(f"The engine was not loaded: its worker {describe_exit(status)}.{tail}")

    def _abandon(self) -> None:
        """Let go of everything when loading failed."""
        self._closed = True
        self._worker.close()
        self._close_log()

    def _close_log(self) -> None:
        if self._own_log:
            self._log.close()

    def _read(self) -> None:
        """Hand the worker's messages to their generations (runs in a thread)."""
        why = ""
        for message in self._messages:
            if message["event"] == "tokens":
                for number, ids, text, logprobs in message["batch"]:
                    generation = self._generations.get(number)
                    if generation:
                        generation._tokens(ids, text, logprobs, message["time"])  # noqa: SLF001
            elif message["event"] == "error":
                why = message["message"]
            else:
                self._hand_over(message)
        self._end_all(why)

    def _hand_over(self, message: Mapping[str, Any]) -> None:
        generation = self._generations.get(message["id"])
        if generation is None:
            return
        if message["event"] in ("end", "refused"):
            # Before its waiters wake up: they may ask what is still active.
            del self._generations[message["id"]]
        generation._take(message)  # noqa: SLF001 - the two classes are one mechanism

    def _end_all(self, why: str) -> None:
        """The channel is closed: nothing more will come for anyone."""
        with self._lock:
            if self._closed:
                error = SessionError("The session was closed while this generation ran.")
            else:
                status = self._worker.close()
                reason = f" {why}." if why else self._log_tail()
                error = SessionError(
                    f"The engine's worker {describe_exit(status)}.{reason} "
                    "Open the engine again to go on."
                )
                self._error = error
                self._close_log()
            waiting = list(self._generations.values())
            self._generations.clear()
        for generation in waiting:
            generation._fail(error)  # noqa: SLF001

    def _log_tail(self) -> str:
        """Return the last line that the worker printed, as a sentence."""
        if not self._own_log:
            return ""
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return f" Its last words: {lines[-1]}" if lines else ""


def _prompt_fields(prompt: Any) -> dict[str, Any]:
    if isinstance(prompt, str):
        return {"prompt": prompt}
    items = list(prompt)
    if items and isinstance(items[0], Mapping):
        return {"messages": [_message(item) for item in items]}
    return {"ids": [int(item) for item in items]}


def _message(item: Any) -> dict[str, str]:
    """Return a chat message with the two fields that templates rely on."""
    fields = ("role", "content")
    if not isinstance(item, Mapping) or not all(isinstance(item.get(f), str) for f in fields):
        raise RequestError(
            f"A chat message needs a text as 'role' and one as 'content'; got {item!r}."
        )
    return {field: item[field] for field in fields}
