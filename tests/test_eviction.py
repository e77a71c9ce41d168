"""Room in the store: what goes first, what never goes, and who comes at the same moment."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests import stock
from tests.faults import Faulty, fault, job_of, until
from workbench import eviction, files, guard, store, usage
from workbench.engine import Engine
from workbench.errors import InputError, JobError, StoreError
from workbench.eviction import evict, make_room, sweep
from workbench.opening import open_engine
from workbench.owner import Owner

ROOT = Path(__file__).parents[1]


def keys() -> set[str]:
    return {engine.key for engine in store.list_engines()}


def used(engine: Engine, when: float) -> None:
    """Let an engine have been used last at some time far ahead, when none is built."""
    usage.touch(engine.key)
    os.utime(usage.folder(engine.key) / "used", (when, when))


def made(count: int, size: int = 100_000) -> list[Engine]:
    """Engines of about that size each, the least recently used first."""
    engines = [stock.make(seed, size) for seed in range(count)]
    for number, engine in enumerate(engines):
        used(engine, engine.created + 1e6 + number)
    return engines


def python(script: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *words],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


# --- what is in use


OPEN = """
import sys
from workbench.opening import open_engine
with open_engine(sys.argv[1]):
    print("open", flush=True)
    input()
print("closed", flush=True)
"""


def test_what_another_process_has_open_stays_until_it_closes(faulty: Faulty) -> None:
    engine = stock.stock(faulty)
    with python(OPEN, engine.key) as other:
        assert other.stdout.readline() == "open\n"  # type: ignore[union-attr]
        with pytest.raises(StoreError, match=rf"not removed: process {other.pid} on \S+ uses it"):
            evict(engine.key)
        assert make_room(0) == engine.bytes
        other.communicate("\n")
    assert evict(engine.key) == engine.bytes
    assert keys() == set()
    assert list(store.folder().iterdir()) == []
    assert not (files.home() / "usage" / engine.key).exists()


def test_a_process_that_was_killed_keeps_nothing(faulty: Faulty) -> None:
    engine = stock.stock(faulty)
    with python(OPEN, engine.key) as other:
        assert other.stdout.readline() == "open\n"  # type: ignore[union-attr]
        other.kill()
    evict(engine.key)
    assert keys() == set()


def test_what_another_host_uses_stays(home: Path) -> None:
    engine = stock.make()
    foreign = replace(Owner.current(), host="far-away", boot="another")
    path = usage.folder(engine.key) / "x.using"
    files.write_json(path, {"owner": foreign.record()})
    with pytest.raises(StoreError, match="on far-away uses it") as caught:
        evict(engine.key)
    assert f"where that is gone for good, delete {path}" in str(caught.value)
    assert make_room(0) == engine.bytes
    assert keys() == {engine.key}


RACE_OPEN = """
import json, os, sys
os.fsync = lambda _: None  # a power cut is not what is tried here, and disks are slow
from workbench import opening
from workbench.backends import get_backend
from workbench.errors import StoreError

class Checks:
    def __init__(self, directory, *_, release, **__):
        for _ in range(20):
            words = json.loads((directory / "words.json").read_text())
            assert words == {"seed": 0}, words
        release()

opening.Session = Checks
found = opening.toolchain_of(get_backend("fault"))
opening.toolchain_of = lambda _: found  # it asks another process each time
counts = {"opened": 0, "missed": 0}
print("ready", flush=True)
while counts["opened"] < int(sys.argv[2]) or not counts["missed"]:
    try:
        opening.open_engine(sys.argv[1])
        counts["opened"] += 1
    except StoreError:
        counts["missed"] += 1
print(json.dumps(counts))
"""

RACE_EVICT = """
import os, sys, time
os.fsync = lambda _: None
rename = os.rename
def rename_late(*paths):
    time.sleep(0.003)  # between look and deed there is always time; here there is more
    rename(*paths)
os.rename = rename_late
from pathlib import Path
from tests import stock
from tests.faults import Faulty
from workbench.errors import StoreError
from workbench.eviction import evict
faulty = Faulty(Path(sys.argv[2]), Path(sys.argv[2]) / "model")
count = 0
print("ready", flush=True)
while not Path(sys.argv[3]).exists():
    try:
        evict(sys.argv[1])
        count += 1
    except StoreError:
        pass
    stock.stock(faulty)
print(count)
"""


def test_an_open_gets_a_whole_engine_or_a_sentence_while_others_evict_and_publish(
    faulty: Faulty, tmp_path: Path
) -> None:
    engine = stock.stock(faulty)
    end = tmp_path / "end"
    openers = [python(RACE_OPEN, engine.key, "100") for _ in range(2)]
    evictors = [python(RACE_EVICT, engine.key, str(faulty.folder), str(end)) for _ in range(2)]
    answers = [json.loads(opener.communicate(timeout=120)[0].split("\n")[1]) for opener in openers]
    end.touch()
    evicted = [int(evictor.communicate(timeout=60)[0].split("\n")[1]) for evictor in evictors]
    assert all(process.returncode == 0 for process in openers + evictors)
    # Each went on until it had also come too late.
    assert all(answer["missed"] for answer in answers)
    assert sum(evicted) > 0
    assert store.find_engine(engine.key).damage(thorough=True) == ""
    assert usage.users(engine.key) == []
    sweep()
    assert [path.name for path in store.folder().iterdir()] == [engine.key]


RACE_EXPORT = """
import json, os, sys
from pathlib import Path
os.fsync = lambda _: None
from workbench import store
from workbench.archive import export_engine
from workbench.errors import StoreError

counts = {"exported": 0, "missed": 0}
print("ready", flush=True)
while counts["exported"] < int(sys.argv[3]) or not counts["missed"]:
    try:
        export_engine(store.find_engine(sys.argv[1]), sys.argv[2], overwrite=True)
        counts["exported"] += 1
    except StoreError as error:
        assert "There is no engine" in str(error) or "was removed" in str(error), error
        counts["missed"] += 1
print(json.dumps(counts))
"""


def test_an_export_is_whole_or_a_sentence_while_others_evict_and_publish(
    faulty: Faulty, tmp_path: Path
) -> None:
    engine = stock.stock(faulty)
    end, targets = tmp_path / "end", [tmp_path / "a.tar", tmp_path / "b.tar"]
    exporters = [python(RACE_EXPORT, engine.key, str(target), "50") for target in targets]
    evictor = python(RACE_EVICT, engine.key, str(faulty.folder), str(end))
    said = [exporter.communicate(timeout=120)[0] for exporter in exporters]
    end.touch()
    evicted = int(evictor.communicate(timeout=60)[0].split("\n")[1])
    assert [process.returncode for process in [*exporters, evictor]] == [0, 0, 0]
    assert all(json.loads(words.split("\n")[1])["missed"] for words in said)
    assert evicted > 0
    assert usage.users(engine.key) == []


def test_who_comes_between_look_and_rename_waits_and_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = stock.make()
    rename, living = Path.rename, usage._living
    looks: list[str] = []
    claims: list[usage.Claim] = []
    user = threading.Thread(target=lambda: claims.append(usage.claim(engine.key)))

    def look(key: str, suffix: str) -> list[tuple[Path, Owner]]:
        looks.append(suffix)
        return living(key, suffix)

    def rename_later(path: Path, target: Path) -> Path:
        if path == engine.path:
            user.start()
            until(lambda: claims or looks.count(usage.EVICTING) >= 2)
            assert claims == []
        return rename(path, target)

    monkeypatch.setattr(usage, "_living", look)
    monkeypatch.setattr(Path, "rename", rename_later)
    evict(engine.key)
    user.join(10)
    # Also of whatever is published under this key from now on.
    assert usage.users(engine.key) == [Owner.current()]
    with pytest.raises(StoreError, match="There is no engine"):
        store.sound_engine(engine.key)
    claims[0].release()


def test_what_is_published_at_this_moment_stays(faulty: Faulty) -> None:
    gate = faulty.gate()
    build = faulty.start(fault("after_rename", "stall", until=gate))
    gate.wait_reached()
    (engine,) = store.list_engines()
    with pytest.raises(StoreError, match="uses it"):
        evict(engine.key)
    gate.open()
    assert build.wait().key == engine.key


def test_what_is_built_at_this_moment_stays(faulty: Faulty) -> None:
    gate = faulty.gate()
    build = faulty.start(fault("end", "stall", until=gate))
    gate.wait_reached()
    sweep()
    assert make_room(0) == 0
    assert len(faulty.temporaries()) == 1
    gate.open()
    assert build.wait().damage(thorough=True) == ""


# --- two at once


def test_of_two_evictors_one_removes_it(home: Path) -> None:
    engine = stock.make()
    script = "import sys; from workbench.eviction import evict; input(); print(evict(sys.argv[1]))"
    evictors = [python(script, engine.key) for _ in range(2)]
    for evictor in evictors:
        evictor.stdin.write("\n")  # type: ignore[union-attr]
        evictor.stdin.flush()  # type: ignore[union-attr]
    said = [evictor.communicate(timeout=60)[0] for evictor in evictors]
    assert sorted(said) == ["", f"{engine.bytes}\n"]
    assert list(store.folder().iterdir()) == []


def test_two_who_make_room_do_not_remove_twice_as_much(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = made(4)
    limit = sum(engine.bytes for engine in engines[1:])

    def evict_second(key: str) -> int:
        monkeypatch.setattr(eviction, "evict", evict)
        evict(key)  # the other one was faster
        return evict(key)

    monkeypatch.setattr(eviction, "evict", evict_second)
    assert make_room(limit) == 0
    assert keys() == {engine.key for engine in engines[1:]}


KILLED = """
import os, shutil, signal, sys
from workbench.eviction import evict
shutil.rmtree = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
evict(sys.argv[1])
"""


def test_what_an_evictor_that_was_killed_left_is_swept(home: Path) -> None:
    engine = stock.make()
    with python(KILLED, engine.key) as evictor:
        assert evictor.wait(60) == -signal.SIGKILL
    assert keys() == set()
    assert [path.name[: len(".tmp-evicted-")] for path in store.folder().iterdir()] == [
        ".tmp-evicted-"
    ]
    # And it keeps nobody from building it again and using it.
    usage.claim(engine.key).release()
    assert stock.make().key == engine.key
    sweep()
    assert [path.name for path in store.folder().iterdir()] == [engine.key]


# --- order and budget


def test_the_least_recently_used_goes_first_and_only_as_many_as_must(home: Path) -> None:
    engines = made(4)
    usage.pin(engines[0].key)
    used(engines[1], engines[3].created + 2e6)
    told: list[str] = []
    limit = sum(engine.bytes for engine in engines) - 1
    assert make_room(limit, tell=told.append) == 0
    assert keys() == {engines[n].key for n in (0, 1, 3)}
    assert len(told) == 1
    assert engines[2].key in told[0]
    assert make_room(limit, extra=engines[2].bytes, keep=engines[3].key) == 0
    assert keys() == {engines[n].key for n in (0, 3)}
    assert make_room(0, keep=engines[3].key) == engines[0].bytes + engines[3].bytes


def test_without_a_budget_nothing_goes(home: Path) -> None:
    made(2)
    assert make_room() == 0
    assert len(keys()) == 2


def test_a_hit_and_an_open_are_uses(faulty: Faulty) -> None:
    first, second = stock.stock(faulty, seed=1), stock.stock(faulty, seed=2)
    for engine in (first, second):
        used(engine, 1.0)
    assert faulty.start(seed=1).hit
    assert usage.last_used(first.key) > first.created
    with open_engine(second):
        assert usage.last_used(second.key) > second.created
        assert [engine.key for engine in eviction.candidates()] == [first.key]


def test_a_build_keeps_the_budget_and_its_own_engine(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = stock.stock(faulty, seed=1)
    monkeypatch.setenv(eviction.VARIABLE, f"{old.bytes * 3 // 2}B")
    build = faulty.start(seed=2)
    engine = build.wait()
    assert keys() == {engine.key}
    assert any(f"Removed the engine {old.key}" in note for note in job_of(build).view().notes)
    usage.pin(engine.key)
    build = faulty.start(seed=3)
    other = build.wait()
    assert keys() == {engine.key, other.key}
    assert "over its budget" in job_of(build).view().notes[-1]


def test_nothing_goes_for_an_engine_that_is_larger_than_the_budget(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = stock.stock(faulty, seed=1)
    monkeypatch.setenv(eviction.VARIABLE, f"{old.bytes}B")
    build = faulty.start(seed=2, size=3 * old.bytes, keeps_disk=3 * old.bytes)
    engine = build.wait()
    assert keys() == {old.key, engine.key}
    _, before, after = job_of(build).view().notes
    assert "that alone is more than the store shall hold" in before
    assert "more than the store's budget" in after


def test_room_is_made_for_what_stays_of_a_build_not_for_what_it_writes_meanwhile(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = stock.stock(faulty, seed=1)
    monkeypatch.setenv(eviction.VARIABLE, f"{3 * old.bytes}B")
    values = {"needs_disk": 5 * old.bytes // 2, "keeps_disk": old.bytes}
    engine = faulty.start(seed=2, size=old.bytes // 2, **values).wait()
    assert keys() == {old.key, engine.key}


@pytest.mark.parametrize("what", ["needs_memory", "needs_disk"])
def test_no_engine_goes_for_a_build_that_is_refused(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    old = stock.stock(faulty, seed=1)
    monkeypatch.setenv(eviction.VARIABLE, f"{old.bytes}B")
    # As where the memory, or the disk, was there when the build was asked for.
    monkeypatch.setattr(guard, "findings", lambda *_, **__: [])
    build = faulty.start(seed=2, keeps_disk=100, **{what: 1 << 60})
    with pytest.raises(JobError, match="Nothing was begun"):
        build.wait()
    assert keys() == {old.key}


def test_what_would_be_freed_is_what_making_room_frees(home: Path) -> None:
    engines = made(3, size=10_000)
    held = sum(engine.bytes for engine in engines)
    eviction.set_budget(held)
    assert eviction.spare(0) == 0
    assert eviction.spare(1) == engines[0].bytes
    assert eviction.spare(engines[0].bytes + 1) == engines[0].bytes + engines[1].bytes
    assert eviction.spare(held + 1) == 0
    usage.pin(engines[0].key)
    assert eviction.spare(1) == engines[1].bytes
    assert make_room(extra=1) == 0
    assert keys() == {engines[0].key, engines[2].key}


def test_what_was_set_aside_goes_first(home: Path) -> None:
    engines = made(2)
    (engines[1].path / "engine.bin").write_bytes(b"another size")
    assert "set aside as" in store.set_aside(engines[1], "played")
    assert str(eviction.store_usage()).endswith("set aside")
    told: list[str] = []
    assert make_room(engines[0].bytes, tell=told.append) == 0
    assert store.list_damaged() == []
    assert keys() == {engines[0].key}
    assert len(told) == 1


def test_what_cannot_be_removed_is_told_and_does_not_stop_a_build(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(1)

    def refuse(path: Path, target: Path) -> Path:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "rename", refuse)
    told: list[str] = []
    assert make_room(0, tell=told.append) > 0
    assert told[0].endswith("could not be removed: Operation not permitted.")


def test_the_budget_is_kept_and_the_environment_decides(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert eviction.budget() is None
    eviction.set_budget(5_000)
    assert eviction.budget() == 5_000
    monkeypatch.setenv(eviction.VARIABLE, "2 KiB")
    assert eviction.budget() == 2048
    monkeypatch.setenv(eviction.VARIABLE, "none")
    assert eviction.budget() is None
    monkeypatch.setenv(eviction.VARIABLE, "much")
    with pytest.raises(InputError, match=eviction.VARIABLE):
        eviction.budget()
    monkeypatch.delenv(eviction.VARIABLE)
    eviction.set_budget(None)
    assert eviction.budget() is None
    (home / "budget.json").write_text('"a"')
    assert eviction.budget() is None


# --- strangers


def test_nothing_of_strangers_is_ever_touched(home: Path, tmp_path: Path) -> None:
    engine = stock.make()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").touch()
    folder = store.folder()
    for name in ("lost+found", "stranger", ".damaged-mine", ".tmp-evicted-notes", ".tmp-import-x"):
        (folder / name).mkdir()
        (folder / name / "precious").write_text("x")
    for name in (".nfs0001", "a file", f".tmp-evicted-{engine.key}-0123456789ab"):
        (folder / name).write_text("x")
    for name in ("link", ".damaged-link", f".damaged-{'a' * 20}-0123456789ab", "a" * 20):
        (folder / name).symlink_to(outside)
    (folder / "copy of an engine").symlink_to(engine.path)
    before = sorted(path.name for path in folder.iterdir())
    sweep()
    make_room(0)
    assert sorted(path.name for path in folder.iterdir()) == [
        name for name in before if name != engine.key
    ]
    assert (folder / "stranger" / "precious").exists()
    assert (outside / "precious").exists()


def test_a_link_that_somebody_made_is_used_but_not_removed(home: Path, tmp_path: Path) -> None:
    engine = stock.make()
    engine.path.rename(tmp_path / "large disk")
    engine.path.symlink_to(tmp_path / "large disk")
    assert store.sound_engine(engine.key).key == engine.key
    with pytest.raises(StoreError, match="a link that somebody made"):
        evict(engine.key)
    assert make_room(0) == engine.bytes
    assert engine.path.is_symlink()


def test_a_pin_that_is_finished_between_two_looks_counts(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = stock.make()
    pinning = usage.claim(engine.key)
    look = usage.claims

    def claims(key: str) -> list[tuple[Path, Owner]]:
        # Whoever pins it is done at the very moment of the first look.
        files.write_json(usage.folder(key) / "pinned", {})
        pinning.release()
        return look(key)

    monkeypatch.setattr(usage, "claims", claims)
    with pytest.raises(StoreError, match="it is pinned"):
        eviction.evict(engine.key)
    assert store.find_engine(engine.key).damage() == ""


def test_claims_that_cannot_be_read_keep_the_engine(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = stock.make()
    claim = usage.claim(engine.key)
    read = os.listdir

    def listdir(path: Path) -> list[str]:
        if path == usage.folder(engine.key):
            raise OSError(errno.EIO, "Input/output error")
        return read(path)

    monkeypatch.setattr(os, "listdir", listdir)
    with pytest.raises(StoreError, match="nobody can tell who uses it"):
        eviction.evict(engine.key)
    assert eviction.candidates() == []
    claim.release()
