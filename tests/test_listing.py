"""The list of all jobs: true states, and an index that is only a cache."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import Faulty, fault, job_of, until
from workbench import files, jobs, listing
from workbench.jobs import Job
from workbench.journal import Journal
from workbench.listing import list_entries
from workbench.owner import Owner

SPEC = {"backend": "openvino", "model": "demo", "quantization": "int4"}


def job(name: str = "abc-001", *, owned: bool = True) -> Job:
    path = jobs.folder() / name
    path.mkdir()
    files.write_json(path / "spec.json", {"kind": "build", "spec": SPEC})
    if owned:
        Journal(path).own()
    return Job(path)


def index() -> Path:
    return jobs.folder() / listing.INDEX


def states() -> dict[str, str]:
    return {entry.id: entry.state for entry in list_entries()}


def count_views(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which jobs are read from their own files, from now on."""
    read: list[str] = []
    view = Job.view

    def counted(self: Job):
        read.append(self.id)
        return view(self)

    monkeypatch.setattr(Job, "view", counted)
    return read


def test_every_state_is_told_as_it_is(home: Path) -> None:
    job("starting-001", owned=False)
    Journal(job("running-001").path).stage("load", "load weights")
    Journal(job("waiting-001").path).stage("wait", "wait for the processor")
    Journal(job("done-001").path).end("done", engine="key")
    Journal(job("failed-001").path).end("failed", text="The disk is full.")
    Journal(job("cancelled-001").path).end("cancelled", text="Cancelled.")
    killed = job("killed-001", owned=False)
    dead = replace(Owner.current(), started=1.0).record()
    files.append_line(killed.path / "journal.jsonl", {"event": "owner", "owner": dead})
    silent = job("silent-001", owned=False)
    far = replace(Owner.current(), host="far", boot="another").record()
    record = {"event": "owner", "owner": far, "time": time.time() - 3600}
    files.append_line(silent.path / "journal.jsonl", record)
    for _ in range(2):  # as it is, and from the index
        assert states() == {name: name.removesuffix("-001") for name in states()}
        assert len(states()) == 8
        told = {entry.state: entry.outcome for entry in list_entries()}
        assert told["running"] == "load weights"
        assert told["done"] == "key"
        assert told["failed"] == "The disk is full."
    assert {entry.what for entry in list_entries()} == {"openvino demo quantization=int4"}


def test_a_build_keeps_its_own_line(faulty: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = faulty.gate()
    build = faulty.start(fault("compile", "stall", until=gate))
    gate.wait_reached()
    assert states() == {job_of(build).id: "running"}
    gate.open()
    build.wait()
    until(index().exists)
    until(lambda: index().read_text().endswith("\n"))
    read = count_views(monkeypatch)
    assert states() == {job_of(build).id: "done"}
    assert read == []


def test_what_has_ended_is_read_once_and_the_rest_each_time(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a-001", "b-001"):
        Journal(job(name).path).end("done", engine=name)
    job("c-001")
    list_entries()
    read = count_views(monkeypatch)
    assert states() == {"a-001": "done", "b-001": "done", "c-001": "running"}
    assert read == ["c-001"]


def test_the_index_is_only_a_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a-001", "b-001"):
        Journal(job(name).path).end("done", engine=name)
    before = list_entries()
    lines = index().read_text().splitlines()
    for content in (
        "",
        lines[0] + "\n" + lines[1][:40],
        "\x00\xff\n" * 3,
        '{"id": []}\n[1]\n{"id": {}, "inode": 1, "changed": 1}\n',
    ):
        index().write_text(content)
        assert list_entries() == before
    index().unlink()
    assert list_entries() == before
    index().unlink()
    index().mkdir()
    assert list_entries() == before


@pytest.mark.parametrize(
    "change",
    [{"state": "running"}, {"created": "x"}, {"id": ["a-001"]}, {"state": 3}, {"inode": -1},
     {"changed": 0}, {"outcome": None}],
    ids=json.dumps,
)  # fmt: skip
def test_a_line_that_lies_about_its_kind_or_directory_is_not_believed(
    home: Path, monkeypatch: pytest.MonkeyPatch, change: dict
) -> None:
    Journal(job("a-001").path).end("done", engine="key")
    before = list_entries()
    record = json.loads(index().read_text())
    index().write_text(json.dumps({**record, **change, "what": "a lie"}) + "\n")
    assert list_entries() == before


def test_another_job_under_the_same_name_is_read_anew(home: Path) -> None:
    # File systems give the inode of a removed directory to the next one.
    for _ in range(20):
        old = job("a-001")
        Journal(old.path).end("done", engine="old")
        assert states() == {"a-001": "done"}
        shutil.rmtree(old.path)
        assert states() == {}
        new = job("a-001")
        assert states() == {"a-001": "running"}
        shutil.rmtree(new.path)


def test_what_is_no_job_is_left_out(home: Path, tmp_path: Path) -> None:
    folder = jobs.folder()
    (folder / "empty").mkdir()
    (folder / ".tmp-a-001-0123456789ab").mkdir()
    files.write_json(folder / ".tmp-a-001-0123456789ab" / "spec.json", {})
    (folder / "lost+found").mkdir()
    (folder / "file").touch()
    (folder / "nowhere").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "fifo")
    assert list_entries() == []


def test_a_request_of_another_version_is_listed(home: Path) -> None:
    broken = job()
    files.write_json(broken.path / "spec.json", {"spec": {"backend": "later"}})
    assert list_entries()[0].what == "a request that this version cannot read"
    (broken.path / "spec.json").write_text("{")
    assert list_entries()[0].what == "a request that this version cannot read"


def test_the_newest_comes_first(home: Path) -> None:
    for number, name in enumerate(("old-001", "new-001")):
        one = job(name)
        os.utime(one.path / "spec.json", (1e9 + number,) * 2)
    assert [entry.id for entry in list_entries()] == ["new-001", "old-001"]


def test_a_list_that_cannot_be_kept_is_a_list(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Journal(job("a-001").path).end("done", engine="key")

    def refuse(path: Path, record: dict) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(files, "append_line", refuse)
    assert states() == {"a-001": "done"}
    assert not index().exists()
