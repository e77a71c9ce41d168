"""What can be generated with: an engine in a worker, or a server elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from workbench.generation import Generation
from workbench.sampling import Sampling

Prompt = str | Sequence[int] | Sequence[Mapping[str, str]]
"""A text to complete, token ids, or chat messages."""


class Opened(Protocol):
    """What panels, metrics and trials use of a `Session` or an `EndpointSession`.

    Attributes:
        limits: "max_batch_size", "max_input_len", "max_output_len" and more; None where nobody
            tells.
        facts: What was found while opening; "chat_template" says whether it takes messages.
        lacks: Fields of `Sampling` that it cannot do, each with the reason, as a sentence.
    """

    limits: dict[str, Any]
    facts: dict[str, Any]
    lacks: Mapping[str, str]

    @property
    def closed(self) -> bool:
        """Whether nothing can be generated any more."""
        ...

    @property
    def active(self) -> int:
        """Number of generations that wait or run, stopped ones until their place is free."""
        ...

    @property
    def busy(self) -> bool:
        """Whether somebody waits for a generation."""
        ...

    def memory(self) -> int | None:
        """Return the resident memory in bytes, or None where it is not known."""
        ...

    def generate(
        self, prompt: Prompt, sampling: Sampling | None = None, **options: Any
    ) -> Generation:
        """Start a generation."""
        ...

    def close(self) -> None:
        """Let go of everything; running generations fail."""
        ...
