"""Memory: what a session and a build need, and how much the KV cache holds.

Exact where arithmetic is exact. What depends on a runtime's habits is a range that was measured;
`tests/benchmarks/fit.py` measures it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.errors import ModelError, SpecError
from workbench.fit import BuildNeed, Fit, Part
from workbench.latest import keep_latest
from workbench.units import format_bytes
from workbench.weights import Compression, is_multiplied, role_of, weight_bytes

__all__ = [
    "BLOCK_TOKENS",
    "FLOAT_BYTES",
    "KV_DTYPES",
    "BuildNeed",
    "Fit",
    "Part",
    "build_memory",
    "kv_bytes_per_token",
    "latent_size",
    "openvino_fit",
    "weight_bytes",
]

if TYPE_CHECKING:
    from collections.abc import Collection

    from workbench.hardware import Device
    from workbench.model import Model

MIB = 1 << 20
BLOCK_TOKENS = 32
"""Tokens in one block of OpenVINO's paged KV cache on CPU."""

FLOAT_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
SHORT_FLOATS = {"avx512_bf16", "amx_bf16", "bf16"}
"""Instruction sets that compute in bfloat16."""

KV_DTYPES = (*FLOAT_BYTES, "int8")


def computes_bfloat16(device: Device) -> bool:
    """Say whether a processor has instructions for bfloat16."""
    return bool(device.features & SHORT_FLOATS)


def kv_bytes_per_token(model: Model, kv_dtype: str) -> int:
    """Return the bytes that one token takes in the KV cache, exact.

    layers x 2 x kv_heads x head_size x bytes of an element: a key and a value for each layer and
    head group (Ainslie et al., arXiv:2305.13245, for fewer kv_heads than heads). "int8" is
    OpenVINO's u8, which keeps scales and zero points beside: in a block of 32 tokens two floats
    for each channel of the keys, and two for each token of the values (seen in the compiled
    model's inputs with OpenVINO 2026.4: key blocks of 40 x head_size, value blocks of
    32 x (head_size + 8) bytes).

    A sliding window saves nothing here: OpenVINO's paged cache keeps all tokens of all layers
    (seen with windows of 64 tokens in Qwen2 and Phi-3).

    Args:
        model: The model.
        kv_dtype: One of `KV_DTYPES`.

    Raises:
        SpecError: The type is unknown.
        ModelError: The model keeps something else than keys and values of each token.
    """
    _require("kv_cache_dtype", kv_dtype, KV_DTYPES)
    _require_plain_attention(model)
    if kv_dtype == "int8":
        block = 40 * model.head_size + BLOCK_TOKENS * (model.head_size + 8)
        head = -(-block // BLOCK_TOKENS)
    else:
        head = 2 * model.head_size * FLOAT_BYTES[kv_dtype]
    return model.layers * model.kv_heads * head


def openvino_fit(
    model: Model,
    *,
    dtype: str,
    quantization: str,
    group_size: int,
    symmetric: bool,
    kv_cache_dtype: str,
    max_batch_size: int,
    max_seq_len: int,
    max_num_tokens: int,
    kv_cache_tokens: int,
    device: Device,
) -> Fit:
    """Estimate the memory of an OpenVINO session on a CPU.

    Args:
        model: The model.
        dtype: Compute precision, a key of `FLOAT_BYTES`.
        quantization: One of `QUANTIZATIONS`.
        group_size: Weights that share a scale in int4; -1 means a whole row.
        symmetric: Weights without zero points.
        kv_cache_dtype: One of `KV_DTYPES`.
        max_batch_size: Requests that run at the same time.
        max_seq_len: Longest request, in tokens.
        max_num_tokens: Tokens of all requests in one step.
        kv_cache_tokens: Capacity of the KV cache; rounded up to whole blocks.
        device: Where it runs.

    Raises:
        SpecError: A value is not one of those named, or not positive.
        ModelError: The arithmetic does not hold for this model.
    """
    _require("dtype", dtype, FLOAT_BYTES)
    for name, number in (
        ("max_batch_size", max_batch_size),
        ("max_seq_len", max_seq_len),
        ("max_num_tokens", max_num_tokens),
        ("kv_cache_tokens", kv_cache_tokens),
    ):
        if number < 1:
            raise SpecError(f"{name} must be at least 1; got {number}.")
    blocks = -(-kv_cache_tokens // BLOCK_TOKENS)
    widths = _widths(dtype, device)
    return Fit(
        device=device,
        weights=_weights(model, Compression(quantization, group_size, symmetric), widths),
        kv_cache=_kv_cache(model, kv_cache_dtype, blocks),
        activations=_activations(
            model,
            widths,
            min(max_num_tokens, blocks * BLOCK_TOKENS),
            max_batch_size,
            min(max_seq_len, blocks * BLOCK_TOKENS),
        ),
        runtime=_runtime(model),
        kv_tokens=blocks * BLOCK_TOKENS,
        full_length_requests=blocks // -(-max_seq_len // BLOCK_TOKENS),
    )


def _widths(dtype: str, device: Device) -> tuple[int, int]:
    """Return the least and the most bytes of an element while computing.

    What OpenVINO does without instructions for bfloat16 was not tried, so both widths count there.
    """
    width = FLOAT_BYTES[dtype]
    return width, width if computes_bfloat16(device) else FLOAT_BYTES["float32"]


@keep_latest
def _weights(model: Model, compression: Compression, widths: tuple[int, int]) -> Part:
    """Estimate the weights in memory: the mapped file, and beside it matrices laid out anew.

    Compressed matrices keep their size, but scales and zero points become floats. Others are laid
    out in the compute precision, or stay float16; in float32 a second layout joins when a step
    has few tokens (seen below 100).
    """
    stored = weight_bytes(
        model, compression.quantization, compression.group_size, compression.symmetric
    )
    matrices = [(t, role_of(t, model)) for t in model.tensors if is_multiplied(t, model)]
    if compression.is_integer:
        least = sum(compression.stored_bytes(*matrix) for matrix in matrices)
        most = least + 12 * sum(compression.scales(*matrix) for matrix in matrices)
    else:
        count = sum(tensor.elements for tensor, _ in matrices)
        half = compression.quantization == "fp16"
        least, most = (count * (2 if half else width) for width in widths)
        most = 2 * most if widths[1] == 4 else most * 21 // 20
    return Part(
        "weights",
        least,
        most + stored,
        exact=False,
        how=f"{format_bytes(stored)} are stored ({compression.quantization}). OpenVINO maps the "
        "file and lays the matrices out anew beside it; the low end counts the new layout alone, "
        "since mapped pages can be given back. Measured with OpenVINO 2026.4.",
    )


def _kv_cache(model: Model, kv_cache_dtype: str, blocks: int) -> Part:
    size = blocks * BLOCK_TOKENS * kv_bytes_per_token(model, kv_cache_dtype)
    return Part(
        "KV cache",
        size,
        size,
        exact=True,
        how=f"{blocks} blocks of {BLOCK_TOKENS} tokens, {model.layers} layers x 2 x "
        f"{model.kv_heads} heads x {model.head_size} in {kv_cache_dtype}. Reserved at the first "
        "request, filled as requests come.",
    )


def _activations(
    model: Model, widths: tuple[int, int], tokens: int, batch: int, context: int
) -> Part:
    """Estimate what a step computes with, for `tokens` of `batch` requests up to `context` long."""
    row = 4 * model.hidden_size + 2 * model.intermediate_size
    row += (model.heads + 2 * model.kv_heads) * model.head_size
    logits = batch * model.vocab_size * 4
    # One layer's keys or values in float32, unpacked from the blocks.
    unpacked = context * model.kv_heads * model.head_size * 4
    # A long prompt in chunks asks for that buffer again and again, each time a little larger, and
    # glibc's heap keeps the holes: in sum the buffer times half the number of chunks, and a quarter
    # to be safe. (16,000 tokens in chunks of 256 took 290 MB more than with
    # MALLOC_MMAP_THRESHOLD_=1048576, where the sum is 256.)
    holes = unpacked * context * 5 // (8 * tokens)
    return Part(
        "activations",
        tokens * row * widths[0] // 2 + logits,
        2 * tokens * row * widths[1] + 3 * logits + 3 * unpacked + holes,
        exact=False,
        how=f"{tokens} tokens in a step, logits only for the last token of a request, and "
        "attention over the longest one. Ranges measured with OpenVINO 2026.4 on random Llama and "
        "Qwen2 models of 10 M to 300 M parameters.",
    )


def _runtime(model: Model) -> Part:
    return Part(
        "runtime",
        120 * MIB,
        150 * MIB + 2 * MIB * model.layers + 1000 * model.vocab_size,
        exact=False,
        how="Python, OpenVINO's libraries, the graph and two forms of the tokenizer. Measured with "
        "OpenVINO 2026.4 on models of 2 to 24 layers and vocabularies of 500 to 150,000.",
    )


def _require(name: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise SpecError(f"{name} must be one of {', '.join(known)}; got {value!r}.")


def _require_plain_attention(model: Model) -> None:
    """Refuse models that keep something else than a key and a value of each token.

    Raises:
        ModelError: Names what it keeps.
    """
    text = model.config.get("text_config", model.config)
    others = {str(kind) for kind in text.get("layer_types") or ()} - ATTENTION_LAYERS
    if text.get("kv_lora_rank") or others:
        what = "latent attention (kv_lora_rank)" if not others else f"{min(others)} layers"
        raise ModelError(
            f"{model.source} has {what}, whose cache is not keys and values of each token; there "
            "is no memory estimate for it yet."
        )


def latent_size(model: Model) -> int:
    """Return the elements that latent attention compresses keys and values of a token to; or 0.

    DeepSeek-AI, arXiv:2405.04434, 2.1: the latent vector, and a key that carries the position.

    Raises:
        ModelError: config.json gives only one of both numbers.
    """
    text = model.config.get("text_config", model.config)
    rank, rope = text.get("kv_lora_rank"), text.get("qk_rope_head_dim")
    if not rank:
        return 0
    if type(rank) is not int or type(rope) is not int:
        raise ModelError(
            f"config.json of {model.source} gives {rank!r} for kv_lora_rank and {rope!r} for "
            "qk_rope_head_dim; latent attention has whole numbers for both."
        )
    return rank + rope


ATTENTION_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}


def build_memory(
    model: Model, quantization: str, group_size: int = 64, symmetric: bool = False
) -> BuildNeed:
    """Estimate what a build with OpenVINO needs on its host.

    The model is loaded in float32, converted (the graph shares its weights, but copies at least
    the largest) and written as float32; a compressed graph is written beside it.

    Args:
        model: The model.
        quantization: One of `QUANTIZATIONS`.
        group_size: Weights that share a scale in int4; -1 means a whole row.
        symmetric: Weights without zero points.

    Raises:
        SpecError: The quantization is unknown.
        ModelError: The checkpoint itself is quantized.
    """
    stored = weight_bytes(model, quantization, group_size, symmetric)
    full = 4 * model.parameters
    largest = 4 * max(tensor.elements for tensor in model.tensors)
    is_float = set(model.bytes_by_dtype) == {"F32"}
    load = full + (0 if is_float else model.weight_bytes)
    convert = full + full // 10 + 2 * largest
    # While compressing, the loaded model is gone and the float32 graph is mapped.
    integer = quantization in ("int8", "int4")
    compress = full + stored + 2 * largest + 100 * MIB if integer else 0
    # A checkpoint in float32 is mapped, so its pages can be given back.
    memory = Part(
        "memory",
        370 * MIB + (0 if is_float else full),
        700 * MIB + max(load, convert, compress) + 2000 * model.vocab_size,
        exact=False,
        how="The libraries, the weights in float32 and a copy of the largest; or, while "
        "compressing, the old and the new weights. Measured with optimum-intel 2.1 and NNCF 3.4.",
    )
    graphs = stored + (full if integer else 0)
    disk = Part(
        "disk",
        graphs,
        graphs + MIB + model.layers * MIB // 4 + 300 * model.vocab_size,
        exact=False,
        how="The engine's files, and until they are compressed the float32 weights beside them.",
    )
    return BuildNeed(memory, disk, engine=stored)
