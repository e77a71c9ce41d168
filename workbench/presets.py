"""Presets: values of several parameters that suit a purpose, each with its reason and source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from workbench.model import Model
from workbench.spec import BuildSpec, parameters_of

Value = Callable[[BuildSpec, Model], Any]
"""What depends on the model or on what was chosen; anything else is taken as it is."""


@dataclass(frozen=True)
class Preset:
    """Values for a purpose.

    Attributes:
        name: What it is good for.
        about: What it does and why, in a sentence or two.
        source: Where the values come from.
        values: By parameter; a function gives one that depends on spec and model.
    """

    name: str
    about: str
    source: str
    values: Mapping[str, Any | Value]

    def apply(self, spec: BuildSpec, model: Model) -> BuildSpec:
        """Return a spec with these values, and the defaults of what its siblings would set.

        Raises:
            SpecError: The model is too small for a value.
        """
        known = parameters_of(type(spec))
        siblings = {name for preset in PRESETS[spec.backend] for name in preset.values}
        values = {name: known[name].default for name in siblings} | dict(self.values)
        return spec.replace(
            **{n: value(spec, model) if callable(value) else value for n, value in values.items()}
        )


OUTPUT = 512
"""Tokens that a request of the presets for long prompts may generate."""

SMALL = 2048
"""Tokens of a request in the presets for little memory."""


def presets_of(backend: str) -> tuple[Preset, ...]:
    """Return the presets of a backend; none where nothing is known."""
    return PRESETS.get(backend, ())


def _context(model: Model) -> int:
    """Return how many tokens the model was made for; SMALL where nothing tells."""
    return model.context_length or SMALL


def _long_input(spec: BuildSpec, model: Model) -> int:
    del spec
    return max(1, _context(model) - OUTPUT)


def _long_output(spec: BuildSpec, model: Model) -> int:
    return _context(model) - _long_input(spec, model)


def _whole_context(spec: BuildSpec, model: Model) -> int:
    del spec
    return _context(model)


def _at_most(limit: int) -> Value:
    def value(spec: BuildSpec, model: Model) -> int:
        del spec
        return min(limit, _context(model))

    return value


def _small_weights(spec: BuildSpec, model: Model) -> str:
    """Return int4 where a model is large enough to bear it."""
    del spec
    return "int4" if model.parameters >= 100_000_000 else "int8"


def _fp8(value: Any, otherwise: Any) -> Value:
    def choose(spec: BuildSpec, model: Model) -> Any:
        del model
        return value if getattr(spec, "quantization", "") == "fp8" else otherwise

    return choose


def _reduce_fusion(spec: BuildSpec, model: Model) -> str:
    shared = getattr(spec, "tp_size", 1) > 1
    fused = ("LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM")
    return "enable" if shared and model.architecture in fused else "disable"


_GUIDE = (
    "NVIDIA's performance tuning guide for Llama-3.3-70B on four H100, 2048 tokens in and out "
    "(TensorRT-LLM docs/source/legacy/performance/performance-tuning-guide)"
)
_OURS = "the batch size is our choice, to begin with"
_SCHEDULER = "OpenVINO GenAI SchedulerConfig"

_TUNED: dict[str, Any] = {
    "multiple_profiles": "enable",
    "use_paged_context_fmha": "enable",
    "gemm_plugin": _fp8(None, "auto"),
    "reduce_fusion": _reduce_fusion,
}
"""What the guide advises always: a third more tokens/s together, and half the ITL."""

_EAGER = "what takes memory: workbench/eager_memory.py; the lengths are our choice, to begin with"

_TORCH = f"what the limits do: tensorrt_llm llmapi/llm_args.py; {_OURS}"

PRESETS: dict[str, tuple[Preset, ...]] = {
    "openvino": (
        Preset(
            "throughput",
            "Many requests at the same time, which read the weights once for all of them; each "
            "answer takes longer.",
            f"{_SCHEDULER}.max_num_seqs and max_num_batched_tokens; {_OURS}",
            {"max_batch_size": 32, "max_num_tokens": 2048, "quantization": "int8"},
        ),
        Preset(
            "latency",
            "One request at a time with the smallest weights, since decoding waits for memory; "
            "int4 from 100 million parameters on.",
            "NNCF compress_weights: decoding is bound by the bytes of the weights",
            {"max_batch_size": 1, "quantization": _small_weights},
        ),
        Preset(
            "long context",
            "One request with all tokens that the model was made for; long prompts are split, and "
            "an int8 KV cache takes a quarter of the memory of float32.",
            f"{_SCHEDULER}.dynamic_split_fuse, OpenVINO KV_CACHE_PRECISION",
            {
                "max_batch_size": 1,
                "max_input_len": _long_input,
                "max_output_len": _long_output,
                "kv_cache_dtype": "int8",
                "enable_chunked_prefill": True,
            },
        ),
        Preset(
            "smallest memory",
            "One short request, small weights (int4 from 100 million parameters on), an int8 KV "
            "cache, and few tokens in one step.",
            f"{_SCHEDULER}, NNCF compress_weights",
            {
                "max_batch_size": 1,
                "max_num_tokens": 128,
                "quantization": _small_weights,
                "kv_cache_dtype": "int8",
            },
        ),
    ),
    "tensorrt_llm": (
        Preset(
            "throughput",
            "Kernels for several batch sizes and large batches. For Llama-3.3-70B on four H100 "
            "NVIDIA measured 2474 tokens/s with all that its guide advises, and 1564 with the "
            "defaults.",
            _GUIDE,
            {**_TUNED, "max_batch_size": 512, "max_num_tokens": 2048},
        ),
        Preset(
            "latency",
            "The same kernels for few requests, which then wait less for each other; with fp8 "
            "weights also the kernels for small batches. For Llama-3.3-70B on four H100 NVIDIA "
            "measured an ITL of 14.4 ms with these kernels, and 31.3 ms with the defaults.",
            f"{_GUIDE}; {_OURS}",
            {
                **_TUNED,
                "max_batch_size": 16,
                "max_num_tokens": 2048,
                "low_latency_gemm_plugin": _fp8("fp8", "disable"),
            },
        ),
        Preset(
            "long context",
            "Requests of all tokens that the model was made for, few at a time; prompts are split "
            "into chunks, which needs the paged fused attention.",
            f"{_GUIDE}; use_paged_context_fmha is required for chunked context; {_OURS}",
            {
                **_TUNED,
                "max_batch_size": 8,
                "max_num_tokens": 8192,
                "max_seq_len": _whole_context,
                "enable_chunked_context": True,
            },
        ),
        Preset(
            "smallest memory",
            "8-bit weights (no calibration, little loss), few and short requests, and a KV cache "
            "that holds just those instead of all free memory.",
            "what takes memory: TensorRT-LLM docs/source/legacy/reference/memory.md; the sizes are "
            "our choice, to begin with",
            {
                "quantization": "int8_wo",
                "max_batch_size": 4,
                "max_num_tokens": 1024,
                "max_seq_len": _at_most(SMALL),
                "kv_cache_tokens": 4 * SMALL,
            },
        ),
    ),
    "tensorrt_llm_torch": (
        Preset(
            "throughput",
            "Many requests at the same time; TensorRT-LLM captures CUDA graphs up to that size.",
            _TORCH,
            {"max_batch_size": 512, "max_num_tokens": 8192},
        ),
        Preset(
            "latency",
            "Few requests, which then wait less for each other, and CUDA graphs for all of them.",
            _TORCH,
            {"max_batch_size": 8, "max_num_tokens": 2048, "use_cuda_graph": True},
        ),
        Preset(
            "long context",
            "Requests of all tokens that the model was made for, few at a time; prompts are split "
            "into chunks.",
            _TORCH,
            {
                "max_batch_size": 8,
                "max_input_len": _long_input,
                "max_output_len": _long_output,
                "enable_chunked_prefill": True,
            },
        ),
        Preset(
            "smallest memory",
            "Few and short requests, and a KV cache of a smaller share of the free memory.",
            _TORCH,
            {
                "max_batch_size": 4,
                "max_num_tokens": 1024,
                "max_input_len": 512,
                "max_output_len": 512,
                "kv_cache_free_gpu_memory_fraction": 0.3,
            },
        ),
    ),
    "transformers": (
        Preset(
            "long context",
            "All tokens that the model was made for. A prompt is computed in one step, and where "
            "attention is not fused its memory grows with the square of that length.",
            _EAGER,
            {"max_input_len": _long_input, "max_output_len": _long_output},
        ),
        Preset(
            "smallest memory",
            "Weights and KV cache in bfloat16, half of what float32 takes, and short requests.",
            _EAGER,
            {"dtype": "bfloat16", "max_input_len": 128, "max_output_len": 128},
        ),
    ),
}
"""By backend. Applying one puts what the others of its backend set back to the default.

Eager generation has none for throughput, since it runs one request at a time, and none for latency,
since nothing is compiled or quantized: its lengths and its precision are all that can be chosen."""
