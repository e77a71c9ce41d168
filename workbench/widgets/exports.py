"""A row of buttons for the forms that a panel exports, and what came out, for copying."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import ipywidgets as widgets

from workbench.errors import InputError
from workbench.widgets.panel import Panel

Form = Literal["markdown", "json", "python", "curl"]

_NAMES: dict[Form, str] = {
    "markdown": "Markdown",
    "json": "JSON",
    "python": "Python",
    "curl": "curl",
}


class Exports(widgets.VBox):  # type: ignore[misc]
    """A button for each form; pressed, it shows the text."""

    def __init__(
        self, panel: Panel, export: Callable[[Form], str], what: Mapping[Form, str]
    ) -> None:
        """Show the buttons.

        Args:
            panel: Where errors show.
            export: Returns the text of a form.
            what: What each form has, for the tooltips.
        """
        self._panel, self._export = panel, export
        self.buttons = {
            form: widgets.Button(description=name, tooltip=f"Export: {what[form]}")
            for form, name in _NAMES.items()
        }
        self.text = widgets.Textarea(
            layout=widgets.Layout(width="100%", height="140px", display="none"),
            tooltip="What was exported, for copying",
        )
        for form, button in self.buttons.items():
            button.on_click(lambda _, form=form: self._show(form))
        super().__init__([widgets.HBox(list(self.buttons.values())), self.text])

    def _show(self, form: Form) -> None:
        self._panel.show_error("")
        with self._panel.boundary():
            self.text.value = self._export(form)
            self.text.layout.display = ""


def check_form(form: str) -> None:
    """Refuse what is no form of an export.

    Raises:
        InputError: There is no such form.
    """
    if form not in get_args(Form):
        raise InputError(f"Exports are {', '.join(get_args(Form))}; got {form!r}.")
