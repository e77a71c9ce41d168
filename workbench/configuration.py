"""Configurations: config.json read key by key, for who derives a network from it alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Configuration:
    """The configuration of a decoder.

    Attributes:
        source: The model's name for messages.
        values: What config.json, or its part on the language model, holds.
    """

    source: str
    values: Mapping[str, Any]

    def number(self, *keys: str, default: int | None = None) -> int:
        """Return the whole number that is kept under one of some keys.

        Args:
            keys: Names of the same thing, the usual one first.
            default: What the family's class in transformers takes where no key is given; None
                where there is nothing that could be taken.

        Raises:
            ModelError: It is not a positive whole number, or is missing and has no default.
        """
        for key in keys:
            value = self.values.get(key)
            if value is None:
                continue
            if type(value) is not int or value < 1:
                raise ModelError(
                    f"config.json of {self.source} gives {value!r} for {key}; a positive whole "
                    "number is expected."
                )
            return value
        if default is None:
            raise ModelError(
                f"config.json of {self.source} has no {keys[0]}, and without weights nothing else "
                "tells it. Take the model's own config.json, or a copy with weights."
            )
        return default

    def flag(self, key: str, *, default: bool) -> bool:
        """Return whether something is on.

        Args:
            key: Its name.
            default: What the family's class in transformers takes where the key is not given.

        Raises:
            ModelError: It is neither true nor false.
        """
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise ModelError(
                f"config.json of {self.source} gives {value!r} for {key}; true or false is "
                "expected."
            )
        return value

    def refuse(self, key: str) -> None:
        """Refuse what is switched on and changes tensors in a way that is not described here.

        Raises:
            ModelError: It is on.
        """
        if self.values.get(key):
            raise ModelError(
                f"config.json of {self.source} sets {key} to {self.values[key]!r}, and which "
                "tensors that brings is not known here. Take a copy of the model with weights."
            )

    def numbers(self, key: str) -> frozenset[int]:
        """Return the whole numbers in a list; none where there is no list."""
        value = self.values.get(key)
        listed = value if isinstance(value, list) else []
        return frozenset(number for number in listed if type(number) is int)

    @property
    def layers(self) -> int:
        """Decoder layers."""
        return self.number("num_hidden_layers", "n_layer", "n_layers")

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self.number("hidden_size", "n_embd", "d_model")

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding table."""
        return self.number("vocab_size")

    @property
    def heads(self) -> int:
        """Query heads."""
        return self.number("num_attention_heads", "n_head", "n_heads")
