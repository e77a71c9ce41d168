"""Forecasts: what the database is asked, what it answered, and what it is not asked at all.

`fixtures/forecasts.json` holds orders and what the real worker answered to them, with the
distribution that it names; `python -m tests.benchmarks.forecast` asks it the same again.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.test_trtllm_memory import decoder
from workbench import forecast as forecasts
from workbench.backends import make_spec
from workbench.build import Plan
from workbench.errors import InputError, ToolchainError
from workbench.forecast import Forecast, Load, forecast, order_of, system_of
from workbench.hardware import Device
from workbench.toolchain import Toolchain
from workbench.widgets.forecast import ForecastView

FIXTURE = Path(__file__).parent / "fixtures" / "forecasts.json"
RECORDED = json.loads(FIXTURE.read_text())
CASES = RECORDED["cases"]
ANSWERED = [case for case in CASES if case["answer"]["event"] == "forecast"]
REFUSED = [case for case in CASES if case["answer"]["event"] == "error"]
CONFIGS: dict[str, dict[str, Any]] = {
    "meta-llama/Meta-Llama-3.1-8B": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072,
        "torch_dtype": "bfloat16",
    },
    "Qwen/Qwen3-32B": {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 5120,
        "intermediate_size": 25600, "num_hidden_layers": 64, "num_attention_heads": 64,
        "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
        "max_position_embeddings": 40960, "torch_dtype": "bfloat16",
    },
}  # fmt: skip


def _plan(case: dict[str, Any] | None = None, **values: Any) -> Plan:
    case = case or {"config": "Qwen/Qwen3-32B", "gpu": "NVIDIA H200", "parameters": {}}
    given = {"backend": "tensorrt_llm", "model": "demo", **case["parameters"], **values}
    plan = Plan.make(make_spec(given))
    model = decoder(case["config"], (32, 4096, 32, 8, 128, 14336, 128256, 131072))
    model = replace(model, config=CONFIGS[case["config"]])
    return replace(plan, model=model, device=Device(case["gpu"], "gpu", 1, 1, 0, 0))


def _play(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Let the worker answer what was recorded; return the orders that it gets."""
    orders = []

    class Player:
        def __init__(self, *_: Any) -> None: ...

        def send(self, **order: Any) -> None:
            orders.append(order)

        def messages(self) -> Iterator[dict[str, Any]]:
            yield from [answer] if answer else []

        def close(self) -> int:
            return 0 if answer else -9

    monkeypatch.setattr(forecasts, "Worker", Player)
    monkeypatch.setattr(Toolchain, "versions", lambda _, names: dict.fromkeys(names, "0.12.0"))
    return orders


@pytest.mark.parametrize("case", ANSWERED, ids=lambda case: case["gpu"])
def test_what_was_answered_is_what_is_said(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = _play(monkeypatch, case["answer"])
    found = forecast(_plan(case))
    assert [{k: v for k, v in order.items() if k != "config"} for order in orders] == [
        case["order"]
    ]
    assert found.ttft == case["answer"]["ttft_ms"] / 1000
    assert found.itl == case["answer"]["itl_ms"] / 1000
    assert found.version == "1.3.0rc20"


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case["gpu"])
def test_what_the_database_does_not_know_is_refused_in_its_words(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    _play(monkeypatch, case["answer"])
    with pytest.raises(InputError) as refusal:
        forecast(_plan(case))
    assert str(refusal.value) == case["answer"]["message"]
    assert " at /" not in str(refusal.value)


def test_a_forecast_says_that_it_is_one_and_whose() -> None:
    sources = {"silicon": 20, "empirical": 8, "mixed": 1}
    found = Forecast(
        Load(),
        "h200_sxm",
        2,
        0.0351,
        0.00417,
        1862.7,
        "1.3.0rc20",
        "aiconfigurator 0.12.0",
        sources,
    )
    source, asked, speed = found.lines
    assert source == (
        "Predicted, not measured: aiconfigurator 0.12.0, with data of TensorRT-LLM 1.3.0rc20 "
        "(PyTorch backend) on h200_sxm; 20 of 29 operations were timed on that GPU, the others are "
        "modelled."
    )
    assert asked == "Load: 16 requests at a time, 1,024 tokens in and 256 out, 2 GPUs."
    assert speed == "TTFT 35.1 ms   ITL 4.17 ms   1,863 tokens/s per GPU"


@pytest.mark.parametrize(
    ("name", "system"),
    [
        ("NVIDIA H100 80GB HBM3", "h100_sxm"),
        ("NVIDIA H100 PCIe", "h100_pcie"),
        ("NVIDIA H100 NVL", "h100_nvl"),
        ("H100 SXM 80GB", "h100_sxm"),
        ("NVIDIA GB200", "gb200"),
        ("NVIDIA GH200 480GB", "gh200"),
        ("NVIDIA A100-SXM4-80GB", "a100_sxm"),
        ("NVIDIA A100 80GB PCIe", "a100_pcie"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L4", "l4"),
    ],
)
def test_a_gpu_is_never_taken_for_a_relative(name: str, system: str) -> None:
    assert system_of(name) == system


def test_a_gpu_without_a_name_in_the_database_is_refused() -> None:
    with pytest.raises(InputError, match="does not know the GPU 'NVIDIA GeForce RTX 4090'"):
        system_of("NVIDIA GeForce RTX 4090")


def test_a_quantization_without_a_name_in_the_database_is_refused() -> None:
    with pytest.raises(InputError, match="does not know quantization int4_awq; it has none, fp8"):
        order_of(_plan(quantization="int4_awq"), Load())


def test_another_runtime_is_refused() -> None:
    plan = Plan.make(make_spec({"backend": "openvino", "model": "demo"}))
    with pytest.raises(InputError, match="There is no forecast for "):
        forecast(plan)


@pytest.mark.parametrize(
    ("load", "reason"),
    [
        (Load(input_tokens=4000, output_tokens=97), "4097 tokens is longer than max_seq_len, 4096"),
        (Load(concurrency=65), "65 requests at a time are more than max_batch_size, 64"),
        (Load(output_tokens=0), "output_tokens must be at least 1; got 0"),
    ],
)
def test_a_load_beyond_the_limits_is_refused(load: Load, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        order_of(_plan(max_seq_len=4096, max_batch_size=64), load)


def test_without_the_database_the_command_that_gets_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forecasts, "DISTRIBUTIONS", ("no-such-distribution",))
    with pytest.raises(ToolchainError, match=r"Install with: pip install .*\[forecast\]"):
        forecast(_plan())


def test_a_worker_that_dies_is_an_error_of_the_toolchain(monkeypatch: pytest.MonkeyPatch) -> None:
    _play(monkeypatch, None)
    with pytest.raises(ToolchainError, match="was killed"):
        forecast(_plan())


def test_a_worker_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    _play(monkeypatch, None)
    killed = threading.Event()

    class Deaf(forecasts.Worker):
        def messages(self) -> Iterator[dict[str, Any]]:
            assert killed.wait(10)
            yield from ()

        def kill(self) -> None:
            killed.set()

    monkeypatch.setattr(forecasts, "Worker", Deaf)
    monkeypatch.setattr(forecasts, "TIMEOUT", 0.05)
    with pytest.raises(ToolchainError, match=r"had no answer after 0\.05 s and was given up"):
        forecast(_plan())


def test_what_was_predicted_for_another_plan_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    _play(monkeypatch, ANSWERED[0]["answer"])
    view = ForecastView()
    plan = _plan()
    view.show(plan)
    view._answer(plan)
    assert view.plain()[0].startswith("Predicted, not measured: ")
    view.show(_plan(tp_size=2))
    assert view.plain() == []
    view._answer(plan)
    assert view.plain() == []


def test_a_field_that_is_no_number_is_said_in_the_view() -> None:
    view = ForecastView()
    plan = _plan()
    view.show(plan)
    view.fields["concurrency"].value = "<b>"
    view._answer(plan)
    assert view.plain() == [
        "No forecast: concurrency must be a whole number below a billion; got '<b>'."
    ]
    assert "<b>" not in view.answer.value
