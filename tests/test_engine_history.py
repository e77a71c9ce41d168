"""What past builds logged of weights and activations corrects the fit of a session on a GPU."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.test_trtllm_memory import GPU, LLAMA_31
from workbench import engine_history, files
from workbench.backends import get_backend, make_spec
from workbench.backends.tensorrt_llm import fit
from workbench.build import Plan
from workbench.correction import MARGIN
from workbench.engine import Engine
from workbench.fit import Correct, Fit
from workbench.gpu_table import find
from workbench.history import ELSEWHERE
from workbench.session_history import expected_fit
from workbench.spec import BuildSpec
from workbench.whatif import what_if

FP8 = {"backend": "tensorrt_llm", "quantization": "fp8", "max_batch_size": 64}


def _spec(**values: Any) -> BuildSpec:
    return make_spec({**FP8, **values})


def _record(engine: Engine, *ratios: float, device: str = GPU.name, **values: Any) -> None:
    """Record builds whose weights and activations were these parts of the most predicted."""
    spec = _spec(**values)
    before = fit(spec, LLAMA_31, GPU)
    for ratio in ratios:
        facts = {
            "weights_bytes": int(ratio * before.weights.high),
            "activation_bytes": int(ratio / 2 * before.activations.high),
        }
        engine_history.record(engine, spec, LLAMA_31, facts, device)


def _expected(**values: Any) -> Fit:
    return expected_fit(_spec(**values), LLAMA_31, GPU)


def test_without_builds_it_is_the_arithmetic(home: Any) -> None:
    assert _expected() == fit(_spec(), LLAMA_31, GPU)


def test_three_builds_narrow_weights_and_activations_and_that_is_said(stocked: Engine) -> None:
    before = _expected()
    _record(stocked, 0.9, 0.92, 0.94)
    after = _expected()
    assert after.weights.high == pytest.approx(before.weights.high * 0.94 * MARGIN, rel=1e-6)
    assert after.weights.low == pytest.approx(before.weights.high * 0.9 / MARGIN, rel=1e-6)
    assert after.activations.high == pytest.approx(
        before.activations.high * 0.47 * MARGIN, rel=1e-6
    )
    for part in (after.weights, after.activations):
        assert part.basis.startswith("measured on 3 builds like this, which took")
    assert after.runtime == before.runtime
    assert after.ranks[0].parts == after.parts


def test_the_kv_cache_takes_what_is_left_then(stocked: Engine) -> None:
    before = _expected()
    _record(stocked, 0.8, 0.8, 0.8)
    after = _expected()
    saved = sum(
        then.high - now.high
        for then, now in zip(before.parts, after.parts, strict=True)
        if then.name != "KV cache"
    )
    assert saved > 0
    assert after.kv_cache.high == pytest.approx(before.kv_cache.high + 0.9 * saved, abs=2)
    assert after.kv_tokens > before.kv_tokens


def test_one_build_only_widens(stocked: Engine) -> None:
    before = _expected()
    _record(stocked, 0.9)
    after = _expected()
    assert after.weights.low <= before.weights.low
    assert after.weights.high == before.weights.high
    assert after.weights.basis.startswith("estimate; 1 build like this took 90% of the most")


def test_every_stage_of_a_pipeline_is_corrected(stocked: Engine) -> None:
    before = _expected(pp_size=2)
    _record(stocked, 0.5, 0.5, 0.5, pp_size=2)
    after = _expected(pp_size=2)
    for then, now in zip(before.ranks, after.ranks, strict=True):
        assert now.parts[0].high == pytest.approx(then.parts[0].high * 0.5 * MARGIN, rel=1e-6)


@pytest.mark.parametrize(("ratio", "exact"), [(1.0, True), (0.996, True), (1.2, False)])
def test_what_was_counted_stays_exact_where_builds_confirm_it(
    stocked: Engine, ratio: float, exact: bool
) -> None:
    _record(stocked, ratio, ratio, ratio, quantization="none")
    before, after = fit(_spec(quantization="none"), LLAMA_31, GPU), _expected(quantization="none")
    assert before.weights.exact
    assert after.weights.exact == exact
    assert (after.weights.high == before.weights.high) == exact
    assert "measured on 3 builds like this" in after.weights.basis


@pytest.mark.parametrize(
    "values", [{"quantization": "int8_wo"}, {"dtype": "float16"}], ids=["precision", "dtype"]
)
def test_builds_of_another_precision_say_nothing(stocked: Engine, values: dict[str, str]) -> None:
    _record(stocked, 0.5, 0.5, 0.5, **values)
    assert _expected() == fit(_spec(), LLAMA_31, GPU)


def test_those_of_another_size_say_nothing_and_those_on_another_gpu_say_so(
    stocked: Engine,
) -> None:
    _record(stocked, 0.9, device="NVIDIA L40S")
    assert f"1 build like this{ELSEWHERE}" in _expected().weights.basis
    small = replace(LLAMA_31, tensors=LLAMA_31.tensors[:40])
    assert expected_fit(_spec(), small, GPU) == fit(_spec(), small, GPU)


@pytest.mark.parametrize(
    "facts",
    [{}, {"weights_bytes": 5}, {"weights_bytes": 0, "activation_bytes": 0}],
)
def test_a_log_that_does_not_tell_corrects_nothing(stocked: Engine, facts: dict[str, int]) -> None:
    engine_history.record(stocked, _spec(), LLAMA_31, facts, GPU.name)
    assert _expected() == fit(_spec(), LLAMA_31, GPU)


@pytest.mark.parametrize(
    "values", [{"predicted": {}}, {"predicted": None}, {"measured": 7}, {"parameters": []}]
)
def test_a_line_that_is_no_record_is_passed_over(stocked: Engine, values: dict[str, Any]) -> None:
    _record(stocked, 0.5)
    path = files.home() / "history" / "tensorrt_llm-fp8-engines.jsonl"
    (line,) = files.read_lines(path)[0]
    path.unlink()
    files.append_line(path, {**line, **values})
    assert _expected() == fit(_spec(), LLAMA_31, GPU)


def test_backends_whose_builds_log_nothing_record_nothing(stocked: Engine) -> None:
    facts = {"weights_bytes": 5, "activation_bytes": 5}
    engine_history.record(stocked, make_spec({}), LLAMA_31, facts, GPU.name)
    assert not list((files.home() / "history").glob("*-engines.jsonl"))
    assert get_backend("tensorrt_llm").corrected_fit


def test_a_curve_looks_at_the_history_once_and_is_corrected_by_it(
    stocked: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    _record(stocked, 0.5, 0.5, 0.5)
    plan = Plan.make(_spec(), gpus=[find("H200").as_gpu()], model=LLAMA_31)
    looked, read = [], engine_history.correction

    def look(*values: Any) -> Correct:
        looked.append(values)
        return read(*values)

    monkeypatch.setattr(engine_history, "correction", look)
    curve = what_if(plan, "max_batch_size")
    assert curve is not None
    assert len(looked) == 1
    assert len(curve.fits) > 5
    specs = (plan.spec.replace(max_batch_size=value) for value in curve.values)
    assert list(curve.fits) == [expected_fit(spec, LLAMA_31, plan.device) for spec in specs]
    assert all("measured on 3 builds" in fit.activations.basis for fit in curve.fits)
