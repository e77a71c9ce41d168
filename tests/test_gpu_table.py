"""The GPUs that can be planned for: their numbers agree with each other and with the rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.backends import make_spec
from workbench.backends.trtllm_rules import findings
from workbench.backends.trtllm_spec import TensorRtLlmSpec
from workbench.build import Plan
from workbench.errors import InputError
from workbench.gpu_table import GPUS, PRECISIONS, GpuModel, find
from workbench.gpus import Gpu
from workbench.model import Model
from workbench.units import format_bytes

DEMO = Model.read(Path(__file__).parents[1] / "workbench" / "demo_model")
GIB = 1 << 30

each = pytest.mark.parametrize("gpu", GPUS, ids=lambda gpu: gpu.name)

SINCE = {"tf32": 80, "bfloat16": 80, "fp8": 89, "nvfp4": 100}
"""First compute capability whose tensor cores have a precision (CUDA C++ Programming Guide)."""


def _ratio(gpu: GpuModel, precision: str, to: str) -> float:
    return gpu.throughput[precision] / gpu.throughput[to]


@each
def test_each_halving_of_the_bits_doubles_the_throughput(gpu: GpuModel) -> None:
    if "tf32" in gpu.throughput:
        assert _ratio(gpu, "float16", "tf32") == pytest.approx(2, rel=0.02)
    if "bfloat16" in gpu.throughput:
        assert _ratio(gpu, "bfloat16", "float16") == 1
    if "fp8" in gpu.throughput:
        assert _ratio(gpu, "fp8", "float16") == pytest.approx(2, rel=0.015)


@each
def test_the_exceptions_are_those_of_the_architecture(gpu: GpuModel) -> None:
    """Sums in float32 halve all floats of GeForce, but not int8; Blackwell Ultra gave int8 up."""
    if gpu.name.startswith("RTX ") and "PRO" not in gpu.name:
        expected = 4.0
    elif gpu.compute_capability == (10, 3):
        expected = 0.067
    else:
        expected = 2.0
    if "int8" in gpu.throughput:
        assert _ratio(gpu, "int8", "float16") == pytest.approx(expected, rel=0.025)
    if "nvfp4" in gpu.throughput:
        ultra_or_geforce = {(10, 3): 3, (12, 0): 4 if expected == 4 else 2}
        fp4 = ultra_or_geforce.get(gpu.compute_capability, 2)
        assert _ratio(gpu, "nvfp4", "fp8") == pytest.approx(fp4, rel=0.04)


@each
def test_a_precision_is_there_from_the_generation_on_that_brought_it(gpu: GpuModel) -> None:
    sm = gpu.as_gpu().sm
    for precision, first in SINCE.items():
        assert (precision in gpu.throughput) == (sm >= first)
    assert set(gpu.throughput) <= set(PRECISIONS)


@pytest.mark.parametrize("gpu", [gpu for gpu in GPUS if gpu.compute_capability >= (8, 0)])
@pytest.mark.parametrize("quantization", ["fp8", "nvfp4"])
def test_the_rules_refuse_exactly_what_the_table_lacks(gpu: GpuModel, quantization: str) -> None:
    spec = TensorRtLlmSpec.parse({"quantization": quantization})
    found = findings(spec, DEMO, [gpu.as_gpu()])
    refused = any(
        finding.level == "refuse" and "does not compute" in finding.reason for finding in found
    )
    assert refused == (quantization not in gpu.throughput)


CHIPS = {
    "V100 SXM2 16GB": (80, 1530, 1024),
    "V100 SXM2 32GB": (80, 1530, 1024),
    "T4": (40, 1590, 1024),
    "A10": (72, 1695, 1024),
    "A30": (56, 1440, 2048),
    "A40": (84, 1740, 1024),
    "A100 PCIe 40GB": (108, 1410, 2048),
    "A100 SXM 40GB": (108, 1410, 2048),
    "A100 PCIe 80GB": (108, 1410, 2048),
    "A100 SXM 80GB": (108, 1410, 2048),
    "L4": (58, 2040, 1024),
    "L40": (142, 2490, 512),
    "L40S": (142, 2490, 1024),
    "H100 PCIe 80GB": (114, 1620, 4096),
    "H100 SXM 80GB": (132, 1830, 4096),
    "H200 SXM 141GB": (132, 1830, 4096),
    "B200 SXM 180GB": (148, 1860, 8192),
    "RTX PRO 6000 Blackwell": (188, 2617, 1024),
    "RTX 3090": (82, 1695, 512),
    "RTX 4060 Ti 16GB": (34, 2535, 512),
    "RTX 4070": (46, 2475, 512),
    "RTX 4090": (128, 2520, 512),
    "RTX 5070 Ti": (70, 2452, 512),
    "RTX 5080": (84, 2617, 512),
    "RTX 5090": (170, 2407, 512),
}
"""Multiprocessors, MHz of tensor cores at boost, and dense float16 operations a clock of each
multiprocessor with sums in float32, from NVIDIA's architecture white papers. A sparse number would
come out twice as high."""


@pytest.mark.parametrize("name", CHIPS)
def test_throughput_is_what_the_chip_can_do_without_sparsity(name: str) -> None:
    multiprocessors, megahertz, operations = CHIPS[name]
    peak = multiprocessors * megahertz * 1e6 * operations
    assert find(name).throughput["float16"] == pytest.approx(peak, rel=0.01)


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [("A100 SXM 80GB", 312), ("H100 SXM 80GB", 989.4), ("L4", 121), ("RTX 4090", 165.2)],
)
def test_numbers_are_of_dense_matrices(name: str, teraflops: float) -> None:
    assert find(name).throughput["bfloat16"] == pytest.approx(teraflops * 1e12)


@each
def test_what_a_gpu_shows_is_a_little_less_than_its_nominal_size(gpu: GpuModel) -> None:
    nominal = gpu.name.rpartition(" ")[2]
    if nominal.endswith("GB"):
        assert 0.9 * int(nominal[:-2]) <= gpu.memory_bytes / GIB <= int(nominal[:-2])
    assert gpu.memory_bytes % (1 << 20) == 0
    # Within a factor of ten of each other, whatever the unit that somebody mistook.
    assert 10 < gpu.bandwidth / gpu.memory_bytes < 70


def test_names_are_unique_and_sourced() -> None:
    assert len({gpu.name for gpu in GPUS}) == len(GPUS) >= 25
    assert all(len(gpu.source) > 10 for gpu in GPUS)


@pytest.mark.parametrize("spelling", ["NVIDIA GeForce RTX 4090", "rtx4090", "RTX-4090", "rtx 4090"])
def test_a_gpu_is_found_however_it_is_spelled(spelling: str) -> None:
    assert find(spelling).name == "RTX 4090"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("RTX 4091", "Did you mean 'RTX 4090'"),
        ("H100", r"several GPUs H100: H100 PCIe 80GB, H100 SXM 80GB, H100 NVL 94GB\. Name one"),
        ("", "The table has no GPU ''"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest(name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        find(name)


def test_a_planned_gpu_is_empty_and_no_piece_of_hardware() -> None:
    gpu = find("H200 SXM 141GB").as_gpu(3)
    assert gpu == Gpu(3, "H200 SXM 141GB", (9, 0), 143771 << 20, 143771 << 20, "planned-3")


def test_a_plan_with_too_few_gpus_does_not_speak_of_this_machine() -> None:
    spec = make_spec({"backend": "tensorrt_llm", "tp_size": 2})
    plan = Plan.make(spec, gpus=(find("L4").as_gpu(),))
    [finding] = [finding for finding in plan.findings if finding.field == "tp_size"]
    assert "needs 2 GPUs to run, and the plan has 1" in finding.reason


def test_a_plan_for_another_gpu_speaks_of_that_gpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> tuple[Gpu, ...]:
        pytest.fail("this machine's GPUs are none of its business")

    # This machine is full; that says nothing of the one that is planned for.
    monkeypatch.setattr("workbench.guard.free_disk", lambda _: 0)
    monkeypatch.setattr("workbench.guard.memory", lambda: (0, 0))
    spec = make_spec({"backend": "tensorrt_llm", "tp_size": 2})
    gpus = tuple(find("H200 SXM 141GB").as_gpu(index) for index in range(2))
    plan = Plan.make(spec, gpus=gpus, here=refuse)
    assert plan.gpus == gpus
    assert plan.device.name == "H200 SXM 141GB"
    assert plan.room == ()
    assert plan.fit is not None
    assert f"of {format_bytes(143771 << 20)} available" in plan.fit.summary
    assert not any(f.field in ("tp_size", "backend") for f in plan.findings)


def test_what_does_not_fit_on_the_planned_gpu_is_told() -> None:
    spec = make_spec({"backend": "tensorrt_llm"})
    tiny = Gpu(0, "a small one", (9, 0), 1 << 20, 1 << 20, "planned-0")
    plan = Plan.make(spec, gpus=[tiny])
    assert any("on a small one" in finding.reason for finding in plan.room)
    assert any("a session will not fit" in finding.reason for finding in plan.findings)


def test_a_backend_for_processors_ignores_planned_gpus() -> None:
    spec = make_spec({"backend": "openvino"})
    plan = Plan.make(spec, gpus=(find("L4").as_gpu(),))
    assert plan.gpus == ()
    assert plan.device.kind == "cpu"
    assert plan.room == Plan.make(spec).room
