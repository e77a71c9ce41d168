"""Writes the chats that the demo model learns, out of the lines in topics.toml and talk.toml.

Everything is drawn from a seeded generator, so the same seed gives the same chats. Where there is
a choice, the first entry of a list is the likeliest one: greedy decoding then has a clear
favourite, which also survives the rounding of int8 and int4 weights.
"""

from __future__ import annotations

import random
import tomllib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

HERE = Path(__file__).parent
Message = dict[str, str]
T = TypeVar("T")

# How often a line gives way to one from another haiku of the same topic, where that reads well.
RECOMBINED = 0.3
# How many turns a chat has: (turns, weight).
TURNS = ((1, 50), (2, 20), (3, 12), (5, 12), (9, 6))


@dataclass(frozen=True)
class Topic:
    """One subject and all that the model knows about it.

    Attributes:
        name: what a request calls it.
        also: other names for it.
        words: one of these stands in every opening line, in lower case.
        meaning: one sentence that says what it is.
        haiku: poems of three lines, the best one first.
        jokes: one-liners, the best one first.
    """

    name: str
    also: tuple[str, ...]
    words: tuple[str, ...]
    meaning: str
    haiku: tuple[tuple[str, ...], ...]
    jokes: tuple[str, ...]


@cache
def topics() -> tuple[Topic, ...]:
    """Reads every topic from topics.toml, in the order of the file."""
    entries = tomllib.loads((HERE / "topics.toml").read_text(encoding="utf-8"))["topic"]
    return tuple(
        Topic(
            name=entry["name"],
            also=tuple(entry["also"]),
            words=tuple(entry["words"]),
            meaning=entry["meaning"],
            haiku=tuple(tuple(line.split(" / ")) for line in entry["haiku"].strip().splitlines()),
            jokes=tuple(entry["jokes"].strip().splitlines()),
        )
        for entry in entries
    )


@cache
def talk() -> dict[str, Any]:
    """Reads the requests and the small talk from talk.toml."""
    return tomllib.loads((HERE / "talk.toml").read_text(encoding="utf-8"))


def chats(count: int, seed: int) -> Iterator[list[Message]]:
    """Writes chats.

    Args:
        count: how many.
        seed: the same seed gives the same chats.

    Yields:
        One chat at a time: messages with `role` (system, user, assistant) and `content`,
        the last one by the assistant.
    """
    rng = random.Random(seed)
    for _ in range(count):
        writer = Writer(rng)
        messages: list[Message] = []
        if rng.random() < 0.4:
            sentences = rng.sample(talk()["systems"], k=rng.choice((1, 1, 1, 2, 3)))
            messages.append({"role": "system", "content": " ".join(sentences)})
        for _ in range(rng.choices(*zip(*TURNS, strict=True))[0]):
            ask, answer = writer.turn()
            messages += [
                {"role": "user", "content": ask},
                {"role": "assistant", "content": answer},
            ]
        yield messages


@dataclass
class Writer:
    """Writes one chat turn by turn and remembers what was talked about."""

    rng: random.Random
    topic: Topic | None = None
    joking: bool = False
    mood: dict[str, Any] | None = None
    told: list[str] = field(default_factory=list)

    def turn(self) -> tuple[str, str]:
        """Writes one request and its answer."""
        kinds: dict[Callable[[], tuple[str, str]], int] = {
            self._haiku: 40,
            self._mood: 8,
            self._joke: 12,
            self._meaning: 7,
            self._several: 10,
            self._long: 4,
            self._any: 6,
            self._talk: 14,
            self._unknown: 12,
        }
        if self.topic:
            kinds |= {self._again: 30, self._instead: 15, self._switch: 8, self._remood: 6}
        return self.rng.choices(list(kinds), list(kinds.values()))[0]()

    def _haiku(self) -> tuple[str, str]:
        self._about(self.rng.choice(topics()))
        return self._ask("haiku"), self._compose()

    def _mood(self) -> tuple[str, str]:
        self._about(self.rng.choice(topics()))
        self.mood = self.rng.choice(talk()["moods"])
        return self._ask("mood"), self._compose()

    def _joke(self) -> tuple[str, str]:
        self._about(self.rng.choice(topics()), joking=True)
        return self._ask("joke"), self._compose()

    def _meaning(self) -> tuple[str, str]:
        topic = self.rng.choice(topics())
        self._about(topic)
        return self._ask("meaning"), topic.meaning

    def _several(self) -> tuple[str, str]:
        self._about(self.rng.choice(topics()))
        kind, number = self.rng.choice((("two", 2), ("three", 3), ("four", 4)))
        return self._ask(kind), "\n\n".join(self._compose() for _ in range(number))

    def _long(self) -> tuple[str, str]:
        """Strings haiku together, always going forward in the list of topics.

        That order keeps greedy decoding from coming back to a topic.
        """
        kind, length = self.rng.choice((("long", 6), ("long", 6), ("longer", 12)))
        place = _favour(self.rng, range(len(topics())))
        poem = []
        for _ in range(length):
            self._about(topics()[place % len(topics())])
            poem.append(self._compose())
            place += _favour(self.rng, range(1, 7))
        return self._ask(kind), "\n\n".join(poem)

    def _any(self) -> tuple[str, str]:
        joking = self.rng.random() < 0.4
        self._about(_favour(self.rng, topics()), joking=joking)
        return self._ask("any_joke" if joking else "any"), self._compose()

    def _talk(self) -> tuple[str, str]:
        entry = self.rng.choice(talk()["talk"])
        answer: str = _favour(self.rng, entry["answers"])
        if "{haiku}" in answer:
            self._about(self.topic or _favour(self.rng, topics()))
            answer = answer.format(haiku=self._compose())
        return self._vary(self.rng.choice(entry["asks"])), answer

    def _unknown(self) -> tuple[str, str]:
        unknown = talk()["unknown"]
        if self.rng.random() < 0.25:
            ask = self.rng.choice(unknown["questions"])
        else:
            words = [word.strip() for word in unknown["words"].split(",")]
            ask = self.rng.choice(unknown["asks"]).format(word=self.rng.choice(words))
        topic = _favour(self.rng, topics())
        self._about(topic)
        answer: str = _favour(self.rng, unknown["answers"])
        return self._vary(ask), answer.format(topic=topic.name, haiku=self._compose())

    def _again(self) -> tuple[str, str]:
        return self._vary(self.rng.choice(talk()["again"])), self._compose()

    def _instead(self) -> tuple[str, str]:
        self._about(self.rng.choice(topics()), joking=self.joking, mood=self.mood)
        return self._ask("instead"), self._compose()

    def _switch(self) -> tuple[str, str]:
        self.joking, self.mood = not self.joking, None
        return self._ask("as_joke" if self.joking else "as_haiku"), self._compose()

    def _remood(self) -> tuple[str, str]:
        self.joking, self.mood = False, self.rng.choice(talk()["moods"])
        return self._ask("remood"), self._compose()

    def _about(
        self, topic: Topic, *, joking: bool = False, mood: dict[str, Any] | None = None
    ) -> None:
        self.topic, self.joking, self.mood = topic, joking, mood

    def _ask(self, kind: str) -> str:
        assert self.topic is not None
        name = self.topic.name
        if self.rng.random() < 0.45:
            name = self.rng.choice(self.topic.also)
        if not name.startswith(("a ", "an ", "the ", "my ")) and self.rng.random() < 0.12:
            name = f"{self.rng.choice(talk()['qualifiers'])} {name}"
        ask: str = self.rng.choice(talk()[kind])
        mood = _favour(self.rng, self.mood["names"]) if self.mood else ""
        return self._vary(ask.format(topic=name, other=self.rng.choice(topics()).name, mood=mood))

    def _vary(self, ask: str) -> str:
        rng = self.rng
        if rng.random() < 0.1:
            ask = rng.choice(talk()["before"]) + ask
        if rng.random() < 0.06:
            ask += rng.choice(talk()["after"])
        if rng.random() < 0.05 and len(ask) > 5:  # a typing error
            place = rng.randrange(len(ask))
            ask = ask[:place] + ask[place + 1 :]
        if rng.random() < 0.4:
            ask = ask.rstrip(".?!") or ask
        if rng.random() < 0.3:
            return ask.lower()
        if rng.random() < 0.03:
            return ask.upper()
        return ask[:1].upper() + ask[1:] if rng.random() < 0.7 else ask[:1].lower() + ask[1:]

    def _compose(self) -> str:
        """Writes a haiku or a joke about the topic that this chat has not seen yet."""
        assert self.topic is not None
        if self.joking:
            return self._fresh(self.topic.jokes)
        poems = self.topic.haiku
        if self.mood:
            poems = tuple(poem for poem in poems if _joins(poem[1], "A"))
        first, second, third = self._fresh(poems)
        other = _favour(self.rng, poems)
        if self.rng.random() < RECOMBINED and _joins(first, second) and _joins(first, other[1]):
            second = other[1]
            third = third if _joins(second, third) else other[2]
        last = _favour(self.rng, self.mood["lines"] if self.mood else [p[2] for p in poems])
        if (self.mood or self.rng.random() < RECOMBINED) and _joins(second, last):
            third = last
        return f"{first}\n{second}\n{third}"

    def _fresh(self, choices: Sequence[T]) -> T:
        left = [choice for choice in choices if str(choice) not in self.told]
        choice = _favour(self.rng, left or choices)
        self.told.append(str(choice))
        return choice


def _joins(line: str, following: str) -> bool:
    """Whether a sentence ends with one line and another begins with the next."""
    return line[-1] in ".?!" and following[0].isupper()


def _favour(rng: random.Random, choices: Sequence[T]) -> T:
    """Draws one of the choices, an earlier one more often: weights 1, 0.6, 0.5, 0.4 ..."""
    return rng.choices(choices, [rank**-0.7 for rank in range(1, len(choices) + 1)])[0]
