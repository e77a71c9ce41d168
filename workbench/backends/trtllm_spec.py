"""The spec of backend `tensorrt_llm`: flags of trtllm-build, conversion and session in one record.

Parents are listed from the last to the first that a form shows: pydantic orders the fields of
several parents from right to left.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from workbench.backends.trtllm_conversion import ConversionParameters
from workbench.backends.trtllm_flags import FlagParameters, ShapeParameters
from workbench.backends.trtllm_llm_parameters import (
    block_reuse,
    cache_share,
    chunked_prefill,
    guided_decoding,
)
from workbench.backends.trtllm_plugins import PluginParameters
from workbench.errors import SpecError
from workbench.spec import BuildSpec, parameter


class SessionParameters(BuildSpec):
    """What a session gives to the runtime when it loads the engine."""

    kv_cache_free_gpu_memory_fraction: float = cache_share()
    kv_cache_tokens: int | None = parameter(
        None,
        ge=1,
        help="Most tokens that the KV cache holds for all requests together.",
        unit="tokens",
        group="KV cache",
        none_means="as many as the free memory holds",
        source="tensorrt_llm llmapi/llm_args.py KvCacheConfig.max_tokens",
    )
    enable_block_reuse: bool = block_reuse()
    enable_chunked_context: bool = chunked_prefill("tensorrt_llm runtime/model_runner_cpp.py")
    runtime: Literal["llm_api", "model_runner_cpp"] = parameter(
        "llm_api",
        help="What runs the engine: TensorRT-LLM's LLM class, or ModelRunnerCpp below it.",
        group="Advanced",
        source="tensorrt_llm _tensorrt_engine and runtime/model_runner_cpp.py",
    )
    gpu_weights_percent: float = parameter(
        1.0,
        ge=0,
        le=1,
        help="Share of the weights that stays on the GPU, with weight_streaming.",
        group="Advanced",
        source="tensorrt_llm runtime/model_runner_cpp.py",
    )
    guided_decoding_backend: Literal["none", "xgrammar"] = guided_decoding(
        "tensorrt_llm llmapi/llm_args.py BaseLlmArgs"
    )


class TensorRtLlmSpec(
    SessionParameters, FlagParameters, PluginParameters, ConversionParameters, ShapeParameters
):
    """Build parameters of the `tensorrt_llm` backend."""

    backend: Literal["tensorrt_llm"] = "tensorrt_llm"

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Make a spec from plain values; see `Declared.parse`.

        Raises:
            SpecError: As there; for a name that trtllm-build or its examples once had, or that
                the workbench sets by itself, the sentence says what takes its place.
        """
        elsewhere = cls.gone_names()
        sentences = [f"'{name}' {elsewhere[name]}" for name in values if name in elsewhere]
        try:
            spec = super().parse({n: v for n, v in values.items() if n not in elsewhere})
        except SpecError as error:
            raise SpecError("\n".join([*sentences, str(error)])) from None
        if sentences:
            raise SpecError("\n".join(sentences))
        return spec

    @classmethod
    def gone_names(cls) -> Mapping[str, str]:
        """Return names of other releases and scripts, and of what the workbench sets by itself."""
        return OLD_NAMES | MANAGED

    def local_paths(self) -> dict[str, list[Path]]:
        """Return the directories of LoRA adapters, and that of calibration texts if it is one."""
        found = {}
        if self.lora_dir:
            parts = (part.strip() for part in self.lora_dir.split(","))
            found["lora_dir"] = [Path(part).expanduser() for part in parts if part]
        if self.calibrated_by and Path(self.calib_dataset).is_dir():
            found["calib_dataset"] = [Path(self.calib_dataset)]
        return found

    @property
    def sequence_limit(self) -> int | None:
        """Longest prompt plus output of one request, in tokens; None leaves it to the model."""
        if self.max_seq_len is None and self.max_output_len is not None:
            return self.max_input_len + self.max_output_len
        return self.max_seq_len


def _own(cls: type[BuildSpec]) -> list[str]:
    return [name for name in cls.model_fields if name not in BuildSpec.model_fields]


BUILD_FLAGS = tuple(
    name
    for parent in (ShapeParameters, PluginParameters, FlagParameters)
    for name in _own(parent)
    if name != "max_output_len"
)
"""The parameters that are flags of trtllm-build, under the same names."""

MANAGED: dict[str, str] = {
    "checkpoint_dir": "is set by the workbench: the checkpoint that it converted.",
    "output_dir": "is set by the workbench: the engine is published into the store.",
    "model_config": "is no parameter: it would build an engine with random weights.",
    "build_config": "is no parameter: such a file would override what this form shows.",
    "input_timing_cache": "is set by the workbench: it belongs to one GPU kind and version.",
    "output_timing_cache": "is set by the workbench: it belongs to one GPU kind and version.",
    "dry_run": "is no parameter: the rules check a spec without a build.",
    "model_cls_file": "is no parameter: code of your own would not be part of the engine's key.",
    "model_cls_name": "is no parameter: code of your own would not be part of the engine's key.",
    "paged_kv_cache": "is deprecated in trtllm-build; use kv_cache_type.",
    "visualize_network": "is no parameter: it exports the network for debugging.",
}
"""Flags of trtllm-build that are no parameters here, with the reason."""

_SCRIPTS = "which trtllm-build replaced in 0.8"

OLD_NAMES: dict[str, str] = {
    # The examples' build.py.
    "use_gpt_attention_plugin": f"was a flag of build.py, {_SCRIPTS}; use gpt_attention_plugin.",
    "use_gemm_plugin": f"was a flag of build.py, {_SCRIPTS}; use gemm_plugin.",
    "enable_context_fmha": f"was a flag of build.py, {_SCRIPTS}; use context_fmha='enable'.",
    "use_inflight_batching": f"was a flag of build.py, {_SCRIPTS}; in-flight batching is on with "
    "the defaults of gpt_attention_plugin, kv_cache_type and remove_input_padding.",
    "world_size": "is gone from trtllm-build since 0.9; it follows from tp_size and pp_size.",
    "use_prompt_tuning": "is gone since 0.9; use max_prompt_embedding_table_size.",
    # trtllm-build.
    "strongly_typed": "is gone from trtllm-build since 0.11; engines always are.",
    "attention_qk_half_accumulation": "is gone from trtllm-build since 0.11.",
    "use_context_fmha_for_generation": "is gone from trtllm-build since 0.11.",
    "weight_only_precision": "is gone from trtllm-build since 0.11; use quantization='int8_wo' or "
    "'int4_wo'.",
    "multi_block_mode": "is no build flag since 0.12; the runtime decides.",
    "context_fmha_fp32_acc": "is no build flag of decoders since 0.12; the runtime decides.",
    "use_custom_all_reduce": "is gone from trtllm-build since 0.12.",
    "cp_size": "is gone from trtllm-build since 0.12; use tp_size and pp_size.",
    "builder_opt": "is gone from trtllm-build since 0.14.",
    "builder_force_num_profiles": "is the environment variable BUILDER_FORCE_NUM_PROFILES since "
    "0.15; use multiple_profiles.",
    "enable_xqa": "is gone from trtllm-build since 0.16.",
    "lookup_plugin": "is gone from trtllm-build since 0.20 at the latest.",
    "auto_parallel": "is gone from trtllm-build after 1.0; use tp_size and pp_size.",
    "max_decoder_seq_len": "is another name of max_seq_len; use that one.",
    "max_multimodal_len": "is another name of max_prompt_embedding_table_size; use that one.",
    # The examples' convert_checkpoint.py and quantize.py, whose work the workbench does.
    "use_weight_only": "is a flag of convert_checkpoint.py; use quantization='int8_wo' or "
    "'int4_wo'.",
    "use_fp8": "is a flag of convert_checkpoint.py; use quantization='fp8'.",
    "use_fp8_rowwise": "is a flag of convert_checkpoint.py; use quantization='fp8_rowwise'.",
    "use_nvfp4": "is a flag of convert_checkpoint.py; use quantization='nvfp4'.",
    "smoothquant": "is a flag of convert_checkpoint.py; use quantization='int8_sq' with "
    "smoothquant_val.",
    "per_channel": "is a flag of convert_checkpoint.py; quantization='int8_sq' with "
    "smoothquant_val has scales a channel.",
    "per_token": "is a flag of convert_checkpoint.py; quantization='int8_sq' with "
    "smoothquant_val has scales a token.",
    "int8_kv_cache": "is a flag of convert_checkpoint.py; use kv_cache_dtype='int8'.",
    "fp8_kv_cache": "is a flag of convert_checkpoint.py; use kv_cache_dtype='fp8'.",
    "group_size": "is a flag of convert_checkpoint.py; use awq_block_size.",
    "qformat": "is a flag of quantize.py; use quantization.",
    # The runtime.
    "free_gpu_memory_fraction": "is kv_cache_free_gpu_memory_fraction here, as in trtllm-serve.",
    "max_tokens_in_paged_kv_cache": "is a name of ModelRunnerCpp; use kv_cache_tokens.",
    "kv_cache_enable_block_reuse": "is a name of ModelRunnerCpp; use enable_block_reuse.",
    "enable_chunked_prefill": "is the LLM API's name of enable_chunked_context; use that one.",
    "tensor_parallel_size": "is the LLM API's name of tp_size; use that one.",
    "pipeline_parallel_size": "is the LLM API's name of pp_size; use that one.",
}
"""Names that articles, scripts and older versions use, with what takes their place.

Sources: TensorRT-LLM's release notes 0.9 to 1.0, issues 1019 and 1203, commands/build.py and the
examples' convert_checkpoint.py.
"""
