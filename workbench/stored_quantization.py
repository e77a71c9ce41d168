"""What a checkpoint that is quantized already says of its weights and of its KV cache.

ModelOpt says it in hf_quant_config.json: up to 0.43 under "quantization" and with the word
"kv_cache_quant_algo", later without that level and with a "kv_cache_scheme" of bits and type.
Others say it in config.json as "quantization_config". TensorRT-LLM takes the file where there is
one (tensorrt_llm _torch/model_config.py, quantization/modelopt_config.py,
models/quant_config_utils.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FILE = "hf_quant_config.json"

Section = Mapping[str, Any]


def method_of(config: Section, file: Section) -> str:
    """Return the method by which the weights are quantized, such as "gptq"; or "".

    Args:
        config: config.json.
        file: hf_quant_config.json; empty where there is none.
    """
    if _section(file).get("quant_algo"):
        return "modelopt"
    details = config.get("quantization_config")
    return str(details.get("quant_method", "unknown")) if isinstance(details, dict) else ""


def kv_cache_type_of(config: Section, file: Section) -> str:
    """Return the type in which the KV cache is to be kept: "fp8", "nvfp4", "int8"; or "".

    Args:
        config: config.json.
        file: hf_quant_config.json; empty where there is none.
    """
    details = config.get("quantization_config")
    said = _section(file or (details if isinstance(details, dict) else {}))
    word = said.get("kv_cache_quant_algo")
    if isinstance(word, str) and word.lower() in ("fp8", "nvfp4", "int8"):
        return word.lower()
    match said.get("kv_cache_scheme"):
        case {"num_bits": 8, "type": "float"}:
            return "fp8"
        case {"num_bits": 8, "type": "int"}:
            return "int8"
    return ""


def _section(said: Section) -> Section:
    """Return what is said without the level that older versions put around it."""
    inner = said.get("quantization")
    return inner if isinstance(inner, dict) else said
