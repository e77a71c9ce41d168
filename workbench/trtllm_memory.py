"""Memory of a TensorRT-LLM engine on its GPUs.

Exact where arithmetic is exact. Everything else is a range that holds for published logs; they
stand in `tests/test_trtllm_memory.py` with their sources.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from workbench.errors import SpecError
from workbench.fit import Correct, Fit, Part, Ranks, as_predicted
from workbench.hardware import Device
from workbench.latest import keep_latest
from workbench.memory import FLOAT_BYTES, kv_bytes_per_token, latent_size
from workbench.model import Model
from workbench.trtllm_weights import PACKINGS, Split
from workbench.units import format_bytes

MIB = 1 << 20
BLOCK_TOKENS = 32
"""Tokens in one block of the paged KV cache: tokens_per_block of trtllm-build, by default."""

DTYPES = ("auto", *FLOAT_BYTES)
KV_DTYPES = ("auto", "int8", "fp8", "nvfp4")
NVFP4_GROUP = 16
"""Elements that share a scale of one byte."""


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

    In nvfp4 an element takes half a byte, and 16 of them share a scale of one (tensorrt_llm
    _torch/pyexecutor/resource_manager.py).

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
    require_positive(tp_size=tp_size, pp_size=pp_size)
    layers = -(-model.layers // pp_size)
    if keeps_latent and (latent := latent_size(model)):
        elements = layers * latent
    else:
        head = kv_bytes_per_token(model, "float16") // (2 * model.layers * model.kv_heads)
        elements = layers * -(-model.kv_heads // tp_size) * head
    if kv_cache_dtype == "nvfp4":
        return -(-elements // 2) + -(-elements // NVFP4_GROUP)
    return elements * (FLOAT_BYTES[_dtype(model, dtype)] if kv_cache_dtype == "auto" else 1)


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
    correct: Correct = as_predicted,
) -> Fit:
    """Estimate the memory of a TensorRT-LLM session on one GPU, the fullest of its ranks.

    The KV cache takes a part of what the rest leaves free, so it ranges from one request of full
    length to that part; `kv_tokens` is the safe end. All ranks keep as many tokens as the one
    with the least room (tensorrt_llm _torch/pyexecutor/resource_manager.py), so the GPU with the
    least free memory decides. Without a GPU (a device of no memory) it goes up to max_batch_size
    requests of full length, and the verdict is "unknown".

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
        device: The first GPU; `Device.each` of it has those of the ranks.
        keeps_latent: As in `trtllm_kv_bytes_per_token`.
        correct: Corrects weights and activations; the KV cache takes what is left then.

    Raises:
        SpecError: A value is not one of those named, or out of range.
        ModelError: The arithmetic does not hold for this model.
    """
    require_positive(
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
    split = split_of(model, dtype, quantization, tp_size, pp_size)
    gpus = device.of_ranks(tp_size * pp_size)
    device = min(gpus, key=lambda gpu: gpu.memory_available)
    per_token = trtllm_kv_bytes_per_token(
        model,
        dtype=dtype,
        kv_cache_dtype=kv_cache_dtype,
        tp_size=tp_size,
        pp_size=pp_size,
        keeps_latent=keeps_latent,
    )
    kept_in = _dtype(model, dtype) if kv_cache_dtype == "auto" else kv_cache_dtype
    sequences = max_batch_size * max_beam_width
    stages = _weights(split, quantization, correct)
    weights = _fullest(stages)
    # tensorrt_llm _common.py check_max_num_tokens brings the number into these bounds.
    tokens = max(BLOCK_TOKENS, min(max_num_tokens, max_batch_size * max_seq_len))
    activations = correct(_activations(split, tokens, sequences))
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
        how=f"{per_token:,} bytes a token in {kept_in} on this GPU, in blocks of "
        f"{BLOCK_TOKENS} tokens. The low end is one request of full length, the high end {of_what}"
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
        ranks=_ranks(split, stages, (kv_cache, activations, runtime), gpus),
    )


def _ranks(
    split: Split, stages: Sequence[Part], others: tuple[Part, Part, Part], gpus: Sequence[Device]
) -> tuple[Ranks, ...]:
    """Return what each rank holds; neighbours that hold the same on the same kind of GPU are one.

    Rank numbers go through the tensor-parallel group first (tensorrt_llm mapping.py). All ranks
    keep as many blocks of KV cache as the fullest one, each for its own layers.

    Args:
        split: How the model is spread.
        stages: The weights of a rank of each pipeline stage.
        others: KV cache of the first stage, activations and runtime.
        gpus: Of the ranks.
    """
    found: list[Ranks] = []
    kv_cache, activations, runtime = others
    for rank, gpu in enumerate(gpus):
        stage = rank // split.tp
        low, high = (
            end * split.layers_of(stage) // split.layers_of(0)
            for end in (kv_cache.low, kv_cache.high)
        )
        parts = (stages[stage], replace(kv_cache, low=low, high=high), activations, runtime)
        first = rank
        if found and (found[-1].parts, found[-1].device) == (parts, gpu):
            first = found.pop().first
        found.append(Ranks(first, rank, parts, gpu))
    return tuple(found)


@keep_latest
def split_of(model: Model, dtype: str, quantization: str, tp_size: int, pp_size: int) -> Split:
    """Check what decides about weights, and return how they are spread.

    Raises:
        SpecError: A value is not one of those named, or not positive.
    """
    _require("quantization", quantization, PACKINGS)
    require_positive(tp_size=tp_size, pp_size=pp_size)
    width = FLOAT_BYTES[_dtype(model, dtype)]
    return Split(model, width, PACKINGS[quantization], tp_size, pp_size)


def _weights(split: Split, quantization: str, correct: Correct) -> list[Part]:
    """Weights of a rank of each pipeline stage.

    Layers are quantized, embedding and output layer are not.
    """
    stored = split.packing is None and not split.model.quantized_with
    spread = f"tp_size {split.tp}, pp_size {split.pp}, quantization {quantization}"
    how = (
        f"Counted tensor by tensor for {spread}, with the embedding whole on its rank and the "
        f"table of rotary positions ({format_bytes(split.rotation[1])})."
    )
    unsure = " The range is for scales and padding, and for tables kept twice."
    exact = stored and all(low == high for low, high in split.stages)
    return [
        correct(
            Part(
                "weights",
                low,
                high,
                exact=exact,
                how=how if exact else how + unsure,
                remedy="choose a smaller quantization, a smaller model or a larger tp_size",
            )
        )
        for low, high in split.stages
    ]


def _fullest(stages: Sequence[Part]) -> Part:
    """Return the most of each end among the stages of a pipeline."""
    return replace(
        stages[0],
        low=max(part.low for part in stages),
        high=max(part.high for part in stages),
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


def require_positive(**numbers: int) -> None:
    """Refuse numbers below 1.

    Raises:
        SpecError: Names the parameter.
    """
    for name, number in numbers.items():
        if number < 1:
            raise SpecError(f"{name} must be at least 1; got {number}.")
