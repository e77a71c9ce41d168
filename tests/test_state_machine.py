"""Random histories of the store: what can be seen is whole, and what is in use stays.

Publish, open, close, damage, evict, pin, sweep, and processes that die with their temporaries and
claims, in any order. Nothing here starts a process: who is dead has a start time that nobody has.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests import stock
from workbench import eviction, files, jobs, store, usage
from workbench.engine import Identity
from workbench.errors import StoreError
from workbench.owner import Owner

SEEDS = st.integers(0, 2)
DEAD = replace(Owner.current(), started=1.0)
STRANGERS = ("lost+found", ".nfs0001", "notes", ".tmp-notes", ".damaged-notes")


def identity(seed: int) -> Identity:
    return Identity({"backend": "fault", "seed": seed}, "weights", {"fault": "1.0"})


class Store(RuleBasedStateMachine):
    """A store, and what must be true of it."""

    def __init__(self) -> None:
        super().__init__()
        self._before = os.environ.get("WORKBENCH_HOME")
        self._folder = tempfile.TemporaryDirectory()
        os.environ["WORKBENCH_HOME"] = self._folder.name
        # A power cut is not what is tried here, and disks are slow.
        self._fsync, os.fsync = os.fsync, lambda _: None
        self.sound: set[str] = set()
        self.harmed: set[str] = set()
        self.open: list[tuple[str, usage.Claim]] = []
        self.pinned: set[str] = set()

    def teardown(self) -> None:
        self._folder.cleanup()
        os.fsync = self._fsync
        if self._before is None:
            del os.environ["WORKBENCH_HOME"]
        else:
            os.environ["WORKBENCH_HOME"] = self._before

    @initialize()
    def strangers_come(self) -> None:
        for name in STRANGERS:
            (store.folder() / name).mkdir()
            (store.folder() / name / "precious").touch()

    # --- what happens

    @rule(seed=SEEDS)
    def publish(self, seed: int) -> None:
        engine = stock.make(seed, size=64)
        assert engine.key == identity(seed).key
        self.sound.add(engine.key)
        self.harmed.discard(engine.key)

    @rule(seed=SEEDS)
    def open_engine(self, seed: int) -> None:
        key = identity(seed).key
        claim = usage.claim(key)
        try:
            engine = store.sound_engine(key)
        except StoreError:
            claim.release()
            assert key not in self.sound
            self.harmed.discard(key)  # set aside, if it was there
            return
        assert key in self.sound
        assert engine.damage(thorough=True) == ""
        self.open.append((key, claim))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.open) - 1))
        self.open.pop(number)[1].release()

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def user_dies(self, data: st.DataObject) -> None:
        """Its claim stays, and names a process that is gone."""
        number = data.draw(st.integers(0, len(self.open) - 1))
        _, claim = self.open.pop(number)
        files.write_json(claim.path, {"owner": DEAD.record()})

    @precondition(lambda self: self.sound)
    @rule(data=st.data(), how=st.sampled_from(["byte", "truncated", "missing", "manifest"]))
    def damage(self, data: st.DataObject, how: str) -> None:
        key = data.draw(st.sampled_from(sorted(self.sound)))
        path = store.folder() / key / ("manifest.json" if how == "manifest" else "engine.bin")
        if how == "missing":
            path.unlink()
        elif how == "truncated":
            os.truncate(path, 7)
        else:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
            # A disk does not keep times finer than its ticks: this change came later.
            os.utime(path, ns=(1, 1))
        self.sound.discard(key)
        self.harmed.add(key)

    @rule(seed=SEEDS)
    def evict(self, seed: int) -> None:
        key = identity(seed).key
        try:
            eviction.evict(key)
        except StoreError:
            assert key not in self.sound or self._kept(key)
        else:
            assert not self._kept(key)
            self.sound.discard(key)
            self.harmed.discard(key)

    @rule(engines=st.integers(0, 4))
    def make_room(self, engines: int) -> None:
        size = max((engine.bytes for engine in store.list_engines()), default=0)
        over = eviction.make_room(engines * size)
        left = {engine.key for engine in store.list_engines()}
        assert over == 0 or all(self._kept(key) for key in left)
        assert all(key in left for key in self.sound if self._kept(key))
        self.sound &= left
        # One whose manifest cannot be read is not seen, and nobody knows what it is.
        self.harmed = {key for key in self.harmed if (store.folder() / key).exists()}

    @rule(seed=SEEDS)
    def pin(self, seed: int) -> None:
        key = identity(seed).key
        usage.pin(key)
        self.pinned.add(key)

    @rule(seed=SEEDS)
    def unpin(self, seed: int) -> None:
        key = identity(seed).key
        usage.unpin(key)
        self.pinned.discard(key)

    @rule(seed=SEEDS, number=st.integers(1, 9))
    def builder_dies(self, seed: int, number: int) -> None:
        """It leaves half an engine, and a journal without a last word."""
        job = files.make_folder(jobs.folder() / f"{seed:012x}-{number:03d}")
        files.write_json(job / "spec.json", {})
        files.append_line(job / "journal.jsonl", {"event": "owner", "owner": DEAD.record()})
        stock.write_files(files.temporary_name(store.folder(), job.name), seed, 10)

    @precondition(lambda self: any(not self._kept(key) for key in self.sound))
    @rule(data=st.data())
    def evictor_dies(self, data: st.DataObject) -> None:
        """Between the rename and the removal; its mark stays too."""
        free = sorted(key for key in self.sound if not self._kept(key))
        key = data.draw(st.sampled_from(free))
        (store.folder() / key).rename(files.temporary_name(store.folder(), f"evicted-{key}"))
        files.write_json(usage.folder(key) / "x.evicting", {"owner": DEAD.record()})
        self.sound.discard(key)

    @rule()
    def sweep(self) -> None:
        eviction.sweep()
        left = [path.name for path in store.folder().glob(".tmp-*")]
        assert left == [".tmp-notes"]

    def _kept(self, key: str) -> bool:
        return key in self.pinned or key in [used for used, _ in self.open]

    # --- what is always true

    @invariant()
    def what_is_sound_is_found_and_nothing_else_is(self) -> None:
        for seed in range(3):
            engine, why = store.look_up(identity(seed))
            key = identity(seed).key
            assert (engine is not None) == (key in self.sound), why
            if engine:
                assert engine.damage(thorough=True) == ""
            elif key in self.harmed:
                assert "damaged" in why
            else:
                assert why.startswith(("No engine was the same", "The store held no engine"))

    @invariant()
    def users_are_known(self) -> None:
        for seed in range(3):
            key = identity(seed).key
            assert len(usage.users(key)) == [used for used, _ in self.open].count(key)

    @invariant()
    def strangers_stay(self) -> None:
        if store.list_engines() or self.open:
            assert all((store.folder() / name / "precious").exists() for name in STRANGERS)


Store.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

TestStore = Store.TestCase
