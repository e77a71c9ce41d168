"""The load generator: sends requests as a workload says, and takes down when what came.

One thread does everything. It does not read the streams: the session stamps each token anyway, and
whoever has ended calls back. So 64 streams cost what one request more or less costs.
"""

from __future__ import annotations

import queue
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from workbench.errors import WorkbenchError
from workbench.generation import Generation
from workbench.prompts import Request
from workbench.sampling import Sampling
from workbench.units import format_seconds

TIDY = 5.0
"""Seconds that cancelled requests are given to end when time is up."""


class Target(Protocol):
    """What generates: a `Session`, or something like one."""

    def generate(self, prompt: Any, sampling: Sampling | None = None) -> Generation:
        """Start a generation."""
        ...


@dataclass
class Sent:
    """One request that was sent: when (monotonic clock, seconds), and what became of it."""

    number: int
    request: Request
    scheduled: float
    sent: float
    generation: Generation | None = None
    ended: float | None = None
    error: str = ""

    def record(self, start: float) -> dict[str, Any]:
        """Return plain values; times in seconds, `scheduled`, `sent` and `ended` from the start.

        `ended` is when we saw the end, by our own clock: it checks the stamps of the session.
        `counted` says of a server's tokens who counted them: "server", or "here".
        """
        told = self.generation.record() if self.generation else {}
        ended = None if self.ended is None else self.ended - start
        return {
            "number": self.number,
            "scheduled": self.scheduled - start,
            "sent": self.sent - start,
            "ended": ended,
            "asked_input_tokens": self.request.input_len,
            "asked_output_tokens": self.request.output_len,
            "input_tokens": told.get("input_tokens"),
            "output_tokens": told.get("output_tokens", 0),
            "stamped": told.get("stamped", "token"),
            "counted": told.get("counted"),
            "queued": told.get("queued"),
            "ttft": told.get("ttft"),
            "itl": told.get("itl_seconds", []),
            "e2e": told.get("e2e"),
            "finish_reason": told.get("finish_reason"),
            "error": self.error,
        }


@dataclass
class Load:
    """One run of the requests of a repetition against a target."""

    target: Target
    requests: Sequence[Request]
    sampling: Sampling
    concurrency: int = 1
    schedule: Sequence[float] | None = None
    deadline: float | None = None
    silence: float | None = None

    def run(self) -> list[dict[str, Any]]:
        """Send all requests, wait for their ends, and return their records in order.

        With a schedule (seconds from the start, one a request) each is sent at its time, however
        many run; without one as many run as `concurrency` says. A request that fails is recorded
        with its error.

        Raises:
            TimeoutError: The deadline (monotonic clock) has passed, or no token of any request has
                come for longer than `silence` seconds; what ran was cancelled.
        """
        self._sent: list[Sent] = []
        self._ended: queue.SimpleQueue[tuple[Sent, float]] = queue.SimpleQueue()
        self._running: dict[int, Sent] = {}
        waiting = deque(enumerate(self.requests))
        start = time.monotonic()
        try:
            while waiting or self._running:
                while waiting and self._due(waiting[0][0], start):
                    self._send(*waiting.popleft(), start)
                self._take_ended(self._patience(waiting[0][0] if waiting else None, start))
        except BaseException:
            self._cancel()
            raise
        return [one.record(start) for one in self._sent]

    def _due(self, number: int, start: float) -> bool:
        if self.schedule is None:
            return len(self._running) < self.concurrency
        return time.monotonic() >= start + self.schedule[number]

    def _send(self, number: int, request: Request, start: float) -> None:
        now = self._heard = time.monotonic()
        scheduled = now if self.schedule is None else start + self.schedule[number]
        sent = Sent(number, request, scheduled, now)
        self._sent.append(sent)
        # Before it is sent: an endpoint may have ended when `generate` returns.
        self._running[number] = sent
        sampling = self.sampling.model_copy(update={"max_tokens": request.output_len})
        try:
            sent.generation = self.target.generate(request.prompt, sampling)
        except WorkbenchError as error:
            sent.error = str(error)
            self._ended.put((sent, time.monotonic()))
            return
        sent.sent = sent.generation.timings.requested
        sent.generation.when_finished(lambda _: self._ended.put((sent, time.monotonic())))

    def _patience(self, following: int | None, start: float) -> float | None:
        """Return how long to wait for an end: to the next time to send, at most to a limit."""
        until = [] if self.deadline is None else [self.deadline]
        if self.silence is not None and self._running:
            until.append(self._heard + self.silence)
        if following is not None and self.schedule is not None:
            until.append(start + self.schedule[following])
        return max(0.0, min(until) - time.monotonic()) if until else None

    def _take_ended(self, patience: float | None) -> None:
        """Take all that have ended, waiting for the first one.

        Raises:
            TimeoutError: The deadline has passed, or nothing comes any more.
        """
        try:
            while self._running:
                sent, ended = self._ended.get(timeout=patience)
                self._finish(sent, ended)
                patience = 0.0
            if patience:
                time.sleep(patience)
        except queue.Empty:
            pass
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise TimeoutError(
                f"Time was up with {len(self._running)} requests under way and "
                f"{len(self.requests) - len(self._sent)} not sent yet."
            )
        self._check_silence()

    def _check_silence(self) -> None:
        """Look for the last token where none was known for longer than may be.

        Raises:
            TimeoutError: There is none since then either.
        """
        if self.silence is None or not self._running:
            return
        if time.monotonic() - self._heard <= self.silence:
            return
        timings = (sent.generation.timings for sent in self._running.values() if sent.generation)
        self._heard = max([self._heard, *(told.tokens[-1] for told in timings if told.tokens)])
        if time.monotonic() - self._heard > self.silence:
            raise TimeoutError(
                f"No token came for {format_seconds(self.silence)}, with {len(self._running)} "
                "requests under way: they were cancelled. A longer silence_limit waits longer."
            )

    def _finish(self, sent: Sent, ended: float) -> None:
        del self._running[sent.number]
        sent.ended = self._heard = ended
        if sent.generation is not None and sent.generation.error is not None:
            sent.error = str(sent.generation.error)

    def _cancel(self) -> None:
        """Stop what runs, so that nothing of it is in the way of whoever comes next."""
        running = [sent.generation for sent in self._running.values() if sent.generation]
        for generation in running:
            generation.cancel()
        until = time.monotonic() + TIDY
        for generation in running:
            generation.finished.wait(max(0.0, until - time.monotonic()))
