"""The sweep that the README shows, as its user runs it, and the notebook that compares it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.conftest import take
from workbench import results
from workbench.axes import THROUGHPUT
from workbench.cli import main
from workbench.engine import Engine
from workbench.notebook import run_notebook
from workbench.store import list_engines
from workbench.sweep import Sweep
from workbench.trial import Trial

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
FILE = NOTEBOOKS / "sweep_demo.toml"


def test_the_sweep_of_the_demo_model_runs_headless_and_is_complete(
    demo_engine: Engine, int4_engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    sweep = Sweep.read(FILE)
    assert len(sweep.points) == 12
    assert main(["sweep", str(FILE), "--plan"]) == 0
    assert "Engines  3 to build, 0 there already" in capsys.readouterr().out
    # It builds what is missing; that takes the longest, and other tests have built the others.
    take(demo_engine)
    take(int4_engine)
    started = time.monotonic()
    assert main(["sweep", str(FILE)]) == 0
    seconds = time.monotonic() - started
    shown = capsys.readouterr().out
    assert "Engines  1 to build, 2 there already" in shown
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
    _compare(trials, tmp_path)
    # How long it takes depends on who else computes here: it is told, and no verdict.
    with capsys.disabled():
        print(f"\nthe sweep of 12 points took {seconds:.0f} s")


def _compare(trials: list[Trial], folder: Path) -> None:
    """Run the notebook over the store of the sweep: nothing is left to measure."""
    report = folder / "report.html"
    values = {"sweep": str(FILE), "baseline": "1", "price": 2.5, "report": str(report)}
    found = run_notebook(NOTEBOOKS / "05_compare.ipynb", folder / "out.ipynb", values)
    assert (found["sweep"]["points"], found["sweep"]["sound"]) == (12, 12)
    measured = {trial.id: trial for trial in trials}
    assert {name for point in found["points"] for name in point["trials"]} == set(measured)
    for point in found["points"]:
        (trial,) = (measured[name] for name in point["trials"])
        assert point["engine"] == trial.record["engine"]["key"]
        assert point["figures"][THROUGHPUT]["median"] == pytest.approx(
            trial.summary["output_tokens_per_second"]
        )
    shown = report.read_text()
    assert all(trial.id in shown for trial in trials)
