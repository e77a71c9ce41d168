"""What the `tensorrt_llm` backend refuses, warns of, or says has no effect.

TensorRT-LLM itself refuses some combinations after minutes, and clips or overrides others with a
line in its log. The rules say it before. What is overridden at its default, so that nobody asked
for it, is no finding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.backends.code_rules import code_rules
from workbench.backends.trtllm_command import listed
from workbench.backends.trtllm_file_rules import file_rules
from workbench.backends.trtllm_flags import LORA_MODULES
from workbench.backends.trtllm_gpu_rules import gpu_rules
from workbench.backends.trtllm_model_rules import (
    DEFAULT_INPUT_LEN,
    input_limit_asked_for,
    is_packed,
    model_rules,
)
from workbench.backends.trtllm_precision_rules import precision_rules
from workbench.backends.trtllm_session_rules import UNRUN, session_rules
from workbench.backends.trtllm_spec import TensorRtLlmSpec
from workbench.model import Model
from workbench.rules import Finding
from workbench.spec import nearest

if TYPE_CHECKING:
    from workbench.gpus import Gpu

_BUILD = "tensorrt_llm commands/build.py"
_BUILDER = "tensorrt_llm builder.py"
_TOKENS = "tensorrt_llm _common.py check_max_num_tokens"


def findings(spec: TensorRtLlmSpec, model: Model | None, gpus: Sequence[Gpu] = ()) -> list[Finding]:
    """Apply the rules; those on the model and on GPUs only where there are such."""
    found = [
        *code_rules(spec, model),
        *_length_rules(spec),
        *_token_rules(spec),
        *_build_rules(spec),
        *_decoding_rules(spec),
        *_lora_rules(spec),
        *file_rules(spec),
        *precision_rules(spec, model),
        *session_rules(spec),
    ]
    if model:
        found += model_rules(spec, model)
    return [*found, *gpu_rules(spec, model, gpus)] if gpus else found


def _length_rules(spec: TensorRtLlmSpec) -> Iterator[Finding]:
    limit = spec.sequence_limit
    if spec.max_output_len is not None:
        if spec.max_seq_len is None:
            reason = (
                "trtllm-build has no max_output_len since 0.12; max_seq_len = "
                f"{spec.max_input_len} + {spec.max_output_len} = {limit} is used."
            )
        else:
            reason = f"max_seq_len {spec.max_seq_len} is given, and it alone counts."
        yield Finding(
            "ignored",
            "max_output_len",
            reason,
            f"Set max_seq_len to {limit} and leave this empty.",
            (("max_seq_len", limit), ("max_output_len", None)),
            "TensorRT-LLM release notes 0.12.0",
        )
    if limit is not None and spec.max_input_len > limit and input_limit_asked_for(spec):
        yield Finding(
            "warn",
            "max_input_len",
            f"it is above max_seq_len {limit} and will be clipped to it, which leaves no room for "
            "output.",
            "Raise max_seq_len to the longest prompt plus output.",
            (),
            f"{_BUILDER} _init_max_seq_len",
        )
    elif (
        is_packed(spec)
        and spec.max_input_len != DEFAULT_INPUT_LEN
        and spec.max_output_len is None
        and spec.runtime == "llm_api"
    ):
        yield Finding(
            "ignored",
            "max_input_len",
            "with remove_input_padding and context_fmha an engine has no limit of its own for "
            "the prompt.",
            "Use max_seq_len and max_num_tokens to limit it, or give max_output_len too.",
            (("max_input_len", DEFAULT_INPUT_LEN),),
            f"{_BUILDER} _init_max_seq_len",
        )


def _token_rules(spec: TensorRtLlmSpec) -> Iterator[Finding]:
    """Follow check_max_num_tokens in its own order: each correction is seen by the next."""
    limit = spec.sequence_limit
    tokens = spec.max_num_tokens
    longest = min(spec.max_input_len, limit or spec.max_input_len)
    if spec.remove_input_padding == "disable":
        product = f" = {spec.max_batch_size * limit}" if limit else ""
        yield Finding(
            "ignored",
            "max_num_tokens",
            "without remove_input_padding the engine takes max_batch_size x max_seq_len"
            f"{product} instead.",
            "Enable remove_input_padding to use it.",
            (("remove_input_padding", "enable"),),
            _TOKENS,
        )
        return
    if tokens > 16384:
        yield Finding(
            "warn",
            "max_num_tokens",
            f"{tokens} is more than 16384, above which nothing is gained and the runtime may fail.",
            "Use at most 16384.",
            (("max_num_tokens", 16384),),
            _TOKENS,
        )
    if limit and tokens > limit * spec.max_batch_size:
        tokens = limit * spec.max_batch_size
        yield _clipped("max_num_tokens", "lowered", tokens, "max_seq_len x max_batch_size")
    if tokens < longest and spec.context_fmha == "disable":
        tokens = longest
        yield _clipped(
            "max_num_tokens", "raised", tokens, "max_input_len, as context_fmha is disabled"
        )
    elif tokens < spec.tokens_per_block and spec.context_fmha == "enable":
        tokens = spec.tokens_per_block
        yield Finding(
            "warn",
            "max_num_tokens",
            f"it will be raised to {tokens}, which is tokens_per_block, and sessions then need "
            "enable_chunked_context.",
            f"Set it to {tokens} or more.",
            (("max_num_tokens", tokens),),
            _TOKENS,
        )
    if spec.opt_num_tokens is not None and spec.opt_num_tokens > tokens:
        yield _clipped("opt_num_tokens", "lowered", tokens, "max_num_tokens")
    if spec.max_batch_size > tokens:
        yield Finding(
            "warn",
            "max_batch_size",
            f"{spec.max_batch_size} requests cannot advance together in steps of {tokens} tokens.",
            f"Raise max_num_tokens, or use at most {tokens}.",
            (("max_batch_size", tokens),),
            "tensorrt_llm llmapi/llm_args.py validate_runtime_args",
        )
    if is_packed(spec) and not spec.enable_chunked_context and tokens < longest:
        yield Finding(
            "warn",
            "max_num_tokens",
            f"a prompt of more than {tokens} tokens does not fit into one step and is refused at "
            "run time, although max_input_len is larger.",
            "Raise it to max_input_len, or switch enable_chunked_context on.",
            (("enable_chunked_context", True),),
            "TensorRT-LLM batch_manager/trtGptModel.h",
        )


def _clipped(field: str, how: str, value: int, which: str) -> Finding:
    return Finding(
        "ignored",
        field,
        f"the build will use {value}: it is {how} to {which}.",
        f"Set it to {value}.",
        ((field, value),),
        _TOKENS,
    )


def _build_rules(spec: TensorRtLlmSpec) -> Iterator[Finding]:
    if spec.multiple_profiles == "enable" and spec.opt_num_tokens is not None:
        yield Finding(
            "refuse",
            "opt_num_tokens",
            "it cannot be combined with multiple_profiles, which tunes for several numbers.",
            "Leave it empty.",
            (("opt_num_tokens", None),),
            _BUILD,
        )
    if spec.streamingllm == "enable":
        yield Finding(
            "refuse",
            "streamingllm",
            "StreamingLLM is no longer supported; the streaming of tokens needs no flag.",
            "Disable it.",
            (("streamingllm", "disable"),),
            _BUILD,
        )
    if spec.gather_generation_logits and not spec.gather_all_token_logits:
        yield Finding(
            "ignored",
            "gather_generation_logits",
            "trtllm-build takes it for deprecated, and compiles nothing for it.",
            "Leave it on where sessions shall give probabilities.",
            (),
            _BUILD,
        )
    if spec.strip_plan:
        yield Finding(
            "warn",
            "strip_plan",
            "the engine has no weights and cannot run until trtllm-refit puts them back; it "
            f"{UNRUN}",
            "Leave it out for an engine that is to run.",
            (("strip_plan", False),),
            _BUILD,
        )
    if spec.workers > 1 and spec.world_size == 1:
        yield Finding(
            "ignored",
            "workers",
            "one rank is built by one process.",
            "Use 1.",
            (("workers", 1),),
            f"{_BUILD} parallel_build",
        )
    if spec.nccl_plugin != "auto":
        yield Finding(
            "ignored",
            "nccl_plugin",
            "the build sets it to the model's dtype on several GPUs, and to none on one.",
            "Leave it at auto.",
            (("nccl_plugin", "auto"),),
            _BUILDER,
        )
    if spec.user_buffer == "enable" and (spec.reduce_fusion == "disable" or spec.tp_size == 1):
        yield Finding(
            "ignored",
            "user_buffer",
            "it needs reduce_fusion and tp_size above 1; it will be overridden.",
            "Disable it.",
            (("user_buffer", "disable"),),
            _BUILDER,
        )
    if spec.reduce_fusion == "enable" and spec.tp_size == 1:
        yield Finding(
            "ignored",
            "reduce_fusion",
            "with tp_size 1 nothing is summed over GPUs; it will be overridden.",
            "Disable it.",
            (("reduce_fusion", "disable"),),
            _BUILDER,
        )
    if spec.kv_cache_type == "disabled":
        yield Finding(
            "warn",
            "kv_cache_type",
            f"an engine without a KV cache reads prompts only; it cannot generate, and {UNRUN}",
            "Use paged.",
            (("kv_cache_type", "paged"),),
            _BUILD,
        )


def _decoding_rules(spec: TensorRtLlmSpec) -> Iterator[Finding]:
    if (spec.gather_context_logits or spec.gather_all_token_logits) and spec.max_draft_len > 0:
        field = "gather_context_logits" if spec.gather_context_logits else "gather_all_token_logits"
        yield Finding(
            "refuse",
            field,
            "the logits of prompts cannot be gathered with max_draft_len above 0.",
            "Leave it out, or set max_draft_len to 0.",
            ((field, False),),
            _BUILD,
        )
    mode = spec.speculative_decoding_mode
    if mode is None:
        return
    if spec.max_draft_len and spec.sequence_limit:
        raised = spec.sequence_limit + spec.max_draft_len
        yield Finding(
            "warn",
            "max_seq_len",
            f"the build will use {raised}: max_draft_len is added to it.",
            "Nothing needs to be done; requests may be as long as before.",
            (),
            _BUILDER,
        )
    needed = spec.max_batch_size * (spec.max_draft_len + 1)
    if spec.max_draft_len and spec.max_num_tokens < needed:
        yield Finding(
            "warn",
            "max_num_tokens",
            f"the build will use {needed}: max_batch_size x (max_draft_len + 1).",
            f"Set it to {needed}, or lower max_batch_size.",
            (("max_num_tokens", needed),),
            _BUILDER,
        )
    if mode == "eagle":
        for field, most in (("max_batch_size", 512), ("max_draft_len", 256)):
            if getattr(spec, field) > most:
                yield Finding(
                    "refuse",
                    field,
                    f"EAGLE supports at most {most}.",
                    f"Use at most {most}.",
                    ((field, most),),
                    _BUILDER,
                )
        if spec.use_paged_context_fmha == "disable":
            yield Finding(
                "ignored",
                "use_paged_context_fmha",
                "EAGLE needs it and will turn it on.",
                "Enable it.",
                (("use_paged_context_fmha", "enable"),),
                _BUILDER,
            )


def _lora_rules(spec: TensorRtLlmSpec) -> Iterator[Finding]:
    given = [f for f in ("lora_dir", "lora_target_modules") if getattr(spec, f) is not None]
    if spec.lora_plugin == "disable":
        for field in given:
            yield Finding(
                "ignored",
                field,
                "it has an effect only with lora_plugin.",
                "Set lora_plugin to auto.",
                (("lora_plugin", "auto"),),
                _BUILD,
            )
    elif not given and spec.lora_ckpt_source == "hf":
        yield Finding(
            "refuse",
            "lora_plugin",
            "nothing says which modules adapters may change.",
            "Give lora_target_modules, or lora_dir with an adapter to take them from.",
            (),
            "tensorrt_llm lora_manager.py load_hf_lora",
        )
    nemo = spec.lora_ckpt_source == "nemo"
    for name in listed(spec.lora_dir or ""):
        path = Path(name).expanduser()
        if not (path.is_file() if nemo else path.is_dir()):
            yield Finding(
                "refuse",
                "lora_dir",
                f"there is no {'file' if nemo else 'directory'} {name}.",
                "Give the archives of NeMo adapters, separated by commas."
                if nemo
                else "Give the directories of adapters, separated by commas.",
                (),
                "tensorrt_llm lora_manager.py",
            )
    for name in listed(spec.lora_target_modules or ""):
        if name not in LORA_MODULES:
            yield Finding(
                "refuse",
                "lora_target_modules",
                f"'{name}' is no module of TensorRT-LLM.{nearest(name, LORA_MODULES)}",
                f"Use some of {', '.join(LORA_MODULES)}.",
                (),
                "tensorrt_llm lora_manager.py LORA_MODULE_IDS",
            )
