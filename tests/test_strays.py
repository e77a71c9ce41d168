"""What killed writers left outside the folder of engines, and nothing else, is removed."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from workbench import eviction, files, strays

DAY = 24 * 3600.0
HEX = "0123456789ab"
FOLDERS = ("", "jobs", "trials", "fingerprints", "usage/" + "0" * 20, "queues/GPU-1", "history")


def _put(path: Path, age: float, *, folder: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if folder:
        path.mkdir()
        (path / "spec.json").write_text("{}")
    else:
        path.write_text("{}")
    os.utime(path, (time.time() - age,) * 2)
    return path


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_is_older_than_a_day_goes(home: Path, folder: str) -> None:
    dead = [
        _put(home / folder / f".tmp-a.json-{HEX}", 2 * DAY),
        _put(home / folder / f".tmp-abc-001-{HEX}", 2 * DAY, folder=True),
    ]
    kept = [
        _put(home / folder / f".tmp-b.json-{HEX}", 60.0),
        _put(home / folder / ".tmp-notes", 2 * DAY),
        _put(home / folder / f"mine-{HEX}", 2 * DAY),
        _put(home / folder / "lost+found", 2 * DAY, folder=True),
    ]
    eviction.sweep()
    assert [path for path in dead if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []


def test_it_is_looked_for_once_a_day(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    strays.sweep()
    left = _put(home / f".tmp-a-{HEX}", 2 * DAY)
    strays.sweep()
    assert left.exists()
    later = time.time() + DAY + 1
    monkeypatch.setattr(time, "time", lambda: later)
    strays.sweep()
    assert not left.exists()


def test_a_clock_that_was_set_back_stops_no_sweep(home: Path) -> None:
    strays.sweep()
    os.utime(home / strays.MARK, (time.time() + 30 * DAY,) * 2)
    left = _put(home / f".tmp-a-{HEX}", 2 * DAY)
    strays.sweep()
    assert not left.exists()


def test_a_link_goes_and_what_it_leads_to_stays(home: Path, tmp_path: Path) -> None:
    precious = _put(tmp_path / "outside" / "precious", 2 * DAY)
    link = files.home() / f".tmp-a-{HEX}"
    link.symlink_to(precious.parent)
    os.utime(link, (1.0, 1.0), follow_symlinks=False)
    strays.sweep()
    assert not link.is_symlink()
    assert precious.exists()
    assert home.is_dir()


def test_the_folder_of_engines_is_left_to_those_who_know_it(home: Path) -> None:
    theirs = _put(home / "engines" / f".tmp-abc-001-{HEX}", 2 * DAY, folder=True)
    strays.sweep()
    assert theirs.exists()
