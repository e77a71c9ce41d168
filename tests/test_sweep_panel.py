"""The sweep panel: plan, start, progress by points, cancel, and the same again from the store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import Faulty, Gate, fault, until
from workbench import jobs, results
from workbench.errors import InputError, JobError, SpecError
from workbench.widgets.sweep import MARKS, SweepPanel

SCRIPT = "<script>alert(1)</script>"

LOAD = {"input_len": 1, "output_len": 3, "requests": 2, "warmup": 0}


def _values(faulty: Faulty, *points: dict[str, Any]) -> dict[str, Any]:
    """A sweep of one point, and more."""
    return {
        "name": "played",
        "spec": {"backend": "fault", "model": str(faulty.model)},
        "workload": LOAD,
        "points": [{"workload": {"concurrency": 2}}, *points],
    }


def _stalled(gate: Gate) -> dict[str, Any]:
    return {"spec": {"seed": 9, "fault": json.dumps([fault("compile", "stall", until=gate)])}}


def _states(panel: SweepPanel) -> list[str]:
    return [row[2] for row in panel.table.rows]


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[SweepPanel]]:
    """Panels that somebody sees, until the end of a test."""
    monkeypatch.setattr("workbench.widgets.lists.TICK", 0.05)
    panels: list[SweepPanel] = []
    yield panels
    for panel in panels:
        panel.table.shown = False


def _see(shown: list[SweepPanel], values: dict[str, Any], **options: Any) -> SweepPanel:
    panel = SweepPanel(values, **options)
    shown.append(panel)
    panel.table.shown = True
    return panel


def test_the_plan_stands_there_before_anything_is_started(faulty: Faulty) -> None:
    panel = SweepPanel(_values(faulty))
    assert "1, of which 0 are measured and 1 are left" in panel.plain()
    assert "Engines  1 to build" in panel.plain()
    assert panel.start_button.description == "Start (1 left)"
    assert _states(panel) == [MARKS["left"]]
    assert panel.job_id is None
    assert jobs.list_jobs() == []


def test_headless_it_measures_and_shows_what_came_out(faulty: Faulty) -> None:
    broken = json.dumps([fault("compile", "refuse", text=f"No {SCRIPT} precision.")])
    values = _values(faulty, {"spec": {"seed": 5, "fault": broken}})
    panel = SweepPanel(values, start=True)
    assert _states(panel) == [MARKS["done"], MARKS["failed"]]
    assert f"No {SCRIPT} precision." in panel.table.rows[1][6]
    assert panel.record()["sound"] == 1
    assert len(panel.record()["trials"]) == panel.record()["points"] == 2
    assert "of which 2 are measured and 0 are left" in panel.plain()
    assert "<script>" not in panel.static()
    panel.choose(panel.table.rows[0][0])
    assert "TTFT" in panel._trial.value
    # Running the cell again shows what the store knows, and filters it.
    again = SweepPanel(values, text="concurrency=2")
    assert _states(again) == [MARKS["done"]]
    again.filter.value = "nothing has this"
    assert "No point is like that." in again.plain()


@pytest.mark.usefixtures("clicking")
def test_progress_is_shown_by_points_while_it_runs(faulty: Faulty, shown: list[SweepPanel]) -> None:
    gate = faulty.gate()
    values = _values(faulty, _stalled(gate))
    panel = _see(shown, values)
    panel.start_button.click()
    gate.wait_reached(60)
    until(lambda: _states(panel) == [MARKS["done"], MARKS["running"]])
    until(lambda: "1 of 2 measured: build the engine" in panel.progress.state.value)
    assert panel._bar.value == 1
    assert panel.start_button.disabled
    # Another page, or a new kernel, attaches to the same job.
    assert SweepPanel(values).job_id == panel.job_id
    other = SweepPanel(values, again=True)
    other.start()
    assert "again is False there and True here" in other._error_text
    assert other.job_id == panel.job_id
    gate.open()
    until(lambda: _states(panel) == [MARKS["done"]] * 2)
    until(lambda: not panel.start_button.disabled)
    assert panel.cancel_button.disabled
    assert panel.start_button.description == "Start"
    assert panel._error_text == ""


@pytest.mark.usefixtures("clicking")
def test_a_cancelled_sweep_keeps_what_was_measured_and_resumes(
    faulty: Faulty, shown: list[SweepPanel]
) -> None:
    gate = faulty.gate()
    values = _values(faulty, _stalled(gate))
    panel = _see(shown, values, start=True)
    gate.wait_reached(60)
    first = panel.job_id
    panel.cancel_button.click()
    until(lambda: not panel.start_button.disabled)
    assert _states(panel) == [MARKS["done"], MARKS["left"]]
    assert panel.start_button.description == "Start (1 left)"
    until(lambda: not faulty.processes())
    with pytest.raises(JobError, match=r"is cancelled.*What was measured is kept"):
        panel.wait_trials()
    gate.open()
    panel.start_button.click()
    trials = panel.wait_trials()
    assert panel.job_id != first
    assert [trial.status for trial in trials] == ["done"] * 2


def test_a_point_that_changed_beneath_its_trial_is_stale_until_it_is_measured(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = _values(faulty)
    SweepPanel(values, start=True)
    monkeypatch.setenv("WORKBENCH_FAULT_VERSION", "2.0")
    panel = SweepPanel(values)
    assert _states(panel) == [MARKS["stale"]]
    assert panel.table.rows[0][6] == "fault was 1.0 and is 2.0"
    assert panel.start_button.description == "Start (1 left)"
    assert "1 measured, but not what there is now: fault was 1.0 and is 2.0" in panel.plain()
    panel = SweepPanel(values, start=True)
    assert _states(panel) == [MARKS["done"]]
    assert panel.start_button.description == "Start"
    # With the versions of before, the trial of before is the one that counts.
    monkeypatch.delenv("WORKBENCH_FAULT_VERSION")
    panel = SweepPanel(values)
    shown = panel.table.rows[0][6]
    assert [shown] == panel.record()["trials"] == [results.list_trials()[-1].id]
    panel.choose(panel.table.rows[0][0])
    assert shown in panel._trial.value


def test_what_fails_is_retried_at_each_start(faulty: Faulty) -> None:
    broken = json.dumps([fault("compile", "refuse", text="No such precision.")])
    values = _values(faulty, {"spec": {"seed": 5, "fault": broken}})
    panel = SweepPanel(values, start=True, retry_failed=True)
    for count in (2, 3):
        assert _states(panel) == [MARKS["done"], MARKS["failed"]]
        assert len(results.list_trials()) == count
        panel._attach(panel._begin())
        panel.wait_trials()


def test_again_shows_what_was_measured_before_as_left(faulty: Faulty) -> None:
    values = _values(faulty)
    SweepPanel(values, start=True)
    panel = SweepPanel(values, again=True)
    assert _states(panel) == [MARKS["left"]]
    assert panel.start_button.description == "Start (1 left)"
    panel._attach(panel._begin())
    panel.wait_trials()
    panel.refresh()
    assert _states(panel) == [MARKS["done"]]
    assert len(results.list_trials()) == 2


def test_a_point_that_was_not_measured_is_a_sentence(faulty: Faulty) -> None:
    panel = SweepPanel(_values(faulty))
    panel.choose(panel.table.rows[0][0])
    assert "was not measured yet" in panel._error_text


def test_what_is_no_sweep_is_refused(faulty: Faulty, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no sweep file"):
        SweepPanel(tmp_path / "none.toml")
    with pytest.raises(SpecError, match="'gird' is not a known parameter"):
        SweepPanel({"gird": {}})
