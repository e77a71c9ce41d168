"""Earlier answers of what is open, also those of kernels that are gone."""

from __future__ import annotations

import html
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import ipywidgets as widgets

from workbench import answers
from workbench.answers import Answer
from workbench.sources import Source
from workbench.units import printable

_WORDS = 60
"""Characters of a question that the list shows."""


class Earlier(widgets.VBox):  # type: ignore[misc]
    """Lists what was kept, and shows the one that is chosen; not there while nothing is kept."""

    def __init__(
        self,
        again: Callable[[str], None],
        boundary: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Show nothing yet.

        Args:
            again: Called with the question that shall be asked again.
            boundary: Shows the errors of what is done within it.
        """
        self._source: Source | None = None
        self._boundary = boundary
        self._list = widgets.Dropdown(
            description="earlier",
            layout=widgets.Layout(width="100%"),
            style={"description_width": "60px"},
        )
        self._shown = widgets.HTML()
        again_button = widgets.Button(
            description="Use prompt", tooltip="Put this question into the prompt area"
        )
        forget_button = widgets.Button(
            description="Forget earlier", tooltip="Remove these answers from the disk"
        )
        self._buttons = widgets.HBox([again_button, forget_button])
        super().__init__([self._list, self._shown, self._buttons])
        self._list.observe(lambda _: self._show_chosen(), names="value")
        again_button.on_click(lambda _: self._use(again))
        forget_button.on_click(lambda _: self._forget())
        self.show(None)

    @property
    def chosen(self) -> Answer | None:
        """The answer that is shown, or None."""
        answer: Answer | None = self._list.value
        return answer

    def show(self, source: Source | None) -> None:
        """List what was kept of a source, the latest answer first; None lists nothing."""
        chosen = self.chosen if source == self._source else None
        self._source = source
        found = answers.kept(source) if source else ()
        names = [_name(number, answer) for number, answer in enumerate(found)]
        self._list.options = [("choose one", None), *zip(names, found, strict=True)]
        self._list.value = chosen if chosen in found else None
        self._show_chosen()
        self.layout.display = "" if found else "none"

    def _use(self, again: Callable[[str], None]) -> None:
        if self.chosen:
            again(self.chosen.asked)

    def _forget(self) -> None:
        with self._boundary():
            if self._source:
                answers.forget(self._source)
            self.show(self._source)

    def _show_chosen(self) -> None:
        answer = self.chosen
        self._shown.value = "" if answer is None else _written(answer)


def _name(number: int, answer: Answer) -> str:
    """Return the line of an answer in the list; with a number, for two may be alike."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(answer.time))
    words = " ".join(printable(answer.asked).split())
    short = words if len(words) <= _WORDS else f"{words[:_WORDS]}\u2026"
    return f"{number + 1}. {when}  {short}"


def _written(answer: Answer) -> str:
    asked, answered, how, settings = (
        html.escape(printable(text))
        for text in (answer.asked, answer.answered, answer.how, answer.settings)
    )
    return (
        f"<pre><b>{asked}</b></pre><pre>{answered}</pre>"
        f'<div class="quiet">{how}</div><div class="quiet">{settings}</div>'
    )
