"""Signs of life carry what a job's processes take, at next to no cost."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from workbench import heartbeat as module
from workbench.errors import ToolchainError
from workbench.gpus import Gpu
from workbench.heartbeat import Vitals, descendants, heartbeat, sizes_of
from workbench.journal import Journal, View

MIB = 1 << 20


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    (tmp_path / "job").mkdir()
    return Journal(tmp_path / "job")


def _facts(journal: Journal) -> dict[str, Any]:
    view = View(journal.path)
    view.update()
    return view.facts


CHILD = """
import sys
taken = bytearray(int(sys.argv[1])) if len(sys.argv) > 1 else None
print(flush=True)
sys.stdin.readline()
del taken
print(flush=True)
sys.stdin.readline()
"""


@contextlib.contextmanager
def _child(*arguments: object, script: str = CHILD) -> Iterator[subprocess.Popen[str]]:
    """A process that has done the first of what it does when this begins."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        _next(process)
        yield process
        process.kill()


def _next(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line
    return line


def _go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()
    _next(process)


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


THREADED = """
import subprocess, sys, threading
pids = []
def start():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    pids.append(child.pid)
    child.wait()
thread = threading.Thread(target=start)
thread.start()
while not pids: pass
print(pids[0], flush=True)
"""


def test_descendants_are_found_also_of_threads_and_of_children() -> None:
    command = [sys.executable, "-c", THREADED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        grandchild = int(_next(child))
        found = descendants(os.getpid())
        assert found[0] == os.getpid()
        assert {child.pid, grandchild} <= set(found)
        assert set(found[1:]) == {p.pid for p in psutil.Process().children(recursive=True)}
        os.kill(grandchild, 9)


def test_where_the_kernel_lists_no_children_others_are_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with _child() as child:
        monkeypatch.setattr(Path, "exists", lambda _: False)
        assert child.pid in descendants(os.getpid())


def test_a_process_that_is_gone_takes_nothing() -> None:
    with _child() as child:
        pass
    assert sizes_of(child.pid) == (0, 0)


def test_a_beat_tells_memory_of_the_whole_tree_and_what_is_left(
    journal: Journal, home: Path
) -> None:
    vitals = Vitals(journal)
    vitals.beat()
    before = _facts(journal)
    # Sessions of other tests may be our children too.
    tree = [psutil.Process(), *psutil.Process().children(recursive=True)]
    resident = sum(process.memory_info().rss for process in tree)
    assert before["memory_bytes"] == pytest.approx(resident, rel=0.2)
    with _child(200 * MIB) as child:
        vitals.beat()
        during = _facts(journal)
        assert during["memory_bytes"] - before["memory_bytes"] > 200 * MIB
        assert 0 < during["available_memory_bytes"] < during["host_memory_bytes"]
        assert during["least_available_memory_bytes"] <= during["available_memory_bytes"]
        assert during["least_disk_free_bytes"] <= during["disk_free_bytes"]
        _go_on(child)
        vitals.beat()
        after = _facts(journal)
        assert after["memory_bytes"] < during["memory_bytes"] - 150 * MIB
        assert after["peak_memory_bytes"] >= during["memory_bytes"]


def test_a_peak_between_two_beats_is_known_afterwards(journal: Journal, home: Path) -> None:
    vitals = Vitals(journal)
    vitals.beat()
    size = 2 * _facts(journal)["peak_memory_bytes"] + 100 * MIB
    with _child(size) as child:
        _go_on(child)
        vitals.beat()
        facts = _facts(journal)
        assert facts["memory_bytes"] < size < facts["peak_memory_bytes"]


def test_what_came_and_went_after_the_last_beat_is_known_at_the_end(
    journal: Journal, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT", 3600.0)
    with heartbeat(journal):
        _until(lambda: "memory_bytes" in _facts(journal))
        size = 2 * _facts(journal)["peak_memory_bytes"] + 100 * MIB
        with _child(size):
            pass
    assert _facts(journal)["peak_memory_bytes"] > size


GPU = Gpu(0, "H100", (9, 0), 80 << 30, 50 << 30, "GPU-1")


def test_the_gpu_is_asked_only_while_something_runs_that_could_take_it(
    journal: Journal, home: Path
) -> None:
    vitals = Vitals(journal, lambda: (GPU,))
    alone = len(descendants(os.getpid())) == 1
    vitals.beat()
    assert alone == ("gpu_memory_bytes" not in _facts(journal))
    with _child():
        vitals.beat()
    facts = _facts(journal)
    assert facts["gpu_memory_bytes"] == facts["peak_gpu_memory_bytes"] == 30 << 30
    assert facts["gpu_memory_total_bytes"] == 80 << 30


def test_the_fullest_gpu_is_told_with_its_own_size(journal: Journal, home: Path) -> None:
    now = [GPU, Gpu(1, "L40S", (8, 9), 48 << 30, 4 << 30, "GPU-2")]
    vitals = Vitals(journal, lambda: now)
    with _child():
        vitals.beat()
        facts = _facts(journal)
        assert (facts["gpu_memory_bytes"], facts["gpu_memory_total_bytes"]) == (44 << 30, 48 << 30)
        now.pop()
        vitals.beat()
    facts = _facts(journal)
    assert facts["gpu_memory_bytes"] == 30 << 30
    assert (facts["peak_gpu_memory_bytes"], facts["gpu_memory_total_bytes"]) == (44 << 30, 48 << 30)


def _refuse() -> tuple[Gpu, ...]:
    raise ToolchainError("The NVIDIA driver does not answer.")


def test_a_driver_that_does_not_answer_ends_no_sign_of_life(journal: Journal, home: Path) -> None:
    with _child():
        Vitals(journal, _refuse).beat()
    assert "memory_bytes" in _facts(journal)


def test_a_full_disk_ends_no_sign_of_life(journal: Journal, home: Path) -> None:
    class Full(Journal):
        full = True

        def fact(self, **values: Any) -> None:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            super().fact(**values)

    disk = Full(journal.path)
    vitals = Vitals(disk)
    vitals.beat()
    assert _facts(journal) == {}
    disk.full = False
    vitals.beat()
    assert "memory_bytes" in _facts(journal)


def test_it_beats_until_it_ends_and_leaves_no_thread(
    journal: Journal, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HEARTBEAT", 0.01)
    lines = journal.path / "journal.jsonl"
    threads = set(threading.enumerate())
    with heartbeat(journal):
        _until(lambda: lines.exists() and lines.read_bytes().count(b"\n") >= 3)
    assert set(threading.enumerate()) <= threads
    last = lines.read_bytes()
    assert b'"oom_kills"' not in last.splitlines()[-1], "what never changes is said once"


def test_no_beat_looks_at_the_processes_of_others(
    journal: Journal, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # That took 29 ms on a machine with 1,000 processes, and the children of a thread 0.07 ms.
    looked: list[str] = []
    monkeypatch.setattr(psutil, "pids", lambda: looked.append("pids") or [])
    monkeypatch.setattr(psutil.Process, "children", lambda *_, **__: looked.append("c") or [])
    with _child():
        Vitals(journal).beat()
    assert looked == []
    assert "memory_bytes" in _facts(journal)
