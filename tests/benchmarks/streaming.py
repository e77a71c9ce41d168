"""Tokens/s as the kernel's iterator sees them, against what the engine can do.

    python -m tests.benchmarks.streaming [--rounds 15] [--tokens 48]

On a random model of 0.3 B parameters, int4, all sides with the same number of threads:

* a session against a bare `ContinuousBatchingPipeline` loop at 1, 4 and 8 streams: >= 0.97
* four concurrent streams against one: >= 2.5 times the total
* one int4 stream against transformers eager bfloat16: >= 4 times

Both sides of a ratio take turns of a second or two and swap who begins, because the speed of a
shared machine drifts by more than the limit within minutes; the median of the ratios of the
rounds counts, and their quartiles tell how far to trust it. The bare loop has a process of its
own, which waits while the session works, and the other way round. With as many threads as cores
the session's own work, in both processes, takes its time from the engine's. Whatever else
computes on the machine takes far more: the load is printed, and should be near zero before.

The last ratio depends on the processor. For each token eager bfloat16 reads 569 MB of weights
(252 million parameters of the layers and 33 million of the output layer, 2 bytes each), and int4
163 MB (NNCF keeps the output layer in int8, and a group of 128 shares a scale of 2 bytes): 3.5
times less. Where memory alone sets both speeds, that is the ratio; it is larger only where
eager is held up by something else. The engine computes in bfloat16 where the processor does, else
in float32: OpenVINO has to convert there, which took a fifth of the speed.
"""

from __future__ import annotations

import argparse
import functools
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
from workbench.build import start_build
from workbench.engine import Engine
from workbench.hardware import host
from workbench.memory import computes_bfloat16
from workbench.opening import open_engine
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
    ours: Callable[[int, int], float],
    theirs: Callable[[int, int], float],
    streams: int,
    rounds: int,
    tokens: int,
) -> tuple[float, float, float]:
    """Return the medians of our tokens/s, of theirs, and of the ratios of the rounds."""
    ours(streams, 16)
    theirs(streams, 16)
    pairs = []
    for number in range(rounds):
        if number % 2:
            their = theirs(streams, tokens)
            pairs.append((ours(streams, tokens), their))
        else:
            pairs.append((ours(streams, tokens), theirs(streams, tokens)))
    low, ratio, high = statistics.quantiles((our / their for our, their in pairs), n=4)
    found = (
        statistics.median(our for our, _ in pairs),
        statistics.median(their for _, their in pairs),
        ratio,
    )
    print(
        f"{streams} streams: {found[0]:.1f} against {found[1]:.1f} tokens/s; "
        f"quartiles of the ratio {low:.3f} to {high:.3f}",
        flush=True,
    )
    return found


def build(model: Path, parameters: float = 3e8) -> Engine:
    """Write a random model, and build the engine that is measured."""
    make_random_model(model, parameters)
    spec = make_spec(
        {
            "model": str(model),
            "quantization": "int4",
            "group_size": 128,
            "dtype": "bfloat16" if computes_bfloat16(host()) else "float32",
            "symmetric": True,
            "kv_cache_dtype": "int8",
            "max_batch_size": max(STREAMS),
            "threads": THREADS,
        }
    )
    return start_build(spec).wait()


def main() -> int:
    """Print the ratios; the exit status says whether the limits were kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="at least 2")
    parser.add_argument("--tokens", type=int, default=48)
    options = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f} (average of the last minute)", flush=True)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        os.environ["WORKBENCH_HOME"] = f"{folder}/home"
        model = Path(folder) / "model"
        engine = build(model)
        session = stack.enter_context(open_engine(engine))
        ours = functools.partial(through_session, session)
        limits = json.dumps(engine.manifest["limits"])
        with Peer("openvino", str(engine.path), limits) as loop:
            speeds = {
                streams: compare(ours, loop.run, streams, options.rounds, options.tokens)
                for streams in STREAMS
            }
        with Peer("transformers", str(model), str(THREADS)) as eager:
            print("int4 against eager bfloat16, ", end="")
            against_eager = compare(ours, eager.run, 1, 5, 24)
    ratios = {
        f"session / bare loop, {streams} streams": (ratio, 0.97)
        for streams, (_, _, ratio) in speeds.items()
    }
    ratios["four streams / one"] = (speeds[4][0] / speeds[1][0], 2.5)
    ratios["int4 / eager bfloat16"] = (against_eager[2], 4.0)
    for name, (ratio, limit) in ratios.items():
        print(f"{name:<44} {ratio:.3f} (limit {limit})")
    return 0 if all(ratio >= limit for ratio, limit in ratios.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
