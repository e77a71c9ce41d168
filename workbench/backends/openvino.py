"""The embedded default: OpenVINO GenAI on any CPU.

Compiled into the engine: the graph and the precision of its weights. Compute precision, the
precision of the KV cache and all limits are given to the runtime when an engine is loaded; the
manifest carries them and the session enforces them.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from workbench.backends import openvino_rules
from workbench.backends.base import Backend, Command
from workbench.backends.request_limits import longest_output, longest_prompt, longest_sequence
from workbench.fit import BuildNeed, Fit
from workbench.flags import words
from workbench.hardware import Device
from workbench.memory import BLOCK_TOKENS, build_memory, openvino_fit
from workbench.model import Model
from workbench.rules import Finding
from workbench.spec import BuildSpec, parameter

if TYPE_CHECKING:
    from workbench.gpus import Gpu


class OpenVinoSpec(BuildSpec):
    """Build parameters of the `openvino` backend."""

    backend: Literal["openvino"] = "openvino"
    dtype: Literal["float32", "bfloat16"] = parameter(
        "float32",
        help="Compute precision. float32 gives the very tokens of the original model; bfloat16 "
        "is faster on processors with AMX or AVX512_BF16.",
        group="Precision",
        source="OpenVINO INFERENCE_PRECISION_HINT",
    )
    quantization: Literal["none", "fp16", "int8", "int4"] = parameter(
        "int8",
        help="Precision of the stored weights. none keeps float32; int8 costs little quality; "
        "int4 is smallest and fastest to decode, and loses more.",
        group="Precision",
        effect="compiled",
        source="NNCF compress_weights",
    )
    group_size: Literal[32, 64, 128, -1] = parameter(
        64,
        help="Weights that share one scale in int4; -1 means a whole channel.",
        unit="weights",
        group="Precision",
        effect="compiled",
        source="NNCF compress_weights",
    )
    symmetric: bool = parameter(
        default=False,
        help="Quantize around zero, without a zero point: a little faster, a little less exact.",
        group="Precision",
        effect="compiled",
        source="NNCF compress_weights",
    )
    kv_cache_dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = parameter(
        "auto",
        help="Precision of the KV cache. auto takes the compute precision.",
        group="KV cache",
        source="OpenVINO KV_CACHE_PRECISION",
    )
    max_batch_size: int = parameter(
        4,
        ge=1,
        le=256,
        help="Requests that run at the same time; more wait in a queue, and say so.",
        unit="requests",
        group="Limits",
    )
    max_input_len: int = longest_prompt(512)
    max_output_len: int = longest_output(512)
    max_seq_len: int | None = longest_sequence()
    max_num_tokens: int = parameter(
        512,
        ge=32,
        help="Tokens of all requests that one step of the engine works on.",
        unit="tokens",
        group="Limits",
        source="OpenVINO GenAI SchedulerConfig.max_num_batched_tokens",
    )
    kv_cache_tokens: int | None = parameter(
        None,
        ge=32,
        help="Tokens that the KV cache holds for all requests together, in blocks of 32.",
        unit="tokens",
        group="KV cache",
        none_means="max_batch_size x max_seq_len",
        source="OpenVINO GenAI SchedulerConfig.num_kv_blocks",
    )
    enable_prefix_caching: bool = parameter(
        default=True,
        help="Keep the KV cache of finished prompts, so that a repeated beginning is not "
        "computed again.",
        group="KV cache",
        source="OpenVINO GenAI SchedulerConfig.enable_prefix_caching",
    )
    enable_chunked_prefill: bool = parameter(
        default=True,
        help="Split long prompts over several steps, so that running requests go on meanwhile.",
        group="KV cache",
        source="OpenVINO GenAI SchedulerConfig.dynamic_split_fuse",
    )
    threads: int | None = parameter(
        None,
        ge=1,
        le=1024,
        help="Threads that compute.",
        group="Device",
        none_means="what OpenVINO chooses for this processor",
        source="OpenVINO INFERENCE_NUM_THREADS",
    )

    @property
    def sequence_limit(self) -> int:
        """Longest prompt plus output of one request, in tokens."""
        return self.max_seq_len or self.max_input_len + self.max_output_len

    @property
    def kv_blocks(self) -> int:
        """Blocks of the KV cache, each of `BLOCK_TOKENS` tokens.

        By default every request of a full batch can be as long as the limit allows.
        """
        per_request = -(-self.sequence_limit // BLOCK_TOKENS)
        if self.kv_cache_tokens is None:
            return self.max_batch_size * per_request
        return -(-self.kv_cache_tokens // BLOCK_TOKENS)

    @property
    def kv_precision(self) -> str:
        """Precision of the KV cache with "auto" resolved."""
        return self.dtype if self.kv_cache_dtype == "auto" else self.kv_cache_dtype


def limits(spec: BuildSpec) -> dict[str, Any]:
    """Return what the session gives to the runtime and enforces, with defaults resolved."""
    assert isinstance(spec, OpenVinoSpec)  # noqa: S101 - the registry pairs them
    return {
        "dtype": spec.dtype,
        "kv_cache_dtype": spec.kv_precision,
        "max_batch_size": spec.max_batch_size,
        "max_input_len": spec.max_input_len,
        "max_output_len": spec.max_output_len,
        "max_seq_len": spec.sequence_limit,
        "max_num_tokens": spec.max_num_tokens,
        "kv_blocks": spec.kv_blocks,
        "block_tokens": BLOCK_TOKENS,
        "enable_prefix_caching": spec.enable_prefix_caching,
        "enable_chunked_prefill": spec.enable_chunked_prefill,
        "threads": spec.threads,
    }


def fit(spec: BuildSpec, model: Model, device: Device) -> Fit:
    """Estimate the memory that a session of this spec takes; see `workbench.memory`."""
    assert isinstance(spec, OpenVinoSpec)  # noqa: S101 - the registry pairs them
    return openvino_fit(
        model,
        dtype=spec.dtype,
        quantization=spec.quantization,
        group_size=spec.group_size,
        symmetric=spec.symmetric,
        kv_cache_dtype=spec.kv_precision,
        max_batch_size=spec.max_batch_size,
        max_seq_len=spec.sequence_limit,
        max_num_tokens=spec.max_num_tokens,
        kv_cache_tokens=spec.kv_blocks * BLOCK_TOKENS,
        device=device,
    )


def need(spec: BuildSpec, model: Model) -> BuildNeed:
    """Estimate what a build of this spec takes; see `workbench.memory`."""
    assert isinstance(spec, OpenVinoSpec)  # noqa: S101 - the registry pairs them
    return build_memory(model, spec.quantization, spec.group_size, spec.symmetric)


def _findings(spec: BuildSpec, model: Model | None, gpus: Sequence[Gpu]) -> list[Finding]:
    del gpus
    assert isinstance(spec, OpenVinoSpec)  # noqa: S101 - the registry pairs them
    return openvino_rules.findings(spec, model)


def commands(spec: BuildSpec, model: Model | None) -> list[Command]:
    """Return the shell commands that do the same elsewhere.

    Several libraries make and run such an engine, and their own commands would not give the same;
    ours are the exact ones.
    """
    del model
    flags = words(spec)
    return [
        Command("build", shlex.join(["workbench", "build", *flags])),
        Command("stream", shlex.join(["workbench", "demo", *flags, "--prompt", "PROMPT"])),
    ]


STAGES = {
    "import": "import torch and OpenVINO",
    "load": "load weights",
    "trace": "trace layers",
    "convert": "convert to OpenVINO",
    "compress": "compress weights",
    "save": "write graph",
    "tokenizer": "convert tokenizer",
}

BACKEND = Backend(
    name="openvino",
    title="OpenVINO GenAI on CPU",
    about="The checkpoint becomes an OpenVINO graph, and its weights are compressed. Limits and "
    "compute precision are given to the runtime when the engine is loaded.",
    spec_class=OpenVinoSpec,
    packages=(
        "openvino",
        "openvino-genai",
        "openvino-tokenizers",
        "optimum-intel",
        "nncf",
        "transformers",
        "torch",
    ),
    install="pip install 'trtllm-workbench[cpu]'",
    stages=STAGES,
    findings=_findings,
    fit=fit,
    need=need,
    limits=limits,
    commands=commands,
    scores=True,
    lacks={
        "top_logprobs": "OpenVINO GenAI gives the probability of the chosen token alone while it "
        "streams; Session.score gives the others afterwards.",
    },
)
