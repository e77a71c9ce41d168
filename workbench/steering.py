"""Steering an answer: what could have come at a place, and going on from there with it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from workbench.divergence import Token
from workbench.errors import RequestError
from workbench.generation import Alternative, Generation
from workbench.opened import Opened
from workbench.sampling import Sampling
from workbench.session import Session

CHOICES = 8
"""Most probable tokens that are told for a place."""

WHOLE = 4096
"""Tokens of the longest answer that is scored as a whole: all of it travels in one message."""


@dataclass(frozen=True)
class Trail:
    """The tokens of a prompt and of the answer that is shown, with those that a person chose.

    The first `begun` tokens of the answer stood there already when the engine went on.
    """

    prompt_ids: tuple[int, ...]
    tokens: tuple[Token, ...] = ()
    begun: int = 0

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
        return Trail(self.prompt_ids, (*self.tokens[:index], chosen), index + 1)


@dataclass(frozen=True)
class Offer:
    """What can be had of the tokens of an answer."""

    alternatives: bool
    going_on: bool

    @classmethod
    def of(cls, session: Opened, sampling: Sampling) -> Offer:
        """Return what a source can do with an answer that was asked for with these options."""
        sends = sampling.top_logprobs > 0
        if not isinstance(session, Session):
            return cls(alternatives=sends, going_on=False)
        able = session.scores or sends
        return cls(alternatives=able, going_on=able)


def tells(session: Opened, sampling: Sampling) -> Sampling:
    """Return the options with what has to be asked for beside them to steer the answer.

    Of a server nothing: some refuse the whole request for it.
    """
    if not isinstance(session, Session):
        return sampling
    more: dict[str, object] = {}
    if "logprobs" not in session.lacks:
        more["logprobs"] = True
    if not session.scores and not {"logprobs", "top_logprobs"} & set(session.lacks):
        more["top_logprobs"] = max(CHOICES, sampling.top_logprobs)
    return sampling.replace(**more)


class Looks:
    """What could have come at each place of the answer that is shown.

    Scoring is a forward pass, which all that generate wait for; so an answer that has ended is
    scored once, and each look at it is told from that.
    """

    def __init__(self) -> None:
        self._scored: Generation | None = None
        self._places: list[Sequence[Alternative]] = []

    def at(
        self, session: Opened, generation: Generation, trail: Trail, index: int, *, whole: bool
    ) -> Sequence[Alternative]:
        """Return the most probable tokens at the place of the answer's token `index`, best first.

        Args:
            session: Where it came from.
            generation: What gave the end of the answer, behind what a person chose.
            trail: All of the answer that has come.
            index: Of the token, from 0.
            whole: Whether nothing more comes.

        Raises:
            RequestError: The source cannot tell.
            SessionError: The session is closed or its worker died.
        """
        place = index - trail.begun
        if 0 <= place < len(generation.alternatives) and generation.alternatives[place]:
            return generation.alternatives[place]
        short = len(trail.tokens) <= WHOLE
        if not (isinstance(session, Session) and session.scores and whole and short):
            return alternatives_at(session, trail, index)
        if self._scored is not generation:
            self._places = alternatives_of(session, trail)
            self._scored = generation
        return self._places[index]


def alternatives_of(session: Session, trail: Trail) -> list[Sequence[Alternative]]:
    """Return the most probable tokens at each place of an answer, in one forward pass.

    Raises:
        RequestError: The source cannot tell.
        SessionError: The session is closed or its worker died.
    """
    answer = len(trail.prompt_ids)
    scores = session.score(trail.ids, top=CHOICES, start=answer, begin=answer)
    return [score.alternatives for score in scores]


def alternatives_at(session: Opened, trail: Trail, index: int) -> Sequence[Alternative]:
    """Return the most probable tokens at the place of the answer's token `index`, best first.

    Raises:
        RequestError: The source cannot tell.
        SessionError: The session is closed or its worker died.
    """
    if not isinstance(session, Session):
        raise RequestError(
            "This server sent no alternatives for this token. Ask for them (top_logprobs) with the "
            "prompt; not every server has them."
        )
    if not session.scores:
        raise RequestError(
            "This engine tells what else could have come while it generates alone, and this token "
            "was there before."
        )
    before = Trail(trail.prompt_ids, trail.tokens[: index + 1]).ids
    (score,) = session.score(
        before, top=CHOICES, start=len(before) - 1, begin=len(trail.prompt_ids)
    )
    return score.alternatives


def told(session: Opened, trail: Trail) -> Trail:
    """Return the same tokens, each with the text that the tokenizer gives it in this answer.

    Of a backend that cannot score, as they were told: there an unfinished character of the token
    that a person chose is shown as U+FFFD.

    Raises:
        RequestError: The source cannot tell.
        SessionError: The session is closed or its worker died.
    """
    if not isinstance(session, Session):
        raise RequestError("A server does not tell the texts of single tokens.")
    if not session.scores:
        return trail
    answer = len(trail.prompt_ids)
    scores = session.score(trail.ids, top=0, start=answer, begin=answer)
    texts = zip(trail.tokens, scores, strict=True)
    return replace(trail, tokens=tuple(replace(one, text=s.token.text) for one, s in texts))
