"""Sweeps: points from grids and lists, plans, and nothing lost however a sweep ends."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults import Faulty, fault, until
from tests.servers.scripted import completing, nowhere, scripted
from workbench import jobs, results
from workbench.bench import run_trial
from workbench.build import DEMO_MODEL
from workbench.engine import Engine
from workbench.errors import InputError, JobError, SpecError
from workbench.freshness import ANY, Demand
from workbench.jobs import Job
from workbench.opening import open_engine
from workbench.session import Session
from workbench.silence import SILENCE_LIMIT
from workbench.store import list_engines
from workbench.sweep import Point, Sweep, run_sweep
from workbench.sweep_job import start_sweep, sweep_of
from workbench.sweep_plan import SweepPlan
from workbench.trial import Trial

REPOSITORY = Path(__file__).parents[1]

# The played engine says that every prompt has one token.
LOAD = {"input_len": 1, "output_len": 3, "requests": 3, "warmup": 1}


def _values(faulty: Faulty, **more: Any) -> dict[str, Any]:
    """A sweep of four points on two engines."""
    return {
        "name": "played",
        "spec": {"backend": "fault", "model": str(faulty.model)},
        "workload": LOAD,
        "grid": {"spec": {"seed": [0, 1]}, "workload": {"concurrency": [1, 2]}},
        **more,
    }


def _run(sweep: Sweep, demand: Demand = ANY) -> list[Trial]:
    return run_sweep(sweep, lambda _number, _point: lambda _text: None, demand)


def _ids() -> set[str]:
    return {trial.id for trial in results.list_trials()}


def test_a_grid_makes_every_combination_once_and_single_points_follow(faulty: Faulty) -> None:
    single = [{"spec": {"seed": 7}}, {"spec": {"seed": 1}, "workload": {"concurrency": 2}}]
    sweep = Sweep.parse(_values(faulty, points=single))
    found = [
        (point.spec.model_dump()["seed"], point.workload.concurrency) for point in sweep.points
    ]
    assert found == [(0, 1), (0, 2), (1, 1), (1, 2), (7, 1)]
    assert len({point.id for point in sweep.points}) == 5


def test_a_point_is_the_same_however_it_is_written(
    faulty: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Point.parse({"spec": {"backend": "fault", "model": str(faulty.model)}})
    monkeypatch.chdir(faulty.model.parent)
    relative = Point.parse({"spec": {"backend": "fault", "model": f"./{faulty.model.name}"}})
    assert relative.id == whole.id
    assert Point.parse(json.loads(json.dumps(whole.record()))).id == whole.id


def test_other_prompts_in_the_same_file_are_another_point(faulty: Faulty, tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    values = {"workload": {"prompts": str(path)}}
    path.write_text("one")
    before = Point.parse(values).id
    path.write_text("two")
    assert Point.parse(values).id != before


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"gird": {}}, "'gird' is not a known parameter. Did you mean 'grid'"),
        ({"grid": {"spce": {}}}, "'spce' is none of them"),
        ({"grid": {"spec": {"seed": 3}}}, r"seed in \[grid.spec\] must be a list"),
        ({"grid": {"spec": {"sed": [3]}}}, "Point 1 of the sweep: 'sed' is not a known parameter"),
        ({"points": [{"spec": {"size": "big"}}]}, "size must be a whole number"),
        ({"spec": 3}, r"\[spec\] must be a table"),
        ({"points": "all"}, "points must be a list of tables"),
        ({"time_limit": "long", "points": [{}]}, "time_limit must be a number of seconds"),
    ],
)
def test_a_sweep_that_is_none_is_refused(
    faulty: Faulty, values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SpecError, match=sentence):
        Sweep.parse({"spec": {"backend": "fault", "model": str(faulty.model)}, **values})


def test_a_file_is_read_and_what_is_none_is_a_sentence(faulty: Faulty, tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text(
        f'[spec]\nbackend = "fault"\nmodel = "{faulty.model}"\n[grid.workload]\nrequests = [1, 2]\n'
    )
    sweep = Sweep.read(path)
    assert (sweep.name, len(sweep.points)) == ("small", 2)
    path.write_text("[spec")
    with pytest.raises(InputError, match="is no TOML"):
        Sweep.read(path)
    with pytest.raises(InputError, match="There is no sweep file"):
        Sweep.read(tmp_path / "none.toml")
    with pytest.raises(InputError, match="has no points"):
        Sweep.parse({})


def test_every_point_gets_its_trial_and_engines_are_built_once(faulty: Faulty) -> None:
    sweep = Sweep.parse(_values(faulty))
    trials = _run(sweep)
    assert [trial.point for trial in trials] == [point.id for point in sweep.points]
    assert [trial.record["reasons"] for trial in trials] == [[]] * 4
    assert len(list_engines()) == 2
    assert len(_ids()) == 4


SCRIPT = """
import json, os, signal, sys
from workbench.sweep import Sweep, run_sweep
values, victim, words = json.loads(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
def progress(number, point):
    def report(text):
        if number == victim and text.startswith(words):
            os.kill(os.getpid(), signal.SIGKILL)
    report("begin")
    return report
run_sweep(Sweep.parse(values), progress)
"""


@pytest.mark.parametrize(
    ("victim", "words"), [(0, "measure"), (1, "load"), (2, "begin"), (3, "measure")]
)
def test_a_sweep_killed_at_any_point_does_exactly_what_is_left(
    faulty: Faulty, victim: int, words: str
) -> None:
    values = _values(faulty)
    killed = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(values), str(victim), words],
        cwd=REPOSITORY,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    before = _ids()
    assert len(before) == victim
    sweep = Sweep.parse(values)
    assert [point.id for point in sweep.left()] == [p.id for p in sweep.points[victim:]]
    assert all(trial.valid for trial in _run(sweep))
    assert before < _ids()
    assert len(_ids()) == 4


def test_a_failed_point_is_recorded_and_the_others_go_on(faulty: Faulty) -> None:
    broken = json.dumps([fault("compile", "refuse", text="No such precision.")])
    values = _values(faulty)
    values["points"] = [{"spec": {"seed": 5, "fault": broken}}]
    values["grid"] = {"spec": {"seed": [0, 1]}}
    values["points"].append({"spec": {"seed": 6}})
    trials = _run(Sweep.parse(values))
    assert [trial.status for trial in trials] == ["done", "done", "failed", "done"]
    assert "No such precision." in trials[2].record["reasons"][0]
    # It counts as measured, unless one asks for it again.
    sweep = Sweep.parse(values)
    assert sweep.left() == []
    retry = Demand(retry_failed=True)
    assert [point.id for point in sweep.left(retry)] == [trials[2].point]
    _run(sweep, retry)
    assert len(_ids()) == 5
    # What was asked for has been done, although it failed once more.
    assert sweep.left(retry) == []


def test_an_error_that_nobody_foresaw_is_recorded_and_the_others_go_on(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(engine: Engine) -> Session:
        if engine.manifest["identity"]["spec"]["seed"] == 0:
            raise ZeroDivisionError("division by\nzero")
        return open_engine(engine)

    monkeypatch.setattr("workbench.bench.open_engine", load)
    trials = _run(Sweep.parse(_values(faulty)))
    assert [trial.status for trial in trials] == ["failed", "failed", "done", "done"]
    assert trials[0].record["reasons"] == [
        "An unexpected error ended this point: ZeroDivisionError: division by zero"
    ]
    assert "in load" in capsys.readouterr().err
    assert trials[0].spec["seed"] == 0
    assert trials[0].workload["concurrency"] == 1


def test_prompts_that_were_deleted_fail_their_point_alone(faulty: Faulty, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("one\ntwo\n")
    values = _values(faulty, points=[{"workload": {"prompts": str(prompts)}}])
    values["grid"] = {"spec": {"seed": [1]}}
    sweep = Sweep.parse(values)
    prompts.unlink()
    # The job reads its request when the file is gone already.
    job, _ = start_sweep(sweep)
    view = job.wait(60)
    assert view.end is not None
    assert view.end["text"] == "2 trials: 1 done, 0 invalid, 1 failed."
    failed = results.latest(sweep.points[1].id)
    assert failed is not None
    assert "There is no file of prompts" in failed.record["reasons"][0]
    with pytest.raises(InputError, match="There is no file of prompts"):
        Sweep.parse(values)


def test_a_record_that_cannot_be_written_ends_the_sweep(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(record: dict[str, Any]) -> Trial:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("workbench.results.save", refuse)
    with pytest.raises(OSError, match="No space left"):
        _run(Sweep.parse(_values(faulty)))


@pytest.mark.parametrize("where", ["compile", "open", "decode"])
def test_a_point_that_hangs_is_ended_at_its_limit_and_leaves_nothing(
    faulty: Faulty, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.deadline.GRACE", 0.2)
    hung = {"spec": {"seed": 3, "fault": json.dumps([fault(where, "stall")])}}
    values = _values(faulty, points=[hung, {"spec": {"seed": 1}}], time_limit=3)
    del values["grid"]
    if where != "compile":
        # The smoke stage of a build would hang as well.
        faulty.start(seed=3).wait()
    trials = _run(Sweep.parse(values))
    assert [trial.status for trial in trials] == ["failed", "done"]
    assert "The time limit of 3 s was over" in trials[0].record["reasons"][0]
    until(lambda: not faulty.processes())


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("compile", "gave no sign of life for 1.5 s and was given up; it was in the stage 'compi"),
        ("open", "Loading the engine gave no sign of life for 1.5 s and was ended"),
        ("decode", "No token came for 1.5 s, with 1 requests under way"),
    ],
)
def test_a_point_that_hangs_is_given_up_without_a_time_limit(
    faulty: Faulty, where: str, sentence: str
) -> None:
    hung = {"spec": {"seed": 3, "fault": json.dumps([fault(where, "stall")])}}
    values = _values(faulty, points=[hung, {"spec": {"seed": 1}}], silence_limit=1.5)
    del values["grid"]
    if where != "compile":
        # The smoke stage of a build would hang as well.
        faulty.start(seed=3).wait()
    trials = _run(Sweep.parse(values))
    assert [trial.status for trial in trials] == ["failed", "done"]
    assert sentence in trials[0].record["reasons"][0]
    until(lambda: not faulty.processes())


def test_a_sweep_has_a_limit_of_silence_that_can_be_changed(faulty: Faulty) -> None:
    values = _values(faulty)
    assert Sweep.parse(values).silence_limit == SILENCE_LIMIT
    assert Sweep.parse({**values, "silence_limit": 60}).silence_limit == 60
    assert Sweep.parse({**values, "silence_limit": 0}).silence_limit is None
    with pytest.raises(SpecError, match="silence_limit must be a number of seconds"):
        Sweep.parse({**values, "silence_limit": -1})


def test_a_server_is_a_point_beside_engines(faulty: Faulty) -> None:
    with scripted(completing()) as server:
        points = [{"server": {"url": server.url}}, {"spec": {"seed": 1}}]
        values = _values(faulty, points=points, server={"tokenizer": str(DEMO_MODEL)})
        del values["grid"]
        values["workload"] = {**LOAD, "output_len": 4}
        sweep = Sweep.parse(values)
        plan = SweepPlan.make(sweep)
        assert (plan.points, plan.done, plan.builds) == (2, 0, 1)
        # In a job, which reads the points from its request.
        job, _ = start_sweep(sweep)
        assert job.wait(60).facts["sound"] == 2
        served, _ = sweep.trials()
        assert served.spec["url"] == server.url
        assert served.summary["output_tokens"] == 3 * 4
        assert sweep.left() == []
        again = Demand(again=True)
        assert [trial.valid for trial in _run(sweep, again)] == [True, True]
        assert len(_ids()) == 4
    assert f"endpoint url={served.spec['url']}" in sweep.points[0].title


def test_a_server_that_is_gone_fails_its_point_alone(faulty: Faulty) -> None:
    with nowhere() as url:
        points = [{"server": {"url": url, "tokenizer": str(DEMO_MODEL)}}, {"spec": {"seed": 1}}]
        values = _values(faulty, points=points)
        del values["grid"]
        trials = _run(Sweep.parse(values))
    assert [trial.status for trial in trials] == ["failed", "done"]


@pytest.mark.parametrize(
    ("point", "sentence"),
    [
        ({"server": {"url": "http://a:1"}, "spec": {"seed": 1}}, "with a server has no spec"),
        ({"server": {"url": "http://a:1"}, "quality": {}}, "with a server has no quality"),
        ({"server": {}}, "A server needs the url"),
        ({"server": {"urll": "x"}}, "Did you mean 'url'"),
    ],
)
def test_a_point_that_is_no_servers_is_refused(
    faulty: Faulty, point: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(SpecError, match=sentence):
        Sweep.parse(_values(faulty, points=[point]))


def test_a_worker_that_dies_makes_a_failed_or_invalid_trial(faulty: Faulty) -> None:
    faulty.start(seed=3).wait()
    spec = faulty.spec(fault("decode", "kill"), seed=3)
    trial = run_trial(spec, LOAD)
    assert not trial.valid
    assert "worker" in trial.record["reasons"][0]
    assert trial.record["seconds"] > 0


def test_four_sweeps_on_one_store_measure_each_point_once(faulty: Faulty) -> None:
    values = json.dumps(_values(faulty))
    command = [sys.executable, "-c", SCRIPT, values, "-1", ""]
    running = [subprocess.Popen(command, cwd=REPOSITORY) for _ in range(4)]
    assert [process.wait(120) for process in running] == [0] * 4
    assert len(_ids()) == 4
    assert all(trial.valid for trial in results.list_trials())
    assert len(list_engines()) == 2


def test_a_sweep_is_a_job_that_others_attach_to(faulty: Faulty) -> None:
    gate = faulty.gate()
    hold = json.dumps([fault("compile", "stall", until=gate)])
    values = _values(faulty, points=[{"spec": {"seed": 9, "fault": hold}}])
    job, new = start_sweep(values)
    gate.wait_reached(60)
    again, other = start_sweep(Sweep.parse(values))
    assert (again.id, new, other) == (job.id, True, False)
    # What asks for something else is not taken for the same.
    with pytest.raises(JobError, match="otherwise: again is False there and True here"):
        start_sweep(values, Demand(again=True))
    with pytest.raises(JobError, match="otherwise: scheduler is '' there and 'tcp://a:1' here"):
        start_sweep(values, scheduler="tcp://a:1")
    with pytest.raises(JobError, match="otherwise: time_limit is None there and 9 here"):
        start_sweep({**values, "time_limit": 9})
    gate.open()
    view = job.wait(60)
    assert view.end is not None
    assert view.end["text"] == "5 trials: 5 done, 0 invalid, 0 failed."
    assert (view.facts["points"], view.facts["trials"], view.facts["sound"]) == (5, 5, 5)
    assert len(view.stages) == 5


def test_a_sweep_job_that_was_killed_is_started_again_for_the_rest(faulty: Faulty) -> None:
    gate = faulty.gate()
    hold = json.dumps([fault("compile", "stall", until=gate)])
    values = _values(faulty, points=[{"spec": {"seed": 9, "fault": hold}}])
    job, _ = start_sweep(values)
    gate.wait_reached(60)
    owner = job.view().owner
    assert owner is not None
    os.kill(owner.pid, signal.SIGKILL)
    until(lambda: job.state() == "killed")
    before = _ids()
    assert len(before) == 4
    gate.open()
    job, new = start_sweep(values)
    assert new
    assert job.wait(60).facts["trials"] == 5
    assert before < _ids()
    assert len(_ids()) == 5


@pytest.mark.parametrize("where", ["compile", "decode"])
def test_a_sweep_that_is_cancelled_leaves_nothing_running(faulty: Faulty, where: str) -> None:
    gate = faulty.gate()
    hold = json.dumps([fault(where, "stall", until=gate)])
    if where == "decode":
        faulty.start(seed=9).wait()  # the smoke stage would stand there too
    values = _values(faulty, points=[{"spec": {"seed": 9, "fault": hold}}])
    del values["grid"]
    job, _ = start_sweep(values)
    gate.wait_reached(60)
    assert job.cancel() == "cancelled"
    until(lambda: not faulty.processes())
    assert _ids() == set()
    assert faulty.temporaries() == []


def test_a_job_of_an_earlier_version_is_understood(faulty: Faulty, home: Path) -> None:
    """It knew neither the ids of its points nor what else may be asked for."""
    point = Point.parse({"spec": {"backend": "fault", "model": str(faulty.model)}})
    parts = {name: point.record()[name] for name in ("spec", "workload", "quality")}
    request = {"name": "old", "time_limit": None, "points": [parts], "retry_failed": True}
    path = home / "jobs" / "0123456789ab-001"
    path.mkdir(parents=True)
    (path / "spec.json").write_text(json.dumps({"kind": "sweep", **request}))
    sweep, demand = sweep_of(Job(path))
    assert [p.id for p in sweep.points] == [point.id]
    assert (demand.retry_failed, demand.again) == (True, False)


def test_the_plan_counts_builds_engines_and_what_is_known(faulty: Faulty) -> None:
    values = _values(faulty, points=[{"workload": {"input_len": 999}}])
    sweep = Sweep.parse(values)
    plan = SweepPlan.make(sweep)
    assert (plan.points, plan.done, plan.builds, plan.engines) == (5, 0, 2, 0)
    assert plan.trial_seconds.unknown == 4
    assert "needs max_input_len 999" in next(iter(plan.refused.values()))
    assert any("not known: nothing like it" in line for line in plan.lines())
    first = sweep.points[0]
    run_trial(first.spec, first.workload)
    plan = SweepPlan.make(sweep)
    assert (plan.points, plan.done, plan.builds, plan.engines) == (5, 1, 1, 1)
    assert plan.build_seconds.high > 0
    # One of the three that are left has the workload that was measured.
    assert plan.trial_seconds.unknown == 2
    assert jobs.list_jobs() != []
    json.dumps(plan.record())
