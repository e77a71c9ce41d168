"""The load generator against canned tokens: how many run, when they are sent, what is written."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tests.benchmarks.load import bare_reader, replaying_server
from tests.replay import Replay
from workbench.endpoint import Endpoint
from workbench.errors import SessionError
from workbench.generation import Generation
from workbench.load import Load
from workbench.prompts import Request
from workbench.sampling import Sampling

SAMPLING = Sampling(ignore_eos=True)


def _requests(count: int, tokens: int = 4) -> list[Request]:
    return [Request([number] * 3, tokens) for number in range(count)]


def test_a_closed_loop_keeps_its_concurrency_and_sends_each_request_once() -> None:
    with Replay(0.001) as session:
        records = Load(session, _requests(20), SAMPLING, concurrency=4).run()
    assert session.most == 4
    assert [prompt[0] for prompt in session.prompts] == list(range(20))
    assert [record["number"] for record in records] == list(range(20))
    for record in records:
        assert (record["input_tokens"], record["output_tokens"]) == (3, 4)
        assert len(record["itl"]) == 3
        assert record["ttft"] + sum(record["itl"]) == pytest.approx(record["e2e"], abs=1e-9)
        assert record["sent"] + record["e2e"] <= record["ended"]
        assert record["finish_reason"] == "length"


def test_an_open_loop_sends_at_its_times_whatever_has_ended() -> None:
    schedule = [0.0, 0.02, 0.02, 0.05]
    with Replay(0.03) as session:
        records = Load(session, _requests(4), SAMPLING, schedule=schedule).run()
    # The first one takes longer than all four are apart.
    assert session.most == 4
    assert [record["scheduled"] for record in records] == pytest.approx(schedule)
    assert all(record["sent"] >= record["scheduled"] for record in records)


class _Counting(Replay):
    """Takes down how many threads there are while requests run."""

    def __init__(self) -> None:
        super().__init__(0.001)
        self.threads: set[int] = set()

    def generate(self, prompt: Any, sampling: Sampling | None = None) -> Generation:
        self.threads.add(threading.active_count())
        return super().generate(prompt, sampling)


def test_it_needs_no_thread_of_its_own() -> None:
    with _Counting() as session:
        before = threading.active_count()
        Load(session, _requests(64), SAMPLING, concurrency=32).run()
    assert session.threads == {before}


def test_a_served_replay_gives_every_request_its_tokens_one_a_chunk() -> None:
    requests = _requests(8)
    with replaying_server(0.005) as url, Endpoint(url).open() as session:
        records = Load(session, requests, SAMPLING, concurrency=4).run()
        assert bare_reader(url, requests, 4) > 0
    for record in records:
        assert (record["input_tokens"], record["output_tokens"]) == (3, 4)
        assert (record["error"], record["finish_reason"]) == ("", "length")
        assert len(record["itl"]) == 3


def test_a_refused_request_is_recorded_and_the_others_go_on() -> None:
    with Replay(refuse=lambda prompt: prompt[0] == 1) as session:
        records = Load(session, _requests(3), SAMPLING, concurrency=2).run()
    assert [record["error"] for record in records] == ["", "Canned: no.", ""]
    assert records[1]["ttft"] is None


class _Gone:
    def generate(self, *_: object) -> None:
        raise SessionError("The worker died.")


def test_a_session_that_is_gone_fails_every_request() -> None:
    records = Load(_Gone(), _requests(3), SAMPLING).run()
    assert [record["error"] for record in records] == ["The worker died."] * 3


def test_the_deadline_cancels_what_runs() -> None:
    with Replay(0.01) as session:
        load = Load(
            session, _requests(3, tokens=10**6), SAMPLING, 2, deadline=time.monotonic() + 0.1
        )
        with pytest.raises(TimeoutError, match="2 requests under way and 1 not sent yet"):
            load.run()
        assert session._running == {}


def test_silence_cancels_what_runs_and_slow_tokens_are_none() -> None:
    with Replay(0.04) as session:
        records = Load(session, _requests(2, tokens=8), SAMPLING, 2, silence=0.25).run()
    # They took longer than the limit, and each token came within it.
    assert min(record["e2e"] for record in records) > 0.25
    with Replay(3.0) as session:
        load = Load(session, _requests(3), SAMPLING, 2, silence=0.2)
        with pytest.raises(TimeoutError, match="No token came for 200 ms, with 2 requests under"):
            load.run()
        assert session._running == {}


def test_who_asks_after_the_end_is_told_at_once_and_everybody_once() -> None:
    generation = Generation(SAMPLING, lambda: None)
    told: list[Generation] = []
    generation.when_finished(told.append)
    generation.fail(SessionError("The worker died."))
    generation.fail(SessionError("Again."))
    assert told == [generation]
    generation.when_finished(told.append)
    assert told == [generation, generation]
