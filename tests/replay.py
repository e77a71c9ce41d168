"""A session that replays canned tokens: no engine, no process, an exact pace."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Self

from workbench.errors import RequestError
from workbench.generation import Generation
from workbench.sampling import Sampling


class Replay:
    """Gives each running request one token a step; steps are `pace` seconds apart.

    Steps keep to a schedule: one that comes late is followed by the next at its own time. With
    `together` above 1 that many come at once, as where a proxy merges chunks.
    """

    def __init__(
        self,
        pace: float = 0.0,
        *,
        together: int = 1,
        refuse: Callable[[Any], bool] = lambda _: False,
    ) -> None:
        self._pace, self._together, self._refuse = pace, together, refuse
        self._running: dict[Generation, int] = {}
        self._lock = threading.Condition()
        self._closed = False
        self.most = 0
        self.prompts: list[Any] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._closed = True
            self._lock.notify()
        self._thread.join()

    def generate(self, prompt: Any, sampling: Sampling | None = None) -> Generation:
        """Start a generation of `max_tokens` canned tokens."""
        assert sampling is not None
        generation = Generation(sampling, lambda: self._cancel(generation))
        self.prompts.append(prompt)
        if self._refuse(prompt):
            generation.fail(RequestError("Canned: no."))
            return generation
        generation.take({"event": "started", "input_tokens": len(prompt), "time": time.monotonic()})
        with self._lock:
            self._running[generation] = sampling.max_tokens or 1
            self.most = max(self.most, len(self._running))
            self._lock.notify()
        return generation

    def _cancel(self, generation: Generation) -> None:
        with self._lock:
            known = self._running.pop(generation, None)
        if known is not None:
            self._end(generation, "cancelled")

    def _serve(self) -> None:
        following = time.monotonic()
        while True:
            with self._lock:
                while not self._running and not self._closed:
                    self._lock.wait()
                    following = time.monotonic()
                if self._closed:
                    return
            following += self._pace
            time.sleep(max(0.0, following - time.monotonic()))
            self._step()

    def _step(self) -> None:
        now = time.monotonic()
        with self._lock:
            running = list(self._running)
        for generation in running:
            generation.take_tokens([7] * self._together, "x", [], now)
            with self._lock:
                if generation not in self._running:
                    continue
                self._running[generation] -= self._together
                over = self._running[generation] <= 0
                if over:
                    del self._running[generation]
            if over:
                self._end(generation, "length")

    @staticmethod
    def _end(generation: Generation, reason: str) -> None:
        generation.take({"event": "end", "reason": reason, "text": "", "cache_usage": 0.0})
