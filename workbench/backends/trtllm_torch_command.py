"""The commands that serve a spec of backend `tensorrt_llm_torch` by hand."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from workbench.backends.trtllm_command import on_hub, shell_file, shell_lines
from workbench.model import Model

if TYPE_CHECKING:
    from workbench.backends.tensorrt_llm_torch import TorchSpec

SETTINGS = "serve.yaml"
"""File for what trtllm-serve has no flags for."""


def torch_commands(spec: TorchSpec, model: Model | None) -> list[tuple[str, str]]:
    """Return what serves the same by hand, as titles and texts for a shell.

    Of max_input_len and max_output_len only the sum is known to trtllm-serve, as max_seq_len.

    Args:
        spec: The parameters.
        model: What is known of the model; its own directory is named where it has one.
    """
    source = str(model.path) if model and model.path else spec.model
    steps = []
    if spec.revision and on_hub(source):
        # Not every release of trtllm-serve has a flag for it, and none one for the tokenizer's.
        folder = f"{source.rpartition('/')[2]}-{spec.revision}".replace("/", "-")
        words = ["hf", "download", source, "--revision", spec.revision, "--local-dir", folder]
        steps.append(("Download the checkpoint", shlex.join(words)))
        source = f"./{folder}"
    serve = shell_file(SETTINGS, _settings(spec)) + _serve(spec, source)
    return [*steps, ("Serve the checkpoint", serve)]


def _serve(spec: TorchSpec, source: str) -> str:
    """Return the server's command (tensorrt_llm commands/serve.py)."""
    flags = [
        ["--backend", "pytorch"],
        ["--host", "127.0.0.1"],
        ["--port", "8000"],
        ["--max_batch_size", str(spec.max_batch_size)],
        ["--max_num_tokens", str(spec.max_num_tokens)],
        ["--max_seq_len", str(spec.sequence_limit)],
        ["--tp_size", str(spec.tp_size)],
        ["--pp_size", str(spec.pp_size)],
        ["--kv_cache_free_gpu_memory_fraction", str(spec.kv_cache_free_gpu_memory_fraction)],
        ["--extra_llm_api_options", SETTINGS],
        *([["--trust_remote_code"]] if spec.trust_remote_code else []),
    ]
    return shell_lines(["trtllm-serve", source], flags)


def _settings(spec: TorchSpec) -> str:
    """Return the settings as YAML (tensorrt_llm llmapi/llm_args.py TorchLlmArgs).

    The record of CUDA graphs is there in any case: a session pads batches up to a captured size,
    and trtllm-serve does not by itself.
    """
    guide = spec.guided_decoding_backend
    graphs = f"\n  max_batch_size: {spec.max_batch_size}\n  enable_padding: true"
    lines = [
        f"dtype: {spec.dtype}",
        f"enable_chunked_prefill: {str(spec.enable_chunked_prefill).lower()}",
        f"cuda_graph_config:{graphs if spec.use_cuda_graph else ' null'}",
        *([f"guided_decoding_backend: {guide}"] if guide != "none" else []),
        "kv_cache_config:",
        f"  dtype: {spec.kv_cache_dtype}",
        f"  enable_block_reuse: {str(spec.enable_block_reuse).lower()}",
        # Older releases take this whole group from the file, so that the share stands here, too.
        f"  free_gpu_memory_fraction: {spec.kv_cache_free_gpu_memory_fraction}",
    ]
    return "\n".join(lines)
