"""What TensorRT-LLM and TensorRT print, as templates: log lines and the sentences of errors.

Where 1.2 says something other than 0.20 and 1.0, the older wording is in OLD. The lines were read
in the library's modules named beside them, in real logs, and (those of TensorRT and of the C++
runtime) in reports of users.
"""

from __future__ import annotations

# The stamp of tensorrt_llm logger.py; the part in brackets after it is TRT-LLM or TRT.
STAMP = "%m/%d/%Y-%H:%M:%S"

LINES = {
    # tensorrt_llm __init__.py
    "banner": "[TensorRT-LLM] TensorRT LLM version: {version}",
    # tensorrt_llm plugin/plugin.py
    "set_plugin": "Set PluginConfig.{field} to {value}.",
    # tensorrt_llm builder.py and _common.py: what is changed before the build
    "deduced": "max_seq_len is not specified, using deduced value {value}",
    "scaled": "max_seq_len is scaled to {value} by rotary scaling {factor}",
    "beyond_positions": "max_seq_len {value} is larger than max_position_embeddings {positions} * "
    "rotary scaling {factor}, the model accuracy might be affected",
    "clip_input": "max_input_len is {value} is larger than max_seq_len {limit}, clipping it to "
    "max_seq_len",
    "input_ignored": "padding removal and fMHA are both enabled, max_input_len is not required and "
    "will be ignored",
    "tokens_ignored": "remove_input_padding is not enabled, the specified "
    "max_num_tokens/opt_num_tokens will be ignored.",
    "opt_tokens": "remove_input_padding is enabled, while opt_num_tokens is not set, setting to "
    "max_batch_size*max_beam_width. \n",
    "many_tokens": "Specifying a `max_num_tokens` larger than 16384 is usually not recommended, we "
    "do not expect perf gain with that and too large `max_num_tokens` could possibly exceed the "
    "TensorRT tensor volume, causing runtime errors. Got `max_num_tokens` = {value}",
    "clip_tokens": "max_num_tokens ({value}) shouldn't be greater than max_seq_len * "
    "max_batch_size ({limit}), specifying to max_seq_len * max_batch_size ({limit}).",
    "raise_to_input": "When enable_context_fmha is not turned on, max_num_tokens ({value}) should "
    "be at least max_input_len ({limit}), specifying to max_input_len ({limit}).",
    "raise_to_block": "When enable_context_fmha is turned on, max_num_tokens ({value}) should be "
    "at least tokens_per_block ({limit}), specifying to tokens_per_block ({limit}). At this time, "
    "you also need to enable context chunking at runtime, otherwise you may encounter errors.",
    "clip_opt": "opt_num_tokens ({value}) shouldn't be greater than max_num_tokens ({limit}), "
    "specifying to max_num_tokens ({limit}).",
    "overriding": "Overriding {field} to {value}",
    "no_fmha": "Context FMHA is disabled, FP8 Context FMHA and Paged Context FMHA are disabled.",
    "no_fp8_quant": "FP8 Context FMHA is disabled because it must be used together with the fp8 "
    "quantization workflow.",
    "old_gpu": "FP8 context FMHA is disabled because it is only supported on Ada and Hopper Arch.",
    "no_fp8_paged": "FP8 Paged Context FMHA is disabled because FP8 context FMHA is disabled.",
    "no_fp8_cache": "FP8 Paged Context FMHA is disabled because it must be used together with fp8 "
    "KV Cache.",
    "fp8_forced": "FP8 Context FMHA is enabled to support FP8 Paged Context FMHA.",
    "int8_cache": "Paged Context FMHA is disabled because it doesn't work with int8 kv cache "
    "currently.",
    "nvfp4_plugin": "NVFP4 quantization detected, by default enabling NVFP4 GEMM plugin. To use "
    'OOTB GEMM, please explicitly set gemm_plugin to "disable"',
    "generation_logits": "Option --gather_generation_logits is deprecated, a build flag is not "
    "required anymore. Use --output_generation_logits at runtime instead.",
    "paged_kv_cache": "Option --paged_kv_cache is deprecated, use --kv_cache_type=paged/disabled "
    "instead.",
    "bad_timing_cache": "Invalid timing cache, using freshly created one",
    # TensorRT, through the library's logger
    "init_cuda": "[MemUsageChange] Init CUDA: CPU +26, GPU +0, now: CPU 296, GPU 424 (MiB)",
    "init_builder": "[MemUsageChange] Init builder kernel library: CPU +1639, GPU +8, now: CPU "
    "2136, GPU 432 (MiB)",
    "timing_cache_in_use": "Global timing cache in use. Profiling results in this builder pass "
    "will be stored.",
    "compiler": "Compiler backend is used during engine build.",
    "detected": "Detected {inputs} inputs and 1 output network tensors.",
    "host_memory": "Total Host Persistent Memory: 36544 bytes",
    "device_memory": "Total Device Persistent Memory: 0 bytes",
    "scratch": "Max Scratch Memory: {bytes} bytes",
    "blocks": "[BlockAssignment] Started assigning block shifts. This will take {steps} steps to "
    "complete.",
    "blocks_done": "[BlockAssignment] Algorithm ShiftNTopDown took 10.6115ms to assign 18 blocks "
    "to {steps} nodes requiring {bytes} bytes.",
    "activation": "Total Activation Memory: {bytes} bytes",
    "weights": "Total Weights Memory: {bytes} bytes",
    "compiler_run": "Compiler backend is used during engine execution.",
    "generated": "Engine generation completed in {seconds:.5f} seconds.",
    "peak_trt": "[MemUsageStats] Peak memory usage of TRT CPU/GPU memory allocators: CPU 0 MiB, "
    "GPU 385 MiB",
    "code_cache": "Serialized 27 bytes of code generator cache.",
    "compile_cache": "Serialized 153518 bytes of compilation cache.",
    "timing_entries": "Serialized {count} timing cache entries",
    "oom": "[virtualMemoryBuffer.cpp::resizePhysical::154] Error Code 2: OutOfMemory (Requested "
    "size was {bytes} bytes.)",
    "oom_request": "Requested amount of GPU memory ({bytes} bytes) could not be allocated. There "
    "may not be enough free memory for allocation to succeed.",
    "oom_write": "[globWriter.cpp::makeResizableGpuMemory::433] Error Code 2: OutOfMemory "
    "(Requested size was {bytes} bytes.)",
    # tensorrt_llm builder.py, _common.py, commands/build.py: the build
    "network": "Total time of constructing network from module object {seconds} seconds",
    "profiles": "Total optimization profiles added: {count}",
    "init_weights": "Total time to initialize the weights in network Unnamed Network {rank}: "
    "{time}",
    "build_start": "Build TensorRT engine Unnamed Network {rank}",
    "build_done": "Total time of building Unnamed Network {rank}: {time}",
    "timing_saved": "Timing cache serialized to {path}",
    "peak": "Build phase peak memory: {mib:.2f} MB, children: 0.00 MB",
    "serializing": "Serializing engine to {path}...",
    "serialized": "Engine serialized. Total time: {time}",
    "all_done": "Total time of building all engines: {time}",
    # tensorrt_llm quantization/quantize_by_modelopt.py
    "calib_tokenizer": "Initializing tokenizer from {path}",
    "calib_model": "Initializing model from {path}",
    "calib_dataset": "Loading calibration dataset",
    "awq_size": "AWQ calibration could take longer with calib_size = {size}, Using calib_size=32 "
    "instead",
    "awq_slow": "\nAWQ calibration could take longer than other calibration methods. Please "
    "increase the batch size to speed up the calibration process. Batch size can be set by adding "
    "the argument --batch_size <batch_size> to the command line.\n",
    "calib_start": "Starting quantization...",
    "calib_batch": "Calibrating batch {index}",
    "calib_done": "Quantization done. Total time used: {seconds:.2f} s.",
    "exported": "Quantized model exported to {path} \nTotal time used {seconds:.2f} s.",
    # tensorrt_llm llmapi and the C++ runtime, which stamps nothing
    "trt_backend": "Using LLM with TensorRT backend",
    "torch_backend": "Using LLM with PyTorch backend",
    # tensorrt_llm _torch/pyexecutor/model_engine.py and executor/base_worker.py
    "torch_length": "max_seq_len is not specified, using inferred value {value}",
    "torch_shorter": "Specified self.max_seq_len={value} is larger than what the model can support "
    "({limit}). Setting max_seq_len to {limit}. ",
    "torch_scaled": "max_seq_len is scaled to {value} by rope scaling {factor}",
    "cuda_graphs": "Creating CUDA graph instances for {count} batch sizes.",
    "cuda_graph": "Run generation-only CUDA graph warmup for batch size={size}, draft_len=0, "
    "max_seq_len={length}",
    "fewer_new_tokens": "User-specified `max_tokens` ({value}) is greater than deduced "
    "`default_max_tokens` ({limit}), using default_max_tokens instead.",
    "bad_arguments": "Failed to parse the arguments for the LLM constructor: {error}",
    # and again what both backends may say
    "ignored_build_config": "The build_config is ignored for model format of TLLM_ENGINE.",
    "no_tokenizer": "Failed to load tokenizer from {path}",
    "init_error": "Executor worker initialization error: {error}",
    "loaded_in": "Load engine takes: {seconds} sec",
    "engine_version": "Engine version {version} found in the config file, assuming engine(s) built "
    "by new builder API.",
    "runtime": "TRTGptModel {name}: {value}",
    "engine_size": "Loaded engine size: {mib} MiB",
    "context_memory": "[MemUsageChange] Allocated {mib:.2f} MiB for execution context memory.",
    "kv_memory": "Memory usage when calculating max tokens in paged kv cache: total: {total:.2f} "
    "GiB, available: {free:.2f} GiB",
    "kv_blocks": "Number of blocks in KV cache primary pool: {blocks}",
    "kv_allocated": "[MemUsageChange] Allocated {gib:.2f} GiB for max tokens in paged KV cache "
    "({tokens}).",
    "fewer_tokens": "Runtime configured max num tokens ({value}) is larger than model max num "
    "tokens ({limit}) and will be ignored.",
    "max_input": "TRTGptModel maxInputLen: {value} = min(maxSequenceLen - 1, maxNumTokens) since "
    "context FMHA and usePackedInput are enabled",
}

# 0.20 and 1.0
OLD = {
    "banner": "[TensorRT-LLM] TensorRT-LLM version: {version}",
    "set_plugin": "Set {field} to {value}.",
}

ERRORS = {
    # tensorrt_llm models/automodel.py and commands/build.py
    "architecture": "The given huggingface model architecture {name} is not supported in TRT-LLM "
    "yet",
    "build_architecture": "Unsupported model architecture: {name}",
    "no_model": "Please provide a Hugging Face model as the input to the LLM API.",
    "streamingllm": "StreamingLLM is no longer supported because attention sink cannot work with "
    "the non-cyclic kv cache kernel & runtime changes.",
    "pp_reduce_scatter": "PP reduce scatter is only supported in the mixtral model.",
    "context_logits": "Gather context logits is not support with draft len > 0. If want to get the "
    "accepted tokens' logits from target model, please just enable gather_generation_logits",
    "profiles": "multiple_profiles is enabled, while opt_num_tokens is set. They are not supposed "
    "to be working in the same time for now.",
    # tensorrt_llm builder.py; the second by commands/build.py with --workers above 1
    "build_failed": "Engine building failed, please check the error log.",
    "parallel_failed": "Engine building failed, please check error log.",
    "int_on_blackwell": "INT8/INT4 quantization is not supported on SM>=100.",
    "smooth_on_blackwell": "SmoothQuant is not supported on SM>=100.",
    "swiglu_fused": "GemmSwiGLU plugin requires --use_fused_mlp flag",
    "plugin_on_sm": "{field}={value} is not supported on SM {sm}.",
    # tensorrt_llm mapping.py
    "world": "world_size must equal to tp_size * pp_size * cp_size, but got {world} != {tp} * {pp} "
    "* {cp}.",
    "moe_world": "moe_tp_size * moe_ep_size * moe_cluster_size must equal to moe_world_size, but "
    "got {got} != {expected}",
    "rank": "Rank should be an integer between 0 and {last}, but got {rank}.",
    # TensorRT and the C++ runtime
    "plan_version": "6: The engine plan file is not compatible with this version of TensorRT, "
    "expecting library version {expected} got {got}, please rebuild.",
    "plan_gpu": "6: The engine plan file is generated on an incompatible device, expecting compute "
    "{expected} got compute {got}, please rebuild.",
    "deserialize": "[TensorRT-LLM][ERROR] Assertion failed: Failed to deserialize cuda engine. "
    "(tllmRuntime.cpp:230)",
    "batch": "[TensorRT-LLM][ERROR] Assertion failed: Runtime configured max batch size ({value}) "
    "must not exceed engine max batch size ({limit}) (trtGptModel.h:67)",
    "beam": "[TensorRT-LLM][ERROR] Assertion failed: Runtime configured max beam width ({value}) "
    "must not exceed engine max beam width ({limit}) (trtGptModel.h:64)",
    "worker": "Executor worker returned error",
    "prompt": "Prompt length ({value}) exceeds maximum input length ({limit}). Set log level to "
    "info and check TRTGptModel logs for how maximum input length is set",
    # tensorrt_llm llmapi/llm.py
    "argument": "{cls} got invalid argument: {name}",
    "torch_only": "The following arguments are specific to TensorRT backend and cannot be used "
    "with PyTorch backend: {names}.\nPlease use 'from tensorrt_llm._tensorrt_engine import LLM' "
    "instead to use the TensorRT backend.",
    "too_long": "The sum of prompt length ({prompt}) and query length (0) max_tokens ({tokens}) "
    "should not exceed max_seq_len ({limit})",
    "no_end_id": "tokenizer is required to reset end_id if it is None, or you can explicitly "
    "specify the end_id for sampling_params",
    "logprobs": "`sampling_params.logprobs={value}` requires `gather_generation_logits=True` to be "
    "passed explicitly to the `LLM()` constructor.",
    "prompt_logprobs": "`sampling_params's prompt_logprobs={value}` requires "
    "`gather_context_logits=True` in the `BuildConfig` when constructing the LLM. Example: "
    "LLM(..., build_config=BuildConfig(gather_context_logits=True)).",
    "beams": "sampling_params.n ({value}) cannot exceed max_beam_width ({limit}) when "
    "use_beam_search is True",
    "tp_size": "tp_size {value} is not consistent with the engine's tp_size {limit}",
    "kv_dtype": "KvCacheConfig.dtype is not supported by the TensorRT backend.",
    "bfloat16": "Pre SM 80 GPUs do not support bfloat16",
    "graph_size": "cuda_graph_config.max_batch_size must be non-negative",
    "graph_sizes": "Please don't set both cuda_graph_config.batch_sizes and "
    "cuda_graph_config.max_batch_size.\ncuda_graph_config.batch_sizes: {sizes}, "
    "cuda_graph_config.max_batch_size: {limit}",
    "too_many_tokens": "The sum of prompt length ({prompt}), query length (0) should not exceed "
    "max_num_tokens ({limit})",
    # tensorrt_llm executor/base_worker.py and _torch/pyexecutor/py_executor.py
    "no_room": "`default_max_tokens` ({room}) must be greater than 0, `default_max_tokens` "
    "({room}) = max_seq_len ({limit}) - `splited_prompt_len` ({prompt}) - `query_token_len` (0)",
    "no_tokens": "`max_tokens` ({value}) must be greater than 0",
    "token_range": "Token ID out of range",
    "gpus": "Only {have} GPUs are available, but {want} are required.",
    "shutting_down": "LLM is shutting down",
    "no_loop": "The asyncio event loop was not present during initialization, so async operations "
    "are not available.",
    # tensorrt_llm runtime/model_runner_cpp.py
    "runner_batch": "Input batch size ({value}) exceeds the engine or specified limit ({limit})",
    "runner_input": "Maximum input length ({value}) exceeds the engine or specified limit "
    "({limit})",
    "runner_length": "Maximum input length ({value}) + maximum new tokens ({tokens}) exceeds the "
    "engine or specified limit ({limit})",
    "runner_beams": "Num beams ({value}) exceeds the engine or specified limit ({limit})",
    "stopping": "Stopping criteria is not supported in C++ session.",
    # tensorrt_llm quantization/quantize_by_modelopt.py and models/llama/model.py
    "no_gpu": "GPU is required for inference.",
    "no_calibration": "The quant_config ({config}) does not require calibration, try "
    "{cls}.from_hugging_face instead.",
    "moe_calibration": "Quantization for expert parallelism is not supported",
    # the dynamic linker, where Open MPI is missing (issue 167)
    "import": "libmpi.so.40: cannot open shared object file: No such file or directory",
}


def lines(version: str) -> dict[str, str]:
    """Return the log lines of a version of TensorRT-LLM."""
    major, minor = (int(part) for part in version.split(".")[:2])
    return LINES if (major, minor) >= (1, 2) else {**LINES, **OLD}
