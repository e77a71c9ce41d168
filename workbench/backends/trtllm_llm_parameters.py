"""What TensorRT-LLM's LLM class is given on either of its backends, declared once."""

from __future__ import annotations

from typing import Any

from workbench.spec import parameter

_CACHE = "tensorrt_llm llmapi/llm_args.py KvCacheConfig"


def cache_share() -> Any:
    """Declare `kv_cache_free_gpu_memory_fraction`."""
    return parameter(
        0.9,
        gt=0,
        lt=1,
        help="Share of the GPU memory that is free after loading which the KV cache takes.",
        group="KV cache",
        source=_CACHE,
    )


def block_reuse() -> Any:
    """Declare `enable_block_reuse`."""
    return parameter(
        default=True,
        help="Keep the KV cache of finished requests, so that a repeated beginning is not "
        "computed again.",
        group="KV cache",
        source=_CACHE,
    )


def chunked_prefill(source: str) -> Any:
    """Declare `enable_chunked_prefill`, which ModelRunnerCpp calls `enable_chunked_context`."""
    return parameter(
        default=False,
        help="Split long prompts over several steps; without it a prompt has to fit into "
        "max_num_tokens.",
        group="KV cache",
        source=source,
    )


def guided_decoding(source: str) -> Any:
    """Declare `guided_decoding_backend`."""
    return parameter(
        "none",
        help="What keeps output to a JSON schema or a regular expression; loading takes longer "
        "with it.",
        group="Advanced",
        source=source,
    )
