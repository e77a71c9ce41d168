"""Sampling: how the next token is chosen, declared once for forms, flags and requests."""

from __future__ import annotations

import secrets
from typing import Any

from pydantic import field_validator

from workbench.spec import Declared, parameter


class Sampling(Declared):
    """Options of one generation; names as in TensorRT-LLM's SamplingParams."""

    max_tokens: int | None = parameter(
        None,
        ge=1,
        help="Most tokens to generate.",
        unit="tokens",
        none_means="as many as the engine allows",
    )
    temperature: float = parameter(
        0.0,
        ge=0.0,
        le=5.0,
        help="0 takes the most probable token each time; higher is more varied.",
    )
    top_k: int = parameter(0, ge=0, help="Choose among this many most probable tokens; 0 is all.")
    top_p: float = parameter(
        1.0, gt=0.0, le=1.0, help="Choose among the most probable tokens up to this probability."
    )
    min_p: float = parameter(
        0.0,
        ge=0.0,
        lt=1.0,
        help="Leave out tokens less probable than this share of the most probable one.",
    )
    repetition_penalty: float = parameter(
        1.0, gt=0.0, le=10.0, help="Above 1 makes tokens that were seen before less probable."
    )
    presence_penalty: float = parameter(
        0.0, ge=-2.0, le=2.0, help="Subtracted once for a token that was generated before."
    )
    frequency_penalty: float = parameter(
        0.0, ge=-2.0, le=2.0, help="Subtracted each time a token was generated before."
    )
    seed: int | None = parameter(
        None,
        ge=0,
        le=2**31 - 1,
        help="The same seed gives the same text.",
        none_means="a new one each time, kept in the record",
    )
    stop: tuple[str, ...] = ()
    ignore_eos: bool = parameter(
        default=False, help="Go on after the model has said that it is finished."
    )

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        """Take a single stop string or a list of them."""
        if isinstance(value, str):
            return (value,)
        return tuple(value) if isinstance(value, list) else value

    logprobs: bool = parameter(
        default=False,
        help="Also give the natural logarithm of each token's probability.",
    )

    def with_seed(self) -> Sampling:
        """Return these options with a seed that is known, so that the text can be made again."""
        if self.seed is not None:
            return self
        return self.model_copy(update={"seed": secrets.randbelow(2**31)})
