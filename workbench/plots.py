"""Plotly figures from records; they know no widget."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from workbench.units import printable

MEDIA_TYPE = "application/vnd.plotly.v1+json"

_COLOUR = "#1976d2"


def latency_figure(record: Mapping[str, Any] | None) -> go.Figure:
    """Return the time that each token of a generation took, in milliseconds.

    Args:
        record: Of a generation (`Generation.record`, `StreamPanel.record`), or None before the
            first.
    """
    figure = go.Figure()
    if not record or record["ttft"] is None:
        return empty_figure(figure, "Nothing was streamed yet. Run this cell again after a stream.")
    gaps = [1000 * seconds for seconds in record["itl_seconds"]]
    figure.add_bar(x=list(range(2, len(gaps) + 2)), y=gaps, marker_color=_COLOUR, name="ITL")
    if gaps:
        median = 1000 * record["itl"]["p50"]
        figure.add_hline(y=median, line_dash="dot", annotation_text=f"p50 {median:.3g} ms")
    tokens, ttft = literal(record["output_tokens"]), 1000 * record["ttft"]
    figure.update_layout(
        title=f"{tokens} tokens, the first after {ttft:.3g} ms",
        xaxis={"title": "token", "gridcolor": GRID, "zeroline": False},
        yaxis={"title": "inter-token latency (ms)", "gridcolor": GRID, "zerolinecolor": GRID},
        **LAYOUT,
    )
    return figure


def stages_figure(manifests: Sequence[Mapping[str, Any]]) -> go.Figure:
    """Return how long each stage of builds took, in seconds, a bar for each build.

    Args:
        manifests: Of engines, the first at the top (`[e.manifest for e in list_engines()]`).
    """
    figure = go.Figure()
    if not manifests:
        return empty_figure(
            figure, "The store holds no engine yet. Run this cell again after a build."
        )
    keys = [str(manifest.get("key", ""))[:12] for manifest in manifests]
    seconds: dict[str, list[float | None]] = {}
    for place, manifest in enumerate(manifests):
        for stage in manifest["build"]["stages"]:
            row = seconds.setdefault(stage.get("title", stage["name"]), [None] * len(keys))
            row[place] = stage["seconds"]
    for title, times in seconds.items():
        figure.add_bar(x=times, y=keys, name=literal(title), orientation="h")
    plural = "s" if len(keys) > 1 else ""
    figure.update_layout(
        **bars_layout(len(keys), list(seconds)),
        title=f"The stages of {len(keys)} build{plural}",
        barmode="stack",
        xaxis={
            "title": {"text": "time (s)", "standoff": 4},
            "gridcolor": GRID,
            "zeroline": False,
        },
        yaxis={"autorange": "reversed", "type": "category"},
    )
    return figure


def bars_layout(bars: int, names: Sequence[str]) -> dict[str, Any]:
    """Return the layout of horizontal bars with a legend below them, with room for all of it.

    A legend beside few bars is higher than they are, and plotly cuts what is too high.

    Args:
        bars: Their number.
        names: Of the entries of the legend.
    """
    # Plotly gives each entry the width of the longest: some 7 px a letter, and the sample.
    columns = max(1, 760 // (45 + 7 * max(map(len, names))))
    legend = 22 * -(-len(names) // columns)
    plot = 20 + 30 * bars
    return {
        **LAYOUT,
        "height": 50 + plot + 50 + legend,
        "margin": {"l": 120, "r": 20, "t": 50, "b": 50 + legend},
        "legend": {
            "orientation": "h",
            "traceorder": "normal",
            "x": 0,
            "y": -45 / plot,
            "yanchor": "top",
        },
        "showlegend": True,
    }


def literal(text: object) -> str:
    """Return what shows a text from elsewhere in a figure as it is.

    Plotly takes its texts (titles, names, labels, hover texts) for markup: some tags, links among
    them, entities, formulas between dollar signs, and fields of hover templates.
    """
    escaped = html.escape(printable(str(text)), quote=False)
    return escaped.replace("$", "&#36;").replace("%{", "%&#123;")


def show(figure: go.Figure) -> None:
    """Display a figure in a notebook by its media type.

    Plotly's own way of displaying would write its library, several MB, into the notebook.
    """
    from IPython.display import display  # noqa: PLC0415 - only inside a notebook

    title = figure.layout.title.text or " ".join(a.text for a in figure.layout.annotations)
    words = f"Figure: {printable(html.unescape(title))}"
    display({MEDIA_TYPE: json.loads(figure.to_json()), "text/plain": words}, raw=True)


TEXT = "#7a7a7a"
"""Colour of all words: as far from white (4.3 to 1) as from the black of dark pages."""

GRID = "rgba(128,128,128,0.25)"

LAYOUT: dict[str, Any] = {
    "height": 300,
    "margin": {"l": 60, "r": 20, "t": 50, "b": 50},
    # Transparent, so that a figure takes the page's background, light or dark.
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
    "font": {"color": TEXT},
}
"""What all figures share."""


def empty_figure(figure: go.Figure, sentence: str) -> go.Figure:
    """Return a figure as high as the one sentence that it shows."""
    figure.add_annotation(text=sentence, showarrow=False)
    empty = {"height": 60, "margin": {"l": 10, "r": 10, "t": 10, "b": 10}}
    return figure.update_layout(
        **{**LAYOUT, **empty}, xaxis={"visible": False}, yaxis={"visible": False}
    )
