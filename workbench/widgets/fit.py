"""The fit of a plan: what each part takes on each GPU, what the build needs, and what if."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import Any

import ipywidgets as widgets

from workbench.build import Plan
from workbench.fit import BuildNeed, Fit, Part
from workbench.fit_plots import COLOURS, fit_record, what_if_record
from workbench.plots import MEDIA_TYPE
from workbench.summaries import fit_lines, need_lines, size_range
from workbench.units import printable
from workbench.whatif import curve_line, what_if_curves


class FitView(widgets.VBox):  # type: ignore[misc]
    """The memory of a plan, as a part of a panel: a bar, the numbers, and what-if curves.

    Figures go to the browser by their media type, in outputs: some 10 KB at a change. Plotly's
    own widget would bring its library along, 5 MB in each notebook that is saved with it.
    """

    def __init__(self) -> None:
        """Show nothing yet."""
        self._plan: Plan | None = None
        self._bar = widgets.Output()
        self._facts = widgets.HTML()
        # Apart from the numbers: what is opened stays open while only these change.
        self._how = widgets.HTML()
        # A real button: the headers of ipywidgets' accordion cannot be reached with the keyboard.
        self.what_if = widgets.ToggleButton(
            value=False,
            description="What if …",
            tooltip="Show how memory follows the limits of batch, length and step",
        )
        self._curves = widgets.Output()
        self._limits = widgets.HTML()
        super().__init__(
            [self._bar, self._facts, self._how, self.what_if, self._curves, self._limits]
        )
        self.what_if.observe(lambda _: self._show_curves(), "value")
        self.show(None)

    def show(self, plan: Plan | None) -> None:
        """Show the memory of a plan; nothing where it is not known."""
        self._plan = plan if plan and plan.fit else None
        self.layout.display = "" if self._plan else "none"
        if plan and plan.fit:
            _put(self._bar, fit_record(plan.fit), plan.fit.summary)
            self._facts.value = facts_html(plan.fit, plan.expected_need)
            self._how.value = how_html(plan.fit, plan.expected_need)
        self._show_curves()

    def plain(self, plan: Plan | None) -> list[str]:
        """Return the same facts as lines of plain text."""
        if not plan or not plan.fit:
            return []
        need = plan.expected_need
        lines = [*fit_lines(plan.fit), *(need_lines(need) if need else [])]
        return [*lines, *map(curve_line, what_if_curves(plan))]

    def _show_curves(self) -> None:
        """Draw the curves, when somebody wants them."""
        wanted = self._plan is not None and self.what_if.value
        for widget in (self._curves, self._limits):
            widget.layout.display = "" if wanted else "none"
        if self._plan and wanted:
            curves = what_if_curves(self._plan)
            lines = [curve_line(curve) for curve in curves]
            _put(self._curves, what_if_record(curves), "\n".join(lines))
            self._limits.value = "".join(
                f'<div class="quiet">{_text(line)}</div>' for line in lines
            )


def facts_html(fit: Fit, need: BuildNeed | None) -> str:
    """Return the numbers of a fit and of a build as tables; all text is escaped."""
    rows = [_row(part, COLOURS[part.name]) for part in fit.parts]
    together = _text(size_range(fit.total_low, fit.total_high))
    rows.append(f'<tr><td>together</td><td class="number">{together}</td></tr>')
    tables = [_table("A session needs", rows)]
    if need:
        tables.append(_table("The build needs", map(_row, _parts_of(need))))
    columns = "".join(f"<div>{table}</div>" for table in tables)
    return (
        f'<div role="status"><b>{_text(fit.summary)}</b></div>'
        f'<div style="display:flex;flex-wrap:wrap;gap:4px 32px">{columns}</div>'
    )


def how_html(fit: Fit, need: BuildNeed | None) -> str:
    """Return how each number was got, to be opened with mouse or keyboard; all is escaped."""
    parts = [*fit.parts, *(_parts_of(need) if need else [])]
    rows = "".join(f"<tr><td>{_text(one.name)}</td><td>{_text(one.how)}</td></tr>" for one in parts)
    return (
        '<details><summary class="quiet">How each number was got</summary>'
        f"<table>{rows}</table></details>"
    )


def _parts_of(need: BuildNeed) -> list[Part]:
    return [need.memory, need.disk, *([need.device] if need.device else [])]


def _table(title: str, rows: Iterable[str]) -> str:
    caption = f'<caption class="quiet" style="text-align:left">{_text(title)}</caption>'
    return f"<table>{caption}{''.join(rows)}</table>"


def _row(part: Part, colour: str = "") -> str:
    """Return a row with a part's range and what it rests on; how it was got is its tooltip."""
    square = f'<span aria-hidden="true" style="color:{colour}">&#9632;</span> ' if colour else ""
    return (
        f'<tr title="{_text(part.how)}"><td>{square}{_text(part.name)}</td>'
        f'<td class="number">{_text(size_range(part.low, part.high))}</td>'
        f'<td class="quiet">{_text(part.basis)}</td></tr>'
    )


def _put(output: widgets.Output, record: dict[str, Any], words: str) -> None:
    """Show a figure in an output, in place of what was there, in room that does not change."""
    output.layout.height = f"{record['layout']['height'] + 10}px"
    data = {MEDIA_TYPE: record, "text/plain": printable(words)}
    output.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)


def _text(text: object) -> str:
    return html.escape(printable(str(text)))
