"""Sampling options in the words of transformers, and the probabilities of each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Probabilities:
    """Natural logarithms of the probabilities that the model gave at the last step.

    Of the logits themselves, before temperature, penalties and cuts.
    """

    def __init__(self) -> None:
        self._logprobs: Any = None

    def __call__(self, _ids: Any, scores: Any) -> Any:
        """Take note of the logits of a step, as the first of all processors."""
        self._logprobs = scores[0].float().log_softmax(-1)
        return scores

    def of(self, token: int) -> float:
        """Return that of one token."""
        return float(self._logprobs[token])

    def top(self, count: int, text_of: Callable[[int], str]) -> list[list[Any]]:
        """Return id, text and logarithm of the most probable tokens, the first one first."""
        values, ids = self._logprobs.topk(count)
        best = zip(ids.tolist(), values.tolist(), strict=True)
        return [[number, text_of(number), value] for number, value in best]


class Repetition:
    """Presence and frequency penalty, as OpenAI defines them: of what was generated alone."""

    def __init__(self, presence: float, frequency: float, prompt: int) -> None:
        self._presence, self._frequency, self._prompt = presence, frequency, prompt

    def __call__(self, ids: Any, scores: Any) -> Any:
        """Subtract from the logits of tokens that were generated before."""
        counts = ids[0, self._prompt :].bincount(minlength=scores.shape[-1]).to(scores.dtype)
        return scores - counts * self._frequency - (counts > 0) * self._presence


class Steps:
    """What transformers calls at each step; `probabilities` is None where nobody asked."""

    def __init__(self, chain: list[Any], probabilities: Probabilities | None) -> None:
        self.chain, self.probabilities = chain, probabilities


def processors(sampling: dict[str, Any], prompt: int) -> Steps:
    """Return what is done with the logits before temperature and cuts.

    Args:
        sampling: As `Sampling` dumps it.
        prompt: Number of its tokens, without those of the answer.
    """
    from transformers import RepetitionPenaltyLogitsProcessor

    asked = sampling["logprobs"] or sampling["top_logprobs"]
    seen = Probabilities() if asked else None
    chain: list[Any] = [seen] if seen else []
    if sampling["repetition_penalty"] != 1.0:
        chain.append(RepetitionPenaltyLogitsProcessor(sampling["repetition_penalty"]))
    penalties = sampling["presence_penalty"], sampling["frequency_penalty"]
    if any(penalties):
        chain.append(Repetition(*penalties, prompt))
    return Steps(chain, seen)


def generation_config(sampling: dict[str, Any], length: int) -> Any:
    """Return transformers' own options; ends of texts and penalties are not among them."""
    from transformers import GenerationConfig

    chosen: dict[str, Any] = {"do_sample": sampling["temperature"] > 0}
    if chosen["do_sample"]:
        chosen |= {
            "temperature": sampling["temperature"],
            "top_k": sampling["top_k"],
            "top_p": sampling["top_p"],
            "min_p": sampling["min_p"] or None,
        }
    return GenerationConfig(max_new_tokens=length, use_cache=True, **chosen)
