"""What the `tensorrt_llm_torch` backend refuses, warns of, or says has no effect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from workbench.backends.trtllm_model_rules import tokenizer_rule
from workbench.rules import Finding

if TYPE_CHECKING:
    from workbench.backends.tensorrt_llm_torch import TorchSpec
    from workbench.gpus import Gpu
    from workbench.model import Model


def findings(spec: TorchSpec, model: Model | None, gpus: Sequence[Gpu]) -> list[Finding]:
    """Apply the rules of this backend; those on model and GPUs only where there are any."""
    found = _limit_rules(spec)
    found += _model_rules(spec, model) if model else []
    return found + (_gpu_rules(spec, gpus) if gpus else [])


def _limit_rules(spec: TorchSpec) -> list[Finding]:
    found = []
    limit = spec.sequence_limit
    if spec.max_input_len >= limit:
        found.append(
            Finding(
                "refuse",
                "max_input_len",
                f"a prompt of {spec.max_input_len} tokens leaves no room for output within "
                f"max_seq_len {limit}.",
                f"Use at most {limit - 1}, or raise max_seq_len.",
                (("max_input_len", limit - 1),),
            )
        )
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
    found = list(tokenizer_rule(model))
    if model.context_length and spec.sequence_limit > model.context_length:
        found.append(
            Finding(
                "warn",
                "max_seq_len",
                f"{spec.sequence_limit} tokens are beyond the model's context of "
                f"{model.context_length}; answers get worse there.",
                "Lower max_input_len, max_output_len or max_seq_len.",
                (("max_seq_len", model.context_length),),
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
                "tensorrt_llm layers/attention.py",
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
                "tp_size",
                f"tp_size {spec.tp_size} x pp_size {spec.pp_size} needs {wanted} GPUs; "
                f"{len(gpus)} {'is' if len(gpus) == 1 else 'are'} here.",
                "Lower tp_size or pp_size.",
                (("tp_size", 1), ("pp_size", 1)),
            )
        )
    sm = min(gpu.sm for gpu in gpus)
    if spec.dtype == "bfloat16" and sm < 80:
        found.append(
            Finding(
                "refuse",
                "dtype",
                f"{gpus[0].name} (sm{sm}) has no bfloat16.",
                "Use float16.",
                (("dtype", "float16"),),
                "tensorrt_llm llmapi/llm_args.py validate_dtype",
            )
        )
    if spec.kv_cache_dtype == "fp8" and sm < 89:
        found.append(
            Finding(
                "refuse",
                "kv_cache_dtype",
                f"{gpus[0].name} (sm{sm}) has no FP8; it begins with Ada (sm89).",
                "Use auto.",
                (("kv_cache_dtype", "auto"),),
                "TensorRT-LLM's quantization support matrix",
            )
        )
    return found
