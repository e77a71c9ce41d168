"""Figures say what the records say, and a sentence where there is nothing to say."""

from __future__ import annotations

from workbench.metrics import Timings
from workbench.plots import latency_figure, stages_figure


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


def _manifest(key: str, **seconds: float) -> dict:
    stages = [{"name": name, "title": f"{name} it", "seconds": s} for name, s in seconds.items()]
    return {"key": key, "build": {"stages": stages}}


def test_each_build_is_a_bar_of_its_stages() -> None:
    figure = stages_figure(
        [_manifest("a" * 20, load=1.0), _manifest("b" * 20, load=2.0, smoke=3.0)]
    )
    assert [bar.name for bar in figure.data] == ["load it", "smoke it"]
    assert [list(bar.x) for bar in figure.data] == [[1.0, 2.0], [None, 3.0]]
    assert list(figure.data[0].y) == ["a" * 12, "b" * 12]
    assert figure.layout.title.text == "The stages of 2 builds"


def test_the_name_of_a_stage_is_text() -> None:
    figure = stages_figure([_manifest("a" * 20, **{"<b>load</b>": 1.0})])
    assert figure.data[0].name == "&lt;b&gt;load&lt;/b&gt; it"


def test_an_empty_store_is_a_sentence() -> None:
    figure = stages_figure([])
    assert not figure.data
    assert "no engine yet" in figure.layout.annotations[0].text


def test_a_legend_has_room_for_all_its_entries() -> None:
    few, many = (
        stages_figure([_manifest("a", **{f"stage {n}": 1.0 for n in range(count)})])
        for count in (3, 30)
    )
    # Below the bars, in rows of 22 px, and the figure is higher by as much.
    assert many.layout.legend.orientation == "h"
    rows = (many.layout.margin.b - few.layout.margin.b) / 22
    assert rows >= 3
    assert many.layout.height - few.layout.height == 22 * rows


def test_an_empty_figure_leaves_no_hole() -> None:
    assert stages_figure([]).layout.height <= 60
    assert latency_figure(None).layout.height <= 60
