"""The compare panel: candidates as points and as lines, differences from a baseline, hand-over."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets

from workbench import results, store
from workbench.axes import AXES, COST, THROUGHPUT, find_axis
from workbench.backends import get_backend, make_spec
from workbench.candidates import Candidate
from workbench.compare_plots import engines_record, trade_off_record
from workbench.comparison import Comparison
from workbench.errors import InputError, StoreError, TrialError
from workbench.plots import MEDIA_TYPE
from workbench.trial_words import trial_lines
from workbench.units import printable
from workbench.widgets.lists import ListPanel, Row, hidden
from workbench.widgets.points import ChartPoints

SHORT = {
    THROUGHPUT: "tokens/s",
    "ttft.p50": "TTFT p50 ms",
    "quality.token_match": "match %",
    COST: "$/M tokens",
}
"""Figures of the table, and their headings; the chosen line has all of them."""

TABLE = (
    ("point", ""),
    ("what", "wide"),
    *((SHORT[name], "number") for name in SHORT),
)


class ComparePanel(ListPanel):
    """Shows what was measured side by side; `engine` is the one that was handed over.

    The points of the chart bear the numbers of the table. Choosing a line, or clicking a point,
    shows the command that measures it again, and hands its engine to the panels that follow this
    one. Headless it is a table.
    """

    WHAT = "points"
    TICKS = 25
    """Trials come seldom, and every record is read for the list."""

    def __init__(
        self,
        *,
        text: str = "",
        baseline: str = "",
        price: float | None = None,
        x: str = "e2e.p50",
        y: str = THROUGHPUT,
        show: int = 50,
    ) -> None:
        """Show the panel.

        Args:
            text: Only points whose words contain these.
            baseline: What the others are compared with, see `Comparison.make`.
            price: Of a device for an hour, in dollars.
            x: Name of the axis across, see `workbench.axes`.
            y: Name of the axis upwards.
            show: Lines at first.

        Raises:
            InputError: There is no such baseline, price or axis.
        """
        find_axis(x), find_axis(y)
        # Raises for what cannot be compared, before anything is shown.
        self.comparison = Comparison.make(text=text, baseline=baseline, price=price)
        # By the trial: numbers are ranks, which change when a faster one comes.
        chosen = self.comparison.baseline
        self._baseline = chosen.newest.id if chosen else ""
        self._drawn: tuple[Any, ...] = ()
        self._id = ""
        options = [(axis.label, axis.name) for axis in AXES.values()]
        wide = widgets.Layout(width="300px")
        style = {"description_width": "50px"}
        self.x = widgets.Dropdown(
            options=options, value=x, description="across", layout=wide, style=style
        )
        self.y = widgets.Dropdown(
            options=options, value=y, description="up", layout=wide, style=style
        )
        self.price = widgets.Text(
            value="" if price is None else f"{price:g}",
            description="$ per device and hour",
            placeholder="none",
            continuous_update=False,
            layout=widgets.Layout(width="260px"),
            style={"description_width": "160px"},
        )
        self.chart = widgets.Output()
        self.points = ChartPoints(self._choose_point)
        self.engines = widgets.Output()
        self._title = widgets.HTML()
        self._command = widgets.HTML()
        self._notes = widgets.HTML()
        self.use_button = widgets.Button(
            description="Use engine", tooltip="Give this engine to the panels that follow this one"
        )
        self.baseline_button = widgets.Button(
            description="Make baseline", tooltip="Show what all others differ from this one"
        )
        # A real button: the headers of ipywidgets' accordion cannot be reached with the keyboard.
        self.engines_button = widgets.ToggleButton(
            description="The engines", tooltip="Show build time, size, memory and quality"
        )
        buttons = widgets.HBox([self.use_button, self.baseline_button])
        self._details = widgets.VBox([self._title, buttons, self._command])
        for widget in (self._details, self.engines):
            hidden(widget, None)
        super().__init__(
            "Compare",
            TABLE,
            above=[self.x, self.y, self.price],
            below=[
                self._details,
                self._notes,
                self.chart,
                self.points,
                self.engines_button,
                self.engines,
            ],
            text=text,
            show=show,
        )
        for field in (self.x, self.y, self.price):
            field.observe(lambda _: self._change_axes(), "value")
        self.use_button.on_click(lambda _: self.use())
        self.baseline_button.on_click(lambda _: self.make_baseline())
        self.engines_button.observe(lambda _: self._draw(), "value")
        self.refresh()

    def _change_axes(self) -> None:
        self.show_error("")
        self.refresh()

    def use(self) -> None:
        """Hand the engine of the chosen point to those who follow this panel."""
        self.show_error("")
        with self.boundary():
            candidate = self._sure()
            if not candidate.key:
                raise StoreError(
                    "This was measured on a server or by another tool: there is no engine of it "
                    "here."
                )
            engine = store.find_engine(candidate.key)
            if candidate.newest.spec.get("backend") != "endpoint":  # else a server of ours had it
                # Candidates that share an engine differ in the limits that they load it with.
                spec = make_spec(candidate.newest.spec)
                engine = engine.under(get_backend(spec.backend).limits(spec))
            self._hand_out(engine)

    def make_baseline(self) -> None:
        """Compare all others with the chosen point; once more, with none."""
        self.show_error("")
        with self.boundary():
            name = self._sure().newest.id
            self._baseline = "" if name == self._baseline else name
        self.refresh()

    def plain(self) -> str:
        """Return the table, what must be known of it and the chosen point as plain text."""
        chosen = self._candidate()
        words = ["", *trial_lines(chosen.newest), chosen.command] if chosen else []
        return "\n".join([*self.comparison.lines(), *words]).rstrip()

    def static(self) -> str:
        """Return the table as HTML without widgets."""
        return f"{super().static()}{self._notes.value}"

    def record(self) -> list[dict[str, Any]]:
        """Return every figure of every point that the filter leaves, as plain values."""
        return self.comparison.record()

    def _rows(self, words: Sequence[str], count: int) -> tuple[list[Row], int]:
        self.comparison = shown = Comparison.make(
            results.list_trials(),
            text=" ".join(words),
            baseline=self._baseline,
            price=_price(self.price.value),
        )
        self.table.empty = next(iter(shown.notes()), "")
        notes = shown.notes() if shown.candidates else []
        told = "".join(f"<div>{html.escape(printable(note))}</div>" for note in notes)
        self._notes.value = f'<div class="quiet" role="status">{told}</div>'
        axes = [AXES[name] for name in SHORT]
        self._draw()
        return [
            [
                c.newest.id,
                shown.name(c),
                c.label,
                *(shown.cell(c, axis, unit=False) for axis in axes),
            ]
            for c in shown.candidates[:count]
        ], len(shown.candidates)

    def _choose(self, name: str) -> None:
        self._id = name
        candidate = self._candidate()
        hidden(self._details, candidate)
        if candidate:
            text = html.escape("\n".join(trial_lines(candidate.newest)))
            self._title.value = f"<h3>Point {candidate.number}</h3><pre>{text}</pre>"
            self._command.value = _repeat(candidate.command)
            self.use_button.disabled = not candidate.key
        self._draw()

    def _choose_point(self, name: str) -> None:
        """Choose what was clicked in the chart, where it is one of its points."""
        if name in [candidate.newest.id for candidate in self.comparison.candidates]:
            self.choose(name)

    def _candidate(self) -> Candidate | None:
        """Return the chosen candidate; a newer trial of the same point counts for it too."""
        return next(
            (
                candidate
                for candidate in self.comparison.candidates
                if self._id in [trial.id for trial in candidate.trials]
            ),
            None,
        )

    def _sure(self) -> Candidate:
        """Return the chosen candidate.

        Raises:
            TrialError: None is chosen, or it is gone.
        """
        candidate = self._candidate()
        if candidate is None:
            raise TrialError("No point is chosen. Choose a line of the table.")
        return candidate

    def _draw(self) -> None:
        """Draw the figures anew where they would differ; what was drawn keeps its zoom."""
        chosen = self._candidate()
        number = chosen.number if chosen else 0
        record = trade_off_record(self.comparison, self.x.value, self.y.value, chosen=number)
        costs = engines_record(self.comparison) if self.engines_button.value else None
        hidden(self.engines, costs)
        if self._drawn != (record, costs):
            self._drawn = (record, costs)
            _put(self.chart, record)
            if costs:
                _put(self.engines, costs)


def _price(text: str) -> float | None:
    """Return the price that was typed; none where nothing was.

    Raises:
        InputError: It is no number.
    """
    if not text.strip():
        return None
    try:
        return float(text.strip().removeprefix("$"))
    except ValueError:
        raise InputError(f"The price must be a number of dollars; got '{text}'.") from None


def _repeat(line: str) -> str:
    """Show the command line that measures the same once more."""
    if not line:
        return '<span class="quiet">No command here measures this again.</span>'
    told = '<span class="quiet">Measure it again on the command line:</span>'
    return f"{told}<pre>{html.escape(printable(line))}</pre>"


def _put(output: widgets.Output, record: dict[str, Any]) -> None:
    """Show a figure in an output, in place of what was there, in room that does not change."""
    output.layout.height = f"{record['layout']['height'] + 10}px"
    title = record["layout"].get("title", {}).get("text", "")
    data = {MEDIA_TYPE: record, "text/plain": f"Figure: {printable(title)}"}
    output.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)
