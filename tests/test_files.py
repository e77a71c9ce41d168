"""Writes that are there completely or not at all; journals that survive a crash."""

from __future__ import annotations

import errno
import multiprocessing
import os
from pathlib import Path

import pytest

from workbench import files
from workbench.errors import StoreError
from workbench.journal import View, append


def test_json_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"a": object()})
    assert files.read_json(path) == {"a": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.json"]


def test_a_directory_is_published_once(tmp_path: Path) -> None:
    final = tmp_path / "final"
    results = []
    for number in range(2):
        temporary = files.temporary_name(tmp_path, "final")
        temporary.mkdir()
        (temporary / "file").write_text(str(number))
        results.append(files.publish_directory(temporary, final))
    assert results == [True, False]
    assert (final / "file").read_text() == "0"
    assert [entry.name for entry in tmp_path.iterdir()] == ["final"]


def test_a_line_that_must_not_be_lost_is_on_the_disk_when_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.pread(number, 100, 0)))
    files.append_line(tmp_path / "a", {"n": 1})
    assert synced == []
    files.append_line(tmp_path / "a", {"n": 2}, sync=True)
    assert synced == [b'{"n": 1}\n{"n": 2}\n']


def test_a_torn_last_line_is_left_and_a_torn_middle_line_passed_over(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    files.append_line(journal, {"n": 1})
    with journal.open("ab") as file:
        file.write(b'{"n": 2, "torn')
    records, offset = files.read_lines(journal)
    assert records == [{"n": 1}]
    # The next writer begins a line of its own.
    files.append_line(journal, {"n": 3})
    records, _ = files.read_lines(journal, offset)
    assert records == [{"n": 3}]


def test_reading_goes_on_where_it_was(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    assert files.read_lines(journal) == ([], 0)
    files.append_line(journal, {"n": 1})
    _, offset = files.read_lines(journal)
    files.append_line(journal, {"n": 2})
    assert files.read_lines(journal, offset)[0] == [{"n": 2}]


def test_journals_may_hold_anything(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    journal.write_bytes(b'\x00\xff\n[1]\n"text"\n{"n": 1}\n')
    assert files.read_lines(journal)[0] == [{"n": 1}]


def _append(path: Path, writer: int) -> None:
    for number in range(200):
        files.append_line(path, {"writer": writer, "number": number, "text": "x" * 200})


def test_ten_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append, args=(journal, n)) for n in range(10)]
    for writer in writers:
        writer.start()
    seen, offset = [], 0
    while any(writer.is_alive() for writer in writers):
        # A reader meanwhile takes whole records only, each once.
        records, offset = files.read_lines(journal, offset)
        seen += records
    records, _ = files.read_lines(journal, offset)
    found = [(r["writer"], r["number"]) for r in [*seen, *records]]
    assert len(found) == 2000
    assert set(found) == {(w, n) for w in range(10) for n in range(200)}
    # Those of one writer in their order.
    assert sorted(found, key=lambda pair: pair[0]) == sorted(found)


def test_a_line_that_the_system_takes_in_pieces_arrives_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    records = [{"n": number, "text": "ü" * 100} for number in range(3)]
    for record in records:
        files.append_line(tmp_path / "journal.jsonl", record)
    assert files.read_lines(tmp_path / "journal.jsonl")[0] == records


def test_a_full_disk_in_the_middle_of_a_line_costs_that_line_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "journal.jsonl"
    write = os.write
    room = [10]

    def write_what_fits(descriptor: int, data: bytes) -> int:
        taken = write(descriptor, data[: room[0]]) if room[0] else 0
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room[0] -= taken
        return taken

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_what_fits)
        with pytest.raises(OSError, match="No space left"):
            files.append_line(journal, {"n": 1, "text": "long enough"})
    assert journal.stat().st_size == 10
    files.append_line(journal, {"n": 2})
    assert files.read_lines(journal)[0] == [{"n": 2}]


def _bytes_read() -> int:
    """What this process has read by system calls since it began (proc_pid_io(5), rchar)."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["rchar"])


@pytest.mark.parametrize("old", [0, 20_000])
def test_tailing_reads_what_is_new_and_not_what_is_old(tmp_path: Path, old: int) -> None:
    line = b'{"event": "count", "name": "trace", "done": 1, "total": 2, "unit": "layers"}\n'
    (tmp_path / "journal.jsonl").write_bytes(line * old)
    view = View(tmp_path)
    view.update()
    append(tmp_path, "note", text="new")
    nothing = _bytes_read()
    nothing = _bytes_read() - nothing  # what the question itself reads
    before = _bytes_read()
    assert view.update()
    assert not view.update()
    assert _bytes_read() - before - nothing < 500
    assert view.notes == ["new"]


@pytest.mark.parametrize("name", ["\udcff.bin", "ü.bin", "\u2028.bin"])
def test_file_names_that_are_no_text_come_back_as_they_were(tmp_path: Path, name: str) -> None:
    files.write_json(tmp_path / "manifest.json", {"files": {name: 1}})
    assert files.read_json(tmp_path / "manifest.json") == {"files": {name: 1}}


@pytest.mark.parametrize("nothing", ["file", "link", "directory"])
def test_a_directory_is_not_published_over_something_else(tmp_path: Path, nothing: str) -> None:
    final, temporary = tmp_path / "final", tmp_path / ".tmp-final"
    temporary.mkdir()
    (temporary / "file").write_text("new")
    if nothing == "file":
        final.write_text("old")
    elif nothing == "link":
        final.symlink_to(tmp_path / "nowhere")
    else:
        final.mkdir()  # and empty, as a killed mkdir leaves it
    if nothing == "directory":
        assert files.publish_directory(temporary, final)
        assert (final / "file").read_text() == "new"
    else:
        with pytest.raises(NotADirectoryError):
            files.publish_directory(temporary, final)
        assert (temporary / "file").read_text() == "new"


def test_a_home_that_cannot_be_made_is_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(StoreError, match="Set WORKBENCH_HOME to a folder that you can write to"):
        files.home()


def test_the_home_is_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    assert files.home().stat().st_mode & 0o777 == 0o700
