"""Two hundred times: nothing grows, whatever is built, cancelled, streamed and stopped."""

from __future__ import annotations

import threading

import psutil
import pytest

from tests import stock
from tests.faults import Faulty, fault, job_of, until
from workbench import files, opening, store
from workbench.backends import get_backend
from workbench.engine import Engine
from workbench.opening import open_engine

CYCLES = 200

BUILDS = 10
"""One in so many cycles starts a build, whose process takes most of a second to begin."""


def leftovers() -> list[str]:
    """What must not be there when nothing runs: temporaries, tickets, claims and marks."""
    found = [path for path in files.home().rglob("*") if path.name.startswith(".tmp-")]
    for pattern in ("queues/*/0*", "usage/*/*.using", "usage/*/*.evicting"):
        found += files.home().glob(pattern)
    return sorted(str(path.relative_to(files.home())) for path in found)


def held() -> dict[str, int]:
    """What this process holds."""
    me = psutil.Process()
    return {
        "descriptors": me.num_fds(),
        "threads": threading.active_count(),
        "children": len(me.children(recursive=True)),
    }


def cycle(faulty: Faulty, engine: Engine, number: int) -> None:
    if number % BUILDS == 0:
        build(faulty, number)
        assert faulty.start(seed=0).hit
    with open_engine(engine) as session:
        generations = [session.generate("a", max_tokens=5) for _ in range(2)]
        if number % 2:
            generations[0].cancel()
        words = [generation.wait().text for generation in generations]
        assert words[1] == "0:0 0:1 0:2 0:3 0:4 "


def build(faulty: Faulty, number: int) -> None:
    """Build to the end, or cancel in one stage or another."""
    at = ("load", "compile", "half", "")[number // BUILDS % 4]
    if not at:
        assert faulty.start(seed=number + 1).wait().damage() == ""
        return
    gate = faulty.gate()
    started = faulty.start(fault(at, "stall", until=gate), seed=number + 1)
    gate.wait_reached()
    assert job_of(started).cancel() == "cancelled"


def test_nothing_grows_in_two_hundred_cycles(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = stock.stock(faulty)
    # It asks another process each time, which is not what is tried here.
    found = opening.toolchain_of(get_backend("fault"))
    monkeypatch.setattr(opening, "toolchain_of", lambda _: found)
    for number in range(2):
        cycle(faulty, engine, number)
    until(lambda: not faulty.processes())
    before = held()
    for number in range(2, CYCLES):
        cycle(faulty, engine, number)
    until(lambda: not faulty.processes())
    assert held() == before
    assert leftovers() == []
    # One in four of the builds was let run to its end.
    assert len(store.list_engines()) == 1 + CYCLES // BUILDS // 4
