"""What the load generator costs: throughput of canned tokens with it and without it.

    python -m tests.benchmarks.load [--streams 64] [--rounds 7] [--pace 0.005] [--requests 640]

Each running request gets one canned token a step. Both sides of a ratio send the same requests and
swap who begins; the median of the ratios counts.

* A session that replays them in this process. Without the load generator nobody asks: each request
  that ends is followed by the next inside the replay itself, which is what the server can do.
* A server that replays them over HTTP, in a process of its own (tests/servers/replaying.py). In
  place of an endpoint and the load generator stands one thread of this process that reads all
  sockets as they have something, looks at nothing of it, and sends the next request when one is
  closed. At three speeds: 50 and 100 tokens/s a stream, as engines on a GPU stream to people (3200
  and 6400 events/s, each read by itself), and as fast as this server can.

The limit, 0.97, is for the session and the two speeds that a model's server has. As fast as it can,
the canned server gives all tokens of a request at once, and does nothing but what its client has to
do as well: that ratio says what parsing costs beside not parsing, not what a trial loses.

Then an open loop at half of the session's rate prints its scheduling error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from urllib.parse import urlsplit

from tests.replay import Replay
from tests.servers import replaying
from workbench.endpoint import Endpoint
from workbench.generation import Generation, prompt_fields
from workbench.load import Load
from workbench.measurement import summarize
from workbench.openai_protocol import request_body
from workbench.prompts import Request
from workbench.sampling import Sampling
from workbench.workload import Workload

LIMIT = 0.97

PACES = {"50 tokens/s each": 0.02, "100 tokens/s each": 0.01}
"""Seconds a step of a server."""
SAMPLING = Sampling(ignore_eos=True, seed=0)


def bare(pace: float, requests: list[Request], streams: int) -> float:
    """Return the tokens/s of a replay that sends the next request itself."""
    waiting, over, left = iter(requests), threading.Event(), [len(requests)]

    with Replay(pace) as session:

        def following(_: Generation | None = None) -> None:
            request = next(waiting, None)
            if request:
                session.generate(request.prompt, _sampling(request)).when_finished(ended)

        def ended(generation: Generation) -> None:
            left[0] -= 1
            if left[0] == 0:
                over.set()
            following(generation)

        started = time.monotonic()
        for _ in range(streams):
            following()
        over.wait()
        return _tokens(requests) / (time.monotonic() - started)


def _sampling(request: Request) -> Sampling:
    return SAMPLING.model_copy(update={"max_tokens": request.output_len})


def _tokens(requests: list[Request]) -> int:
    return sum(request.output_len for request in requests)


def loaded(pace: float, requests: list[Request], streams: int) -> float:
    """Return the tokens/s that a trial of the same requests measures."""
    with Replay(pace) as session:
        records = Load(session, requests, SAMPLING, concurrency=streams).run()
    return float(summarize([records], 1, open_loop=False)["output_tokens_per_second"])


@contextlib.contextmanager
def replaying_server(pace: float) -> Iterator[str]:
    """Give the address of a server in a process of its own."""
    command = [sys.executable, replaying.__file__, str(pace)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout
        yield server.stdout.readline().strip()
        # Leaving closes its standard input, which ends it.


def bare_reader(url: str, requests: list[Request], streams: int) -> float:
    """Return the tokens/s of one thread that reads sockets, and looks at nothing."""
    parts = urlsplit(url)
    waiting = iter(requests)

    def following(selector: selectors.BaseSelector) -> None:
        request = next(waiting, None)
        if request is None:
            return
        body = json.dumps(request_body(prompt_fields(request.prompt), "m", _sampling(request), {}))
        head = (
            f"POST {parts.path}/completions HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        end = socket.create_connection((str(parts.hostname), int(parts.port or 0)))
        end.sendall((head + body).encode())
        selector.register(end, selectors.EVENT_READ)

    started = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for _ in range(streams):
            following(selector)
        while selector.get_map():
            for key, _ in selector.select():
                end = key.fileobj
                assert isinstance(end, socket.socket)
                if not end.recv(1 << 16):
                    selector.unregister(end)
                    end.close()
                    following(selector)
    return _tokens(requests) / (time.monotonic() - started)


def served(url: str, requests: list[Request], streams: int) -> float:
    """Return the tokens/s that a trial of an endpoint measures."""
    with Endpoint(url).open() as session:
        records = Load(session, requests, SAMPLING, concurrency=streams).run()
    assert not any(record["error"] for record in records)
    return float(summarize([records], 1, open_loop=False)["output_tokens_per_second"])


def open_loop(pace: float, requests: list[Request], rate: float) -> dict[str, float]:
    """Return how late requests of a rate are sent, in seconds."""
    workload = Workload(request_rate=rate, requests=len(requests))
    with Replay(pace) as session:
        records = Load(session, requests, SAMPLING, schedule=workload.schedule(0)).run()
    error: dict[str, float] = summarize([records], 1, open_loop=True)["scheduling_error"]
    return error


Side = Callable[[], float]


def compare(name: str, ours: Side, theirs: Side, rounds: int) -> tuple[float, float]:
    """Print the ratio of two sides that take turns; return it, and the other's tokens/s."""
    pairs = []
    for number in range(rounds):
        sides = [theirs, ours] if number % 2 else [ours, theirs]
        speed = {side: side() for side in sides}
        pairs.append((speed[ours], speed[theirs]))
        print(f"{name}: {speed[ours]:.0f} against {speed[theirs]:.0f} tokens/s", flush=True)
    low, ratio, high = statistics.quantiles((mine / other for mine, other in pairs), n=4)
    print(f"{name}: {ratio:.4f} of the throughput ({low:.4f} to {high:.4f})", flush=True)
    return ratio, statistics.median(other for _, other in pairs)


def main() -> int:
    """Print ratios and scheduling error; the exit status says whether the limit was kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7, help="at least 2")
    parser.add_argument("--pace", type=float, default=0.005, help="seconds a step")
    parser.add_argument("--requests", type=int, default=640)
    options = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f} (average of the last minute)", flush=True)
    # Lengths that differ, so that requests end one by one.
    requests = [Request([1] * 32, 16 + number % 33) for number in range(options.requests)]
    what = (requests, options.streams)
    session, speed = compare(
        f"session, {options.streams} streams",
        lambda: loaded(options.pace, *what),
        lambda: bare(options.pace, *what),
        options.rounds,
    )
    ratios = [session]
    for name, pace in {**PACES, "as fast as it can": 0.0}.items():
        with replaying_server(pace) as url:
            ratio, _ = compare(
                f"endpoint, {options.streams} streams of {name}",
                partial(served, url, *what),
                partial(bare_reader, url, *what),
                options.rounds,
            )
        ratios += [ratio] if pace else []
    rate = speed / 32 / 2
    late = open_loop(options.pace, requests, rate)
    print(
        f"{rate:.0f} requests/s: sent {late['p50'] * 1e6:.0f} us late (p50), "
        f"{late['p99'] * 1e6:.0f} us (p99), {late['max'] * 1e6:.0f} us at most"
    )
    print(f"the least that counts is {min(ratios):.4f} (limit {LIMIT})")
    return 0 if min(ratios) >= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
