"""Rules on GPUs: how many there are, and what their generation computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from workbench.backends.trtllm_conversion import STORED
from workbench.backends.trtllm_session_rules import UNRUN
from workbench.backends.trtllm_spec import TensorRtLlmSpec
from workbench.model import Model
from workbench.rules import Finding

if TYPE_CHECKING:
    from workbench.gpus import Gpu

_MATRIX = "TensorRT-LLM docs features/quantization.md, hardware support matrix"
_BUILDER = "tensorrt_llm builder.py"

UNSUPPORTED_ON_SM100 = (
    "gemm_swiglu_plugin",
    "fp8_rowwise_gemm_plugin",
    "low_latency_gemm_plugin",
    "low_latency_gemm_swiglu_plugin",
    "bert_context_fmha_fp32_acc",
)
"""Flags that tensorrt_llm plugin/plugin.py refuses there."""


def gpu_rules(spec: TensorRtLlmSpec, model: Model | None, gpus: Sequence[Gpu]) -> Iterator[Finding]:
    """Apply the rules that need the GPUs of this machine."""
    yield from _count_rules(spec, gpus)
    # The oldest of those that the ranks would run on decides.
    gpu = min(gpus[: spec.world_size], key=lambda one: one.sm)
    if gpu.sm < 80:
        yield Finding(
            "refuse",
            "backend",
            f"{gpu.name} is of a generation before Ampere (sm{gpu.sm}), which TensorRT-LLM does "
            "not support.",
            "Use a GPU of compute capability 8.0 or later, or another backend.",
            (),
            "TensorRT-LLM docs legacy/reference/support-matrix.md",
        )
        return
    yield from _quantization_rules(spec, gpu)
    if model and model.quantized_with in STORED:
        yield from _stored_rules(model, gpu)
    if gpu.sm == 100:
        for field in UNSUPPORTED_ON_SM100:
            if getattr(spec, field) != "disable":
                yield Finding(
                    "refuse",
                    field,
                    f"it does not exist for {gpu.name} (sm100).",
                    "Disable it.",
                    ((field, "disable"),),
                    "tensorrt_llm plugin/plugin.py PluginConfig.validate",
                )
    elif gpu.sm != 90 and spec.gemm_swiglu_plugin != "disable":
        yield Finding(
            "warn",
            "gemm_swiglu_plugin",
            f"it is made for Hopper (sm90); {gpu.name} is sm{gpu.sm}.",
            "Disable it.",
            (("gemm_swiglu_plugin", "disable"),),
            "tensorrt_llm plugin/plugin.py",
        )


def _count_rules(spec: TensorRtLlmSpec, gpus: Sequence[Gpu]) -> Iterator[Finding]:
    size = spec.world_size
    if size > len(gpus):
        has = "the plan has" if gpus[0].is_planned else "this machine has"
        yield Finding(
            "warn",
            "tp_size" if spec.tp_size > 1 else "pp_size",
            f"the engine needs {size} GPUs to run, and {has} {len(gpus)}; it can be "
            f"built here, rank after rank, but {UNRUN}",
            f"Use tp_size x pp_size of at most {len(gpus)}, or load the engine elsewhere.",
            (),
            "tensorrt_llm commands/build.py parallel_build",
        )
    if spec.workers > len(gpus):
        yield Finding(
            "ignored",
            "workers",
            f"there are no more workers than GPUs; {len(gpus)} will be used.",
            f"Use {len(gpus)}.",
            (("workers", len(gpus)),),
            "tensorrt_llm commands/build.py",
        )
    kinds = {gpu.compute_capability for gpu in gpus[:size]}
    if len(kinds) > 1:
        yield Finding(
            "warn",
            "tp_size" if spec.tp_size > 1 else "pp_size",
            "the GPUs that it would use are of different compute capabilities, and an engine runs "
            "only on the one that it was built on.",
            "Use GPUs of one kind.",
        )


def _quantization_rules(spec: TensorRtLlmSpec, gpu: Gpu) -> Iterator[Finding]:
    name = spec.quantization
    where = f"{gpu.name} (sm{gpu.sm})"
    if name in ("fp8", "fp8_rowwise", "w4a8_awq") and gpu.sm < 89:
        yield _refused(f"{where} does not compute in FP8; Ada (sm89) and later do.", _MATRIX)
    elif name == "nvfp4" and gpu.sm < 100:
        yield _refused(f"{where} does not compute in FP4; Blackwell (sm100) does.", _MATRIX)
    elif name not in ("none", "fp8", "nvfp4") and 100 <= gpu.sm < 120:
        yield _refused(
            f"the build refuses {name} on {where}: integer weights, SmoothQuant and rowwise "
            "scales are not supported from sm100 on.",
            _BUILDER,
            "Use fp8 or nvfp4.",
        )
    elif (name in ("int4_awq", "w4a8_awq", "fp8_rowwise") and gpu.sm >= 120) or (
        name == "fp8_rowwise" and gpu.sm != 90
    ):
        yield Finding(
            "warn",
            "quantization",
            f"NVIDIA does not list {name} as supported on {where}.",
            "Use fp8, or try it and compare the answers.",
            (("quantization", "fp8"),),
            _MATRIX,
        )
    if spec.kv_cache_dtype == "int8" and 100 <= gpu.sm < 120:
        yield Finding(
            "refuse",
            "kv_cache_dtype",
            f"the build refuses an int8 KV cache on {where}.",
            "Use fp8.",
            (("kv_cache_dtype", "fp8"),),
            _BUILDER,
        )


def _stored_rules(model: Model, gpu: Gpu) -> Iterator[Finding]:
    """Rules for weights that the checkpoint has quantized: FP8 with rowwise scales, or integers."""
    rowwise = model.quantized_with == "fbgemm_fp8"
    if (rowwise and gpu.sm < 89) or 100 <= gpu.sm < 120:
        yield Finding(
            "refuse",
            "model",
            f"{gpu.name} (sm{gpu.sm}) does not support weights quantized with "
            f"{model.quantized_with}.",
            "Use the model's checkpoint with plain weights.",
            (),
            _MATRIX if rowwise and gpu.sm < 89 else _BUILDER,
        )


def _refused(reason: str, source: str, remedy: str = "Use int8_wo, int4_awq or none.") -> Finding:
    return Finding("refuse", "quantization", reason, remedy, (), source)
