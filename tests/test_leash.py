"""A leash: work ends with the job that it is a part of, also where that can only be silent."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import until
from workbench import files, journal
from workbench.errors import StoreError
from workbench.jobs import Job
from workbench.journal import View, append
from workbench.leash import leash
from workbench.owner import Owner

FOREIGN = replace(Owner.current(), host="elsewhere", boot="another")


@pytest.fixture
def parent(home: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A job of another host, heard of just now."""
    monkeypatch.setattr("workbench.leash.TICK", 0.01)
    job = Job.named("0123456789ab-001")
    job.path.mkdir(parents=True)
    (job.path / "spec.json").write_text("{}")
    append(job.path, "owner", owner=FOREIGN.record())
    return job


@pytest.fixture
def interrupted() -> Iterator[threading.Event]:
    """Set when this process is asked to end."""
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    yield asked
    signal.signal(signal.SIGTERM, before)


def _heard(job: Job, seconds: float) -> None:
    """Let the last sign of life be so many seconds ago."""
    line = {"time": time.time() - seconds, "event": "owner", "owner": FOREIGN.record()}
    files.append_line(job.path / "journal.jsonl", line)


def test_a_parent_of_another_host_that_is_silent_for_long_is_over(
    parent: Job, interrupted: threading.Event
) -> None:
    with leash(parent):
        _heard(parent, journal.LOST + 1)
        until(interrupted.is_set, 10)


def test_a_parent_that_is_late_is_not_over_until_it_is_lost(parent: Job) -> None:
    for seconds, state, lost in (
        (0.0, "running", False),
        (journal.SILENCE + 5, "silent", False),
        (journal.LOST + 5, "silent", True),
    ):
        _heard(parent, seconds)
        view = parent.view()
        assert (view.state(), view.lost()) == (state, lost)
    # One of this machine that stands still may go on: nothing is concluded from its silence.
    mine = {"time": 1.0, "event": "owner", "owner": Owner.current().record()}
    files.append_line(parent.path / "journal.jsonl", mine)
    view = parent.view()
    view.last_clock = time.monotonic() - journal.LOST - 5
    assert (view.state(), view.lost()) == ("silent", False)


def test_a_file_system_that_fails_for_once_does_not_end_the_watch(
    parent: Job, interrupted: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures, update = threading.Event(), View.update

    def fail_once(view: View) -> bool:
        if not failures.is_set():
            failures.set()
            raise StoreError("The system cannot read just now.")
        return update(view)

    with leash(parent):
        monkeypatch.setattr(View, "update", fail_once)
        until(failures.is_set, 10)
        append(parent.path, "cancel")
        until(interrupted.is_set, 10)
