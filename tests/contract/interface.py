"""The interface of TensorRT-LLM 1.2 that the workbench relies on, as plain data.

Names, choices, defaults and log lines; the stand-in of `standin/` is made from them, so it can
promise no more than this page does. Each part names the module of the library that it was read in.
It runs in every toolchain: standard library only, Python 3.10.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any


class KVCacheType(str, Enum):  # noqa: UP042 - the library's own class, and StrEnum is not in 3.10
    """The values of --kv_cache_type, in any case (tensorrt_llm llmapi/kv_cache_type.py)."""

    CONTINUOUS = "continuous"
    PAGED = "paged"
    DISABLED = "disabled"

    @classmethod
    def _missing_(cls, value: object) -> KVCacheType | None:
        return next((kind for kind in cls if kind.value == str(value).lower()), None)


@dataclass(frozen=True)
class Flag:
    """One flag of trtllm-build; `absent` means that the namespace has no such name by default."""

    name: str
    type: Any = str
    choices: tuple[str, ...] | None = None
    default: Any = None
    alias: str | None = None
    switch: bool = False
    several: bool = False
    absent: bool = False

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Add it as argparse wants it."""
        names = [f"--{name}" for name in (self.name, self.alias) if name]
        default = argparse.SUPPRESS if self.absent else self.default
        if self.switch:
            parser.add_argument(*names, dest=self.name, action="store_true", default=default)
            return
        parser.add_argument(
            *names,
            dest=self.name,
            type=self.type,
            choices=self.choices,
            default=default,
            nargs="+" if self.several else None,
        )


# tensorrt_llm lora_manager.py. Later versions know more; these are in every one since 1.0.
LORA_MODULES = (
    *("attn_qkv", "attn_q", "attn_k", "attn_v", "attn_dense"),
    *("mlp_h_to_4h", "mlp_4h_to_h", "mlp_gate"),
    *("cross_attn_qkv", "cross_attn_q", "cross_attn_k", "cross_attn_v", "cross_attn_dense"),
    *("moe_h_to_4h", "moe_4h_to_h", "moe_gate", "moe_router", "mlp_router", "mlp_gate_up"),
)
LOG_LEVELS = ("internal_error", "error", "warning", "info", "verbose", "debug", "trace")
SPECULATION = (
    *("draft_tokens_external", "lookahead_decoding", "medusa"),
    *("explicit_draft_tokens", "eagle"),
)

# tensorrt_llm commands/build.py, in its order.
BUILD_FLAGS = (
    Flag("checkpoint_dir"),
    Flag("model_config"),
    Flag("build_config"),
    Flag("model_cls_file"),
    Flag("model_cls_name"),
    Flag("output_dir", default="engine_outputs"),
    Flag("max_batch_size", int, default=2048),
    Flag("max_input_len", int, default=1024),
    Flag("max_seq_len", int, alias="max_decoder_seq_len"),
    Flag("max_beam_width", int, default=1),
    Flag("max_num_tokens", int, default=8192),
    Flag("opt_num_tokens", int),
    Flag("max_encoder_input_len", int, default=1024),
    Flag("max_prompt_embedding_table_size", int, default=0, alias="max_multimodal_len"),
    Flag("kv_cache_type", KVCacheType, absent=True),
    Flag("paged_kv_cache", absent=True),
    Flag("input_timing_cache"),
    Flag("output_timing_cache", default="model.cache"),
    Flag(
        "profiling_verbosity",
        choices=("layer_names_only", "detailed", "none"),
        default="layer_names_only",
    ),
    Flag("strip_plan", default=False, switch=True),
    Flag("weight_sparsity", default=False, switch=True),
    Flag("weight_streaming", default=False, switch=True),
    Flag("fast_build", default=False, switch=True),
    Flag("workers", int, default=1),
    Flag("log_level", choices=LOG_LEVELS, default="info"),
    Flag("enable_debug_output", default=False, switch=True),
    Flag("visualize_network"),
    Flag("dry_run", default=False, switch=True),
    Flag("monitor_memory", default=False, switch=True),
    Flag("logits_dtype", choices=("float16", "float32")),
    Flag("gather_context_logits", default=False, switch=True),
    Flag("gather_generation_logits", default=False, switch=True),
    Flag("gather_all_token_logits", default=False, switch=True),
    Flag("lora_dir", several=True),
    Flag("lora_ckpt_source", choices=("hf", "nemo"), default="hf"),
    Flag("lora_target_modules", choices=LORA_MODULES, several=True),
    Flag("max_lora_rank", int, default=64),
    Flag("speculative_decoding_mode", choices=SPECULATION),
    Flag("max_draft_len", int, default=0),
)

DTYPES = ("auto", "float16", "float32", "bfloat16", "int32", "disable")
ON_OFF = ("enable", "disable")
FP8 = ("fp8", "disable")

# tensorrt_llm plugin/plugin.py: the fields of PluginConfig in their order, with choices and
# default; choices None means that no flag sets it.
PLUGINS: dict[str, tuple[tuple[str, ...] | None, Any]] = {
    "dtype": (None, "float16"),
    "bert_attention_plugin": (DTYPES, "auto"),
    "gpt_attention_plugin": (DTYPES, "auto"),
    "gemm_plugin": ((*DTYPES[:-1], "fp8", "nvfp4", "disable"), None),
    "gemm_swiglu_plugin": (FP8, "disable"),
    "fp8_rowwise_gemm_plugin": (DTYPES, "disable"),
    "qserve_gemm_plugin": (None, None),
    "identity_plugin": (None, None),
    "nccl_plugin": (DTYPES, "auto"),
    "lora_plugin": (DTYPES, "disable"),
    "dora_plugin": (ON_OFF, "disable"),
    "weight_only_groupwise_quant_matmul_plugin": (None, None),
    "weight_only_quant_matmul_plugin": (None, None),
    "smooth_quant_plugins": (None, True),
    "smooth_quant_gemm_plugin": (None, None),
    "layernorm_quantization_plugin": (None, None),
    "rmsnorm_quantization_plugin": (None, None),
    "quantize_per_token_plugin": (None, False),
    "quantize_tensor_plugin": (None, False),
    "moe_plugin": (DTYPES, "auto"),
    "mamba_conv1d_plugin": (DTYPES, "auto"),
    "low_latency_gemm_plugin": (FP8, "disable"),
    "low_latency_gemm_swiglu_plugin": (FP8, "disable"),
    "gemm_allreduce_plugin": (("float16", "bfloat16", "disable"), "disable"),
    "context_fmha": (ON_OFF, "enable"),
    "bert_context_fmha_fp32_acc": (ON_OFF, "disable"),
    "paged_kv_cache": (None, None),
    "remove_input_padding": (ON_OFF, "enable"),
    "norm_quant_fusion": (ON_OFF, "disable"),
    "reduce_fusion": (ON_OFF, "disable"),
    "user_buffer": (ON_OFF, "disable"),
    "tokens_per_block": ((), 32),
    "use_paged_context_fmha": (ON_OFF, "enable"),
    "use_fp8_context_fmha": (ON_OFF, "enable"),
    "fuse_fp4_quant": (ON_OFF, "disable"),
    "multiple_profiles": (ON_OFF, "disable"),
    "paged_state": (ON_OFF, "enable"),
    "streamingllm": (ON_OFF, "disable"),
    "manage_weights": (None, False),
    "use_fused_mlp": (ON_OFF, "enable"),
    "pp_reduce_scatter": (ON_OFF, "disable"),
}


def plugin_value(name: str, text: Any) -> Any:
    """Return what PluginConfig makes of a flag's value: enable, disable or a type."""
    switch = PLUGINS[name][0] == ON_OFF or isinstance(PLUGINS[name][1], bool)
    if text == "enable":
        return True
    if text == "disable":
        return False if switch or name == "paged_kv_cache" else None
    return text


def _plugin_flags() -> Iterator[Flag]:
    for name, (choices, default) in PLUGINS.items():
        if choices is not None:
            kind = int if isinstance(default, int) else str
            yield Flag(name, kind, choices or None, default)


FLAGS = (*BUILD_FLAGS, *_plugin_flags())


def parser() -> argparse.ArgumentParser:
    """Return trtllm-build's parser; stricter in one thing: a flag must be written in full."""
    made = argparse.ArgumentParser(prog="trtllm-build", allow_abbrev=False)
    for flag in FLAGS:
        flag.add_to(made)
    return made


# Parameters as they are declared, by name of the function: (module, parameters).
SIGNATURES = {
    "AutoModelForCausalLM.from_hugging_face": (
        "tensorrt_llm.models.automodel",
        "hf_model_or_dir, dtype='auto', mapping=None, quant_config=None, **kwargs",
    ),
    # It takes only a directory, and returns the class that has `quantize`.
    "AutoModelForCausalLM.get_trtllm_model_class": (
        "tensorrt_llm.models.automodel",
        "hf_model_or_dir, trust_remote_code=False, decoding_mode=None",
    ),
    "PretrainedModel.save_checkpoint": (
        "tensorrt_llm.models.modeling_utils",
        "self, output_dir, save_config=True",
    ),
    "PretrainedModel.quantize": (
        "tensorrt_llm.models.modeling_utils",
        (
            "cls, hf_model_dir, output_dir, dtype='auto', mapping=None, quant_config=None, *, "
            "device='cuda', calib_dataset='cnn_dailymail', calib_batches=512, calib_batch_size=1, "
            "calib_max_seq_length=512, random_seed=1234, tokenizer_max_seq_length=2048, **kwargs"
        ),
    ),
    "quantize_and_export": (
        "tensorrt_llm.quantization.quantize_by_modelopt",
        (
            "*, model_dir, device, calib_dataset, dtype, qformat, kv_cache_dtype, calib_size, "
            "batch_size, calib_max_seq_length, awq_block_size, output_dir, tp_size, pp_size, "
            "cp_size, seed, tokenizer_max_seq_length, num_medusa_heads=None, "
            "num_medusa_layers=None, max_draft_len=None, medusa_hidden_act=None, "
            "medusa_model_dir=None, quant_medusa_head=None, auto_quantize_bits=None, "
            "device_map='auto', quantize_lm_head=False"
        ),
    ),
    "Mapping": (
        "tensorrt_llm.mapping",
        (
            "self, world_size=1, rank=0, gpus_per_node=8, *, cp_size=1, cp_config=None, tp_size=1, "
            "pp_size=1, pp_partition=None, moe_cluster_size=-1, moe_tp_size=-1, moe_ep_size=-1, "
            "attn_tp_size=-1, attn_cp_size=-1, enable_attention_dp=False, "
            "enable_lm_head_tp_in_adp=False"
        ),
    ),
    "Builder.create_builder_config": (
        "tensorrt_llm.builder",
        (
            "self, precision, timing_cache=None, tensor_parallel=1, use_refit=False, int8=False, "
            "strongly_typed=True, force_num_profiles=None, profiling_verbosity='layer_names_only', "
            "use_strip_plan=False, weight_streaming=False, precision_constraints='obey', **kwargs"
        ),
    ),
    "LLM": (
        "tensorrt_llm._tensorrt_engine",
        (
            "self, model, tokenizer=None, tokenizer_mode='auto', skip_tokenizer_init=False, "
            "trust_remote_code=False, tensor_parallel_size=1, dtype='auto', revision=None, "
            "tokenizer_revision=None, **kwargs"
        ),
    ),
    "LLM.generate_async": (
        "tensorrt_llm._tensorrt_engine",
        (
            "self, inputs, sampling_params=None, lora_request=None, prompt_adapter_request=None, "
            "streaming=False, kv_cache_retention_config=None, disaggregated_params=None, "
            "trace_headers=None, _postproc_params=None, scheduling_params=None, cache_salt=None"
        ),
    ),
    "ModelRunnerCpp.from_dir": (
        "tensorrt_llm.runtime.model_runner_cpp",
        (
            "cls, engine_dir, *, lora_dir=None, rank=0, max_batch_size=None, max_input_len=None, "
            "max_output_len=None, max_beam_width=None, max_attention_window_size=None, "
            "sink_token_length=None, kv_cache_free_gpu_memory_fraction=None, "
            "cross_kv_cache_fraction=None, medusa_choices=None, eagle_choices=None, "
            "eagle_posterior_threshold=None, eagle_use_dynamic_tree=False, "
            "eagle_dynamic_tree_max_top_k=None, lookahead_config=None, debug_mode=False, "
            "lora_ckpt_source='hf', use_gpu_direct_storage=False, gpu_weights_percent=1, "
            "max_tokens_in_paged_kv_cache=None, kv_cache_enable_block_reuse=False, "
            "enable_chunked_context=False, is_enc_dec=False, multi_block_mode=True, "
            "enable_context_fmha_fp32_acc=None, cuda_graph_mode=None, logits_processor_map=None, "
            "device_ids=None, is_orchestrator_mode=False, use_runtime_defaults=True, "
            "gather_generation_logits=False, use_variable_beam_width_search=False, "
            "mm_embedding_offloading=False, fail_fast_on_attention_window_too_large=False"
        ),
    ),
    "ModelRunnerCpp.generate": (
        "tensorrt_llm.runtime.model_runner_cpp",
        (
            "self, batch_input_ids, *, position_ids=None, encoder_input_ids=None, "
            "encoder_input_features=None, encoder_output_lengths=None, cross_attention_masks=None, "
            "mrope_params=None, sampling_config=None, lora_uids=None, lookahead_config=None, "
            "streaming=False, stopping_criteria=None, logits_processor_names=None, "
            "max_new_tokens=1, end_id=None, pad_id=None, bad_words_list=None, "
            "stop_words_list=None, return_dict=False, output_sequence_lengths=False, "
            "output_generation_logits=False, output_log_probs=False, output_cum_log_probs=False, "
            "prompt_table=None, prompt_tasks=None, input_token_extra_ids=None, "
            "return_all_generated_tokens=False, language_adapter_uids=None, "
            "mm_embedding_offloading=False, **kwargs"
        ),
    ),
}


def signature(name: str) -> inspect.Signature:
    """Return the signature of an entry of SIGNATURES."""
    scope: dict[str, Any] = {}
    exec(f"def declared({SIGNATURES[name][1]}): pass", scope)
    return inspect.signature(scope["declared"])
