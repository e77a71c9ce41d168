"""Figures say what the records say, and a sentence where there is nothing to say."""

from __future__ import annotations

from workbench.metrics import Timings
from workbench.plots import latency_figure


def test_each_token_after_the_first_is_a_bar_of_its_latency() -> None:
    timings = Timings(requested=0.0, started=0.0, tokens=(0.5, 0.6, 0.8))
    record = {**timings.summary(), "itl_seconds": list(timings.itl)}
    (bars,) = latency_figure(record).data
    assert list(bars.x) == [2, 3]
    assert [round(y) for y in bars.y] == [100, 200]
    assert latency_figure(record).layout.title.text == "3 tokens, the first after 500 ms"


def test_before_the_first_stream_there_is_a_sentence() -> None:
    figure = latency_figure(None)
    assert not figure.data
    assert "Nothing was streamed yet" in figure.layout.annotations[0].text


def test_a_single_token_has_no_latency_between() -> None:
    timings = Timings(requested=0.0, started=0.0, tokens=(0.5,))
    (bars,) = latency_figure({**timings.summary(), "itl_seconds": []}).data
    assert list(bars.y) == []
