"""Past sessions correct what the next one is expected to take, and only what they can tell of."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import DEMO
from workbench import files, session_history
from workbench.backends import get_backend, make_spec
from workbench.build import DEMO_MODEL, Plan
from workbench.correction import MARGIN
from workbench.engine import Engine
from workbench.fit import Fit
from workbench.hardware import Device
from workbench.history import ELSEWHERE
from workbench.model import Model
from workbench.opening import open_engine
from workbench.session_history import expected_fit
from workbench.session_peak import SessionPeak
from workbench.whatif import what_if

GIB = 1 << 30
MACHINE = Device("Intel Xeon", "cpu", 64 * GIB, 32 * GIB, 8, 8)
FIRST = Path(__file__).parent / "fixtures" / "state" / "openvino-none-sessions.jsonl"
"""The line of a real session of the demo model, as the first version wrote it."""


@pytest.fixture(scope="module")
def model() -> Model:
    return Model.read(DEMO_MODEL)


def _fit(model: Model, **values: Any) -> Fit:
    return expected_fit(make_spec(DEMO | values), model, MACHINE)


def _plain(model: Model) -> Fit:
    return get_backend("openvino").fit(make_spec(DEMO), model, MACHINE)


def _write(model: Model, *rests: float, **values: Any) -> None:
    """Write sessions whose weights and runtime took a part of the most, beside a full cache."""
    fit = _plain(model)
    predicted = {part.name: [part.low, part.high] for part in (fit.weights, fit.runtime)}
    expected = fit.weights.high + fit.runtime.high
    for rest in rests:
        line = {
            "parameters": model.parameters,
            "dtype": "float32",
            "device": MACHINE.name,
            "peak_memory_bytes": int(rest * expected) + fit.kv_cache.low,
            "most_tokens": fit.kv_tokens,
            "all_tokens": fit.kv_tokens,
            "kv_tokens": fit.kv_tokens,
            "kv_cache_bytes": fit.kv_cache.low,
            "predicted": predicted,
            **values,
        }
        files.append_line(_history(), line)


def _history() -> Path:
    folder = files.make_folder(files.home() / "history")
    return folder / "openvino-none-sessions.jsonl"


def _lines() -> list[dict[str, Any]]:
    return files.read_lines(_history())[0] if _history().exists() else []


def test_without_sessions_it_is_the_arithmetic(model: Model) -> None:
    assert _fit(model) == _plain(model)


def test_three_sessions_narrow_weights_and_runtime(model: Model) -> None:
    _write(model, 0.5, 0.6, 0.55)
    fit, before = _fit(model), _plain(model)
    assert fit.weights.high == int(before.weights.high * 0.6 * MARGIN)
    assert fit.runtime.high == pytest.approx(before.runtime.high * 0.6 * MARGIN, rel=1e-6)
    assert (fit.kv_cache, fit.activations) == (before.kv_cache, before.activations)
    assert fit.weights.basis.startswith("measured on 3 sessions like this, which took 50% to 60%")
    assert fit.total_high < before.total_high


def test_the_low_end_is_never_raised(model: Model) -> None:
    _write(model, 1.0, 1.0, 1.0)
    fit, before = _fit(model), _plain(model)
    assert (fit.weights.low, fit.runtime.low) == (before.weights.low, before.runtime.low)


@pytest.mark.parametrize(("rest", "wider"), [(0.5, False), (1.5, True)])
def test_one_session_only_widens(model: Model, rest: float, wider: bool) -> None:
    _write(model, rest)
    fit, before = _fit(model), _plain(model)
    assert fit.weights.low <= before.weights.low
    assert fit.weights.high == (
        int(before.weights.high * 1.5 * MARGIN) if wider else before.weights.high
    )
    assert fit.weights.basis.startswith("estimate; 1 session like this took")


def test_what_may_have_been_the_kv_cache_narrows_little_and_widens_nothing(model: Model) -> None:
    # All that lies above half of the expected may have been tokens that were there one by one.
    before = _plain(model)
    expected = before.weights.high + before.runtime.high
    cache = {"kv_tokens": 1000, "kv_cache_bytes": expected, "most_tokens": 0, "all_tokens": 1000}
    _write(model, *[1.4] * 3, **cache, peak_memory_bytes=int(1.4 * expected))
    assert _fit(model).weights.high == pytest.approx(before.weights.high, rel=1e-6)


def test_a_peak_that_the_kv_cache_does_not_explain_widens(model: Model) -> None:
    before = _plain(model)
    expected = before.weights.high + before.runtime.high
    cache = {"kv_tokens": 1000, "kv_cache_bytes": expected, "most_tokens": 0, "all_tokens": 100}
    _write(model, *[1.0] * 3, **cache, peak_memory_bytes=int(1.4 * expected))
    assert _fit(model).weights.high == pytest.approx(before.weights.high * 1.3 * MARGIN, rel=1e-6)


@pytest.mark.parametrize(
    "values", [{"dtype": "bfloat16"}, {"parameters": 1}, {"parameters": 1 << 40}]
)
def test_other_sessions_say_nothing(model: Model, values: dict[str, Any]) -> None:
    _write(model, 0.5, 0.5, 0.5, **values)
    assert _fit(model) == _plain(model)


def test_those_on_other_devices_count_where_there_are_none_here(model: Model) -> None:
    _write(model, 0.5, 0.5, 0.5, device="AMD EPYC")
    assert f"3 sessions like this{ELSEWHERE}" in _fit(model).weights.basis
    _write(model, 0.8)
    assert _fit(model).weights.basis.startswith("estimate; 1 session like this took 80%")


@pytest.mark.parametrize(
    "values",
    [
        {"predicted": {}},
        {"predicted": {"weights": [1, 0]}},
        {"predicted": None},
        {"peak_memory_bytes": None},
        {"peak_memory_bytes": 0},
        {"kv_tokens": 0},
        {"most_tokens": "many"},
        {"parameters": []},
    ],
)
def test_a_line_that_is_no_record_is_passed_over(model: Model, values: dict[str, Any]) -> None:
    _write(model, 0.5, 0.5, 0.5, **values)
    assert _fit(model) == _plain(model)


def test_a_line_of_the_first_version_counts(model: Model) -> None:
    shutil.copy(FIRST, _history())
    assert "1 session like this" in _fit(model).weights.basis


def test_who_only_plans_writes_nothing(model: Model, home: Path) -> None:
    _fit(model)
    assert not (home / "history").exists()


def test_a_gpu_is_no_host(model: Model) -> None:
    _write(model, 0.5, 0.5, 0.5)
    spec = make_spec({"backend": "tensorrt_llm"})
    gpu = Device("H200", "gpu", 141 * GIB, 141 * GIB, 0, 0)
    assert expected_fit(spec, model, gpu) == get_backend("tensorrt_llm").fit(spec, model, gpu)


def test_plan_and_curves_are_corrected_alike(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.devices.host", lambda: MACHINE)
    _write(model, 0.5, 0.5, 0.5)
    plan = Plan.make(make_spec(DEMO))
    assert plan.fit == _fit(model)
    curve = what_if(plan, "max_num_tokens")
    assert curve is not None
    assert curve.fits[curve.values.index(curve.current)] == plan.fit


# --- real sessions


@pytest.fixture
def generated(stocked: Engine) -> dict[str, Any]:
    """The line that a real session left."""
    with open_engine(stocked) as session:
        streams = [session.generate([5] * 10, max_tokens=30, ignore_eos=True) for _ in range(2)]
        for stream in streams:
            stream.wait()
        memory = session.memory()
        assert _lines() == []
    (line,) = _lines()
    return line | {"memory": memory}


def test_a_session_leaves_its_peak_and_what_was_predicted(generated: dict[str, Any]) -> None:
    assert generated["peak_memory_bytes"] >= 0.95 * generated["memory"]
    # The second may have begun when the first had ended; the last token is in no cache.
    assert 40 <= generated["most_tokens"] <= 80
    assert generated["all_tokens"] == 80
    fit = Plan.make(make_spec(DEMO)).fit
    assert fit is not None
    assert "1 session like this" in fit.runtime.basis
    assert generated["kv_cache_bytes"] == fit.kv_cache.low
    assert set(json.loads(FIRST.read_text())) == set(generated) - {"memory"}


def test_what_says_nothing_of_a_usual_session_leaves_no_line(stocked: Engine) -> None:
    with open_engine(stocked):
        pass
    with open_engine(stocked) as session:
        session.generate([5], max_tokens=2).wait()
        session.score([5, 6, 7])
    assert _lines() == []


def test_without_its_model_nobody_knows_what_was_expected(stocked: Engine) -> None:
    gone = dict(stocked.manifest) | {"model": {**stocked.manifest["model"], "source": "/nowhere"}}
    other = dict(stocked.manifest) | {"model": {**stocked.manifest["model"], "parameters": 1}}
    for manifest in (gone, other, {}):
        engine = replace(stocked, manifest={**manifest, "limits": {}})
        session_history.record(engine, SessionPeak(GIB, 10, 10))
    assert _lines() == []


@pytest.mark.parametrize(("cached", "lines"), [(DEMO_MODEL, 1), (None, 0)])
def test_a_model_of_the_hub_is_looked_up_in_the_cache_alone(
    stocked: Engine, monkeypatch: pytest.MonkeyPatch, cached: Path | None, lines: int
) -> None:
    monkeypatch.setattr(session_history.hub, "cached", lambda *_: cached)
    named = {**stocked.manifest["model"], "source": "owner/name", "revision": None}
    engine = replace(stocked, manifest={**stocked.manifest, "model": named})
    session_history.record(engine, SessionPeak(GIB, 10, 10))
    assert len(_lines()) == lines
