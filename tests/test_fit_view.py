"""The fit view says what the arithmetic says: on each rank, now and with other limits."""

from __future__ import annotations

import html
import json
from dataclasses import replace
from typing import Any

import plotly.graph_objects as go
import pytest

from tests.test_trtllm_memory import decoder
from workbench import build
from workbench.backends import make_spec
from workbench.build import Plan
from workbench.fit import BuildNeed, Part
from workbench.fit_plots import GIB, MIB, bars_of, fit_record, what_if_record
from workbench.hardware import Device
from workbench.plots import MEDIA_TYPE
from workbench.summaries import fit_lines
from workbench.whatif import LIMITS, curve_line, what_if, what_if_curves
from workbench.widgets.fit import FitView

H100 = Device("NVIDIA H100 80GB HBM3", "gpu", 80 * GIB, 78 * GIB, 0, 0)
LLAMA_70B = decoder("llama-70b", (80, 8192, 64, 8, 128, 28672, 128256, 131072))


def embedded(**values: Any) -> Plan:
    return Plan.make(make_spec({"backend": "openvino", "model": "demo", **values}))


def large(device: Device = H100, **values: Any) -> Plan:
    """A plan of a 70B model, whose headers the demo's stand in for while the plan is made."""
    given = {"quantization": "fp8", "max_batch_size": 64, "max_seq_len": 4096, **values}
    spec = make_spec({"backend": "tensorrt_llm", "model": "demo", **given})
    plan = Plan.make(spec)
    fit, need = plan.backend.fit(spec, LLAMA_70B, device), plan.backend.need(spec, LLAMA_70B)
    return replace(plan, model=LLAMA_70B, device=device, fit=fit, need=need)


def ends(record: dict[str, Any]) -> dict[str, list[float]]:
    return {trace["name"]: trace["x"] for trace in record["data"]}


def test_a_bar_is_solid_up_to_the_low_end_and_hatched_up_to_the_high_one() -> None:
    fit = embedded().fit
    assert fit is not None
    sizes = ends(fit_record(fit))
    assert sizes["weights"] == [fit.weights.low / MIB]
    assert sizes["weights, up to"] == [(fit.weights.high - fit.weights.low) / MIB]
    assert sizes["KV cache (exact)"] == [fit.kv_cache.low / MIB]
    assert "KV cache, up to" not in sizes
    hatched = [t for t in fit_record(fit)["data"] if "pattern" in t["marker"]]
    assert [t["name"] for t in hatched] == [
        "weights, up to",
        "activations, up to",
        "runtime, up to",
    ]


def test_the_bar_ends_where_the_memory_of_the_device_does() -> None:
    plan = large()
    assert plan.fit is not None
    record = fit_record(plan.fit)
    assert sum(x for (x,) in ends(record).values()) == pytest.approx(80)
    assert record["layout"]["shapes"][0]["x0"] == 80
    assert ends(record)["in use by others"] == [2]


def test_without_a_device_there_is_neither_a_line_nor_free_memory() -> None:
    fit = large(Device("no NVIDIA GPU", "gpu", 0, 0, 0, 0)).fit
    assert fit is not None
    record = fit_record(fit)
    assert "shapes" not in record["layout"]
    assert not {"free", "in use by others"} & set(ends(record))


def test_ranks_that_hold_the_same_are_one_bar() -> None:
    fit = large(tp_size=8).fit
    assert fit is not None
    assert [title for title, _ in bars_of(fit)] == ["ranks 0-7"]


def test_each_stage_of_an_uneven_pipeline_has_a_bar_of_its_own() -> None:
    fit = large(tp_size=4, pp_size=3).fit
    assert fit is not None
    bars = dict(bars_of(fit))
    assert list(bars) == ["ranks 0-3", "ranks 4-7", "ranks 8-11"]
    first, middle, last = bars.values()
    # 27, 27 and 26 layers; the embedding is on the first stage, the output layer on the last.
    assert first.parts[0].high > last.parts[0].high > middle.parts[0].high
    assert first.parts[1].low == middle.parts[1].low == last.parts[1].low * 27 // 26
    assert fit.weights == first.parts[0]


def test_each_gpu_of_another_size_has_a_bar_with_its_own_memory() -> None:
    small = Device("NVIDIA L40S", "gpu", 48 * GIB, 47 * GIB, 0, 0)
    fit = large(replace(H100, each=(H100, H100, small, small)), tp_size=4).fit
    assert fit is not None
    assert fit.device == small
    assert [title for title, _ in bars_of(fit)] == ["ranks 0-1", "ranks 2-3"]
    record = fit_record(fit)
    assert [sum(sizes) for sizes in zip(*ends(record).values(), strict=True)] == pytest.approx(
        [80, 48]
    )
    assert "shapes" not in record["layout"]
    assert "NVIDIA H100 80GB HBM3, NVIDIA L40S" in record["layout"]["title"]["text"]
    lines = "\n".join(fit_lines(fit))
    assert "ranks 2-3 on NVIDIA L40S, 47.0 GiB available: weights" in lines


def test_the_weights_of_all_ranks_are_those_of_the_model() -> None:
    whole, spread = large(quantization="none").fit, large(quantization="none", pp_size=5).fit
    assert whole is not None
    assert spread is not None
    rotation = 4 * 131072 * 128
    total = sum((r.last - r.first + 1) * r.parts[0].low for r in spread.ranks)
    assert total == whole.weights.low + 4 * rotation


def test_a_curve_goes_through_what_the_plan_says() -> None:
    for plan in (embedded(), large(), large(pp_size=3)):
        curves = what_if_curves(plan)
        assert [curve.parameter for curve in curves] == list(LIMITS)
        for curve in curves:
            assert dict(zip(curve.values, curve.fits, strict=True))[curve.current] == plan.fit


@pytest.mark.parametrize("limit", ["max_batch_size", "max_seq_len"])
def test_more_of_a_limit_takes_more(limit: str) -> None:
    curve = what_if(embedded(), limit)
    assert curve is not None
    totals = [fit.total_low for fit in curve.fits]
    assert totals == sorted(totals)
    assert totals[-1] > totals[0]


def test_a_curve_keeps_to_the_context_of_the_model() -> None:
    curve = what_if(large(max_seq_len=65536), "max_seq_len")
    assert curve is not None
    assert curve.values[-1] == 131072


def test_the_largest_value_is_the_last_that_is_sure_to_fit() -> None:
    curve = what_if(embedded(max_batch_size=16, max_seq_len=2048), "max_batch_size")
    assert curve is not None
    # With this memory, the fourth value may fit or not.
    fourth = curve.fits[3]
    memory = (fourth.total_low + fourth.total_high) // 2
    device = replace(fourth.device, memory_bytes=2 * memory, memory_available=memory)
    tight = replace(curve, fits=tuple(replace(fit, device=device) for fit in curve.fits))
    assert tight.fits[3].verdict == "tight"
    assert tight.largest == curve.values[2]


def test_plotly_knows_every_property_of_the_figures() -> None:
    for plan in (embedded(), large(tp_size=4, pp_size=3)):
        assert plan.fit is not None
        assert go.Figure(fit_record(plan.fit)).data
        assert go.Figure(what_if_record(what_if_curves(plan))).data


def test_curves_are_drawn_only_when_somebody_wants_them() -> None:
    view = FitView()
    view.show(embedded())
    assert view._bar.outputs[0]["data"][MEDIA_TYPE]["data"]
    assert not view._curves.outputs
    view.what_if.value = True
    assert view._curves.outputs[0]["data"][MEDIA_TYPE]["data"]


def test_where_nothing_is_known_nothing_is_shown() -> None:
    view = FitView()
    view.show(embedded())
    view.show(replace(embedded(), fit=None))
    assert view.layout.display == "none"
    assert view.plain(None) == []


def test_the_plain_text_has_the_same_facts() -> None:
    plan = large(tp_size=4, pp_size=3)
    assert plan.fit is not None
    lines = "\n".join(FitView().plain(plan))
    assert plan.fit.summary in lines
    assert "ranks 8-11: weights " in lines
    assert "The build needs:" in lines
    assert "max_num_tokens 8,192: " in lines


def test_exact_numbers_and_estimates_can_be_told_apart() -> None:
    view = FitView()
    plan = embedded()
    view.show(plan)
    assert view._facts.value.count("exact") == 1
    assert view._facts.value.count("estimate") == 5
    assert "KV cache     16.0 MiB (exact)" in view.plain(plan)


def test_how_each_number_was_got_opens_without_a_mouse() -> None:
    view = FitView()
    plan = embedded()
    view.show(plan)
    need = plan.expected_need
    assert plan.fit is not None
    assert need is not None
    closed, _, opened = view._how.value.partition("</summary>")
    assert closed.startswith("<details><summary")
    for part in (*plan.fit.parts, need.memory, need.disk):
        assert f"<td>{part.name}</td><td>{html.escape(part.how)}</td>" in opened


def test_what_past_builds_took_is_said_beside_the_need(monkeypatch: pytest.MonkeyPatch) -> None:
    def corrected(need: BuildNeed, *_: Any) -> BuildNeed:
        return replace(need, memory=replace(need.memory, measured="measured on 7 <b>builds</b>"))

    monkeypatch.setattr(build, "corrected_need", corrected)
    view = FitView()
    view.show(embedded())
    assert "measured on 7 &lt;b&gt;builds&lt;/b&gt;" in view._facts.value


def test_a_text_from_elsewhere_is_no_markup() -> None:
    plan = embedded()
    assert plan.fit is not None
    device = replace(plan.device, name="<img src=x>")
    part = Part("weights", 1, 2, exact=False, how='"><script>')
    fit = replace(plan.fit, device=device, weights=part)
    view = FitView()
    view.show(replace(plan, device=device, fit=fit))
    assert "<script>" not in view._facts.value + view._how.value
    assert "<img" not in json.dumps(view._bar.outputs)


def test_a_line_says_how_far_a_limit_may_go() -> None:
    curve = what_if(large(), "max_batch_size")
    assert curve is not None
    assert curve_line(curve) == "max_batch_size 64: all values up to 1,024 fit."
    tiny = what_if(large(Device("small", "gpu", GIB, GIB, 0, 0)), "max_batch_size")
    assert tiny is not None
    assert curve_line(tiny) == "max_batch_size 64: no value from 1 on is sure to fit."


def test_what_is_small_beside_the_device_is_drawn_large() -> None:
    fit = embedded().fit
    assert fit is not None
    fit = replace(fit, device=replace(fit.device, memory_bytes=64 * GIB, memory_available=60 * GIB))
    record = fit_record(fit)
    assert "shapes" not in record["layout"]
    assert "needed of 60.0 GiB available (MiB)" in record["layout"]["title"]["text"]


def test_what_goes_to_the_browser_at_a_change_is_small() -> None:
    view = FitView()
    view.what_if.value = True
    view.show(large(tp_size=4, pp_size=4))
    state = json.dumps([view._bar.outputs, view._curves.outputs, view._facts.value])
    assert len(state) < 40_000
