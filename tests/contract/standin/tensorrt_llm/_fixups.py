"""What the library changes in a configuration before it builds, each with its warning."""

from __future__ import annotations

import math
from typing import Any

from ._settings import error, gpu, interface
from .logger import logger
from .mapping import Mapping

_FP8_WORKFLOWS = ("FP8", "W4A8_AWQ", "NVFP4")


def fix(config: dict[str, Any], build: Any) -> None:
    """Resolve and clip `build` for a checkpoint's configuration (tensorrt_llm builder.py, build).

    Raises:
        RuntimeError: The library refuses the combination on this GPU.
    """
    build.plugin_config.dtype = config["dtype"]
    _kv_cache_type(build)
    _sequence_length(config, build)
    _token_limits(build)
    _fusions(config, build)
    _context_attention(config, build)
    _blackwell(config)
    if (build.plugin_config.gemm_swiglu_plugin) and not build.plugin_config.use_fused_mlp:
        raise RuntimeError(error("swiglu_fused"))


def finish_plugins(config: dict[str, Any], build: Any) -> None:
    """Set the plugins that follow from the checkpoint, after TensorRT has been initialised."""
    plugins, algorithm = build.plugin_config, config["quantization"]["quant_algo"]
    if algorithm == "NVFP4" and not plugins.__dict__.get("explicitly_disabled_gemm"):
        logger.say("nvfp4_plugin")
        plugins.gemm_plugin = "nvfp4"
    if algorithm in ("W8A16", "W4A16"):
        plugins.weight_only_quant_matmul_plugin = config["dtype"]
    plugins.nccl_plugin = config["dtype"] if Mapping(**config["mapping"]).world_size > 1 else None


def _kv_cache_type(build: Any) -> None:
    kind, paged = build.kv_cache_type, build.plugin_config.paged_kv_cache
    if kind is None:
        paged = True if paged is None else paged
        name = "PAGED" if paged else "CONTINUOUS"
        build.kv_cache_type = interface.KVCacheType[name]
        build.plugin_config.paged_kv_cache = paged
    elif paged is None:
        build.plugin_config.paged_kv_cache = kind is interface.KVCacheType.PAGED
    else:
        assert paged == (kind is interface.KVCacheType.PAGED)
    if build.plugin_config.paged_state:
        logger.warn("overriding", field="paged_state", value=False)
    build.plugin_config.paged_state = False


def _sequence_length(config: dict[str, Any], build: Any) -> None:
    scaling = config.get("rotary_scaling") or {}
    kind = scaling.get("type", scaling.get("rope_type"))
    factor = 1 if kind in ("su", "longrope", "llama3") else scaling.get("factor", 1)
    positions = config["max_position_embeddings"]
    if build.max_seq_len is None:
        length = positions or 2048
        if factor != 1:
            length = math.ceil(length * factor)
            logger.warn("scaled", value=length, factor=factor)
        build.max_seq_len = int(length)
        logger.say("deduced", value=length)
    elif positions and build.max_seq_len > positions * factor:
        values = {"value": build.max_seq_len, "positions": positions, "factor": factor}
        logger.warn("beyond_positions", **values)
    if build.max_input_len > build.max_seq_len:
        logger.warn("clip_input", value=build.max_input_len, limit=build.max_seq_len)
        build.max_input_len = build.max_seq_len


def _token_limits(build: Any) -> None:
    plugins, total = build.plugin_config, build.max_seq_len * build.max_batch_size
    if not plugins.remove_input_padding:
        build.max_num_tokens = total
        logger.warn("tokens_ignored")
        return
    if build.opt_num_tokens is None and not plugins.multiple_profiles:
        build.opt_num_tokens = min(
            build.max_batch_size * build.max_beam_width, build.max_num_tokens
        )
        logger.warn("opt_tokens")
    if build.max_num_tokens > 16384:
        logger.warn("many_tokens", value=build.max_num_tokens)
    if build.max_num_tokens > total:
        logger.warn("clip_tokens", value=build.max_num_tokens, limit=total)
        build.max_num_tokens = total
    if build.max_num_tokens < build.max_input_len and not plugins.context_fmha:
        logger.warn("raise_to_input", value=build.max_num_tokens, limit=build.max_input_len)
        build.max_num_tokens = build.max_input_len
    elif build.max_num_tokens < plugins.tokens_per_block and plugins.context_fmha:
        logger.warn("raise_to_block", value=build.max_num_tokens, limit=plugins.tokens_per_block)
        build.max_num_tokens = plugins.tokens_per_block
    if build.opt_num_tokens is not None and build.opt_num_tokens > build.max_num_tokens:
        logger.warn("clip_opt", value=build.opt_num_tokens, limit=build.max_num_tokens)
        build.opt_num_tokens = build.max_num_tokens
    if plugins.context_fmha:
        logger.warn("input_ignored")


def _override(plugins: Any, name: str) -> None:
    logger.warn("overriding", field=name, value=False)
    setattr(plugins, name, False)


def _fusions(config: dict[str, Any], build: Any) -> None:
    plugins, architecture = build.plugin_config, config["architecture"]
    fusing = ("LlamaForCausalLM", "Gemma2ForCausalLM", "MedusaForCausalLM")
    if plugins.reduce_fusion and (config["mapping"]["tp_size"] == 1 or architecture not in fusing):
        _override(plugins, "reduce_fusion")
    if plugins.user_buffer and not plugins.reduce_fusion:
        _override(plugins, "user_buffer")
    nvfp4 = config["quantization"]["quant_algo"] == "NVFP4"
    if plugins.norm_quant_fusion and (
        plugins.reduce_fusion or architecture != "LlamaForCausalLM" or not nvfp4
    ):
        _override(plugins, "norm_quant_fusion")


def _context_attention(config: dict[str, Any], build: Any) -> None:
    plugins, quantization = build.plugin_config, config["quantization"]
    fp8_cache = quantization["kv_cache_quant_algo"] == "FP8"
    if not plugins.context_fmha:
        plugins.use_fp8_context_fmha = False
        plugins.use_paged_context_fmha = False
        logger.warn("no_fmha")
    elif quantization["quant_algo"] not in _FP8_WORKFLOWS or gpu().sm < 89:
        right = quantization["quant_algo"] in _FP8_WORKFLOWS
        if plugins.use_fp8_context_fmha or right:
            plugins.use_fp8_context_fmha = False
            logger.warn("old_gpu" if right else "no_fp8_quant")
        if plugins.use_paged_context_fmha and fp8_cache:
            plugins.use_paged_context_fmha = False
            logger.warn("no_fp8_paged")
    elif plugins.use_paged_context_fmha and plugins.use_fp8_context_fmha != fp8_cache:
        plugins.use_fp8_context_fmha = fp8_cache
        logger.warn("fp8_forced" if fp8_cache else "no_fp8_cache")
    if plugins.use_paged_context_fmha and quantization["kv_cache_quant_algo"] == "INT8":
        plugins.use_paged_context_fmha = False
        logger.warn("int8_cache")


def _blackwell(config: dict[str, Any]) -> None:
    quantization = config["quantization"]
    if not 100 <= gpu().sm < 120:
        return
    integers = ("W8A16", "W4A16", "W4A16_AWQ", "W4A16_GPTQ", "W8A16_GPTQ")
    if quantization["quant_algo"] in integers or quantization["kv_cache_quant_algo"] == "INT8":
        raise RuntimeError(error("int_on_blackwell"))
    if "W8A8_SQ" in (quantization["quant_algo"] or ""):
        raise RuntimeError(error("smooth_on_blackwell"))
