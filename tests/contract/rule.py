"""The toy language model: the next token is a rule of the ids so far. Tests import it."""

from __future__ import annotations

from collections.abc import Sequence

FIRST = 3  # below are the special ids of most vocabularies
ENDS = 61  # one token in so many is the end


def mix(ids: Sequence[int], seed: int = 0) -> int:
    """Return a number below 2**32 that depends on the last three ids, how many, and the seed."""
    value = (len(ids) * 2654435761 + seed * 97531 + 12345) % 2**32
    for number in ids[-3:]:
        value = (value * 1103515245 + number + 1) % 2**32
        value ^= value >> 15
    return value


def next_token(ids: Sequence[int], vocabulary: int, seed: int = 0, end_id: int = 2) -> int:
    """Return the token after `ids`: `end_id` now and then, else one of FIRST to vocabulary - 1.

    `seed` is 0 for greedy choice.
    """
    value = mix(ids, seed)
    if value % ENDS == 0:
        return end_id
    token = FIRST + (value >> 3) % (vocabulary - FIRST)
    return token if token != end_id else FIRST + (token + 1 - FIRST) % (vocabulary - FIRST)


def logprob(ids: Sequence[int], seed: int = 0) -> float:
    """Return the log-probability of the token after `ids`: from -0.001 to -4."""
    return -(mix(ids, seed) % 4000 + 1) / 1000
