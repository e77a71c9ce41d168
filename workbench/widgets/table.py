"""A list of which one line can be chosen: with the mouse, with the keyboard, or not at all."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import anywidget
import traitlets

_STATIC = Path(__file__).parent / "static"


class Table(anywidget.AnyWidget):
    """Lines of text in columns; `selected` is the id of the chosen one.

    Each column is a name and a class that says how wide it is; each row is an id and its cells.
    `shown` says whether somebody can see the panel that it is in.
    """

    _esm = _STATIC / "table.js"
    _css = _STATIC / "table.css"
    label = traitlets.Unicode().tag(sync=True)
    empty = traitlets.Unicode().tag(sync=True)
    """What is said where there is no row."""
    columns: traitlets.List[list[str]] = traitlets.List().tag(sync=True)
    rows: traitlets.List[list[str]] = traitlets.List().tag(sync=True)
    selected = traitlets.Unicode().tag(sync=True)
    shown = traitlets.Bool(default_value=False).tag(sync=True)

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        self.on_msg(self._hear)

    def _hear(self, _: Any, content: Any, __: Any) -> None:
        """Take what was chosen in a browser, where it is a line that is there."""
        match content:
            case {"kind": "choose", "id": str(name)} if name in [row[0] for row in self.rows]:
                self.selected = name

    def html(self) -> str:
        """Return the table as HTML for readers that show no widgets; all cells are text."""
        if not self.rows:
            return f"<p>{html.escape(self.empty)}</p>"
        head = "".join(f"<th>{html.escape(name)}</th>" for name, _ in self.columns)
        rows = "".join(
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"
            for _, *cells in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
