"""The worker's end of the channel: what it takes before a step, and how long it waits for it."""

from __future__ import annotations

import json
import select
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

WORKER = Path(__file__).parents[1] / "workbench" / "worker"
sys.path.insert(0, str(WORKER))
from adapters import channel as worker_channel  # noqa: E402
from adapters import openvino_session  # noqa: E402

sys.path.remove(str(WORKER))


@pytest.fixture
def ends() -> Iterator[tuple[worker_channel.Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours:
        channel = worker_channel.Channel(theirs.detach())
        yield channel, ours
        channel._socket.close()


def _say(end: socket.socket, number: int) -> None:
    end.sendall(json.dumps({"id": number}).encode() + b"\n")


def test_company_that_comes_in_time_is_taken_together(
    ends: tuple[worker_channel.Channel, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, kernel = ends
    real = select.select
    waits: list[float] = []

    def late(reads: Any, writes: Any, errors: Any, timeout: float) -> Any:
        waits.append(timeout)
        if len(waits) == 1:
            _say(kernel, 2)  # while the worker waits
        return real(reads, writes, errors, 0)

    monkeypatch.setattr(worker_channel.select, "select", late)
    _say(kernel, 1)
    assert channel.pending(wait=True, company=5.0) == [{"id": 1}, {"id": 2}]
    assert len(waits) == 2
    assert 4.0 < waits[0] <= 5.0
    assert waits[1] <= waits[0], "the wait counts from the first message, not from the last"


def test_a_running_engine_waits_for_nobody(
    ends: tuple[worker_channel.Channel, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, kernel = ends
    real = select.select
    waits: list[float] = []

    def watched(reads: Any, writes: Any, errors: Any, timeout: float) -> Any:
        waits.append(timeout)
        return real(reads, writes, errors, timeout)

    monkeypatch.setattr(worker_channel.select, "select", watched)
    assert channel.pending(wait=False, company=5.0) == []
    _say(kernel, 1)
    assert channel.pending(wait=False, company=5.0) == [{"id": 1}]
    assert waits == [0.0, 0.0, 0.0]


def test_an_idle_engine_waits_for_company_and_no_longer_than_a_millisecond() -> None:
    asked: list[dict[str, Any]] = []

    class Idle:
        closed = True

        def pending(self, **how: Any) -> list[dict[str, Any]]:
            asked.append(how)
            return []

    server = openvino_session.Server.__new__(openvino_session.Server)
    server._running, server._waiting = {}, openvino_session.deque()
    server._channel = Idle()
    server.serve()
    assert asked == [{"wait": True, "company": 0.001}]


def test_a_closed_channel_ends_the_wait(
    ends: tuple[worker_channel.Channel, socket.socket],
) -> None:
    channel, kernel = ends
    _say(kernel, 1)
    kernel.shutdown(socket.SHUT_RDWR)
    assert channel.pending(wait=True, company=3600.0) == [{"id": 1}]
    assert channel.closed
