"""Disks that are full, become full, or cannot be written to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults import Fault, Faulty, fault
from tests.faults.disks import on_read_only_disk, on_small_disk

BUILD_TWICE = """
    import sys
    from pathlib import Path
    from workbench import store
    from workbench.build import start_build
    from workbench.errors import WorkbenchError

    root, before, wrong, right = sys.argv[1:]

    def build(words):
        import json
        try:
            return start_build(json.loads(words), smoke=False).wait().key
        except WorkbenchError as error:
            return str(error)

    print("before:", build(before))
    print("wrong:", build(wrong))
    print("temporaries:", *Path(root).glob("home/engines/.tmp-*"))
    print("engines:", *[engine.damage(thorough=True) or "whole" for engine in store.list_engines()])
    Path(root, "filler").unlink(missing_ok=True)
    print("right:", build(right))
"""


def _facts(printed: str) -> dict[str, str]:
    """What a script printed, as name: value lines."""
    return dict(
        line.split(": ", 1) if ": " in line else (line[:-1], "") for line in printed.splitlines()
    )


def _words(faulty: Faulty, *faults: Fault, **values: object) -> str:
    return json.dumps(faulty.spec(*faults, **values).model_dump(mode="json"))


@pytest.mark.parametrize("point", ["before_temp", "load", "half", "end"])
def test_a_disk_that_others_fill_is_a_sentence_and_costs_only_this_build(
    faulty: Faulty, tmp_path: Path, point: str
) -> None:
    facts = _filled_at(faulty, tmp_path / "small", point)
    assert facts["wrong"].startswith("The disk is full: ")
    assert "are free in" in facts["wrong"]
    assert facts["engines"] == "whole"


@pytest.mark.parametrize("point", ["before_manifest", "before_rename", "before_record"])
def test_a_disk_that_is_full_when_all_is_written_costs_nothing(
    faulty: Faulty, tmp_path: Path, point: str
) -> None:
    facts = _filled_at(faulty, tmp_path / "small", point)
    assert facts["wrong"] == faulty.identity().key
    assert facts["engines"] == "whole whole"


def _filled_at(faulty: Faulty, small: Path, point: str) -> dict[str, str]:
    """What is told of three builds, the second of which finds the disk filled at a point."""
    wrong = fault(point, "fill", path=small / "filler")
    words = [_words(faulty, seed=1), _words(faulty, wrong), _words(faulty)]
    facts = _facts(on_small_disk(small, "2m", BUILD_TWICE, *words))
    assert facts["before"] == faulty.identity(seed=1).key
    assert facts["temporaries"] == ""
    assert facts["right"] == faulty.identity().key
    return facts


def test_a_build_that_fills_the_disk_itself_gives_it_back(faulty: Faulty, tmp_path: Path) -> None:
    words = [_words(faulty, seed=1), _words(faulty, fault("half", "overflow")), _words(faulty)]
    facts = _facts(on_small_disk(tmp_path / "small", "2m", BUILD_TWICE, *words))
    assert facts["wrong"].startswith("The disk is full: 1.")
    assert (facts["temporaries"], facts["engines"]) == ("", "whole")
    assert facts["right"] == faulty.identity().key


LAST_WORD = """
    import sys
    from pathlib import Path
    sys.path.insert(0, "tests/faults")
    from actions import fill
    from workbench.journal import Journal, View

    journal = Journal(Path(sys.argv[1]))
    journal.own()
    fill(sys.argv[1] + "/filler")
    try:
        journal.note("x" * 5000)
    except OSError as error:
        print("note:", error.strerror)
    journal.end("failed", text="The disk is full.")
    view = View(journal.path)
    view.update()
    print("state:", view.state(), view.end["text"])
"""


def test_the_last_word_finds_room_on_a_full_disk(tmp_path: Path) -> None:
    facts = _facts(on_small_disk(tmp_path / "small", "1m", LAST_WORD))
    assert facts == {"note": "No space left on device", "state": "failed The disk is full."}


READ_ONLY = """
    import json, sys
    from workbench import store
    from workbench.build import start_build
from workbench.opening import open_engine
    from workbench.errors import WorkbenchError

    hit = start_build(json.loads(sys.argv[1]))
    print("hit:", hit.hit and hit.hit.key)
    with open_engine(hit) as session:
        print("text:", session.generate("a", max_tokens=2).wait().text)
    print("engines:", len(store.list_engines()))
    try:
        start_build(json.loads(sys.argv[2])).wait()
    except WorkbenchError as error:
        print("other:", error)
"""


def test_a_read_only_store_is_hit_and_refuses_to_build(faulty: Faulty, home: Path) -> None:
    engine = faulty.start().wait()
    words = [_words(faulty), _words(faulty, seed=1)]
    facts = _facts(on_read_only_disk(home, READ_ONLY, *words))
    assert facts["hit"] == engine.key
    assert facts["text"] == "0:0 0:1 "
    assert facts["engines"] == "1"
    assert "Read-only file system" in facts["other"]
    assert "Traceback" not in facts["other"]
