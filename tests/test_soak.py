"""Two hundred times: nothing grows, whatever is built, cancelled, streamed and stopped."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Iterator

import psutil
import pytest

from tests import stock
from tests.faults import Faulty, fault, job_of, until
from workbench import files, store
from workbench.build import Build
from workbench.engine import Engine
from workbench.jobs import list_jobs
from workbench.opening import open_engine
from workbench.queues import processor, turn
from workbench.session import Session
from workbench.toolchain import Toolchain

CYCLES = 200

PHASES = ("queue", "load", "compile", "half", "before_rename", "end")
"""Where one build in `LATE` is when it is cancelled, in turn; the last of them is let go first.

The others are cancelled at once, while their runner still loads what it needs: that is most of the
processor time that a build of this kind takes.
"""

LATE = 12

SESSION = 4
"""Cycles that stream from the same session."""


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


def cycles(faulty: Faulty, engine: Engine, numbers: range) -> None:
    for first in numbers[::SESSION]:
        assert faulty.start(seed=0).hit
        with open_engine(engine) as session:
            for number in range(first, first + SESSION):
                cycle(faulty, session, number)


def cycle(faulty: Faulty, session: Session, number: int) -> None:
    """Cancel a build, or let it end; stream, and cancel a stream."""
    phase = "start" if number % LATE else PHASES[number // LATE % len(PHASES)]
    with started(faulty, phase, seed=number + 1) as build:
        for _ in range(1 + (number % 5 == 0)):
            build.cancel()
    assert job_of(build).state() == ("done" if phase == "end" else "cancelled")
    generations = [session.generate("a", max_tokens=5) for _ in range(2)]
    generations[0].cancel()
    assert [generation.wait().text for generation in generations][1] == "0:0 0:1 0:2 0:3 0:4 "


@contextlib.contextmanager
def started(faulty: Faulty, phase: str, seed: int) -> Iterator[Build]:
    """Start a build that stands in a phase."""
    with contextlib.ExitStack() as stack:
        if phase in ("start", "end"):
            build = faulty.start(seed=seed)
        elif phase == "queue":
            stack.enter_context(turn(processor(), "somebody", lambda _: None))
            build = faulty.start(seed=seed)
            until(lambda: job_of(build).state() == "waiting")
        else:
            gate = faulty.gate()
            build = faulty.start(fault(phase, "stall", until=gate), seed=seed)
            gate.wait_reached()
        if phase == "end":
            assert build.wait().damage() == ""
        yield build


def test_nothing_grows_in_two_hundred_cycles(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = stock.stock(faulty)
    # It asks another process each time, which is not what is tried here.
    versions = Toolchain.parse(os.environ["WORKBENCH_TOOLCHAIN_FAULT"]).versions(("fault",))
    monkeypatch.setattr(Toolchain, "versions", lambda *_: versions)
    cycles(faulty, engine, range(LATE))
    until(lambda: not faulty.processes())
    before = held()
    cycles(faulty, engine, range(LATE, CYCLES))
    until(lambda: not faulty.processes())
    assert held() == before
    assert leftovers() == []
    states = Counter(job.state() for job in list_jobs())
    assert set(states) == {"cancelled", "done"}
    assert states.total() == CYCLES
    assert len(store.list_engines()) == 1 + states["done"]
