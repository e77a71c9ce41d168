"""Scores from logits: of each token of a text, and of the most probable ones at its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .channel import Refusal
from .prompts import check_ids

PIECE = 64
"""Tokens in one forward pass: logits of all positions of a long text would take gigabytes."""


def check(message: dict[str, Any], vocabulary: int, limit: int) -> None:
    """Refuse what cannot be scored.

    Raises:
        Refusal: Says what is wrong.
    """
    ids = message["ids"]
    check_ids(ids, vocabulary)
    if not 1 <= message["start"] < len(ids):
        raise Refusal(
            f"A text of {len(ids)} tokens has scores from its token 1 on (the first one has "
            f"nothing before it); token {message['start']} was asked for."
        )
    if len(ids) > limit:
        raise Refusal(
            f"The text has {len(ids)} tokens; this engine holds {limit} (max_seq_len). Score a "
            "shorter one."
        )


def positions(
    logits: Callable[[list[int], int], Any], ids: list[int], start: int, top: int, tokenizer: Any
) -> list[Any]:
    """Return for each of `ids[start:]` the token and its alternatives, as id, text, logarithm.

    Args:
        logits: Gives a numpy array for the piece of the ids that begins at a place, in order.
        ids: The whole text.
        start: The first token that is scored, at least 1.
        top: Number of alternatives.
        tokenizer: A `tokenizers.Tokenizer`.
    """
    import numpy as np

    def entry(number: int, value: float) -> list[Any]:
        text = tokenizer.decode([number], skip_special_tokens=False)
        return [number, text, float(value)]

    found = []
    for begin in range(0, len(ids) - 1, PIECE):
        values = logits(ids[: len(ids) - 1], begin).astype(np.float64)
        values -= values.max(axis=-1, keepdims=True)
        values -= np.log(np.exp(values).sum(axis=-1, keepdims=True))
        for offset, row in enumerate(values):
            place = begin + offset + 1
            if place >= start:
                best = np.argsort(-row, kind="stable")[:top]
                others = [entry(int(number), row[number]) for number in best]
                found.append([entry(ids[place], row[ids[place]]), others])
    return found
