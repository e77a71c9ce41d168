"""What the panels with a list share: filter, "show more", and work only while they are seen."""

from __future__ import annotations

import html
import threading
from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets

from workbench.errors import InputError
from workbench.units import printable
from workbench.widgets.panel import STYLE
from workbench.widgets.source import EngineSource
from workbench.widgets.table import Table

TICK = 0.2
"""Seconds between two looks at what was chosen, while the panel is seen."""

Row = list[str]
"""Id of a line and its cells."""


class ListPanel(EngineSource):
    """A list with a filter, and below it what is known about the chosen line.

    Nothing is looked at while nobody can see the panel.
    """

    WHAT = "lines"
    """What the lines are called where they are counted."""

    TICKS = 5
    """Looks at what was chosen for each look at the whole list."""

    def __init__(
        self,
        title: str,
        columns: Sequence[tuple[str, str]],
        *,
        above: Sequence[widgets.Widget],
        below: Sequence[widgets.Widget],
        text: str,
        show: int,
    ) -> None:
        """Show the panel.

        Args:
            title: Heading, as text.
            columns: Name and class of each column.
            above: Controls beside the filter.
            below: What is known about the chosen line.
            text: What the filter holds.
            show: Lines at first.

        Raises:
            InputError: `show` is no whole number above 0.
        """
        if isinstance(show, bool) or not isinstance(show, int) or show < 1:
            raise InputError(f"show must be a whole number above 0, such as 20, and is {show!r}.")
        self._count = self._step = show
        self._counted = ""
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self.table = Table(label=title, columns=[list(column) for column in columns])
        self.filter = widgets.Text(
            value=text,
            description="filter",
            placeholder="words that it contains",
            continuous_update=True,
            layout=widgets.Layout(width="340px"),
            style={"description_width": "50px"},
        )
        self.more_button = widgets.Button(description="Show more", tooltip="Show older ones too")
        self._shown = widgets.HTML()
        controls = widgets.HBox([*above, self.filter], layout=widgets.Layout(flex_flow="row wrap"))
        foot = widgets.HBox([self.more_button, self._shown])
        super().__init__(title, [controls, self.table, foot, *below])
        self.filter.observe(lambda _: self.refresh(), "value")
        self.more_button.on_click(lambda _: self.more())
        self.table.observe(lambda change: self._change(change["new"]), "selected")
        self.table.observe(lambda change: self._watch(shown=change["new"]), "shown")

    def more(self) -> None:
        """Show as many lines more as there were at first."""
        self._count += self._step
        self.refresh()

    def choose(self, name: str) -> None:
        """Show what is known about one line; its errors show in the panel."""
        self.table.selected = name

    def _change(self, name: str) -> None:
        self.show_error("")
        with self._lock, self.boundary():
            self._choose(name)

    def refresh(self) -> None:
        """Look at the whole list again; errors show in the panel."""
        with self._lock, self.boundary():
            rows, total = self._rows(self.filter.value.lower().split(), self._count)
            rows = [[printable(cell) for cell in row] for row in rows]
            if rows != self.table.rows:
                self.table.rows = rows
            self._tell(len(rows), total)
            self.touch()

    def plain(self) -> str:
        """Return the list as plain text."""
        rows = ["  ".join(filter(None, cells)) for _, *cells in self.table.rows]
        return "\n".join([*rows, self._counted] if rows else [self.table.empty])

    def static(self) -> str:
        """Return the list as HTML without widgets."""
        counted = f'<div class="quiet">{html.escape(self._counted)}</div>'
        return f'{STYLE}<div class="workbench-panel">{self.table.html()}{counted}</div>'

    def _rows(self, words: Sequence[str], count: int) -> tuple[list[Row], int]:
        """Return the first lines that contain all words, and the number of all that do."""
        raise NotImplementedError

    def _choose(self, name: str) -> None:
        """Show what is known about a line."""
        raise NotImplementedError

    def _follow(self) -> None:
        """Bring what is known about the chosen line up to date."""

    def _tell(self, rows: int, total: int) -> None:
        self._counted = f"{self.WHAT}: {f'{rows:,} of ' if rows < total else ''}{total:,}"
        self._shown.value = f'<span class="quiet">{self._counted}</span>'
        self.more_button.layout.display = "" if rows < total else "none"

    def _watch(self, *, shown: bool) -> None:
        """Begin to look when somebody sees the panel, and end when nobody does."""
        self._stop.set()
        if shown:
            self._stop = threading.Event()
            threading.Thread(target=self._look, args=(self._stop,), daemon=True).start()

    def _look(self, stop: threading.Event) -> None:
        number = 0
        while not stop.is_set():
            if number % self.TICKS == 0:
                self.refresh()
            with self._lock, self.boundary():
                self._follow()
            number += 1
            stop.wait(TICK)


def contains(text: str, words: Sequence[str]) -> bool:
    """Say whether a text contains all words, whatever their case."""
    lowered = text.lower()
    return all(word in lowered for word in words)


def hidden(widget: widgets.Widget, value: Any) -> None:
    """Hide a widget where there is no value to show it for."""
    widget.layout.display = "" if value else "none"
