"""The turns of a conversation, each with buttons to edit it or to ask it again."""

from __future__ import annotations

import html
from collections.abc import Callable

import ipywidgets as widgets

from workbench.conversation import Conversation, Turn
from workbench.summaries import timing_line
from workbench.units import printable

SHOWN = 30
"""Turns that are shown, the newest ones; exports have all of them."""


class History(widgets.VBox):  # type: ignore[misc]
    """Shows what was said so far."""

    def __init__(self, edit: Callable[[int], None], again: Callable[[int], None]) -> None:
        """Show nothing yet.

        Args:
            edit: Called with the number of a turn that shall be asked in other words.
            again: Called with the number of a turn that shall be answered once more.
        """
        self._edit, self._again = edit, again
        self._rows: list[tuple[Turn, bool, widgets.VBox]] = []
        super().__init__([])

    def show(self, conversation: Conversation) -> None:
        """Show the turns of a conversation; the last answer is in the token view already."""
        last = len(conversation.turns) - 1
        shown = list(enumerate(conversation.turns))[-SHOWN:]
        before = self._rows
        self._rows = [self._row(number, turn, last=number == last) for number, turn in shown]
        rows: list[widgets.Widget] = [row for *_, row in self._rows]
        if last >= SHOWN:
            words = f"{last + 1 - SHOWN} earlier turns are not shown; exports have them."
            rows.insert(0, widgets.HTML(f'<div class="quiet">{words}</div>'))
        self.children = rows
        for *_, row in before:
            if row not in rows:
                _close(row)

    def _row(self, number: int, turn: Turn, *, last: bool) -> tuple[Turn, bool, widgets.VBox]:
        """Return a row for a turn; the one that there is, if it has not changed."""
        for known in self._rows:
            if known[0] is turn and known[1] == last:
                return known
        return turn, last, self._new_row(number, turn, last=last)

    def _new_row(self, number: int, turn: Turn, *, last: bool) -> widgets.VBox:
        asked = f"<div><b>{number + 1}. {_text(turn.asked)}</b></div>"
        answered = f"<pre>{_text(turn.answered)}</pre>"
        timing = f'<div class="quiet">{_text(timing_line(turn.record))}</div>'
        text = widgets.HTML(asked if last else asked + answered + timing)
        edit = widgets.Button(
            description="Edit", tooltip=f"Ask turn {number + 1} in other words; later turns go"
        )
        again = widgets.Button(
            description="Regenerate", tooltip=f"Answer turn {number + 1} again; later turns go"
        )
        edit.on_click(lambda _: self._edit(number))
        again.on_click(lambda _: self._again(number))
        return widgets.VBox([text, widgets.HBox([edit, again])])


def _close(widget: widgets.Widget) -> None:
    """Close a widget with all that is in it: the kernel and the page forget it."""
    for child in getattr(widget, "children", ()):
        _close(child)
    for part in (getattr(widget, "style", None), widget.layout, widget):
        if part is not None:
            part.close()


def _text(text: str) -> str:
    return html.escape(printable(text))
