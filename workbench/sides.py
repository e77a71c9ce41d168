"""The same prompts on two or more open sources: their answers, speeds, memory and agreement."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from workbench.divergence import Agreement, Answer, Parting, Token, agreement, answer_of, part
from workbench.errors import InputError, RequestError
from workbench.generation import Delta, Generation
from workbench.opened import Opened, Prompt
from workbench.sampling import Sampling
from workbench.session import Session
from workbench.sources import Source, same_vocabulary, source_label
from workbench.steering import Trail, alternatives_at

MOST = 6
"""Sources that can be compared: more do not fit beside each other."""

ALTERNATIVES = 5
"""Most probable tokens that are asked for at each place, where a backend tells them."""


@dataclass(frozen=True)
class Side:
    """One source, its open session, and its answer to one prompt after the other."""

    source: Source
    session: Opened
    answers: list[Answer]
    records: list[dict[str, Any]]
    prompts: list[list[int]] = field(default_factory=list)

    def ask(
        self,
        prompt: str,
        sampling: Sampling,
        show: Callable[[Generation], Sequence[Delta]] = list,
    ) -> None:
        """Generate one answer, and keep it.

        Args:
            prompt: A text; a chat message where the source has a chat template.
            sampling: Options, with a seed that is the same for all sides.
            show: Iterates over the generation to its end, and returns its deltas.

        Raises:
            WorkbenchError: It failed.
        """
        asked = self._with_probabilities(sampling)
        generation = self.session.generate(self.given(prompt), asked)
        deltas = show(generation)
        generation.wait()
        self.prompts.append(generation.prompt_ids)
        self.answers.append(answer_of(generation.text, deltas))
        self.records.append(generation.record())

    def given(self, prompt: str) -> Prompt:
        """Return what the session is given for a prompt: a message, where it takes messages."""
        chat = self.session.facts["chat_template"]
        return [{"role": "user", "content": prompt}] if chat else prompt

    def _with_probabilities(self, sampling: Sampling) -> Sampling:
        """Ask for what probabilities the source can tell."""
        if not isinstance(self.session, Session):
            return sampling  # some servers refuse the whole request for them
        lacks = self.session.lacks
        logprobs = sampling.logprobs or "logprobs" not in lacks
        top = sampling.top_logprobs if "top_logprobs" in lacks else ALTERNATIVES
        return sampling.replace(logprobs=logprobs, top_logprobs=top)

    def record(self) -> dict[str, Any]:
        """Return speed and memory as plain values."""
        speeds = [r["tokens_per_second"] for r in self.records if r["tokens_per_second"]]
        ttft = [r["ttft"] for r in self.records if r["ttft"] is not None]
        return {
            "source": source_label(self.source),
            "tokens_per_second": sum(speeds) / len(speeds) if speeds else None,
            "ttft": sum(ttft) / len(ttft) if ttft else None,
            "memory_bytes": self.session.memory(),
            "texts": [answer.text for answer in self.answers],
        }


def check_sources(sources: Sequence[Any]) -> None:
    """Refuse what cannot be compared.

    Raises:
        InputError: There are too few or too many sources.
    """
    if not 2 <= len(sources) <= MOST:
        raise InputError(f"Compare between 2 and {MOST} sources; got {len(sources)}.")


def lacks(sides: Sequence[Side]) -> dict[str, str]:
    """Return the options that not all sides can do: for each, which of them cannot, and why."""
    reasons: dict[str, dict[str, None]] = {}
    for side in sides:
        for name, why in side.session.lacks.items():
            # A dict, for a source may be compared with itself.
            reasons.setdefault(name, {})[f"{source_label(side.source)}: {why}"] = None
    return {name: " ".join(said) for name, said in reasons.items()}


def agreements(sides: Sequence[Side]) -> list[Agreement | None]:
    """Return how far each side after the first agrees with the first; None without answers."""
    first = sides[0]
    found: list[Agreement | None] = []
    for side in sides[1:]:
        pairs = list(zip(first.answers, side.answers, strict=False))
        same = same_vocabulary(first.source, side.source)
        found.append(agreement(pairs, same_vocabulary=same) if pairs else None)
    return found


def partings(first: Side, second: Side) -> list[Parting | None]:
    """Return where the answers to each prompt part, with all probabilities that can be had.

    Of the prompts that both have answered; None where the answers are the same.

    Raises:
        SessionError: A worker died.
    """
    both = min(len(first.answers), len(second.answers))
    return [_parting(first, second, number) for number in range(both)]


def _parting(first: Side, second: Side, number: int) -> Parting | None:
    same = same_vocabulary(first.source, second.source)
    found = part(first.answers[number], second.answers[number], same_vocabulary=same)
    if found is None or found.by == "text":
        return found
    if found.first_of_second is None:
        share = _share(first, number, found.at, found.second)
        found = replace(found, first_of_second=share)
    if found.second_of_first is None:
        share = _share(second, number, found.at, found.first)
        found = replace(found, second_of_first=share)
    return found


def _share(side: Side, number: int, at: int, token: Token | None) -> float | None:
    """Return the probability that a side gives to the other's token; None where it is not told.

    It is told of the most probable ones.
    """
    trail = Trail(tuple(side.prompts[number]), side.answers[number].tokens)
    if token is None or at >= len(trail.tokens):
        return None
    try:
        found = alternatives_at(side.session, trail, at)
    except RequestError:
        return None
    return next((math.exp(one.logprob) for one in found if one.id == token.id), None)


def comparison_record(
    sides: Sequence[Side], prompts: Sequence[str], found: Sequence[Sequence[Parting | None]]
) -> dict[str, Any]:
    """Return everything about a comparison as plain values.

    Args:
        sides: The first one is what the others are compared with.
        prompts: What all were asked.
        found: The `partings` of each side after the first.
    """
    return {
        "prompts": list(prompts),
        "sides": [side.record() for side in sides],
        "agreement": [
            None if one is None else {"rate": one.rate, "shared": one.shared}
            for one in agreements(sides)
        ],
        "partings": [[None if one is None else _plain(one) for one in side] for side in found],
    }


def _plain(parting: Parting) -> dict[str, Any]:
    values = asdict(parting)
    for name in ("first", "second"):
        if values[name]:
            del values[name]["others"]
    return values
