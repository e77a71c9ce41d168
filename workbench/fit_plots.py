"""Figures of memory: what a plan takes, and what it would take with other limits.

They are built as plain records, as plotly's own library in the browser takes them: checking each
property, as plotly's classes do, takes longer (200 ms and more) than a form may think about a
change. `go.Figure(record)` checks one; the tests do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.fit import Fit, Ranks
from workbench.plots import GRID, LAYOUT, TEXT, bars_layout, literal
from workbench.units import format_bytes, format_count
from workbench.whatif import Curve

MIB, GIB = 1 << 20, 1 << 30
SMALL = 8
"""How many times the memory that is needed must be available for the rest to be left out."""

COLOURS = {
    "weights": "#0072B2",
    "KV cache": "#009E73",
    "activations": "#E69F00",
    "runtime": "#CC79A7",
}
"""Of the parts of a fit: Okabe and Ito's colours, which people with any colour vision can tell
apart (jfly.uni-koeln.de/color); what is an estimate is hatched besides."""

CURRENT = "#D55E00"
"""Of the current values, from the same palette."""

NONE, GREY, SHADE = "rgba(0,0,0,0)", "rgba(128,128,128,0.5)", "rgba(0,114,178,0.15)"

Record = dict[str, Any]


def fit_record(fit: Fit) -> Record:
    """Return the memory of a fit as stacked bars, one for all ranks that hold the same.

    What is needed in any case is solid; from the low to the high end of an estimate it is hatched.
    A line marks the memory of the device, unless so much of it is free that nothing else could be
    seen; then the title alone says it.
    """
    bars = bars_of(fit)
    device = fit.device
    devices = [ranks.device for _, ranks in bars]
    small = fit.total_high * SMALL < device.memory_available
    unit, size_of_unit = ("MiB", MIB) if small and fit.total_high < GIB else ("GiB", GIB)
    data: list[Record] = []

    def add(name: str, sizes: list[int], **marker: Any) -> None:
        if any(sizes):
            data.append(_bar([title for title, _ in bars], name, sizes, size_of_unit, marker))

    if not small:
        taken = [one.memory_bytes - one.memory_available for one in devices]
        add("in use by others", taken, color=GREY)
    for number, part in enumerate(fit.parts):
        row, colour = [ranks.parts[number] for _, ranks in bars], COLOURS[part.name]
        add(f"{part.name} (exact)" if part.exact else part.name, [p.low for p in row], color=colour)
        hatch = {"shape": "/", "fgcolor": colour, "bgcolor": NONE, "size": 7}
        rest = [p.high - p.low for p in row]
        add(f"{part.name}, up to", rest, color=colour, pattern=hatch)
    if not small:
        left = [r.device.memory_available - sum(p.high for p in r.parts) for _, r in bars]
        outline = {"color": TEXT, "width": 1}
        add("free", [max(0, size) for size in left], color=NONE, line=outline)
    of = f": needed of {format_bytes(device.memory_available)} available" if small else ""
    names = literal(", ".join(dict.fromkeys(one.name for one in devices)))
    title = f"Memory on {names}{of} ({unit})"
    layout = {
        **bars_layout(len(bars), [trace["name"] for trace in data]),
        "title": {"text": title, "font": {"size": 14}, "x": 0, "xref": "paper"},
        "barmode": "stack",
        "xaxis": {"gridcolor": GRID, "zeroline": False},
        "yaxis": {"autorange": "reversed", "type": "category"},
    }
    if device.memory_bytes and not small and len({one.memory_bytes for one in devices}) == 1:
        layout |= _line(device.memory_bytes)
    return {"data": data, "layout": layout}


def bars_of(fit: Fit) -> list[tuple[str, Ranks]]:
    """Return the title of each bar, and whose it is: one for all ranks that hold the same."""
    if len(fit.ranks) < 2 and all(ranks.first == ranks.last for ranks in fit.ranks):
        return [("session", Ranks(0, 0, fit.parts, fit.device))]
    return [(ranks.title, ranks) for ranks in fit.ranks]


def what_if_record(curves: Sequence[Curve]) -> Record:
    """Return how memory and the number of full-length requests follow each limit.

    Above, the band from the least to the most that is needed together, and what is available as a
    line; below, the requests of full length that the KV cache holds. Diamonds mark the current
    value.
    """
    data: list[Record] = []
    layout: Record = {
        **LAYOUT,
        "height": 370,
        "margin": {"l": 70, "r": 20, "t": 40, "b": 65},
        "legend": {"orientation": "h", "x": 0, "y": -0.14, "yanchor": "top"},
    }
    for number, curve in enumerate(curves):
        data += _traces(curve, number)
        layout |= _axes(curve, number, len(curves))
    titles = []
    for number, curve in enumerate(curves):
        left, right = _span(number, len(curves))
        titles.append(
            _note(curve.parameter, xref="paper", x=(left + right) / 2, yref="paper", y=1.02)
        )
    return {"data": data, "layout": {**layout, "annotations": titles}}


def _traces(curve: Curve, number: int) -> list[Record]:
    """Return the traces of one curve; the legend names what all have in common once."""
    values = list(curve.values)
    low = [fit.total_low / GIB for fit in curve.fits]
    high = [fit.total_high / GIB for fit in curve.fits]
    requests = [fit.full_length_requests for fit in curve.fits]
    band = {"mode": "lines", "line": {"color": COLOURS["weights"], "width": 1}}
    hatch = {"shape": "/", "fgcolor": COLOURS["weights"], "bgcolor": SHADE, "size": 7}
    above, below = ({"xaxis": f"x{n}", "yaxis": f"y{n}"} for n in _numbers(number))
    count = {"mode": "lines+markers", "line": {"color": COLOURS["KV cache"]}}
    traces: list[Record] = [
        {"name": "least", "x": values, "y": low, "showlegend": False, **band, **above},
        {"name": "from least to most", "x": values, "y": high, **band, **above}
        | {"fill": "tonexty", "fillpattern": hatch},
        {"name": "full-length requests", "x": values, "y": requests, **count, **below},
    ]
    if available := curve.fits[0].device.memory_available:
        dash = {"mode": "lines", "line": {"color": TEXT, "dash": "dash", "width": 2}}
        ends = {"x": [values[0], values[-1]], "y": [available / GIB] * 2}
        traces.append({"name": "available", **ends, **dash, **above})
    if curve.current in values:
        now = values.index(curve.current)
        # Also where it lies on the edge of the plot, it is seen whole.
        mark = {
            "mode": "markers",
            "cliponaxis": False,
            "marker": {"symbol": "diamond", "size": 10, "color": CURRENT},
        }
        x = curve.current
        traces.append({"name": "now", "x": [x, x], "y": [low[now], high[now]], **mark, **above})
        traces.append(
            {"name": "now", "x": [x], "y": [requests[now]], "showlegend": False, **mark, **below}
        )
    return [{"showlegend": number == 0, "legendgroup": t["name"], **t} for t in traces]


def _axes(curve: Curve, number: int, columns: int) -> Record:
    """Return the axes of a curve: memory above, requests below, over one logarithmic scale."""
    above, below = _numbers(number)
    ticks = list(curve.values[:: -(-len(curve.values) // 4)])
    x = {
        "type": "log",
        "gridcolor": GRID,
        "tickvals": ticks,
        "ticktext": [format_count(value) for value in ticks],
        "domain": _span(number, columns),
    }
    y = {"gridcolor": GRID, "rangemode": "tozero", "zeroline": False}
    titles = ("needed (GiB)", "requests") if number == 0 else ("", "")
    return {
        f"xaxis{above}": {**x, "anchor": f"y{above}", "showticklabels": False},
        f"xaxis{below}": {**x, "anchor": f"y{below}", "matches": f"x{above}"},
        f"yaxis{above}": {**y, "anchor": f"x{above}", "domain": [0.42, 1]}
        | {"title": {"text": titles[0]}},
        f"yaxis{below}": {**y, "anchor": f"x{below}", "domain": [0, 0.36]}
        | {"title": {"text": titles[1]}},
    }


def _numbers(number: int) -> tuple[str, str]:
    """Return the numbers of the upper and lower axes of a curve; plotly's first has none."""
    return str(2 * number + 1) if number else "", str(2 * number + 2)


def _span(number: int, columns: int) -> list[float]:
    """Return the left and the right end of a column, as parts of the figure's width."""
    gap = 0.07
    width = (1 - gap * (columns - 1)) / columns
    left = number * (width + gap)
    return [left, min(1, left + width)]


def _bar(
    titles: Sequence[str], name: str, sizes: Sequence[int], unit: int, marker: Record
) -> Record:
    """Return one use of memory on all bars."""
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "x": [size / unit for size in sizes],
        "y": list(titles),
        "marker": {"line": {"width": 0}, **marker},
        "customdata": [format_bytes(size) for size in sizes],
        "hovertemplate": "%{customdata}<extra>" + name + "</extra>",
    }


def _line(memory: int) -> Record:
    """Return a line at the memory of a device, with its size above it."""
    x = memory / GIB
    line = {"type": "line", "xref": "x", "x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1}
    return {
        "shapes": [{**line, "line": {"color": TEXT, "width": 2}}],
        "annotations": [_note(format_bytes(memory), xref="x", x=x, yref="paper", y=1)],
    }


def _note(text: str, **place: Any) -> Record:
    return {"text": text, "showarrow": False, "yanchor": "bottom", "font": {"color": TEXT}, **place}
