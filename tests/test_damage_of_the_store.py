"""What else can stand in the store: never believed, in nobody's way, and not left there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import Faulty, fault, job_of, until
from workbench import store
from workbench.errors import JobError


def _dangle(path: Path) -> None:
    path.symlink_to("nowhere")


IN_PLACE: dict[str, Callable[[Path], object]] = {
    "a file": Path.touch,
    "a link to nowhere": _dangle,
    "an empty directory": Path.mkdir,
}


@pytest.mark.parametrize("kind", IN_PLACE)
def test_what_is_no_engine_under_an_engines_name_is_replaced(faulty: Faulty, kind: str) -> None:
    IN_PLACE[kind](store.folder() / faulty.identity().key)
    assert faulty.start().wait().damage(thorough=True) == ""
    assert faulty.temporaries() == []


@pytest.mark.parametrize("how", ["copied", "linked", "swapped"])
def test_an_engine_under_the_name_of_another_is_not_that_one(faulty: Faulty, how: str) -> None:
    other = faulty.start(seed=1).wait()
    path = store.folder() / faulty.identity().key
    if how == "copied":
        shutil.copytree(other.path, path)
    elif how == "linked":
        path.symlink_to(other.path.name)
    else:
        other.path.rename(path)
    found, why = store.look_up(faulty.identity())
    assert found is None
    assert why
    engine = faulty.start().wait()
    assert engine.manifest["key"] == engine.key == faulty.identity().key
    assert engine.damage(thorough=True) == ""


def test_a_directory_in_place_of_a_file_is_damage_whatever_its_size(faulty: Faulty) -> None:
    # 4096 bytes is what many file systems give for the size of a directory.
    engine = faulty.start(size=4096).wait()
    (engine.path / "engine.bin").unlink()
    (engine.path / "engine.bin").mkdir()
    assert "engine.bin" in engine.damage()
    assert "engine.bin" in engine.damage(thorough=True)


def test_a_fifo_in_place_of_an_empty_file_is_damage(faulty: Faulty) -> None:
    engine = faulty.start(size=0).wait()
    (engine.path / "engine.bin").unlink()
    os.mkfifo(engine.path / "engine.bin")
    assert "engine.bin" in engine.damage(thorough=True)


def test_what_a_kill_left_of_a_damaged_engine_is_swept(faulty: Faulty) -> None:
    engine = faulty.start().wait()
    (engine.path / "engine.bin").write_bytes(b"short")
    killed = job_of(faulty.start(fault("after_displace", "kill")))
    until(lambda: killed.state() == "killed")
    assert faulty.start().wait().damage(thorough=True) == ""
    assert faulty.temporaries() == []


def test_cancel_ends_a_grandchild_in_a_session_of_its_own(faulty: Faulty, tmp_path: Path) -> None:
    gate = faulty.gate()
    child = fault("load", "child", pids=tmp_path / "pids", detached=True)
    job = job_of(faulty.start(child, fault("compile", "stall", until=gate)))
    gate.wait_reached()
    assert job.cancel(patience=0.5) == "cancelled"
    until(lambda: not faulty.processes(), seconds=5)


def test_a_build_that_ends_leaves_no_grandchild(faulty: Faulty, tmp_path: Path) -> None:
    child = fault("load", "child", pids=tmp_path / "pids", detached=True)
    faulty.start(child).wait()
    until(lambda: not faulty.processes(), seconds=5)


@pytest.mark.parametrize("what", ["missing", "a directory"])
def test_a_job_without_its_request_is_in_nobodys_way(faulty: Faulty, what: str) -> None:
    job = job_of(faulty.start())
    job.wait()
    shutil.rmtree(store.folder() / faulty.identity().key)
    (job.path / "spec.json").unlink()
    if what == "a directory":
        (job.path / "spec.json").mkdir()
    assert faulty.start().wait().key == faulty.identity().key


def test_a_worker_that_announces_what_it_did_not_write_publishes_nothing(faulty: Faulty) -> None:
    with pytest.raises(JobError):
        faulty.start(fault("write", "done")).wait()
    assert store.list_engines() == []
