"""Damaged records, damaged engines, changed weights: told by name, passed over, never believed."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import Faulty, job_of
from tests.faults.spoil import SPOIL, swap
from workbench import account, files, jobs, store
from workbench.build import log_tail
from workbench.cli import main
from workbench.digests import cache_folder
from workbench.engine import Engine
from workbench.errors import JobError, StoreError
from workbench.fingerprint import fingerprint, is_known
from workbench.jobs import Job
from workbench.widgets.progress import tail


@pytest.mark.parametrize("kind", SPOIL)
def test_a_spoiled_file_is_no_file_and_is_waited_for_by_nobody(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "record"
    files.write_json(path, {"n": 1})
    SPOIL[kind](path)
    assert files.read_json(path) in (None, ["a", 1], {})
    records, _ = files.read_lines(path)
    assert records in ([], [{}])


def test_a_file_that_we_may_not_read_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Root may read everything, so the system's answer is played.
    path = tmp_path / "record"
    files.write_json(path, {"n": 1})

    def refuse(*_: Any) -> int:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "open", refuse)
    assert files.read_json(path) is None
    assert files.read_lines(path) == ([], 0)


@pytest.mark.parametrize("name", ["EMFILE", "ENFILE", "EIO", "ENOMEM"])
def test_a_system_that_cannot_read_now_is_an_error_with_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    number = getattr(errno, name)

    def refuse(*_: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(StoreError, match=f"cannot read .*record just now: {os.strerror(number)}"):
        files.read_json(tmp_path / "record")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Faulty, Path]]:
    """A home with two engines and their jobs, to be copied: what spoils it builds nothing."""
    folder = tmp_path_factory.mktemp("shelf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME", str(folder / "home"))
        faulty = Faulty.install(folder / "faulty", patch)
        for seed in (0, 1):
            faulty.start(seed=seed).wait()
        yield faulty, folder / "home"


@pytest.fixture
def shop(shelf: tuple[Faulty, Path], home: Path) -> Iterator[Faulty]:
    """The same in the test's own home."""
    faulty, stock = shelf
    shutil.copytree(stock, home)
    yield faulty
    faulty.kill_all()


def _engine(shop: Faulty, seed: int = 0) -> Engine:
    return store.find_engine(shop.identity(seed=seed).key)


def _job(shop: Faulty, seed: int = 0) -> Job:
    """The job that built an engine."""
    return Job(jobs.folder() / _engine(shop, seed).manifest["build"]["job"])


@pytest.mark.parametrize("kind", SPOIL)
def test_a_spoiled_manifest_is_no_engine(shop: Faulty, kind: str) -> None:
    engine, other = _engine(shop), _engine(shop, 1)
    SPOIL[kind](engine.path / "manifest.json")
    assert [found.key for found in store.list_engines()] == [other.key]
    found, why = store.look_up(shop.identity())
    assert found is None
    assert why
    with pytest.raises(StoreError, match="There is no engine whose key begins with"):
        store.find_engine(engine.key)


@pytest.mark.parametrize("kind", ["a FIFO", "a directory", "truncated", "a link to nowhere"])
def test_an_engine_with_a_spoiled_manifest_is_built_again(shop: Faulty, kind: str) -> None:
    engine, other = _engine(shop), _engine(shop, 1)
    SPOIL[kind](engine.path / "manifest.json")
    again = shop.start().wait()
    assert again.key == engine.key
    assert again.damage(thorough=True) == ""
    assert {found.key for found in store.list_engines()} == {engine.key, other.key}


@pytest.mark.parametrize("kind", SPOIL)
def test_a_spoiled_request_is_a_sentence_and_stops_no_listing(shop: Faulty, kind: str) -> None:
    job, other = _job(shop), _job(shop, 1)
    SPOIL[kind](job.path / "spec.json")
    assert other.id in [found.id for found in jobs.list_jobs()]
    assert [found.state() for found in jobs.list_jobs()] == ["done"] * len(jobs.list_jobs())
    if kind != "without fields":
        with pytest.raises(JobError, match=rf"The job {job.id} has no readable spec\.json"):
            _ = job.request
    assert shop.start().hit is not None


@pytest.mark.parametrize("kind", SPOIL)
def test_a_spoiled_journal_tells_nothing_that_is_not_so(shop: Faulty, kind: str) -> None:
    job = _job(shop)
    SPOIL[kind](job.path / "journal.jsonl")
    # Nobody expects a first word any more.
    os.utime(job.path / "spec.json", (time.time() - 60,) * 2)
    assert job.state() == "killed"
    assert job.cancel() == "killed"
    assert job.wait(timeout=5).end is None


@pytest.mark.parametrize("kind", ["a FIFO", "a directory", "truncated"])
def test_a_spoiled_journal_is_in_nobodys_way(shop: Faulty, kind: str) -> None:
    engine, job = _engine(shop), _job(shop)
    SPOIL[kind](job.path / "journal.jsonl")
    os.utime(job.path / "spec.json", (time.time() - 60,) * 2)
    shutil.rmtree(engine.path)
    again = shop.start()
    assert job_of(again).id != job.id
    assert again.wait().key == engine.key


@pytest.mark.parametrize("kind", SPOIL)
def test_a_spoiled_log_is_text_or_nothing_and_is_waited_for_by_nobody(
    shop: Faulty, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    job = _job(shop)
    job.log.write_text("the last words\n")
    assert tail(job.log) == "<pre>the last words</pre>"
    assert log_tail(job.log) == "Its last words: the last words"
    SPOIL[kind](job.log)
    no_file = kind == "missing" or kind.startswith("a ")
    assert (tail(job.log) == "<pre></pre>") == (no_file or kind == "empty")
    assert (log_tail(job.log) == "") == (no_file or kind == "empty")
    assert main(["jobs", "log", job.id]) == 0
    assert ("It has printed nothing." in capsys.readouterr().err) == no_file
    assert account.failure("fault", job, JobError("played"))["error"] == "played"


@pytest.mark.parametrize("kind", SPOIL)
def test_spoiled_fingerprints_cost_a_reading_and_nothing_else(shop: Faulty, kind: str) -> None:
    known = fingerprint(shop.model, cache_folder())
    for record in list(cache_folder().glob("*.json")):
        SPOIL[kind](record)
    assert not is_known(shop.model, cache_folder())
    assert fingerprint(shop.model, cache_folder()) == known


def _flip(path: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


ENGINE_DAMAGE = {
    "one bit": _flip,
    "swapped": lambda path: swap(
        path, next(p for p in path.parents[1].glob("*/engine.bin") if p != path)
    ),
    **{kind: SPOIL[kind] for kind in SPOIL if kind not in ("utf-16", "another type", "too deep")},
}


SAME_SIZE = ("one bit", "swapped")


@pytest.mark.parametrize("kind", ENGINE_DAMAGE)
def test_damage_to_a_file_of_an_engine_is_named(shop: Faulty, kind: str) -> None:
    engine, other = _engine(shop), _engine(shop, 1)
    ENGINE_DAMAGE[kind](engine.path / "engine.bin")
    assert "engine.bin" in engine.damage(thorough=True)
    assert (other.damage(thorough=True) != "") == (kind in SAME_SIZE[1:])
    # Sizes are compared at every look; content where somebody asks for it.
    if kind not in SAME_SIZE:
        assert "engine.bin" in engine.damage()
        found, why = store.look_up(shop.identity())
        assert found is None
        assert "engine.bin" in why


@pytest.mark.parametrize("kind", ["truncated", "empty", "a FIFO"])
def test_a_damaged_engine_is_built_again(shop: Faulty, kind: str) -> None:
    engine = _engine(shop)
    ENGINE_DAMAGE[kind](engine.path / "engine.bin")
    build = shop.start()
    assert build.hit is None
    assert build.wait().damage(thorough=True) == ""
    assert any("engine.bin" in note for note in job_of(build).view().notes)


@pytest.mark.parametrize("how", ["in place", "by another file"])
def test_weights_that_change_under_the_same_path_size_and_time_are_others(
    faulty: Faulty, how: str
) -> None:
    engine = faulty.start().wait()
    weights = faulty.model / "model.safetensors"
    before = weights.stat()
    content = weights.read_bytes()[:-1] + b"\x07"
    if how == "in place":
        weights.write_bytes(content)
    else:
        (faulty.model / "new").write_bytes(content)
        (faulty.model / "new").replace(weights)
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (weights.stat().st_size, weights.stat().st_mtime_ns) == (
        before.st_size, before.st_mtime_ns
    )  # fmt: skip
    build = faulty.start()
    assert build.hit is None
    assert build.wait().key != engine.key
    (why,) = job_of(build).view().notes
    assert "the model's weights or tokenizer" in why
