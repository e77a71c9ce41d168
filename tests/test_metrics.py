"""TTFT, ITL and percentiles by the field's definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.metrics import Timings, percentiles

TIMES = st.lists(st.floats(0.001, 10), min_size=1, max_size=50)


@given(TIMES)
def test_ttft_and_itl_add_up_to_e2e(gaps: list[float]) -> None:
    tokens = tuple(np.cumsum(gaps).tolist())
    timings = Timings(requested=0.0, started=0.0, tokens=tokens)
    assert timings.ttft + sum(timings.itl) == pytest.approx(timings.e2e)


@given(TIMES)
def test_percentiles_are_numpys(values: list[float]) -> None:
    found = percentiles(values)
    assert (found.p50, found.p90, found.p99) == pytest.approx(np.percentile(values, [50, 90, 99]))
    assert found.mean == pytest.approx(np.mean(values))


def test_decode_speed_leaves_the_first_token_out() -> None:
    timings = Timings(requested=0.0, started=1.0, tokens=(2.0, 2.5, 3.0))
    assert timings.tokens_per_second == pytest.approx(2.0)
    assert timings.queued == 1.0


def test_nothing_is_made_up_where_nothing_came() -> None:
    timings = Timings(requested=0.0, started=None, tokens=())
    assert timings.summary() == {
        "output_tokens": 0,
        "queued": None,
        "ttft": None,
        "itl": None,
        "e2e": None,
        "tokens_per_second": None,
    }
    with pytest.raises(ValueError, match="no values"):
        percentiles([])
