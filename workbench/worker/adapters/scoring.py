"""Scores from logits: of each token of a text, and of the most probable ones at its place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .channel import Refusal
from .prompts import check_ids
from .text import TextStream

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
    if not 0 <= message["begin"] <= message["start"]:
        raise Refusal(
            f"The text that is told begins at token {message['begin']}; it must begin at or before "
            f"token {message['start']}, the first that is scored."
        )
    if len(ids) > limit:
        raise Refusal(
            f"The text has {len(ids)} tokens; this engine holds {limit} (max_seq_len). Score a "
            "shorter one."
        )


def positions(
    logits: Callable[[list[int], int], Any], message: dict[str, Any], tokenizer: Any
) -> list[Any]:
    """Return for each of the ids from "start" on the token and its alternatives.

    Each is its id, its text and the logarithm of its probability. The text of a token is what it
    adds to the text before it; that of an alternative is what it would add, or its name where it
    is a special token, which adds nothing.

    Args:
        logits: Gives a numpy array for the piece of the ids that begins at a place, in order.
        message: "ids": the whole text; "start": the first token that is scored, at least 1;
            "top": number of alternatives; "begin": where the text begins that is told, at most
            "start"; a prompt before it has no part in it.
        tokenizer: A `tokenizers.Tokenizer`.
    """
    import numpy as np

    ids, start, top = (message[name] for name in ("ids", "start", "top"))
    text = TextStream(tokenizer, said=ids[message["begin"] : start])

    found = []
    for begin in range(0, len(ids) - 1, PIECE):
        values = logits(ids[: len(ids) - 1], begin).astype(np.float64)
        values -= values.max(axis=-1, keepdims=True)
        values -= np.log(np.exp(values).sum(axis=-1, keepdims=True))
        for offset, row in enumerate(values):
            place = begin + offset + 1
            if place >= start:
                best = np.argsort(-row, kind="stable")[:top].tolist() if top else []
                others = [[n, text.name_of(n), float(row[n])] for n in best]
                token = ids[place]
                found.append([[token, text.push([token]), float(row[token])], others])
    return found
