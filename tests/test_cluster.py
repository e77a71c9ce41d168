"""Sweeps on a Dask cluster of this machine: what dies loses nothing and leaves nothing over."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults import Faulty, Gate, fault, until
from workbench import cluster, files, jobs, results
from workbench.backends import make_spec
from workbench.cli import main
from workbench.errors import JobError, StoreError, ToolchainError
from workbench.freshness import ANY, Demand
from workbench.jobs import Job
from workbench.journal import LOST, SILENCE, Journal, append
from workbench.owner import Owner
from workbench.store import list_engines
from workbench.sweep import Point, Sweep, run_sweep
from workbench.sweep_job import start_sweep
from workbench.trial import new_record

REPOSITORY = Path(__file__).parents[1]

LOAD = {"input_len": 1, "output_len": 2, "requests": 1, "warmup": 0}

CLUSTER = """
import sys
from distributed import LocalCluster
with LocalCluster(
    n_workers=int(sys.argv[1]), threads_per_worker=1, processes=True, host="127.0.0.1",
    dashboard_address=None, memory_limit=None, local_directory=sys.argv[2],
) as cluster:
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True)
class Cluster:
    """A scheduler in a process of its own, with workers as its children."""

    process: subprocess.Popen[str]
    address: str

    def workers(self) -> list[psutil.Process]:
        """Return the processes of the workers."""
        children = psutil.Process(self.process.pid).children()
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]

    def others(self, faulty: Faulty) -> list[psutil.Process]:
        """Return the processes of a test that are none of the cluster's."""
        own = {self.process.pid}
        own |= {child.pid for child in psutil.Process(self.process.pid).children(recursive=True)}
        return [process for process in faulty.processes() if process.pid not in own]


@pytest.fixture
def start_cluster(faulty: Faulty, tmp_path: Path) -> Iterator[Callable[[int], Cluster]]:
    """Start a cluster of so many workers, each of which does one task at a time."""
    started: list[subprocess.Popen[str]] = []

    def start(workers: int) -> Cluster:
        process = subprocess.Popen(
            [sys.executable, "-c", CLUSTER, str(workers), str(tmp_path / "dask")],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return Cluster(process, _first_line(process))

    yield start
    faulty.kill_all()
    for process in started:
        process.communicate()


def _first_line(process: subprocess.Popen[str], seconds: float = 60) -> str:
    """Return the first line that a process prints; one that prints none in time is a failure."""
    assert process.stdout is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        assert selector.select(seconds), "the cluster has not said its address"
    return process.stdout.readline().strip()


@dataclass(frozen=True)
class Stalled:
    """A sweep whose last point stands still while it compiles, until its gate is opened."""

    values: dict[str, Any]
    gate: Gate

    @classmethod
    def make(cls, faulty: Faulty, *seeds: int) -> Stalled:
        gate = faulty.gate()
        hold = json.dumps([fault("compile", "stall", until=gate)])
        points = [{"spec": {"seed": seed}} for seed in seeds]
        points.append({"spec": {"seed": 9, "fault": hold}})
        spec = {"backend": "fault", "model": str(faulty.model)}
        return cls({"name": "played", "spec": spec, "workload": LOAD, "points": points}, gate)

    def start(self, cluster: Cluster) -> Job:
        """Start it on a cluster; return its job when the last point stands still."""
        job, _ = start_sweep(self.values, scheduler=cluster.address)
        self.gate.wait_reached(60)
        return job


def _kinds() -> Counter[str]:
    return Counter(str(job.request["kind"]) for job in jobs.list_jobs())


def _job(kind: str) -> Job:
    return next(job for job in jobs.list_jobs() if job.request["kind"] == kind)


def _ids() -> set[str]:
    return {trial.id for trial in results.list_trials()}


def test_a_worker_that_is_killed_in_mid_build_loses_nothing_and_nothing_is_built_twice(
    faulty: Faulty, start_cluster: Callable[[int], Cluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    dask = start_cluster(2)
    sweep = Stalled.make(faulty)
    job = sweep.start(dask)
    point = _job("point")
    owner = _job("build").view().owner
    assert owner is not None
    build = owner.process()
    assert build is not None
    for worker in dask.workers():
        # Dask lets its workers compute on one thread each; what is measured has them all.
        assert worker.environ()["OMP_NUM_THREADS"] == "1"
        worker.kill()
    assert "OMP_NUM_THREADS" not in build.environ()
    followed = "Followed by the worker"
    until(lambda: sum(note.startswith(followed) for note in point.view().notes) == 2, 60)
    assert build.is_running()
    sweep.gate.open()
    view = job.wait(60)
    assert view.end is not None
    assert view.end["text"] == "1 trials: 1 done, 0 invalid, 0 failed."
    assert _kinds() == {"sweep": 1, "point": 1, "build": 1}
    assert len(_ids()) == len(list_engines()) == 1
    until(lambda: not dask.others(faulty))
    assert faulty.temporaries() == []


def test_a_sweep_whose_scheduler_is_lost_stops_and_keeps_what_was_measured(
    faulty: Faulty, start_cluster: Callable[[int], Cluster]
) -> None:
    dask = start_cluster(1)
    stalled = Stalled.make(faulty, 0)
    job = stalled.start(dask)
    before = _ids()
    assert len(before) == 1
    dask.process.kill()
    view = job.wait(60)
    assert view.state() == "failed"
    assert view.end is not None
    assert f"The Dask scheduler at {dask.address} is gone." in view.end["text"]
    until(lambda: not faulty.processes())
    assert faulty.temporaries() == []
    stalled.gate.open()
    sweep = Sweep.parse(stalled.values)
    assert [point.id for point in sweep.left()] == [sweep.points[1].id]
    assert all(t.valid for t in run_sweep(sweep, lambda _number, _point: lambda _text: None))
    assert before < _ids()
    assert len(_ids()) == 2


def test_a_sweep_that_is_stopped_leaves_nothing_running_and_frees_its_worker(
    faulty: Faulty, start_cluster: Callable[[int], Cluster]
) -> None:
    dask = start_cluster(1)
    first = Stalled.make(faulty).start(dask)
    assert first.cancel() == "cancelled"
    until(lambda: not dask.others(faulty), 60)
    assert {job.state() for job in jobs.list_jobs()} == {"cancelled"}
    # The only worker is free for the next one, which is killed.
    sweep = Stalled.make(faulty)
    second = sweep.start(dask)
    owner = second.view().owner
    assert owner is not None
    os.kill(owner.pid, signal.SIGKILL)
    until(lambda: not dask.others(faulty), 60)
    assert Counter(job.state() for job in jobs.list_jobs()) == {"cancelled": 5, "killed": 1}
    assert second.state() == "killed"
    assert _ids() == set()
    assert faulty.temporaries() == []
    sweep.gate.open()
    third, new = start_sweep(sweep.values, scheduler=dask.address)
    assert new
    assert third.wait(60).facts["sound"] == 1


def test_a_point_whose_job_is_ended_is_recorded_and_the_others_go_on(
    faulty: Faulty, start_cluster: Callable[[int], Cluster]
) -> None:
    dask = start_cluster(1)
    stalled = Stalled.make(faulty)
    stalled.values["points"].append({"spec": {"seed": 0}})
    job = stalled.start(dask)
    assert _job("point").cancel() == "cancelled"
    view = job.wait(60)
    assert view.end is not None
    assert view.end["text"] == "2 trials: 1 done, 0 invalid, 1 failed."
    failed = results.latest(Sweep.parse(stalled.values).points[0].id)
    assert failed is not None
    assert "of this point is cancelled" in failed.record["reasons"][0]


def test_the_command_line_says_where_no_scheduler_is(
    faulty: Faulty, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "played.toml"
    model = json.dumps(str(faulty.model))
    path.write_text(f'[[points]]\nspec = {{ backend = "fault", model = {model} }}\n')
    assert main(["sweep", str(path), "--scheduler", "nowhere"]) == 1
    assert "There is no Dask scheduler at nowhere" in capsys.readouterr().err
    assert _ids() == set()


def test_a_cluster_without_the_package_or_the_scheduler_is_a_sentence(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.cluster.PATIENCE", 0.2)
    with pytest.raises(JobError, match="There is no Dask scheduler at nowhere"):
        cluster._connected("nowhere").__enter__()
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ToolchainError, match=r"needs the package distributed: pip install"):
        cluster._connected("tcp://127.0.0.1:9").__enter__()


def test_a_worker_with_another_home_is_a_sentence(faulty: Faulty, home: Path) -> None:
    with pytest.raises(JobError, match="must share one WORKBENCH_HOME"):
        cluster.follow_point({"parent": "0123456789ab-001", "points": [{"id": "f" * 16}]})


def test_a_point_asks_for_its_gpus_and_the_lack_of_them_is_told(faulty: Faulty) -> None:
    assert cluster.resources_of(make_spec()) == {}
    spec = make_spec(backend="tensorrt_llm", model="demo", tp_size=2, pp_size=2)
    assert cluster.resources_of(spec) == {"GPU": 4}
    for device, needed in (("cuda", {"GPU": 1}), ("auto", {}), ("cpu", {})):
        assert cluster.resources_of(make_spec(backend="transformers", device=device)) == needed
    points = [Point.parse({"spec": spec.model_dump()}), Point.parse({})]
    small, large = {"a": {"resources": {"GPU": 1}}}, {"b": {"resources": {"GPU": 4.0}}}
    lack = "No worker can take what is left. Start one: dask worker ADDRESS"
    assert cluster._lack(small, points) == f"{lack} --nthreads 1 --resources GPU=4"
    assert cluster._lack(small | large, points) == ""
    assert cluster._lack({}, points[1:]) == lack
    assert cluster._lack({"c": {"resources": {}}}, points[1:]) == ""


# -------------------------------------------------- a played scheduler, and jobs that are only told

SWEEP = "0123456789ab-001"

OTHER_HOME = JobError("The sweep is not in /home/other on b. All machines must share one home.")


@dataclass(eq=False)
class Task:
    """A task of Dask that ends with an error, or as it should."""

    error: Exception | None = None

    def done(self) -> bool:
        return True

    def cancelled(self) -> bool:
        return False

    def exception(self) -> Exception | None:
        return self.error


class Scheduler:
    """Answers, or fails to as often as it is told."""

    def __init__(self, *misses: bool) -> None:
        self.misses = list(misses)
        self.scheduler = self
        self.keys: list[str] = []

    def identity(self) -> None: ...

    def sync(self, *_: Any, **__: Any) -> dict[str, Any]:
        if self.misses and self.misses.pop(0):
            raise TimeoutError
        return {"workers": {}}

    def submit(self, *_: Any, key: str, **__: Any) -> Task:
        self.keys.append(key)
        return Task()


@pytest.fixture
def sweep_job(home: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """The job of a sweep, looked at in quick succession."""
    monkeypatch.setattr("workbench.cluster.TICK", 0.01)
    job = Job.named(SWEEP)
    job.path.mkdir(parents=True)
    return job


def _point(faulty: Faulty) -> Point:
    return Point.parse({"spec": {"backend": "fault", "model": str(faulty.model)}})


def _told(point: Point, *events: str, silent: float = 0.0) -> Job:
    """Write down a job of a point on another host, last heard of so many seconds ago."""
    digest = jobs._digest("point", cluster._wanted(point.id, SWEEP))
    job = Job.named(f"{digest}-001")
    job.path.mkdir(parents=True)
    (job.path / "spec.json").write_text("{}")
    owner = replace(Owner.current(), host="elsewhere", boot="another").record()
    line = {"time": time.time() - silent, "event": "owner", "owner": owner}
    files.append_line(job.path / "journal.jsonl", line)
    for event in events:
        append(job.path, event, text="It was so.")
    return job


def test_the_trial_of_a_job_that_goes_on_is_not_hidden_by_the_failure_of_its_follower(
    faulty: Faulty, sweep_job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    point = _point(faulty)
    job = _told(point, silent=SILENCE + 5)
    looks: list[str] = []
    newest = jobs.newest

    def look(*wanted: Any) -> Job | None:
        looks.append("")
        if len(looks) == 2:
            raise StoreError("The system cannot read just now.")
        if len(looks) == 4:
            results.save(new_record(point.id, {}, {}) | {"status": "done"})
            append(job.path, "done")
        return newest(*wanted)

    monkeypatch.setattr("workbench.cluster.jobs.newest", look)
    error = StoreError("The system cannot read just now.")
    ended = cluster._ended(Scheduler(), "tcp://a:1", {Task(error): point}, Journal(sweep_job.path))
    assert list(ended) == [(point, error)]
    assert len(looks) >= 4
    assert cluster._settle(point, SWEEP, error, set()) == ""
    assert [trial.status for trial in results.list_trials()] == ["done"]


def test_only_a_job_that_ended_badly_without_a_trial_is_a_failure(
    faulty: Faulty, sweep_job: Job
) -> None:
    point = _point(faulty)
    before = results.save(new_record(point.id, {}, {}) | {"status": "done"})
    job = _told(point, "failed")
    assert cluster._settle(point, SWEEP, OTHER_HOME, {before.id}) == ""
    failed, _ = results.list_trials()
    assert failed.record["reasons"] == [f"The job {job.id} of this point is failed. It was so."]
    # What it has measured before it ended stands.
    assert cluster._settle(point, SWEEP, OTHER_HOME, {before.id}) == ""
    assert len(results.list_trials()) == 2


@pytest.mark.parametrize("silent", [None, LOST + 5], ids=["no job", "a lost job"])
def test_what_is_not_the_fault_of_a_point_leaves_it_unmeasured(
    faulty: Faulty, sweep_job: Job, silent: float | None
) -> None:
    point = _point(faulty)
    if silent:
        _told(point, silent=silent)
    assert not cluster._goes_on(point, SWEEP)
    assert cluster._settle(point, SWEEP, OTHER_HOME, set()) == str(OTHER_HOME)
    unforeseen = ModuleNotFoundError("No module named\n'workbench'")
    assert cluster._settle(point, SWEEP, unforeseen, set()) == (
        "A worker of the cluster failed: ModuleNotFoundError: No module named 'workbench'"
    )
    assert results.list_trials() == []


@pytest.fixture
def played(faulty: Faulty, sweep_job: Job, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """A sweep of two points in a job, each of which falls to a worker with another home."""
    points = [{"spec": {"seed": seed}} for seed in (0, 1)]
    spec = {"backend": "fault", "model": str(faulty.model)}
    sweep = Sweep.parse({"spec": spec, "points": points})
    request = {"name": "played", "time_limit": None, "scheduler": "tcp://a:1",
               "points": [point.record() for point in sweep.points]}  # fmt: skip
    files.write_json(sweep_job.path / "spec.json", request)

    @contextlib.contextmanager
    def connected(_url: str) -> Iterator[Scheduler]:
        yield Scheduler()

    monkeypatch.setattr(cluster, "_connected", connected)
    monkeypatch.setattr(cluster, "_submit", lambda *_: Task(OTHER_HOME))
    return sweep


def test_a_worker_with_another_home_fails_the_sweep_and_no_point(
    played: Sweep, sweep_job: Job
) -> None:
    with pytest.raises(JobError, match=f"^2 of 2 points could not be measured. {OTHER_HOME}"):
        cluster.run_cluster_job(Journal(sweep_job.path))
    view = sweep_job.view()
    assert view.notes.count(str(OTHER_HOME)) == 1
    assert view.facts["trials"] == 0
    assert played.left() == list(played.points)
    assert results.list_trials() == []


def test_what_a_job_measured_that_was_thought_lost_counts_at_the_end(
    played: Sweep, sweep_job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    def submit(_client: Any, _job: Job, _sweep: Sweep, _demand: Demand, point: Point) -> Task:
        results.save(new_record(point.id, {}, {}) | {"status": "done"})
        return Task(OTHER_HOME)

    monkeypatch.setattr(cluster, "_submit", submit)
    words = cluster.run_cluster_job(Journal(sweep_job.path))
    assert words["text"] == "2 trials: 2 done, 0 invalid, 0 failed."


def test_a_scheduler_that_is_busy_is_asked_again(faulty: Faulty, sweep_job: Job) -> None:
    point, journal = _point(faulty), Journal(sweep_job.path)
    job = _told(point)
    tasks: dict[Any, Point] = {Task(OTHER_HOME): point}
    misses = [True] * (cluster.MISSES - 1)
    busy = Scheduler(*misses, False, *misses, False, *[True] * cluster.MISSES)
    with pytest.raises(JobError, match="The Dask scheduler at tcp://a:1 is gone"):
        list(cluster._ended(busy, "tcp://a:1", tasks, journal))
    assert busy.misses == []
    append(job.path, "done")
    tasks = {Task(OTHER_HOME): point}
    assert len(list(cluster._ended(Scheduler(*misses), "tcp://a:1", tasks, journal))) == 1


def test_two_homes_may_use_one_scheduler(faulty: Faulty, sweep_job: Job) -> None:
    point, scheduler = _point(faulty), Scheduler()
    sweep = Sweep("played", (point,))
    for _ in range(2):
        cluster._submit(scheduler, sweep_job, sweep, ANY, point)
    assert len(set(scheduler.keys)) == 2
