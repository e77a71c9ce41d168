"""Memory of a TensorRT-LLM engine on one GPU, and what a build takes on its host.

Exact where arithmetic is exact. Everything else is a range that holds for published logs; they
stand in `tests/test_trtllm_memory.py` with their sources.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from workbench.errors import SpecError
from workbench.fit import BuildNeed, Fit, Part, Ranks
from workbench.hardware import Device
from workbench.latest import keep_latest
from workbench.memory import FLOAT_BYTES, kv_bytes_per_token, latent_size
from workbench.model import Model
from workbench.trtllm_weights import PACKINGS, Split
from workbench.units import format_bytes

MIB = 1 << 20
GB = 1_000_000_000
BLOCK_TOKENS = 32
"""Tokens in one block of the paged KV cache: tokens_per_block of trtllm-build, by default."""

DTYPES = ("auto", *FLOAT_BYTES)
KV_DTYPES = ("auto", "int8", "fp8")


def trtllm_kv_bytes_per_token(
    model: Model,
    *,
    dtype: str,
    kv_cache_dtype: str,
    tp_size: int,
    pp_size: int,
    keeps_latent: bool = False,
) -> int:
    """Return the bytes that one token takes in the KV cache of the fullest GPU, exact.

    2 x layers of the rank x ceil(kv_heads / tp_size) x head_size x bytes of an element
    (TensorRT-LLM, docs/source/legacy/reference/memory.md). Key-value heads are repeated where
    tp_size exceeds them; the first ranks of a pipeline take the layers that are left over
    (tensorrt_llm mapping.py). A sliding window is not taken off: it saves room only where
    max_attention_window is set.

    Of latent attention a token leaves kv_lora_rank + qk_rope_head_dim elements in each layer,
    instead of keys and values, and every GPU of a layer keeps all of them (cache type SELFKONLY
    of kvCacheManager.cpp; a log of Kimi-K2.5 on 8 GPUs gives exactly that).

    Args:
        model: The model.
        dtype: One of `DTYPES`.
        kv_cache_dtype: One of `KV_DTYPES`; auto is the type of the weights.
        tp_size: GPUs that share each layer.
        pp_size: Groups of GPUs that share the layers out.
        keeps_latent: The runtime caches what latent attention compresses, as the PyTorch backend
            does. What engines of trtllm-build keep was never verified.

    Raises:
        SpecError: A value is not one of those named, or not positive.
        ModelError: The model keeps something else than keys and values of each token.
    """
    _require("kv_cache_dtype", kv_cache_dtype, KV_DTYPES)
    _require_positive(tp_size=tp_size, pp_size=pp_size)
    width = FLOAT_BYTES[_dtype(model, dtype)] if kv_cache_dtype == "auto" else 1
    layers = -(-model.layers // pp_size)
    if keeps_latent and (latent := latent_size(model)):
        return layers * latent * width
    head = kv_bytes_per_token(model, "float16") // (2 * model.layers * model.kv_heads)
    return layers * -(-model.kv_heads // tp_size) * head * width


def trtllm_fit(
    model: Model,
    *,
    dtype: str,
    quantization: str,
    kv_cache_dtype: str,
    tp_size: int,
    pp_size: int,
    max_batch_size: int,
    max_seq_len: int,
    max_num_tokens: int,
    max_beam_width: int,
    kv_cache_free_gpu_memory_fraction: float,
    kv_cache_tokens: int | None,
    device: Device,
    keeps_latent: bool = False,
) -> Fit:
    """Estimate the memory of a TensorRT-LLM session on one GPU, the fullest of its ranks.

    The KV cache takes a part of what the rest leaves free, so it ranges from one request of full
    length to that part; `kv_tokens` is the safe end. Without a GPU (a device of no memory) it goes
    up to max_batch_size requests of full length, and the verdict is "unknown".

    Args:
        model: The model.
        dtype: One of `DTYPES`; auto is the checkpoint's, and float16 for float32.
        quantization: A key of `PACKINGS`.
        kv_cache_dtype: One of `KV_DTYPES`; auto is the type of the weights.
        tp_size: GPUs that share each layer.
        pp_size: Groups of GPUs that share the layers out.
        max_batch_size: Requests that run at the same time.
        max_seq_len: Longest request, in tokens of prompt and output.
        max_num_tokens: Tokens of all requests in one step.
        max_beam_width: Beams of a request.
        kv_cache_free_gpu_memory_fraction: Part of the free memory that the KV cache takes.
        kv_cache_tokens: Most tokens in the KV cache; None or 0 leaves it to the fraction.
        device: The GPU.
        keeps_latent: As in `trtllm_kv_bytes_per_token`.

    Raises:
        SpecError: A value is not one of those named, or out of range.
        ModelError: The arithmetic does not hold for this model.
    """
    _require_positive(
        max_batch_size=max_batch_size,
        max_seq_len=max_seq_len,
        max_num_tokens=max_num_tokens,
        max_beam_width=max_beam_width,
    )
    fraction = kv_cache_free_gpu_memory_fraction
    if not 0 < fraction < 1:
        raise SpecError(
            f"kv_cache_free_gpu_memory_fraction must be above 0 and below 1; got {fraction}."
        )
    if kv_cache_tokens is not None and kv_cache_tokens < 0:
        raise SpecError(f"kv_cache_tokens must not be negative; got {kv_cache_tokens}.")
    split = _split(model, dtype, quantization, tp_size, pp_size)
    per_token = trtllm_kv_bytes_per_token(
        model,
        dtype=dtype,
        kv_cache_dtype=kv_cache_dtype,
        tp_size=tp_size,
        pp_size=pp_size,
        keeps_latent=keeps_latent,
    )
    sequences = max_batch_size * max_beam_width
    weights = _weights(split, quantization)
    # tensorrt_llm _common.py check_max_num_tokens brings the number into these bounds.
    tokens = max(BLOCK_TOKENS, min(max_num_tokens, max_batch_size * max_seq_len))
    activations = _activations(split, tokens, sequences)
    runtime = _runtime(split, sequences, max_seq_len)
    # A request fills whole blocks.
    length = _in_blocks(max_seq_len)
    limit = _in_blocks(kv_cache_tokens) if kv_cache_tokens else 0
    if device.memory_bytes:
        taken = weights.high + activations.high + runtime.high
        pool = int(fraction * max(0, device.memory_available - taken))
        most = min(pool, limit * per_token) if limit else pool
        of_what = f"{fraction:g} of what the other parts leave of the GPU's free memory"
    else:
        most = (limit or sequences * length) * per_token
        of_what = f"without a GPU to fill, {sequences} sequences of full length"
    least = min(limit or length, length) * per_token
    kv_tokens = most // (BLOCK_TOKENS * per_token) * BLOCK_TOKENS
    kv_cache = Part(
        "KV cache",
        least,
        max(least, most),
        exact=False,
        how=f"{per_token:,} bytes a token on this GPU, in blocks of {BLOCK_TOKENS} tokens. The "
        f"low end is one request of full length; the high end is {of_what}"
        f"{f', and not above kv_cache_tokens = {limit}' if limit else ''}.",
        remedy="lower max_seq_len, choose a smaller kv_cache_dtype or raise tp_size",
    )
    return Fit(
        device=device,
        weights=weights,
        kv_cache=kv_cache,
        activations=activations,
        runtime=runtime,
        kv_tokens=kv_tokens,
        full_length_requests=kv_tokens // (length * max_beam_width),
        ranks=_ranks(split, Fit(device, weights, kv_cache, activations, runtime, 0, 0)),
    )


def _ranks(split: Split, fullest: Fit) -> tuple[Ranks, ...]:
    """Return what each rank holds; neighbouring stages of a pipeline that hold the same are one.

    Rank numbers go through the tensor-parallel group first (tensorrt_llm mapping.py). All ranks
    keep as many blocks of KV cache as the fullest one, each for its own layers.
    """
    found: list[Ranks] = []
    most_layers = split.layers_of(0)
    for stage, (low, high) in enumerate(split.stages):
        kv_cache = fullest.kv_cache
        ends = [
            end * split.layers_of(stage) // most_layers for end in (kv_cache.low, kv_cache.high)
        ]
        parts = (
            replace(fullest.weights, low=low, high=high),
            replace(kv_cache, low=ends[0], high=ends[1]),
            fullest.activations,
            fullest.runtime,
        )
        first = stage * split.tp
        if found and found[-1].parts == parts:
            first = found.pop().first
        found.append(Ranks(first, (stage + 1) * split.tp - 1, parts))
    return tuple(found)


def trtllm_build_need(
    model: Model,
    *,
    dtype: str,
    quantization: str,
    tp_size: int,
    pp_size: int,
    workers: int,
    strip_plan: bool = False,
) -> BuildNeed:
    """Estimate what conversion and build need on their host and GPU.

    Published builds, from GPT-2 to Command-R 35B, held 1.5 to 2.5 times the weights and some
    gigabytes for the libraries; with four ranks built one after another in one process it was 3.6
    times. TensorRT-LLM logs what is resident when a build ends (tensorrt_llm builder.py), so a
    peak can be higher. No document gives a formula.

    The GPU holds the weights of a rank while TensorRT tunes: logs of Command-R 35B and Gemma 2 9B
    end their builds with 70,725 and 19,386 MiB on it, 1.06 and 1.1 times their weights. What
    calibrates loads the unquantized model there before.

    Args:
        model: The model.
        dtype: One of `DTYPES`.
        quantization: A key of `PACKINGS`.
        tp_size: GPUs that share each layer.
        pp_size: Groups of GPUs that share the layers out.
        workers: Processes that build ranks at the same time.
        strip_plan: The engine is written without its weights.

    Raises:
        SpecError: A value is not one of those named, or not positive.
    """
    _require_positive(workers=workers)
    split = _split(model, dtype, quantization, tp_size, pp_size)
    plain = replace(split, packing=None)
    ranks = tp_size * pp_size
    low, high = split.all_ranks()
    _, loaded = plain.all_ranks()
    memory = Part(
        "memory",
        3 * GB // 2 + low * 7 // 5 // ranks,
        8 * GB * min(workers, ranks) + loaded * (7 if ranks > 1 else 5) // 2,
        exact=False,
        how="The libraries (8 GB a process at the most) and 1.4 times the weights of a rank to 2.5 "
        "times all unquantized weights, or 3.5 times with several ranks. An estimate read off "
        "published build logs.",
    )
    disk = Part(
        "disk",
        low if strip_plan else 2 * low,
        2 * high + ranks * 64 * MIB + 1000 * model.vocab_size,
        exact=False,
        how="The TensorRT-LLM checkpoint and the engine, each with the weights of all ranks.",
    )
    least, most = split.fullest()
    device = Part(
        "GPU memory",
        least,
        max(most * 5 // 4, loaded if split.packing else 0) + GB,
        exact=False,
        how="The weights of a rank, up to 1.25 times or with a quantization all unquantized "
        "weights, and 1 GB for CUDA and the kernels that are tried. An estimate read off published "
        "build logs.",
    )
    kept = 0 if strip_plan else low
    return BuildNeed(memory, disk, device, min(workers, ranks), engine=kept)


@keep_latest
def _split(model: Model, dtype: str, quantization: str, tp_size: int, pp_size: int) -> Split:
    """Check what decides about weights, and return how they are spread."""
    _require("quantization", quantization, PACKINGS)
    _require_positive(tp_size=tp_size, pp_size=pp_size)
    width = FLOAT_BYTES[_dtype(model, dtype)]
    return Split(model, width, PACKINGS[quantization], tp_size, pp_size)


def _weights(split: Split, quantization: str) -> Part:
    """Weights of the fullest rank; layers are quantized, embedding and output layer are not."""
    low, high = split.fullest()
    exact = low == high and split.packing is None and not split.model.quantized_with
    spread = f"tp_size {split.tp}, pp_size {split.pp}, quantization {quantization}"
    return Part(
        "weights",
        low,
        high,
        exact=exact,
        how=f"Counted tensor by tensor for {spread}, with the embedding whole on its rank and the "
        f"table of rotary positions ({format_bytes(split.rotation[1])})."
        + ("" if exact else " The range is for scales and padding, and for tables kept twice."),
        remedy="choose a smaller quantization, a smaller model or a larger tp_size",
    )


def _activations(split: Split, tokens: int, sequences: int) -> Part:
    """Estimate TensorRT's execution context for `tokens` in a step.

    2 x hidden + 2 x intermediate elements a token are what logs of GPT-2, Qwen2.5 and a distilled
    Qwen give to 0.1 %, the latter two with the logits of a full batch; Llama 3 on four GPUs and
    with releases before fused MLPs takes more.
    """
    model = split.model
    inner = model.intermediate_size or 4 * model.hidden_size
    text = model.config.get("text_config", model.config)
    experts = text.get("num_experts_per_tok")
    busy = inner * experts if type(experts) is int and experts > 1 else inner
    attention = 2 * (model.heads + 2 * model.kv_heads) * model.head_size
    row = 2 * model.hidden_size + 2 * -(-inner // split.tp)
    wide = 3 * model.hidden_size + -(-max(3 * busy, attention) // split.tp)
    low = tokens * row * split.width
    return Part(
        "activations",
        low // 2 if split.packing and split.packing.halves_steps else low,
        tokens * wide * split.width + sequences * model.vocab_size * 4 + 64 * MIB,
        exact=False,
        how=f"{tokens} tokens in a step of 2 x hidden_size + 2 x intermediate_size / tp_size "
        "elements (half of it with inputs of 8 bits), up to 3 of each with the logits of "
        f"{sequences} sequences and a workspace of 64 MiB. An estimate read off published logs.",
        remedy="lower max_num_tokens or max_batch_size",
    )


def _runtime(split: Split, sequences: int, max_seq_len: int) -> Part:
    """Estimate the CUDA context, the buffers of inputs and outputs, and the decoder.

    With 2048 sequences of 32,768 tokens and a vocabulary of 151,936 (NVIDIA/TensorRT-LLM issue
    1188) both kinds of buffers took 8.42 GiB, which is 6 times the float32 logits and 6 times an
    int32 for each position; later releases may do with less.
    """
    logits = 4 * sequences * split.model.vocab_size
    positions = 4 * sequences * max_seq_len
    # Each stage of a pipeline has a batch of its own under way.
    buffers = split.pp * (7 * logits + 6 * positions)
    together = 512 * MIB if split.tp * split.pp > 1 else 0
    return Part(
        "runtime",
        200 * MIB + (logits if split.pp == 1 else 0),
        1024 * MIB + buffers + together,
        exact=False,
        how=f"200 MiB to 1 GiB for the CUDA context and libraries, and for {sequences} sequences "
        "once to 7 times the float32 logits and up to 24 bytes for each position"
        f"{'; up to 512 MiB to talk to the other GPUs' if together else ''}. An estimate read off "
        "published logs.",
        remedy="lower max_batch_size or max_beam_width, and end other programs on the GPU",
    )


def _dtype(model: Model, dtype: str) -> str:
    """Return the type of unquantized weights (tensorrt_llm AutoModelForCausalLM's "auto")."""
    _require("dtype", dtype, DTYPES)
    if dtype != "auto":
        return dtype
    return model.dtype if model.dtype in {"float16", "bfloat16"} else "float16"


def _in_blocks(tokens: int) -> int:
    """Return a number of tokens rounded up to whole blocks."""
    return -(-tokens // BLOCK_TOKENS) * BLOCK_TOKENS


def _require(name: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise SpecError(f"{name} must be one of {', '.join(known)}; got {value!r}.")


def _require_positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise SpecError(f"{name} must be at least 1; got {number}.")
