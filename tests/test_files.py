"""Writes that are there completely or not at all; journals that survive a crash."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest

from workbench import files
from workbench.errors import StoreError


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
    for number in range(100):
        files.append_line(path, {"writer": writer, "number": number, "text": "x" * 200})


def test_writers_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    journal = tmp_path / "journal.jsonl"
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append, args=(journal, n)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    records, _ = files.read_lines(journal)
    assert len(records) == 400
    assert {(r["writer"], r["number"]) for r in records} == {
        (w, n) for w in range(4) for n in range(100)
    }


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
