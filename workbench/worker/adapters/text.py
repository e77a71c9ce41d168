"""Text from tokens as they come: whole characters only, and stop strings held back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

REPLACEMENT = "\ufffd"


class Decoder(Protocol):
    """What is used of `tokenizers.Tokenizer`."""

    def decode(self, ids: list[int], skip_special_tokens: bool = True) -> str:
        """Return the text of token ids."""
        ...


class TextStream:
    """Turns token ids into text deltas whose concatenation is the text of all ids.

    A character whose bytes are spread over several tokens appears when it is complete. A text
    that may become a stop string is held back until it is clear; from a stop string on, nothing
    appears.

    Tokens that were said before belong to the text, but not to what is given out: where a text goes
    on, its tokens have the spaces that they have in it (SentencePiece drops that of the very first
    token).
    """

    def __init__(
        self, decoder: Decoder, stop: tuple[str, ...] = (), said: Iterable[int] = ()
    ) -> None:
        self._decoder = decoder
        self._stop = tuple(text for text in stop if text)
        self._ids: list[int] = []
        # Only the ids from `_begin` on are decoded again. That is one finished piece before the
        # unfinished one, because some tokenizers treat the first token of a text differently
        # (a leading space). `_shown` characters of their text were given out.
        self._begin = 0
        self._finished = 0
        self._shown = 0
        self._held = ""
        self.stopped = False
        for token in said:
            self._ids.append(token)
            self._decoded(final=False)

    def push(self, ids: list[int]) -> str:
        """Take new ids; return the text that is certain now (often empty)."""
        if self.stopped:
            return ""
        self._ids.extend(ids)
        return self._through_stops(self._decoded(final=False), final=False)

    def end(self) -> str:
        """Return what was held back, when no more ids come."""
        if self.stopped:
            return ""
        return self._through_stops(self._decoded(final=True), final=True)

    def name_of(self, token: int) -> str:
        """Return the text that a token would add here, as people are shown it.

        What is unfinished is U+FFFD, and a special token, which adds nothing, has its name.
        """
        text = self._decoder.decode([*self._ids[self._begin :], token])[self._shown :]
        return text or self._decoder.decode([token], skip_special_tokens=False)

    def _decoded(self, *, final: bool) -> str:
        text = self._decoder.decode(self._ids[self._begin :])
        if text.endswith(REPLACEMENT) and not final:
            # An unfinished character, or bytes that are none: what follows tells.
            return ""
        delta = text[self._shown :]
        if delta:
            self._begin, self._finished = self._finished, len(self._ids)
            self._shown = len(self._decoder.decode(self._ids[self._begin :]))
        return delta

    def _through_stops(self, text: str, *, final: bool) -> str:
        if not self._stop:
            return text
        text = self._held + text
        self._held = ""
        found = [place for place in (text.find(stop) for stop in self._stop) if place >= 0]
        if found:
            self.stopped = True
            return text[: min(found)]
        if not final:
            keep = self._possible_stop(text)
            text, self._held = text[: len(text) - keep], text[len(text) - keep :]
        return text

    def _possible_stop(self, text: str) -> int:
        """Return the length of the longest end of `text` that a stop string begins with."""
        longest = max(len(stop) for stop in self._stop) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stop):
                return size
        return 0


def load_tokenizer(directory: Any) -> Any:
    """Return the `tokenizers.Tokenizer` of an engine directory."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(directory / "tokenizer.json"))
