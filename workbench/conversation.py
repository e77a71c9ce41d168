"""A conversation: turns of a person and a model, each with the record of its generation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.errors import RequestError

Message = dict[str, str]


@dataclass(frozen=True)
class Turn:
    """What was asked, what was answered, and the record of that (`Generation.record`)."""

    asked: str
    answered: str
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Conversation:
    """A system prompt and turns; a stopped answer counts as far as it came."""

    system_prompt: str = ""
    turns: list[Turn] = field(default_factory=list)

    def messages(self, prompt: str, before: int | None = None) -> list[Message]:
        """Return the chat messages that ask `prompt` after all turns.

        Args:
            prompt: What is asked.
            before: Only after the turns before this one, which is asked again.
        """
        system = [_message("system", self.system_prompt)] if self.system_prompt else []
        return [*system, *self._history(before), _message("user", prompt)]

    def add(self, asked: str, record: Mapping[str, Any], instead: int | None = None) -> None:
        """Add a turn at the end, or in the place of one and all after it."""
        del self.turns[len(self.turns) if instead is None else instead :]
        self.turns.append(Turn(asked, str(record["text"]), record))

    def asked(self, number: int) -> str:
        """Return what was asked in a turn.

        Args:
            number: Of the turn, from 0.

        Raises:
            RequestError: There is no such turn.
        """
        if not 0 <= number < len(self.turns):
            raise RequestError(
                f"There is no turn {number + 1}; this conversation has {len(self.turns)}."
            )
        return self.turns[number].asked

    def back_to(self, number: int) -> str:
        """Forget a turn and all after it; return what was asked in it.

        Args:
            number: Of the turn, from 0.

        Raises:
            RequestError: There is no such turn.
        """
        asked = self.asked(number)
        del self.turns[number:]
        return asked

    def clear(self) -> None:
        """Forget all turns; the system prompt stays."""
        self.turns.clear()

    def _history(self, before: int | None) -> list[Message]:
        return [
            message
            for turn in self.turns[:before]
            for message in (_message("user", turn.asked), _message("assistant", turn.answered))
        ]


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
