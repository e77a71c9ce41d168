"""What is left is said from past builds, and only of stages that still come."""

from __future__ import annotations

from pathlib import Path

from workbench.history import Range
from workbench.journal import Stage, View
from workbench.summaries import remaining

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


def test_nothing_is_said_without_past_builds_or_without_a_running_stage() -> None:
    assert remaining(_view(load=None), {}, ORDER, 100.0) == ""
    assert remaining(_view(load=101.0), RANGES, ORDER, 102.0) == ""
    assert remaining(_view(smoke=None), RANGES, ORDER, 102.0) == ""
