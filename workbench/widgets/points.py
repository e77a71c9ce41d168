"""Clicks on the points of charts, which JupyterLab draws without telling the kernel of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anywidget


class ChartPoints(anywidget.AnyWidget):
    """An invisible part of a panel: tells which point of a chart beside it was clicked.

    A figure says with `ids` what its points are; those without cannot be chosen. plotly's own
    FigureWidget would do the same, and leave its library of 5 MB in the notebook for each figure.
    """

    _esm = Path(__file__).parent / "static" / "points.js"

    def __init__(self, chosen: Callable[[str], object], **values: Any) -> None:
        """Make it.

        Args:
            chosen: Called with the id of a point, which a browser sent: it may be any text.
            values: Of the widget.
        """
        super().__init__(**values)
        self._chosen = chosen
        self.on_msg(self._hear)

    def _hear(self, _: Any, content: Any, __: Any) -> None:
        match content:
            case {"kind": "choose", "id": str(name)}:
                self._chosen(name)
