"""Where answers to the same prompt part, and how often they agree. Pure functions.

Greedy answers of two engines agree up to the first token at which their most probable tokens
differ; from there on each continues another text, and comparing place by place means nothing.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from workbench.generation import Alternative, Delta

LONGEST = 4000
"""Pieces that are aligned; the time for it grows with their square."""


@dataclass(frozen=True)
class Token:
    """A token of an answer.

    Attributes:
        id: Its number in the vocabulary, or None where nobody tells.
        text: What it added; empty while a character is unfinished.
        probability: Between 0 and 1, or None where nobody tells.
        others: The probabilities of the most probable tokens at its place, by id.
    """

    id: int | None
    text: str
    probability: float | None = None
    others: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class Answer:
    """One answer: its text, and its tokens where they are known."""

    text: str
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True)
class Parting:
    """The first place at which two answers differ.

    Attributes:
        by: Whether tokens or characters were compared.
        at: How many of them are the same before it.
        text_at: How many characters are the same before it.
        first: The token of the first answer there; None where it has ended.
        second: The token of the second answer.
        first_of_second: The probability that the first engine gave to the second's token.
        second_of_first: The probability that the second engine gave to the first's token.
    """

    by: Literal["token", "text"]
    at: int
    text_at: int
    first: Token | None
    second: Token | None
    first_of_second: float | None = None
    second_of_first: float | None = None


def answer_of(text: str, deltas: Sequence[Delta]) -> Answer:
    """Return an answer from what was streamed."""
    tokens: list[Token] = []
    for delta in deltas:
        for place, number in enumerate(delta.token_ids):
            last = place == len(delta.token_ids) - 1
            tokens.append(
                Token(
                    number,
                    # What came in one piece is counted to its last token.
                    delta.text if last else "",
                    _probability(delta.logprobs, place),
                    _others(delta.alternatives, place),
                )
            )
    return Answer(text, tuple(tokens))


def _probability(logprobs: Sequence[float], place: int) -> float | None:
    return math.exp(logprobs[place]) if place < len(logprobs) else None


def _others(
    alternatives: Sequence[Sequence[Alternative]], place: int
) -> tuple[tuple[int, float], ...]:
    given = alternatives[place] if place < len(alternatives) else ()
    return tuple((one.id, math.exp(one.logprob)) for one in given if one.id is not None)


def common_prefix(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Return how many items both begin with."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(first), len(second)))


def part(first: Answer, second: Answer, *, same_vocabulary: bool) -> Parting | None:
    """Return where two answers part, or None where they are the same.

    Args:
        first: An answer.
        second: Another one.
        same_vocabulary: Whether equal ids mean equal texts; else texts are compared.
    """
    text_at = common_prefix(first.text, second.text)
    if not (same_vocabulary and _has_ids(first) and _has_ids(second)):
        if first.text == second.text:
            return None
        return Parting(
            "text", text_at, text_at, _token_at(first, text_at), _token_at(second, text_at)
        )
    ids = [[token.id for token in answer.tokens] for answer in (first, second)]
    at = common_prefix(*ids)
    if at == len(ids[0]) == len(ids[1]):
        return None
    one, other = (a.tokens[at] if at < len(a.tokens) else None for a in (first, second))
    return Parting("token", at, text_at, one, other, _gives(one, other), _gives(other, one))


def _has_ids(answer: Answer) -> bool:
    return bool(answer.tokens) and all(token.id is not None for token in answer.tokens)


def _token_at(answer: Answer, offset: int) -> Token | None:
    """Return the token that holds a character of the text, or None where it is not known."""
    end = 0
    for token in answer.tokens:
        end += len(token.text)
        if end > offset:
            return token
    return None


def _gives(at: Token | None, other: Token | None) -> float | None:
    """Return the probability of the other's token where this one was chosen, if it was told."""
    if at is None or other is None or other.id is None:
        return None
    return dict(at.others).get(other.id)


@dataclass(frozen=True)
class Agreement:
    """How far two engines agree over a set of prompts.

    Attributes:
        prompts: Number of prompts.
        same: How many of them have the same answer from both.
        shared: Mean share of an answer before the first difference, from 0 to 1.
    """

    prompts: int
    same: int
    shared: float

    @property
    def rate(self) -> float:
        """Share of the prompts with the same answer, from 0 to 1."""
        return self.same / self.prompts

    def __str__(self) -> str:
        return (
            f"{self.same} of {self.prompts} answers are the same ({self.rate:.0%}); "
            f"{self.shared:.0%} of an answer comes before the first difference"
        )


def agreement(pairs: Sequence[tuple[Answer, Answer]], *, same_vocabulary: bool) -> Agreement:
    """Return how far pairs of answers agree.

    Raises:
        ValueError: There is no pair.
    """
    if not pairs:
        raise ValueError("agreement of no answers")
    partings = [part(a, b, same_vocabulary=same_vocabulary) for a, b in pairs]
    shares = [
        1.0 if parting is None else parting.at / _length(a, b, parting.by)
        for (a, b), parting in zip(pairs, partings, strict=True)
    ]
    return Agreement(len(pairs), partings.count(None), sum(shares) / len(shares))


def _length(first: Answer, second: Answer, by: str) -> int:
    """Return the length of the longer answer, which is not 0 where they differ."""
    if by == "token":
        return max(len(first.tokens), len(second.tokens))
    return max(len(first.text), len(second.text))


Piece = tuple[bool, str, str]
"""Whether both sides are the same, and the text of each."""

_WORDS = re.compile(r"\s*\S+|\s+$")


def aligned(first: str, second: str) -> list[Piece]:
    """Return two texts side by side, word by word: the left sides together are the first text.

    What is the same in both stands in one piece; beyond `LONGEST` words, only the beginning is
    compared.
    """
    if max(len(first), len(second)) > 40 * LONGEST:
        return _beginning(first, second)
    left, right = _WORDS.findall(first), _WORDS.findall(second)
    if max(len(left), len(right)) > LONGEST:
        return _beginning(first, second)
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    return [
        (kind == "equal", "".join(left[a:b]), "".join(right[c:d]))
        for kind, a, b, c, d in matcher.get_opcodes()
    ]


def _beginning(first: str, second: str) -> list[Piece]:
    at = common_prefix(first, second)
    pieces = [(True, first[:at], second[:at]), (False, first[at:], second[at:])]
    return [piece for piece in pieces if piece[1] or piece[2]]
