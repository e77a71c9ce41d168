"""What builds with TensorRT-LLM take of their host and of its GPUs.

Ranges that hold for published logs; they stand in `tests/test_trtllm_memory.py` with their sources.
"""

from __future__ import annotations

from dataclasses import replace

from workbench.fit import BuildNeed, Part
from workbench.model import Model
from workbench.trtllm_memory import MIB, require_positive, split_of

GB = 1_000_000_000


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
    require_positive(workers=workers)
    split = split_of(model, dtype, quantization, tp_size, pp_size)
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
    return BuildNeed(memory, disk, device, min(workers, ranks), ranks, engine=kept)


def trtllm_recipe_need(model: Model, *, dtype: str, tp_size: int, pp_size: int) -> BuildNeed:
    """Estimate what publishing a recipe takes: a few files, and trying it loads the checkpoint.

    Args:
        model: The model.
        dtype: One of `DTYPES`.
        tp_size: GPUs that share each layer.
        pp_size: Groups of GPUs that share the layers out.

    Raises:
        SpecError: A value is not one of those named, or not positive.
    """
    least, most = split_of(model, dtype, "none", tp_size, pp_size).fullest()
    size = sum(tensor.bytes for tensor in model.tensors)
    return BuildNeed(
        Part("memory", 0, size, exact=False, how="the weights pass through the host's memory"),
        Part("disk", 0, 64 * MIB, exact=False, how="tokenizer and recipe; no weights are copied"),
        Part(
            "GPU memory",
            least,
            most + GB,
            exact=False,
            how="The weights of a rank, loaded once to try it, and up to 1 GB for CUDA. The KV "
            "cache takes a share of what is free then.",
        ),
        devices=0,
        ranks=tp_size * pp_size,
    )
