"""What trust costs: waiting, listing, verifying and following, each with its limit.

    python -m tests.benchmarks.trust [--gigabytes 1] [--seconds 30]

Limits: 16 builds that wait in a queue use < 1 % of one processor together, and so do 16 processes
that wait for one build; a store with 1,000 engines and 10,000 jobs is listed in < 0.5 s (the first
time, when no index is there yet, is printed without a limit); `Engine.damage(thorough=True)` takes
<= 1.1 x the time of `sha256sum` on the same file, in turns; to follow a journal costs the same for
a new record at 100,000 old ones as at 100 (ratio <= 1.5).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import psutil

from tests import stock
from workbench import files, jobs, store
from workbench.engine import Engine, Identity
from workbench.journal import Journal, View
from workbench.listing import INDEX, list_entries

WAITING = 16

HOLD = """
import sys, time
from workbench.queues import Slot, turn
with turn(Slot("bench", "the bench"), sys.argv[1], lambda place: print("waits", flush=True)):
    print("runs", flush=True)
    time.sleep(1e6)
"""

WAIT = """
import sys
from workbench.jobs import Job
print("waits", flush=True)
Job.named(sys.argv[1]).wait()
"""


def _quick(condition: bool, name: str, shown: str) -> bool:
    print(f"{'ok  ' if condition else 'MISS'}  {name:<58} {shown}", flush=True)
    return condition


@contextlib.contextmanager
def _started(script: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", script, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


def _share(processes: list[subprocess.Popen[str]], seconds: float) -> float:
    """Return the share of one processor that processes use together, in percent."""

    def used() -> float:
        times = [psutil.Process(process.pid).cpu_times() for process in processes]
        return sum(time.user + time.system for time in times)

    before = used()
    time.sleep(seconds)
    return 100 * (used() - before) / seconds


def _waiting(seconds: float) -> bool:
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(_started(HOLD, f"b{n}-001")) for n in range(WAITING + 1)]
        share = _share(started[1:], seconds)
    shown = f"{share:.2f} % (limit 1)"
    return _quick(share < 1, f"{WAITING} builds that wait in a queue, together", shown)


def _watching(seconds: float) -> bool:
    job = jobs.folder() / "watched-001"
    job.mkdir()
    files.write_json(job / "spec.json", {})
    journal = Journal(job)
    journal.own()
    with contextlib.ExitStack() as stack:
        started = [stack.enter_context(_started(WAIT, job.name)) for _ in range(WAITING)]
        share = _share(started, seconds)
    journal.end("done", engine="none")
    shown = f"{share:.2f} % (limit 1)"
    return _quick(share < 1, f"{WAITING} processes that wait for one build, together", shown)


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _listing(engines: int, ended: int) -> bool:
    # They need not survive a power cut.
    fsync, os.fsync = os.fsync, lambda _: None
    try:
        for seed in range(engines):
            stock.make(seed, size=64)
        for number in range(ended):
            job = jobs.folder() / f"{number:012x}-001"
            job.mkdir()
            spec = {"backend": "openvino", "model": "demo", "quantization": "int4"}
            (job / "spec.json").write_text(json.dumps({"kind": "build", "spec": spec}))
            journal = Journal(job)
            journal.own()
            for name in ("fingerprint", "load", "trace", "convert", "smoke", "publish"):
                journal.stage(name, name)
                journal.fact(memory_bytes=1, peak_memory_bytes=1)
            journal.end("done", engine="none")
    finally:
        os.fsync = fsync
    (jobs.folder() / INDEX).unlink(missing_ok=True)
    found: list[object] = []

    def everything() -> None:
        found[:] = [len(store.list_engines()), len(list_entries())]

    cold = _timed(everything)
    assert found == [engines, ended + 1], found  # and the one that was watched
    print(f"      {'the first list, without an index':<58} {cold:.2f} s")
    warm = statistics.median(_timed(everything) for _ in range(5))
    name = f"list {engines:,} engines and {ended:,} jobs"
    return _quick(warm < 0.5, name, f"{warm:.3f} s (limit 0.5)")


def _verifying(gigabytes: float) -> bool:
    temporary = files.temporary_name(store.folder(), "made")
    temporary.mkdir()
    with (temporary / "engine.bin").open("wb") as file:
        for _ in range(int(gigabytes * 256)):
            file.write(os.urandom(4_000_000))
    identity = Identity({"backend": "fault", "seed": -1}, "weights", {})
    details = {"model": {"name": "m"}, "limits": {}, "build": {"stages": []}}
    engine: Engine = store.publish(temporary, identity, details)
    ours, plain = [], []
    for _ in range(5):
        plain.append(
            _timed(
                lambda: subprocess.run(
                    ["sha256sum", engine.path / "engine.bin"], check=True, capture_output=True
                )
            )
        )
        ours.append(_timed(lambda: engine.damage(thorough=True)))
    ratio = min(ours) / min(plain)
    speed = engine.bytes / min(ours) / 1e6
    shown = f"{ratio:.2f} x sha256sum (limit 1.1), {speed:,.0f} MB/s"
    return _quick(ratio <= 1.1, f"verify {engine.bytes / 1e9:.1f} GB, every byte", shown)


def _follower(old: int) -> Callable[[], float]:
    """Return what measures the seconds that a new record costs after so many old ones."""
    job = jobs.folder() / f"followed-{old}"
    job.mkdir()
    journal = Journal(job)
    journal.own()
    journal.stage("compile", "compile")
    line = (job / "journal.jsonl").read_bytes().splitlines(keepends=True)[-1]
    with (job / "journal.jsonl").open("ab") as file:
        file.write(line * old)
    view = View(job)
    view.update()

    def follow() -> float:
        times = []
        for _ in range(50):
            journal.fact(memory_bytes=1)
            started = time.perf_counter()
            assert view.update()
            times.append(time.perf_counter() - started)
        return statistics.median(times)

    return follow


def main() -> int:
    """Print each figure with its limit; the exit status says whether all were kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WORKBENCH_HOME"] = folder
        kept = [
            _waiting(options.seconds),
            _watching(options.seconds),
            _listing(1_000, 10_000),
            _verifying(options.gigabytes),
        ]
        followers = [_follower(100), _follower(100_000)]
        # In short turns, since others may compute meanwhile.
        turns = [[follow() for follow in followers] for _ in range(40)]
        few, many = (statistics.median(times) for times in zip(*turns, strict=True))
        shown = f"{1e6 * few:.0f} and {1e6 * many:.0f} us, ratio {many / few:.2f} (limit 1.5)"
        kept.append(_quick(many / few <= 1.5, "a new record after 100 and 100,000 old ones", shown))
    return 0 if all(kept) else 1


if __name__ == "__main__":
    sys.exit(main())
