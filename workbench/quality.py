"""Quality beside speed: how near an engine's answers are to those of a reference engine.

Each prompt is answered greedily by both. `token_match` is the share of places at which both chose
the same token, and `exact` the share of answers that are the same to their end; after the first
difference two texts go their own ways, so the match falls with the length. `mean_kl` compares what
both think of the *same* texts, which the reference sampled at temperature 1: the mean over their
tokens of log p(reference) - log p(engine), in nats. Its expectation is the Kullback-Leibler
divergence; being an estimate, it may come out a little below 0 where both are the same. Perplexity
is exp of the mean negative log-probability of a text's tokens, in windows that the engine holds.

The last two need sessions that score texts, and the package `tokenizers` for the ids of a text.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from workbench.backends import get_backend
from workbench.errors import InputError, RequestError, SpecError
from workbench.flags import typed
from workbench.generation import Generation
from workbench.prompts import content, is_ids, read_prompts
from workbench.sampling import Sampling
from workbench.scores import Score
from workbench.spec import BuildSpec, Declared, parameter, parameters_of, unknown_names
from workbench.tokenizer import read_tokenizer

PROMPTS = (
    "Explain in two sentences why the sky is blue.",
    "Write a haiku about latency.",
    "What is the capital of France, and what river runs through it?",
    "Translate into German: The meeting starts at nine tomorrow.",
    "def fibonacci(n):",
    "List three differences between a process and a thread.",
    "A train leaves at 14:10 and arrives at 16:45. How long does it take?",
    "Summarize: The engine was rebuilt overnight, and the tests passed in the morning.",
)
"""What is asked where no file of prompts is given."""

SEED = 20
"""Of sampled answers: the same for all engines."""


class Quality(Declared):
    """What an engine's answers are compared with, and how."""

    reference: str | None = parameter(
        None,
        min_length=1,
        help="What changes from the spec make the reference engine, such as quantization=none or "
        "backend=transformers; several with commas.",
        group="Quality",
        none_means="the answers are not compared",
    )
    quality_prompts: str | None = parameter(
        None,
        min_length=1,
        help="A file of prompts that both answer, in the form of the workload's.",
        group="Quality",
        none_means="eight short ones that come with the workbench",
    )
    quality_len: int = parameter(
        32, ge=1, help="Tokens of each answer.", unit="tokens", group="Quality"
    )
    quality_text: str | None = parameter(
        None,
        min_length=1,
        help="A text file whose perplexity is measured.",
        group="Quality",
        none_means="no perplexity",
    )

    @property
    def wanted(self) -> bool:
        """Whether anything is asked for."""
        return self.reference is not None or self.quality_text is not None

    def contents(self) -> dict[str, str | None]:
        """Return the checksums of the files that are named.

        Raises:
            InputError: One is not there.
        """
        return {name: content(getattr(self, name)) for name in ("quality_prompts", "quality_text")}

    def reference_of(self, spec: BuildSpec) -> dict[str, Any]:
        """Return the values of the reference's spec; of another backend only the model is shared.

        Raises:
            SpecError: A change is none, or names what the backend does not know.
        """
        changes = dict(_change(word) for word in (self.reference or "").split(",") if word)
        name = changes.pop("backend", spec.backend)
        declared = parameters_of(get_backend(name).spec_class)
        if wrong := unknown_names(list(changes), declared):
            raise SpecError(f"reference: {wrong}")
        shared = spec.model_dump() if name == spec.backend else _model_of(spec)
        values = {key: typed(text, declared[key]) for key, text in changes.items()}
        return {**shared, **values, "backend": name}


def _change(word: str) -> tuple[str, str]:
    name, sign, value = word.partition("=")
    if not sign:
        raise SpecError(
            f"reference: a change is NAME=VALUE, such as quantization=none; got {word!r}."
        )
    return name.strip(), value.strip()


def _model_of(spec: BuildSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in parameters_of(BuildSpec)}


class Answering(Protocol):
    """What generates and scores: a `Session`."""

    limits: dict[str, Any]

    def generate(self, prompt: Any, sampling: Sampling | None = None) -> Generation:
        """Start a generation."""
        ...

    def score(self, ids: Sequence[int], *, top: int = 5, start: int = 1) -> list[Score]:
        """Return the probability of each token of a text."""
        ...


Encode = Callable[[str], list[int]]
"""Turns a text into the ids that an engine would read."""


def encoder(places: Iterable[Path]) -> Encode | None:
    """Return what encodes as the tokenizer.json in one of the places does; None without any.

    Also None where the package `tokenizers` is not installed: it is no part of the notebook side.
    """
    return next((found.ids for place in places if (found := read_tokenizer(place))), None)


def prompts_of(quality: Quality, encode: Encode | None) -> list[Any]:
    """Return what is asked; as ids where they can be had, so that all engines read the same.

    Raises:
        InputError: The file cannot be used.
    """
    path = quality.quality_prompts
    asked = [p for p, _ in read_prompts(Path(path))] if path else list(PROMPTS)
    return [encode(p) if encode and isinstance(p, str) else p for p in asked]


def answers(
    session: Answering, prompts: Sequence[Any], length: int, temperature: float = 0.0
) -> list[list[int]]:
    """Return the ids of the answers to prompts, greedy ones by default.

    Raises:
        RequestError: A prompt does not fit.
        SessionError: The worker died.
    """
    sampling = Sampling(max_tokens=length, temperature=temperature, seed=SEED)
    return [list(session.generate(prompt, sampling).wait().token_ids) for prompt in prompts]


def ask_reference(session: Answering, prompts: Sequence[Any], length: int) -> dict[str, Any]:
    """Return all that is needed of a reference, as plain values.

    "answers" are the greedy ones. "sampled" are texts with where the answer begins and what the
    reference thinks of its tokens; where there are none, None, and the reason as "lacks".

    Raises:
        RequestError: A prompt does not fit.
        SessionError: The worker died.
    """
    told: dict[str, Any] = {"answers": answers(session, prompts, length), "sampled": None}
    if not all(is_ids(prompt) for prompt in prompts):
        return {**told, "lacks": f"the prompts are no token ids: {LACKS}"}
    texts = zip(prompts, answers(session, prompts, length, temperature=1.0), strict=True)
    cut = [([*prompt, *answer], len(prompt)) for prompt, answer in texts if answer]
    try:
        told["sampled"] = [[ids, start, log_probs(session, ids, start)] for ids, start in cut]
    except RequestError as error:
        told["lacks"] = f"the reference gave no scores: {error}"
    return told


LACKS = (
    "that needs a backend whose sessions score texts (openvino, transformers), the model's "
    "tokenizer.json, and the package tokenizers (pip install tokenizers)."
)


def compare(
    session: Answering, reference: Mapping[str, Any], prompts: Sequence[Any], length: int
) -> dict[str, Any]:
    """Return how near an engine is to a reference, and the yardsticks as digests.

    `mean_kl` is None where one of both has no scores, or no token was sampled; "lacks" has the
    reason.

    Raises:
        RequestError: A prompt does not fit.
        SessionError: The worker died.
    """
    found = agreement(reference["answers"], answers(session, prompts, length))
    found |= {"answers_digest": digest([prompts, reference["answers"], length]), "lacks": []}
    try:
        kl = _mean_kl(session, reference)
    except RequestError as error:
        return {**found, "mean_kl": None, "lacks": [f"no mean KL: {error}"]}
    texts = [[ids, start] for ids, start, _ in reference["sampled"]]
    return {**found, "mean_kl": kl, "texts_digest": digest(texts)}


def _mean_kl(session: Answering, reference: Mapping[str, Any]) -> float:
    """Return the mean over the tokens that the reference sampled.

    Raises:
        RequestError: The reference or this engine has no scores; says why.
        SessionError: The worker died.
    """
    if reference["sampled"] is None:
        raise RequestError(reference.get("lacks") or LACKS)
    gaps = [
        theirs - ours
        for ids, start, known in reference["sampled"]
        for theirs, ours in zip(known, log_probs(session, ids, start), strict=True)
    ]
    if not gaps:
        raise RequestError("the reference answered with no token at all.")
    return statistics.fmean(gaps)


def digest(values: Any) -> str:
    """Return what tells plain values from others: sixteen digits of a hash."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def log_probs(session: Answering, ids: Sequence[int], start: int = 1) -> list[float]:
    """Return the natural logarithms of the probabilities of `ids[start:]`.

    Raises:
        RequestError: The backend has no scores, or the text does not fit.
        SessionError: The worker died.
    """
    return [score.token.logprob for score in session.score(ids, top=1, start=start)]


def perplexity(session: Answering, ids: Sequence[int]) -> float:
    """Return the perplexity of a text; the first token of each window is not counted.

    Raises:
        RequestError: The backend has no scores.
        SessionError: The worker died.
        InputError: The text has less than two tokens.
    """
    window = window_of(session)
    pieces = [ids[begin : begin + window] for begin in range(0, len(ids), window)]
    found = [value for piece in pieces if len(piece) > 1 for value in log_probs(session, piece)]
    if not found:
        raise InputError("The text has less than two tokens: it has no perplexity.")
    return math.exp(-statistics.fmean(found))


def window_of(session: Answering) -> int:
    """Return how many tokens of a text are scored together: perplexities of others differ."""
    return min(WINDOW, int(session.limits["max_seq_len"]))


WINDOW = 512
"""Most tokens of a text that are scored together."""


def agreement(
    reference: Sequence[Sequence[int]], engine: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Return how far the answers of an engine are those of the reference; see the module."""
    pairs = list(zip(reference, engine, strict=True))
    same = sum(sum(x == y for x, y in zip(a, b, strict=False)) for a, b in pairs)
    # One that ends before the other differs in all that follows.
    places = sum(max(len(a), len(b)) for a, b in pairs)
    return {
        "prompts": len(pairs),
        "token_match": same / places if places else 1.0,
        "exact": statistics.fmean(list(a) == list(b) for a, b in pairs),
        "first_difference": statistics.fmean(_first_difference(a, b) for a, b in pairs),
    }


def _first_difference(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many tokens two answers share from their beginning."""
    places = (place for place, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
    return next(places, min(len(a), len(b)))
