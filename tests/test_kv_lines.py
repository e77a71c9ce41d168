"""KV cache sizes that TensorRT-LLM has logged, published with the model and its settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from workbench.errors import ModelError
from workbench.model import Model
from workbench.trtllm_memory import trtllm_kv_bytes_per_token

DEMO = Model.read(Path(__file__).parents[1] / "workbench" / "demo_model")
GIB = 1 << 30


class Line(NamedTuple):
    """What was logged: tokens, and GiB with two digits or exact bytes."""

    model: str
    layers: int
    kv_heads: int
    head_size: int
    kv_cache_dtype: str
    tp_size: int
    tokens: int
    logged: float
    source: str


LINES = (
    Line("Gemma-7B", 28, 16, 256, "auto", 1, 117_760, 54_022_635_520,
         "https://github.com/triton-inference-server/tensorrtllm_backend/issues/456"),
    # The author says "multi-gpu" of a machine with four; both lines are of all four.
    Line("Mistral-7B", 32, 8, 128, "auto", 4, 29_184, 956_301_312,
         "https://github.com/triton-inference-server/tensorrtllm_backend/issues/366"),
    Line("Mistral-7B", 32, 8, 128, "auto", 4, 237_056, 7_767_851_008,
         "https://github.com/triton-inference-server/tensorrtllm_backend/issues/366"),
    Line("Llama-3.1-8B, fp8", 32, 8, 128, "fp8", 1, 263_008, 16.05,
         "https://github.com/NVIDIA/TensorRT-LLM/issues/4275"),
    Line("LLaVA-1.5-7B, on Vicuna-7B", 32, 32, 128, "auto", 2, 315_488, 77.02,
         "https://github.com/triton-inference-server/tensorrtllm_backend/blob/main/docs/multimodal.md"),
    Line("TinyLlama-1.1B", 22, 4, 64, "auto", 2, 1_800_032, 18.88,
         "https://github.com/ai-dynamo/dynamo/blob/34be266cb557c951d8df7fe0d5c5b89d2c4b76ea/"
         "examples/python_rs/llm/tensorrt_llm/README.md"),
    Line("Llama-2-7B, fp8", 32, 32, 128, "fp8", 1, 259_840, 63.44,
         "https://github.com/NVIDIA/TensorRT-LLM/blob/main/docs/source/legacy/reference/memory.md"),
)  # fmt: skip


def per_token(model: Model, dtype: str = "auto", tp: int = 1, pp: int = 1, **more: Any) -> int:
    return trtllm_kv_bytes_per_token(
        model, dtype="float16", kv_cache_dtype=dtype, tp_size=tp, pp_size=pp, **more
    )


def sized(layers: int, kv_heads: int, head_size: int, **config: Any) -> Model:
    return dataclasses.replace(
        DEMO, layers=layers, kv_heads=kv_heads, head_size=head_size, config=config
    )


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.model}-{line.tokens}")
def test_a_published_line_comes_out(line: Line) -> None:
    model = sized(line.layers, line.kv_heads, line.head_size)
    total = line.tokens * per_token(model, line.kv_cache_dtype, line.tp_size)
    if isinstance(line.logged, int):
        assert total == line.logged
    else:
        assert f"{total / GIB:.2f}" == f"{line.logged:.2f}"


@pytest.mark.parametrize(
    ("model", "size"),
    [
        (sized(32, 32, 128), 524_288),  # Llama-2-7B: each head its own keys and values
        (sized(32, 8, 128), 131_072),  # Llama-3.1-8B: shared by four
        (sized(18, 1, 256), 18_432),  # Gemma-2B: shared by all
    ],
)
def test_shared_heads_are_kept_once(model: Model, size: int) -> None:
    assert per_token(model) == size


DEEPSEEK = {"kv_lora_rank": 512, "qk_rope_head_dim": 64}


def test_latent_attention_is_kept_whole_on_every_gpu() -> None:
    """Kimi-K2.5 (DeepSeek V3's 61 layers), fp8 cache, 8 GPUs, PyTorch backend 1.3.0rc7 logged:
    `Allocated 166.02 GiB for max tokens in paged KV cache (5073376).` (From a public test report
    whose address is not known any more; so it counts as an example, not as evidence.)
    """
    model = sized(61, 64, 112, text_config=DEEPSEEK)
    size = per_token(model, "fp8", 8, keeps_latent=True)
    assert size == 61 * 576
    assert f"{5_073_376 * size / GIB:.2f}" == "166.02"
    assert per_token(model, "auto", 1, keeps_latent=True) == 61 * 576 * 2
    # 61 layers in 4 stages: 16 in the first.
    assert per_token(model, "auto", 1, 4, keeps_latent=True) == 16 * 576 * 2


def test_latent_attention_is_refused_where_nobody_verified_what_is_kept() -> None:
    with pytest.raises(ModelError, match="latent attention"):
        per_token(sized(61, 128, 56, **DEEPSEEK))


def test_a_runtime_that_keeps_the_latent_keeps_keys_and_values_of_others() -> None:
    assert per_token(sized(32, 8, 128), keeps_latent=True) == 131_072


def test_half_a_latent_configuration_is_refused() -> None:
    with pytest.raises(ModelError, match="512 for kv_lora_rank and None for qk_rope_head_dim"):
        per_token(sized(61, 128, 56, kv_lora_rank=512), keeps_latent=True)


def test_a_window_takes_nothing_off() -> None:
    windowed = dataclasses.replace(sized(26, 4, 256), sliding_window=4096)
    assert per_token(windowed) == per_token(sized(26, 4, 256))
