"""Publish under fire: an engine is there completely or not at all, whatever dies or is refused."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.faults import PUBLISH_POINTS, Fault, Faulty, fault, job_of, until
from workbench import store
from workbench.build import Build
from workbench.engine import Engine
from workbench.errors import JobError, StoreError
from workbench.journal import ENDED

VISIBLE_FROM = PUBLISH_POINTS.index("after_rename")
"""From this point on the engine can be seen."""


def _wait_ended(build: Build) -> str:
    job = job_of(build)
    until(lambda: job.state() in ENDED)
    return job.state()


def _whole(engines: list[Engine]) -> list[str]:
    """The keys of all engines that can be seen; each has what its manifest says."""
    assert [engine.damage(thorough=True) for engine in engines] == [""] * len(engines)
    return [engine.key for engine in engines]


def _kill(point: str, how: str) -> Fault:
    """At a point in the worker too it is the runner that dies."""
    in_worker = point in ("half", "end")
    return fault(point, "kill_runner" if in_worker and how == "kill" else how)


KILLS = [
    *((point, "kill") for point in PUBLISH_POINTS),
    *((point, "kill_tree") for point in ("half", "end", "before_rename")),
]


@pytest.mark.parametrize(("point", "how"), KILLS)
def test_a_kill_at_any_point_leaves_a_whole_engine_or_none(
    faulty: Faulty, point: str, how: str
) -> None:
    key = faulty.identity().key
    killed = faulty.start(_kill(point, how))
    state = _wait_ended(killed)
    assert state == ("done" if point == "after_record" else "killed")
    visible = PUBLISH_POINTS.index(point) >= VISIBLE_FROM
    assert _whole(store.list_engines()) == ([key] if visible else [])
    until(lambda: not faulty.processes())

    again = faulty.start()
    assert (again.hit is not None) == visible
    assert again.wait().key == key
    assert _whole(store.list_engines()) == [key]
    assert visible or job_of(again).id != job_of(killed).id
    # The next build sweeps what the dead one left; after a hit there was nothing.
    assert faulty.temporaries() == []


@pytest.mark.parametrize("point", ["before_displace", "after_displace", "before_rename"])
def test_a_kill_while_a_damaged_engine_is_replaced_leaves_no_damaged_one(
    faulty: Faulty, point: str
) -> None:
    engine = faulty.start().wait()
    (engine.path / "engine.bin").write_bytes(b"short")
    assert _wait_ended(faulty.start(fault(point, "kill"))) == "killed"
    assert [engine.damage() == "" for engine in store.list_engines()] in ([], [False])

    assert faulty.start().wait().key == engine.key
    assert _whole(store.list_engines()) == [engine.key]


REFUSED = {
    "no room in the quota": fault("before_temp", "error", error="EDQUOT"),
    "failing disk, a file": fault("before_sync", "error", error="EIO", name="engine.bin"),
    "failing disk, the manifest": fault("before_manifest", "error", error="EIO"),
    "read-only from now on": fault("before_rename", "error", error="EROFS"),
    "no permission": fault("before_rename", "error", error="EACCES"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_system_refuses_is_said_and_nothing_is_published(
    faulty: Faulty, name: str
) -> None:
    other = faulty.start(seed=1).wait()
    wrong = REFUSED[name]
    with pytest.raises(JobError) as caught:
        faulty.start(wrong).wait()
    reason = os.strerror(getattr(errno, wrong["error"]))
    assert str(caught.value) == f"The system refused: {reason}. Nothing was published."
    assert _whole(store.list_engines()) == [other.key]
    assert faulty.temporaries() == []
    assert faulty.start().wait().damage(thorough=True) == ""


def test_a_disk_that_fails_after_the_rename_takes_nothing_back(faulty: Faulty) -> None:
    # What can be seen is complete; only the name itself is not known to be on the disk.
    engine = faulty.start(fault("before_sync", "error", error="EIO", name="engines")).wait()
    assert _whole(store.list_engines()) == [engine.key]


def test_a_runner_without_descriptors_still_says_so(faulty: Faulty) -> None:
    build = faulty.start(fault("before_manifest", "descriptors"))
    with pytest.raises(JobError, match=r"^The .*: Too many open files\. (?!Set)"):
        build.wait()
    assert store.list_engines() == []
    assert faulty.start().wait().damage(thorough=True) == ""
    assert faulty.temporaries() == []


@pytest.mark.parametrize("name", ["EMFILE", "EIO"])
def test_what_cannot_be_read_just_now_is_not_replaced(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    engine = faulty.start().wait()
    temporary = store.folder() / ".tmp-another"
    shutil.copytree(engine.path, temporary)
    failing = engine.path / "manifest.json"
    real_open = os.open

    def open_or_fail(path: Any, *arguments: Any, **options: Any) -> int:
        if Path(path) == failing:
            raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))
        return real_open(path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_or_fail)
        with pytest.raises(StoreError, match=r"cannot read .* just now"):
            store.publish(temporary, faulty.identity(), {"limits": {}, "model": {}})
    assert store.find_engine(engine.key).manifest == engine.manifest
    assert engine.damage(thorough=True) == ""


LIES = {
    "no JSON": "garbage\n",
    "no object": "[1, 2]\n",
    "no event": '{"message": "done"}\n',
    "binary": "\x00\xff\xfe\n",
    "a stage without a name": '{"event": "stage"}\n',
    "a count of nothing": '{"event": "count", "name": "compile"}\n',
    "too deep": "[" * 100_000 + "\n",
}


@pytest.mark.parametrize("name", LIES)
def test_garbage_on_the_channel_fails_the_build_with_a_sentence(faulty: Faulty, name: str) -> None:
    with pytest.raises(
        JobError, match=r"^The worker sent what is no message: .{1,80}\. "
    ) as caught:
        faulty.start(fault("compile", "send", raw=LIES[name]), fault("write", "stall")).wait()
    assert "\n" not in str(caught.value)
    assert store.list_engines() == []
    assert faulty.temporaries() == []


def test_a_lie_about_the_end_is_found_out(faulty: Faulty) -> None:
    with pytest.raises(JobError, match="said that it was done, and wrote no file"):
        faulty.start(fault("write", "done"), smoke=True).wait()
    assert store.list_engines() == []


def test_counts_that_cannot_be_are_not_shown(faulty: Faulty) -> None:
    lie = '{"event": "count", "name": "compile", "done": %s, "total": 4, "unit": "layers"}\n'
    raw = "".join(lie % done for done in ("7", "-1", '"many"', "null"))
    gate = faulty.gate()
    build = faulty.start(fault("write", "send", raw=raw), fault("write", "stall", until=gate))
    gate.wait_reached()
    until(lambda: "write" in job_of(build).view().stages)  # all before it is journalled by now
    stage = job_of(build).view().stages["compile"]
    assert (stage.done, stage.total) == (4, 4)
    gate.open()
    build.wait()
