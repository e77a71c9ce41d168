"""The memory estimate for TensorRT-LLM against what people's logs and its documents say."""

from __future__ import annotations

import dataclasses
import random
import re
from typing import Any

import pytest

from workbench.errors import ModelError, SpecError
from workbench.hardware import Device
from workbench.model import Model
from workbench.tensors import Tensor
from workbench.trtllm_memory import trtllm_fit, trtllm_kv_bytes_per_token
from workbench.trtllm_need import trtllm_build_need
from workbench.trtllm_weights import PACKINGS, rotation_bytes

MIB, GIB, GB = 1 << 20, 1 << 30, 10**9
GPU = Device("a GPU", "gpu", 80 * GIB, 79 * GIB, 0, 0)
NO_GPU = Device("no GPU", "gpu", 0, 0, 0, 0)


def decoder(
    name: str,
    sizes: tuple[int, int, int, int, int, int, int, int],
    *,
    tied: bool = False,
    biases: bool = False,
    **config: Any,
) -> Model:
    """A model with the tensors of Llama (with biases: of Qwen2) by published sizes."""
    layers, hidden, heads, kv_heads, head, inner, vocabulary, _ = sizes
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }
    if not tied:
        shapes["lm_head.weight"] = (vocabulary, hidden)
    for number in range(layers):
        at = f"model.layers.{number}."
        rows = {"q_proj": heads * head, "k_proj": kv_heads * head, "v_proj": kv_heads * head}
        for module, size in rows.items():
            shapes[f"{at}self_attn.{module}.weight"] = (size, hidden)
            if biases:
                shapes[f"{at}self_attn.{module}.bias"] = (size,)
        shapes |= {
            f"{at}self_attn.o_proj.weight": (hidden, heads * head),
            f"{at}mlp.gate_proj.weight": (inner, hidden),
            f"{at}mlp.up_proj.weight": (inner, hidden),
            f"{at}mlp.down_proj.weight": (hidden, inner),
            f"{at}input_layernorm.weight": (hidden,),
            f"{at}post_attention_layernorm.weight": (hidden,),
        }
    return model(name, sizes, shapes, tied, config)


def model(
    name: str,
    sizes: tuple[int, int, int, int, int, int, int, int],
    shapes: dict[str, tuple[int, ...]],
    tied: bool,
    config: dict[str, Any],
) -> Model:
    layers, hidden, heads, kv_heads, head, inner, vocabulary, context = sizes
    tensors = [Tensor(key, "F16", shape, 0) for key, shape in shapes.items()]
    return Model(
        source=name,
        revision=None,
        commit=None,
        path=None,
        architecture="",
        model_type=str(config.get("model_type", "llama")),
        layers=layers,
        hidden_size=hidden,
        heads=heads,
        kv_heads=kv_heads,
        head_size=head,
        intermediate_size=inner,
        vocab_size=vocabulary,
        context_length=context,
        dtype="float16",
        tied_embeddings=tied,
        sliding_window=None,
        has_chat_template=False,
        tensors=tuple(dataclasses.replace(t, bytes=2 * t.elements) for t in tensors),
        config=config,
    )


def gpt2() -> Model:
    """GPT-2 124M with the names of its checkpoint, causal masks included."""
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (50257, 768),
        "wpe.weight": (1024, 768),
        "ln_f.weight": (768,),
        "ln_f.bias": (768,),
    }
    for number in range(12):
        at = f"h.{number}."
        for norm in ("ln_1", "ln_2"):
            shapes |= {f"{at}{norm}.weight": (768,), f"{at}{norm}.bias": (768,)}
        shapes[f"{at}attn.bias"] = (1, 1, 1024, 1024)
        for module, rows, columns in (
            ("attn.c_attn", 768, 2304),
            ("attn.c_proj", 768, 768),
            ("mlp.c_fc", 768, 3072),
            ("mlp.c_proj", 3072, 768),
        ):
            shapes |= {f"{at}{module}.weight": (rows, columns), f"{at}{module}.bias": (columns,)}
    return model("GPT-2", (12, 768, 12, 12, 64, 0, 50257, 1024), shapes, tied=True, config={})


# layers, hidden, heads, kv heads, head, intermediate, vocabulary, context
LLAMA_2 = decoder("Llama-2-7B", (32, 4096, 32, 32, 128, 11008, 32000, 4096))
LLAMA_3 = decoder("Llama-3-8B", (32, 4096, 32, 8, 128, 14336, 128256, 8192))
LLAMA_31 = decoder("Llama-3.1-8B", (32, 4096, 32, 8, 128, 14336, 128256, 131072))
LLAMA_32 = decoder("Llama-3.2-1B", (16, 2048, 32, 8, 64, 8192, 128256, 131072), tied=True)
QWEN = decoder(
    "Qwen2.5-0.5B", (24, 896, 14, 2, 64, 4864, 151936, 32768), tied=True, biases=True
)  # fmt: skip
QWEN_15 = decoder(
    "R1-Distill-Qwen-1.5B", (28, 1536, 12, 2, 128, 8960, 151936, 131072), biases=True
)  # fmt: skip
GLM_4 = decoder("GLM-4-9B", (40, 4096, 32, 2, 128, 13696, 151552, 131072), biases=True)
COMMAND_R = decoder("Command-R", (40, 8192, 64, 64, 128, 22528, 256000, 131072), tied=True)
GEMMA_2 = decoder("Gemma-2-9B", (42, 3584, 16, 8, 256, 14336, 256000, 8192), tied=True)
GPT_2 = gpt2()

PLAIN: dict[str, Any] = {
    "dtype": "float16",
    "quantization": "none",
    "kv_cache_dtype": "auto",
    "tp_size": 1,
    "pp_size": 1,
    "max_batch_size": 64,
    "max_seq_len": 4096,
    "max_num_tokens": 8192,
    "max_beam_width": 1,
    "kv_cache_free_gpu_memory_fraction": 0.9,
    "kv_cache_tokens": None,
    "device": GPU,
}


def kv_bytes(model: Model, dtype: str = "auto", tp: int = 1, pp: int = 1) -> int:
    return trtllm_kv_bytes_per_token(
        model, dtype="float16", kv_cache_dtype=dtype, tp_size=tp, pp_size=pp
    )


class TestKvCache:
    """The formula of docs/source/legacy/reference/memory.md."""

    @pytest.mark.parametrize(
        ("model", "dtype", "tp", "pp", "size"),
        [
            (LLAMA_2, "auto", 1, 1, 524_288),
            (LLAMA_2, "fp8", 1, 1, 262_144),
            (LLAMA_2, "int8", 1, 1, 262_144),
            (LLAMA_31, "auto", 1, 1, 131_072),
            (LLAMA_31, "auto", 8, 1, 16_384),
            # 8 heads on 16 GPUs: each has one of its own.
            (LLAMA_31, "auto", 16, 1, 16_384),
            # 8 heads on 3 GPUs: ceil(8 / 3) = 3.
            (LLAMA_31, "auto", 3, 1, 3 * 16_384),
            # 32 layers in 5 stages: 7 in the first.
            (LLAMA_31, "auto", 1, 5, 7 * 4096),
            (LLAMA_31, "auto", 1, 64, 4096),
        ],
    )
    def test_bytes_per_token(self, model: Model, dtype: str, tp: int, pp: int, size: int) -> None:
        assert kv_bytes(model, dtype, tp, pp) == size

    @pytest.mark.parametrize(
        ("model", "dtype", "tokens", "gib"),
        [
            # memory.md, question 1: 6695 MiB of weights, Llama-2-7B in fp8 with an fp8 cache.
            (LLAMA_2, "fp8", 259_840, 63.44),
            # triton-inference-server/tensorrtllm_backend issue 625.
            (GLM_4, "auto", 288_384, 11.00),
            # NVIDIA/TensorRT-LLM issue 1188.
            (QWEN, "auto", 395_776, 4.53),
        ],
    )
    def test_logged_pools(self, model: Model, dtype: str, tokens: int, gib: float) -> None:
        """`Allocated 63.44 GiB for max tokens in paged KV cache (259840).`"""
        assert round(tokens * kv_bytes(model, dtype) / GIB, 2) == gib

    def test_the_pool_is_a_fraction_of_what_is_left(self) -> None:
        """memory.md, question 1: 70.48 GiB available became 259,840 tokens with 0.9."""
        options = PLAIN | {"quantization": "fp8", "kv_cache_dtype": "fp8"}
        some = trtllm_fit(LLAMA_2, **options)
        others = some.total_high - some.kv_cache.high
        left = int(70.48 * GIB)
        device = dataclasses.replace(GPU, memory_available=others + left)
        fit = trtllm_fit(LLAMA_2, **options | {"device": device})
        assert fit.kv_cache.high == int(0.9 * left)
        # The log has two digits and blocks of 64.
        assert abs(fit.kv_tokens - 259_840) <= 64
        assert fit.full_length_requests == fit.kv_tokens // 4096 == 63
        assert fit.verdict == "fits"

    def test_kv_cache_tokens_is_the_smaller_of_two_limits(self) -> None:
        fit = trtllm_fit(LLAMA_2, **PLAIN | {"kv_cache_tokens": 5000})
        assert fit.kv_tokens == 5024
        assert fit.kv_cache.high == 5024 * 524_288
        assert fit.kv_cache.low == 4096 * 524_288
        free = trtllm_fit(LLAMA_2, **PLAIN)
        many = trtllm_fit(LLAMA_2, **PLAIN | {"kv_cache_tokens": 10**9})
        assert many.kv_tokens == free.kv_tokens
        few = trtllm_fit(LLAMA_2, **PLAIN | {"kv_cache_tokens": 1000})
        assert few.kv_cache.low == few.kv_cache.high == 1024 * 524_288
        assert few.full_length_requests == 0

    def test_beams_share_the_cache(self) -> None:
        one, four = (trtllm_fit(LLAMA_31, **PLAIN | {"max_beam_width": w}) for w in (1, 4))
        assert four.full_length_requests == four.kv_tokens // (4 * 4096)
        assert one.full_length_requests == one.kv_tokens // 4096


class TestUnlikeGpus:
    """Ranks on GPUs that have not the same free."""

    FULL = dataclasses.replace(GPU, memory_available=30 * GIB)

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    @pytest.mark.parametrize("shape", [{"tp_size": 2}, {"pp_size": 2}])
    def test_the_one_with_the_least_room_decides(
        self, order: tuple[int, int], shape: dict[str, int]
    ) -> None:
        gpus = [(GPU, self.FULL)[which] for which in order]
        unlike = dataclasses.replace(gpus[0], each=tuple(gpus))
        fit = trtllm_fit(LLAMA_31, **PLAIN | shape | {"device": unlike})
        alone = trtllm_fit(LLAMA_31, **PLAIN | shape | {"device": self.FULL})
        assert fit.device == self.FULL
        assert (fit.kv_tokens, fit.summary) == (alone.kv_tokens, alone.summary)
        assert [ranks.device for ranks in fit.ranks] == gpus

    def test_one_that_no_rank_runs_on_says_nothing(self) -> None:
        here = dataclasses.replace(GPU, each=(GPU, GPU, self.FULL))
        fit = trtllm_fit(LLAMA_31, **PLAIN | {"tp_size": 2, "device": here})
        assert fit == trtllm_fit(LLAMA_31, **PLAIN | {"tp_size": 2})

    def test_ranks_beyond_the_gpus_share_the_last_one(self) -> None:
        here = dataclasses.replace(GPU, each=(GPU, self.FULL))
        fit = trtllm_fit(LLAMA_31, **PLAIN | {"tp_size": 4, "device": here})
        assert [(r.title, r.device) for r in fit.ranks] == [
            ("rank 0", GPU),
            ("ranks 1-3", self.FULL),
        ]


class TestWeights:
    """Bytes of the weights on the fullest rank."""

    def test_llama_3_on_one_gpu(self) -> None:
        """A build with 0.9.0: `Total Weights Memory: 16060522496`.

        Its engines had no table of positions yet. With 0.18 the same network for 131,072 positions
        is 15,380 MiB on the GPU (NVIDIA/TensorRT-LLM issue 3636).
        """
        weights = trtllm_fit(LLAMA_3, **PLAIN).weights
        assert weights.exact
        assert weights.low == weights.high
        assert weights.low - rotation_bytes(LLAMA_3)[0] == 16_060_522_496
        assert trtllm_fit(LLAMA_31, **PLAIN).weights.low // MIB == 15_380

    def test_gpt2(self) -> None:
        """A build with 0.20.0: `Total Weights Memory: 326085504 bytes`.

        Its embedding is there twice.
        """
        weights = trtllm_fit(GPT_2, **PLAIN).weights
        assert not weights.exact
        assert 0 <= 326_085_504 - weights.high < 12_000
        assert weights.high - weights.low == 2 * 50257 * 768

    def test_qwen_in_int8(self) -> None:
        """NVIDIA/TensorRT-LLM issue 1188: 869 MiB on the GPU, two copies of the embedding."""
        weights = trtllm_fit(QWEN, **PLAIN | {"quantization": "int8_wo"}).weights
        assert weights.low < 869 * MIB <= weights.high < 1.01 * 869 * MIB
        matrices = sum(t.elements for t in QWEN.tensors if len(t.shape) > 1 and "layers" in t.name)
        vectors = sum(t.elements for t in QWEN.tensors if len(t.shape) == 1)
        table = 151_936 * 896
        assert weights.low == matrices + 2 * vectors + 2 * table + 32768 * 64 * 4

    def test_tensor_parallelism(self) -> None:
        """By hand: the embedding and the norms whole, the rest in 4; 8 heads in 16 repeated."""
        layer = 2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 14336 * 4096
        table, norms, positions = 128256 * 4096, 65 * 4096, 131072 * 128 * 4
        four = trtllm_fit(LLAMA_31, **PLAIN | {"tp_size": 4}).weights
        assert four.exact
        assert four.low == 2 * (32 * layer // 4 + table + table // 4 + norms) + positions
        sixteen = trtllm_fit(LLAMA_31, **PLAIN | {"tp_size": 16}).weights
        doubled = 2 * 128 * 4096
        rest = (layer - 2 * 1024 * 4096) // 16
        assert sixteen.low == 2 * (32 * (rest + doubled) + table + table // 16 + norms) + positions

    def test_biases_and_tied_tables_are_split(self) -> None:
        rank = trtllm_fit(QWEN, **PLAIN | {"tp_size": 2}).weights
        layer = 2 * 896 * 896 + 2 * 128 * 896 + 3 * 4864 * 896
        biases = 896 + 2 * 128
        table = 151_936 * 896
        each = 24 * (layer + biases) // 2 + table + table // 2 + 49 * 896
        assert rank.low == rank.high == 2 * each + 32768 * 64 * 4

    def test_a_vocabulary_is_padded(self) -> None:
        odd = decoder("odd", (2, 64, 4, 4, 16, 128, 101, 0))
        table = 101 * 64
        layers = 2 * (4 * 64 * 64 + 3 * 128 * 64) // 4 + 5 * 64
        assert trtllm_fit(odd, **PLAIN | {"tp_size": 4}).weights.low == 2 * (
            layers + table + 26 * 64
        )

    @pytest.mark.parametrize("stages", [1, 2, 3, 5, 7, 32, 40])
    def test_a_pipeline_loses_nothing(self, stages: int) -> None:
        """Checkpoint and engine together are twice the weights and a table for each rank."""
        need = trtllm_build_need(
            LLAMA_31, dtype="auto", quantization="none", tp_size=1, pp_size=stages, workers=1
        )
        positions = rotation_bytes(LLAMA_31)[0]
        assert need.disk.low == 2 * (2 * LLAMA_31.parameters + stages * positions)

    def test_the_first_stage_takes_the_layers_that_are_left_over(self) -> None:
        layer = 2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 14336 * 4096 + 2 * 4096
        weights = trtllm_fit(LLAMA_31, **PLAIN | {"pp_size": 5}).weights
        assert weights.low == 2 * (7 * layer + 128256 * 4096) + 131072 * 128 * 4

    def test_unknown_modules_may_be_whole(self) -> None:
        renamed = tuple(
            dataclasses.replace(t, name=t.name.replace("up_proj", "novel")) for t in LLAMA_3.tensors
        )
        novel = dataclasses.replace(LLAMA_3, tensors=renamed)
        weights = trtllm_fit(novel, **PLAIN | {"tp_size": 2}).weights
        assert not weights.exact
        assert weights.high - weights.low == 2 * 32 * 14336 * 4096 // 2
        assert trtllm_fit(novel, **PLAIN).weights.exact

    def test_each_quantization_has_its_bits(self) -> None:
        """By hand for the matrices of the layers: bits of a weight and of its share of scales."""
        matrices = 32 * (2 * 4096 * 4096 + 2 * 1024 * 4096 + 3 * 14336 * 4096)
        rest = trtllm_fit(LLAMA_3, **PLAIN).weights.low - 2 * matrices
        bits = {
            "int8_wo": (8, 8.2), "int4_wo": (4, 4.1), "fp8": (8, 8.1), "fp8_rowwise": (8, 8.2),
            "nvfp4": (4.5, 5.1), "int4_awq": (4.125, 4.2), "w4a8_awq": (4.125, 4.2),
            "int8_sq": (8, 8.2),
        }  # fmt: skip
        assert set(bits) == set(PACKINGS) - {"none"}
        for name, (least, most) in bits.items():
            weights = trtllm_fit(LLAMA_3, **PLAIN | {"quantization": name}).weights
            assert not weights.exact
            assert weights.low == rest + matrices * least / 8, name
            assert weights.low < weights.high < rest + matrices * most / 8, name

    def test_auto_is_the_type_of_the_checkpoint_and_half_of_float32(self) -> None:
        single = dataclasses.replace(LLAMA_3, dtype="float32")
        sizes = {
            trtllm_fit(model, **PLAIN | {"dtype": dtype}).weights.low
            for model, dtype in ((LLAMA_3, "auto"), (single, "auto"), (LLAMA_3, "bfloat16"))
        }
        assert len(sizes) == 1
        wide = trtllm_fit(single, **PLAIN | {"dtype": "float32"}).weights.low
        assert wide - sizes.pop() == 2 * LLAMA_3.parameters


class TestActivations:
    """`Total Activation Memory` of builds, `Allocated ... for execution context memory` of runs."""

    @pytest.mark.parametrize(
        ("model", "size", "limits"),
        [
            # The notes that are also the log of GPT-2 above; the second of its two builds.
            (GPT_2, 503_420_928, {"max_num_tokens": 32768}),
            (GPT_2, 1_006_835_712, {"max_num_tokens": 65536}),
            # NVIDIA/TensorRT-LLM issue 1188, defaults, and 512 tokens of one request.
            (
                QWEN,
                773.51 * MIB,
                {"quantization": "int8_wo", "max_batch_size": 2048, "max_seq_len": 32768},
            ),
            (
                QWEN,
                43.26 * MIB,
                {"quantization": "int8_wo", "max_batch_size": 1, "max_num_tokens": 512},
            ),
            # Notes on 0.17.0.post1 with int4 weights and default limits.
            (QWEN_15, 921.51 * MIB, {"quantization": "int4_wo", "max_batch_size": 2048}),
            # A build with 0.9.0, before fused MLPs.
            (LLAMA_3, 1_577_062_400, {"max_num_tokens": 16384, "max_seq_len": 2048}),
            # A build with 0.12 for four GPUs.
            (LLAMA_3, 229 * 10**6, {"max_num_tokens": 4096, "tp_size": 4}),
        ],
        ids=lambda value: getattr(value, "source", None),
    )
    def test_logs_are_in_range(self, model: Model, size: float, limits: dict[str, Any]) -> None:
        part = trtllm_fit(model, **PLAIN | limits).activations
        assert part.low <= size <= part.high
        assert not part.exact

    def test_the_lower_end_is_close_where_tokens_are_many(self) -> None:
        part = trtllm_fit(GPT_2, **PLAIN | {"max_num_tokens": 32768}).activations
        assert part.low == pytest.approx(503_420_928, rel=0.001)

    def test_a_step_is_no_longer_than_all_requests(self) -> None:
        """tensorrt_llm _common.py check_max_num_tokens."""
        cut, same = (
            trtllm_fit(LLAMA_3, **PLAIN | {"max_batch_size": 1, "max_num_tokens": tokens})
            for tokens in (8192, 4096)
        )
        assert cut.activations == same.activations


class TestRuntime:
    """Buffers, decoder and the CUDA context."""

    def test_buffers_for_the_default_batch(self) -> None:
        """NVIDIA/TensorRT-LLM issue 1188: 2.66 GB for runtime buffers and 5.76 GB for decoder."""
        limits = {"max_batch_size": 2048, "max_seq_len": 32768}
        part = trtllm_fit(QWEN, **PLAIN | limits).runtime
        assert part.low <= 8.42 * GIB <= part.high - 1024 * MIB

    def test_a_whole_session(self) -> None:
        """NVIDIA/TensorRT-LLM issue 1188: 1182 MB for one request of 512 tokens, int8, 0.001."""
        limits = {
            "quantization": "int8_wo",
            "max_batch_size": 1,
            "max_num_tokens": 512,
            "max_seq_len": 32768,
            "kv_cache_tokens": 1200,
        }
        fit = trtllm_fit(QWEN, **PLAIN | limits)
        assert fit.total_low <= 1182 * MIB <= fit.total_high


class TestBuildNeed:
    """Host memory in people's build logs."""

    @pytest.mark.parametrize(
        ("model", "gigabytes", "options"),
        [
            (GPT_2, 7.0, {}),
            (LLAMA_32, 10.4, {"quantization": "int8_wo"}),
            # NVIDIA/TensorRT-LLM issue 2324.
            (GEMMA_2, 40.3, {}),
            (LLAMA_3, 36.2, {}),
            (LLAMA_3, 58.6, {"tp_size": 4}),
            # README.md of the examples for Command-R and for ChatGLM and GLM.
            (COMMAND_R, 176, {}),
            (GLM_4, 29.7, {}),
        ],
        ids=lambda value: getattr(value, "source", None),
    )
    def test_logs_are_in_range(
        self, model: Model, gigabytes: float, options: dict[str, Any]
    ) -> None:
        plain: dict[str, Any] = {"dtype": "auto", "quantization": "none"}
        plain |= {"tp_size": 1, "pp_size": 1, "workers": 1}
        memory = trtllm_build_need(model, **plain | options).memory
        assert memory.low <= gigabytes * GB <= memory.high
        assert not memory.exact

    @pytest.mark.parametrize(("model", "mebibytes"), [(GEMMA_2, 19_386), (COMMAND_R, 70_725)])
    def test_gpu_memory_in_logs_is_in_range(self, model: Model, mebibytes: int) -> None:
        """What builds of both held at their end."""
        plain: dict[str, Any] = {"dtype": "auto", "quantization": "none"}
        need = trtllm_build_need(model, **plain, tp_size=1, pp_size=1, workers=1)
        assert need.device is not None
        assert need.device.low <= mebibytes * MIB <= need.device.high
        assert not need.device.exact

    def test_quantization_may_load_all_unquantized_weights_on_the_gpu(self) -> None:
        plain, packed = (
            trtllm_build_need(
                LLAMA_3, dtype="auto", quantization=name, tp_size=1, pp_size=1, workers=1
            ).device
            for name in ("none", "int4_awq")
        )
        assert plain is not None
        assert packed is not None
        assert packed.low < plain.low < packed.high

    def test_an_engine_without_weights_takes_less_disk(self) -> None:
        options: dict[str, Any] = {"dtype": "auto", "quantization": "none", "workers": 2}
        options |= {"tp_size": 2, "pp_size": 1}
        whole = trtllm_build_need(LLAMA_3, **options)
        stripped = trtllm_build_need(LLAMA_3, **options, strip_plan=True)
        assert 2 * stripped.disk.low == whole.disk.low
        assert whole.devices == 2

    def test_workers_beyond_the_ranks_do_nothing(self) -> None:
        one, many = (
            trtllm_build_need(
                LLAMA_3, dtype="auto", quantization="none", tp_size=1, pp_size=1, workers=workers
            )
            for workers in (1, 8)
        )
        assert one.memory == many.memory
        assert one.devices == many.devices == 1


class TestVerdict:
    """What a fit says."""

    def test_without_a_gpu_nothing_is_known(self) -> None:
        fit = trtllm_fit(LLAMA_31, **PLAIN | {"device": NO_GPU})
        assert fit.verdict == "unknown"
        assert fit.kv_cache.low == 4096 * 131_072
        assert fit.kv_cache.high == 64 * 4096 * 131_072
        assert (fit.kv_tokens, fit.full_length_requests) == (64 * 4096, 64)
        assert re.fullmatch(
            r"Unknown: [\d.]+ GiB to [\d.]+ GiB are needed, and no NVIDIA GPU was found to compare "
            r"with; at the most the KV cache holds 262,144 tokens, 64 requests of full length\.",
            fit.summary,
        )
        limited = trtllm_fit(LLAMA_31, **PLAIN | {"device": NO_GPU, "kv_cache_tokens": 8192})
        assert limited.kv_cache.high == 8192 * 131_072

    def test_a_gpu_that_holds_the_weights_but_no_request_does_not_fit(self) -> None:
        options = PLAIN | {"max_seq_len": 131072, "max_batch_size": 1}
        fit = trtllm_fit(LLAMA_31, **options)
        assert fit.verdict == "fits"
        small = dataclasses.replace(GPU, memory_available=fit.total_low - 1)
        fit = trtllm_fit(LLAMA_31, **options | {"device": small})
        assert fit.verdict == "does not fit"
        assert fit.kv_tokens < 131072
        assert fit.full_length_requests == 0

    @pytest.mark.parametrize(
        ("change", "remedy"),
        [
            ({}, "larger tp_size"),
            ({"max_seq_len": 131072, "max_batch_size": 1}, "lower max_seq_len"),
            ({"max_batch_size": 20000, "max_seq_len": 32, "max_num_tokens": 32}, "max_batch_size"),
            ({"max_num_tokens": 10**6, "max_batch_size": 1000}, "lower max_num_tokens"),
        ],
    )
    def test_the_remedy_names_parameters_of_this_backend(
        self, change: dict[str, Any], remedy: str
    ) -> None:
        tiny = dataclasses.replace(GPU, memory_available=GIB)
        kind = {"quantization": "int4_wo"} if change else {}
        fit = trtllm_fit(LLAMA_31, **PLAIN | kind | change | {"device": tiny})
        assert fit.verdict == "does not fit"
        assert remedy in fit.summary


class TestOrder:
    """More of something never needs less, for random limits."""

    @pytest.mark.parametrize("seed", range(4))
    def test_more_never_needs_less(self, seed: int) -> None:
        pick = random.Random(seed)
        for _ in range(12):
            model = pick.choice([LLAMA_2, QWEN, GPT_2])
            limits = PLAIN | {
                "quantization": pick.choice(list(PACKINGS)),
                "kv_cache_dtype": pick.choice(["auto", "int8", "fp8"]),
                "tp_size": pick.choice([1, 2, 3, 8, 64]),
                "pp_size": pick.choice([1, 2, 5, 50]),
                "max_batch_size": pick.randint(1, 3000),
                "max_seq_len": pick.randint(1, 40000),
                "max_num_tokens": pick.randint(1, 40000),
                "max_beam_width": pick.randint(1, 4),
                "kv_cache_free_gpu_memory_fraction": pick.uniform(0.01, 0.99),
                "kv_cache_tokens": pick.choice([None, 0, 1, 777, 10**6]),
                "device": pick.choice(
                    [NO_GPU, GPU, dataclasses.replace(GPU, memory_available=GIB)]
                ),
            }
            before = trtllm_fit(model, **limits)
            for name in ("max_batch_size", "max_seq_len", "max_num_tokens", "max_beam_width"):
                more = limits | {name: limits[name] + pick.choice([1, 31, 1000])}
                after = trtllm_fit(model, **more)
                assert after.total_low >= before.total_low, (name, limits)
                assert after.total_high >= before.total_high, (name, limits)
            for part in before.parts:
                assert 0 <= part.low <= part.high
                assert part.how
                assert part.remedy

    @pytest.mark.parametrize("name", ["tp_size", "pp_size"])
    def test_more_gpus_never_hold_more_weights_each(self, name: str) -> None:
        for quantization in PACKINGS:
            options = PLAIN | {"quantization": quantization}
            highs = [
                trtllm_fit(LLAMA_31, **options | {name: size}).weights.high
                for size in (1, 2, 4, 8, 16, 32)
            ]
            assert highs == sorted(highs, reverse=True)


class TestRefusals:
    """What there is no estimate for."""

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"dtype": "fp8"}, "dtype must be one of auto, float32, bfloat16, float16; got 'fp8'"),
            ({"quantization": "int4"}, "quantization must be one of none, int8_wo"),
            ({"kv_cache_dtype": "float16"}, "kv_cache_dtype must be one of auto, int8, fp8"),
            ({"tp_size": 0}, "tp_size must be at least 1; got 0"),
            ({"pp_size": -1}, "pp_size must be at least 1; got -1"),
            ({"max_beam_width": 0}, "max_beam_width must be at least 1"),
            ({"kv_cache_free_gpu_memory_fraction": 1.0}, "above 0 and below 1; got 1.0"),
            ({"kv_cache_tokens": -1}, "kv_cache_tokens must not be negative; got -1"),
        ],
    )
    def test_values(self, change: dict[str, Any], words: str) -> None:
        with pytest.raises(SpecError, match=re.escape(words)):
            trtllm_fit(LLAMA_3, **PLAIN | change)

    def test_a_model_without_plain_keys_and_values(self) -> None:
        model = dataclasses.replace(LLAMA_3, config={"kv_lora_rank": 512})
        with pytest.raises(ModelError, match="latent attention"):
            trtllm_fit(model, **PLAIN)

    def test_a_checkpoint_that_is_quantized_is_taken_as_it_is_stored(self) -> None:
        config = {**LLAMA_3.config, "quantization_config": {"quant_method": "awq"}}
        weights = trtllm_fit(dataclasses.replace(LLAMA_3, config=config), **PLAIN).weights
        stored = sum(tensor.bytes for tensor in LLAMA_3.tensors)
        assert not weights.exact
        assert weights.low < stored < weights.high
