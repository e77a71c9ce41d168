"""Steering an answer: what could have come at a place, and going on from there with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from workbench.divergence import Token
from workbench.errors import RequestError
from workbench.generation import Alternative
from workbench.opened import Opened
from workbench.session import Session

CHOICES = 8
"""Most probable tokens that are told for a place."""


@dataclass(frozen=True)
class Trail:
    """The tokens of a prompt and of the answer that is shown, with those that a person chose."""

    prompt_ids: tuple[int, ...]
    tokens: tuple[Token, ...] = ()

    @property
    def ids(self) -> list[int]:
        """All tokens, as a prompt to go on from.

        Raises:
            RequestError: A token has no known number.
        """
        return [*self.prompt_ids, *self.said]

    @property
    def said(self) -> list[int]:
        """The answer's tokens.

        Raises:
            RequestError: A token has no known number.
        """
        numbers = [token.id for token in self.tokens]
        if not self.prompt_ids or None in numbers:
            raise RequestError(
                "Whoever generated this does not tell its tokens' numbers, so nothing can go on "
                "from one of them. Engines of the store do."
            )
        return [number for number in numbers if number is not None]

    @property
    def text(self) -> str:
        """The text of the answer's tokens."""
        return "".join(token.text for token in self.tokens)

    @property
    def logprobs(self) -> list[float]:
        """Natural logarithms of the answer's probabilities; empty unless all are known."""
        known = [token.probability for token in self.tokens]
        return [math.log(max(p, 1e-30)) for p in known if p is not None and None not in known]

    def instead(self, index: int, token: Alternative) -> Trail:
        """Return what stands before the answer's token `index`, with another one in its place.

        The texts are to be told anew (`told`): what a token adds depends on those before it.
        """
        chosen = Token(token.id, token.text, math.exp(token.logprob))
        return Trail(self.prompt_ids, (*self.tokens[:index], chosen))


def alternatives_at(session: Opened, trail: Trail, index: int) -> Sequence[Alternative]:
    """Return the most probable tokens at the place of the answer's token `index`, best first.

    Raises:
        RequestError: The source cannot tell.
        SessionError: The session is closed or its worker died.
    """
    if not isinstance(session, Session):
        raise RequestError("A server does not tell what else could have come at a place.")
    before = Trail(trail.prompt_ids, trail.tokens[: index + 1]).ids
    (score,) = session.score(
        before, top=CHOICES, start=len(before) - 1, begin=len(trail.prompt_ids)
    )
    return score.alternatives


def told(session: Opened, trail: Trail) -> Trail:
    """Return the same tokens, each with the text that the tokenizer gives it in this answer.

    Raises:
        RequestError: The source cannot tell.
        SessionError: The session is closed or its worker died.
    """
    if not isinstance(session, Session):
        raise RequestError("A server does not tell the texts of single tokens.")
    answer = len(trail.prompt_ids)
    scores = session.score(trail.ids, top=0, start=answer, begin=answer)
    texts = zip(trail.tokens, scores, strict=True)
    return replace(trail, tokens=tuple(replace(one, text=s.token.text) for one, s in texts))
