"""The queue of a device: one build at a time, in order, whoever dies, stands still or cancels."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Self

import psutil
import pytest

from tests.faults import Fault, Faulty, Gate, fault, job_of, until
from workbench import files, jobs, queues, store
from workbench.build import Build
from workbench.errors import JobError
from workbench.jobs import Job
from workbench.owner import Owner
from workbench.processes import _lives, processes_of
from workbench.queues import Place, Slot, processor, turn

ROOT = Path(__file__).parents[1]
GPUS = [Slot("GPU-0001", "GPU 0"), Slot("GPU-0002", "GPU 1")]


def queue_of(slot: Slot) -> Path:
    return files.home() / "queues" / slot.name


def tickets(slot: Slot | None = None) -> list[str]:
    """The jobs with a ticket, in order."""
    queue = queue_of(slot or processor())
    return [path.name.split("-", 1)[1].removesuffix(".json") for path in sorted(queue.glob("0*"))]


def place_of(build: Build) -> dict:
    return job_of(build).view().facts.get("queue", {})


def waits(build: Build, behind: Build | None = None) -> bool:
    """Whether a build stands in the queue, directly behind another one."""
    return job_of(build).state() == "waiting" and (
        behind is None or place_of(build).get("behind") == job_of(behind).id
    )


def owner_of(build: Build) -> Owner:
    owner = job_of(build).view().owner
    assert owner is not None
    return owner


def gone(pids: Path) -> bool:
    """Whether the process does not live whose pid stands in a file."""
    pid = int(pids.read_text())
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def holder(faulty: Faulty) -> Iterator[tuple[Build, Gate]]:
    """A build that has the processor until its gate is opened."""
    gate = faulty.gate()
    build = faulty.start(fault("compile", "stall", until=gate))
    gate.wait_reached()
    yield build, gate
    gate.open()


# --- order and place


def test_the_second_waits_says_for_whom_and_runs(
    faulty: Faulty, holder: tuple[Build, Gate]
) -> None:
    first, gate = holder
    second = faulty.start(seed=1)
    until(lambda: waits(second, first))
    assert place_of(second) == {
        "device": "the processor",
        "place": 1,
        "behind": job_of(first).id,
        "host": owner_of(first).host,
    }
    assert job_of(second).view().stages["wait"].title == "wait for the processor"
    gate.open()
    assert second.wait().key == faulty.identity(seed=1).key
    assert place_of(second) == {}
    until(lambda: tickets() == [])


def test_first_come_first_served(faulty: Faulty, holder: tuple[Build, Gate]) -> None:
    first, gate = holder
    builds = [first]
    for seed in (1, 2, 3):
        builds.append(faulty.start(seed=seed))
        until(lambda: waits(builds[-1], builds[-2]))
    assert place_of(builds[3])["place"] == 3
    assert tickets() == [job_of(build).id for build in builds]
    gate.open()
    published = [build.wait().created for build in builds]
    assert published == sorted(published)


def test_what_the_waiter_wants_may_be_published_meanwhile(
    faulty: Faulty, holder: tuple[Build, Gate]
) -> None:
    second = faulty.start(seed=1)
    until(lambda: waits(second))
    temporary = files.temporary_name(store.folder(), "elsewhere")
    temporary.mkdir()
    details = {"model": {"name": "m"}, "limits": {}}
    engine = store.publish(temporary, faulty.identity(seed=1), details)
    holder[1].open()
    assert second.wait().manifest == engine.manifest
    assert "was published meanwhile" in job_of(second).view().notes[-1]


HOLD = """
import sys
from pathlib import Path
from tests.faults import until
from workbench.queues import Place, Slot, turn
name, job, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
def report(place: Place) -> None:
    (folder / f"{job}.place").write_text(f"{place.number} {place.behind}")
with turn(Slot(name, name), job, report):
    (folder / f"{job}.runs").touch()
    until((folder / f"{job}.leave").exists, 60)
(folder / f"{job}.left").touch()
"""


class Stand:
    """A process of a test that stands in a queue."""

    def __init__(self, slot: Slot, job: str, folder: Path) -> None:
        self.job, self._folder = job, folder
        words = [sys.executable, "-c", HOLD, slot.name, job, str(folder)]
        self.process = subprocess.Popen(words, cwd=ROOT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def runs(self) -> bool:
        return (self._folder / f"{self.job}.runs").exists()

    def place(self) -> str:
        path = self._folder / f"{self.job}.place"
        return path.read_text() if path.exists() else ""

    def leave(self) -> None:
        (self._folder / f"{self.job}.leave").touch()
        assert self.process.wait(30) == 0


def test_two_gpus_are_two_queues(home: Path, tmp_path: Path) -> None:
    with (
        Stand(GPUS[0], "a", tmp_path) as a,
        Stand(GPUS[1], "b", tmp_path) as b,
    ):
        until(lambda: a.runs() and b.runs())
        with Stand(GPUS[1], "c", tmp_path) as c:
            until(lambda: c.place() == "1 b")
            assert not c.runs()
            b.leave()
            until(c.runs)
            assert tickets(GPUS[0]) == ["a"]
            assert tickets(GPUS[1]) == ["c"]


def test_tickets_are_ordered_by_number_however_long_it_is(home: Path, tmp_path: Path) -> None:
    queue = files.make_folder(files.home() / "queues" / GPUS[0].name)
    with Stand(GPUS[0], "a", tmp_path) as a:
        until(a.runs)
        (queue / "00000001-a.json").rename(queue / "99999999-a.json")
        with Stand(GPUS[0], "b", tmp_path) as b:
            until(lambda: b.place() == "1 a")
            assert (queue / "100000000-b.json").exists()
            a.leave()
            until(b.runs)


# --- death and standing still


def test_when_the_holder_is_killed_what_it_left_ends_and_the_next_runs(
    faulty: Faulty, tmp_path: Path
) -> None:
    pids, gate = tmp_path / "pids", faulty.gate()
    first = faulty.start(
        fault("load", "child", pids=pids, detached=True),
        fault("load", "deaf"),
        fault("compile", "stall", until=gate),
    )
    gate.wait_reached()
    mine = processes_of(job_of(first).path)
    assert {process.pid for process in mine} >= {int(pids.read_text()), owner_of(first).pid}
    after = faulty.gate()
    second = faulty.start(fault("start", "stall", until=after), seed=1)
    until(lambda: waits(second, first))
    os.kill(owner_of(first).pid, signal.SIGKILL)
    after.wait_reached()
    # Before the next one compiles.
    assert not any(map(_lives, mine))
    after.open()
    second.wait()
    assert job_of(first).state() == "killed"
    until(lambda: tickets() == [])


def test_a_build_that_ends_leaves_nothing_on_the_device(faulty: Faulty, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    engine = faulty.start(fault("load", "child", pids=pids, detached=True)).wait()
    assert engine.damage() == ""
    until(lambda: faulty.processes() == [])
    assert gone(pids)


def test_a_waiter_that_is_killed_is_in_nobodys_way(
    faulty: Faulty, holder: tuple[Build, Gate]
) -> None:
    first, gate = holder
    second = faulty.start(seed=1)
    until(lambda: waits(second, first))
    third = faulty.start(seed=2)
    until(lambda: waits(third, second))
    os.kill(owner_of(second).pid, signal.SIGKILL)
    until(lambda: waits(third, first))
    assert tickets() == [job_of(first).id, job_of(third).id]
    gate.open()
    third.wait()
    assert job_of(second).state() == "killed"


def test_a_waiter_that_stands_still_is_passed_and_comes_later(
    faulty: Faulty, holder: tuple[Build, Gate]
) -> None:
    first, gate = holder
    second = faulty.start(seed=1)
    until(lambda: waits(second, first))
    after = faulty.gate()
    third = faulty.start(fault("compile", "stall", until=after), seed=2)
    until(lambda: waits(third, second))
    os.kill(owner_of(second).pid, signal.SIGSTOP)
    gate.open()
    after.wait_reached()
    assert job_of(second).view().end is None
    os.kill(owner_of(second).pid, signal.SIGCONT)
    # It stands before everybody, and waits for the one who has passed it.
    until(lambda: waits(second, third))
    after.open()
    assert second.wait().key == faulty.identity(seed=1).key


def test_what_somebody_left_who_had_passed_us_ends_too(
    faulty: Faulty, holder: tuple[Build, Gate], tmp_path: Path
) -> None:
    first, gate = holder
    second = faulty.start(seed=1)
    until(lambda: waits(second, first))
    pids, after = tmp_path / "pids", faulty.gate()
    orphan = fault("load", "child", pids=pids, detached=True)
    third = faulty.start(orphan, fault("compile", "stall", until=after), seed=2)
    until(lambda: waits(third, second))
    os.kill(owner_of(second).pid, signal.SIGSTOP)
    gate.open()
    after.wait_reached()
    os.kill(owner_of(third).pid, signal.SIGKILL)
    os.kill(owner_of(second).pid, signal.SIGCONT)
    second.wait()
    assert gone(pids)
    until(lambda: tickets() == [])


def test_a_holder_that_stands_still_keeps_the_device(
    faulty: Faulty, holder: tuple[Build, Gate]
) -> None:
    first, gate = holder
    second = faulty.start(seed=1)
    until(lambda: waits(second, first))
    os.kill(owner_of(first).pid, signal.SIGSTOP)
    # Its ticket is passed, but the lock is not to be had: it is told as one behind the holder.
    lock = (queue_of(processor()) / "lock").open()
    with pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock.close()
    assert waits(second, first)
    os.kill(owner_of(first).pid, signal.SIGCONT)
    gate.open()
    second.wait()


# --- cancel


def test_cancel_while_waiting_twice_and_after_the_end(
    faulty: Faulty, holder: tuple[Build, Gate]
) -> None:
    first, gate = holder
    second = faulty.start(seed=1)
    until(lambda: waits(second, first))
    assert job_of(second).cancel() == "cancelled"
    assert job_of(second).cancel() == "cancelled"
    assert tickets() == [job_of(first).id]
    with pytest.raises(JobError, match="Cancelled"):
        second.wait()
    gate.open()
    first.wait()
    assert job_of(first).cancel() == "done"
    assert job_of(first).view().end["event"] == "done"  # type: ignore[index]


def test_a_waiter_that_stands_still_can_be_cancelled(
    faulty: Faulty, holder: tuple[Build, Gate]
) -> None:
    second = faulty.start(seed=1)
    until(lambda: waits(second))
    os.kill(owner_of(second).pid, signal.SIGSTOP)
    assert job_of(second).cancel() == "cancelled"
    assert tickets() == [job_of(holder[0]).id]


PHASES = {
    "starting": ("after_session", ""),
    "fingerprint": ("after_stage", "fingerprint"),
    "before the temporary": ("before_temp", ""),
    "after the temporary": ("after_temp", ""),
    "start": ("start", ""),
    "load": ("load", ""),
    "compile": ("compile", ""),
    "write": ("half", ""),
    "end of the worker": ("end", ""),
    "smoke opens": ("open", ""),
    "smoke generates": ("decode", ""),
    "publish": ("after_stage", "publish"),
    "before the manifest": ("before_manifest", ""),
    "before the rename": ("before_rename", ""),
}


@pytest.mark.parametrize("phase", PHASES)
def test_cancel_in_every_phase_leaves_the_journal_only(
    faulty: Faulty, tmp_path: Path, phase: str
) -> None:
    at, name = PHASES[phase]
    gate, pids = faulty.gate(), tmp_path / "pids"
    where = {"name": name} if name else {}
    build = faulty.start(
        fault("start", "child", pids=pids, detached=True),
        fault(at, "stall", until=gate, **where),
        smoke=True,
    )
    gate.wait_reached()
    if phase == "starting":
        # Nobody can be asked yet; it is as soon as there is somebody.
        threading.Timer(0.1, gate.open).start()
    assert job_of(build).cancel() == "cancelled"
    assert faulty.processes() == []
    assert faulty.temporaries() == []
    assert tickets() == []
    assert store.list_engines() == []
    left = {path.name for path in job_of(build).path.iterdir()}
    assert left == {"spec.json", "journal.jsonl", "log.txt"}


def test_cancel_after_the_rename_keeps_the_engine(faulty: Faulty) -> None:
    gate = faulty.gate()
    build = faulty.start(fault("after_rename", "stall", until=gate))
    gate.wait_reached()
    assert job_of(build).cancel() == "cancelled"
    assert faulty.processes() == []
    (engine,) = store.list_engines()
    assert engine.damage(thorough=True) == ""


@pytest.mark.parametrize(
    "asked",
    [fault("after_stage", "end_wrapped", name="fingerprint"), fault("after_owner", "end_lost")],
    ids=lambda asked: asked["do"],
)
def test_what_python_makes_of_a_cancel_is_one(faulty: Faulty, asked: Fault) -> None:
    build = faulty.start(asked)
    assert job_of(build).wait().state() == "cancelled"


def test_a_runner_that_never_said_a_word_is_stopped_too(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = faulty.gate()
    build = faulty.start(fault("after_session", "stall", until=gate))
    gate.wait_reached()
    monkeypatch.setattr("workbench.journal.START_GRACE", 0.0)
    assert job_of(build).state() == "killed"
    assert job_of(build).cancel() == "killed"
    assert faulty.processes() == []


def test_who_knows_the_home_by_another_path_can_cancel(
    faulty: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids, gate = tmp_path / "pids", faulty.gate()
    orphan = fault("start", "child", pids=pids, detached=True)
    build = faulty.start(orphan, fault("compile", "stall", until=gate))
    gate.wait_reached()
    (tmp_path / "link").symlink_to(files.home())
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "link"))
    job = Job.named(job_of(build).id)
    assert {process.pid for process in processes_of(job.path)} >= {int(pids.read_text())}
    assert job.cancel() == "cancelled"
    assert gone(pids)


# --- strangers


def _ticket(slot: Slot, number: int, job: str, owner: Owner | None) -> Path:
    path = files.make_folder(queue_of(slot)) / f"{number:08d}-{job}.json"
    files.write_json(path, {"job": job, "owner": owner.record() if owner else None})
    return path


@pytest.mark.parametrize(
    "change",
    [{"host": "elsewhere", "boot": "another"}, {"namespace": "pid:[1]"}],
    ids=["another host", "another container"],
)
def test_a_foreign_ticket_is_never_removed_and_told_with_its_host(
    faulty: Faulty, change: dict
) -> None:
    foreign = replace(Owner.current(), **change)
    ticket = _ticket(processor(), 1, "theirs-001", foreign)
    build = faulty.start()
    until(lambda: waits(build))
    place = place_of(build)
    assert (place["behind"], place["host"]) == ("theirs-001", foreign.host)
    assert job_of(build).cancel() == "cancelled"
    assert ticket.exists()


def test_a_foreign_ticket_goes_when_its_journal_has_a_last_word(faulty: Faulty) -> None:
    foreign = replace(Owner.current(), host="elsewhere", boot="another")
    ticket = _ticket(processor(), 1, "abc-001", foreign)
    build = faulty.start()
    until(lambda: waits(build))
    job = files.make_folder(jobs.folder() / "abc-001")
    files.append_line(job / "journal.jsonl", {"time": 1.0, "event": "cancelled", "text": "Up."})
    files.write_json(job / "spec.json", {})
    build.wait()
    assert not ticket.exists()


def test_the_ticket_of_a_dead_container_goes_and_that_of_a_living_one_stays(
    faulty: Faulty,
) -> None:
    """The kernel keeps a lock on a ticket as long as its process lives, in whatever container."""
    foreign = replace(Owner.current(), namespace="pid:[1]")
    ticket = _ticket(processor(), 1, "theirs-001", foreign)
    files.write_json(ticket, files.read_json(ticket) | {"locked": True})
    os.utime(ticket, (1.0, 1.0))
    with ticket.open() as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        build = faulty.start()
        until(lambda: waits(build))
        assert place_of(build)["behind"] == "theirs-001"
        assert ticket.exists()
    build.wait()
    assert not ticket.exists()


def test_a_build_holds_a_lock_on_its_ticket(faulty: Faulty) -> None:
    gate = faulty.gate()
    build = faulty.start(fault("compile", "stall", until=gate))
    gate.wait_reached()
    [ticket] = queue_of(processor()).glob("0*")
    with ticket.open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    gate.open()
    build.wait()


def test_strangers_in_the_queue_are_in_nobodys_way_and_stay(faulty: Faulty, tmp_path: Path) -> None:
    queue = files.make_folder(queue_of(processor()))
    (queue / "00000001-empty.json").touch()
    (queue / "00000001-torn.json").write_text('{"job": "a", "own')
    (queue / "00000001-binary.json").write_bytes(b"\xff\x00\x9f")
    (queue / "00000001-list.json").write_text("[1]")
    (queue / "00000001-nobody.json").write_text('{"job": "a", "owner": {"pid": "x"}}')
    (queue / "00000001-folder.json").mkdir()
    (queue / "00000001-nowhere.json").symlink_to(tmp_path / "nowhere")
    (queue / "99999999999999999999-long.json").touch()
    (queue / "\u0663-arabic.json").touch()
    (queue / "notes.txt").touch()
    os.mkfifo(queue / "00000001-fifo.json")
    before = sorted(path.name for path in queue.iterdir())
    second = None
    gate = faulty.gate()
    first = faulty.start(fault("compile", "stall", until=gate))
    gate.wait_reached()
    second = faulty.start(seed=1)
    until(lambda: waits(second, first))
    assert place_of(second)["place"] == 1
    gate.open()
    second.wait()
    left = {path.name for path in queue.iterdir()} - {"lock", "holder"}
    until(lambda: len(list(queue.iterdir())) == len(before) + 2)
    assert left >= set(before)


def test_a_lock_that_is_a_fifo_makes_nobody_wait(faulty: Faulty) -> None:
    os.mkfifo(files.make_folder(queue_of(processor())) / "lock")
    faulty.start().wait()


# --- locks that do not keep what they promise


def _always(*_: object) -> None:
    """Say yes to everybody, as some network file systems do."""


def _never(*_: object) -> None:
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize("flock", [_always, _never], ids=["says yes to all", "has no locks"])
def test_without_locks_the_tickets_keep_the_order(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flock: object
) -> None:
    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(queues, "POLL", 0.01)
    places: list[Place] = []

    def report(place: Place) -> None:
        places.append(place)
        a.leave()

    with Stand(GPUS[0], "a", tmp_path) as a:
        until(a.runs)
        with turn(GPUS[0], "b", report):
            assert a.process.poll() == 0
    assert places[0].behind == "a"


def test_two_at_once_on_one_key_harm_no_engine(
    faulty: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are let in, as where neither lock nor ticket works; the second to publish gives way."""
    gates = [faulty.gate(), faulty.gate()]
    first = faulty.start(fault("before_rename", "stall", until=gates[0]))
    gates[0].wait_reached()
    # A queue of its own, as for somebody whom the first one cannot see.
    queue_of(processor()).rename(tmp_path / "unseen")
    second = jobs.Job.named("other-001")
    second.path.mkdir()
    request = job_of(first).request
    request["spec"]["fault"] = json.dumps([fault("before_rename", "stall", until=gates[1])])
    files.write_json(second.path / "spec.json", request)
    jobs._spawn(second.path)
    gates[1].wait_reached()
    for gate in gates:
        gate.open()
    assert first.wait().damage(thorough=True) == ""
    assert second.wait().end["engine"] == first.wait().key  # type: ignore[index]
    assert faulty.temporaries() == []
    assert len(list(store.folder().iterdir())) == 1
