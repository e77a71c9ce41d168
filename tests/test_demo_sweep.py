"""The sweep that the README shows, as its user runs it: twelve points on the demo model."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench import results
from workbench.cli import main
from workbench.store import list_engines
from workbench.sweep import Sweep

FILE = Path(__file__).parents[1] / "notebooks" / "sweep_demo.toml"


def test_the_sweep_of_the_demo_model_runs_headless_and_is_complete(
    home: Path, capsys: pytest.CaptureFixture
) -> None:
    sweep = Sweep.read(FILE)
    assert len(sweep.points) == 12
    assert main(["sweep", str(FILE)]) == 0
    shown = capsys.readouterr().out
    assert "Engines  3 to build, 0 there already" in shown
    assert "12 trials: 12 done, 0 invalid, 0 failed." in shown
    assert len(list_engines()) == 3
    trials = results.list_trials(valid=True)
    assert {trial.point for trial in trials} == {point.id for point in sweep.points}
    match = {trial.spec["quantization"]: trial.record["quality"]["token_match"] for trial in trials}
    assert match["none"] == 1.0
    assert match["int4"] < match["int8"] <= 1.0
    # Four streams in a batch of four are more than four in a queue for a batch of one.
    speed = {
        (trial.spec["max_batch_size"], trial.workload["concurrency"]): trial.summary
        for trial in trials
        if trial.spec["quantization"] == "int8"
    }
    assert speed[1, 4]["queued"]["p50"] > speed[4, 4]["queued"]["p50"]
    rows = results.rows(trials)
    assert all(row["output_tokens_per_second"] > 0 for row in rows)
