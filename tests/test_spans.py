from __future__ import annotations

import itertools
import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import InputError
from workbench.widgets.spans import Pace, Spans, finite

STEPS = st.lists(st.tuples(st.integers(0, 5), st.lists(st.floats(-20, 0), max_size=3)))


def read(written: str) -> list[tuple[int, list[int]]]:
    """Read spans as a browser does."""
    items = [item.split(":") for item in written.split()]
    return [(int(n), [int(mark) for rest in m for mark in rest.split(",")]) for n, *m in items]


def test_a_span_is_a_step_with_its_tokens() -> None:
    spans = Spans()
    spans.add(5, [-0.10536])
    spans.add(3, [-0.0088, -2])
    spans.add(7, [])
    assert spans.written(0) == "5:1054 3:88,20000 7"
    assert spans.tokens == 3


def test_tokens_without_text_belong_to_the_next_text() -> None:
    spans = Spans()
    spans.add(0, [-1.0])
    spans.add(0, [-2.0])
    spans.add(1, [-3.0])
    spans.add(0, [-4.0])
    assert spans.written(0) == "1:10000,20000,30000"
    assert spans.tokens == 4


def test_text_without_tokens_is_not_described() -> None:
    spans = Spans()
    spans.add(4, [])
    spans.add(2, [])
    assert spans.written(0) == ""
    spans.add(1, [-1.0])
    assert spans.written(0) == "6 1:10000"


@given(steps=STEPS, cut=st.integers(0, 60))
def test_what_follows_an_offset_is_the_end_of_the_whole(
    steps: list[tuple[int, list[float]]], cut: int
) -> None:
    spans = Spans()
    for length, logprobs in steps:
        spans.add(length, logprobs)
    whole = read(spans.written(0))
    if whole:
        assert sum(length for length, _ in whole) == sum(length for length, _ in steps)
    ends = list(itertools.accumulate(length for length, _ in whole))
    kept = [(min(n, end - cut), m) for (n, m), end in zip(whole, ends, strict=True) if end > cut]
    assert read(spans.written(cut)) == kept


def test_a_token_takes_few_bytes() -> None:
    spans = Spans()
    for _ in range(50_000):
        spans.add(5, [-0.12345])
    parts = (spans._ends, spans._counts, spans._marks)
    assert sum(sys.getsizeof(part) for part in parts) <= 50_000 * 30
    assert len(spans.written(0)) <= 50_000 * 8


@pytest.mark.parametrize(("given", "kept"), [(-math.inf, -1000), (1e-6, 0), (-0.5, -0.5)])
def test_probabilities_are_kept_within_what_json_can_carry(given: float, kept: float) -> None:
    assert finite(given) == kept


@pytest.mark.parametrize("wrong", [math.nan, 0.5, math.inf])
def test_what_is_no_log_probability_is_refused(wrong: float) -> None:
    with pytest.raises(InputError, match="natural logarithm and at most 0"):
        Spans().add(1, [wrong])


def test_a_refused_token_leaves_no_trace() -> None:
    spans = Spans()
    with pytest.raises(InputError):
        spans.add(1, [-1.0, 0.5])
    assert spans.tokens == 0


def test_pace_has_a_bounded_number_of_points_for_a_stream_of_any_length() -> None:
    pace = Pace()
    for token in range(50_000):
        pace.add(1, token * 0.02)
        assert len(pace.points) <= 60
    assert len(pace.points) >= 30
    assert set(pace.points) == {20.0}


def test_pace_shows_where_a_stream_was_slow() -> None:
    pace = Pace()
    times = [*(n * 0.01 for n in range(10)), *(0.09 + n * 0.05 for n in range(1, 11))]
    changed = [pace.add(1, time) for time in times]
    assert changed == [False] + [True] * 19
    assert pace.points == [10.0] * 9 + [50.0] * 10
