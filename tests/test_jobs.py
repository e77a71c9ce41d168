"""Jobs as records: states are derived, and nothing that lies about is believed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from workbench import files, jobs, owner
from workbench.errors import JobError
from workbench.jobs import Job
from workbench.journal import Journal
from workbench.owner import Owner


@pytest.fixture
def job(home: Path) -> Job:
    path = jobs.folder() / "abc-001"
    path.mkdir()
    files.write_json(path / "spec.json", {"kind": "build"})
    return Job(path)


def _owned_by(job: Job, owner: Owner) -> None:
    files.append_line(
        job.path / "journal.jsonl", {"time": time.time(), "event": "owner", "owner": owner.record()}
    )


def test_running_means_a_process_that_lives(job: Job) -> None:
    assert job.state() == "starting"
    Journal(job.path).own()
    assert job.state() == "running"
    Journal(job.path).end("done", engine="x")
    assert job.state() == "done"


def test_a_process_that_is_gone_is_killed(job: Job) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    me = Owner.current()
    import psutil

    from workbench.owner import _started

    _owned_by(job, replace(me, pid=child.pid, started=_started(psutil.Process(child.pid))))
    assert job.state() == "running"
    child.kill()
    # Not waited for yet: a zombie is no life.
    deadline = time.monotonic() + 5
    while job.state() != "killed":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    child.communicate()
    assert job.state() == "killed"


def test_another_process_with_the_same_pid_is_not_ours(job: Job) -> None:
    me = Owner.current()
    _owned_by(job, replace(me, started=me.started - 1))
    assert job.state() == "killed"
    # Nobody is signalled: this very process would be.
    assert job.cancel() == "killed"


def test_a_host_that_was_renamed_is_still_this_one(job: Job) -> None:
    _owned_by(job, replace(Owner.current(), host="before-dhcp"))
    assert Owner.current().presence() == "alive"
    assert job.view().owner.presence() == "alive"  # type: ignore[union-attr]


def test_a_process_of_an_earlier_boot_is_gone(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "machine", lambda: "0123456789abcdef")
    _owned_by(job, replace(Owner.current(), boot="another"))
    assert job.state() == "killed"


def test_a_foreign_host_is_asked_there(job: Job) -> None:
    _owned_by(job, replace(Owner.current(), host="elsewhere", boot="another"))
    assert job.state() == "running"
    with pytest.raises(JobError, match="runs on the host elsewhere; cancel it there"):
        job.cancel()


def test_a_foreign_host_without_a_sign_of_life_is_given_up_on_request(job: Job) -> None:
    files.append_line(
        job.path / "journal.jsonl",
        {
            "time": time.time() - 3600,
            "event": "owner",
            "owner": replace(Owner.current(), host="gone-pod", boot="another").record(),
        },
    )
    os.utime(job.path / "spec.json", (time.time() - 3600,) * 2)
    assert job.state() == "silent"
    assert job.cancel() == "cancelled"
    assert "no sign of life from gone-pod" in job.view().end["text"]  # type: ignore[index]


def test_no_sign_of_life_is_a_state_of_its_own(job: Job) -> None:
    files.append_line(
        job.path / "journal.jsonl",
        {"time": time.time() - 60, "event": "owner", "owner": Owner.current().record()},
    )
    os.utime(job.path / "spec.json", (time.time() - 60,) * 2)
    assert job.state() == "silent"
    Journal(job.path).fact(memory_bytes=1)
    assert job.state() == "running"


def test_a_job_that_never_began_is_killed(job: Job) -> None:
    os.utime(job.path / "spec.json", (time.time() - 60,) * 2)
    assert job.state() == "killed"


def test_stages_follow_each_other_and_count(job: Job) -> None:
    journal = Journal(job.path)
    journal.own()
    journal.stage("load", "load weights")
    journal.stage("trace", "trace layers")
    journal.count("trace", 2, 4, "layers")
    view = job.view()
    assert view.stages["load"].ended is not None
    assert (view.stages["trace"].done, view.stages["trace"].total) == (2, 4)
    assert view.stages["trace"].ended is None
    journal.end("failed", text="why")
    assert view.update()
    assert view.stages["trace"].ended is not None
    assert view.end is not None
    assert view.end["text"] == "why"


def test_a_job_ends_when_its_last_word_is_on_the_disk(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, synced = Journal(job.path), []
    journal.own()
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.pread(number, 1 << 16, 0)))
    journal.end("done", engine="x")
    [written] = synced
    assert b'"event": "done", "engine": "x"' in written


def test_the_first_last_word_counts(job: Job) -> None:
    Journal(job.path).end("failed", text="first")
    Journal(job.path).end("done", engine="x")
    assert job.state() == "failed"


@pytest.mark.parametrize("owner", [None, 3, {}, {"host": "h"}, {"pid": "x", "host": 1}])
def test_an_owner_that_names_nobody_is_nobody(job: Job, owner: object) -> None:
    files.append_line(
        job.path / "journal.jsonl", {"time": time.time(), "event": "owner", "owner": owner}
    )
    assert job.state() == "starting"


def test_a_job_without_its_request_is_a_sentence(home: Path) -> None:
    with pytest.raises(JobError, match=r"no readable spec\.json"):
        _ = Job(jobs.folder() / "gone").request
    with pytest.raises(JobError, match="There is no job gone"):
        Job(jobs.folder() / "gone").state()


@pytest.mark.parametrize(("end", "anew"), [("done", True), ("cancelled", False)])
def test_a_sweep_that_got_to_its_end_is_asked_for_anew_when_it_is_retried(
    job: Job, end: Literal["done", "cancelled"], monkeypatch: pytest.MonkeyPatch, *, anew: bool
) -> None:
    files.write_json(job.path / "spec.json", {"kind": "sweep", "retry_failed": True, "begun": 1.0})
    Journal(job.path).own()
    Journal(job.path).end(end)
    monkeypatch.setattr(jobs, "_spawn", lambda _path: None)
    begun = jobs.retry(job).request["begun"]
    assert (begun > 1.0) is anew
