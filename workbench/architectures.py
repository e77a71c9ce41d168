"""Architectures: the tensors of a model from its config.json alone, for when no weights are there.

What is not known exactly is refused, never guessed: an architecture that is not in `FAMILIES`, a
switch that brings tensors which nobody described, a quantization other than DeepSeek's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from workbench import expert_shapes, gpt_shapes, llama_shapes
from workbench.configuration import Configuration
from workbench.errors import ModelError
from workbench.shapes import Shape, Shapes, under
from workbench.tensors import BITS, Tensor

FAMILIES: Mapping[str, Callable[[Configuration], Shapes]] = {
    "BloomForCausalLM": gpt_shapes.bloom,
    "CohereForCausalLM": llama_shapes.COHERE,
    "DeepseekV2ForCausalLM": expert_shapes.DEEPSEEK_V2,
    "DeepseekV3ForCausalLM": expert_shapes.deepseek_v3,
    "FalconForCausalLM": gpt_shapes.falcon,
    "GPT2LMHeadModel": gpt_shapes.gpt2,
    "GPTBigCodeForCausalLM": gpt_shapes.gpt_bigcode,
    "GPTJForCausalLM": gpt_shapes.gptj,
    "GPTNeoXForCausalLM": gpt_shapes.gpt_neox,
    "Gemma2ForCausalLM": llama_shapes.GEMMA2,
    "Gemma3ForCausalLM": llama_shapes.GEMMA3,
    "Gemma3ForConditionalGeneration": llama_shapes.GEMMA3,
    "GemmaForCausalLM": llama_shapes.GEMMA,
    "GraniteForCausalLM": llama_shapes.LLAMA,
    "LlamaForCausalLM": llama_shapes.LLAMA,
    "MistralForCausalLM": llama_shapes.MISTRAL,
    "MixtralForCausalLM": expert_shapes.MIXTRAL,
    "OPTForCausalLM": gpt_shapes.opt,
    "Olmo2ForCausalLM": llama_shapes.OLMO2,
    "Phi3ForCausalLM": llama_shapes.PHI3,
    "PhiForCausalLM": gpt_shapes.phi,
    "Qwen2ForCausalLM": llama_shapes.QWEN2,
    "Qwen2MoeForCausalLM": expert_shapes.QWEN2_MOE,
    "Qwen3ForCausalLM": llama_shapes.QWEN3,
    "Qwen3MoeForCausalLM": expert_shapes.QWEN3_MOE,
    "Starcoder2ForCausalLM": llama_shapes.STARCODER2,
}
"""What yields the tensors of an architecture, by its name in config.json."""

DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16", "float64": "F64"}
"""The safetensors format's names of torch's types."""

UNQUANTIZED = ("mlp.gate", "eh_proj", "embed_tokens", "shared_head.head")
"""Matrices in layers that DeepSeek keeps as they are (README_WEIGHTS.md of DeepSeek-V3)."""


def tensors_of_config(source: str, config: Mapping[str, Any]) -> tuple[Tensor, ...]:
    """Return the tensors that a checkpoint of a configuration has, in the order of the network.

    Args:
        source: The model's name for messages.
        config: The whole config.json.

    Raises:
        ModelError: The architecture is not known here, or a key that decides is missing or wrong.
    """
    architecture = next(iter(config.get("architectures") or ()), "")
    family = FAMILIES.get(architecture)
    if family is None:
        raise ModelError(
            f"{source} has no weights here, and its tensors cannot be derived from config.json: "
            f"the architecture {architecture or '(none given)'} is not among those that are known "
            f"({', '.join(sorted(FAMILIES))}). Download its safetensors files."
        )
    text = config.get("text_config", config)
    shapes = family(Configuration(source, {**_defaults(architecture), **text}))
    if text is not config:
        shapes = under("language_model", shapes)
    dtype = _dtype(source, config, text)
    return tuple(_stored(source, config, dtype, shapes))


def _defaults(architecture: str) -> Mapping[str, int]:
    """Return what multimodal configurations leave to their class."""
    multimodal = architecture == "Gemma3ForConditionalGeneration"
    return llama_shapes.GEMMA3_DEFAULTS if multimodal else {}


def _dtype(source: str, config: Mapping[str, Any], text: Mapping[str, Any]) -> str:
    """Return the type of the weights, as the format spells it; torch's default is float32."""
    for place in (text, config):
        for key in ("dtype", "torch_dtype"):
            value = place.get(key)
            if value is None:
                continue
            name = str(value).removeprefix("torch.")
            if name not in DTYPES:
                raise ModelError(
                    f"config.json of {source} gives {value!r} for {key}; one of "
                    f"{', '.join(DTYPES)} is expected."
                )
            return DTYPES[name]
    return "F32"


def _stored(source: str, config: Mapping[str, Any], dtype: str, shapes: Shapes) -> Iterator[Tensor]:
    """Yield tensors as they are stored, quantized or not."""
    block = _block(source, config)
    for name, shape in shapes:
        if block and _is_quantized(name, shape):
            yield _tensor(name, "F8_E4M3", shape)
            rows, columns = (-(-size // side) for size, side in zip(shape, block, strict=True))
            yield _tensor(f"{name}_scale_inv", "F32", (rows, columns))
        else:
            in_float32 = name.endswith("e_score_correction_bias")
            yield _tensor(name, "F32" if in_float32 else dtype, shape)


def _block(source: str, config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return the block of a matrix that shares a scale in FP8; None without quantization.

    Raises:
        ModelError: Weights are quantized in another way.
    """
    details = config.get("quantization_config")
    match details:
        case None:
            return None
        case {"quant_method": "fp8", "weight_block_size": [int(rows), int(columns)]} if (
            config.get("architectures") == ["DeepseekV3ForCausalLM"] and rows > 0 and columns > 0
        ):
            return rows, columns
    method = details.get("quant_method", "unknown") if isinstance(details, dict) else details
    raise ModelError(
        f"{source} has no weights here, and they are quantized ({method}): how they are stored "
        "cannot be derived from config.json. Download its safetensors files, or take the "
        "configuration of the unquantized model."
    )


def _is_quantized(name: str, shape: Shape) -> bool:
    module = name.removesuffix(".weight")
    return len(shape) == 2 and ".layers." in name and not module.endswith(UNQUANTIZED)


def _tensor(name: str, dtype: str, shape: Shape) -> Tensor:
    return Tensor(name, dtype, shape, math.prod(shape) * BITS[dtype] // 8)
