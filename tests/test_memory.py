"""Memory: exact where it says so against real engines, and ranges that hold for real sessions."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import make_tiny_model
from workbench.backends import get_backend, make_spec
from workbench.errors import ModelError, SpecError
from workbench.fit import Fit, Part
from workbench.hardware import Device, host
from workbench.memory import build_memory, kv_bytes_per_token, openvino_fit, weight_bytes
from workbench.model import Model
from workbench.process import Worker
from workbench.session import Session
from workbench.tensors import Tensor
from workbench.toolchain import find_toolchain

GIB = 1 << 30
DEVICE = Device("a processor", "cpu", 64 * GIB, 48 * GIB, 8, 16, frozenset({"avx512_bf16"}))


def published(name: str) -> Model:
    """A model by its published configuration, with the shapes that follow from it."""
    # layers, hidden, heads, kv heads, intermediate, vocabulary, context
    layers, hidden, heads, kv_heads, inner, vocabulary, context = {
        "Llama-2-7B": (32, 4096, 32, 32, 11008, 32000, 4096),
        "Llama-3.1-8B": (32, 4096, 32, 8, 14336, 128256, 131072),
    }[name]
    head = hidden // heads
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "lm_head.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }
    for number in range(layers):
        layer = f"model.layers.{number}."
        shapes |= {
            f"{layer}self_attn.q_proj.weight": (hidden, hidden),
            f"{layer}self_attn.k_proj.weight": (kv_heads * head, hidden),
            f"{layer}self_attn.v_proj.weight": (kv_heads * head, hidden),
            f"{layer}self_attn.o_proj.weight": (hidden, hidden),
            f"{layer}mlp.gate_proj.weight": (inner, hidden),
            f"{layer}mlp.up_proj.weight": (inner, hidden),
            f"{layer}mlp.down_proj.weight": (hidden, inner),
            f"{layer}input_layernorm.weight": (hidden,),
            f"{layer}post_attention_layernorm.weight": (hidden,),
        }
    tensors = [Tensor(key, "F16", shape, 0) for key, shape in shapes.items()]
    return Model(
        source=name,
        revision=None,
        commit=None,
        path=None,
        architecture="LlamaForCausalLM",
        model_type="llama",
        layers=layers,
        hidden_size=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head,
        intermediate_size=inner,
        vocab_size=vocabulary,
        context_length=context,
        dtype="float16",
        tied_embeddings=False,
        sliding_window=None,
        has_chat_template=False,
        tensors=tuple(dataclasses.replace(t, bytes=2 * t.elements) for t in tensors),
        config={},
    )


LLAMA_2 = published("Llama-2-7B")
LLAMA_3 = published("Llama-3.1-8B")
LIMITS: dict[str, Any] = {
    "dtype": "bfloat16",
    "quantization": "int4",
    "group_size": 128,
    "symmetric": False,
    "kv_cache_dtype": "int8",
    "max_batch_size": 4,
    "max_seq_len": 4096,
    "max_num_tokens": 1024,
    "kv_cache_tokens": 16384,
    "device": DEVICE,
}


class TestArithmetic:
    """What follows from a configuration alone."""

    def test_the_published_models_have_their_published_sizes(self) -> None:
        assert LLAMA_2.parameters == 6_738_415_616
        assert LLAMA_3.parameters == 8_030_261_248

    @pytest.mark.parametrize(
        ("model", "dtype", "size"),
        [
            (LLAMA_2, "float16", 524_288),
            (LLAMA_3, "float16", 131_072),
            (LLAMA_3, "bfloat16", 131_072),
            (LLAMA_3, "float32", 262_144),
            # 2.25 bytes a channel for key and value, and 8 for each value vector.
            (LLAMA_3, "int8", 32 * 8 * (2.25 * 128 + 8)),
        ],
        ids=lambda value: getattr(value, "source", value),
    )
    def test_kv_bytes_per_token(self, model: Model, dtype: str, size: int) -> None:
        assert kv_bytes_per_token(model, dtype) == size

    def test_the_weights_of_the_large_ones(self) -> None:
        """By hand: int4 in groups of 128 is 4 + (16 + 4) / 128 bits a weight."""
        vectors = LLAMA_3.hidden_size * 65
        tables = 2 * LLAMA_3.vocab_size * LLAMA_3.hidden_size
        matrices = LLAMA_3.parameters - vectors - tables
        rest = tables + 3 * 2 * LLAMA_3.vocab_size + 4 * vectors
        assert weight_bytes(LLAMA_3, "int4", 128, symmetric=False) == (
            matrices * (4 + 20 / 128) / 8 + rest
        )
        assert weight_bytes(LLAMA_3, "int4", 128, symmetric=True) == (
            matrices * (4 + 16 / 128) / 8 + rest
        )
        assert weight_bytes(LLAMA_3, "none", 128, symmetric=False) == 4 * LLAMA_3.parameters
        assert weight_bytes(LLAMA_3, "fp16", 128, symmetric=False) == 2 * LLAMA_3.parameters

    def test_a_fit_adds_up(self) -> None:
        fit = openvino_fit(LLAMA_3, **LIMITS)
        assert [part.name for part in fit.parts] == [
            "weights", "KV cache", "activations", "runtime",
        ]  # fmt: skip
        assert fit.total_low == sum(part.low for part in fit.parts)
        assert fit.total_high == sum(part.high for part in fit.parts)
        assert all(0 < part.low <= part.high and part.how for part in fit.parts)
        assert [part.name for part in fit.parts if part.exact] == ["KV cache"]
        assert fit.kv_cache.low == 16384 * kv_bytes_per_token(LLAMA_3, "int8")
        assert fit.free_low == 48 * GIB - fit.total_high
        assert fit.free_high == 48 * GIB - fit.total_low
        assert (fit.kv_tokens, fit.full_length_requests) == (16384, 4)

    def test_the_kv_cache_comes_in_blocks(self) -> None:
        fit = openvino_fit(LLAMA_3, **LIMITS | {"kv_cache_tokens": 4097, "max_seq_len": 4090})
        assert fit.kv_tokens == 4128
        assert fit.full_length_requests == 1
        short = openvino_fit(LLAMA_3, **LIMITS | {"kv_cache_tokens": 32})
        assert short.full_length_requests == 0

    def test_without_instructions_for_bfloat16_both_widths_count(self) -> None:
        options = LIMITS | {"quantization": "none"}
        plain = dataclasses.replace(DEVICE, features=frozenset({"avx2"}))
        known, unknown, wide = (
            openvino_fit(LLAMA_3, **options | change).weights
            for change in ({}, {"device": plain}, {"dtype": "float32"})
        )
        assert unknown.low == known.low
        assert unknown.high == wide.high > known.high

    @pytest.mark.parametrize(
        ("more", "larger"),
        [
            ({"max_num_tokens": 4096}, "activations"),
            ({"max_batch_size": 64}, "activations"),
            ({"kv_cache_tokens": 32768}, "kv_cache"),
            ({"kv_cache_dtype": "bfloat16"}, "kv_cache"),
            ({"quantization": "int8"}, "weights"),
            ({"group_size": 32}, "weights"),
        ],
    )
    def test_more_of_something_takes_more_there_and_nowhere_else(
        self, more: dict[str, Any], larger: str
    ) -> None:
        before, after = openvino_fit(LLAMA_3, **LIMITS), openvino_fit(LLAMA_3, **LIMITS | more)
        grown = [
            name
            for name in ("weights", "kv_cache", "activations", "runtime")
            if getattr(after, name).high > getattr(before, name).high
        ]
        assert grown == [larger]


class TestVerdict:
    """A range against what is available."""

    def fit(self, available: int) -> Fit:
        part = Part("weights", 2 * GIB, 3 * GIB, exact=False, how="a test")
        small = Part("runtime", 0, 0, exact=True, how="a test")
        device = dataclasses.replace(DEVICE, memory_available=available)
        return Fit(device, part, small, small, small, kv_tokens=2048, full_length_requests=1)

    def test_three_verdicts(self) -> None:
        assert self.fit(3 * GIB).verdict == "fits"
        assert self.fit(3 * GIB - 1).verdict == "tight"
        assert self.fit(2 * GIB).verdict == "tight"
        assert self.fit(2 * GIB - 1).verdict == "does not fit"

    def test_each_is_said_in_one_sentence_with_its_numbers(self) -> None:
        assert self.fit(4 * GIB).summary == (
            "Fits: 2.00 GiB to 3.00 GiB of 4.00 GiB available; the KV cache holds 2,048 tokens, "
            "1 request of full length."
        )
        assert self.fit(int(2.5 * GIB)).summary.startswith(
            "Tight: 2.00 GiB to 3.00 GiB are needed and 2.50 GiB are available; the KV cache"
        )
        assert self.fit(GIB).summary == (
            "Does not fit: at least 2.00 GiB are needed and 1.00 GiB are available, and most is "
            "for the weights; choose a smaller quantization or a smaller model."
        )


class TestRefusals:
    """What there is no estimate for."""

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"dtype": "int8"}, "dtype must be one of float32, bfloat16, float16; got 'int8'"),
            ({"quantization": "int3"}, "quantization must be one of"),
            ({"kv_cache_dtype": "auto"}, "kv_cache_dtype must be one of"),
            ({"group_size": 0}, "group_size must be positive, or -1"),
            ({"max_batch_size": 0}, "max_batch_size must be at least 1; got 0"),
            ({"kv_cache_tokens": -5}, "kv_cache_tokens must be at least 1"),
        ],
    )
    def test_values(self, change: dict[str, Any], words: str) -> None:
        with pytest.raises(SpecError, match=re.escape(words)):
            openvino_fit(LLAMA_3, **LIMITS | change)

    @pytest.mark.parametrize(
        ("config", "words"),
        [
            ({"kv_lora_rank": 512}, "latent attention"),
            ({"layer_types": ["full_attention", "linear_attention"]}, "linear_attention layers"),
            ({"text_config": {"layer_types": ["mamba"]}}, "mamba layers"),
        ],
    )
    def test_other_caches(self, config: dict[str, Any], words: str) -> None:
        with pytest.raises(ModelError, match=words):
            kv_bytes_per_token(dataclasses.replace(LLAMA_3, config=config), "float16")

    def test_windowed_layers_are_attention(self) -> None:
        layers = {"layer_types": ["full_attention", "sliding_attention"]}
        model = dataclasses.replace(LLAMA_3, config=layers)
        assert kv_bytes_per_token(model, "float16") == 131_072

    def test_quantized_checkpoints(self) -> None:
        config = {"quantization_config": {"quant_method": "awq"}}
        with pytest.raises(ModelError, match=r"quantized already \(awq\)"):
            weight_bytes(dataclasses.replace(LLAMA_3, config=config), "int8", 64, symmetric=False)


# Against real engines of tiny models: one with everything separate, one with what is tied.

ENGINES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "llama-int4": ("llama", {}, {"quantization": "int4", "group_size": 32}),
    "qwen2-int8": (
        "qwen2",
        {"tie_word_embeddings": True},
        {"quantization": "int8", "symmetric": True},
    ),
}


@dataclasses.dataclass(frozen=True)
class Built:
    """A real engine, and what the arithmetic needs to foresee it."""

    model: Model
    directory: Path
    values: dict[str, Any]
    peak_bytes: int


@pytest.fixture(scope="session", params=ENGINES)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build with the real worker; `peak_bytes` is the high-water mark of its memory."""
    kind, sizes, values = ENGINES[request.param]
    root = tmp_path_factory.mktemp(request.param)
    source = make_tiny_model(kind, root / "model", **sizes)
    spec = make_spec({"model": str(source), **values})
    peak = 0
    with tempfile.TemporaryFile() as log:
        worker = Worker(find_toolchain("openvino"), "build", log)
        worker.send(
            backend="openvino",
            spec=spec.model_dump(mode="json"),
            model=str(source),
            output=str(root / "engine"),
        )
        for message in worker.messages():
            assert message["event"] != "error", message
            if message["event"] == "done":
                peak = _high_water_mark(worker.pid)
        worker.close()
    return Built(Model.read(source), root / "engine", values, peak)


def _high_water_mark(pid: int) -> int:
    """Return the most memory that a process had, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert match
    return int(match[1]) * 1024


class TestRealEngines:
    """The engines that NNCF and OpenVINO make."""

    def test_stored_weights_are_foreseen_up_to_the_scalars_of_the_graph(self, built: Built) -> None:
        size = (built.directory / "openvino_model.bin").stat().st_size
        values = {"group_size": 64, "symmetric": False, **built.values}
        assert 0 <= size - weight_bytes(built.model, **values) < 1024

    @pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
    def test_the_kv_cache_has_the_bytes_of_the_compiled_model(
        self, built: Built, dtype: str
    ) -> None:
        precision = {"float32": "f32", "float16": "f16", "int8": "u8"}[dtype]
        command = [sys.executable, "-c", CACHE_INPUTS, str(built.directory), precision]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        assert int(answer.stdout) == 32 * kv_bytes_per_token(built.model, dtype)

    def test_a_session_stays_within_its_range(self, built: Built) -> None:
        values = {
            **built.values,
            "model": str(built.model.path),
            "max_batch_size": 2,
            "max_input_len": 200,
            "max_output_len": 56,
            "threads": 2,
        }
        spec = make_spec(values)
        backend = get_backend("openvino")
        fit = backend.fit(spec, built.model, host())
        toolchain = find_toolchain("openvino")
        with Session(built.directory, "openvino", backend.limits(spec), toolchain) as session:
            prompts = [[number + 10] * 200 for number in range(2)]
            for generation in [session.generate(ids, ignore_eos=True) for ids in prompts]:
                generation.wait(60)
            assert session.facts["kv_cache_tokens"] == fit.kv_tokens
            peak = _high_water_mark(session.pid)
        assert fit.total_low <= peak <= fit.total_high

    def test_a_build_stays_within_its_range(self, built: Built) -> None:
        values = {"group_size": 64, "symmetric": False, **built.values}
        need = build_memory(built.model, **values)
        assert need.memory.low <= built.peak_bytes <= need.memory.high
        size = sum(path.stat().st_size for path in built.directory.iterdir())
        # The float32 graph is gone by now.
        assert size + 4 * built.model.parameters <= need.disk.high
        assert need.disk.low <= size + 4 * built.model.parameters


CACHE_INPUTS = """
import math, sys
import openvino
from openvino._offline_transformations import paged_attention_transformation

model = openvino.Core().read_model(sys.argv[1] + "/openvino_model.xml")
paged_attention_transformation(model, False, False)
options = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": sys.argv[2]}
compiled = openvino.Core().compile_model(model, "CPU", options)
total = 0
for port in compiled.inputs:
    if "_cache." in port.get_any_name():
        blocks, *block = port.partial_shape
        total += math.prod(size.get_length() for size in block) * port.element_type.size
print(total)
"""
