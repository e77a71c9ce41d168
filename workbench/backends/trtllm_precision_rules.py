"""Rules on precision: what goes with which quantization, and what calibration takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from workbench.backends.trtllm_spec import TensorRtLlmSpec
from workbench.model import Model
from workbench.rules import Finding

FP8_ATTENTION = ("FP8", "W4A8_AWQ", "NVFP4")
"""Algorithms whose prompt attention may run in FP8 (tensorrt_llm builder.py)."""

_BUILDER = "tensorrt_llm builder.py"
_QUANTIZE = "tensorrt_llm quantization/quantize_by_modelopt.py"


def precision_rules(spec: TensorRtLlmSpec, model: Model | None) -> Iterator[Finding]:
    """Apply the rules on quantization; the model only matters for what has been done to it."""
    yield from _attention_rules(spec)
    yield from _kernel_rules(spec)
    yield from _unused(spec)
    if spec.calibrated_by:
        yield from _calibration_rules(spec)
    elif model is None or not model.quantized_with:
        yield from _uncalibrated_rules(spec)


def paged_context(spec: TensorRtLlmSpec) -> bool:
    """Whether the prompt's attention will read the paged KV cache, as the builder decides it.

    Reuse of cached prompts and chunked context need it. Source: tensorrt_llm builder.py build().
    """
    if spec.kv_cache_type not in (None, "paged"):
        return False
    if spec.speculative_decoding_mode == "eagle":
        return True
    return spec.use_paged_context_fmha == "enable" and not _why_not_paged(spec)


def _why_not_paged(spec: TensorRtLlmSpec) -> str:
    """Return why the builder drops paged context FMHA, or an empty string."""
    if spec.context_fmha == "disable":
        return "it needs context_fmha"
    if spec.kv_cache_dtype == "int8":
        return "it does not work with an int8 KV cache"
    if spec.kv_cache_dtype == "fp8" and spec.quant_algo not in FP8_ATTENTION:
        return (
            "with an fp8 KV cache it needs FP8 attention, which only fp8, nvfp4 and w4a8_awq "
            f"weights have; quantization is {spec.quantization}"
        )
    return ""


def _attention_rules(spec: TensorRtLlmSpec) -> Iterator[Finding]:
    why = _why_not_paged(spec)
    if spec.use_paged_context_fmha == "enable" and why:
        yield Finding(
            "ignored",
            "use_paged_context_fmha",
            f"{why}; it will be disabled, and with it reuse of cached prompts and chunked context.",
            "Change that, or disable it.",
            (("use_paged_context_fmha", "disable"),),
            _BUILDER,
        )
    if spec.quant_algo not in FP8_ATTENTION or spec.context_fmha == "disable":
        return
    if spec.use_paged_context_fmha == "enable":
        fp8_cache = spec.kv_cache_dtype == "fp8"
        if spec.use_fp8_context_fmha == "enable" and not fp8_cache:
            yield Finding(
                "ignored",
                "use_fp8_context_fmha",
                "together with use_paged_context_fmha it needs an fp8 KV cache; attention will "
                "not run in FP8.",
                "Set kv_cache_dtype to fp8, or disable it.",
                (("kv_cache_dtype", "fp8"),),
                _BUILDER,
            )
        if spec.use_fp8_context_fmha == "disable" and fp8_cache:
            yield Finding(
                "ignored",
                "use_fp8_context_fmha",
                "use_paged_context_fmha with an fp8 KV cache needs it; it will be enabled.",
                "Enable it.",
                (("use_fp8_context_fmha", "enable"),),
                _BUILDER,
            )


def _kernel_rules(spec: TensorRtLlmSpec) -> Iterator[Finding]:
    for field in ("gemm_swiglu_plugin", "low_latency_gemm_swiglu_plugin"):
        if getattr(spec, field) == "disable":
            continue
        if spec.use_fused_mlp == "disable":
            yield Finding(
                "refuse",
                field,
                "it needs use_fused_mlp.",
                "Enable use_fused_mlp.",
                (("use_fused_mlp", "enable"),),
                f"{_BUILDER} optimize_model_with_config",
            )
        if spec.quantization != "fp8":
            yield Finding(
                "refuse",
                field,
                f"it multiplies FP8 weights; quantization is {spec.quantization}.",
                "Disable it, or use quantization fp8.",
                ((field, "disable"),),
                "tensorrt_llm layers/mlp.py",
            )
    yield from _gemm_rules(spec)
    if spec.quantization == "nvfp4" and spec.gemm_plugin not in (None, "nvfp4", "disable"):
        yield Finding(
            "ignored",
            "gemm_plugin",
            "with nvfp4 weights the build sets it to nvfp4 unless it is disabled.",
            "Leave it empty.",
            (("gemm_plugin", None),),
            _BUILDER,
        )
    if spec.quantization == "fp8" and spec.gemm_plugin not in (None, "nvfp4", "disable"):
        yield Finding(
            "warn",
            "gemm_plugin",
            "NVIDIA advises TensorRT's own kernels for FP8.",
            "Leave it empty, or measure both.",
            (("gemm_plugin", None),),
            "TensorRT-LLM docs useful-build-time-flags.md",
        )
    if spec.fp8_rowwise_gemm_plugin != "disable" and spec.quantization != "fp8_rowwise":
        yield Finding(
            "ignored",
            "fp8_rowwise_gemm_plugin",
            f"no weights have rowwise scales; quantization is {spec.quantization}.",
            "Use quantization fp8_rowwise, which enables it by itself.",
            (("fp8_rowwise_gemm_plugin", "disable"),),
            "tensorrt_llm plugin/plugin.py",
        )
    fused = spec.reduce_fusion == "enable" and spec.tp_size > 1
    if spec.norm_quant_fusion == "enable" and (fused or spec.quantization != "nvfp4"):
        yield Finding(
            "ignored",
            "norm_quant_fusion",
            "it is for nvfp4 weights without reduce_fusion and will be overridden.",
            "Disable it.",
            (("norm_quant_fusion", "disable"),),
            _BUILDER,
        )
    weight_only = spec.quantization in ("int8_wo", "int4_wo")
    if spec.fast_build and weight_only and spec.disable_weight_only_quant_plugin:
        yield Finding(
            "refuse",
            "fast_build",
            f"with {spec.quantization} it needs the plugin for such weights.",
            "Leave out disable_weight_only_quant_plugin, or fast_build.",
            (("disable_weight_only_quant_plugin", False),),
            _BUILDER,
        )


def _gemm_rules(spec: TensorRtLlmSpec) -> Iterator[Finding]:
    """Rules on kernels for weights that are not there (layers/linear.py, quantization/layers.py).

    A plain layer passes nvfp4 over, and takes fp8 for its own precision.
    """
    if spec.gemm_plugin == "nvfp4" and spec.quantization != "nvfp4":
        if spec.quant_algo in FP8_ATTENTION:
            yield Finding(
                "refuse",
                "gemm_plugin",
                f"beside {spec.quantization} weights it makes attention scale its FP8 output as "
                "for NVFP4 ones; the answers would be wrong.",
                "Leave it empty.",
                (("gemm_plugin", None),),
                "tensorrt_llm layers/attention.py",
            )
        else:
            yield Finding(
                "ignored",
                "gemm_plugin",
                f"no weights are NVFP4; quantization is {spec.quantization}, and TensorRT's own "
                "kernels will be used.",
                "Leave it empty, or use auto.",
                (("gemm_plugin", None),),
                "tensorrt_llm layers/linear.py",
            )
    if spec.gemm_plugin == "fp8" and spec.quantization not in ("fp8", "nvfp4"):
        yield Finding(
            "ignored",
            "gemm_plugin",
            f"no weights are FP8; quantization is {spec.quantization}, and what is not quantized "
            "is multiplied in the model's dtype, as with auto.",
            "Use auto.",
            (("gemm_plugin", "auto"),),
            "tensorrt_llm layers/linear.py",
        )
    if spec.low_latency_gemm_plugin == "fp8" and spec.quantization != "fp8":
        yield Finding(
            "ignored",
            "low_latency_gemm_plugin",
            f"only layers with FP8 weights use it; quantization is {spec.quantization}.",
            "Disable it, or use quantization fp8.",
            (("low_latency_gemm_plugin", "disable"),),
            "tensorrt_llm quantization/layers.py",
        )


def _unused(spec: TensorRtLlmSpec) -> Iterator[Finding]:
    """Parameters of another quantization, or of a conversion that does not take them."""
    rows = [
        ("awq_block_size", 128, spec.quantization in ("int4_awq", "w4a8_awq"), "int4_awq"),
        ("smoothquant_val", None, spec.quantization == "int8_sq", "int8_sq"),
        (
            "disable_weight_only_quant_plugin",
            False,
            spec.quantization in ("int8_wo", "int4_wo"),
            "int8_wo",
        ),
    ]
    for field, default, used, choice in rows:
        if not used and getattr(spec, field) != default:
            yield Finding(
                "ignored",
                field,
                f"quantization {spec.quantization} does not use it.",
                f"Leave it, or use {choice}.",
                ((field, default),),
                _QUANTIZE,
            )
    if spec.use_parallel_embedding and spec.calibrated_by == "modelopt":
        yield Finding(
            "ignored",
            "use_parallel_embedding",
            "ModelOpt writes the checkpoint and decides about its embedding table.",
            "Leave it out.",
            (("use_parallel_embedding", False),),
            _QUANTIZE,
        )
    if spec.embedding_sharding_dim != 0 and not spec.use_parallel_embedding:
        yield Finding(
            "ignored",
            "embedding_sharding_dim",
            "the embedding table is not shared.",
            "Switch use_parallel_embedding on to use it.",
            (("embedding_sharding_dim", 0),),
        )
    if spec.calibrated_by:
        for field in ("load_by_shard", "load_model_on_cpu"):
            if getattr(spec, field):
                yield Finding(
                    "ignored",
                    field,
                    "calibration runs the whole model on the GPU.",
                    "Leave it out.",
                    ((field, False),),
                    _QUANTIZE,
                )


def _calibration_rules(spec: TensorRtLlmSpec) -> Iterator[Finding]:
    if spec.quantization in ("int4_awq", "w4a8_awq") and spec.calib_size > 32:
        yield Finding(
            "ignored",
            "calib_size",
            "AWQ calibrates on 32 texts at most.",
            "Use 32.",
            (("calib_size", 32),),
            _QUANTIZE,
        )
    if spec.calibrated_by == "modelopt" and not _has_texts(spec.calib_dataset):
        yield Finding(
            "refuse",
            "calib_dataset",
            f"'{spec.calib_dataset}' is neither a known dataset nor a directory here.",
            "Use cnn_dailymail, pileval, or the path of a local dataset with a train split and a "
            "text column.",
            (("calib_dataset", "cnn_dailymail"),),
            f"{_QUANTIZE} get_calib_dataloader",
        )
    if spec.calibrated_by == "modelopt" and spec.moe_ep_size and spec.moe_ep_size > 1:
        yield Finding(
            "refuse",
            "moe_ep_size",
            "quantization with calibration does not support expert parallelism.",
            "Use 1.",
            (("moe_ep_size", 1),),
            "tensorrt_llm models/modeling_utils.py PretrainedModel.quantize",
        )
    if spec.calibrated_by == "tensorrt_llm" and spec.calib_batch_size != 1:
        yield Finding(
            "ignored",
            "calib_batch_size",
            "TensorRT-LLM's own calibration takes text after text.",
            "Use 1.",
            (("calib_batch_size", 1),),
            "tensorrt_llm models/llama/convert.py quantize",
        )


def _has_texts(name: str) -> bool:
    known = name == "pileval" or any(
        part in name.lower() for part in ("cnn_dailymail", "scienceqa", "science_qa")
    )
    return known or Path(name).is_dir()


def _uncalibrated_rules(spec: TensorRtLlmSpec) -> Iterator[Finding]:
    defaults = {
        "calib_dataset": "cnn_dailymail",
        "calib_size": 512,
        "calib_batch_size": 1,
        "calib_max_seq_length": 512,
    }
    for field, default in defaults.items():
        if getattr(spec, field) != default:
            yield Finding(
                "ignored",
                field,
                f"quantization {spec.quantization} needs no calibration.",
                "Leave it.",
                ((field, default),),
                "tensorrt_llm models/modeling_utils.py QuantConfig",
            )
    if spec.kv_cache_dtype == "fp8":
        yield Finding(
            "warn",
            "kv_cache_dtype",
            f"beside {spec.quantization} weights an fp8 KV cache is not calibrated; its scales "
            "are 1, which may cost quality.",
            "Use quantization fp8, or compare the answers.",
            (),
            "tensorrt_llm layers/attention.py Attention.postprocess",
        )
