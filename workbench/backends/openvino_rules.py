"""What the `openvino` backend refuses, warns of, or says has no effect."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from workbench import hardware
from workbench.backends.code_rules import code_rules
from workbench.backends.request_limits import room_rules
from workbench.memory import BLOCK_TOKENS, computes_bfloat16
from workbench.model import Model
from workbench.rules import Finding

if TYPE_CHECKING:
    from workbench.backends.openvino import OpenVinoSpec

COMPARED = (
    "Gemma3ForCausalLM",
    "LlamaForCausalLM",
    "Phi3ForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
)
"""Architectures whose float32 engines give the tokens of transformers, as the tests show."""


def findings(spec: OpenVinoSpec, model: Model | None) -> list[Finding]:
    """Apply the rules of this backend; those that need the model only where there is one."""
    found = [
        *code_rules(spec, model),
        *room_rules(spec),
        *_shape_rules(spec),
        *_precision_rules(spec),
    ]
    return found + _model_rules(spec, model) if model else found


def _shape_rules(spec: OpenVinoSpec) -> list[Finding]:
    found = []
    limit = spec.sequence_limit
    if spec.max_seq_len and spec.max_seq_len > spec.max_input_len + spec.max_output_len:
        reach = spec.max_input_len + spec.max_output_len
        found.append(
            Finding(
                "ignored",
                "max_seq_len",
                f"no request can be longer than max_input_len + max_output_len = {reach} tokens.",
                "Leave it empty, or raise one of the two.",
                (("max_seq_len", None),),
            )
        )
    if spec.kv_cache_tokens is not None and spec.kv_cache_tokens < limit:
        found.append(
            Finding(
                "warn",
                "kv_cache_tokens",
                f"the KV cache holds {spec.kv_blocks * BLOCK_TOKENS} tokens, but one request may "
                f"need {limit}; longer ones will be refused.",
                f"Use at least {limit}, or lower max_seq_len.",
                (("kv_cache_tokens", -(-limit // BLOCK_TOKENS) * BLOCK_TOKENS),),
            )
        )
    if not spec.enable_chunked_prefill and spec.max_num_tokens < spec.max_input_len:
        found.append(
            Finding(
                "refuse",
                "max_num_tokens",
                f"without chunked prefill a prompt of {spec.max_input_len} tokens must fit into "
                f"one step of {spec.max_num_tokens}.",
                "Raise max_num_tokens to max_input_len, or switch chunked prefill on.",
                (("enable_chunked_prefill", True),),
                "OpenVINO GenAI SchedulerConfig.dynamic_split_fuse",
            )
        )
    return found


def _precision_rules(spec: OpenVinoSpec) -> list[Finding]:
    found = []
    if spec.dtype == "bfloat16" and not computes_bfloat16(hardware.host()):
        found.append(
            Finding(
                "warn",
                "dtype",
                "this machine's processor has no instructions for bfloat16, so OpenVINO converts "
                "to and from it at each operation.",
                "Use float32, which was a fifth faster where this was tried.",
                (("dtype", "float32"),),
                "tried with OpenVINO 2026.4 on a Xeon with AVX512_VNNI alone",
            )
        )
    other = {"float32": "bfloat16", "bfloat16": "float32"}[spec.dtype]
    if spec.kv_cache_dtype == other:
        found.append(
            Finding(
                "refuse",
                "kv_cache_dtype",
                f"OpenVINO's paged attention computes in {spec.dtype} and cannot read a "
                f"{other} KV cache.",
                f"Use auto, float16 or int8 with dtype {spec.dtype}.",
                (("kv_cache_dtype", "auto"),),
                "tried with OpenVINO 2026.4 on CPU",
            )
        )
    if spec.quantization != "int4" and spec.group_size != 64:
        found.append(
            Finding(
                "ignored",
                "group_size",
                f"only int4 has groups; quantization is {spec.quantization}.",
                "Choose int4 to use it.",
                (("group_size", 64),),
            )
        )
    if spec.quantization in ("none", "fp16") and spec.symmetric:
        found.append(
            Finding(
                "ignored",
                "symmetric",
                f"weights stored as {spec.quantization} are not quantized.",
                "Choose int8 or int4 to use it.",
                (("symmetric", False),),
            )
        )
    return found


def _model_rules(spec: OpenVinoSpec, model: Model) -> list[Finding]:
    found = []
    if model.architecture not in COMPARED:
        found.append(
            Finding(
                "warn",
                "model",
                f"{model.architecture} was not compared with transformers on this backend.",
                "Compare its answers before you rely on them. Compared were: "
                + ", ".join(COMPARED)
                + ".",
            )
        )
    if model.context_length and spec.sequence_limit > model.context_length:
        found.append(
            Finding(
                "refuse",
                "max_seq_len",
                f"{spec.sequence_limit} tokens are beyond the model's context of "
                f"{model.context_length}.",
                f"Lower max_input_len, max_output_len or max_seq_len, so that a request has at "
                f"most {model.context_length}.",
                (("max_seq_len", model.context_length),),
            )
        )
    if model.path and not (model.path / "tokenizer.json").is_file():
        found.append(
            Finding(
                "refuse",
                "model",
                "it has no tokenizer.json.",
                "Make one where transformers and sentencepiece are installed: "
                "AutoTokenizer.from_pretrained(directory).save_pretrained(directory).",
            )
        )
    if spec.revision and (spec.model == "demo" or Path(spec.model).is_dir()):
        found.append(
            Finding(
                "ignored",
                "revision",
                "a local directory has no revisions.",
                "Leave it empty.",
                (("revision", None),),
            )
        )
    size = spec.group_size
    if spec.quantization == "int4" and size > 0:
        wrong = [n for n in (model.hidden_size, model.intermediate_size) if n and n % size]
        if wrong:
            found.append(
                Finding(
                    "refuse",
                    "group_size",
                    f"groups of {size} do not divide the model's channels ({wrong[0]}).",
                    "Use a group size that divides them, or -1.",
                    (("group_size", -1),),
                    "NNCF compress_weights refuses it",
                )
            )
    if spec.quantization == "int4" and model.parameters < 100_000_000:
        found.append(
            Finding(
                "warn",
                "quantization",
                "int4 costs a small model much of its quality.",
                "Use int8 for models below some hundred million parameters.",
                (("quantization", "int8"),),
            )
        )
    return found
