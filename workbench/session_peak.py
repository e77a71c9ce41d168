"""What a session took of memory at the most, and how many tokens its KV cache held for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.generation import Generation
from workbench.heartbeat import peak_of
from workbench.scores import Scoring


@dataclass(frozen=True)
class SessionPeak:
    """What a session took of the host's memory at its peak.

    Attributes:
        memory: Of its worker and all that it started, in bytes.
        most_tokens: The most that its KV cache was seen to hold at the same time.
        all_tokens: All that it ever held: a runtime that takes free blocks before used ones has
            filled as many, up to the whole cache.
    """

    memory: int
    most_tokens: int
    all_tokens: int


class Meter:
    """Counts the tokens of a session; `scored` is set when it has scored a text."""

    def __init__(self) -> None:
        self.scored = False
        self._most_tokens = self._all_tokens = 0

    def count(self, running: Sequence[Generation | Scoring], ended: Generation | Scoring) -> None:
        """Count what the KV cache holds when one of those that run ends, and all that it held."""
        active = [one for one in running if isinstance(one, Generation)]
        held = {id(one): (one.input_tokens or 0) + len(one.token_ids) for one in active}
        self._most_tokens = max(self._most_tokens, sum(held.values()))
        self._all_tokens += held.get(id(ended), 0)

    def peak(self, pid: int) -> SessionPeak | None:
        """Return what a worker took at the most; None where that would tell nobody anything.

        Without a token nothing was laid out for generating, and a score loads the graph again.
        """
        taken = peak_of(pid) if self._all_tokens and not self.scored else 0
        return SessionPeak(taken, self._most_tokens, self._all_tokens) if taken else None
