"""Predictions beside measurements: made where they can be, kept, and drawn beside their trial."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import pytest

from tests.faults import Faulty
from tests.test_compare import Measured, like, measured
from workbench import predictions
from workbench.axes import AXES, THROUGHPUT, predicted_axis
from workbench.backends import make_spec
from workbench.bench import run_trial
from workbench.compare_plots import hover, trade_off_record
from workbench.comparison import Comparison
from workbench.errors import InputError
from workbench.forecast import Forecast, Load
from workbench.predictions import predicted
from workbench.spec import BuildSpec
from workbench.trial_words import trial_lines
from workbench.workload import Workload

__all__ = ["measured"]

ASKED = Workload(input_len=100, output_len=11, concurrency=4)


@pytest.fixture
def spec() -> BuildSpec:
    return make_spec(backend="tensorrt_llm", model="demo", tp_size=2)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Load]:
    """A database that answers, and what it is asked."""
    loads: list[Load] = []

    def answer(_plan: Any, load: Load) -> Forecast:
        loads.append(load)
        return Forecast(load, "h100_sxm", 2, 0.5, 0.01, 300.0, "1.3.0", "aisim 1.0", {"silicon": 1})

    monkeypatch.setattr(predictions, "forecast", answer)
    monkeypatch.setattr(predictions, "database", lambda: "aisim 1.0")
    monkeypatch.setattr(predictions, "order_of", lambda _plan, load: {"isl": load.input_tokens})
    return loads


def test_a_prediction_is_in_the_units_of_the_summary_and_is_kept(
    spec: BuildSpec, asked: list[Load]
) -> None:
    found = predicted(spec, ASKED)
    assert found == {
        "output_tokens_per_second": 600.0,
        "output_tokens_per_second_per_device": 300.0,
        "ttft": 0.5,
        "itl": 0.01,
        "e2e": pytest.approx(0.6),
        "by": "aisim 1.0, TensorRT-LLM 1.3.0 on h100_sxm",
    }
    assert predicted(spec, ASKED) == found
    assert asked == [Load(100, 11, 4)]
    predicted(spec, Workload(input_len=200))
    assert len(asked) == 2


def test_nothing_is_claimed_where_nothing_is_known(
    spec: BuildSpec, asked: list[Load], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert predicted(make_spec(), ASKED) == {}
    assert predicted(spec, Workload(request_rate=2.0)) == {}
    assert predicted(spec, Workload(prompts="a.txt")) == {}
    monkeypatch.setattr(predictions, "database", lambda: None)
    assert predicted(spec, ASKED) == {}
    assert asked == []


def test_why_there_is_no_prediction_is_recorded(
    spec: BuildSpec, asked: list[Load], monkeypatch: pytest.MonkeyPatch, measured: Measured
) -> None:
    def refuse(*_: Any) -> dict[str, Any]:
        raise InputError("The database does not know the GPU 'Abacus'.")

    monkeypatch.setattr(predictions, "order_of", refuse)
    found = predicted(spec, ASKED)
    assert found == {"lacks": "The database does not know the GPU 'Abacus'."}
    line = "Forecast none: The database does not know the GPU 'Abacus'."
    assert line in trial_lines(like(measured[0], predicted=found))


def test_a_forecast_that_the_system_refuses_fails_no_trial(
    spec: BuildSpec, asked: list[Load], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("workbench.files.write_json", refuse)
    found = predicted(spec, ASKED)
    assert found == {"lacks": "The system refused the forecast: No space left on device."}


def test_a_prediction_is_made_when_it_is_the_turn_of_its_trial(
    faulty: Faulty, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tickets(*_: Any) -> dict[str, Any]:
        return {"lacks": [path.name for path in home.glob("queues/*/*-trial-*.json")]}

    monkeypatch.setattr("workbench.bench.predicted", tickets)
    trial = run_trial(faulty.spec(), {"input_len": 1, "output_len": 2, "requests": 1, "warmup": 0})
    assert trial.status == "done"
    assert len(trial.record["predicted"]["lacks"]) == 1


def test_a_figure_is_predicted_as_its_mean_and_its_median() -> None:
    pairs = {name: axis and axis.name for name in AXES if (axis := predicted_axis(AXES[name]))}
    assert pairs == {
        THROUGHPUT: f"predicted.{THROUGHPUT}",
        f"{THROUGHPUT}_per_device": f"predicted.{THROUGHPUT}_per_device",
        **{f"{name}.{part}": f"predicted.{name}"
           for name in ("ttft", "itl", "e2e") for part in ("p50", "mean")},
        **{f"tpot.{part}": "predicted.itl" for part in ("p50", "mean")},
    }  # fmt: skip


def test_a_dotted_line_leads_from_what_was_measured_to_what_was_predicted(
    spec: BuildSpec, asked: list[Load], measured: Measured
) -> None:
    trial = like(measured[0], predicted=predicted(spec, ASKED))
    assert "Forecast 600 tokens/s, TTFT 500 ms, ITL 10 ms" in "\n".join(trial_lines(trial))
    comparison = Comparison.make()
    record = trade_off_record(comparison, "ttft.p50", THROUGHPUT)
    (line,) = [trace for trace in record["data"] if trace["name"] == "predicted, not measured"]
    (candidate,) = [c for c in comparison.candidates if c.newest.id == trial.id]
    x, y = (comparison.figure(candidate, AXES[name]) for name in ("ttft.p50", THROUGHPUT))
    assert x is not None
    assert y is not None
    assert line["x"] == [1000 * x.median, 500.0, None]
    assert line["y"] == [y.median, 600.0, None]
    assert "Predicted throughput 600 tokens/s" in hover(comparison, candidate)
    # Nothing predicts a p99.
    record = trade_off_record(comparison, "e2e.p99", THROUGHPUT)
    assert "predicted, not measured" not in {trace["name"] for trace in record["data"]}
    assert json.loads(json.dumps(record)) == record
