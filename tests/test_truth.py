"""What is said about a job is so: after kills, stops, jumps of the clock, and on other machines."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from tests.faults import Faulty, Gate, fault, job_of, until
from workbench import files, journal, store
from workbench.build import Build, engine_of
from workbench.errors import JobError
from workbench.jobs import Job
from workbench.journal import ENDED, View
from workbench.owner import Owner, _started

DAY = 86400.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The clocks as this process reads them in journals; set `wall` or `passed` to move them."""
    moved = SimpleNamespace(wall=0.0, passed=0.0)
    played = SimpleNamespace(
        time=lambda: time.time() + moved.wall + moved.passed,
        monotonic=lambda: time.monotonic() + moved.passed,
        sleep=time.sleep,
    )
    monkeypatch.setattr(journal, "time", played)
    return moved


def _stalled(faulty: Faulty) -> tuple[Build, Job, Gate]:
    """A build whose worker stands in the middle."""
    gate = faulty.gate()
    build = faulty.start(
        fault("load", "print", text="weights are here"), fault("compile", "stall", until=gate)
    )
    gate.wait_reached()
    job = job_of(build)
    # What the worker said before is on its way to the journal.
    until(lambda: (stage := job.view().stages.get("compile")) and stage.done == 3)
    return build, job, gate


def _signal_all(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        os.kill(process.pid, number)


def test_a_killed_tree_is_told_as_killed_with_its_last_words(faulty: Faulty) -> None:
    _, job, _ = _stalled(faulty)
    assert job.state() == "running"
    _signal_all(faulty.processes(), signal.SIGKILL)
    until(lambda: job.state() == "killed")
    assert "weights are here" in job.log.read_text()
    assert job.view().stages["compile"].done == 3
    with pytest.raises(JobError, match="gone without a last word"):
        engine_of(job, job.view())
    assert store.list_engines() == []

    again = faulty.start()
    assert job_of(again).id != job.id
    assert again.wait().key == faulty.identity().key
    assert job.state() == "killed"
    assert faulty.temporaries() == []


def test_a_stopped_tree_is_silent_and_then_runs_on(faulty: Faulty, clock: SimpleNamespace) -> None:
    build, job, gate = _stalled(faulty)
    processes = faulty.processes()
    _signal_all(processes, signal.SIGSTOP)
    until(lambda: all(process.status() == psutil.STATUS_STOPPED for process in processes))
    assert job.state() == "running"
    clock.passed = 600.0
    assert job.state() == "silent"
    assert job.state() not in ENDED
    # Nobody starts a second one meanwhile.
    assert job_of(faulty.start()).id == job.id

    clock.passed = 0.0
    _signal_all(processes, signal.SIGCONT)
    view = job.view()
    until(view.update)
    assert view.state() == "running"
    gate.open()
    assert build.wait().key == faulty.identity().key


def test_a_stopped_tree_can_be_cancelled(faulty: Faulty) -> None:
    _, job, _ = _stalled(faulty)
    processes = faulty.processes()
    _signal_all(processes, signal.SIGSTOP)
    until(lambda: all(process.status() == psutil.STATUS_STOPPED for process in processes))
    assert job.cancel(patience=2.0) == "cancelled"
    until(lambda: not faulty.processes())
    assert store.list_engines() == []


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_a_reader_whose_clock_jumps_still_sees_it_running(
    faulty: Faulty, clock: SimpleNamespace, jump: float
) -> None:
    build, job, gate = _stalled(faulty)
    clock.wall = jump
    assert job.state() == "running"
    clock.passed = 600.0  # a day is a jump; ten minutes without a sign are not
    assert job.state() == "silent"
    clock.passed = 0.0
    gate.open()
    build.wait()
    assert job.state() == "done"


def test_a_builder_whose_clock_jumps_is_never_lost_and_lasts_what_it_lasts(
    faulty: Faulty,
) -> None:
    gate = faulty.gate()
    build = faulty.start(
        fault("after_stage", "clock", name="fingerprint", seconds=DAY),
        fault("after_stage", "clock", name="compile", seconds=-2 * DAY),
        fault("compile", "stall", until=gate),
    )
    gate.wait_reached()
    assert job_of(build).state() == "running"
    gate.open()
    engine = build.wait()
    seconds = [stage["seconds"] for stage in engine.manifest["build"]["stages"]]
    assert all(0.0 <= value < 600.0 for value in seconds)
    assert job_of(build).state() == "done"


def _owned_by(job: Job, owner: Owner) -> None:
    """Write the journal of a job anew, as if somebody else ran it."""
    (job.path / "journal.jsonl").unlink()
    record = {"time": time.time(), "event": "owner", "owner": owner.record()}
    files.append_line(job.path / "journal.jsonl", record)


@pytest.fixture
def dead(faulty: Faulty) -> Job:
    """A job whose processes were killed."""
    _, job, _ = _stalled(faulty)
    faulty.kill_all()
    assert job.state() == "killed"
    return job


@pytest.mark.parametrize("age", [DAY, -DAY])
def test_a_job_that_nobody_began_is_not_waited_for_after_a_jump(dead: Job, age: float) -> None:
    (dead.path / "journal.jsonl").unlink()
    os.utime(dead.path / "spec.json", (time.time() - age,) * 2)
    assert dead.state() == "killed"
    assert dead.cancel() == "killed"


ELSEWHERE = replace(Owner.current(), host="node-7", boot="another")


@pytest.mark.parametrize("passed", [0.0, 600.0])
def test_a_job_of_another_host_is_never_taken_over(
    faulty: Faulty, dead: Job, clock: SimpleNamespace, passed: float
) -> None:
    _owned_by(dead, ELSEWHERE)
    os.utime(dead.path / "spec.json", (time.time() - 60,) * 2)
    clock.passed = passed
    assert dead.state() == ("silent" if passed else "running")
    build = faulty.start()
    assert job_of(build).id == dead.id
    if passed:
        assert "started on node-7, and gives no sign of life" in build.explanation
        assert f"workbench jobs cancel {dead.id}" in build.explanation


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen]:
    """A process that is none of ours; it says whether it was left alone."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.communicate(b"\n")
    assert process.returncode == 0


@pytest.mark.parametrize("lives", [True, False])
def test_a_container_that_shares_our_name_is_another_place(
    dead: Job, stranger: subprocess.Popen, lives: bool
) -> None:
    # docker run --network host: the same host name, the same boot, but pids of its own.
    there = replace(Owner.current(), namespace="pid:[1]", pid=stranger.pid if lives else 1 << 30)
    started = _started(psutil.Process(stranger.pid))
    _owned_by(dead, replace(there, started=started))
    assert dead.state() == "running"
    with pytest.raises(JobError, match="cancel it there"):
        dead.cancel()


def test_a_pid_that_was_given_again_is_never_signalled(
    dead: Job, stranger: subprocess.Popen
) -> None:
    _owned_by(dead, replace(Owner.current(), pid=stranger.pid))
    assert dead.state() == "killed"
    assert dead.cancel() == "killed"


@pytest.mark.parametrize("pid", [0, -1, 1 << 40, 10**400])
def test_a_pid_that_cannot_be_names_nobody(pid: int) -> None:
    assert Owner.from_record({**Owner.current().record(), "pid": pid}) is None


DEAF: dict[str, Callable[[Path], list[dict]]] = {
    "worker": lambda _: [fault("start", "deaf")],
    "runner": lambda _: [fault("after_stage", "deaf", name="load")],
    "both": lambda _: [fault("start", "deaf"), fault("after_stage", "deaf", name="load")],
    "grandchild": lambda pids: [fault("load", "child", pids=pids)],
}


@pytest.mark.parametrize("who", DEAF)
def test_cancel_ends_also_what_does_not_listen(faulty: Faulty, tmp_path: Path, who: str) -> None:
    gate = faulty.gate()
    wrong = DEAF[who](tmp_path / "pids")
    job = job_of(faulty.start(*wrong, fault("compile", "stall", until=gate)))
    gate.wait_reached()
    assert len(faulty.processes()) == (3 if who == "grandchild" else 2)
    assert job.cancel(patience=0.5) == "cancelled"
    until(lambda: not faulty.processes())
    assert store.list_engines() == []
    assert job.cancel() == "cancelled"
    assert faulty.start().wait().key == faulty.identity().key
    assert faulty.temporaries() == []


ANYTHING = [None, True, -1, 10**400, 1e308, float("nan"), "text", "", [], [1], {}, {"a": 1}]


@pytest.mark.parametrize("event", ["owner", "stage", "count", "note", "fact", "failed", 7, None])
def test_records_of_wrong_types_break_no_view(tmp_path: Path, event: object) -> None:
    journal.Journal(tmp_path).stage("load", "load weights")
    fields = ["time", "clock", "owner", "name", "title", "done", "total", "unit", "text", "values"]
    whole = {"name": "load", "title": "t", "done": 1, "total": 2, "text": "t", "values": {"a": 1}}
    for field in fields:
        for value in ANYTHING:
            files.append_line(tmp_path / "journal.jsonl", {**whole, "event": event, field: value})
        files.append_line(
            tmp_path / "journal.jsonl",
            {name: value for name, value in {**whole, "event": event}.items() if name != field},
        )
    view = View(tmp_path, created=time.time())
    view.update()
    assert view.state() == ("failed" if event == "failed" else "starting")
    assert set(view.stages) <= {"load", "text", ""}
    for stage in view.stages.values():
        assert stage.seconds(time.time()) >= 0.0
        assert stage.total is None or 0 <= (stage.done or 0) <= stage.total
    assert all(isinstance(note, str) for note in view.notes)


def test_a_whole_record_after_a_wrong_one_counts(tmp_path: Path) -> None:
    files.append_line(tmp_path / "journal.jsonl", {"event": "stage", "time": "noon"})
    journal.append(tmp_path, "stage", name="load", title="load weights")
    view = View(tmp_path)
    view.update()
    assert [stage.title for stage in view.stages.values()] == ["load weights"]
