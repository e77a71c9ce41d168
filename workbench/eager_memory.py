"""Memory of eager generation with transformers: weights, KV cache, activations, libraries.

Exact where arithmetic is exact; the rest are ranges that held for random models of 10^8 parameters:
in float32 on processors (torch 2.13 with transformers 5.0; torch 2.11 for CUDA with transformers
5.17), and with the latter in all three precisions on one H200. `tests/benchmarks/eager.py` measures
them again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.fit import Fit, Part
from workbench.memory import FLOAT_BYTES, MIB, kv_bytes_per_token

if TYPE_CHECKING:
    from workbench.hardware import Device
    from workbench.model import Model


def eager_fit(
    model: Model, *, dtype: str, max_input_len: int, max_seq_len: int, device: Device
) -> Fit:
    """Estimate the memory of a session that runs one request at a time.

    Args:
        model: The model.
        dtype: Compute precision, a key of `FLOAT_BYTES`.
        max_input_len: Longest prompt, in tokens: the prefill is one step.
        max_seq_len: Longest request, in tokens.
        device: Where it runs.

    Raises:
        ModelError: The model keeps something else than keys and values of each token.
    """
    return Fit(
        device=device,
        weights=_weights(model, dtype),
        kv_cache=_kv_cache(model, dtype, max_seq_len),
        activations=_activations(model, dtype, max_input_len, max_seq_len),
        runtime=_runtime(model, device),
        kv_tokens=max_seq_len,
        full_length_requests=1,
    )


def _weights(model: Model, dtype: str) -> Part:
    size = model.parameters * FLOAT_BYTES[dtype]
    same = set(model.bytes_by_dtype) == {SAFETENSORS[dtype]}
    # Read in another type, each tensor is there twice for a moment, and its file stays mapped.
    largest = max(tensor.elements for tensor in model.tensors) * FLOAT_BYTES[dtype]
    more = size // 20 if same else model.weight_bytes + largest
    return Part(
        "weights",
        size,
        size + more,
        exact=False,
        how=f"{model.parameters:,} parameters in {dtype}"
        + (", as they are stored." if same else ", read from another type."),
        remedy="choose a smaller model, a 16-bit dtype, or a backend that quantizes",
    )


def _kv_cache(model: Model, dtype: str, tokens: int) -> Part:
    size = tokens * kv_bytes_per_token(model, dtype)
    return Part(
        "KV cache",
        size,
        2 * size,
        exact=False,
        how=f"{tokens} tokens in {dtype} at the end of the longest request; nothing is reserved. "
        "Each step copies keys and values of a layer into new memory (DynamicCache), and the holes "
        "that this leaves may be as large again.",
        remedy="lower max_input_len or max_output_len",
    )


def _activations(model: Model, dtype: str, prompt: int, context: int) -> Part:
    width = FLOAT_BYTES[dtype]
    row = 4 * model.hidden_size + 3 * model.intermediate_size
    row += (model.heads + 2 * model.kv_heads) * model.head_size
    # In the worst case attention is not fused, and the scores of a whole layer are kept in float32
    # beside a mask and what comes out of the softmax.
    scores = 3 * model.heads * prompt * context * 4
    logits = model.vocab_size * 4
    return Part(
        "activations",
        prompt * row * width // 2 + logits,
        2 * prompt * row * width + 8 * logits + scores,
        exact=False,
        how=f"a prefill of {prompt} tokens in one step, logits of the last one. The high end is "
        "for attention that is not fused.",
        remedy="lower max_input_len",
    )


def _runtime(model: Model, device: Device) -> Part:
    if device.kind == "gpu":
        return Part(
            "runtime",
            300 * MIB,
            900 * MIB,
            exact=False,
            how="CUDA's context and the libraries' workspaces on the GPU; seen on an H200 only.",
            remedy="close other programs",
        )
    return Part(
        "runtime",
        300 * MIB,
        900 * MIB + 2000 * model.vocab_size,
        exact=False,
        how="Python, torch and transformers, and two forms of the tokenizer; a torch for CUDA "
        "takes some 300 MiB more.",
        remedy="close other programs",
    )


SAFETENSORS = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}
"""Names of types in safetensors headers."""
