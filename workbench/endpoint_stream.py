"""One request to a server: a thread that reads its stream, and ends when it is told to."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

from workbench.endpoint_calls import Caller, body_of
from workbench.endpoint_connection import Answer
from workbench.errors import RequestError, SessionError, WorkbenchError
from workbench.generation import Delta, Generation
from workbench.metrics import Timings
from workbench.openai_protocol import Chunk, StreamError, read_chunk
from workbench.sampling import Sampling
from workbench.sse import EventReader
from workbench.units import format_seconds

DONE = "[DONE]"

Count = Callable[[str], int]
"""Returns the number of tokens of a text."""


class ServedGeneration(Generation):
    """A generation of a server; its stamps are of chunks, taken when they arrived here.

    Attributes:
        chunks: Number of chunks with text or tokens.
        usage: What the server counted, or None.
        token_ids: Empty unless the server tells them.
    """

    def __init__(
        self,
        sampling: Sampling,
        cancel: Callable[[], None],
        prompt: str = "",
        count: Count | None = None,
    ) -> None:
        """Prepare for a stream.

        Args:
            sampling: Options.
            cancel: Ends the request.
            prompt: Its text, where that is all that the model reads.
            count: Counts tokens when it is over, if the server has told no number.
        """
        super().__init__(sampling, cancel)
        self._prompt, self._count = prompt, count
        self.chunks = 0
        self.usage: Mapping[str, Any] | None = None

    @property
    def timings(self) -> Timings:
        """The time stamps so far, one a chunk."""
        stamps = tuple(self._token_times)
        return Timings(self._requested, self._started, stamps, "chunk", self._counted())

    def _counted(self) -> int | None:
        """Return the number of tokens: as the server told, or else as they are counted here."""
        told = self._told()
        if told is None and self._count and self.finished.is_set():
            return self._count(self.text)
        return told

    def _told(self) -> int | None:
        """Return the number of tokens as the server counted, or by their log-probabilities."""
        told = (self.usage or {}).get("completion_tokens")
        return told if isinstance(told, int) else len(self.logprobs) or None

    def record(self) -> dict[str, Any]:
        """Return everything about this generation as plain values."""
        usage = None if self.usage is None else dict(self.usage)
        record = {**super().record(), "chunks": self.chunks, "usage": usage, "counted": "server"}
        if self._told() is None:
            record["counted"] = "here" if self._count else None
            if self._count and self._prompt:
                record["input_tokens"] = self._count(self._prompt)
        return record

    def take_chunk(self, chunk: Chunk, now: float) -> None:
        """Add what one event says (called by the stream's thread)."""
        if chunk.usage:
            self.usage = chunk.usage
            told = chunk.usage.get("prompt_tokens")
            self.input_tokens = told if isinstance(told, int) else None
        if not chunk.text and not chunk.logprobs:
            return
        self.phase = "decode"
        self.chunks += 1
        self._token_times.append(now)
        self.token_ids += chunk.token_ids
        self.logprobs += chunk.logprobs
        self.alternatives += chunk.alternatives
        self._add(Delta(chunk.text, chunk.token_ids, chunk.logprobs, chunk.alternatives))


class Stream:
    """A request with its connection; `generation` grows while it runs.

    It ends once: by what the server sends, by Stop, by a time-out, or with the session.
    """

    def __init__(
        self,
        caller: Caller,
        path: str,
        body: Mapping[str, Any],
        sampling: Sampling,
        ended: Callable[[Stream], None],
        *,
        count: Count | None = None,
    ) -> None:
        """Prepare a request.

        Raises:
            InputError: The key is not there.
        """
        prompt = body.get("prompt")
        text = prompt if isinstance(prompt, str) else ""
        self.generation = ServedGeneration(sampling, self._cancel, text, count)
        self._caller, self._path, self._body, self._on_end = caller, path, body, ended
        caller.headers()  # not kept: they hold the key
        # Reentrant: an iterator that is collected while we hold it cancels its generation.
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._socket: socket.socket | None = None
        self._reason: str | None = None
        self._connected: float | None = None
        self._began = self._alive = time.monotonic()
        self._reader = threading.Thread(target=self._run, name="workbench-endpoint", daemon=True)

    def start(self) -> None:
        """Send the request."""
        self._reader.start()

    def join(self, timeout: float) -> None:
        """Wait for its thread."""
        self._reader.join(timeout)

    def _cancel(self) -> None:
        self._end(lambda: self._finish("cancelled"))

    def fail(self, error: WorkbenchError) -> None:
        """End with an error, unless it has ended."""
        self._end(lambda: self.generation.fail(error))

    def _finish(self, reason: str) -> None:
        metrics = {"connect_seconds": self._connected}
        event = {"event": "end", "text": "", "cache_usage": None, "reason": reason}
        self.generation.take({**event, "metrics": metrics})

    def _end(self, how: Callable[[], None]) -> None:
        """End the generation once, and close the connection at once."""
        with self._lock:
            if self._over.is_set():
                return
            self._over.set()
            self._shut()
        self._on_end(self)
        how()

    def _shut(self) -> None:
        """Wake up whoever waits on the connection; it is closed where it was opened."""
        if self._socket is not None:
            with contextlib.suppress(OSError):  # the server was faster
                # Not SSLSocket.shutdown: that takes TLS away from a thread which still reads.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def check_time(self) -> float:
        """End it where it takes too long; return the seconds until it may (see `Clock`)."""
        if self._over.is_set():
            return math.inf
        patience = self._caller.patience
        first = not self.generation.chunks
        since, most = (
            (self._began, patience.first_token) if first else (self._alive, patience.between_tokens)
        )
        left = since + most - time.monotonic()
        if left <= 0:
            self._give_up(most, first=first)
        return left

    def _give_up(self, most: float, *, first: bool) -> None:
        """End a request that took longer than `most` seconds, for its first token or the next."""
        if self._reason is not None:
            # All text is there; only the connection stays open.
            self._end(lambda: self._finish(str(self._reason)))
        waited = format_seconds(most)
        what = (
            f"sent no token within {waited} (patience.first_token)"
            if first
            else f"sent nothing for {waited} after {self.generation.chunks} chunks "
            "(patience.between_tokens)"
        )
        self.fail(SessionError(f"{self._caller.url} {what}. It may be overloaded; send it again."))

    def _run(self) -> None:
        """Send the request and read its stream (runs in a thread)."""
        try:
            self._exchange()
        except WorkbenchError as error:
            self.fail(error)
        except OSError as error:
            self.fail(self._broken(error))
        finally:
            # Whatever else happened: a generation without an end would be waited for for ever.
            self.fail(SessionError(f"Reading from {self._caller.url} ended unexpectedly."))

    def _exchange(self) -> None:
        body = dict(self._body)
        while True:
            with self._caller.connection(self._meet) as connection:
                connection.connect()
                self._connected = time.monotonic() - self._began
                connection.patient()
                headers = {**self._caller.headers(), "Content-Type": "application/json"}
                connection.send_request("POST", self._path, headers, json.dumps(body).encode())
                self._sent()
                answer = connection.answer()
                if answer.status == HTTPStatus.OK:
                    self._read(answer)
                    return
                words = body_of(answer)
                # Some servers know no stream_options, and say so. The count of tokens is all that
                # is lost without.
                if b"stream_options" in words and body.pop("stream_options", None):
                    continue
                raise self._caller.refusal(answer, words, str(body["model"]))

    def _meet(self, end: socket.socket) -> None:
        """Take note of the connection's socket, which Stop shuts."""
        with self._lock:
            self._socket = end
            if self._over.is_set():
                self._shut()

    def _sent(self) -> None:
        with self._lock:
            if not self._over.is_set():
                # Whether it waits there or is computed, no server tells.
                now = time.monotonic()
                self.generation.take({"event": "started", "input_tokens": None, "time": now})

    def _read(self, answer: Answer) -> None:
        """Read a stream of events to its end.

        Raises:
            RequestError: The answer is no such stream.
            SessionError: It breaks off, or reports an error.
        """
        kind = (answer.header("content-type") or "nothing named").partition(";")[0].strip()
        if kind != "text/event-stream":
            words = self._caller.clean(body_of(answer).decode(errors="replace"))
            raise RequestError(
                f"{self._caller.url} answered with {kind} instead of a stream of events "
                f"(text/event-stream). It may not be able to stream. It begins: {words[:200]}"
            )
        for name, data in self._events(answer):
            if self._over.is_set():
                return
            if data.strip() == DONE:
                self._reason = self._reason or "unknown"
                break
            self._take(name, data)
        if self._reason is None:
            raise self._broken(None)
        self._end(lambda: self._finish(str(self._reason)))

    def _events(self, answer: Answer) -> Iterator[tuple[str, str]]:
        reader = EventReader()
        try:
            for piece in answer.pieces():
                for event in reader.feed(piece):
                    yield event.name, event.data
        except ValueError as error:
            raise SessionError(f"{self._caller.url} sent {error}.") from None
        except OSError:
            if self._reason is None:
                raise
            # All text is there; only the end of the connection was not clean.
        for event in reader.end():
            yield event.name, event.data

    def _take(self, name: str, data: str) -> None:
        try:
            chunk = read_chunk(data)
        except StreamError as error:
            words = self._caller.clean(str(error))
            raise SessionError(f"{self._caller.url} reports an error: {words}") from None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            words = self._caller.clean(data)
            what = "reports an error" if name == "error" else "sent what is no chunk"
            raise SessionError(f"{self._caller.url} {what}: {words[:200]}") from None
        now = time.monotonic()
        if chunk.text or chunk.logprobs:
            self._alive = now
        with self._lock:
            if not self._over.is_set():
                self.generation.take_chunk(chunk, now)
        self._reason = self._reason or chunk.finish_reason

    def _broken(self, error: OSError | None) -> SessionError:
        """Return what the end of a connection means."""
        if self.generation.chunks:
            why = f" ({self._caller.clean(str(error))})" if error and str(error) else ""
            return SessionError(
                f"The stream of {self._caller.url} broke off after {self.generation.chunks} "
                f"chunks, before its end{why}. The text so far is kept; send it again."
            )
        if error is None:
            return SessionError(f"{self._caller.url} closed the stream without a single token.")
        return self._caller.unreachable(error)
