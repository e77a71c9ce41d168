"""What is left is said from past builds, and only of stages that still come."""

from __future__ import annotations

from pathlib import Path

from workbench.history import ELSEWHERE, Range
from workbench.journal import Stage, View
from workbench.summaries import fact_line, remaining, stage_line

ORDER = ["download", "load", "convert", "smoke"]
RANGES = {
    "download": Range(300.0, 600.0, 2),
    "load": Range(2.0, 4.0, 3),
    "convert": Range(10.0, 20.0, 3),
}


def _view(**stages: float | None) -> View:
    """A view of stages by name: all begin at 100 s, and end as given."""
    view = View(Path())
    view.stages = {name: Stage(name, name, 100.0, end) for name, end in stages.items()}
    return view


def test_stages_that_were_passed_over_do_not_count() -> None:
    assert remaining(_view(load=None), RANGES, ORDER, 100.0) == (
        "about 12 to 24 s left, from 3 builds like this"
    )


def test_what_the_running_stage_has_taken_is_subtracted() -> None:
    assert remaining(_view(load=103.0, convert=None), RANGES, ORDER, 115.0) == (
        "about 0 to 5 s left, from 3 builds like this"
    )


def test_a_last_stage_that_takes_longer_than_ever_is_said_so() -> None:
    assert remaining(_view(convert=None), RANGES, ORDER, 121.0) == (
        "longer than in 3 builds like this"
    )


def test_nothing_is_said_without_past_builds_or_without_a_running_stage() -> None:
    assert remaining(_view(load=None), {}, ORDER, 100.0) == ""
    assert remaining(_view(load=101.0), RANGES, ORDER, 102.0) == ""
    assert remaining(_view(smoke=None), RANGES, ORDER, 102.0) == ""


def test_a_range_from_other_devices_says_so() -> None:
    elsewhere = {"load": Range(2.0, 4.0, 3, note=ELSEWHERE)}
    assert remaining(_view(load=None), elsewhere, ORDER, 100.0) == (
        "about 2 to 4 s left, from 3 builds like this, on devices that may differ"
    )
    line = stage_line(Stage("load", "load weights", 100.0), elsewhere, 101.0)
    assert line.endswith("(2-4 s in 3 builds like this, on devices that may differ)")


def test_the_peak_of_memory_stands_beside_that_of_past_builds() -> None:
    view = _view(load=None)
    view.facts = {"peak_memory_bytes": 3 << 30, "available_memory_bytes": 1 << 30}
    past = Range(2 << 30, 4 << 30, 2, "bytes")
    running = (
        "memory of all its processes at the peak 3.00 GiB "
        "(2.00 GiB to 4.00 GiB in 2 builds like this)"
    )
    assert fact_line(view, past) == f"{running} · memory available 1.00 GiB"
    view.end = {"event": "done"}
    assert fact_line(view, past) == running
    assert fact_line(view) == "memory of all its processes at the peak 3.00 GiB"
