"""How tokens are chosen."""

from __future__ import annotations

import dataclasses
import json
import os
from typing import Any

from ._settings import fields


@dataclasses.dataclass
class _Guide:
    """The form of an output."""

    def validate(self) -> None:
        """Refuse several at once, as the library does."""
        given = sum(bool(value) for value in vars(self).values())
        if given > 1:
            raise ValueError(f"Only one guide can be used for a request, but got {given}.")

    def text(self) -> str:
        """Return the one text that is played: a regex without operators, a schema's constant."""
        mine: Any = self
        if mine.regex is not None:
            return str(mine.regex)
        schema = json.loads(mine.json) if isinstance(mine.json, str) else mine.json
        if not isinstance(schema, dict) or "const" not in schema:
            raise NotImplementedError("(stand-in) A guide is a literal regex or a schema's const.")
        return json.dumps(schema["const"])


GuidedDecodingParams: Any = dataclasses.make_dataclass(
    "GuidedDecodingParams",
    [
        (name, Any, dataclasses.field(default=value))
        for name, value in fields.GUIDED_DECODING_PARAMS.items()
    ],
    bases=(_Guide,),
    kw_only=True,
)
GuidedDecodingParams.__module__ = __name__  # so that it can be pickled


@dataclasses.dataclass
class _Sampling:
    """What the fields mean, and what the library refuses."""

    def __post_init__(self) -> None:
        mine: Any = self
        if mine.pad_id is None:
            mine.pad_id = mine.end_id
        mine.best_of = mine.best_of or mine.n
        mine.stop_words = []
        if mine.top_p is not None and not 0 <= mine.top_p <= 1:
            raise ValueError(f"require 0 <= top_p <= 1, got top_p={mine.top_p}")
        if mine.top_k is not None and mine.top_k < 0:
            raise ValueError(f"require top_k >= 0, got top_k={mine.top_k}")
        if mine.temperature is not None and mine.temperature < 0:
            raise ValueError(f"require temperature >= 0, got temperature={mine.temperature}")
        if mine.best_of < mine.n:
            raise ValueError(f"best_of ({mine.best_of}) cannot be less than n ({mine.n})")
        allowed = os.environ.get("TLLM_ALLOW_N_GREEDY_DECODING")
        if mine.best_of > 1 and self.greedy and not allowed:
            raise ValueError(
                "Greedy decoding in the LLM API does not allow multiple returns. Please set to "
                f"best_of=1, got best_of={mine.best_of}. Please set to best_of=1 or set an "
                "environment variable TLLM_ALLOW_N_GREEDY_DECODING=1 to allow best_of > 1 under "
                "the greedy decoding."
            )
        if mine.guided_decoding is not None:
            mine.guided_decoding.validate()
        if isinstance(mine.logprobs, bool):
            mine.logprobs = 0 if mine.logprobs else None

    @property
    def greedy(self) -> bool:
        """Whether nothing is left to chance."""
        mine: Any = self
        given = (mine.temperature, mine.top_p, mine.top_k)
        sure = given == (None, None, None) or mine.top_k == 1 or 0 in given[:2]
        return sure and not mine.use_beam_search

    def setup(self, tokenizer: Any, ends: list[int]) -> None:
        """Fill in what only the model's files know."""
        mine: Any = self
        mine.end_id = tokenizer.eos_token_id
        mine.pad_id = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else mine.end_id
        stops = [mine.stop] if isinstance(mine.stop, str) else mine.stop or []
        mine.stop_words = [tokenizer.encode(text, add_special_tokens=False) for text in stops]
        for end in ends:
            if end != mine.end_id and end not in (mine.stop_token_ids or []):
                mine.stop_token_ids = [*(mine.stop_token_ids or []), end]

    def stops(self) -> list[tuple[int | str, list[int]]]:
        """Return each reason to stop with its tokens."""
        mine: Any = self
        texts = [mine.stop] if isinstance(mine.stop, str) else mine.stop or []
        return [
            *((number, [number]) for number in mine.stop_token_ids or []),
            *zip(texts, mine.stop_words),  # noqa: B905 - empty before setup
        ]


SamplingParams: Any = dataclasses.make_dataclass(
    "SamplingParams",
    [
        (name, Any, dataclasses.field(default=value))
        for name, value in fields.SAMPLING_PARAMS.items()
    ],
    bases=(_Sampling,),
    kw_only=True,
)
SamplingParams.__module__ = __name__  # so that it can be pickled
