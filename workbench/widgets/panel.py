"""What all panels share: a title, an error area, the time of the last update, a plain text."""

from __future__ import annotations

import html
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ipywidgets as widgets

from workbench.errors import WorkbenchError
from workbench.units import printable
from workbench.widgets.keys import Keys

STYLE = """<style>
.workbench-panel { border: 1px solid var(--jp-border-color1, light-dark(#bdbdbd, #616161));
  border-radius: 4px; padding: 8px 12px; width: 100%; max-width: 900px; }
/* A panel is as wide as its cell, also when that gets narrower later: a figure that is drawn and a
   field of a fixed width would keep it as wide as it was. */
.workbench-panel, .workbench-panel .jp-OutputArea { contain: inline-size; }
.workbench-panel .jupyter-widgets { max-width: 100%; }
.workbench-panel .widget-textarea, .workbench-panel .widget-text,
.workbench-panel .widget-dropdown { max-width: calc(100% - 2 * var(--jp-widgets-margin, 2px)); }
.workbench-panel .widget-hbox { flex-wrap: wrap; }
.workbench-panel .widget-hbox > .widget-html { flex: 1 1 0; min-width: min(100%, 240px); }
.workbench-panel .widget-html-content { line-height: 1.5; }
/* ipywidgets marks what has lost its kernel, and shows it as if nothing had happened. */
.workbench-panel.jupyter-widgets-disconnected::before { display: block; padding: 2px 8px;
  content: "This panel has lost its kernel, and answers no more. Run its cell again.";
  border-left: 4px solid var(--jp-error-color1, #d32f2f); margin: 0;
  font: 400 var(--jp-ui-font-size1, 13px)/1.6 var(--jp-ui-font-family, sans-serif);
  color: var(--jp-content-font-color1, light-dark(#212121, #fafafa)); }
.workbench-panel h3 { margin: 0; font-size: 1.05em; line-height: 1.6;
  color: var(--jp-content-font-color1, light-dark(#212121, #fafafa)); }
.workbench-panel table { border-collapse: collapse; margin: 2px 0; }
.workbench-panel td, .workbench-panel th { padding: 1px 12px 1px 0; text-align: left;
  vertical-align: top; line-height: 1.5;
  color: var(--jp-content-font-color1, light-dark(#212121, #fafafa)); }
.workbench-panel td.number { text-align: right; font-variant-numeric: tabular-nums; }
.workbench-panel .quiet, .workbench-panel td.quiet {
  color: var(--jp-content-font-color2, light-dark(#616161, #bdbdbd)); }
.workbench-panel .error { white-space: pre-wrap; border-left: 4px solid
  var(--jp-error-color1, #d32f2f); padding: 2px 8px; margin: 4px 0;
  color: var(--jp-content-font-color1, light-dark(#212121, #fafafa)); }
.workbench-panel .finding { border-left: 4px solid var(--jp-warn-color1, #f57c00);
  padding: 0 8px; margin: 2px 0; line-height: 1.5;
  color: var(--jp-content-font-color1, light-dark(#212121, #fafafa)); }
.workbench-panel .finding.refuse { border-left-color: var(--jp-error-color1, #d32f2f); }
.workbench-panel .finding.ignored { border-left-color: var(--jp-border-color1, #9e9e9e); }
.workbench-panel .jupyter-button { flex: none; }
/* The arrow of ipywidgets is dark grey, on a dark page too. */
.workbench-panel .widget-dropdown > select { background-image: url("data:image/svg+xml,%3Csvg \
xmlns='http://www.w3.org/2000/svg' viewBox='0 0 18 18'%3E%3Cpath fill='%238a8a8a' \
d='M4 6l5 6 5-6z'/%3E%3C/svg%3E"); }
.workbench-panel pre { margin: 0; max-height: 16em; overflow: auto; white-space: pre-wrap;
  font-family: var(--jp-code-font-family, monospace); font-size: 0.9em;
  color: var(--jp-content-font-color1, light-dark(#212121, #fafafa)); }
.workbench-panel .log { display: flex; flex-direction: column-reverse; /* the end is in view */
  max-height: 16em; overflow: auto; padding: 2px 8px;
  background: var(--jp-layout-color2, light-dark(#f3f4f6, #20252b)); }
.workbench-panel .log pre { flex: none; max-height: none; overflow: visible; }
.workbench-panel .bar { display: flex; height: 14px; max-width: 520px; border-radius: 2px;
  overflow: hidden; background: var(--jp-layout-color3, light-dark(#e0e0e0, #424242)); }
</style>"""


class Panel(widgets.VBox):  # type: ignore[misc]
    """A titled box with an error area and a line that says when it was last updated.

    A frozen panel (its kernel is gone) can be told from a living one by that line.
    """

    def __init__(
        self,
        title: str,
        children: list[widgets.Widget],
        explanations: Mapping[str, str] | None = None,
    ) -> None:
        """Make a panel.

        Args:
            title: Heading, as text.
            children: What is in it.
            explanations: Help texts by the text of the label that they explain.
        """
        self._error = widgets.HTML()
        self._error.layout.display = "none"
        self._updated = widgets.HTML()
        self._error_text = ""
        self._keys = Keys(help=dict(explanations or {}))
        super().__init__(
            [
                widgets.HTML(f"{STYLE}<h3>{html.escape(title)}</h3>"),
                # At the top, where it is seen however long the panel is.
                self._error,
                *children,
                self._updated,
                self._keys,
            ]
        )
        self.add_class("workbench-panel")
        self.touch()

    def explain(self, explanations: Mapping[str, str]) -> None:
        """Show help texts beside other labels than before."""
        self._keys.help = dict(explanations)

    def show_error(self, text: str) -> None:
        """Show a text in the error area; an empty one clears it."""
        self._error_text = text
        self._error.value = f'<div class="error" role="alert">{html.escape(printable(text))}</div>'
        self._error.layout.display = "" if text else "none"

    def touch(self) -> None:
        """Note that the panel shows the state of this moment."""
        now = time.strftime("%H:%M:%S")
        self._updated.value = f'<span class="quiet">last updated {now}</span>'

    @contextmanager
    def boundary(self) -> Iterator[None]:
        """Show errors of a callback or thread in the panel, where a person sees them.

        This is the panels' one boundary: Jupyter would write what passes it to a console that
        nobody looks at. Errors raised on purpose show their sentence; any other is named, and
        its trace goes to the kernel's own standard error.
        """
        try:
            yield
        except WorkbenchError as error:
            self.show_error(str(error))
        except OSError as error:
            where = f" {error.filename}" if error.filename else ""
            self.show_error(printable(f"The system refused{where}: {error.strerror or error}."))
        except Exception as error:  # noqa: BLE001 - see the docstring
            traceback.print_exc()
            self.show_error(f"Unexpected {type(error).__name__}: {error}")

    def in_background(self, work: Callable[..., object], *values: Any) -> None:
        """Do something that takes a while in a thread; its errors show in the panel."""

        def run() -> None:
            with self.boundary():
                work(*values)

        threading.Thread(target=run, daemon=True).start()

    def plain(self) -> str:
        """Return what the panel shows as plain text."""
        raise NotImplementedError

    def static(self) -> str:
        """Return what the panel shows as HTML without widgets, or nothing: the plain text will do.

        All that comes from elsewhere must be escaped in it.
        """
        return ""

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        """Give readers that cannot show widgets the static HTML and the plain text."""
        bundle = super()._repr_mimebundle_(**kwargs)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        text = self.plain()
        # JupyterLab and terminals follow the escape sequences of plain text.
        whole = f"{text}\n\n{self._error_text}" if self._error_text else text
        data["text/plain"] = printable(whole)
        if static := self.static():
            data["text/html"] = static
        return bundle
