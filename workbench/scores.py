"""Scores: what an engine makes of a text that is there already, token by token."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.errors import RequestError, SessionError
from workbench.generation import Alternative
from workbench.hardware import memory
from workbench.units import format_bytes


@dataclass(frozen=True)
class Score:
    """One token of a text, given those before it.

    Attributes:
        token: The token, with what it adds to the text before it (nothing where a character is
            unfinished, and for a special token), and the natural logarithm of its probability.
        alternatives: The most probable tokens at its place, the first one first, each with what
            it would add; a special token, which adds nothing, with its name.
    """

    token: Alternative
    alternatives: tuple[Alternative, ...]


def check_room(needed: int) -> None:
    """Refuse to load an engine's graph once more for scores where there is no memory for it.

    Args:
        needed: Bytes that it takes; 0 where nothing is loaded.

    Raises:
        RequestError: Less is free.
    """
    free = memory()[1]
    if needed > free:
        raise RequestError(
            "Scores, and with them the alternatives of a token, take the engine's weights in "
            f"memory a second time: {format_bytes(needed)}, and {format_bytes(free)} are free. "
            "Unload another engine first."
        )


class Scoring:
    """A request for scores, while it waits for its answer."""

    def __init__(self) -> None:
        self.finished = threading.Event()
        self._scores: list[Score] = []
        self._error: Exception | None = None

    def take(self, event: Mapping[str, Any]) -> None:
        """Apply the worker's answer (called by the session's reader thread)."""
        if event["event"] == "refused":
            self.fail(RequestError(event["message"]))
            return
        self._scores = [
            Score(Alternative(*token), tuple(Alternative(*one) for one in others))
            for token, others in event["positions"]
        ]
        self.finished.set()

    def fail(self, error: Exception) -> None:
        """End with an error."""
        self._error = error
        self.finished.set()

    def wait(self, timeout: float | None) -> list[Score]:
        """Wait for the answer.

        Raises:
            RequestError: The engine refused the request.
            SessionError: The worker died, or gave no answer within `timeout` seconds.
        """
        if not self.finished.wait(timeout):
            raise SessionError(f"There are no scores after {timeout} s.")
        if self._error:
            raise self._error
        return self._scores
