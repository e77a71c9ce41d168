"""Rules on sessions: what the runtime switches off or refuses for an engine that was built so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from workbench.backends.trtllm_precision_rules import paged_context
from workbench.backends.trtllm_spec import TensorRtLlmSpec
from workbench.rules import Finding

if TYPE_CHECKING:
    from workbench.gpus import Gpu

UNRUN = "is published without having been run: the stage smoke is skipped."
"""What becomes of an engine that `not_runnable` speaks of; the findings on it say so."""

_RUNTIME = "TensorRT-LLM batch_manager/trtGptModelInflightBatching.cpp"


def not_runnable(spec: TensorRtLlmSpec, gpus: Sequence[Gpu]) -> str:
    """Say in one sentence why an engine of a spec cannot be loaded on this machine, or nothing.

    Args:
        spec: The parameters.
        gpus: All of this machine.
    """
    if spec.strip_plan:
        return "it has no weights until trtllm-refit puts them back."
    if spec.kv_cache_type == "disabled":
        return "without a KV cache it reads prompts only and cannot generate."
    if spec.world_size > len(gpus):
        return f"it needs {spec.world_size} GPUs, and this machine has {len(gpus)}."
    return ""


def session_rules(spec: TensorRtLlmSpec) -> Iterator[Finding]:
    """Apply the rules on what the runtime is given."""
    limit = spec.sequence_limit
    if spec.kv_cache_tokens is not None and limit and spec.kv_cache_tokens < limit:
        yield Finding(
            "warn",
            "kv_cache_tokens",
            f"the KV cache holds {spec.kv_cache_tokens} tokens, but one request may need {limit}.",
            f"Use at least {limit}, or lower max_seq_len.",
            (("kv_cache_tokens", limit),),
        )
    paged = paged_context(spec)
    if spec.enable_chunked_context and not paged:
        yield Finding(
            "refuse",
            "enable_chunked_context",
            "it needs a paged KV cache and paged context FMHA, which this engine will not have.",
            "Switch it off, or see use_paged_context_fmha.",
            (("enable_chunked_context", False),),
            _RUNTIME,
        )
    if spec.enable_block_reuse and not paged:
        yield Finding(
            "ignored",
            "enable_block_reuse",
            "it needs paged context FMHA, which this engine will not have; the runtime switches "
            "reuse off.",
            "See use_paged_context_fmha and kv_cache_type, or switch it off.",
            (("enable_block_reuse", False),),
            _RUNTIME,
        )
    elif spec.enable_block_reuse and (spec.gather_context_logits or spec.gather_all_token_logits):
        yield Finding(
            "ignored",
            "enable_block_reuse",
            "an engine that returns the logits of prompts computes each prompt in full; the "
            "runtime switches reuse off.",
            "Leave out the logits of prompts, or switch it off.",
            (("enable_block_reuse", False),),
            _RUNTIME,
        )
    if spec.speculative_decoding_mode == "draft_tokens_external" and not spec.enable_block_reuse:
        yield Finding(
            "refuse",
            "enable_block_reuse",
            "a session whose draft tokens come from outside does not start without it.",
            "Switch it on.",
            (("enable_block_reuse", True),),
            _RUNTIME,
        )
    if spec.guided_decoding_backend != "none" and spec.runtime == "model_runner_cpp":
        yield Finding(
            "ignored",
            "guided_decoding_backend",
            "ModelRunnerCpp has no such setting.",
            "Use runtime llm_api.",
            (("runtime", "llm_api"),),
            "tensorrt_llm runtime/model_runner_cpp.py",
        )
    yield from _weight_streaming_rules(spec)


def _weight_streaming_rules(spec: TensorRtLlmSpec) -> Iterator[Finding]:
    if spec.weight_streaming and spec.gemm_plugin not in (None, "disable"):
        yield Finding(
            "warn",
            "gemm_plugin",
            "weight_streaming cannot stream the weights of plugins.",
            "Disable it.",
            (("gemm_plugin", "disable"),),
            "TensorRT-LLM docs advanced/weight-streaming.md",
        )
    if spec.gpu_weights_percent >= 1:
        return
    if not spec.weight_streaming:
        yield Finding(
            "ignored",
            "gpu_weights_percent",
            "the engine is built without weight_streaming and keeps all weights on the GPU.",
            "Switch weight_streaming on, or use 1.",
            (("weight_streaming", True),),
            "TensorRT-LLM docs advanced/weight-streaming.md",
        )
    elif spec.runtime == "llm_api":
        yield Finding(
            "ignored",
            "gpu_weights_percent",
            "the LLM API has no such setting.",
            "Use runtime model_runner_cpp.",
            (("runtime", "model_runner_cpp"),),
            "tensorrt_llm runtime/model_runner_cpp.py",
        )
