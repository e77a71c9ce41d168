"""The fit of a plan: how much memory each part takes, as a bar and as numbers."""

from __future__ import annotations

import html

import ipywidgets as widgets

from workbench.build import Plan
from workbench.fit import Fit
from workbench.summaries import fit_lines, size_range

_COLOURS = ("#1976d2", "#00897b", "#8e24aa", "#6d4c41")
"""Of the parts of the memory bar, in their order; each part is named in the table too."""


class FitView(widgets.HTML):  # type: ignore[misc]
    """The memory of a plan, as a part of a panel."""

    def show(self, plan: Plan | None) -> None:
        """Show the memory of a plan; nothing where it is not known."""
        self.value = _fit_html(plan.fit) if plan and plan.fit else ""

    def plain(self, plan: Plan | None) -> list[str]:
        """Return the same facts as lines of plain text."""
        return fit_lines(plan.fit) if plan and plan.fit else []


def _fit_html(fit: Fit) -> str:
    whole = max(fit.device.memory_bytes, fit.total_high)
    bar, rows = [], []
    for number, part in enumerate(fit.parts):
        colour = _COLOURS[number % len(_COLOURS)]
        bar.append(f'<div style="width:{100 * part.high / whole:.2f}%;background:{colour}"></div>')
        rows.append(
            f'<tr title="{html.escape(part.how)}"><td><span style="color:{colour}">&#9632;</span> '
            f'{html.escape(part.name)}</td><td class="number">'
            f"{html.escape(size_range(part.low, part.high))}</td>"
            f'<td class="quiet">{"exact" if part.exact else "estimate"}</td></tr>'
        )
    label = html.escape(f"Memory of {fit.device.name}: {fit.summary}")
    return (
        f'<div class="bar" role="img" aria-label="{label}">{"".join(bar)}</div>'
        f'<table>{"".join(rows)}</table><div class="quiet">{html.escape(fit.summary)}</div>'
    )
