"""Choosing what to open: an engine of the store, its eager baseline, or a server by its URL."""

from __future__ import annotations

import os
from collections.abc import Callable

import ipywidgets as widgets

from workbench import store
from workbench.build import start_build
from workbench.endpoint import Endpoint
from workbench.engine import Engine
from workbench.errors import InputError
from workbench.sources import Source, baseline_of

_WIDE = widgets.Layout(width="100%")
_FIELD = widgets.Layout(width="270px")
_STYLE = {"description_width": "80px"}


class SourceChooser(widgets.VBox):  # type: ignore[misc]
    """Controls that choose a source; whoever shows them opens it."""

    def __init__(self, opener: Callable[[Callable[[], Source]], None]) -> None:
        """Show the controls.

        Args:
            opener: Called when a button is pressed, with what gives the source. That may take a
                while and raise WorkbenchError, so it is for a thread.
        """
        self.engines = widgets.Dropdown(description="engine", layout=_WIDE, style=_STYLE)
        self.url = _text("endpoint", "http://127.0.0.1:8000/v1")
        self.model = _text("model", "the only one that it lists")
        self.key_env = _text("key from", "name of an environment variable")
        self.open_button = _button("Open engine", "Load the chosen engine")
        self.baseline_button = _button(
            "Open baseline", "Run the same model eagerly with transformers"
        )
        self.refresh_button = _button("Refresh", "Look at the store again")
        self.connect_button = _button("Connect", "Open the server of this URL")
        super().__init__(
            [
                self.engines,
                widgets.HBox([self.open_button, self.baseline_button, self.refresh_button]),
                widgets.Box(
                    [self.url, self.model, self.key_env, self.connect_button],
                    layout=widgets.Layout(flex_flow="row wrap"),
                ),
            ]
        )
        self.open_button.on_click(lambda _: opener(self.engine))
        self.baseline_button.on_click(lambda _: opener(self.baseline))
        self.connect_button.on_click(lambda _: opener(self.endpoint))
        self.refresh_button.on_click(lambda _: self.refresh())
        self.refresh()

    def refresh(self, key: str = "") -> None:
        """List the engines of the store, the newest first; the chosen one stays chosen.

        Args:
            key: Of the one that is chosen from now on.
        """
        chosen = key or self.engines.value
        found = sorted(store.list_engines(), key=lambda engine: -engine.created)
        self.engines.options = [(str(engine), engine.key) for engine in found]
        keys = [engine.key for engine in found]
        self.engines.value = chosen if chosen in keys else next(iter(keys), None)
        self.open_button.disabled = self.baseline_button.disabled = not found

    def engine(self) -> Engine:
        """Return the chosen engine.

        Raises:
            InputError: There is none to choose.
            StoreError: It is gone.
        """
        if self.engines.value is None:
            raise InputError("The store holds no engine. Build one, then press Refresh.")
        return store.find_engine(self.engines.value)

    def baseline(self) -> Engine:
        """Return the eager baseline of the chosen engine's model; made if it is not there yet.

        Raises:
            WorkbenchError: It cannot be made.
        """
        return start_build(baseline_of(self.engine())).wait()

    def endpoint(self) -> Endpoint:
        """Return the server that the fields say.

        Raises:
            InputError: The URL is none, or the variable is not set.
        """
        name = self.key_env.value.strip()
        if name and name not in os.environ:
            # It may be the key itself, which nobody shall read on a page or in a saved notebook.
            self.key_env.value = ""
            raise InputError(
                'The field "key from" takes the name of an environment variable that is set in '
                "this kernel, and it named none; it was cleared. Never type the key itself."
            )
        return Endpoint(
            self.url.value, model=self.model.value.strip() or None, key_env=name or None
        )


def _text(description: str, placeholder: str) -> widgets.Text:
    return widgets.Text(
        description=description, placeholder=placeholder, layout=_FIELD, style=_STYLE
    )


def _button(description: str, tooltip: str) -> widgets.Button:
    return widgets.Button(description=description, tooltip=tooltip)
