"""A bar for bytes that are counted, and the sentence about them."""

from __future__ import annotations

import html
import time
from collections.abc import Callable

import ipywidgets as widgets

from workbench.units import format_bytes, printable
from workbench.widgets.lists import TICK, hidden


class CountedBytes(widgets.VBox):  # type: ignore[misc]
    """Shows how far something is that goes through bytes, and what came of it."""

    def __init__(self) -> None:
        """Show nothing yet."""
        self._bar = widgets.FloatProgress(max=1.0, layout=widgets.Layout(width="520px"))
        self._said = widgets.HTML()
        self.show_bar(shown=False)
        super().__init__([self._bar, self._said])

    @property
    def said(self) -> str:
        """The sentence, as HTML."""
        return str(self._said.value)

    def show_bar(self, *, shown: bool) -> None:
        """Show the bar, or hide it."""
        hidden(self._bar, shown)

    def say(self, text: str) -> None:
        """Show a sentence, which screen readers speak."""
        self._said.value = f'<span role="status">{html.escape(printable(text))}</span>'

    def counting(self, done_word: str) -> Callable[[int, int], None]:
        """Return what shows bytes of a total, in the bar and in words, a few times a second.

        Args:
            done_word: What has become of the bytes, such as "read".
        """
        told = 0.0

        def progress(done: int, total: int) -> None:
            nonlocal told
            if time.monotonic() - told > TICK or done == total:
                told = time.monotonic()
                self._bar.value = done / max(total, 1)
                self.say(f"{format_bytes(done)} of {format_bytes(total)} {done_word}")

        return progress
