"""The embedded default: OpenVINO GenAI on any CPU.

Compiled into the engine: the graph and the precision of its weights. Compute precision, the
precision of the KV cache and all limits are given to the runtime when an engine is loaded; the
manifest carries them and the session enforces them.
"""

from __future__ import annotations

from typing import Any, Literal

from workbench.backends.base import Backend
from workbench.fit import BuildNeed, Fit
from workbench.hardware import Device
from workbench.memory import build_memory, openvino_fit
from workbench.model import Model
from workbench.rules import Finding
from workbench.spec import BuildSpec, parameter

BLOCK_TOKENS = 32
"""Tokens in one block of OpenVINO GenAI's paged KV cache on CPU (measured with 2026.4)."""

COMPARED = (
    "Gemma3ForCausalLM",
    "LlamaForCausalLM",
    "Phi3ForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
)
"""Architectures whose float32 engines give the tokens of transformers, as the tests show."""


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
    max_input_len: int = parameter(
        512,
        ge=1,
        help="Longest prompt that is accepted.",
        unit="tokens",
        group="Limits",
    )
    max_output_len: int = parameter(
        512,
        ge=1,
        help="Most tokens that one request may generate.",
        unit="tokens",
        group="Limits",
    )
    max_seq_len: int | None = parameter(
        None,
        ge=2,
        help="Longest prompt plus output of one request.",
        unit="tokens",
        group="Limits",
        none_means="max_input_len + max_output_len",
    )
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


def findings(spec: BuildSpec, model: Model | None) -> list[Finding]:
    """Apply the rules of this backend; those that need the model only where there is one."""
    assert isinstance(spec, OpenVinoSpec)  # noqa: S101 - the registry pairs them
    found = _shape_rules(spec) + _precision_rules(spec)
    return found + _model_rules(spec, model) if model else found


def _shape_rules(spec: OpenVinoSpec) -> list[Finding]:
    found = []
    limit = spec.sequence_limit
    if spec.max_input_len >= limit:
        found.append(
            Finding(
                "refuse",
                "max_input_len",
                f"a prompt of {spec.max_input_len} tokens leaves no room for output within "
                f"max_seq_len {limit}.",
                f"Use at most {limit - 1}, or raise max_seq_len.",
                (("max_input_len", limit - 1),),
            )
        )
    if spec.max_seq_len and spec.max_seq_len > spec.max_input_len + spec.max_output_len:
        reach = spec.max_input_len + spec.max_output_len
        found.append(
            Finding(
                "ignored",
                "max_seq_len",
                f"no request can be longer than max_input_len + max_output_len = {reach} tokens.",
                "Leave it empty, or raise one of the two.",
                (("max_seq_len", None),),
            )
        )
    if spec.kv_cache_tokens is not None and spec.kv_cache_tokens < limit:
        found.append(
            Finding(
                "warn",
                "kv_cache_tokens",
                f"the KV cache holds {spec.kv_blocks * BLOCK_TOKENS} tokens, but one request may "
                f"need {limit}; longer ones will be refused.",
                f"Use at least {limit}, or lower max_seq_len.",
                (("kv_cache_tokens", -(-limit // BLOCK_TOKENS) * BLOCK_TOKENS),),
            )
        )
    if not spec.enable_chunked_prefill and spec.max_num_tokens < spec.max_input_len:
        found.append(
            Finding(
                "refuse",
                "max_num_tokens",
                f"without chunked prefill a prompt of {spec.max_input_len} tokens must fit into "
                f"one step of {spec.max_num_tokens}.",
                "Raise max_num_tokens to max_input_len, or switch chunked prefill on.",
                (("enable_chunked_prefill", True),),
                "OpenVINO GenAI SchedulerConfig.dynamic_split_fuse",
            )
        )
    return found


def _precision_rules(spec: OpenVinoSpec) -> list[Finding]:
    found = []
    other = {"float32": "bfloat16", "bfloat16": "float32"}[spec.dtype]
    if spec.kv_cache_dtype == other:
        found.append(
            Finding(
                "refuse",
                "kv_cache_dtype",
                f"OpenVINO's paged attention computes in {spec.dtype} and cannot read a "
                f"{other} KV cache.",
                f"Use auto, float16 or int8 with dtype {spec.dtype}.",
                (("kv_cache_dtype", "auto"),),
                "tried with OpenVINO 2026.4 on CPU",
            )
        )
    if spec.quantization != "int4" and spec.group_size != 64:
        found.append(
            Finding(
                "ignored",
                "group_size",
                f"only int4 has groups; quantization is {spec.quantization}.",
                "Choose int4 to use it.",
                (("group_size", 64),),
            )
        )
    if spec.quantization in ("none", "fp16") and spec.symmetric:
        found.append(
            Finding(
                "ignored",
                "symmetric",
                f"weights stored as {spec.quantization} are not quantized.",
                "Choose int8 or int4 to use it.",
                (("symmetric", False),),
            )
        )
    return found


def _model_rules(spec: OpenVinoSpec, model: Model) -> list[Finding]:
    found = []
    if model.architecture not in COMPARED:
        found.append(
            Finding(
                "warn",
                "model",
                f"{model.architecture} was not compared with transformers on this backend.",
                "Compare its answers before you rely on them. Compared were: "
                + ", ".join(COMPARED)
                + ".",
            )
        )
    if model.context_length and spec.sequence_limit > model.context_length:
        found.append(
            Finding(
                "refuse",
                "max_seq_len",
                f"{spec.sequence_limit} tokens are beyond the model's context of "
                f"{model.context_length}.",
                f"Use at most {model.context_length} for max_input_len + max_output_len, or set "
                "max_seq_len.",
                (("max_seq_len", model.context_length),),
            )
        )
    size = spec.group_size
    if spec.quantization == "int4" and size > 0:
        wrong = [n for n in (model.hidden_size, model.intermediate_size) if n and n % size]
        if wrong:
            found.append(
                Finding(
                    "refuse",
                    "group_size",
                    f"groups of {size} do not divide the model's channels ({wrong[0]}).",
                    "Use a group size that divides them, or -1.",
                    (("group_size", -1),),
                    "NNCF compress_weights refuses it",
                )
            )
    if spec.quantization == "int4" and model.parameters < 100_000_000:
        found.append(
            Finding(
                "warn",
                "quantization",
                "int4 costs a small model much of its quality.",
                "Use int8 for models below some hundred million parameters.",
                (("quantization", "int8"),),
            )
        )
    return found


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
    findings=findings,
    fit=fit,
    need=need,
    limits=limits,
)
