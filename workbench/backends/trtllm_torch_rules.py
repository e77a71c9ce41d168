"""What the `tensorrt_llm_torch` backend refuses, warns of, or says has no effect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.backends.code_rules import code_rules
from workbench.backends.request_limits import room_rules
from workbench.backends.trtllm_model_rules import revision_rule, scaled_context, tokenizer_rule
from workbench.rules import Finding

if TYPE_CHECKING:
    from workbench.backends.tensorrt_llm_torch import TorchSpec
    from workbench.gpus import Gpu
    from workbench.model import Model


STATED = ("su", "longrope", "llama3", "yarn")
"""Kinds of rotary scaling whose lengthened context stands in max_position_embeddings, as
infer_max_seq_len in tensorrt_llm _torch/models/modeling_utils.py takes them."""


def findings(spec: TorchSpec, model: Model | None, gpus: Sequence[Gpu]) -> list[Finding]:
    """Apply the rules of this backend; those on model and GPUs only where there are any."""
    found = [*code_rules(spec, model), *room_rules(spec), *_limit_rules(spec)]
    found += _model_rules(spec, model) if model else []
    found += _gpu_rules(spec, gpus) if gpus else []
    return found + (_cache_rules(spec, model, gpus) if model else [])


def _limit_rules(spec: TorchSpec) -> list[Finding]:
    found = []
    if not spec.enable_chunked_prefill and spec.max_input_len > spec.max_num_tokens:
        found.append(
            Finding(
                "warn",
                "max_num_tokens",
                f"without chunked prefill a prompt longer than {spec.max_num_tokens} tokens is "
                "refused by the runtime.",
                "Raise max_num_tokens to max_input_len, or switch chunked prefill on.",
                (("enable_chunked_prefill", True),),
                "tensorrt_llm llmapi/llm.py _check_arguments",
            )
        )
    return found


def _model_rules(spec: TorchSpec, model: Model) -> list[Finding]:
    found = [*tokenizer_rule(model), *revision_rule(spec)]
    context = scaled_context(model, STATED)
    if context and spec.sequence_limit > context:
        found.append(
            Finding(
                "warn",
                "max_seq_len",
                f"{spec.sequence_limit} tokens are beyond the model's context of {context}. The "
                f"runtime lowers max_seq_len to {context} with no more than a line in its log; "
                "longer requests are refused or end early.",
                "Lower max_input_len, max_output_len or max_seq_len.",
                (("max_seq_len", context),),
                "tensorrt_llm _torch/pyexecutor/model_engine.py _init_max_seq_len",
            )
        )
    if model.heads % spec.tp_size:
        found.append(
            Finding(
                "refuse",
                "tp_size",
                f"the model's {model.heads} attention heads cannot be shared among "
                f"{spec.tp_size} GPUs.",
                "Use a tp_size that divides them.",
                (("tp_size", 1),),
                "tensorrt_llm _torch/modules/attention.py",
            )
        )
    return found


def _gpu_rules(spec: TorchSpec, gpus: Sequence[Gpu]) -> list[Finding]:
    found = []
    wanted = spec.tp_size * spec.pp_size
    if wanted > len(gpus):
        found.append(
            Finding(
                "refuse",
                "tp_size" if spec.tp_size > len(gpus) else "pp_size",
                f"tp_size {spec.tp_size} x pp_size {spec.pp_size} needs {wanted} GPUs; "
                f"{len(gpus)} {'is' if len(gpus) == 1 else 'are'} here.",
                f"Use tp_size x pp_size of at most {len(gpus)}.",
                (("tp_size", 1), ("pp_size", 1)),
                "tensorrt_llm mapping.py",
            )
        )
    # The oldest of those that the ranks would run on decides.
    gpu = min(gpus[:wanted], key=lambda one: one.sm)
    if spec.dtype == "bfloat16" and gpu.sm < 80:
        found.append(
            Finding(
                "refuse",
                "dtype",
                f"{gpu.name} (sm{gpu.sm}) has no bfloat16.",
                "Use float16.",
                (("dtype", "float16"),),
                "tensorrt_llm llmapi/llm_args.py validate_dtype",
            )
        )
    return found


def _cache_rules(spec: TorchSpec, model: Model, gpus: Sequence[Gpu]) -> list[Finding]:
    """Rules for the KV cache that the checkpoint asks for, unless the spec says another."""
    wanted = model.kv_cache_type if spec.kv_cache_dtype == "auto" else ""
    old = [gpu for gpu in gpus[: spec.tp_size * spec.pp_size] if gpu.sm < 100]
    if wanted == "int8":
        why = "the checkpoint asks for a KV cache in int8, which this backend does not have."
    elif wanted == "nvfp4" and old:
        why = (
            f"the checkpoint asks for a KV cache in nvfp4, and {old[0].name} (sm{old[0].sm}) does "
            "not compute in FP4; Blackwell (sm100) does."
        )
    else:
        return []
    return [
        Finding(
            "refuse",
            "kv_cache_dtype",
            why,
            "Use fp8.",
            (("kv_cache_dtype", "fp8"),),
            "tensorrt_llm _torch/pyexecutor/resource_manager.py; docs features/quantization.md",
        )
    ]
