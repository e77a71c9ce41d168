"""Checkpoints that ModelOpt or llm-compressor quantized: what they say is read and counted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.test_model import write_model
from tests.test_trtllm_memory import LLAMA_31
from tests.test_trtllm_torch import gpus
from workbench import hub
from workbench.backends import make_spec
from workbench.backends.tensorrt_llm_torch import TorchSpec, fit
from workbench.backends.trtllm_torch_rules import findings
from workbench.errors import ModelError
from workbench.hardware import Device
from workbench.model import Model
from workbench.tensors import Tensor
from workbench.trtllm_memory import trtllm_kv_bytes_per_token

GIB = 1 << 30
GPU = Device("a GPU", "gpu", 80 * GIB, 79 * GIB, 0, 0)


def nested(algorithm: str | None, cache: str | None) -> dict[str, Any]:
    """The file of ModelOpt up to 0.43."""
    said = {"quant_algo": algorithm, "kv_cache_quant_algo": cache, "exclude_modules": ["lm_head"]}
    return {"producer": {"name": "modelopt", "version": "0.29.0"}, "quantization": said}


FP8_SCHEME = {"dynamic": False, "num_bits": 8, "type": "float"}
FLAT = {"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_scheme": FP8_SCHEME}
"""The file of later ones."""

COMPRESSED = {"quant_method": "compressed-tensors", "kv_cache_scheme": FP8_SCHEME}


@pytest.mark.parametrize(
    ("file", "config", "method", "cache"),
    [
        (None, None, "", ""),
        (nested("FP8", "FP8"), None, "modelopt", "fp8"),
        (nested("NVFP4", None), None, "modelopt", ""),
        (nested("NVFP4", "NVFP4"), None, "modelopt", "nvfp4"),
        (nested("NVFP4", "auto"), None, "modelopt", ""),
        (nested(None, "FP8"), None, "", "fp8"),
        (nested("INT8_SQ", "INT8"), None, "modelopt", "int8"),
        (FLAT, None, "modelopt", "fp8"),
        (None, COMPRESSED, "compressed-tensors", "fp8"),
        (None, FLAT, "modelopt", "fp8"),
        # The file counts before config.json.
        (nested("NVFP4", "NVFP4"), FLAT, "modelopt", "nvfp4"),
        (nested("NVFP4", None), FLAT, "modelopt", ""),
        (None, {**COMPRESSED, "kv_cache_scheme": {"num_bits": 4, "type": "float"}},
         "compressed-tensors", ""),
        ({"quantization": "FP8"}, None, "", ""),
    ],
)  # fmt: skip
def test_what_a_checkpoint_says_is_read(
    tmp_path: Path,
    file: dict[str, Any] | None,
    config: dict[str, Any] | None,
    method: str,
    cache: str,
) -> None:
    directory = write_model(tmp_path / "m", quantization_config=config)
    if file:
        (directory / "hf_quant_config.json").write_text(json.dumps(file))
    model = Model.read(directory)
    assert (model.quantized_with, model.kv_cache_type) == (method, cache)


def test_a_file_that_is_no_object_is_refused(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m")
    (directory / "hf_quant_config.json").write_text("[]")
    with pytest.raises(ModelError, match=r"hf_quant_config\.json should hold a JSON object"):
        Model.read(directory)


def test_the_hub_is_asked_for_the_file() -> None:
    assert "hf_quant_config.json" in hub.DESCRIPTIONS


@pytest.mark.parametrize(
    ("said", "dtype", "size"),
    [
        (nested("FP8", None), "auto", 131_072),
        (nested("FP8", "FP8"), "auto", 65_536),
        # Half a byte for each of 65,536 elements, and a scale for 16 of them.
        (nested("NVFP4", "NVFP4"), "auto", 32_768 + 4_096),
        (nested("NVFP4", "NVFP4"), "fp8", 65_536),
    ],
)
def test_auto_takes_what_the_checkpoint_says(said: dict[str, Any], dtype: str, size: int) -> None:
    spec = make_spec({"backend": "tensorrt_llm_torch", "kv_cache_dtype": dtype})
    part = fit(spec, replace(LLAMA_31, quantization=said), GPU).kv_cache
    assert part.how.startswith(f"{size:,} bytes a token")


def test_scales_of_an_odd_number_of_elements_are_whole() -> None:
    odd = replace(LLAMA_31, layers=1, kv_heads=1, head_size=9)
    size = trtllm_kv_bytes_per_token(
        odd, dtype="auto", kv_cache_dtype="nvfp4", tp_size=1, pp_size=1
    )
    assert size == 9 + 2


def packed(tensor: Tensor) -> list[Tensor]:
    """A matrix as ModelOpt stores it in NVFP4: two weights a byte, a scale for 16, and scalars."""
    if len(tensor.shape) < 2 or "embed" in tensor.name:
        return [tensor]
    rows, columns = tensor.shape
    at = tensor.name.removesuffix("weight")
    return [
        Tensor(tensor.name, "U8", (rows, columns // 2), rows * columns // 2),
        Tensor(f"{at}weight_scale", "F8_E4M3", (rows, columns // 16), rows * columns // 16),
        Tensor(f"{at}weight_scale_2", "F32", (), 4),
        Tensor(f"{at}input_scale", "F32", (), 4),
    ]


@pytest.mark.parametrize("tp_size", [1, 8])
def test_tensors_of_few_bits_count_as_they_are_stored(tp_size: int) -> None:
    tensors = tuple(stored for tensor in LLAMA_31.tensors for stored in packed(tensor))
    model = replace(LLAMA_31, tensors=tensors, quantization=nested("NVFP4", "FP8"))
    spec = make_spec({"backend": "tensorrt_llm_torch", "tp_size": tp_size})
    weights = fit(spec, model, GPU).weights
    table = next(t.bytes for t in tensors if "embed" in t.name)
    rest = sum(t.bytes for t in tensors) - table
    rotation = 4 * 131_072 * 128
    expected = table + rest / tp_size + rotation
    assert weights.low <= expected <= weights.high
    assert weights.high < 1.1 * expected
    assert weights.low > 0.9 * expected


@pytest.mark.parametrize(
    ("said", "generation", "words"),
    [
        ("INT8", 90, "asks for a KV cache in int8, which this backend does not have"),
        ("NVFP4", 90, "NVIDIA H200 (sm90) does not compute in FP4"),
    ],
)
def test_a_cache_that_cannot_be_is_refused(said: str, generation: int, words: str) -> None:
    model = replace(LLAMA_31, quantization=nested("FP8", said))
    on = gpus(generation)
    (found,) = [f for f in findings(TorchSpec(), model, on) if f.field == "kv_cache_dtype"]
    assert found.level == "refuse"
    assert words in found.reason
    mended = TorchSpec.parse(dict(found.changes))
    assert not [f for f in findings(mended, model, on) if f.field == "kv_cache_dtype"]


def test_a_cache_in_fp8_is_no_finding() -> None:
    model = replace(LLAMA_31, quantization=nested("FP8", "FP8"))
    found = findings(TorchSpec(), model, gpus(90))
    assert not [f for f in found if f.field == "kv_cache_dtype"]
