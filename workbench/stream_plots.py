"""Plotly figures of streams: what many at once give together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from workbench.plots import GRID, LAYOUT, empty_figure, literal


def scaling_figure(
    records: Sequence[Mapping[str, Any]], max_batch_size: int | None = None, title: str = ""
) -> go.Figure:
    """Return the total tokens/s against the number of streams, as they were measured.

    Args:
        records: Of batches (`many.Batch.record`).
        max_batch_size: Of the engine, marked where it is known: beyond it requests wait.
        title: What was measured.
    """
    figure = go.Figure()
    measured = sorted(
        (r for r in records if r["tokens_per_second"]), key=lambda record: record["streams"]
    )
    if not measured:
        return empty_figure(figure, "Nothing was measured yet. Run this cell again after a batch.")
    streams = [record["streams"] for record in measured]
    speeds = [record["tokens_per_second"] for record in measured]
    figure.add_scatter(x=streams, y=speeds, mode="markers", marker_color="#1976d2", name="measured")
    if max_batch_size is not None and max_batch_size < max(streams):
        figure.add_vline(
            x=max_batch_size, line_dash="dot", annotation_text=f"max_batch_size {max_batch_size}"
        )
    figure.update_layout(
        title=literal(title or "Tokens/s of all streams together"),
        xaxis={"title": "streams at once", "gridcolor": GRID, "rangemode": "tozero"},
        yaxis={"title": "total tokens/s", "gridcolor": GRID, "rangemode": "tozero"},
        **LAYOUT,
    )
    return figure
