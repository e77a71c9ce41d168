"""The frontier, intervals and cost against brute force and by hand."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.axes import Interval, cost_per_million
from workbench.metrics import percentiles
from workbench.pareto import frontier

# Few different values, so that ties are usual.
FIGURES = st.integers(0, 5).map(float) | st.floats(-1e6, 1e6)
POINTS = st.lists(st.tuples(FIGURES, FIGURES), max_size=30)
HIGHER = st.tuples(st.booleans(), st.booleans())


def _brute(points: list[tuple[float, float]], higher: tuple[bool, bool]) -> set[int]:
    def better(a: float, b: float, more: bool) -> bool:
        return a > b if more else a < b

    def dominates(a: tuple[float, float], b: tuple[float, float]) -> bool:
        worse = any(better(y, x, more) for x, y, more in zip(a, b, higher, strict=True))
        return not worse and any(
            better(x, y, more) for x, y, more in zip(a, b, higher, strict=True)
        )

    return {n for n, point in enumerate(points) if not any(dominates(q, point) for q in points)}


@given(POINTS, HIGHER)
def test_the_frontier_is_what_no_other_point_dominates(
    points: list[tuple[float, float]], higher: tuple[bool, bool]
) -> None:
    found = frontier(points, higher=higher)
    assert set(found) == _brute(points, higher)
    assert len(found) == len(set(found))


@given(POINTS, HIGHER)
def test_along_the_frontier_one_figure_gets_worse_as_the_other_gets_better(
    points: list[tuple[float, float]], higher: tuple[bool, bool]
) -> None:
    line = [points[place] for place in frontier(points, higher=higher)]
    assert [x for x, _ in line] == sorted((x for x, _ in line), reverse=higher[0])
    assert [y for _, y in line] == sorted((y for _, y in line), reverse=not higher[1])


def test_a_single_point_and_its_equals_are_the_frontier() -> None:
    assert frontier([]) == []
    assert frontier([(3.0, 4.0)]) == [0]
    assert frontier([(3.0, 4.0), (5.0, 4.0), (3.0, 4.0), (3.0, 5.0)]) == [0, 2]


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=20))
def test_an_interval_holds_every_repetition_and_its_median(values: list[float]) -> None:
    interval = Interval.of(values)
    assert interval is not None
    assert all(interval.low <= value <= interval.high for value in values)
    assert {interval.low, interval.high} <= set(values)
    assert interval.median == statistics.median(values)
    assert interval.count == len(values)


def test_nothing_has_no_interval() -> None:
    assert Interval.of([]) is None


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=60))
def test_percentiles_are_those_of_linear_interpolation_between_ranks(values: list[float]) -> None:
    found, ranked = percentiles(values), sorted(values)

    def brute(share: float) -> float:
        place = share * (len(ranked) - 1)
        below = int(place)
        above = min(below + 1, len(ranked) - 1)
        return ranked[below] + (place - below) * (ranked[above] - ranked[below])

    assert found.p50 == pytest.approx(brute(0.5))
    assert found.p90 == pytest.approx(brute(0.9))
    assert found.p99 == pytest.approx(brute(0.99))


def test_the_cost_of_a_million_tokens_by_hand() -> None:
    # 1000 tokens/s are 3.6 million in an hour, for 2 x $1.80.
    assert cost_per_million(1.80, 2, 1000.0) == pytest.approx(1.0)
    assert cost_per_million(0.0, 8, 1.0) == 0.0


@given(st.floats(0.01, 100), st.integers(1, 16), st.floats(0.1, 1e6))
def test_what_an_hour_gives_costs_what_an_hour_costs(
    price: float, devices: int, speed: float
) -> None:
    millions = speed * 3600 / 1e6
    assert cost_per_million(price, devices, speed) * millions == pytest.approx(price * devices)
