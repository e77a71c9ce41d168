"""What the load generator costs: throughput of canned tokens with it and without it.

    python -m tests.benchmarks.load [--streams 64] [--rounds 7] [--pace 0.005] [--requests 640]

A session that replays canned tokens gives each running request one token a step. Without the load
generator nobody asks: each request that ends is followed by the next inside the replay itself,
which is what the server can do. With it, a request ends, the generator is told and sends the next.
Both run for the same number of requests and swap who begins; the median of the ratios counts, and
must be at least 0.97. Then an open loop at half of that rate prints its scheduling error.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import threading
import time

from tests.replay import Replay
from workbench.generation import Generation
from workbench.load import Load
from workbench.measurement import summarize
from workbench.prompts import Request
from workbench.sampling import Sampling
from workbench.workload import Workload

LIMIT = 0.97
SAMPLING = Sampling(ignore_eos=True, seed=0)


def bare(pace: float, requests: list[Request], streams: int) -> float:
    """Return the tokens/s of a replay that sends the next request itself."""
    waiting, over, left = iter(requests), threading.Event(), [len(requests)]

    with Replay(pace) as session:

        def following(_: Generation | None = None) -> None:
            request = next(waiting, None)
            if request:
                sampling = SAMPLING.model_copy(update={"max_tokens": request.output_len})
                session.generate(request.prompt, sampling).when_finished(ended)

        def ended(generation: Generation) -> None:
            left[0] -= 1
            if left[0] == 0:
                over.set()
            following(generation)

        started = time.monotonic()
        for _ in range(streams):
            following()
        over.wait()
        return sum(r.output_len for r in requests) / (time.monotonic() - started)


def loaded(pace: float, requests: list[Request], streams: int) -> float:
    """Return the tokens/s that a trial of the same requests measures."""
    with Replay(pace) as session:
        records = Load(session, requests, SAMPLING, concurrency=streams).run()
    return float(summarize([records], 1, open_loop=False)["output_tokens_per_second"])


def open_loop(pace: float, requests: list[Request], rate: float) -> dict[str, float]:
    """Return how late requests of a rate are sent, in seconds."""
    workload = Workload(request_rate=rate, requests=len(requests))
    with Replay(pace) as session:
        records = Load(session, requests, SAMPLING, schedule=workload.schedule(0)).run()
    error: dict[str, float] = summarize([records], 1, open_loop=True)["scheduling_error"]
    return error


def main() -> int:
    """Print the ratio and the scheduling error; the exit status says whether the limit was kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7, help="at least 2")
    parser.add_argument("--pace", type=float, default=0.005, help="seconds a step")
    parser.add_argument("--requests", type=int, default=640)
    options = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f} (average of the last minute)", flush=True)
    # Lengths that differ, so that requests end one by one.
    requests = [Request([1] * 32, 16 + number % 33) for number in range(options.requests)]
    pairs = []
    for number in range(options.rounds):
        sides = [bare, loaded] if number % 2 else [loaded, bare]
        speed = {side: side(options.pace, requests, options.streams) for side in sides}
        pairs.append((speed[loaded], speed[bare]))
        print(f"{speed[loaded]:.0f} against {speed[bare]:.0f} tokens/s", flush=True)
    low, ratio, high = statistics.quantiles((ours / theirs for ours, theirs in pairs), n=4)
    print(f"{options.streams} streams: {ratio:.4f} of the throughput ({low:.4f} to {high:.4f})")
    rate = statistics.median(theirs for _, theirs in pairs) / 32 / 2
    late = open_loop(options.pace, requests, rate)
    print(
        f"{rate:.0f} requests/s: sent {late['p50'] * 1e6:.0f} us late (p50), "
        f"{late['p99'] * 1e6:.0f} us (p99), {late['max'] * 1e6:.0f} us at most"
    )
    return 0 if ratio >= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
