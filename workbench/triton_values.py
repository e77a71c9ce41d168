"""What fills the templates of a Triton model repository: the values, from an engine's manifest.

The templates are NVIDIA's (`all_models/inflight_batcher_llm`) and come with its container. Names
of placeholders were read in triton-inference-server/tensorrtllm_backend r25.02 and r25.05
(TensorRT-LLM 0.17 and 0.19) and in NVIDIA/TensorRT-LLM `triton_backend/` at 0c8de69a (1.2.0rc8);
the files of 1.2.1 itself could not be read. What is empty counts as not given there: C++ takes the
default when std::stoi and its like refuse it (inflight_batcher_llm/src/model_state.cc and
model_instance_state.cc), Python compares with "" (preprocessing and tensorrt_llm_bls, 1/model.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from workbench import files
from workbench.engine import Engine
from workbench.errors import StoreError

MODELS = ("ensemble", "preprocessing", "tensorrt_llm", "postprocessing", "tensorrt_llm_bls")
"""The models of the layout `inflight_batcher_llm`."""

IMAGES = {
    "1.0.0": ("25.10", "10.11.0"),
    "1.1.0": ("26.02", "10.13.3"),
    "1.2.0": ("26.03", "10.14.1"),
    "1.2.1": ("26.06", "10.14.1"),
}
"""Triton's release and its TensorRT by release of TensorRT-LLM, the newest that has it
(triton-inference-server/server docs/introduction/compatibility.md). For 1.2.1 that is 26.07, of
which tensorrtllm_backend no longer documents engines, so that 26.06 is named."""

INSTANCES = 4
"""Most processes of each Python model: each holds a tokenizer, and BLS one request."""

_TYPES = {"float16": "TYPE_FP16", "bfloat16": "TYPE_BF16", "float32": "TYPE_FP32"}

_UNUSED = {
    "preprocessing": (
        "hf_model_path",
        "max_num_images",
        "multimodal_model_path",
        "visual_model_path",
    ),
    "tensorrt_llm_bls": ("multimodal_encoders_name", "tensorrt_llm_draft_model_name"),
    "tensorrt_llm": (
        "cancellation_check_period_ms",
        "cross_kv_cache_fraction",
        "cuda_graph_cache_size",
        "cuda_graph_mode",
        "decoding_mode",
        "eagle_choices",
        "enable_context_fmha_fp32_acc",
        "enable_trt_overlap",
        "encoder_engine_dir",
        "gpu_device_ids",
        "guided_decoding_backend",
        "iter_stats_max_iterations",
        "kv_cache_host_memory_bytes",
        "kv_cache_onboard_blocks",
        "lookahead_ngram_size",
        "lookahead_verification_set_size",
        "lookahead_window_size",
        "lora_cache_gpu_memory_fraction",
        "lora_cache_host_memory_bytes",
        "lora_cache_max_adapter_size",
        "lora_cache_optimal_adapter_size",
        "lora_prefetch_dir",
        "max_attention_window_size",
        "medusa_choices",
        "multi_block_mode",
        "normalize_log_probs",
        "num_nodes",
        "participant_ids",
        "recv_poll_period_ms",
        "request_stats_max_iterations",
        "sink_token_length",
        "speculative_decoding_fast_logits",
        "stats_check_period_ms",
        "tokenizer_dir",
        "xgrammar_tokenizer_info_path",
    ),
}
"""Placeholders that stay empty, and need not be there: releases differ in them."""


def tensorrt_release(version: str) -> str:
    """Return the release of a version of TensorRT; NVIDIA's wheels have a fourth number or not."""
    return ".".join(version.split(".")[:3])


def image(engine: Engine) -> str:
    """Return NVIDIA's container that has the engine's versions.

    Raises:
        StoreError: None is known, or it has another TensorRT.
    """
    versions = engine.manifest["identity"]["toolchain"]
    version = str(versions["tensorrt-llm"])
    if version not in IMAGES:
        raise StoreError(
            f"The engine {engine.key} was built by tensorrt-llm {version}, and no Triton container "
            f"of NVIDIA's is known that has it. Those with {', '.join(IMAGES)} are."
        )
    release, tensorrt = IMAGES[version]
    tag = f"nvcr.io/nvidia/tritonserver:{release}-trtllm-python-py3"
    built = str(versions.get("tensorrt", ""))
    if tensorrt_release(built) != tensorrt:
        raise StoreError(
            f"The engine {engine.key} was built with TensorRT {built or 'unknown'}, and {tag} has "
            f"{tensorrt}, which cannot load it. Build it again with TensorRT {tensorrt}."
        )
    return tag


def values(engine: Engine) -> dict[str, dict[str, dict[str, str]]]:
    """Return what fills the templates, by model and placeholder.

    `must` are values whose placeholder must be there, `may` those where releases differ. Folders
    are relative to the export.
    """
    limits = engine.limits
    batch = {"triton_max_batch_size": str(limits["max_batch_size"])}
    queue = {"max_queue_delay_microseconds": "0", "max_queue_size": "0"}
    logits = {"logits_datatype": _TYPES[str(_spec(engine).get("logits_dtype") or "float32")]}
    tokenizer = {"tokenizer_dir": "engine/tokenizer"}
    count = str(min(INSTANCES, limits["max_batch_size"]))
    table = {"prompt_embedding_table_data_type": _TYPES.get(_dtype(engine), "TYPE_FP16")}
    must = {
        "ensemble": {**batch, **logits},
        "preprocessing": {
            **batch,
            **queue,
            **tokenizer,
            "engine_dir": "engine",
            "add_special_tokens": _word(not _has_chat_template(engine)),
            "preprocessing_instance_count": count,
        },
        "tensorrt_llm": {**batch, **queue, **logits, **_runtime(limits)},
        "postprocessing": {
            **batch,
            **tokenizer,
            "skip_special_tokens": "true",
            "postprocessing_instance_count": count,
        },
        "tensorrt_llm_bls": {
            **batch,
            **logits,
            "decoupled_mode": "true",
            # Otherwise each piece of a stream is the whole text so far.
            "accumulate_tokens": "false",
            "tensorrt_llm_model_name": "tensorrt_llm",
            "bls_instance_count": count,
        },
    }
    may = {name: dict.fromkeys(_UNUSED.get(name, ()), "") for name in MODELS}
    for name in ("tensorrt_llm", "tensorrt_llm_bls"):
        may[name] |= table
    return {"must": must, "may": may}


def _runtime(limits: Mapping[str, Any]) -> dict[str, str]:
    """Return what the model `tensorrt_llm` is told: the same as a session of the engine."""
    tokens = limits.get("kv_cache_tokens")
    return {
        "triton_backend": "tensorrtllm",
        "engine_dir": "engine",
        # Without it a request that streams is refused.
        "decoupled_mode": "true",
        "batching_strategy": "inflight_fused_batching",
        "batch_scheduler_policy": "guaranteed_no_evict",
        "exclude_input_in_output": "true",
        "encoder_input_features_data_type": "TYPE_FP16",
        "max_beam_width": str(limits["max_beam_width"]),
        "kv_cache_free_gpu_mem_fraction": str(limits["kv_cache_free_gpu_memory_fraction"]),
        "max_tokens_in_paged_kv_cache": "" if tokens is None else str(tokens),
        "enable_kv_cache_reuse": _word(limits.get("enable_block_reuse", True)),
        "enable_chunked_context": _word(limits.get("enable_chunked_context", False)),
        "gpu_weights_percent": str(limits.get("gpu_weights_percent", 1.0)),
    }


def _spec(engine: Engine) -> Mapping[str, Any]:
    spec: Mapping[str, Any] = engine.manifest["identity"]["spec"]
    return spec


def _dtype(engine: Engine) -> str:
    return str(engine.manifest.get("facts", {}).get("dtype") or _spec(engine).get("dtype"))


def _word(value: bool) -> str:
    return "true" if value else "false"


def _has_chat_template(engine: Engine) -> bool:
    """Say whether prompts come with a chat template, which writes the special tokens itself."""
    if "tokenizer/chat_template.jinja" in engine.manifest["files"]:
        return True
    data = files.read_file(engine.path / "tokenizer" / "tokenizer_config.json") or b"{}"
    return bool(json.loads(data).get("chat_template"))
