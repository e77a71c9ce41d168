"""Sampling: how the next token is chosen, declared once for forms, flags and requests."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any, Self

from pydantic import field_validator, model_validator

from workbench.errors import RequestError
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
    top_logprobs: int = parameter(
        0,
        ge=0,
        le=10,
        help="Also give this many of the most probable tokens at each step, with their "
        "log-probabilities.",
    )
    json_schema: str | None = parameter(
        None,
        help="A JSON schema, as JSON text, which the output has to follow.",
        none_means="free text",
    )
    regex: str | None = parameter(
        None,
        help="A regular expression, which the whole output has to match.",
        none_means="free text",
    )

    @field_validator("json_schema", mode="before")
    @classmethod
    def _schema_text(cls, value: Any) -> Any:
        """Take a schema as text, or as a dictionary.

        Raises:
            ValueError: The text is no JSON object.
        """
        if isinstance(value, Mapping):
            return json.dumps(value)
        if isinstance(value, str):
            try:
                schema = json.loads(value)
            except ValueError as error:
                raise ValueError(f"the schema is no JSON ({error}).") from None
            if not isinstance(schema, dict):
                raise ValueError(  # noqa: TRY004 - pydantic takes no other
                    'a schema is a JSON object, such as {"type": "object"}.'
                )
        return value

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        """Refuse two forms for one output.

        Raises:
            ValueError: Both are given.
        """
        if self.json_schema is not None and self.regex is not None:
            raise ValueError("give json_schema or regex, not both.")
        return self

    def refuse(self, lacks: Mapping[str, str]) -> None:
        """Refuse options that are asked for and cannot be had.

        Args:
            lacks: Names of fields, each with the reason as a sentence.

        Raises:
            RequestError: Names the first one.
        """
        for name, reason in lacks.items():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise RequestError(f"{name}: {reason}")

    def with_seed(self) -> Sampling:
        """Return these options with a seed that is known, so that the text can be made again."""
        if self.seed is not None:
            return self
        return self.model_copy(update={"seed": secrets.randbelow(2**31)})
