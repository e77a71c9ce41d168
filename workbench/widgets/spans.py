"""Which tokens stand behind which characters of a streamed text, and how fast they came.

A span is the text of one step of an engine: usually one token, several where a character or a
possible stop string was held back, none where the text came without log-probabilities. Spans
travel as text, because lists of lists would be twice as long: "5:1054 3:88,20000 7" are five
characters of one token, three of two tokens, and seven of none. The numbers behind the colon are
log-probabilities in -0.0001.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Sequence

from workbench.errors import InputError

_FINEST = 1e-4  # natural logarithm: 0.01 % of a probability
# Below exp(-1000) a probability is as good as none, and JSON has no infinity.
_LEAST = -1000.0
_POINTS = 60


class Spans:
    """The spans of one text, in three arrays: about 20 bytes a token."""

    def __init__(self) -> None:
        self._ends = array("L")  # code points
        self._counts = array("L")  # tokens up to and with this span
        self._marks = array("L")  # log-probabilities of all tokens, in -0.0001
        self._textless = 0  # tokens whose characters are still to come

    @property
    def tokens(self) -> int:
        """The number of tokens so far, with those whose characters are still to come."""
        return len(self._marks)

    def add(self, length: int, logprobs: Sequence[float]) -> None:
        """Add a text of `length` code points and the tokens that came with it.

        Raises:
            InputError: A log-probability is not a number, or above 0.
        """
        self._marks.extend([_mark(value) for value in logprobs])
        self._textless += len(logprobs)
        if not length:
            return
        end = length + (self._ends[-1] if self._ends else 0)
        if self._ends and not self._textless and not self._tokens_of(len(self._ends) - 1):
            self._ends[-1] = end
            return
        self._ends.append(end)
        self._counts.append(len(self._marks))
        self._textless = 0

    def written(self, offset: int) -> str:
        """Return the spans from `offset` code points on as text; "" if none has a token."""
        if not self._marks:
            return ""
        first = bisect_right(self._ends, offset)
        return " ".join(self._write(place, offset) for place in range(first, len(self._ends)))

    def _write(self, place: int, offset: int) -> str:
        begin = max(offset, self._ends[place - 1] if place else 0)
        tokens = self._tokens_of(place)
        length = str(self._ends[place] - begin)
        return f"{length}:{','.join(map(str, tokens))}" if tokens else length

    def _tokens_of(self, place: int) -> array[int]:
        return self._marks[self._counts[place - 1] if place else 0 : self._counts[place]]


class Pace:
    """The mean time between tokens in equal slices of a stream, 60 of them at most."""

    def __init__(self) -> None:
        self.points: list[float] = []  # ms, with one decimal
        self._slice = 1  # tokens
        self._begin: float | None = None
        self._tokens = 0

    def add(self, tokens: int, now: float) -> bool:
        """Note that `tokens` came at `now` (seconds); return whether `points` changed."""
        if self._begin is None:
            self._begin = now
            return False
        self._tokens += tokens
        if self._tokens < self._slice:
            return False
        self.points.append(round((now - self._begin) / self._tokens * 1000, 1))
        self._begin, self._tokens = now, 0
        if len(self.points) > _POINTS:
            self._halve()
        return True

    def _halve(self) -> None:
        """Merge neighbours, so that a stream of any length has a bounded number of points."""
        pairs = zip(self.points[::2], self.points[1::2], strict=False)
        self.points = [round((a + b) / 2, 1) for a, b in pairs]
        self._slice *= 2


def finite(logprob: float) -> float:
    """Return a log-probability that JSON can carry: from -1000 to 0.

    Raises:
        InputError: It is not a number, or above 0.
    """
    if math.isnan(logprob) or logprob > 0.01:  # rounding of a runtime may exceed 0 a little
        raise InputError(
            f"The token view got {logprob} as a log-probability, which is a natural logarithm and "
            "at most 0. Give those of the engine as they are."
        )
    return max(min(logprob, 0.0), _LEAST)


def _mark(logprob: float) -> int:
    return round(-finite(logprob) / _FINEST)
