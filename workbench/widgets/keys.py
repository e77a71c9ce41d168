"""Keys and explanations of a panel, which ipywidgets leaves to the page."""

from __future__ import annotations

from pathlib import Path

import anywidget
import traitlets


class Keys(anywidget.AnyWidget):
    """An invisible part of a panel: keeps the notebook's shortcuts out of it, explains labels.

    JupyterLab takes keys on a checkbox or a list for its own commands, "d d" for deleting the
    cell among them.
    """

    _esm = Path(__file__).parent / "static" / "keys.js"
    help = traitlets.Dict().tag(sync=True)
    """Explanations by the text of the label."""
