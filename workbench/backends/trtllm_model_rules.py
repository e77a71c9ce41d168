"""Rules on a model: whether TensorRT-LLM knows it, and whether it can be shared as asked."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from workbench.backends.trtllm_conversion import STORED
from workbench.backends.trtllm_models import GEMMA, GPT, LLAMA, MODEL_MAP, QWEN, RECURRENT
from workbench.backends.trtllm_spec import TensorRtLlmSpec
from workbench.model import Model
from workbench.rules import Finding
from workbench.spec import BuildSpec

_BUILD = "tensorrt_llm commands/build.py"
_BUILDER = "tensorrt_llm builder.py"
_CONVERT = "TensorRT-LLM examples convert_checkpoint.py"

REDUCE_FUSION = ("LlamaForCausalLM", "Gemma2ForCausalLM", "MedusaForCausalLM")
"""Architectures that reduce_fusion is kept for (tensorrt_llm builder.py build())."""


def model_rules(spec: TensorRtLlmSpec, model: Model) -> Iterator[Finding]:
    """Apply the rules that need the model."""
    if model.architecture not in MODEL_MAP:
        yield _unknown(model)
    yield from tokenizer_rule(model)
    yield from revision_rule(spec)
    yield from _context_rules(spec, model)
    yield from _parallel_rules(spec, model)
    yield from _architecture_rules(spec, model)
    if model.quantized_with:
        yield from _stored_rules(spec, model)
    else:
        yield from _calibration_rules(spec, model)
    if MODEL_MAP.get(model.architecture) == LLAMA and spec.load_by_shard and not spec.calibrated_by:
        yield Finding(
            "ignored",
            "load_by_shard",
            "the reader for this family reads weight by weight anyway.",
            "Leave it out.",
            (("load_by_shard", False),),
            "tensorrt_llm models/llama/model.py",
        )


DEFAULT_INPUT_LEN: Any = TensorRtLlmSpec.model_fields["max_input_len"].default


def is_packed(spec: TensorRtLlmSpec) -> bool:
    """Whether an engine has no limit of its own for the prompt (builder.py _init_max_seq_len)."""
    return spec.remove_input_padding == "enable" and spec.context_fmha == "enable"


def input_limit_asked_for(spec: TensorRtLlmSpec) -> bool:
    """Whether max_input_len matters: somebody set it, or the engine depends on it."""
    return spec.max_input_len != DEFAULT_INPUT_LEN or not is_packed(spec)


TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
"""Files of which a checkpoint has at least one; the first is taken as it is."""


def tokenizer_rule(model: Model) -> Iterator[Finding]:
    """Refuse a checkpoint without a tokenizer: an engine could not be talked with."""
    if model.path and not any((model.path / name).is_file() for name in TOKENIZERS):
        yield Finding(
            "refuse",
            "model",
            "it has no tokenizer.",
            "Put its tokenizer.json beside the weights.",
        )


def revision_rule(spec: BuildSpec) -> Iterator[Finding]:
    """Say that a revision of what is no repository has no effect."""
    if spec.revision and (spec.model == "demo" or Path(spec.model).expanduser().is_dir()):
        yield Finding(
            "ignored",
            "revision",
            "a local directory has no revisions.",
            "Leave it empty.",
            (("revision", None),),
        )


def _unknown(model: Model) -> Finding:
    relatives = _relatives(model.architecture)
    return Finding(
        "refuse",
        "model",
        f"TensorRT-LLM's engines do not know the architecture {model.architecture}"
        + (f", only {', '.join(relatives)}." if relatives else "."),
        "Use a model of a known family, or another backend, such as tensorrt_llm_torch.",
        (),
        "tensorrt_llm models/__init__.py MODEL_MAP",
    )


def _relatives(architecture: str) -> list[str]:
    """Return known architectures of a similar family, which stands before the task in a name."""
    families = {name: name.partition("For")[0] for name in MODEL_MAP if "ForCausalLM" in name}
    family = architecture.partition("For")[0]
    near = difflib.get_close_matches(family, set(families.values()), n=3, cutoff=0.75)
    return [name for name, known in families.items() if known in near]


def _context_rules(spec: TensorRtLlmSpec, model: Model) -> Iterator[Finding]:
    context = scaled_context(model, STATED)
    limit = spec.sequence_limit
    if not context:
        return
    if limit is not None and limit > context:
        field = "max_seq_len" if spec.max_seq_len is not None else "max_output_len"
        yield Finding(
            "warn",
            field,
            f"requests of {limit} tokens are beyond the model's context of {context}; answers may "
            "become poor.",
            f"Use a max_seq_len of at most {context}.",
            (("max_seq_len", context),),
            f"{_BUILDER} _init_max_seq_len",
        )
    if limit is None and spec.max_input_len > context and input_limit_asked_for(spec):
        yield Finding(
            "warn",
            "max_input_len",
            f"it is above the model's context of {context}, which max_seq_len becomes, and will "
            "be clipped to it.",
            f"Use less than {context}.",
            (),
            f"{_BUILDER} _init_max_seq_len",
        )


STATED = ("su", "longrope", "llama3")
"""Kinds of rotary scaling whose lengthened context stands in max_position_embeddings, as
_init_max_seq_len in tensorrt_llm builder.py takes them."""


def scaled_context(model: Model, stated: tuple[str, ...]) -> int:
    """Return the context that TensorRT-LLM takes a model to have, in tokens; 0 where it is unknown.

    Args:
        model: The model; rotary scaling lengthens what it states.
        stated: Kinds of scaling that do not, as what is stated has been lengthened already.
    """
    text = model.config.get("text_config", model.config)
    scaling = text.get("rope_scaling") or {}
    factor = scaling.get("factor", 1.0)
    if scaling.get("type", scaling.get("rope_type")) in stated or not isinstance(
        factor, int | float
    ):
        return model.context_length
    return math.ceil(model.context_length * factor)


def _parallel_rules(spec: TensorRtLlmSpec, model: Model) -> Iterator[Finding]:
    if model.heads % spec.tp_size:
        yield Finding(
            "refuse",
            "tp_size",
            f"{model.heads} attention heads cannot be shared evenly by {spec.tp_size} GPUs.",
            f"Use a number that divides {model.heads}.",
            (),
            "tensorrt_llm layers/attention.py",
        )
    elif spec.tp_size > model.kv_heads > 0:
        even = spec.tp_size % model.kv_heads == 0
        yield Finding(
            "warn" if even else "refuse",
            "tp_size",
            f"the model has {model.kv_heads} heads for keys and values, so that {spec.tp_size} "
            + ("GPUs hold copies of them." if even else "GPUs cannot hold even copies of them."),
            f"Use at most {model.kv_heads} to share the KV cache in full.",
            (),
            "tensorrt_llm layers/attention.py and layers/linear.py",
        )
    tensor, expert = _expert_mapping(spec)
    if tensor * expert != spec.tp_size:
        yield Finding(
            "refuse",
            "moe_ep_size" if spec.moe_ep_size else "moe_tp_size",
            f"moe_tp_size {tensor} x moe_ep_size {expert} is not tp_size {spec.tp_size}.",
            "Leave one of them empty, and let the other divide tp_size.",
            (("moe_tp_size", None), ("moe_ep_size", None)),
            "tensorrt_llm mapping.py",
        )
    if spec.tp_size > 1 and model.architecture not in REDUCE_FUSION:
        if spec.reduce_fusion == "enable":
            yield _overridden("reduce_fusion", model, "Llama and Gemma 2")
        if spec.reduce_fusion == spec.user_buffer == "enable":
            yield _overridden("user_buffer", model, "Llama")
    if spec.norm_quant_fusion == "enable" and model.architecture != "LlamaForCausalLM":
        yield _overridden("norm_quant_fusion", model, "Llama")


def _expert_mapping(spec: TensorRtLlmSpec) -> tuple[int, int]:
    """Return moe_tp_size and moe_ep_size as mapping.py completes them."""
    if spec.moe_tp_size is None:
        expert = spec.moe_ep_size or 1
        return spec.tp_size // expert, expert
    if spec.moe_ep_size is None:
        return spec.moe_tp_size, spec.tp_size // spec.moe_tp_size
    return spec.moe_tp_size, spec.moe_ep_size


def _overridden(field: str, model: Model, families: str) -> Finding:
    return Finding(
        "ignored",
        field,
        f"it is for {families}; for {model.architecture} it will be overridden.",
        "Disable it.",
        ((field, "disable"),),
        _BUILDER,
    )


def _architecture_rules(spec: TensorRtLlmSpec, model: Model) -> Iterator[Finding]:
    if spec.pp_reduce_scatter == "enable" and model.architecture != "MixtralForCausalLM":
        yield Finding(
            "refuse",
            "pp_reduce_scatter",
            f"it is for Mixtral only; this is {model.architecture}.",
            "Disable it.",
            (("pp_reduce_scatter", "disable"),),
            _BUILD,
        )
    if spec.speculative_decoding_mode == "eagle" and model.architecture != "EagleForCausalLM":
        yield Finding(
            "refuse",
            "speculative_decoding_mode",
            f"EAGLE needs a checkpoint with EAGLE layers; this is {model.architecture}.",
            "Leave it empty, or use another mode.",
            (("speculative_decoding_mode", None),),
            _BUILDER,
        )
    if model.architecture in RECURRENT:
        yield from _recurrent_rules(spec)
    elif spec.paged_state == "disable":
        yield Finding(
            "ignored",
            "paged_state",
            f"{model.architecture} has no recurrent state.",
            "Leave it enabled.",
            (("paged_state", "enable"),),
            f"{_BUILDER} update_kv_cache_type",
        )


def _recurrent_rules(spec: TensorRtLlmSpec) -> Iterator[Finding]:
    runtime = "TensorRT-LLM batch_manager/trtGptModelInflightBatching.cpp"
    if spec.kv_cache_type is not None:
        paged = spec.kv_cache_type == "paged"
        if paged != (spec.paged_state == "enable"):
            yield Finding(
                "refuse",
                "kv_cache_type",
                f"{spec.kv_cache_type} contradicts paged_state {spec.paged_state}, which decides "
                "for recurrent models.",
                "Leave it empty.",
                (("kv_cache_type", None),),
                f"{_BUILDER} update_kv_cache_type",
            )
    rows = [
        ("max_beam_width", spec.max_beam_width > 1, 1, "beam search"),
        ("enable_chunked_context", spec.enable_chunked_context, False, "chunked context"),
        (
            "speculative_decoding_mode",
            spec.speculative_decoding_mode is not None,
            None,
            "speculative decoding",
        ),
    ]
    for field, wanted, value, what in rows:
        if wanted:
            yield Finding(
                "refuse",
                field,
                f"the runtime does not support {what} for recurrent models.",
                f"Use {'none' if value is None else value}.",
                ((field, value),),
                runtime,
            )


def _stored_rules(spec: TensorRtLlmSpec, model: Model) -> Iterator[Finding]:
    """Rules for a checkpoint whose weights are quantized already."""
    method = model.quantized_with
    plain = "Use the model's checkpoint with plain weights."
    family = MODEL_MAP.get(model.architecture)
    readers = (LLAMA,) if method == "fbgemm_fp8" else (LLAMA, QWEN)
    if method not in STORED or family not in readers:
        yield Finding(
            "refuse",
            "model",
            f"its weights are already quantized with {method}, which the conversion of "
            f"{model.architecture} does not read.",
            plain,
            (),
            _CONVERT,
        )
        return
    for field, default in (("quantization", "none"), ("kv_cache_dtype", "auto")):
        if getattr(spec, field) != default:
            yield Finding(
                "refuse",
                field,
                f"the model's weights are already quantized with {method}; they are taken as "
                "they are.",
                f"Use {default}, or the model's checkpoint with plain weights.",
                ((field, default),),
                _CONVERT,
            )
    details = model.config["quantization_config"]
    if method == "gptq" and details.get("desc_act"):
        yield Finding(
            "refuse", "model", "GPTQ weights with desc_act are not supported.", plain, (), _CONVERT
        )
    if details.get("bits", 4) != 4:
        yield Finding(
            "refuse",
            "model",
            f"{method} weights of {details['bits']} bits are not supported, only 4.",
            plain,
            (),
            _CONVERT,
        )


def _calibration_rules(spec: TensorRtLlmSpec, model: Model) -> Iterator[Finding]:
    family = MODEL_MAP.get(model.architecture)
    if family is None:
        return
    field = "kv_cache_dtype" if spec.kv_cache_dtype == "int8" else "smoothquant_val"
    default = "auto" if field == "kv_cache_dtype" else None
    if spec.calibrated_by == "tensorrt_llm" and family not in (LLAMA, QWEN, GPT):
        yield Finding(
            "refuse",
            field,
            f"TensorRT-LLM has no calibration of its own for {model.architecture}.",
            "Leave it, or use a quantization that ModelOpt calibrates, such as fp8 or int4_awq.",
            ((field, default),),
            "tensorrt_llm models/modeling_utils.py PretrainedModel.quantize",
        )
    elif spec.calibrated_by == "tensorrt_llm" and family in (QWEN, GPT):
        for name in ("calib_size", "calib_max_seq_length"):
            if getattr(spec, name) != 512:
                yield Finding(
                    "ignored",
                    name,
                    f"the calibration of {model.architecture} takes only calib_dataset.",
                    "Leave it.",
                    ((name, 512),),
                    "tensorrt_llm models/qwen/model.py and models/gpt/model.py",
                )
    if family == GEMMA:
        yield from _gemma_rules(spec)


def _gemma_rules(spec: TensorRtLlmSpec) -> Iterator[Finding]:
    source = "tensorrt_llm models/gemma/model.py"
    if spec.quantization in ("int8_wo", "int4_wo", "fp8_rowwise") and not spec.calibrated_by:
        yield Finding(
            "warn",
            "quantization",
            "the reader for Gemma does not quantize weights by itself, so that the conversion is "
            "likely to fail.",
            "Use fp8, int4_awq or int8_sq.",
            (),
            source,
        )
    if spec.quantization == "nvfp4" or (
        spec.quantization == "none" and spec.kv_cache_dtype == "fp8"
    ):
        field = "quantization" if spec.quantization == "nvfp4" else "kv_cache_dtype"
        yield Finding(
            "refuse",
            field,
            "the calibration of Gemma knows fp8, int4_awq, w4a8_awq and int8_sq only.",
            "Use one of them.",
            (("quantization", "fp8"),),
            source,
        )
