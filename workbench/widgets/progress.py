"""What panels show of one job: its state, stages with times, what is counted, and the log's end."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from workbench.build import Plan
from workbench.files import read_end
from workbench.history import Range, peak_range, stage_ranges
from workbench.jobs import Job
from workbench.journal import Stage, View
from workbench.recipe import stage_order
from workbench.summaries import fact_line, remaining, stage_line, state_line
from workbench.units import format_seconds, printable

LOG_LINES = 60


class Progress(widgets.VBox):  # type: ignore[misc]
    """Stages, counts and log of one job; `state` is a line of its own, for wherever it fits."""

    def __init__(self, *, log: bool = False) -> None:
        """Show no job yet.

        Args:
            log: Unfold the end of the log.
        """
        self.job: Job | None = None
        self.view: View | None = None
        self._ranges: Mapping[str, Range] = {}
        self._peak: Range | None = None
        self._order: Sequence[str] = ()
        self.state = widgets.HTML()
        self.stages = widgets.HTML()
        self.log_end = widgets.HTML()
        self._bar = widgets.IntProgress(layout=widgets.Layout(width="520px", max_width="100%"))
        self._bar.layout.display = "none"
        # A real button: the headers of ipywidgets' accordion cannot be reached with the keyboard.
        self.log_button = widgets.ToggleButton(
            value=log, description="Log", tooltip="Show the end of what the job has printed"
        )
        super().__init__([self.stages, self._bar, self.log_button, self.log_end])
        self.log_button.observe(lambda _: self._unfold(), "value")
        self._unfold()

    def expect(self, plan: Plan) -> None:
        """Take times and memory from past builds like the one that will be shown."""
        quantization = str(getattr(plan.spec, "quantization", ""))
        family = (plan.backend.name, quantization, plan.model.parameters, plan.device.name)
        self._ranges, self._peak = stage_ranges(*family), peak_range(*family)
        self._order = stage_order(plan.backend)

    def clear(self) -> None:
        """Forget the job that was shown, and what was expected of it."""
        self.job = self.view = None
        self._ranges, self._peak, self._order = {}, None, ()
        self.say("")
        self.stages.value = self.log_end.value = ""
        self._bar.layout.display = "none"

    def show(self, job: Job, view: View) -> None:
        """Show a job as its view says."""
        self.job, self.view = job, view
        now = time.time()
        self.say(state_line(view, remaining(view, self._ranges, self._order, now), now))
        self.stages.value = stages_html(view, self._ranges, now, self._peak)
        self._count(view)
        self.log_end.value = _log(tail(job.log))

    def say(self, text: str) -> None:
        """Show a sentence in place of the state."""
        self.state.value = f'<span role="status">{html.escape(printable(text))}</span>'

    def lines(self) -> list[str]:
        """Return notes, stages and facts as plain text."""
        if self.view is None:
            return []
        stages = [stage_line(stage, self._ranges) for stage in self.view.stages.values()]
        return [*self.view.notes, *stages, *filter(None, [fact_line(self.view, self._peak)])]

    def _unfold(self) -> None:
        self.log_end.layout.display = "" if self.log_button.value else "none"

    def _count(self, view: View) -> None:
        """Show a bar only where something real is counted."""
        counted = [s for s in view.stages.values() if s.ended is None and s.total]
        self._bar.layout.display = "" if counted and view.end is None else "none"
        if counted:
            self._bar.max, self._bar.value = counted[0].total, counted[0].done


def stages_html(
    view: View, ranges: Mapping[str, Range], now: float, peak: Range | None = None
) -> str:
    """Return notes, a table of the stages, and facts as HTML; all that they say is text."""
    notes = "".join(
        f'<div class="quiet">{html.escape(printable(note))}</div>' for note in view.notes
    )
    rows = "".join(_stage_row(stage, ranges, now) for stage in view.stages.values())
    facts = html.escape(fact_line(view, peak))
    return f'{notes}<table>{rows}</table><div class="quiet">{facts}</div>'


def _stage_row(stage: Stage, ranges: Mapping[str, Range], now: float) -> str:
    mark = "&#10007;" if stage.broken else "&#10003;" if stage.ended else "&#8230;"
    count = f"{stage.done}/{stage.total} {printable(stage.unit)}" if stage.total else ""
    past = str(ranges[stage.name]) if stage.name in ranges and not stage.ended else ""
    cells: list[tuple[str, Any]] = [
        ("number", format_seconds(stage.seconds(now))),
        ("number", count),
        ("quiet", past),
    ]
    columns = "".join(f'<td class="{kind}">{html.escape(str(text))}</td>' for kind, text in cells)
    return f"<tr><td>{mark} {html.escape(printable(stage.title))}</td>{columns}</tr>"


def _log(end: str) -> str:
    if end == "<pre></pre>":
        return '<span class="quiet">The job has printed nothing.</span>'
    return f'<div class="log">{end}</div>'


def tail(path: Path) -> str:
    """Return the end of a log as HTML; what it says is text, whatever it looks like."""
    text = read_end(path, 16_384)
    # A progress bar writes over its line; what stood last is what a terminal would show.
    lines = [line.rpartition("\r")[2] for line in text.rstrip().replace("\r\n", "\n").split("\n")]
    return f"<pre>{html.escape(printable(chr(10).join(lines[-LOG_LINES:])))}</pre>"
