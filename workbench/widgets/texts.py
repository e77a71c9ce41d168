"""The spec of the build form as text: to copy, to paste, to keep in a file."""

from __future__ import annotations

import html
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import ipywidgets as widgets

from workbench import spec_text
from workbench.backends import get_backend
from workbench.model import Model
from workbench.spec import BuildSpec
from workbench.units import printable

NOTEBOOK = "notebooks/01_build.ipynb"

FORMS = ("TOML", "JSON", "notebook cell", "command line", "papermill")


class SpecTexts(widgets.Accordion):  # type: ignore[misc]
    """Folded: the commands that do the same elsewhere, and the spec as text."""

    def __init__(
        self,
        take: Callable[[BuildSpec], None],
        boundary: Callable[[], AbstractContextManager[None]],
    ) -> None:
        """Show nothing yet.

        Args:
            take: Called with a spec that was pasted or loaded.
            boundary: Shows the errors of what is done in it.
        """
        self._take, self._boundary = take, boundary
        self._spec: BuildSpec | None = None
        self.commands = ""
        self._commands = widgets.HTML()
        self._form = widgets.Dropdown(
            options=FORMS, description="as", layout=widgets.Layout(width="260px")
        )
        wide = widgets.Layout(width="96%", height="150px")
        self._text = widgets.Textarea(description="spec", disabled=True, layout=wide)
        self._pasted = widgets.Textarea(
            description="paste", placeholder="A spec as TOML or JSON", layout=wide
        )
        self._file = widgets.Text(
            description="file", value="spec.toml", layout=widgets.Layout(width="420px")
        )
        children = [self._commands, self._rows()]
        titles = ("Show commands", "Copy, paste, save")
        super().__init__(children, titles=titles, selected_index=None)
        self._form.observe(lambda _: self._write(), names="value")

    def _rows(self) -> widgets.VBox:
        use = self._button("Use it", "Take the values of the pasted text", self.use)
        save = self._button("Save", "Write the spec into this file", self.save)
        load = self._button("Load", "Take the values of this file", self.load)
        self._said = widgets.HTML()
        return widgets.VBox(
            [
                self._form,
                self._text,
                self._pasted,
                use,
                widgets.HBox([self._file, save, load]),
                self._said,
            ]
        )

    def _button(self, text: str, tooltip: str, act: Callable[[], None]) -> widgets.Button:
        button = widgets.Button(description=text, tooltip=tooltip)

        def press(_: widgets.Button) -> None:
            self._say("")
            with self._boundary():
                act()

        button.on_click(press)
        return button

    def show(self, spec: BuildSpec | None, model: Model | None) -> None:
        """Show a spec, and the commands for its model where that is known."""
        self._spec = spec
        self.commands = _commands(spec, model) if spec else ""
        self._commands.value = f"<pre>{html.escape(self.commands)}</pre>"
        self._write()

    def _write(self) -> None:
        self._text.value = printable(_as(self._form.value, self._spec)) if self._spec else ""

    def use(self) -> None:
        """Take the values of the pasted text.

        Raises:
            SpecError: It is no spec.
        """
        self._take(spec_text.parse(self._pasted.value))
        self._say("The form shows the pasted spec.")

    def save(self) -> None:
        """Write the spec into the file that is named.

        Raises:
            InputError: It is there already, or cannot be written.
        """
        if self._spec:
            self._say(f"Written: {spec_text.save(self._spec, Path(self._file.value))}")

    def load(self) -> None:
        """Take the values of the file that is named.

        Raises:
            InputError: It cannot be read, or holds no spec.
        """
        self._take(spec_text.load(Path(self._file.value)))
        self._say(f"The form shows the spec of {self._file.value}.")

    def _say(self, text: str) -> None:
        self._said.value = f'<div class="quiet" role="status">{html.escape(printable(text))}</div>'


def _as(form: str, spec: BuildSpec) -> str:
    write = {
        "TOML": spec_text.to_toml,
        "JSON": spec_text.to_json,
        "notebook cell": spec_text.parameters_cell,
        "command line": spec_text.command_line,
    }
    return write[form](spec) if form in write else spec_text.papermill_line(spec, NOTEBOOK)


def _commands(spec: BuildSpec, model: Model | None) -> str:
    """Return the shell commands that do the same elsewhere, each under its title."""
    found = get_backend(spec.backend).commands(spec, model)
    return printable("\n\n".join(f"# {command.title}\n{command.text}" for command in found))
