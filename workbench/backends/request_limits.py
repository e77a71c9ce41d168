"""What is said of one request's lengths by every backend that enforces them when it runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from workbench.rules import Finding
from workbench.spec import parameter


class Limited(Protocol):
    """A spec with limits on the length of a request, in tokens."""

    @property
    def max_input_len(self) -> int:
        """Longest prompt."""
        ...

    @property
    def sequence_limit(self) -> int:
        """Longest prompt plus output."""
        ...


def longest_prompt(default: int) -> Any:
    """Declare `max_input_len`."""
    return parameter(
        default, ge=1, help="Longest prompt that is accepted.", unit="tokens", group="Limits"
    )


def longest_output(default: int) -> Any:
    """Declare `max_output_len`."""
    return parameter(
        default,
        ge=1,
        help="Most tokens that one request may generate.",
        unit="tokens",
        group="Limits",
    )


def longest_sequence(source: str = "") -> Any:
    """Declare `max_seq_len`."""
    return parameter(
        None,
        ge=2,
        help="Longest prompt plus output of one request.",
        unit="tokens",
        group="Limits",
        none_means="max_input_len + max_output_len",
        source=source,
    )


def room_rules(spec: Limited) -> Iterator[Finding]:
    """Refuse a longest prompt that leaves no room for output."""
    limit = spec.sequence_limit
    if spec.max_input_len >= limit:
        yield Finding(
            "refuse",
            "max_input_len",
            f"a prompt of {spec.max_input_len} tokens leaves no room for output within "
            f"max_seq_len {limit}.",
            f"Use at most {limit - 1}, or raise max_seq_len.",
            (("max_input_len", limit - 1),),
        )
