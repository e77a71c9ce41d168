"""A trial counts as measured only where it measured what would be measured now."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.faults import Faulty, fault, make_model
from workbench import files, results
from workbench.bench import run_trial
from workbench.cli import main
from workbench.freshness import Demand, Here
from workbench.quality import Quality
from workbench.spec import BuildSpec
from workbench.sweep import Point, Sweep, run_sweep
from workbench.sweep_job import start_sweep
from workbench.sweep_plan import SweepPlan
from workbench.trial import Trial, new_record
from workbench.workload import Workload

LOAD = {"input_len": 1, "output_len": 2, "requests": 1, "warmup": 0}


def _sweep(faulty: Faulty) -> Sweep:
    spec = {"backend": "fault", "model": str(faulty.model)}
    points = [{"workload": {"concurrency": 2}}, {"workload": {"concurrency": 1}}]
    return Sweep.parse({"spec": spec, "workload": LOAD, "points": points})


def _run(sweep: Sweep, demand: Demand | None = None) -> list[Trial]:
    given = [demand] if demand else []
    return run_sweep(sweep, lambda _number, _point: lambda _text: None, *given)


@pytest.fixture
def measured(faulty: Faulty) -> Sweep:
    """A sweep of two points of one engine, measured."""
    faulty.start().wait()
    sweep = _sweep(faulty)
    assert [trial.status for trial in _run(sweep)] == ["done", "done"]
    return sweep


def _why(sweep: Sweep) -> str:
    """Why the first point counts as measured no more."""
    plan = SweepPlan.make(sweep)
    assert plan.done == plan.points - len(plan.stale)
    assert set(plan.stale) == {point.id for point in sweep.points}
    (line,) = [line for line in plan.lines() if line.startswith("Stale")]
    assert line.startswith("Stale    2 measured, but not what there is now: ")
    return plan.stale[sweep.points[0].id]


def test_what_was_measured_stands_while_nothing_changes(measured: Sweep) -> None:
    assert measured.left() == []
    assert SweepPlan.make(measured).stale == {}
    before = results.list_trials()
    _run(measured)
    assert results.list_trials() == before


def test_other_weights_make_a_trial_stale_and_are_measured(measured: Sweep, faulty: Faulty) -> None:
    shutil.rmtree(faulty.model)
    make_model(faulty.model, seed=7)
    assert _why(measured) == "the model's weights or tokenizer were others"
    first = measured.points[0]
    old = results.latest(first.id)
    new = run_trial(first.spec, first.workload, again=False)
    assert new.valid
    assert old is not None
    assert new.id != old.id
    assert new.record["engine"]["weights"] != old.record["engine"]["weights"]
    assert [point.id for point in measured.left()] == [measured.points[1].id]
    # With the weights of before the trial of before is the one that counts.
    shutil.rmtree(faulty.model)
    make_model(faulty.model)
    assert measured.left() == []
    assert Here().standing(first.id, first.spec, first.quality).trial == old
    assert measured.trials()[0] == old


def test_other_versions_make_a_trial_stale(
    measured: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_FAULT_VERSION", "2.0")
    assert _why(measured) == "fault was 1.0 and is 2.0"


def test_another_device_makes_a_trial_stale(
    measured: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.freshness.device_name", lambda _: "Abacus")
    assert _why(measured).endswith(", and this is Abacus")


def test_another_device_alone_is_unsure_where_other_machines_may_measure(
    measured: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.freshness.device_name", lambda _: "Abacus")
    plan = SweepPlan.make(measured, Demand(anywhere=True))
    assert (plan.done, plan.stale) == (2, {})
    assert plan.unsure[measured.points[0].id].endswith(", and this is Abacus")
    monkeypatch.setenv("WORKBENCH_FAULT_VERSION", "2.0")
    stale = SweepPlan.make(measured, Demand(anywhere=True)).stale[measured.points[0].id]
    assert stale.startswith("fault was 1.0 and is 2.0; it was measured on ")


def test_a_failure_without_an_engine_hides_no_trial_that_stands(measured: Sweep) -> None:
    point, before = measured.points[0], Demand(again=True)
    valid = results.latest(point.id)
    failed = results.save(new_record(point.id, {}, {}))
    for demand in (Demand(), Demand(retry_failed=True)):
        assert Here().standing(point.id, point.spec, point.quality, demand).trial == valid
    # Who asked for all once more, and got only this, has it.
    assert Here().standing(point.id, point.spec, point.quality, before).trial == failed


def test_a_build_that_failed_is_stale_with_other_versions(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = json.dumps([fault("compile", "refuse", text="No such precision.")])
    spec = {"backend": "fault", "model": str(faulty.model), "fault": broken}
    sweep = Sweep.parse({"spec": spec, "workload": LOAD, "points": [{}]})
    (point,) = sweep.points
    toolchain = os.environ["WORKBENCH_TOOLCHAIN_FAULT"]
    assert _run(sweep)[0].record["environment"]["toolchain"] == {"fault": "1.0"}
    assert sweep.left() == []
    monkeypatch.setenv("WORKBENCH_FAULT_VERSION", "2.0")
    assert SweepPlan.make(sweep).stale == {point.id: "fault was 1.0 and is 2.0"}
    # A toolchain that is missing is no other version, until it is there.
    monkeypatch.setenv("WORKBENCH_TOOLCHAIN_FAULT", f"{toolchain}-is-gone")
    assert sweep.left() == []
    (missing,) = _run(sweep, Demand(again=True))
    assert missing.record["environment"]["toolchain"] == {}
    assert Here().standing(point.id, point.spec, point.quality).trial == missing
    monkeypatch.setenv("WORKBENCH_TOOLCHAIN_FAULT", toolchain)
    assert SweepPlan.make(sweep).stale == {point.id: "fault was missing and is 2.0"}


def test_a_file_that_cannot_be_read_makes_a_trial_unsure(
    measured: Sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_spec: BuildSpec) -> dict[str, Any]:
        raise OSError(errno.EIO, "Input/output error", "/data/lora")

    monkeypatch.setattr("workbench.freshness.key_values", refuse)
    plan = SweepPlan.make(measured)
    assert plan.done == 2
    assert set(plan.unsure.values()) == {"/data/lora cannot be read: Input/output error."}


def test_a_reference_of_other_versions_makes_a_trial_stale(measured: Sweep, faulty: Faulty) -> None:
    spec = measured.points[0].spec
    quality = Quality.parse({"reference": "seed=1", "quality_len": 2})
    faulty.start(seed=1).wait()
    trial = run_trial(spec, LOAD, quality)
    point = Point(spec, Workload.parse(LOAD), quality)
    assert Here().standing(point.id, spec, quality).trial == trial
    _rewrite(trial, quality={**trial.record["quality"], "reference": "f" * 20})
    standing = Here().standing(point.id, spec, quality)
    assert standing.trial is None
    assert standing.stale.startswith(f"its reference was the engine {'f' * 20} and would be ")


def _rewrite(trial: Trial, **changes: Any) -> None:
    files.write_json(results.folder() / f"{trial.id}.json", {**trial.record, **changes})


def test_records_of_before_are_judged_by_what_they_have(measured: Sweep, faulty: Faulty) -> None:
    """Earlier versions wrote no digest of the weights; a failure may have no engine at all."""
    first, second = (results.latest(point.id) for point in measured.points)
    assert first is not None
    assert second is not None
    engine = {name: value for name, value in first.record["engine"].items() if name != "weights"}
    _rewrite(first, engine=engine)
    _rewrite(second, engine={}, environment={}, status="failed", summary={})
    assert measured.left() == []
    shutil.rmtree(faulty.model)
    make_model(faulty.model, seed=7)
    plan = SweepPlan.make(measured)
    assert plan.stale == {
        measured.points[0].id: "its engine was made of other weights or files than are there now"
    }


def test_what_cannot_be_repeated_here_stands_and_the_plan_says_so(
    measured: Sweep, faulty: Faulty
) -> None:
    shutil.rmtree(faulty.model)
    plan = SweepPlan.make(measured)
    assert (plan.done, plan.stale) == (2, {})
    (line,) = [line for line in plan.lines() if line.startswith("Unsure")]
    assert "2 taken for measured, though nobody can tell now: " in line
    assert str(faulty.model) in line
    before = results.list_trials()
    _run(measured)
    assert results.list_trials() == before


def test_again_measures_everything_once_more_and_goes_on_where_it_was_stopped(
    measured: Sweep, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    again = Demand(again=True)
    assert measured.left(again) == list(measured.points)
    first = measured.points[0]
    run_trial(first.spec, first.workload, again=False, demand=again)
    assert measured.left(again) == [measured.points[1]]
    job, _ = start_sweep(measured, again)
    assert job.wait(60).facts["sound"] == 2
    assert len(results.list_trials()) == 4
    path = tmp_path / "again.toml"
    spec = f'backend = "fault"\nmodel = {json.dumps(first.spec.model)}\n'
    load = "\n".join(f"{name} = {value}" for name, value in LOAD.items())
    path.write_text(f"[spec]\n{spec}[workload]\n{load}\n[grid.workload]\nconcurrency = [1, 2]\n")
    assert main(["sweep", str(path), "--plan"]) == 0
    assert "2 are measured and 0 are left" in capsys.readouterr().out
    assert main(["sweep", str(path), "--again"]) == 0
    assert "0 are measured and 2 are left" in capsys.readouterr().out
    assert len(results.list_trials()) == 6
