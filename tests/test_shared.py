"""Sessions that panels share: opened once, closed when there is no room, never while in use."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

from tests import stock
from tests.faults import Faulty, until
from workbench import shared
from workbench.engine import Engine
from workbench.errors import SessionError
from workbench.sources import source_name


class Fake:
    """A session that only says what it is asked for."""

    def __init__(self) -> None:
        self.closed, self.active = False, 0

    @property
    def busy(self) -> bool:
        return self.active > 0

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def engines(faulty: Faulty) -> list[Engine]:
    return [stock.make(seed, size=1000 * (seed + 1)) for seed in range(3)]


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The memory that is free: what sessions take is taken from it."""
    room = [10_000]

    def available(source: Any) -> tuple[str, int]:
        return "memory", room[0] - sum(one.bytes for one, _ in shared.opened())  # type: ignore[union-attr]

    monkeypatch.setattr(shared, "_OPEN", {})
    monkeypatch.setattr(shared, "_free", available)
    monkeypatch.setattr(shared, "open_source", lambda *_: Fake())
    return room


def names() -> list[str]:
    return [source_name(source) for source, _ in shared.opened()]


def test_a_source_is_opened_once(engines: list[Engine], free: list[int]) -> None:
    assert shared.acquire(engines[0]) is shared.acquire(engines[0])
    assert len(shared.opened()) == 1


def test_one_that_died_is_opened_again(engines: list[Engine], free: list[int]) -> None:
    first = shared.acquire(engines[0])
    first.close()
    assert shared.opened() == []
    assert shared.acquire(engines[0]) is not first


def test_several_stay_open_while_there_is_room(engines: list[Engine], free: list[int]) -> None:
    for engine in engines:
        shared.acquire(engine)
    assert names() == [source_name(engine) for engine in engines]


def test_what_was_used_longest_ago_goes_first(engines: list[Engine], free: list[int]) -> None:
    first, second = (shared.acquire(engine) for engine in engines[:2])
    shared.acquire(engines[0])  # used again
    free[0] = engines[0].bytes + engines[2].bytes
    shared.acquire(engines[2])
    assert second.closed
    assert not first.closed


def test_what_is_in_use_or_kept_stays_and_the_sentence_says_so(
    engines: list[Engine], free: list[int]
) -> None:
    busy = shared.acquire(engines[0])
    busy.active = 1  # type: ignore[misc]
    kept = shared.acquire(engines[1])
    free[0] = sum(engine.bytes for engine in engines) - 1
    with pytest.raises(SessionError, match=r"was not loaded\. It needs at least") as caught:
        shared.acquire(engines[2], keep=[engines[1]])
    assert "Unload one first" in str(caught.value)
    assert not busy.closed
    assert not kept.closed
    shared.acquire(engines[2])
    assert kept.closed


def test_release_waits_for_nobody_and_leaves_what_is_in_use(
    engines: list[Engine], free: list[int]
) -> None:
    session = shared.acquire(engines[0])
    session.active = 1  # type: ignore[misc]
    assert not shared.release(engines[0])
    session.active = 0  # type: ignore[misc]
    assert shared.release(engines[0])
    assert session.closed
    assert shared.release(engines[0])


class Holder:
    """Somebody who shows what is open."""


def test_the_last_one_who_lets_go_is_told_so(engines: list[Engine], free: list[int]) -> None:
    first, second = Holder(), Holder()
    session = shared.acquire(engines[0], holder=first)
    shared.hold(engines[0], second)
    assert not shared.let_go(engines[0], first)
    assert shared.let_go(engines[0], second)
    assert not session.closed
    # Closing ends all claims: a holder of before does not keep what is opened again.
    shared.hold(engines[0], second)
    shared.release(engines[0])
    shared.acquire(engines[0], holder=first)
    assert shared.let_go(engines[0], first)


def test_a_holder_that_is_gone_or_forgotten_wants_nothing(
    engines: list[Engine], free: list[int]
) -> None:
    first, second = Holder(), Holder()
    for holder in (first, second):
        shared.acquire(engines[0], holder=holder)
    shared.forget(first)
    del second, holder
    gc.collect()
    assert shared.let_go(engines[0], first)


def test_holding_does_not_wait_for_an_engine_that_loads(
    engines: list[Engine], free: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, go = threading.Event(), threading.Event()

    def slow(*_: Any) -> Fake:
        loading.set()
        assert go.wait(30.0)
        return Fake()

    monkeypatch.setattr(shared, "open_source", slow)
    thread = threading.Thread(target=shared.acquire, args=(engines[0],))
    thread.start()
    assert loading.wait(30.0)
    shared.hold(engines[1], Holder())
    assert thread.is_alive()
    go.set()
    thread.join()


def test_the_timer_calls_when_nothing_happens_and_leaves_no_thread() -> None:
    called = threading.Event()
    shared.IdleTimer(0.02 / 60, called.set).restart()
    assert called.wait(5.0)
    before = threading.active_count()
    timer = shared.IdleTimer(10.0, called.clear)
    for _ in range(5):
        timer.restart()
    timer.stop()
    until(lambda: threading.active_count() <= before)
    assert called.is_set()


def test_without_minutes_there_is_no_timer() -> None:
    before = threading.active_count()
    shared.IdleTimer(None, lambda: None).restart()
    assert threading.active_count() == before
