"""A field for a path, and the buttons that write an engine into a file or bring one from there."""

from __future__ import annotations

from pathlib import Path

import ipywidgets as widgets

from workbench.archive import export_engine, import_engine
from workbench.engine import Engine
from workbench.errors import InputError
from workbench.units import format_bytes
from workbench.widgets.counted import CountedBytes


class Transfer(widgets.VBox):  # type: ignore[misc]
    """Writes and reads archives of engines; both take a while, and are for a thread."""

    def __init__(self) -> None:
        """Show an empty path."""
        self.path = widgets.Text(
            description="file",
            placeholder="an archive, such as ~/engine.tar",
            layout=widgets.Layout(width="340px"),
            style={"description_width": "55px"},
        )
        self.export_button = widgets.Button(
            description="Export", tooltip="Write the chosen engine into this new file"
        )
        self.import_button = widgets.Button(
            description="Import", tooltip="Bring the engine of this file into the store"
        )
        self.trust = widgets.Checkbox(
            description="trust code of its model",
            indent=False,
            tooltip="Import also an engine that may run code of its model's repository",
            layout=widgets.Layout(width="auto"),
        )
        self._counted = CountedBytes()
        controls = [self.path, self.export_button, self.import_button, self.trust]
        row = widgets.HBox(controls, layout=widgets.Layout(flex_flow="row wrap"))
        super().__init__([row, self._counted])

    @property
    def said(self) -> str:
        """What is shown below the path, as HTML."""
        return self._counted.said

    def set_busy(self, *, busy: bool) -> None:
        """Take no second order while one is carried out."""
        self.export_button.disabled = self.import_button.disabled = busy
        self._counted.show_bar(shown=busy)

    def file(self) -> Path:
        """Return the file that the path names.

        Raises:
            InputError: There is no path yet.
        """
        if text := self.path.value.strip():
            return Path(text).expanduser().absolute()
        raise InputError("Say where: write the path of a file, such as ~/engine.tar.")

    def write(self, engine: Engine, path: Path) -> None:
        """Write an engine into a new file.

        Raises:
            StoreError: As `export_engine`.
        """
        export_engine(engine, path, progress=self._counted.counting("written"))
        size = format_bytes(path.stat().st_size)
        self._counted.say(f"The engine {engine.key} is in {path} ({size}).")

    def read(self, path: Path) -> None:
        """Bring the engine of a file into the store.

        Raises:
            StoreError: As `import_engine`.
        """
        told: list[str] = []
        engine, new = import_engine(
            path,
            trust_remote_code=self.trust.value,
            progress=self._counted.counting("read"),
            tell=told.append,
        )
        self._counted.say(
            " ".join([f"{'Imported' if new else 'It is there already:'} {engine}.", *told])
        )
