"""Tokens/s as the kernel's iterator sees them, against what the engine can do.

    python -m tests.benchmarks.streaming [--rounds 5] [--tokens 96]

On a random model of 0.3 B parameters, int4, all sides with the same number of threads:

* a session against a bare `ContinuousBatchingPipeline` loop at 1, 4 and 8 streams: >= 0.97
* four concurrent streams against one: >= 2.5 times the total
* one int4 stream against transformers eager bfloat16: >= 4 times

Both sides of a ratio run in turns and the medians are compared. The bare loop has a process of
its own, which waits while the session works, and the other way round.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from tests.benchmarks import bare
from tests.tiny_models import make_random_model
from workbench.backends import make_spec
from workbench.build import open_engine, start_build
from workbench.session import Session

STREAMS = (1, 4, 8)
THREADS = 2


class Peer:
    """A process of `tests.benchmarks.bare` that answers "run" with tokens/s."""

    def __init__(self, role: str, *words: str) -> None:
        command = [sys.executable, "-m", "tests.benchmarks.bare", role, *words]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, streams: int, tokens: int) -> float:
        """Return the total tokens/s of so many streams."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([streams, tokens]) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(bare.ANSWER):
                return float(line.removeprefix(bare.ANSWER))
        raise RuntimeError("the peer ended")


def through_session(session: Session, streams: int, tokens: int) -> float:
    """Return the total tokens/s that the iterators of so many generations see."""
    started = time.perf_counter()
    running = [
        session.generate(bare.prompt(number), max_tokens=tokens, ignore_eos=True)
        for number in range(streams)
    ]
    counts = [0] * streams

    def drain(place: int) -> None:
        for delta in running[place]:
            counts[place] += len(delta.token_ids)

    drains = [threading.Thread(target=drain, args=(place,)) for place in range(streams)]
    for thread in drains:
        thread.start()
    for thread in drains:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


def compare(
    ours: Callable[[int, int], float], theirs: Peer, options: argparse.Namespace
) -> dict[int, tuple[float, float]]:
    """Return the medians of both sides by the number of streams."""
    found = {}
    for streams in STREAMS:
        ours(streams, 16)
        theirs.run(streams, 16)
        sides: tuple[list[float], list[float]] = ([], [])
        for _ in range(options.rounds):
            sides[0].append(ours(streams, options.tokens))
            sides[1].append(theirs.run(streams, options.tokens))
        found[streams] = (statistics.median(sides[0]), statistics.median(sides[1]))
        print(
            f"{streams} streams: session {found[streams][0]:.1f}, bare {found[streams][1]:.1f} "
            f"tokens/s",
            flush=True,
        )
    return found


def main() -> int:
    """Print the ratios; the exit status says whether the limits were kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=96)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        os.environ["WORKBENCH_HOME"] = f"{folder}/home"
        model = make_random_model(Path(folder) / "model")
        spec = make_spec(
            {
                "model": str(model),
                "quantization": "int4",
                "dtype": "bfloat16",
                "symmetric": True,
                "kv_cache_dtype": "int8",
                "max_batch_size": max(STREAMS),
                "threads": THREADS,
            }
        )
        engine = start_build(spec).wait()
        session = stack.enter_context(open_engine(engine))
        limits = json.dumps(engine.manifest["limits"])
        loop = stack.enter_context(Peer("openvino", str(engine.path), limits))
        speeds = compare(lambda n, t: through_session(session, n, t), loop, options)
        with Peer("transformers", str(model), str(THREADS)) as eager:
            eager.run(1, 4)
            reference = statistics.median(eager.run(1, 24) for _ in range(3))
    ratios = {
        f"session / bare loop, {n} streams": (ours / theirs, 0.97)
        for n, (ours, theirs) in speeds.items()
    }
    ratios["four streams / one"] = (speeds[4][0] / speeds[1][0], 2.5)
    ratios[f"int4 / eager bfloat16 ({reference:.1f} tokens/s)"] = (speeds[1][0] / reference, 4.0)
    for name, (ratio, limit) in ratios.items():
        print(f"{name:<44} {ratio:.3f} (limit {limit})")
    return 0 if all(ratio >= limit for ratio, limit in ratios.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
