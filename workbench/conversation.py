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

    def messages(self, prompt: str) -> list[Message]:
        """Return the chat messages that ask `prompt` after all turns."""
        system = [_message("system", self.system_prompt)] if self.system_prompt else []
        return [*system, *self._history(), _message("user", prompt)]

    def add(self, asked: str, record: Mapping[str, Any]) -> None:
        """Add a turn at the end."""
        self.turns.append(Turn(asked, str(record["text"]), record))

    def back_to(self, number: int) -> str:
        """Forget a turn and all after it; return what was asked in it.

        Args:
            number: Of the turn, from 0.

        Raises:
            RequestError: There is no such turn.
        """
        if not 0 <= number < len(self.turns):
            raise RequestError(
                f"There is no turn {number + 1}; this conversation has {len(self.turns)}."
            )
        asked = self.turns[number].asked
        del self.turns[number:]
        return asked

    def clear(self) -> None:
        """Forget all turns; the system prompt stays."""
        self.turns.clear()

    def _history(self) -> list[Message]:
        return [
            message
            for turn in self.turns
            for message in (_message("user", turn.asked), _message("assistant", turn.answered))
        ]


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
