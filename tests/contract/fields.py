"""The fields of the library's records with their defaults, and the attributes that are read.

A default in quotation marks with angle brackets is an object that the library makes.
"""

from __future__ import annotations

import re
from typing import Any

# tensorrt_llm models/modeling_utils.py
QUANT_CONFIG: dict[str, Any] = {
    "quant_algo": None,
    "kv_cache_quant_algo": None,
    "group_size": 128,
    "smoothquant_val": 0.5,
    "clamp_val": None,
    "use_meta_recipe": False,
    "has_zero_point": False,
    "pre_quant_scale": False,
    "exclude_modules": None,
    "mamba_ssm_cache_dtype": None,
}

# tensorrt_llm quantization/mode.py
QUANT_ALGOS = (
    *("W8A16", "W4A16", "W4A16_AWQ", "W4A8_AWQ", "W8A16_GPTQ", "W4A16_GPTQ"),
    *("W8A8_SQ_PER_CHANNEL", "W8A8_SQ_PER_TENSOR_PLUGIN"),
    *("W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN", "W8A8_SQ_PER_CHANNEL_PER_TENSOR_PLUGIN"),
    *("W8A8_SQ_PER_TENSOR_PER_TOKEN_PLUGIN", "W4A8_QSERVE_PER_GROUP"),
    *("W4A8_QSERVE_PER_CHANNEL", "FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_BLOCK_SCALES"),
    *("INT8", "MIXED_PRECISION", "NVFP4", "W4A8_NVFP4_FP8", "W4A8_MXFP4_FP8"),
    *("W4A8_MXFP4_MXFP8", "W4A16_MXFP4", "NVFP4_AWQ", "NO_QUANT"),
)
# Those that Model.quantize hands to ModelOpt, by ModelOpt's names (modeling_utils.py).
MODELOPT_FORMATS = {
    "NVFP4": "nvfp4",
    "FP8": "fp8",
    "W4A16_AWQ": "int4_awq",
    "W4A8_AWQ": "w4a8_awq",
    "W8A8_SQ_PER_CHANNEL": "int8_sq",
}
UNCALIBRATED = ("W8A16", "W4A16", "FP8_PER_CHANNEL_PER_TOKEN")

# tensorrt_llm builder.py; plugin_config and lora_config are records of their own.
BUILD_CONFIG: dict[str, Any] = {
    "max_input_len": 1024,
    "max_seq_len": None,
    "opt_batch_size": 8,
    "max_batch_size": 2048,
    "max_beam_width": 1,
    "max_num_tokens": 8192,
    "opt_num_tokens": None,
    "max_prompt_embedding_table_size": 0,
    "kv_cache_type": None,
    "gather_context_logits": False,
    "gather_generation_logits": False,
    "strongly_typed": True,
    "force_num_profiles": None,
    "profiling_verbosity": "layer_names_only",
    "enable_debug_output": False,
    "max_draft_len": 0,
    "speculative_decoding_mode": 1,  # an IntFlag: NONE
    "use_refit": False,
    "input_timing_cache": None,
    "output_timing_cache": "model.cache",
    "lora_config": "<LoraConfig>",
    "weight_sparsity": False,
    "weight_streaming": False,
    "plugin_config": "<PluginConfig>",
    "use_strip_plan": False,
    "max_encoder_input_len": 1024,
    "dry_run": False,
    "visualize_network": None,
    "monitor_memory": False,
    "use_mrope": False,
}
# What config.json leaves out of it: no property of the engine.
NOT_IN_ENGINE = ("dry_run", "visualize_network")

# tensorrt_llm sampling_params.py; all by keyword.
SAMPLING_PARAMS: dict[str, Any] = {
    "end_id": None,
    "pad_id": None,
    "max_tokens": 32,
    "bad": None,
    "bad_token_ids": None,
    "stop": None,
    "stop_token_ids": None,
    "include_stop_str_in_output": False,
    "embedding_bias": None,
    "logits_processor": None,
    "apply_batched_logits_processor": False,
    "n": 1,
    "best_of": None,
    "use_beam_search": False,
    "logprobs_mode": "raw",
    "top_k": None,
    "top_p": None,
    "top_p_min": None,
    "top_p_reset_ids": None,
    "top_p_decay": None,
    "seed": None,
    "temperature": None,
    "min_tokens": None,
    "beam_search_diversity_rate": None,
    "repetition_penalty": None,
    "presence_penalty": None,
    "frequency_penalty": None,
    "prompt_ignore_length": None,
    "length_penalty": None,
    "early_stopping": None,
    "no_repeat_ngram_size": None,
    "min_p": None,
    "beam_width_array": None,
    "logprobs": None,
    "prompt_logprobs": None,
    "return_context_logits": False,
    "return_generation_logits": False,
    "exclude_input_from_output": True,
    "return_encoder_output": False,
    "return_perf_metrics": False,
    "additional_model_outputs": None,
    "lookahead_config": None,
    "guided_decoding": None,
    "ignore_eos": False,
    "detokenize": True,
    "add_special_tokens": True,
    "truncate_prompt_tokens": None,
    "skip_special_tokens": True,
    "spaces_between_special_tokens": True,
}

# tensorrt_llm sampling_params.py; all by keyword, at most one of them given.
GUIDED_DECODING_PARAMS: dict[str, Any] = {
    "json": None,  # a schema: text, a dictionary, or a pydantic model
    "regex": None,
    "grammar": None,
    "json_object": False,
    "structural_tag": None,
}
GUIDED_DECODING_BACKENDS = (None, "xgrammar", "llguidance")

# tensorrt_llm llmapi/llm_args.py; unknown names are refused.
KV_CACHE_CONFIG: dict[str, Any] = {
    "enable_block_reuse": True,
    "max_tokens": None,
    "max_attention_window": None,
    "sink_token_length": None,
    "free_gpu_memory_fraction": 0.9,
    "host_cache_size": None,
    "onboard_blocks": True,
    "cross_kv_cache_fraction": None,
    "secondary_offload_min_priority": None,
    "event_buffer_max_size": 0,
    "attention_dp_events_gather_period_ms": 5,
    "enable_partial_reuse": True,
    "copy_on_partial_reuse": True,
    "use_uvm": False,
    "max_gpu_total_bytes": 0,
    "dtype": "auto",
    "mamba_ssm_cache_dtype": "auto",
    "tokens_per_block": 32,
}

# tensorrt_llm llmapi/llm_args.py; unknown names are refused.
CUDA_GRAPH_CONFIG: dict[str, Any] = {
    "batch_sizes": None,
    "max_batch_size": 0,
    "enable_padding": False,
}

# tensorrt_llm llmapi/llm_args.py: what LLM(...) takes beside its named parameters, both backends.
LLM_ARGS: dict[str, Any] = {
    "custom_tokenizer": None,
    "model_kwargs": None,
    "pipeline_parallel_size": 1,
    "context_parallel_size": 1,
    "gpus_per_node": None,
    "moe_cluster_parallel_size": None,
    "moe_tensor_parallel_size": None,
    "moe_expert_parallel_size": None,
    "enable_attention_dp": False,
    "enable_lm_head_tp_in_adp": False,
    "pp_partition": None,
    "cp_config": "<dict>",
    "load_format": "auto",
    "fail_fast_on_attention_window_too_large": False,
    "enable_lora": False,
    "lora_config": None,
    "kv_cache_config": "<KvCacheConfig>",
    "enable_chunked_prefill": False,
    "guided_decoding_backend": None,
    "batched_logits_processor": None,
    "iter_stats_max_iterations": None,
    "request_stats_max_iterations": None,
    "peft_cache_config": None,
    "scheduler_config": "<SchedulerConfig>",
    "cache_transceiver_config": None,
    "sparse_attention_config": None,
    "speculative_config": None,
    "max_batch_size": None,
    "max_input_len": None,
    "max_seq_len": None,
    "max_beam_width": None,
    "max_num_tokens": 8192,
    "gather_generation_logits": False,
    "num_postprocess_workers": 0,
    "postprocess_tokenizer_dir": None,
    "reasoning_parser": None,
    "decoding_config": None,
    "_mpi_session": None,
    "otlp_traces_endpoint": None,
    "backend": None,
    "return_perf_metrics": False,
    "perf_metrics_max_requests": 0,
    "orchestrator_type": None,
    "env_overrides": None,
}
# On the TensorRT backend only; `tensorrt_llm.LLM` refuses them.
TRT_LLM_ARGS: dict[str, Any] = {
    "enable_tqdm": False,
    "workspace": None,
    "enable_build_cache": False,
    "extended_runtime_perf_knob_config": None,
    "calib_config": None,
    "quant_config": None,
    "embedding_parallel_mode": "SHARDING_ALONG_VOCAB",
    "fast_build": False,
    "build_config": None,
    "enable_prompt_adapter": False,
    "max_prompt_adapter_token": 0,
    "batching_type": None,
    "normalize_log_probs": False,
}
# On the PyTorch backend only; `tensorrt_llm._tensorrt_engine.LLM` refuses them as unknown.
TORCH_LLM_ARGS: dict[str, Any] = {
    "garbage_collection_gen0_threshold": 20000,
    "cuda_graph_config": "<CudaGraphConfig>",
    "attention_dp_config": None,
    "disable_overlap_scheduler": False,
    "moe_config": "<MoeConfig>",
    "nvfp4_gemm_config": "<Nvfp4GemmConfig>",
    "attn_backend": "TRTLLM",
    "sampler_type": "auto",
    "sampler_force_async_worker": False,
    "enable_iter_perf_stats": False,
    "enable_iter_req_stats": False,
    "print_iter_log": False,
    "batch_wait_timeout_ms": 0,
    "batch_wait_timeout_iters": 0,
    "batch_wait_max_tokens_ratio": 0,
    "torch_compile_config": None,
    "enable_autotuner": True,
    "enable_layerwise_nvtx_marker": False,
    "enable_min_latency": False,
    "stream_interval": 1,
    "force_dynamic_quantization": False,
    "allreduce_strategy": "AUTO",
    "checkpoint_loader": None,
    "checkpoint_format": None,
    "kv_connector_config": None,
    "mm_encoder_only": False,
    "ray_worker_extension_cls": None,
    "ray_placement_config": None,
    "enable_sleep": False,
    "disable_flashinfer_sampling": False,
    "max_stats_len": 1000,
    "layer_wise_benchmarks_config": "<LayerwiseBenchmarksConfig>",
}
TORCH_MAX_BATCH_SIZE = 2048  # where max_batch_size is None

# tensorrt_llm executor/result.py and llmapi/llm.py. One object, changed at every step.
REQUEST_OUTPUT = (
    *("request_id", "prompt", "prompt_token_ids", "outputs", "finished", "context_logits"),
    *("abort", "aborted", "result", "aresult", "__iter__", "__next__", "__aiter__", "__anext__"),
    "__await__",
)
COMPLETION_OUTPUT: dict[str, Any] = {
    "text": "",
    "token_ids": [],
    "cumulative_logprob": None,
    "logprobs": [],
    "prompt_logprobs": [],
    "finish_reason": None,
    "stop_reason": None,
    "generation_logits": None,
    "request_perf_metrics": None,
}
COMPLETION_PROPERTIES = ("length", "text_diff", "token_ids_diff", "logprobs_diff")
FINISH_REASONS = ("stop", "length", "timeout", "cancelled")

# The keys of a checkpoint's config.json (tensorrt_llm models/modeling_utils.py, PretrainedConfig);
# a model's class adds its own.
PRETRAINED_CONFIG = (
    *("architecture", "dtype", "vocab_size", "hidden_size", "num_hidden_layers"),
    *("num_attention_heads", "hidden_act", "logits_dtype", "norm_epsilon", "runtime_defaults"),
    *("position_embedding_type", "num_key_value_heads", "intermediate_size"),
    *("max_position_embeddings", "mapping", "quantization", "use_parallel_embedding"),
    *("embedding_sharding_dim", "head_size", "qk_layernorm", "rotary_embedding_dim"),
)
# tensorrt_llm mapping.py, to_dict, less the rank.
MAPPING = (
    *("world_size", "gpus_per_node", "cp_size", "tp_size", "pp_size", "moe_tp_size"),
    *("moe_cluster_size", "moe_ep_size", "attn_tp_size", "attn_cp_size", "cp_config"),
    *("enable_attention_dp", "enable_lm_head_tp_in_adp"),
)

# What is written where: a checkpoint (modeling_utils.py), an engine (builder.py, _common.py).
CHECKPOINT_FILES = ("config.json", "rank{rank}.safetensors")
ENGINE_FILES = ("config.json", "rank{rank}.engine")
ENGINE_CONFIG = ("version", "pretrained_config", "build_config")

# tensorrt_llm models/__init__.py: architectures that have an engine.
ARCHITECTURES = (
    *("GPT2LMHeadModel", "GPT2LMHeadCustomModel", "GPTBigCodeForCausalLM"),
    *("Starcoder2ForCausalLM", "FuyuForCausalLM", "Kosmos2ForConditionalGeneration"),
    *("JAISLMHeadModel", "GPTForCausalLM", "NemotronForCausalLM", "OPTForCausalLM"),
    *("BloomForCausalLM", "RWForCausalLM", "FalconForCausalLM", "PhiForCausalLM"),
    *("Phi3ForCausalLM", "Phi3VForCausalLM", "Phi3SmallForCausalLM", "PhiMoEForCausalLM"),
    *("Phi4MMForCausalLM", "MambaForCausalLM", "GPTNeoXForCausalLM", "GPTJForCausalLM"),
    *("MptForCausalLM", "MPTForCausalLM", "GLMModel", "ChatGLMModel", "ChatGLMForCausalLM"),
    *("ChatGLMForConditionalGeneration", "LlamaForCausalLM", "LlavaLlamaModel"),
    *("LlavaNextForConditionalGeneration", "ExaoneForCausalLM", "MistralForCausalLM"),
    *("MixtralForCausalLM", "ArcticForCausalLM", "Grok1ModelForCausalLM"),
    *("InternLMForCausalLM", "InternLM2ForCausalLM", "InternLMXComposer2ForCausalLM"),
    *("GraniteForCausalLM", "GraniteMoeForCausalLM", "MedusaForCausalLM"),
    *("MedusaLlamaForCausalLM", "ReDrafterForLLaMALM", "ReDrafterForQWenLM"),
    *("BaichuanForCausalLM", "BaiChuanForCausalLM", "SkyworkForCausalLM", "GemmaForCausalLM"),
    *("Gemma2ForCausalLM", "Gemma3ForCausalLM", "QWenLMHeadModel", "QWenForCausalLM"),
    *("Qwen2ForCausalLM", "Qwen2MoeForCausalLM", "Qwen2ForSequenceClassification"),
    *("Qwen2VLForConditionalGeneration", "Qwen2VLModel", "Qwen3ForCausalLM"),
    *("Qwen3MoeForCausalLM", "WhisperEncoder", "EncoderModel", "DecoderModel"),
    *("DbrxForCausalLM", "RecurrentGemmaForCausalLM", "CogVLMForCausalLM", "DiT"),
    *("SD3Transformer2DModel", "STDiT3", "DeepseekForCausalLM", "DeciLMForCausalLM"),
    *("DeepseekV2ForCausalLM", "EagleForCausalLM", "CohereForCausalLM", "MLLaMAModel"),
    *("MllamaForConditionalGeneration", "BertForQuestionAnswering"),
    *("BertForSequenceClassification", "BertModel", "RobertaModel"),
    *("RobertaForQuestionAnswering", "RobertaForSequenceClassification"),
)

# What a release without engines has not (PyPI's metadata require tensorrt up to 1.3.0rc15 and not
# in 1.3.0rc22; none in between is there). Names below tensorrt_llm.
ENGINE_MODULES = (
    *("builder", "models", "commands.build", "runtime", "plugin", "_tensorrt_engine"),
    *("_engine_file", "_fixups", "_tensorrt"),  # the stand-in's own
)


def has_engines(version: str) -> bool:
    """Say whether this TensorRT-LLM builds and runs engines: each before 1.3.0rc22 does.

    Raises:
        ValueError: It is no version such as 1.2.1 or 1.3.0rc3.
    """
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?(?:rc(\d+))?", version)
    if found is None:
        raise ValueError(f"{version!r} is no version; write it as 1.2.1 or 1.3.0rc3.")
    release = tuple(int(part or 0) for part in found.group(1, 2, 3))
    candidate = int(found[4]) if found[4] else None
    return release < (1, 3, 0) or (
        release == (1, 3, 0) and candidate is not None and candidate < 22
    )
