"""Comparisons over trials of a real engine: figures, differences, charts, report, panel."""

from __future__ import annotations

import copy
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest

from tests.faults import until
from tests.test_foreign import guidellm, trtllm_bench
from workbench import files, results
from workbench.axes import AXES, THROUGHPUT
from workbench.cli import main
from workbench.compare_plots import engines_record, trade_off_record
from workbench.compare_report import report_html
from workbench.comparison import Comparison
from workbench.engine import Engine
from workbench.errors import InputError
from workbench.foreign import import_trials
from workbench.trial import Trial, point_of
from workbench.widgets.compare import ComparePanel

SCRIPT = "</script><script>window.struck = 1</script><img src=x onerror='window.struck = 1'>"

Measured = list[Trial]


@pytest.fixture
def measured(measured_trials: Measured, home: Path) -> Measured:
    """Two real trials, of two repetitions each, in the test's own store."""
    for trial in measured_trials:
        files.write_json(results.folder() / f"{trial.id}.json", trial.record)
    return measured_trials


def like(trial: Trial, **changes: Any) -> Trial:
    """A trial as another, but of another point; `summary__ttft` changes a part of a part."""
    record = copy.deepcopy(dict(trial.record))
    number = len(results.list_trials())
    record |= {"point": f"{number:016d}"}
    for name, value in changes.items():
        *parts, last = name.split("__")
        place = record
        for part in parts:
            place = place[part]
        place[last] = value
    return results.save(record)


def _speeds(trial: Trial, *speeds: float) -> list[dict[str, Any]]:
    (first, *_) = trial.summary["repetitions"]
    return [{**first, THROUGHPUT: speed} for speed in speeds]


def test_figures_are_those_of_the_repetitions(measured: Measured) -> None:
    comparison = Comparison.make()
    assert [len(c.trials) for c in comparison.candidates] == [1, 1]
    for candidate in comparison.candidates:
        each = [part[THROUGHPUT] for part in candidate.newest.summary["repetitions"]]
        found = comparison.figure(candidate, AXES[THROUGHPUT])
        assert found is not None
        assert (found.low, found.high, found.count) == (min(each), max(each), 2)
    assert {c.label for c in comparison.candidates} == {"concurrency=1", "concurrency=2"}


def test_trials_of_one_point_and_engine_are_repetitions(measured: Measured) -> None:
    first = measured[0]
    results.save({**first.record})
    like(first, point=first.point, engine__key="another engine")
    candidates = Comparison.make().candidates
    counts = sorted(len(c.trials) for c in candidates)
    assert counts == [1, 1, 2]


def test_the_fastest_is_first_and_the_slower_cost_more(measured: Measured) -> None:
    like(measured[0], summary__repetitions=_speeds(measured[0], 1e6), devices=1)
    like(measured[0], summary__repetitions=_speeds(measured[0], 1e6 - 1), devices=2)
    comparison = Comparison.make(price=3.6)
    first, second = comparison.candidates[:2]
    cost = [comparison.figure(c, AXES["cost"]) for c in (first, second)]
    assert cost[0] is not None
    assert cost[1] is not None
    assert cost[0].median == pytest.approx(0.001)
    assert cost[1].median == pytest.approx(0.002, rel=1e-5)
    assert Comparison.make().axes(["cost"]) == []


def test_differences_are_shares_of_the_baseline(measured: Measured) -> None:
    for speed in (100.0, 150.0, 2000.0):
        like(
            measured[0], summary__repetitions=_speeds(measured[0], speed), spec__model=f"m{speed:g}"
        )
    comparison = Comparison.make(text="model=m", baseline="model=m100")
    axis = AXES[THROUGHPUT]
    assert [comparison.difference(c, axis) for c in comparison.candidates] == [19.0, 0.5, None]
    cells = [comparison.cell(c, axis) for c in comparison.candidates]
    assert cells == ["2,000 tokens/s (x20)", "150 tokens/s (+50%)", "100 tokens/s"]
    assert comparison.name(comparison.candidates[2]).endswith("baseline")


def test_what_failed_or_is_invalid_is_left_out_and_counted(measured: Measured) -> None:
    like(measured[0], status="invalid", reasons=["a zero first chunk"])
    like(measured[0], status="failed", reasons=["no engine"], summary={})
    comparison = Comparison.make()
    assert len(comparison.candidates) == 2
    assert any(note.startswith("Left out: 2 trials that failed") for note in comparison.notes())


def test_only_what_was_asked_the_same_on_the_same_device_competes(measured: Measured) -> None:
    fast = _speeds(measured[0], 1e6)
    like(measured[0], summary__repetitions=fast, environment__device="H100")
    like(measured[0], summary__repetitions=fast, workload__input_len=4)
    comparison = Comparison.make()
    found = comparison.frontiers(AXES["e2e.p50"], AXES[THROUGHPUT])
    assert len(found) == 3
    assert any("device=H100" in name for name in found)
    # The two that are far faster leave the frontier of the first ones as it was.
    alone = Comparison.make(measured).frontiers(AXES["e2e.p50"], AXES[THROUGHPUT])
    ids = {c.newest.id for line in alone.values() for c in line}
    assert ids in [{c.newest.id for c in line} for line in found.values()]


def test_what_another_tool_measured_competes_with_our_own(
    measured: Measured, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    report.write_text(json.dumps(trtllm_bench()))
    benchmarks = tmp_path / "benchmarks.json"
    benchmarks.write_text(json.dumps(guidellm(4)))
    gpu = "NVIDIA H100 80GB HBM3"
    ours = [
        like(
            measured[0],
            spec__model="meta/x",
            environment__device=gpu,
            devices=devices,
            workload__input_len=input_len,
            workload__output_len=output_len,
        )
        for devices, input_len, output_len in ((2, 512, 128), (1, 100, 50))
    ]
    pairs = [
        (ours[0], import_trials(report)[0]),
        (ours[1], import_trials(benchmarks, model="meta/x", device=gpu)[0]),
    ]
    groups = {c.newest.id: c.group for c in Comparison.make().candidates}
    for own, theirs in pairs:
        assert groups[own.id] == groups[theirs.id]
    assert groups[ours[0].id] != groups[ours[1].id]
    # Said of a report or not, it is another trial.
    assert import_trials(benchmarks)[0].id != pairs[1][1].id


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"baseline": "nothing"}, "Nothing that was measured is the baseline 'nothing'"),
        ({"baseline": "openvino"}, "2 candidates are the baseline 'openvino'"),
        ({"price": -1.0}, "The price must be dollars"),
        ({"price": float("nan")}, "The price must be dollars"),
        ({"price": "cheap"}, "The price must be dollars.*got 'cheap'"),
    ],
)
def test_what_cannot_be_compared_is_a_sentence(
    measured: Measured, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        Comparison.make(**options)


def test_a_command_measures_the_very_same_point_again(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def run_trial(spec: Any, workload: Any, quality: Any, **_: Any) -> Trial:
        asked.append(point_of(spec, workload, quality))
        return measured[0]

    monkeypatch.setattr("workbench.trial_commands.run_trial", run_trial)
    for candidate in Comparison.make().candidates:
        program, *words = candidate.command.split()
        assert program == "workbench"
        assert main(words) == 0
        assert asked.pop() == candidate.newest.point


def test_a_command_asks_for_the_same_quality(measured: Measured) -> None:
    trial = like(measured[0], quality_asked={"reference": "quantization=none", "quality_len": 16})
    (found,) = [c for c in Comparison.make().candidates if c.newest.id == trial.id]
    assert "--reference=quantization=none --quality-len=16" in found.command


def test_what_others_measured_has_no_command(measured: Measured) -> None:
    trial = like(measured[0], source="trtllm-bench")
    (found,) = [c for c in Comparison.make().candidates if c.newest.id == trial.id]
    assert found.command == ""


# ------------------------------------------------------------------------- figures


def test_each_point_bears_its_number_and_its_interval(measured: Measured) -> None:
    comparison = Comparison.make()
    record = trade_off_record(comparison, "ttft.p50", THROUGHPUT, chosen=2)
    go.Figure(record)  # plotly refuses what is none
    points = [trace for trace in record["data"] if trace["mode"] == "markers+text"]
    (points,) = points
    assert points["text"] == ["1", "2"]
    for place, candidate in enumerate(comparison.candidates):
        x = comparison.figure(candidate, AXES["ttft.p50"])
        y = comparison.figure(candidate, AXES[THROUGHPUT])
        assert x is not None
        assert y is not None
        assert points["x"][place] == pytest.approx(1000 * x.median)
        top = points["y"][place] + points["error_y"]["array"][place]
        bottom = points["y"][place] - points["error_y"]["arrayminus"][place]
        assert (bottom, top) == (pytest.approx(y.low), pytest.approx(y.high))
        assert points["error_y"]["visible"]
    (ring,) = [trace for trace in record["data"] if trace["name"] == "chosen"]
    assert ring["x"] == points["x"][1:]


def test_series_differ_in_colour_and_in_shape(measured: Measured) -> None:
    like(measured[0], spec__quantization="int4")
    like(measured[0], spec__quantization="int8")
    record = trade_off_record(Comparison.make(), "ttft.p50", THROUGHPUT)
    markers = [trace["marker"] for trace in record["data"] if trace["mode"] == "markers+text"]
    assert len(markers) == 3
    assert len({marker["color"] for marker in markers}) == 3
    assert len({marker["symbol"] for marker in markers}) == 3


def test_what_an_engine_costs_is_one_bar_in_each_column(measured: Measured) -> None:
    record = engines_record(Comparison.make())
    go.Figure(record)
    assert [trace["xaxis"] for trace in record["data"]] == ["x", "x2", "x3"]
    build = record["data"][0]
    assert build["x"] == [measured[0].record["engine"]["build_seconds"]]
    assert len(build["y"]) == 1


def test_an_empty_store_is_a_sentence_everywhere(home: Path, capsys: pytest.CaptureFixture) -> None:
    comparison = Comparison.make()
    for record in (
        trade_off_record(comparison, "ttft.p50", THROUGHPUT),
        engines_record(comparison),
    ):
        assert record["data"] == []
        assert record["layout"]["height"] <= 60
    assert "There is no trial to compare yet" in ComparePanel().plain()
    assert main(["compare"]) == 0
    assert "There is no trial to compare yet" in capsys.readouterr().out
    assert "There is no trial to compare yet" in report_html(comparison)


def test_what_no_trial_has_is_a_sentence(measured: Measured) -> None:
    record = trade_off_record(Comparison.make(), "ttft.p50", "quality.token_match")
    assert "has both of these figures" in record["layout"]["annotations"][0]["text"]
    with pytest.raises(InputError, match=r"There is no axis 'ttft'.*Did you mean|There is: "):
        trade_off_record(Comparison.make(), "ttft", THROUGHPUT)


# ---------------------------------------------------------------------- yardsticks

MATCH = {"reference": "one", "token_match": 0.9, "mean_kl": 0.1, "lacks": [],
         "answers_digest": "a", "texts_digest": "t"}  # fmt: skip


def _shown(comparison: Comparison, name: str) -> dict[int, float]:
    figures = {c.number: comparison.figure(c, AXES[name]) for c in comparison.candidates}
    return {number: figure.median for number, figure in figures.items() if figure}


def test_only_qualities_of_the_same_yardstick_are_compared(measured: Measured) -> None:
    # Above all that was really measured, however busy the machine was then.
    speed = max(r[THROUGHPUT] for trial in measured for r in trial.summary["repetitions"])
    for number, changes in enumerate(({}, {}, {"answers_digest": "b", "token_match": 0.2})):
        faster = _speeds(measured[0], speed * 10 * (number + 1))
        like(measured[0], quality=MATCH | changes, summary__repetitions=faster)
    comparison = Comparison.make()
    # The fastest is the odd one; its KL is over the same texts as that of the others.
    assert _shown(comparison, "quality.token_match") == {2: 0.9, 3: 0.9}
    assert _shown(comparison, "quality.mean_kl") == {1: 0.1, 2: 0.1, 3: 0.1}
    (note,) = [note for note in comparison.notes() if note.startswith("Token match")]
    assert note == (
        "Token match of 1 is left out: it was measured with another reference, other prompts or "
        "other lengths."
    )
    # A baseline decides what is compared.
    comparison = Comparison.make(baseline="1")
    assert _shown(comparison, "quality.token_match") == {1: 0.2}
    assert any(note.startswith("Token match of 2, 3 is left out") for note in comparison.notes())


def test_perplexities_of_other_texts_or_windows_are_left_out(measured: Measured) -> None:
    text = {"text": "a.txt", "text_digest": "a", "window": 512, "perplexity": 8.0, "lacks": []}
    for changes in ({}, {}, {"window": 256}, {"text_digest": "b"}):
        like(measured[0], quality=text | changes)
    comparison = Comparison.make()
    assert list(_shown(comparison, "quality.perplexity").values()) == [8.0, 8.0]
    (note,) = [note for note in comparison.notes() if note.startswith("Perplexity")]
    assert note.endswith("is left out: it was measured with another text, tokenizer or window.")


def test_early_records_without_a_yardstick_are_compared_by_their_names(
    measured: Measured,
) -> None:
    early = {"token_match": 0.5, "mean_kl": None, "lacks": []}
    like(measured[0], quality={**early, "reference": "one"})
    like(measured[0], quality={**early, "reference": "one"})
    like(measured[0], quality={**early, "reference": "two"})
    comparison = Comparison.make()
    assert list(_shown(comparison, "quality.token_match").values()) == [0.5, 0.5]
    (note,) = [note for note in comparison.notes() if note.startswith("Token match")]
    assert note.endswith("other prompts or other lengths, or by an earlier version.")


# -------------------------------------------------------------------------- report


class Page(HTMLParser):
    """What a browser makes of a page: its elements, and the text outside of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.cdata_elem == "script":
            self.scripts[-1] += data
        else:
            self.words += data


@pytest.fixture
def hostile(measured: Measured) -> Trial:
    """A trial in which every text that may come from elsewhere wants to be code."""
    return like(
        measured[0],
        spec__model=SCRIPT,
        spec__quantization=SCRIPT,
        environment__device=SCRIPT,
        environment__processor=SCRIPT,
        environment__toolchain={SCRIPT: SCRIPT},
        workload__prompts=SCRIPT,
        warnings=[SCRIPT],
        source=SCRIPT,
    )


def test_a_report_shows_what_comes_from_elsewhere_as_text(hostile: Trial) -> None:
    page = Page(report_html(Comparison.make()))
    # The library and our own calls, and nothing that the record brought.
    assert len(page.scripts) == 2
    assert "img" not in {tag for tag, _ in page.elements}
    assert SCRIPT in page.words
    assert "<" not in re.sub(r"Plotly\.newPlot", "", page.scripts[1])


def test_a_figure_shows_what_comes_from_elsewhere_as_text(hostile: Trial) -> None:
    comparison = Comparison.make()
    for record in (
        trade_off_record(comparison, "ttft.p50", THROUGHPUT),
        engines_record(comparison),
    ):
        texts = json.dumps(record)
        assert "<img" not in texts
        assert "<script" not in texts


def test_a_report_says_where_each_figure_comes_from_and_needs_no_network(
    measured: Measured, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "report.html"
    assert main(["compare", "--price", "2", "--report", str(path), "--baseline", "1"]) == 0
    assert f"Report   {path}, 4." in capsys.readouterr().out
    page = Page(path.read_text())
    trial = measured[0]
    for words in (
        trial.id,
        f"openvino-genai={trial.record['environment']['toolchain']['openvino-genai']}",
        trial.record["environment"]["device"],
        "workbench trial --quantization=none",
        "repetitions=2",
        "Cost of a million output tokens",
    ):
        assert words in page.words
    assert not [tag for tag, found in page.elements if {"src", "href"} & set(found)]


def test_a_report_replaces_a_file_only_where_that_is_asked_for(
    measured: Measured, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "report.html"
    path.write_text("mine")
    assert main(["compare", "--report", str(path)]) == 2
    assert "is there already and was not overwritten" in capsys.readouterr().err
    assert path.read_text() == "mine"
    assert main(["compare", "--report", str(path), "--overwrite"]) == 0
    assert path.read_text().startswith("<!doctype html>")


def test_a_report_that_cannot_be_written_is_a_sentence(
    measured: Measured, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["compare", "--report", str(tmp_path / "none" / "report.html")]) == 2
    assert "cannot be written: No such file" in capsys.readouterr().err


def test_the_command_line_gives_everything_as_json(
    measured: Measured, capsys: pytest.CaptureFixture
) -> None:
    assert main(["compare", "concurrency=2", "--json", "--baseline", "concurrency=1"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["label"] == "concurrency=2"
    assert found["figures"][THROUGHPUT]["count"] == 2
    assert found["figures"][THROUGHPUT]["difference"] is not None


# --------------------------------------------------------------------------- panel


def test_choosing_a_point_shows_its_command_and_hands_its_engine_over(
    measured: Measured, stocked: Engine
) -> None:
    panel = ComparePanel()
    heard: list[Engine] = []
    panel.on_engine(heard.append)
    panel.use_button.click()
    assert "No point is chosen" in panel._error_text
    panel.choose(panel.table.rows[1][0])
    assert panel.comparison.candidates[1].command in panel.plain()
    panel.use_button.click()
    assert [engine.key for engine in heard] == [stocked.key]
    assert panel.engine == heard[0]
    assert panel._error_text == ""


def test_a_click_in_the_chart_chooses_its_point(measured: Measured) -> None:
    panel = ComparePanel()
    record = trade_off_record(panel.comparison, "e2e.p50", THROUGHPUT)
    (points,) = [trace for trace in record["data"] if trace["mode"] == "markers+text"]
    second = panel.comparison.candidates[1]
    clicked = points["ids"][points["text"].index(str(second.number))]
    panel.points._handle_custom_msg({"kind": "choose", "id": clicked}, [])
    assert "Point 2" in panel._title.value
    assert second.command in panel.plain()
    # What is no point changes nothing.
    panel.points._handle_custom_msg({"kind": "choose", "id": "other"}, [])
    panel.points._handle_custom_msg({"kind": "choose", "id": 3}, [])
    assert "Point 2" in panel._title.value


def test_an_engine_is_handed_over_with_the_limits_that_were_measured(
    measured: Measured, stocked: Engine
) -> None:
    trial = like(measured[0], spec__max_batch_size=1)
    panel = ComparePanel()
    panel.choose(trial.id)
    panel.use()
    assert panel.engine is not None
    assert stocked.limits["max_batch_size"] == 2
    assert panel.engine.limits["max_batch_size"] == 1


def test_an_engine_that_is_gone_is_a_sentence(measured: Measured) -> None:
    panel = ComparePanel()
    panel.choose(panel.table.rows[0][0])
    panel.use()
    assert panel.engine is None
    assert "engine" in panel._error_text


def test_the_panel_filters_prices_and_compares(measured: Measured) -> None:
    panel = ComparePanel(price=2.0)
    assert [row[-1] != "" for row in panel.table.rows] == [True, True]
    panel.price.value = "much"
    assert "must be a number of dollars; got 'much'" in panel._error_text
    panel.price.value = ""
    assert panel._error_text == ""
    assert [row[-1] for row in panel.table.rows] == ["", ""]
    panel.choose(panel.table.rows[0][0])
    panel.baseline_button.click()
    assert panel.table.rows[0][1] == "1 baseline"
    assert "%)" in panel.table.rows[1][3] or "(x" in panel.table.rows[1][3]
    panel.baseline_button.click()
    assert panel.table.rows[0][1] == "1"
    panel.filter.value = "concurrency=2"
    assert [row[2] for row in panel.table.rows] == ["concurrency=2"]
    panel.filter.value = "nothing has this"
    assert panel.plain() == "No trial is like that."


def test_the_chart_follows_the_axes_and_stays_while_nothing_changes(measured: Measured) -> None:
    panel = ComparePanel()
    (before,) = panel.chart.outputs
    panel.refresh()
    assert panel.chart.outputs == (before,)
    panel.x.value = "ttft.p99"
    (after,) = panel.chart.outputs
    assert "TTFT p99" in after["data"]["text/plain"]
    assert panel.engines.layout.display == "none"
    panel.engines_button.value = True
    assert panel.engines.layout.display == ""
    with pytest.raises(InputError, match="There is no axis 'speed'"):
        ComparePanel(x="speed")


def test_a_trial_that_comes_meanwhile_appears_while_the_panel_is_seen(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.widgets.lists.TICK", 0.01)
    panel = ComparePanel()
    panel.table.shown = True
    like(measured[0], workload__concurrency=9)
    until(lambda: len(panel.table.rows) == 3)
    panel.table.shown = False


def test_the_static_view_shows_what_comes_from_elsewhere_as_text(hostile: Trial) -> None:
    panel = ComparePanel()
    panel.choose(hostile.id)
    shown = [panel.static(), panel._title.value, panel._command.value, panel._notes.value]
    assert all("<img" not in text and "<script" not in text for text in shown)
    assert "img src=x" in panel._title.value
