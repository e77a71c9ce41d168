"""Figures of a comparison: two figures against each other, and what engines cost before they run.

Plain records, as in `workbench.fit_plots` and for the same reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from workbench.axes import AXES, COST, THROUGHPUT, Axis, Interval, find_axis, predicted_axis
from workbench.candidates import Candidate
from workbench.comparison import Comparison
from workbench.plots import GRID, LAYOUT, TEXT, literal

Record = dict[str, Any]

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")
"""Okabe and Ito's, as in `workbench.fit_plots`; the symbol tells series apart as well."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "pentagon", "star")

DASHES = ("dash", "dot", "dashdot", "longdash")
"""Of the frontiers of different groups."""

COSTS = (
    "engine.build_seconds",
    "engine.bytes",
    "memory.host_peak_bytes",
    "memory.gpu_bytes",
    "quality.token_match",
    "quality.mean_kl",
)
"""What an engine costs, and what it loses, whatever load it is under."""

HOVER = (THROUGHPUT, "ttft.p50", "itl.p50", "e2e.p99", COST, "quality.token_match",
         f"predicted.{THROUGHPUT}", "predicted.ttft", "predicted.itl")  # fmt: skip
"""Figures that are shown where somebody points at a candidate."""

NO_FIGURE = "Nothing that was measured has both of these figures."


def trade_off_record(comparison: Comparison, x: str, y: str, *, chosen: int = 0) -> Record:
    """Return two figures of all candidates against each other, with the Pareto frontiers.

    Points bear the numbers of the table; bars reach from the lowest to the highest repetition. A
    ring marks the chosen one, a square frame the baseline. Where both figures were predicted, a
    dotted line leads to the prediction.

    Args:
        comparison: What is compared.
        x: Name of the axis across.
        y: Name of the axis upwards.
        chosen: Number of a candidate; 0 for none.

    Raises:
        InputError: There is no such axis.
    """
    plane = _Plane.of(comparison, find_axis(x), find_axis(y))
    if not comparison.candidates:
        return sentence_record(comparison.notes()[0])
    if not plane.places:
        return sentence_record(NO_FIGURE)
    lines = comparison.frontiers(plane.x, plane.y).items()
    data = [plane.frontier(place, *found) for place, found in enumerate(lines)]
    members: dict[str, list[Candidate]] = {}
    for candidate in comparison.candidates:
        if candidate.number in plane.places:
            members.setdefault(candidate.series, []).append(candidate)
    data += [plane.series(comparison, place, *found) for place, found in enumerate(members.items())]
    data += plane.predictions(comparison)
    baseline = comparison.baseline.number if comparison.baseline else 0
    data += plane.mark(baseline, "baseline", "square-open")
    data += plane.mark(chosen, "chosen", "circle-open")
    return {"data": data, "layout": _layout(plane.x, plane.y)}


@dataclass(frozen=True)
class _Plane:
    """Two axes, and where candidates lie between them, by their numbers."""

    x: Axis
    y: Axis
    places: dict[int, tuple[Interval, Interval]]

    @classmethod
    def of(cls, comparison: Comparison, x: Axis, y: Axis) -> _Plane:
        places = {
            c.number: (across, up)
            for c in comparison.candidates
            if (across := comparison.figure(c, x)) and (up := comparison.figure(c, y))
        }
        return cls(x, y, places)

    def medians(self, numbers: Iterable[int]) -> Record:
        """Return where some candidates lie, as plotly takes it."""
        found = [self.places[number] for number in numbers]
        return {
            "x": [across.median * self.x.scale for across, _ in found],
            "y": [up.median * self.y.scale for _, up in found],
        }

    def series(
        self, comparison: Comparison, place: int, name: str, members: Sequence[Candidate]
    ) -> Record:
        """Return the points of one series."""
        colour = COLOURS[place % len(COLOURS)]
        found = [self.places[c.number] for c in members]
        return {
            "type": "scatter",
            "mode": "markers+text",
            "name": literal(name),
            **self.medians(c.number for c in members),
            "error_x": _bars([across for across, _ in found], self.x, colour),
            "error_y": _bars([up for _, up in found], self.y, colour),
            "text": [str(c.number) for c in members],
            # By which whoever hears of a click knows the point.
            "ids": [c.newest.id for c in members],
            "textposition": "top center",
            "textfont": {"color": TEXT},
            "cliponaxis": False,
            "marker": {"color": colour, "size": 11, "symbol": SYMBOLS[place % len(SYMBOLS)]},
            "customdata": [hover(comparison, c) for c in members],
            "hovertemplate": "%{customdata}<extra></extra>",
        }

    def frontier(self, place: int, group: str, line: Sequence[Candidate]) -> Record:
        """Return the line through what no other of its group beats in both figures."""
        return {
            "type": "scatter",
            "mode": "lines",
            "name": f"Pareto frontier{f' of {literal(group)}' if group else ''}",
            **self.medians(c.number for c in line),
            "line": {"color": TEXT, "dash": DASHES[place % len(DASHES)], "width": 1.5},
            "hoverinfo": "skip",
        }

    def predictions(self, comparison: Comparison) -> list[Record]:
        """Return a line from each candidate to what was predicted of it, where that is known."""
        axes = predicted_axis(self.x), predicted_axis(self.y)
        across: list[float | None] = []
        up: list[float | None] = []
        for candidate in comparison.candidates:
            guess = [axis and comparison.figure(candidate, axis) for axis in axes]
            if candidate.number in self.places and guess[0] and guess[1]:
                found = self.places[candidate.number]
                # The gap ends the line.
                across += [found[0].median * self.x.scale, guess[0].median * self.x.scale, None]
                up += [found[1].median * self.y.scale, guess[1].median * self.y.scale, None]
        if not across:
            return []
        line = {"color": TEXT, "dash": "dot", "width": 1}
        marker = {"symbol": "star-open", "size": [0, 10, 0] * (len(across) // 3), "color": TEXT}
        shown = {"type": "scatter", "mode": "lines+markers", "name": "predicted, not measured"}
        return [
            {**shown, "x": across, "y": up, "line": line, "marker": marker, "hoverinfo": "skip"}
        ]

    def mark(self, number: int, name: str, symbol: str) -> list[Record]:
        """Return the frame of one candidate, where that is in the plane."""
        if number not in self.places:
            return []
        frame = {"symbol": symbol, "size": 20, "color": TEXT, "line": {"width": 2}}
        shown = {"type": "scatter", "mode": "markers", "name": name, "cliponaxis": False}
        return [{**shown, **self.medians([number]), "hoverinfo": "skip", "marker": frame}]


def hover(comparison: Comparison, candidate: Candidate) -> str:
    """Return what is shown where somebody points at a candidate: what it is, and its figures."""
    words = [f"{candidate.number}: {candidate.label}", candidate.newest.title, candidate.device]
    words += [
        f"{axis.title} {_range(axis, figure)}"
        for axis in comparison.axes(HOVER)
        if (figure := comparison.figure(candidate, axis))
    ]
    wrapped = [part for line in words for part in _wrap(line)]
    return "<br>".join(literal(line) for line in wrapped)


def _range(axis: Axis, figure: Interval) -> str:
    if figure.count == 1:
        return axis.shown(figure.median)
    ends = f"{axis.digits(figure.low)} to {axis.shown(figure.high)}"
    return f"{axis.shown(figure.median)} ({ends} in {figure.count} repetitions)"


def _wrap(line: str, width: int = 70) -> list[str]:
    """Return a line in parts that fit a hover box; plotly breaks none itself."""
    lines = [""]
    for word in line.split(" "):
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _bars(found: Sequence[Interval], axis: Axis, colour: str) -> Record:
    """Return error bars from the lowest to the highest repetition; none where there is one."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [(figure.high - figure.median) * axis.scale for figure in found],
        "arrayminus": [(figure.median - figure.low) * axis.scale for figure in found],
        "visible": any(figure.count > 1 for figure in found),
        "color": colour,
        "thickness": 1.5,
    }


def _layout(across: Axis, up: Axis) -> Record:
    def axis(given: Axis) -> Record:
        better = "higher" if given.higher else "lower"
        text = f"{literal(given.label)}, {better} is better"
        return {"title": {"text": text, "standoff": 6}, "gridcolor": GRID, "zeroline": False}

    title = f"{literal(up.title)} against {literal(across.title)}"
    return {
        **LAYOUT,
        "height": 440,
        "margin": {"l": 70, "r": 25, "t": 45, "b": 90},
        "title": {"text": title, "font": {"size": 14}, "x": 0, "xref": "paper"},
        "xaxis": axis(across),
        "yaxis": axis(up),
        "legend": {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"},
        "showlegend": True,
        "hoverlabel": {"align": "left"},
    }


def trade_off_figure(comparison: Comparison, x: str, y: str) -> go.Figure:
    """Return `trade_off_record` as a figure, for notebooks.

    Raises:
        InputError: There is no such axis.
    """
    return go.Figure(trade_off_record(comparison, x, y))


def engines_figure(comparison: Comparison) -> go.Figure:
    """Return `engines_record` as a figure, for notebooks."""
    return go.Figure(engines_record(comparison))


def engines_record(comparison: Comparison) -> Record:
    """Return what each engine costs: build time, size, memory, quality, a column for each.

    Of candidates that share an engine the highest figure counts.
    """
    engines: dict[str, list[Candidate]] = {}
    for candidate in comparison.candidates:
        if candidate.key:
            engines.setdefault(candidate.key, []).append(candidate)
    columns = [
        axis for axis in (AXES[name] for name in COSTS) if _column(comparison, axis, engines)
    ]
    if not columns:
        return sentence_record("No engine of this store was measured yet.")
    names = [f"{literal(members[0].series)} {key[:6]}" for key, members in engines.items()]
    layout: Record = {
        **LAYOUT,
        "height": 130 + 28 * len(names),
        "margin": {"l": 130, "r": 40, "t": 45, "b": 65},
        "yaxis": {"autorange": "reversed", "type": "category"},
        "title": {"text": "The engines", "font": {"size": 14}, "x": 0, "xref": "paper"},
        "showlegend": False,
    }
    data = []
    width = 1 / len(columns)
    for place, axis in enumerate(columns):
        number = str(place + 1) if place else ""
        values = _column(comparison, axis, engines)
        data.append(_costs(axis, names, values, f"x{number}"))
        span = [place * width, (place + 1) * width - 0.04]
        layout[f"xaxis{number}"] = {
            "domain": span,
            "title": {"text": f"{literal(axis.title)}<br>{literal(axis.unit)}", "standoff": 4},
            "gridcolor": GRID,
            "zeroline": False,
            # The figures stand beside the bars.
            "range": [0, 1.4 * axis.scale * max(value or 0 for value in values)],
            "nticks": 4,
        }
    return {"data": data, "layout": layout}


def _column(
    comparison: Comparison, axis: Axis, engines: dict[str, list[Candidate]]
) -> list[float | None]:
    """Return a figure of each engine; nothing where no engine has it."""
    found = []
    for members in engines.values():
        figures = [figure.high for c in members if (figure := comparison.figure(c, axis))]
        found.append(max(figures) if figures else None)
    return found if any(value is not None for value in found) else []


def _costs(axis: Axis, names: Sequence[str], values: Sequence[float | None], x: str) -> Record:
    """Return the bars of one column, with their figures beside them."""
    return {
        "type": "bar",
        "orientation": "h",
        "xaxis": x,
        "yaxis": "y",
        "x": [None if value is None else value * axis.scale for value in values],
        "y": list(names),
        "text": ["" if value is None else axis.digits(value) for value in values],
        "textposition": "outside",
        "textfont": {"color": TEXT},
        "cliponaxis": False,
        "marker": {"color": COLOURS[0]},
        "hovertemplate": f"{literal(axis.title)} %{{text}} {literal(axis.unit)}<extra></extra>",
    }


def sentence_record(sentence: str) -> Record:
    """Return a figure as high as the one sentence that it shows."""
    note = {"text": literal(sentence), "showarrow": False, "font": {"color": TEXT}}
    return {
        "data": [],
        "layout": {
            **LAYOUT,
            "height": 60,
            "margin": {"l": 10, "r": 10, "t": 10, "b": 10},
            "annotations": [note],
            "xaxis": {"visible": False},
            "yaxis": {"visible": False},
        },
    }
