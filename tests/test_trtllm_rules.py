"""The rules of TensorRT-LLM: each with what provokes it, its words, and what mends it."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

import pytest

from workbench.backends.trtllm_rules import findings
from workbench.backends.trtllm_session_rules import not_runnable
from workbench.backends.trtllm_spec import TensorRtLlmSpec
from workbench.gpus import Gpu
from workbench.model import Model
from workbench.rules import Finding

DEMO = Model.read(Path(__file__).parents[1] / "workbench" / "demo_model")
LLAMA = dataclasses.replace(
    DEMO, architecture="LlamaForCausalLM", heads=32, kv_heads=8, context_length=8192, config={}
)
GENERATIONS = {
    75: "Tesla T4",
    80: "NVIDIA A100",
    89: "NVIDIA L40S",
    90: "NVIDIA H200",
    100: "NVIDIA B200",
    103: "NVIDIA B300",
    120: "NVIDIA RTX PRO 6000",
}


def gpus(*generations: int) -> list[Gpu]:
    return [
        Gpu(i, GENERATIONS[sm], (sm // 10, sm % 10), 80 << 30, 79 << 30, f"GPU-{i}")
        for i, sm in enumerate(generations)
    ]


def stored(**details: Any) -> dict[str, Any]:
    return {"config": {"quantization_config": details}}


FP8 = {"quantization": "fp8", "kv_cache_dtype": "fp8"}
SWIGLU = {"gemm_swiglu_plugin": "fp8"}
PAGED_OFF = {"use_paged_context_fmha": "disable", "enable_block_reuse": False}
EAGLE = {"speculative_decoding_mode": "eagle", "max_batch_size": 64}
DRAFT = {"speculative_decoding_mode": "draft_tokens_external", "max_draft_len": 4}

OF_THE_SPEC: list[tuple[dict[str, Any], str, str, str]] = [
    # lengths
    (
        {"max_input_len": 4096, "max_output_len": 1024},
        "ignored",
        "max_output_len",
        "no max_output_len since 0.12; max_seq_len = 4096 + 1024 = 5120 is used.",
    ),
    (
        {"max_output_len": 9, "max_seq_len": 2000},
        "ignored",
        "max_output_len",
        "max_seq_len 2000 is given, and it alone counts",
    ),
    (
        {"max_seq_len": 512, "max_input_len": 600},
        "warn",
        "max_input_len",
        "above max_seq_len 512 and will be clipped",
    ),
    (
        {"max_seq_len": 512, "remove_input_padding": "disable"},
        "warn",
        "max_input_len",
        "above max_seq_len 512 and will be clipped",
    ),
    (
        {"max_input_len": 512},
        "ignored",
        "max_input_len",
        "with remove_input_padding and context_fmha an engine has no limit",
    ),
    # tokens in a step
    (
        {"remove_input_padding": "disable", "max_seq_len": 2048, "max_batch_size": 4},
        "ignored",
        "max_num_tokens",
        "takes max_batch_size x max_seq_len = 8192 instead",
    ),
    ({"max_num_tokens": 32768}, "warn", "max_num_tokens", "32768 is more than 16384"),
    (
        {"max_seq_len": 1024, "max_batch_size": 2},
        "ignored",
        "max_num_tokens",
        "the build will use 2048: it is lowered to max_seq_len x max_batch_size",
    ),
    (
        {
            "context_fmha": "disable",
            "max_num_tokens": 512,
            "max_batch_size": 8,
            "use_paged_context_fmha": "disable",
        },
        "ignored",
        "max_num_tokens",
        "the build will use 1024: it is raised to max_input_len",
    ),
    (
        {"max_num_tokens": 16, "max_batch_size": 8, "enable_chunked_context": True},
        "warn",
        "max_num_tokens",
        "raised to 32, which is tokens_per_block",
    ),
    (
        {"opt_num_tokens": 9000},
        "ignored",
        "opt_num_tokens",
        "the build will use 8192: it is lowered to max_num_tokens",
    ),
    (
        {"max_num_tokens": 1024},
        "warn",
        "max_batch_size",
        "2048 requests cannot advance together in steps of 1024 tokens",
    ),
    (
        {"max_num_tokens": 512, "max_batch_size": 8},
        "warn",
        "max_num_tokens",
        "a prompt of more than 512 tokens does not fit into one step",
    ),
    # flags
    (
        {"multiple_profiles": "enable", "opt_num_tokens": 64},
        "refuse",
        "opt_num_tokens",
        "cannot be combined with multiple_profiles",
    ),
    ({"streamingllm": "enable"}, "refuse", "streamingllm", "is no longer supported"),
    (
        {"gather_generation_logits": True},
        "ignored",
        "gather_generation_logits",
        "takes it for deprecated",
    ),
    ({"strip_plan": True}, "warn", "strip_plan", "published without having been run"),
    ({"workers": 2}, "ignored", "workers", "one rank is built by one process"),
    ({"nccl_plugin": "float16"}, "ignored", "nccl_plugin", "the build sets it"),
    (
        {"user_buffer": "enable"},
        "ignored",
        "user_buffer",
        "it needs reduce_fusion and tp_size above 1",
    ),
    ({"reduce_fusion": "enable"}, "ignored", "reduce_fusion", "with tp_size 1 nothing is summed"),
    (
        {"kv_cache_type": "disabled", "enable_block_reuse": False},
        "warn",
        "kv_cache_type",
        "it cannot generate, and is published without having been run",
    ),
    # speculative decoding
    (
        {"gather_context_logits": True, "max_draft_len": 2, "enable_block_reuse": False},
        "refuse",
        "gather_context_logits",
        "cannot be gathered with max_draft_len above 0",
    ),
    (
        {"gather_all_token_logits": True, "max_draft_len": 2, "enable_block_reuse": False},
        "refuse",
        "gather_all_token_logits",
        "cannot be gathered with max_draft_len above 0",
    ),
    (
        {**DRAFT, "max_seq_len": 1024, "max_batch_size": 8},
        "warn",
        "max_seq_len",
        "the build will use 1028: max_draft_len is added to it",
    ),
    (
        DRAFT,
        "warn",
        "max_num_tokens",
        "the build will use 10240: max_batch_size x (max_draft_len + 1)",
    ),
    ({**EAGLE, "max_batch_size": 513}, "refuse", "max_batch_size", "EAGLE supports at most 512"),
    (
        {**EAGLE, "max_batch_size": 8, "max_draft_len": 257},
        "refuse",
        "max_draft_len",
        "EAGLE supports at most 256",
    ),
    (
        {**EAGLE, "use_paged_context_fmha": "disable"},
        "ignored",
        "use_paged_context_fmha",
        "EAGLE needs it and will turn it on",
    ),
    (
        {**DRAFT, "max_batch_size": 8, "enable_block_reuse": False},
        "refuse",
        "enable_block_reuse",
        "a session whose draft tokens come from outside does not start without it",
    ),
    # LoRA
    ({"lora_dir": "here"}, "ignored", "lora_dir", "it has an effect only with lora_plugin"),
    (
        {"lora_target_modules": "attn_q"},
        "ignored",
        "lora_target_modules",
        "it has an effect only with lora_plugin",
    ),
    ({"lora_plugin": "auto"}, "refuse", "lora_plugin", "nothing says which modules"),
    (
        {"lora_plugin": "auto", "lora_dir": "., nowhere"},
        "refuse",
        "lora_dir",
        "there is no directory nowhere",
    ),
    (
        {"lora_plugin": "auto", "lora_dir": ".", "lora_ckpt_source": "nemo"},
        "refuse",
        "lora_dir",
        "there is no file .",
    ),
    (
        {"lora_plugin": "auto", "lora_target_modules": "attn_q, atn_k"},
        "refuse",
        "lora_target_modules",
        "'atn_k' is no module of TensorRT-LLM. Did you mean 'attn_k'?",
    ),
    # attention
    (
        {"context_fmha": "disable", "enable_block_reuse": False},
        "ignored",
        "use_paged_context_fmha",
        "it needs context_fmha; it will be disabled",
    ),
    (
        {"kv_cache_dtype": "int8", "enable_block_reuse": False},
        "ignored",
        "use_paged_context_fmha",
        "it does not work with an int8 KV cache",
    ),
    (
        {"kv_cache_dtype": "fp8", "enable_block_reuse": False},
        "ignored",
        "use_paged_context_fmha",
        "with an fp8 KV cache it needs FP8 attention",
    ),
    (
        {"quantization": "fp8"},
        "ignored",
        "use_fp8_context_fmha",
        "together with use_paged_context_fmha it needs an fp8 KV cache",
    ),
    (
        {**FP8, "use_fp8_context_fmha": "disable"},
        "ignored",
        "use_fp8_context_fmha",
        "needs it; it will be enabled",
    ),
    # kernels
    (
        {**FP8, **SWIGLU, "use_fused_mlp": "disable"},
        "refuse",
        "gemm_swiglu_plugin",
        "it needs use_fused_mlp",
    ),
    (
        {"low_latency_gemm_swiglu_plugin": "fp8"},
        "refuse",
        "low_latency_gemm_swiglu_plugin",
        "it multiplies FP8 weights; quantization is none",
    ),
    (
        {"quantization": "nvfp4", "kv_cache_dtype": "fp8", "gemm_plugin": "auto"},
        "ignored",
        "gemm_plugin",
        "the build sets it to nvfp4",
    ),
    (
        {**FP8, "gemm_plugin": "auto"},
        "warn",
        "gemm_plugin",
        "NVIDIA advises TensorRT's own kernels for FP8",
    ),
    (
        {"gemm_plugin": "fp8"},
        "ignored",
        "gemm_plugin",
        "no weights are FP8; quantization is none",
    ),
    (
        {"gemm_plugin": "nvfp4"},
        "ignored",
        "gemm_plugin",
        "no weights are NVFP4; quantization is none",
    ),
    (
        {**FP8, "gemm_plugin": "nvfp4"},
        "refuse",
        "gemm_plugin",
        "the answers would be wrong",
    ),
    (
        {"low_latency_gemm_plugin": "fp8"},
        "ignored",
        "low_latency_gemm_plugin",
        "only layers with FP8 weights use it; quantization is none",
    ),
    (
        {"fp8_rowwise_gemm_plugin": "auto"},
        "ignored",
        "fp8_rowwise_gemm_plugin",
        "no weights have rowwise scales",
    ),
    (
        {"norm_quant_fusion": "enable"},
        "ignored",
        "norm_quant_fusion",
        "it is for nvfp4 weights without reduce_fusion",
    ),
    (
        {
            "quantization": "int8_wo",
            "fast_build": True,
            "disable_weight_only_quant_plugin": True,
        },
        "refuse",
        "fast_build",
        "with int8_wo it needs the plugin for such weights",
    ),
    # parameters of something else
    ({"awq_block_size": 64}, "ignored", "awq_block_size", "quantization none does not use it"),
    ({"smoothquant_val": 0.5}, "ignored", "smoothquant_val", "quantization none does not use it"),
    (
        {"disable_weight_only_quant_plugin": True},
        "ignored",
        "disable_weight_only_quant_plugin",
        "quantization none does not use it",
    ),
    (
        {**FP8, "use_parallel_embedding": True},
        "ignored",
        "use_parallel_embedding",
        "ModelOpt writes the checkpoint",
    ),
    (
        {"embedding_sharding_dim": 1},
        "ignored",
        "embedding_sharding_dim",
        "the embedding table is not shared",
    ),
    (
        {**FP8, "load_by_shard": True},
        "ignored",
        "load_by_shard",
        "calibration runs the whole model on the GPU",
    ),
    ({"calib_size": 64}, "ignored", "calib_size", "quantization none needs no calibration"),
    # calibration
    ({"quantization": "int4_awq"}, "ignored", "calib_size", "AWQ calibrates on 32 texts at most"),
    (
        {**FP8, "calib_dataset": "nowhere"},
        "refuse",
        "calib_dataset",
        "'nowhere' is neither a known dataset nor a directory here",
    ),
    (
        {**FP8, "tp_size": 2, "moe_ep_size": 2},
        "refuse",
        "moe_ep_size",
        "does not support expert parallelism",
    ),
    (
        {"kv_cache_dtype": "int8", "calib_batch_size": 4, **PAGED_OFF},
        "ignored",
        "calib_batch_size",
        "takes text after text",
    ),
    (
        {"quantization": "int8_wo", "kv_cache_dtype": "fp8", **PAGED_OFF},
        "warn",
        "kv_cache_dtype",
        "an fp8 KV cache is not calibrated; its scales are 1",
    ),
    # sessions
    (
        {"max_seq_len": 2048, "kv_cache_tokens": 1024},
        "warn",
        "kv_cache_tokens",
        "the KV cache holds 1024 tokens, but one request may need 2048",
    ),
    (
        {**PAGED_OFF, "enable_chunked_context": True},
        "refuse",
        "enable_chunked_context",
        "it needs a paged KV cache and paged context FMHA",
    ),
    (
        {"kv_cache_type": "continuous"},
        "ignored",
        "enable_block_reuse",
        "it needs paged context FMHA, which this engine will not have",
    ),
    (
        {"gather_context_logits": True},
        "ignored",
        "enable_block_reuse",
        "computes each prompt in full",
    ),
    (
        {"weight_streaming": True, "gemm_plugin": "auto"},
        "warn",
        "gemm_plugin",
        "weight_streaming cannot stream the weights of plugins",
    ),
    (
        {"gpu_weights_percent": 0.5},
        "ignored",
        "gpu_weights_percent",
        "the engine is built without weight_streaming",
    ),
    (
        {"gpu_weights_percent": 0.5, "weight_streaming": True},
        "ignored",
        "gpu_weights_percent",
        "the LLM API has no such setting",
    ),
    (
        {"guided_decoding_backend": "xgrammar", "runtime": "model_runner_cpp"},
        "ignored",
        "guided_decoding_backend",
        "ModelRunnerCpp has no such setting",
    ),
]

OF_THE_MODEL: list[tuple[dict[str, Any], dict[str, Any], str, str, str]] = [
    (
        {},
        {"code": ("modeling_own.py",)},
        "warn",
        "trust_remote_code",
        "brings Python code (modeling_own.py), which does not run",
    ),
    (
        {"trust_remote_code": True},
        {"code": ("modeling_own.py",)},
        "warn",
        "trust_remote_code",
        "code of the model's repository (modeling_own.py) will run with your rights",
    ),
    (
        {},
        {"architecture": "Gemma3ForConditionalGeneration"},
        "refuse",
        "model",
        "do not know the architecture Gemma3ForConditionalGeneration, only GemmaForCausalLM, ",
    ),
    (
        {},
        {"architecture": "XyzzyForCausalLM"},
        "refuse",
        "model",
        "do not know the architecture XyzzyForCausalLM.",
    ),
    ({"revision": "main"}, {}, "ignored", "revision", "a local directory has no revisions"),
    (
        {"max_seq_len": 9000},
        {},
        "warn",
        "max_seq_len",
        "requests of 9000 tokens are beyond the model's context of 8192",
    ),
    (
        {"max_input_len": 9000, "max_output_len": 8, "max_num_tokens": 16384},
        {},
        "warn",
        "max_output_len",
        "requests of 9008 tokens are beyond the model's context of 8192",
    ),
    (
        {"max_input_len": 9000, "max_num_tokens": 16384},
        {},
        "warn",
        "max_input_len",
        "it is above the model's context of 8192, which max_seq_len becomes",
    ),
    (
        {"tp_size": 3},
        {},
        "refuse",
        "tp_size",
        "32 attention heads cannot be shared evenly by 3 GPUs",
    ),
    (
        {"tp_size": 16},
        {},
        "warn",
        "tp_size",
        "8 heads for keys and values, so that 16 GPUs hold copies of them",
    ),
    (
        {"tp_size": 16},
        {"kv_heads": 12},
        "refuse",
        "tp_size",
        "16 GPUs cannot hold even copies of them",
    ),
    (
        {"tp_size": 4, "moe_tp_size": 2, "moe_ep_size": 4},
        {},
        "refuse",
        "moe_ep_size",
        "moe_tp_size 2 x moe_ep_size 4 is not tp_size 4",
    ),
    (
        {"tp_size": 4, "moe_tp_size": 3},
        {},
        "refuse",
        "moe_tp_size",
        "moe_tp_size 3 x moe_ep_size 1 is not tp_size 4",
    ),
    (
        {"tp_size": 2, "reduce_fusion": "enable"},
        {"architecture": "MistralForCausalLM"},
        "ignored",
        "reduce_fusion",
        "it is for Llama and Gemma 2; for MistralForCausalLM it will be overridden",
    ),
    (
        {"tp_size": 2, "reduce_fusion": "enable", "user_buffer": "enable"},
        {"architecture": "MistralForCausalLM"},
        "ignored",
        "user_buffer",
        "for MistralForCausalLM it will be overridden",
    ),
    (
        {"quantization": "nvfp4", "kv_cache_dtype": "fp8", "norm_quant_fusion": "enable"},
        {"architecture": "Qwen3ForCausalLM"},
        "ignored",
        "norm_quant_fusion",
        "it is for Llama; for Qwen3ForCausalLM it will be overridden",
    ),
    (
        {"pp_reduce_scatter": "enable"},
        {},
        "refuse",
        "pp_reduce_scatter",
        "it is for Mixtral only; this is LlamaForCausalLM",
    ),
    (
        EAGLE,
        {},
        "refuse",
        "speculative_decoding_mode",
        "EAGLE needs a checkpoint with EAGLE layers",
    ),
    ({"paged_state": "disable"}, {}, "ignored", "paged_state", "has no recurrent state"),
    (
        {"kv_cache_type": "continuous", "enable_block_reuse": False},
        {"architecture": "MambaForCausalLM"},
        "refuse",
        "kv_cache_type",
        "continuous contradicts paged_state enable",
    ),
    (
        {"max_beam_width": 2},
        {"architecture": "MambaForCausalLM"},
        "refuse",
        "max_beam_width",
        "the runtime does not support beam search for recurrent models",
    ),
    (
        {"enable_chunked_context": True},
        {"architecture": "RecurrentGemmaForCausalLM"},
        "refuse",
        "enable_chunked_context",
        "the runtime does not support chunked context for recurrent models",
    ),
    (
        {"load_by_shard": True},
        {},
        "ignored",
        "load_by_shard",
        "the reader for this family reads weight by weight anyway",
    ),
    # weights that are quantized already
    (
        {},
        stored(quant_method="bitsandbytes"),
        "refuse",
        "model",
        "its weights are already quantized with bitsandbytes",
    ),
    (
        {},
        {"architecture": "FalconForCausalLM", **stored(quant_method="awq")},
        "refuse",
        "model",
        "which the conversion of FalconForCausalLM does not read",
    ),
    (
        FP8,
        stored(quant_method="gptq"),
        "refuse",
        "quantization",
        "the model's weights are already quantized with gptq",
    ),
    (
        {},
        stored(quant_method="gptq", desc_act=True),
        "refuse",
        "model",
        "GPTQ weights with desc_act are not supported",
    ),
    (
        {},
        stored(quant_method="gptq", bits=8),
        "refuse",
        "model",
        "gptq weights of 8 bits are not supported, only 4",
    ),
    # calibration
    (
        {"kv_cache_dtype": "int8", **PAGED_OFF},
        {"architecture": "Phi3ForCausalLM"},
        "refuse",
        "kv_cache_dtype",
        "TensorRT-LLM has no calibration of its own for Phi3ForCausalLM",
    ),
    (
        {"quantization": "int8_sq", "smoothquant_val": 0.5},
        {"architecture": "Phi3ForCausalLM"},
        "refuse",
        "smoothquant_val",
        "TensorRT-LLM has no calibration of its own for Phi3ForCausalLM",
    ),
    (
        {"quantization": "int8_sq", "smoothquant_val": 0.5, "calib_size": 64},
        {"architecture": "Qwen2ForCausalLM"},
        "ignored",
        "calib_size",
        "the calibration of Qwen2ForCausalLM takes only calib_dataset",
    ),
    (
        {"quantization": "int8_wo"},
        {"architecture": "Gemma2ForCausalLM"},
        "warn",
        "quantization",
        "the reader for Gemma does not quantize weights by itself",
    ),
    (
        {"kv_cache_dtype": "fp8", **PAGED_OFF},
        {"architecture": "Gemma2ForCausalLM"},
        "refuse",
        "kv_cache_dtype",
        "the calibration of Gemma knows fp8, int4_awq, w4a8_awq and int8_sq only",
    ),
]

OF_THE_GPUS: list[tuple[dict[str, Any], tuple[int, ...], str, str, str]] = [
    ({}, (75,), "refuse", "backend", "Tesla T4 is of a generation before Ampere (sm75)"),
    (FP8, (80,), "refuse", "quantization", "NVIDIA A100 (sm80) does not compute in FP8"),
    (
        {"quantization": "w4a8_awq", "calib_size": 32, "kv_cache_dtype": "fp8"},
        (80,),
        "refuse",
        "quantization",
        "does not compute in FP8",
    ),
    (
        {"quantization": "nvfp4", "kv_cache_dtype": "fp8"},
        (90,),
        "refuse",
        "quantization",
        "NVIDIA H200 (sm90) does not compute in FP4",
    ),
    (
        {"quantization": "int8_wo"},
        (100,),
        "refuse",
        "quantization",
        "the build refuses int8_wo on NVIDIA B200 (sm100)",
    ),
    (
        {"quantization": "int4_awq", "calib_size": 32},
        (103,),
        "refuse",
        "quantization",
        "the build refuses int4_awq on NVIDIA B300 (sm103)",
    ),
    (
        {"kv_cache_dtype": "int8", **PAGED_OFF},
        (100,),
        "refuse",
        "kv_cache_dtype",
        "the build refuses an int8 KV cache on NVIDIA B200",
    ),
    (
        {"quantization": "fp8_rowwise"},
        (89,),
        "warn",
        "quantization",
        "NVIDIA does not list fp8_rowwise as supported on NVIDIA L40S (sm89)",
    ),
    (
        {"quantization": "int4_awq", "calib_size": 32},
        (120,),
        "warn",
        "quantization",
        "NVIDIA does not list int4_awq as supported on NVIDIA RTX PRO 6000 (sm120)",
    ),
    (
        {"low_latency_gemm_plugin": "fp8", **FP8},
        (100,),
        "refuse",
        "low_latency_gemm_plugin",
        "it does not exist for NVIDIA B200 (sm100)",
    ),
    (
        {**SWIGLU, **FP8},
        (89,),
        "warn",
        "gemm_swiglu_plugin",
        "it is made for Hopper (sm90); NVIDIA L40S is sm89",
    ),
    (
        {"tp_size": 2},
        (90,),
        "warn",
        "tp_size",
        "the engine needs 2 GPUs to run, and this machine has 1",
    ),
    ({"pp_size": 4}, (90, 90), "warn", "pp_size", "but is published without having been run"),
    (
        {"tp_size": 4, "workers": 4},
        (90, 90),
        "ignored",
        "workers",
        "there are no more workers than GPUs; 2 will be used",
    ),
    (
        {"tp_size": 2},
        (90, 89),
        "warn",
        "tp_size",
        "the GPUs that it would use are of different compute capabilities",
    ),
]


def found_by(
    values: dict[str, Any], model: Model | None = None, on: list[Gpu] | None = None
) -> list[Finding]:
    return findings(TensorRtLlmSpec.parse(values), model, on or [])


def check(
    values: dict[str, Any],
    model: Model | None,
    on: list[Gpu],
    expected: tuple[str, str, str],
) -> None:
    """Look for the finding, for its form, and for whether its own changes mend it."""
    level, field, words = expected
    found = found_by(values, model, on)
    matching = [f for f in found if (f.level, f.field) == (level, field) and words in f.reason]
    assert len(matching) == 1, [str(finding) for finding in found]
    finding = matching[0]
    assert finding.reason.endswith((".", "?"))
    assert finding.remedy.endswith(".")
    if finding.changes:
        mended = found_by({**values, **dict(finding.changes)}, model, on)
        assert not [f for f in mended if f.field == field and words in f.reason]


@pytest.mark.parametrize(("values", "level", "field", "words"), OF_THE_SPEC)
def test_a_rule_on_the_spec(values: dict[str, Any], level: str, field: str, words: str) -> None:
    check(values, None, [], (level, field, words))


@pytest.mark.parametrize(("values", "changes", "level", "field", "words"), OF_THE_MODEL)
def test_a_rule_on_the_model(
    values: dict[str, Any], changes: dict[str, Any], level: str, field: str, words: str
) -> None:
    check(values, dataclasses.replace(LLAMA, **changes), [], (level, field, words))


@pytest.mark.parametrize(("values", "generations", "level", "field", "words"), OF_THE_GPUS)
def test_a_rule_on_gpus(
    values: dict[str, Any], generations: tuple[int, ...], level: str, field: str, words: str
) -> None:
    check(values, LLAMA, gpus(*generations), (level, field, words))


@pytest.mark.parametrize("method", ["awq", "fbgemm_fp8"])
def test_weights_that_are_quantized_already_are_refused_where_the_build_refuses_them(
    method: str,
) -> None:
    model = dataclasses.replace(LLAMA, **stored(quant_method=method))
    assert found_by({}, model, gpus(90)) == []
    (finding,) = found_by({}, model, gpus(100))
    assert (finding.level, finding.field) == ("refuse", "model")
    assert len(found_by({}, model, gpus(80))) == (1 if method == "fbgemm_fp8" else 0)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"gemm_plugin": "auto", "max_batch_size": 64, "max_seq_len": 4096},
        {**FP8, "multiple_profiles": "enable"},
        {"quantization": "int4_awq", "calib_size": 32},
        {"tp_size": 2, "reduce_fusion": "enable", "user_buffer": "enable"},
        {"lora_plugin": "auto", "lora_target_modules": "attn_q,attn_k,attn_v"},
        {"lora_plugin": "auto", "lora_dir": "."},
        # Nobody asked for the default of max_input_len.
        {"max_seq_len": 512, "max_num_tokens": 512, "max_batch_size": 8},
        {**FP8, "low_latency_gemm_plugin": "fp8"},
        {"calib_dataset": ".", **FP8},
        {"remove_input_padding": "enable", "enable_chunked_context": True},
    ],
)
def test_what_works_has_no_findings(values: dict[str, Any]) -> None:
    assert [str(finding) for finding in found_by(values, LLAMA, gpus(90, 90))] == []


def test_rotary_scaling_lengthens_the_context_as_the_builder_takes_it() -> None:
    def longest(scaling: dict[str, Any]) -> bool:
        model = dataclasses.replace(LLAMA, config={"rope_scaling": scaling})
        return not found_by({"max_seq_len": 16384}, model)

    assert longest({"type": "linear", "factor": 2.0})
    assert longest({"rope_type": "yarn", "factor": 2})
    assert not longest({"rope_type": "llama3", "factor": 8.0})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({}, ""),
        ({"strip_plan": True}, "no weights until trtllm-refit"),
        ({"kv_cache_type": "disabled"}, "cannot generate"),
        ({"tp_size": 2, "pp_size": 2}, "it needs 4 GPUs, and this machine has 2"),
        ({"tp_size": 2}, ""),
    ],
)
def test_what_cannot_be_loaded_here(values: dict[str, Any], words: str) -> None:
    sentence = not_runnable(TensorRtLlmSpec.parse(values), gpus(90, 90))
    assert words in sentence
    assert bool(words) == bool(sentence)
    assert not sentence or sentence.endswith(".")


def test_gpus_beyond_those_that_are_used_do_not_matter() -> None:
    assert found_by({}, LLAMA, gpus(90, 75)) == []


def test_the_rules_take_no_time() -> None:
    spec = TensorRtLlmSpec.parse({**FP8, "tp_size": 2})
    started = time.perf_counter()
    for _ in range(50):
        findings(spec, LLAMA, gpus(90, 90))
    assert (time.perf_counter() - started) / 50 < 0.01


def test_findings_say_where_they_come_from() -> None:
    for values, _, field, _ in OF_THE_SPEC:
        for finding in found_by(values):
            if finding.field == field and field not in (
                "kv_cache_tokens",
                "embedding_sharding_dim",
            ):
                assert finding.source, str(finding)
