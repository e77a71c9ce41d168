"""TensorRT-LLM's PyTorch backend: nothing is compiled ahead of time.

tensorrt_llm 1.0 and later, 1.3 and 1.4 included, in a toolchain of its own. What is published is
the recipe: the checkpoint (by reference and content), the tokenizer, and the arguments of LLM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workbench.backends.base import Backend, Command, first_gpus
from workbench.backends.request_limits import longest_output, longest_prompt, longest_sequence
from workbench.backends.trtllm_llm_parameters import (
    block_reuse,
    cache_share,
    chunked_prefill,
    guided_decoding,
)
from workbench.backends.trtllm_log import LogTracker
from workbench.backends.trtllm_torch_command import torch_commands
from workbench.backends.trtllm_torch_rules import findings
from workbench.fit import BuildNeed, Fit
from workbench.hardware import Device
from workbench.model import Model
from workbench.releases import INSTALL
from workbench.rules import Finding
from workbench.spec import BuildSpec, parameter
from workbench.trtllm_memory import trtllm_fit
from workbench.trtllm_need import trtllm_recipe_need

if TYPE_CHECKING:
    from workbench.gpus import Gpu

_ARGS = "tensorrt_llm llmapi/llm_args.py TorchLlmArgs"


class TorchSpec(BuildSpec):
    """Build parameters of the `tensorrt_llm_torch` backend, under the LLM API's limits."""

    backend: Literal["tensorrt_llm_torch"] = "tensorrt_llm_torch"
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = parameter(
        "auto",
        help="Compute precision. auto takes the model's own.",
        group="Precision",
        source=_ARGS,
    )
    kv_cache_dtype: Literal["auto", "fp8"] = parameter(
        "auto",
        help="Precision of the KV cache. auto takes what the checkpoint says, and else dtype.",
        group="KV cache",
        source="tensorrt_llm llmapi/llm_args.py KvCacheConfig",
    )
    tp_size: int = parameter(
        1,
        ge=1,
        help="GPUs that share every layer (tensor parallelism).",
        unit="GPUs",
        group="Parallelism",
        source=_ARGS,
    )
    pp_size: int = parameter(
        1,
        ge=1,
        help="Groups of GPUs that each hold some of the layers (pipeline parallelism).",
        unit="stages",
        group="Parallelism",
        source=_ARGS,
    )
    max_batch_size: int = parameter(
        32,
        ge=1,
        help="Requests that run at the same time; CUDA graphs are captured up to this.",
        unit="requests",
        group="Limits",
        source=_ARGS,
    )
    max_input_len: int = longest_prompt(1024)
    max_output_len: int = longest_output(1024)
    max_seq_len: int | None = longest_sequence(_ARGS)
    max_num_tokens: int = parameter(
        8192,
        ge=1,
        help="Tokens of all requests that one step works on.",
        unit="tokens",
        group="Limits",
        source=_ARGS,
    )
    kv_cache_free_gpu_memory_fraction: float = cache_share()
    enable_block_reuse: bool = block_reuse()
    enable_chunked_prefill: bool = chunked_prefill(_ARGS)
    use_cuda_graph: bool = parameter(
        default=True,
        help="Capture CUDA graphs of decoding steps when the model is loaded: slower to load, "
        "faster to decode.",
        group="Advanced",
        source="tensorrt_llm llmapi/llm_args.py CudaGraphConfig",
    )
    guided_decoding_backend: Literal["none", "xgrammar"] = guided_decoding(_ARGS)

    @property
    def sequence_limit(self) -> int:
        """Longest prompt plus output of one request, in tokens."""
        return self.max_seq_len or self.max_input_len + self.max_output_len


def _mine(spec: BuildSpec) -> TorchSpec:
    assert isinstance(spec, TorchSpec)  # noqa: S101 - the registry pairs them
    return spec


def limits(spec: BuildSpec) -> dict[str, Any]:
    """Return what the session gives to LLM and enforces."""
    spec = _mine(spec)
    names = (
        "dtype",
        "kv_cache_dtype",
        "tp_size",
        "pp_size",
        "max_batch_size",
        "max_input_len",
        "max_output_len",
        "max_num_tokens",
        "kv_cache_free_gpu_memory_fraction",
        "enable_block_reuse",
        "enable_chunked_prefill",
        "use_cuda_graph",
        "guided_decoding_backend",
        "trust_remote_code",
    )
    local = Path(spec.model)
    return {
        **{name: getattr(spec, name) for name in names},
        "max_seq_len": spec.sequence_limit,
        # It may have moved since the recipe was written.
        "checkpoint": str(local.absolute()) if local.is_dir() else None,
    }


def kv_cache_type(spec: TorchSpec, model: Model) -> str:
    """Return the type of the KV cache, with auto resolved by the checkpoint; "" for its dtype."""
    return model.kv_cache_type if spec.kv_cache_dtype == "auto" else spec.kv_cache_dtype


def fit(spec: BuildSpec, model: Model, device: Device) -> Fit:
    """Estimate the memory of a session on its GPUs; see `workbench.trtllm_memory`."""
    spec = _mine(spec)
    return trtllm_fit(
        model,
        dtype=spec.dtype,
        quantization="none",
        kv_cache_dtype=kv_cache_type(spec, model) or "auto",
        tp_size=spec.tp_size,
        pp_size=spec.pp_size,
        max_batch_size=spec.max_batch_size,
        max_seq_len=spec.sequence_limit,
        max_num_tokens=spec.max_num_tokens,
        max_beam_width=1,
        kv_cache_free_gpu_memory_fraction=spec.kv_cache_free_gpu_memory_fraction,
        kv_cache_tokens=None,
        device=device,
        keeps_latent=True,
    )


def need(spec: BuildSpec, model: Model) -> BuildNeed:
    """Estimate what a build takes of host and GPUs; see `workbench.trtllm_need`."""
    spec = _mine(spec)
    return trtllm_recipe_need(model, dtype=spec.dtype, tp_size=spec.tp_size, pp_size=spec.pp_size)


def commands(spec: BuildSpec, model: Model | None) -> list[Command]:
    """Return the shell commands that serve the same elsewhere."""
    return [Command(title, text) for title, text in torch_commands(_mine(spec), model)]


def tracker(step: str, order: Mapping[str, Any]) -> LogTracker:
    """Return the reader of what a step prints; only its known failures are of use here."""
    del step, order
    return LogTracker("build")


def _findings(spec: BuildSpec, model: Model | None, gpus: Sequence[Gpu]) -> list[Finding]:
    return findings(_mine(spec), model, gpus)


BACKEND = Backend(
    name="tensorrt_llm_torch",
    title="TensorRT-LLM's PyTorch backend on NVIDIA GPUs",
    about="Nothing is compiled ahead of time: the checkpoint is loaded as it is, and kernels are "
    "tuned and CUDA graphs captured each time that a session opens. What is published is the "
    "recipe. TensorRT-LLM 1.3 and later offer only this.",
    spec_class=TorchSpec,
    packages=("tensorrt-llm",),
    install=f'{INSTALL} && export WORKBENCH_TOOLCHAIN_TENSORRT_LLM_TORCH="$PWD/trtllm/bin/python"',
    stages={"recipe": "write the recipe and the tokenizer"},
    findings=_findings,
    fit=fit,
    need=need,
    limits=limits,
    commands=commands,
    tracker=tracker,
    uses_gpu=True,
    takes=first_gpus,
)
