"""Templates of Triton's layout inflight_batcher_llm, as short as they can be; written for tests.

Not NVIDIA's: only the names of placeholders and parameters are real, each where it stands in
theirs. They were read in triton-inference-server/tensorrtllm_backend r25.05 (TensorRT-LLM 0.19)
and in NVIDIA/TensorRT-LLM triton_backend/ at 0c8de69a (1.2.0rc8).
"""

from __future__ import annotations

from pathlib import Path

VERSIONS = ("0.19", "1.2.0rc8")

# Parameters that are not called as their placeholder.
KEYS = {
    "engine_dir": "gpt_model_path",
    "encoder_engine_dir": "encoder_model_path",
    "batching_strategy": "gpt_model_type",
}

PARAMETERS = {
    "preprocessing": "tokenizer_dir add_special_tokens multimodal_model_path engine_dir "
    "max_num_images",
    "postprocessing": "tokenizer_dir skip_special_tokens",
    "tensorrt_llm_bls": "accumulate_tokens tensorrt_llm_model_name tensorrt_llm_draft_model_name "
    "multimodal_encoders_name",
    "tensorrt_llm": "max_beam_width batching_strategy engine_dir encoder_engine_dir "
    "max_tokens_in_paged_kv_cache max_attention_window_size sink_token_length "
    "batch_scheduler_policy kv_cache_free_gpu_mem_fraction cross_kv_cache_fraction "
    "kv_cache_host_memory_bytes kv_cache_onboard_blocks exclude_input_in_output "
    "cancellation_check_period_ms stats_check_period_ms iter_stats_max_iterations "
    "request_stats_max_iterations enable_kv_cache_reuse normalize_log_probs "
    "enable_chunked_context gpu_device_ids participant_ids num_nodes "
    "lora_cache_optimal_adapter_size lora_cache_max_adapter_size lora_cache_gpu_memory_fraction "
    "lora_cache_host_memory_bytes lora_prefetch_dir decoding_mode lookahead_window_size "
    "lookahead_ngram_size lookahead_verification_set_size medusa_choices eagle_choices "
    "gpu_weights_percent enable_context_fmha_fp32_acc multi_block_mode cuda_graph_mode "
    "cuda_graph_cache_size speculative_decoding_fast_logits tokenizer_dir "
    "guided_decoding_backend xgrammar_tokenizer_info_path enable_trt_overlap",
}

QUEUE = """\
dynamic_batching {
  preferred_batch_size: [ ${triton_max_batch_size} ]
  max_queue_delay_microseconds: ${max_queue_delay_microseconds}
  default_queue_policy: { max_queue_size: ${max_queue_size} }
}
"""
BACKEND = "${triton_backend}"
DECOUPLED = "model_transaction_policy { decoupled: ${decoupled_mode} }\n"
LOGITS = 'output [ { name: "context_logits" data_type: ${logits_datatype} dims: [ -1, -1 ] } ]\n'
FEATURES = (
    'input [ { name: "encoder_input_features" dims: [ -1 ] '
    "data_type: ${encoder_input_features_data_type} } ]\n"
)
TABLE = (
    'input [ { name: "prompt_embedding_table" dims: [ -1 ] '
    "data_type: ${prompt_embedding_table_data_type} } ]\n"
)
STEPS = """\
ensemble_scheduling {
  step [ { model_name: "preprocessing" model_version: -1 },
         { model_name: "tensorrt_llm" model_version: -1 },
         { model_name: "postprocessing" model_version: -1 } ]
}
"""


def _counted(name: str) -> str:
    return f"instance_group [ {{ count: ${{{name}_instance_count}} kind: KIND_CPU }} ]\n"


def _bodies(version: str) -> dict[str, str]:
    table = TABLE if version == "1.2.0rc8" else ""
    return {
        "ensemble": f'platform: "ensemble"\n{LOGITS}{STEPS}',
        "preprocessing": f'backend: "python"\n{QUEUE}{_counted("preprocessing")}',
        "tensorrt_llm": f'backend: "{BACKEND}"\n{DECOUPLED}{QUEUE}{FEATURES}{LOGITS}{table}',
        "postprocessing": f'backend: "python"\n{_counted("postprocessing")}',
        "tensorrt_llm_bls": f'backend: "python"\n{DECOUPLED}{LOGITS}{table}{_counted("bls")}',
    }


def write_templates(folder: Path, version: str) -> Path:
    """Write the templates of a release, with models that hold nothing; return their folder."""
    for model, body in _bodies(version).items():
        names = PARAMETERS.get(model, "").split()
        if model == "preprocessing" and version == "1.2.0rc8":
            names.append("hf_model_path")
        head = f'# of {version}\nname: "{model}"\nmax_batch_size: ${{triton_max_batch_size}}\n'
        parameters = (
            f'parameters: {{ key: "{KEYS.get(name, name)}" '
            f'value: {{ string_value: "${{{name}}}" }} }}\n'
            for name in names
        )
        (folder / model).mkdir(parents=True)
        (folder / model / "config.pbtxt").write_text(head + body + "".join(parameters))
        if "python" in body:
            (folder / model / "1").mkdir()
            (folder / model / "1" / "model.py").write_text("# played\n")
    return folder
