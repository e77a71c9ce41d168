"""Figures of a trial against arithmetic done by hand, and the self-check against lies."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.checks import violations
from workbench.measurement import summarize


def request(**values: Any) -> dict[str, Any]:
    """One request of 3 tokens that was sent at 0.0 and is as it should be."""
    return {
        "number": 0, "scheduled": 0.0, "sent": 0.0, "ended": 0.5, "asked_input_tokens": 5,
        "asked_output_tokens": 3, "input_tokens": 5, "output_tokens": 3, "stamped": "token",
        "queued": 0.01, "ttft": 0.2, "itl": [0.1, 0.1], "e2e": 0.4, "finish_reason": "length",
        "error": "", **values,
    }  # fmt: skip


def found(*requests: dict[str, Any], **options: bool) -> list[str]:
    repetitions = [list(requests)]
    summary = summarize(repetitions, 1, open_loop=False)
    return violations(repetitions, summary, exact_output=True, **options)


def test_throughput_is_tokens_by_the_time_from_the_first_request_to_the_last_token() -> None:
    requests = [request(), request(number=1, sent=0.1, scheduled=0.05)]
    summary = summarize([requests], 2, open_loop=True)
    assert summary["seconds"] == pytest.approx(0.5)
    assert summary["output_tokens_per_second"] == pytest.approx(6 / 0.5)
    assert summary["output_tokens_per_second_per_device"] == pytest.approx(6 / 0.5 / 2)
    assert summary["output_tokens_per_second_per_user"] == pytest.approx(1 / 0.1)
    assert summary["total_tokens_per_second"] == pytest.approx(16 / 0.5)
    assert summary["requests_per_second"] == pytest.approx(2 / 0.5)
    assert summary["mean_concurrency"] == pytest.approx(0.8 / 0.5)
    assert summary["ttft"]["p50"] == pytest.approx(0.2)
    assert summary["tpot"]["mean"] == pytest.approx(0.1)
    assert summary["scheduling_error"]["max"] == pytest.approx(0.05)


def test_repetitions_are_kept_apart_and_taken_together() -> None:
    slow = request(ttft=0.6, e2e=0.8, ended=0.9)
    summary = summarize([[request()], [slow]], 1, open_loop=False)
    each = [one["output_tokens_per_second"] for one in summary["repetitions"]]
    assert each == pytest.approx([3 / 0.4, 3 / 0.8])
    assert summary["output_tokens_per_second"] == pytest.approx(6 / 1.2)
    assert summary["scheduling_error"] is None


def test_a_failed_request_counts_as_an_error_and_gives_no_tokens() -> None:
    failed = request(number=1, error="no", ttft=None, e2e=None, itl=[], output_tokens=0)
    summary = summarize([[request(), failed]], 1, open_loop=False)
    assert (summary["requests"], summary["errors"], summary["output_tokens"]) == (2, 1, 3)


@given(st.lists(st.floats(1e-4, 10.0), min_size=1, max_size=60))
def test_percentiles_are_those_of_a_sorted_list(times: list[float]) -> None:
    requests = [request(ttft=t, e2e=t + 0.2, ended=t + 1) for t in times]
    spread = summarize([requests], 1, open_loop=False)["ttft"]
    ordered = sorted(times)

    def interpolated(share: float) -> float:
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (ordered[high] - ordered[low]) * (place - low)

    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        assert spread[name] == pytest.approx(interpolated(share))
    assert spread["mean"] == pytest.approx(statistics.fmean(times))


def test_a_true_trial_has_nothing_against_it() -> None:
    assert found(request(), request(number=1)) == []


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"ttft": 0.0, "e2e": 0.2}, "TTFT is 0 s"),
        ({"ttft": None, "e2e": None, "itl": [], "output_tokens": 0}, "first chunk is missing"),
        ({"e2e": 0.3}, "TTFT 0.2 s and all ITLs 0.2 s are not its E2E latency 0.3 s"),
        ({"itl": [0.2, 0.0]}, "1 of 3 tokens came in one piece"),
        ({"itl": [0.3, -0.1]}, "a token came before the one before it"),
        ({"output_tokens": 4}, "4 output tokens are told and 3 were stamped"),
        ({"asked_output_tokens": 4}, "asked for 4 output tokens and gave 3"),
        ({"asked_output_tokens": 2}, "asked for 2 output tokens and gave 3"),
        ({"input_tokens": 4}, "5 input tokens were sent and the engine read 4"),
        ({"ended": 0.3}, "stamped after we saw its end"),
        ({"finish_reason": "cancelled"}, "stopped before its end"),
        ({"error": "No room."}, "it failed: No room."),
        ({"output_tokens": None, "stamped": "chunk"}, "nobody tells how many output tokens"),
        ({"output_tokens": 2, "stamped": "chunk"}, "it came in more chunks: 3"),
    ],
)
def test_what_cannot_be_true_is_named(values: dict[str, Any], sentence: str) -> None:
    assert any(sentence in reason for reason in found(request(), request(number=1, **values)))


@pytest.mark.parametrize(("told", "true"), [(2, True), (4, True), (7, False)])
def test_a_count_that_was_made_here_may_be_a_little_off_and_no_more(told: int, true: bool) -> None:
    recounted = request(stamped="chunk", counted="here", output_tokens=told)
    assert (found(recounted) == []) == true
    assert found(recounted | {"counted": "server"})


def test_a_request_that_was_sent_again_is_found() -> None:
    assert "request 0 is counted 2 times" in found(request(), request())[0]


def test_tokens_may_come_together_where_several_are_made_at_once() -> None:
    together = request(itl=[0.2, 0.0])
    assert found(together, several_at_once=True) == []


def test_a_chunk_may_hold_several_tokens() -> None:
    chunks = request(stamped="chunk", output_tokens=9, asked_output_tokens=9)
    assert found(chunks) == []
    summary = summarize([[chunks]], 1, open_loop=False)
    assert summary["tpot"]["p50"] == pytest.approx(0.2 / 8)


def test_a_short_output_is_fine_where_the_model_may_end() -> None:
    short = [[request(asked_output_tokens=9, finish_reason="stop")]]
    assert violations(short, summarize(short, 1, open_loop=False)) == []


def test_percentiles_that_fall_are_found() -> None:
    summary = summarize([[request()]], 1, open_loop=False)
    summary["ttft"] = {"mean": 0.1, "p50": 0.3, "p90": 0.2, "p99": 0.4}
    assert "the percentiles of ttft do not rise" in violations([[request()]], summary)[0]


def test_a_thousand_wrong_requests_are_told_in_a_few_sentences() -> None:
    wrong = [request(number=number, ttft=0.0, e2e=0.2) for number in range(1000)]
    told = found(*wrong)
    assert len(told) == 6
    assert told[-1] == "and 995 more like these"
