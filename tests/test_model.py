"""Models: what is read from configuration and headers, and one sentence for everything broken."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import huggingface_hub
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.faults.disks import on_read_only_disk, on_small_disk
from tests.hub_server import COMMIT, serve
from tests.known_models import KNOWN
from tests.tiny_models import Kind, make_tiny_model
from workbench.backends import make_spec
from workbench.build import Plan
from workbench.errors import ModelError, SpecError
from workbench.model import Model
from workbench.rules import refuse
from workbench.summaries import model_line
from workbench.tensors import BITS, read_tensors

KINDS = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
}

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "num_hidden_layers": 1,
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 32,
    "max_position_embeddings": 64,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": False,
}
LAYER = "model.layers.0."
SHAPES: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (32, 8),
    "lm_head.weight": (32, 8),
    f"{LAYER}self_attn.q_proj.weight": (8, 8),
    f"{LAYER}self_attn.k_proj.weight": (4, 8),
    f"{LAYER}mlp.up_proj.weight": (16, 8),
    "model.norm.weight": (8,),
}
ENTRY = '{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'
PARAMETERS = 32 * 8 + 32 * 8 + 8 * 8 + 4 * 8 + 16 * 8 + 8


def write_safetensors(
    path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str = "BF16"
) -> None:
    """Write a file by the format's description, with zeros for data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        size = BITS[dtype] // 8
        for length in shape:
            size *= length
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [position, position + size],
        }
        position += size
    write_raw(path, json.dumps(header).encode(), bytes(position))


def write_raw(path: Path, header: bytes, data: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def write_model(directory: Path, **changes: Any) -> Path:
    """Write a checkpoint of one layer; a change to None takes the key out of the configuration."""
    directory.mkdir(parents=True, exist_ok=True)
    config = {key: value for key, value in {**CONFIG, **changes}.items() if value is not None}
    (directory / "config.json").write_text(json.dumps(config))
    write_safetensors(directory / "model.safetensors", SHAPES)
    return directory


def write_shards(directory: Path) -> Path:
    """Write the same checkpoint in two shards."""
    write_model(directory)
    (directory / "model.safetensors").unlink()
    names = list(SHAPES)
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[:3], names[3:]), start=1):
        shard = f"model-0000{number}-of-00002.safetensors"
        write_safetensors(directory / shard, {name: SHAPES[name] for name in part})
        weight_map |= dict.fromkeys(part, shard)
    index = {"metadata": {"total_size": 2 * PARAMETERS}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


@pytest.fixture
def model_directory(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("tiny")
    return {kind: make_tiny_model(kind, root / kind) for kind in get_args(Kind)}


class TestWhatTransformersWrites:
    """Checkpoints of five families, written by transformers."""

    @pytest.mark.parametrize("kind", KINDS)
    def test_sizes_and_parameters_are_those_of_transformers(
        self, tiny: dict[str, Path], kind: str
    ) -> None:
        from transformers import AutoModelForCausalLM

        network = AutoModelForCausalLM.from_pretrained(tiny[kind])
        model = Model.read(tiny[kind])
        assert model.parameters == network.num_parameters()
        assert model.weight_bytes == 4 * model.parameters
        assert model.architecture == KINDS[kind]
        assert model.model_type == network.config.model_type
        assert model.layers == len(network.model.layers)
        assert model.vocab_size == network.get_input_embeddings().weight.shape[0]
        assert (model.hidden_size, model.intermediate_size) == (128, 256)
        assert (model.heads, model.kv_heads, model.head_size) == (2, 1, 64)
        assert model.context_length == 512
        assert model.dtype == "float32"
        assert model.tied_embeddings == network.config.tie_word_embeddings
        assert model.has_chat_template
        assert model.path == tiny[kind]

    def test_only_gemma_has_a_window(self, tiny: dict[str, Path]) -> None:
        windows = {kind: Model.read(path).sliding_window for kind, path in tiny.items()}
        assert windows == dict.fromkeys(KINDS, None) | {"gemma3": 64}

    def test_headers_are_those_that_the_library_reads(self, tiny: dict[str, Path]) -> None:
        from safetensors import safe_open

        path = tiny["qwen3"] / "model.safetensors"
        ours = {tensor.name: (tensor.dtype, tensor.shape) for tensor in read_tensors(path)}
        with safe_open(path, "pt") as file:  # type: ignore[no-untyped-call]
            theirs = {
                name: (file.get_slice(name).get_dtype(), tuple(file.get_slice(name).get_shape()))
                for name in file.keys()  # noqa: SIM118 - it is no mapping
            }
        assert ours == theirs

    def test_the_same_seed_gives_the_same_bytes(
        self, tiny: dict[str, Path], tmp_path: Path
    ) -> None:
        again = make_tiny_model("llama", tmp_path / "again")
        other = make_tiny_model("llama", tmp_path / "other", seed=1)
        first = (tiny["llama"] / "model.safetensors").read_bytes()
        assert (again / "model.safetensors").read_bytes() == first
        assert (other / "model.safetensors").read_bytes() != first


class TestConfigurations:
    """What is taken from the configuration, and what from the tensors."""

    def test_shards_are_one_model(self, tmp_path: Path) -> None:
        model = Model.read(write_shards(tmp_path / "sharded"))
        assert model.parameters == PARAMETERS
        assert model.bytes_by_dtype == {"BF16": 2 * PARAMETERS}

    def test_a_tied_output_layer_counts_once_even_if_it_is_stored(self, tmp_path: Path) -> None:
        model = Model.read(write_model(tmp_path / "tied", tie_word_embeddings=True))
        assert model.tied_embeddings
        assert model.parameters == PARAMETERS - 32 * 8

    def test_tying_is_seen_in_the_tensors_where_the_configuration_is_silent(
        self, tmp_path: Path
    ) -> None:
        directory = write_model(tmp_path / "silent", tie_word_embeddings=None)
        assert not Model.read(directory).tied_embeddings
        tied = {name: shape for name, shape in SHAPES.items() if name != "lm_head.weight"}
        write_safetensors(directory / "model.safetensors", tied)
        assert Model.read(directory).tied_embeddings

    def test_stored_rotary_frequencies_are_no_parameters(self, model_directory: Path) -> None:
        rotary = {**SHAPES, f"{LAYER}self_attn.rotary_emb.inv_freq": (2,)}
        write_safetensors(model_directory / "model.safetensors", rotary)
        assert Model.read(model_directory).parameters == PARAMETERS

    def test_the_type_comes_from_the_tensors_where_the_configuration_is_silent(
        self, tmp_path: Path
    ) -> None:
        directory = write_model(tmp_path / "m", torch_dtype=None)
        assert Model.read(directory).dtype == "bfloat16"
        write_safetensors(directory / "model.safetensors", SHAPES, "F8_E4M3")
        assert Model.read(directory).dtype == "f8_e4m3"

    def test_both_names_of_the_type_are_read(self, tmp_path: Path) -> None:
        directory = write_model(tmp_path / "m", torch_dtype=None, dtype="torch.float16")
        assert Model.read(directory).dtype == "float16"

    def test_older_names_of_sizes_are_read(self, tmp_path: Path) -> None:
        old = {"n_layer": 3, "n_embd": 8, "n_head": 4, "n_positions": 77, "n_inner": None}
        names = ("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads",
                 "max_position_embeddings", "intermediate_size")  # fmt: skip
        directory = write_model(
            tmp_path / "m", architectures=["GPT2LMHeadModel"], **dict.fromkeys(names), **old
        )
        gpt2 = {"wte.weight": (32, 8), "h.0.mlp.c_fc.weight": (8, 32)}
        write_safetensors(directory / "model.safetensors", gpt2)
        model = Model.read(directory)
        assert (model.layers, model.hidden_size, model.heads, model.kv_heads) == (3, 8, 4, 4)
        assert (model.head_size, model.context_length, model.intermediate_size) == (2, 77, 0)

    def test_a_window_that_is_switched_off_is_none(self, tmp_path: Path) -> None:
        window = {"sliding_window": 32}
        assert Model.read(write_model(tmp_path / "a", **window)).sliding_window == 32
        off = write_model(tmp_path / "b", **window, use_sliding_window=False)
        assert Model.read(off).sliding_window is None

    def test_a_quantized_checkpoint_says_how(self, tmp_path: Path) -> None:
        directory = write_model(tmp_path / "m", quantization_config={"quant_method": "gptq"})
        assert Model.read(directory).quantized_with == "gptq"
        assert Model.read(write_model(tmp_path / "n")).quantized_with == ""

    def test_the_text_part_of_a_multimodal_model(self, tmp_path: Path) -> None:
        """Gemma 3 of 4 B as published: the text part leaves out what its class defaults to."""
        text = {
            "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
            "num_hidden_layers": 34, "sliding_window": 1024,
        }  # fmt: skip
        directory = tmp_path / "gemma"
        directory.mkdir()
        config = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": text,
                  "model_type": "gemma3", "torch_dtype": "bfloat16"}  # fmt: skip
        (directory / "config.json").write_text(json.dumps(config))
        layer = "language_model.model.layers.0."
        # The shapes of the real one, but few of the tensors, of one byte an element.
        shapes = {
            "language_model.model.embed_tokens.weight": (262_208, 8),
            f"{layer}self_attn.q_proj.weight": (2048, 8),
            f"{layer}self_attn.k_proj.weight": (1024, 8),
            f"{layer}self_attn.q_norm.weight": (256,),
            "vision_tower.vision_model.embeddings.position_embedding.weight": (4096, 8),
            "multi_modal_projector.mm_soft_emb_norm.weight": (1152,),
        }
        write_safetensors(directory / "model.safetensors", shapes, "I8")
        model = Model.read(directory)
        assert (model.heads, model.kv_heads, model.head_size) == (8, 4, 256)
        assert (model.vocab_size, model.layers) == (262_208, 34)
        assert model.model_type == "gemma3_text"
        assert model.tied_embeddings
        assert model.parameters == 262_208 * 8 + 3072 * 8 + 256

    def test_the_head_size_follows_the_query_matrix(self, tmp_path: Path) -> None:
        directory = write_model(tmp_path / "m")
        wide = {**SHAPES, f"{LAYER}self_attn.q_proj.weight": (32, 8)}
        write_safetensors(directory / "model.safetensors", wide)
        assert Model.read(directory).head_size == 16

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("chat_template.jinja", "{{ messages }}"),
            ("chat_template.json", "{}"),
            ("tokenizer_config.json", '{"chat_template": "{{ messages }}"}'),
        ],
    )
    def test_a_chat_template_is_seen_wherever_it_is(
        self, model_directory: Path, name: str, content: str
    ) -> None:
        (model_directory / "tokenizer_config.json").write_text('{"model_max_length": 5}')
        assert not Model.read(model_directory).has_chat_template
        (model_directory / name).write_text(content)
        assert Model.read(model_directory).has_chat_template


class TestRefusals:
    """One sentence for everything that cannot be used."""

    def refused(self, source: str | Path) -> str:
        with pytest.raises(ModelError) as caught:
            Model.read(source)
        return str(caught.value)

    def test_a_path_that_is_not_there(self, tmp_path: Path) -> None:
        assert "There is no directory" in self.refused(tmp_path / "nothing")
        for name in ("x" * 5000, "~nobody-here/model", "a\0b"):
            with pytest.raises(ModelError, match="There is no directory"):
                Model.read(name)
        assert "owner/name" in self.refused("nothing-of-that-name")
        assert "owner/name" in self.refused("./relative/path")

    def test_a_file(self, model_directory: Path) -> None:
        assert "is a file" in self.refused(model_directory / "config.json")

    def test_no_configuration(self, model_directory: Path) -> None:
        (model_directory / "config.json").unlink()
        assert "has no config.json" in self.refused(model_directory)

    @pytest.mark.parametrize("content", [b"{", b"", b'"\xff"', b"[" * 100_000])
    def test_a_configuration_that_is_no_json(self, model_directory: Path, content: bytes) -> None:
        (model_directory / "config.json").write_bytes(content)
        assert "is not valid JSON" in self.refused(model_directory)

    def test_a_configuration_that_is_no_object(self, model_directory: Path) -> None:
        (model_directory / "config.json").write_text("[1]")
        assert "should hold a JSON object and holds a list" in self.refused(model_directory)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"architectures": None}, "names no architecture"),
            ({"architectures": []}, "names no architecture"),
            ({"architectures": ["BertForMaskedLM"]}, "its architecture is BertForMaskedLM"),
            ({"architectures": ["LlamaModel"]}, "its architecture is LlamaModel"),
            (
                {"architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
                "not a decoder-only language model",
            ),
            ({"hidden_size": "8"}, "gives '8' for hidden_size"),
            ({"num_attention_heads": 0}, "gives 0 for num_attention_heads"),
            ({"num_hidden_layers": True}, "gives True for num_hidden_layers"),
            ({"num_hidden_layers": None}, "does not tell layers (expected under num_hidden_layers"),
        ],
    )
    def test_what_is_no_decoder(self, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
        assert words in self.refused(write_model(tmp_path / "m", **changes))

    def test_a_multimodal_model_whose_text_part_cannot_be_told(self, tmp_path: Path) -> None:
        directory = write_model(
            tmp_path / "m", architectures=["NewForConditionalGeneration"], text_config=CONFIG
        )
        (directory / "model.safetensors").unlink()
        write_safetensors(directory / "model.safetensors", {"model.norm.weight": (8,)})
        assert "Use the text-only variant" in self.refused(directory)

    def test_no_weights_of_an_architecture_that_is_not_known(self, tmp_path: Path) -> None:
        directory = write_model(tmp_path / "m", architectures=["UnheardForCausalLM"])
        (directory / "model.safetensors").unlink()
        assert "has no weights here, and its tensors cannot be derived" in self.refused(directory)

    def test_weights_under_another_name(self, model_directory: Path) -> None:
        (model_directory / "model.safetensors").rename(model_directory / "mine.safetensors")
        assert "has no weights: model.safetensors or" in self.refused(model_directory)

    @pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model-00001-of-00002.bin"])
    def test_only_pickles(self, model_directory: Path, name: str) -> None:
        (model_directory / "model.safetensors").rename(model_directory / name)
        message = self.refused(model_directory)
        assert f"only as {name}, a pickle" in message
        assert "save_pretrained" in message

    def test_a_missing_shard(self, tmp_path: Path) -> None:
        directory = write_shards(tmp_path / "m")
        (directory / "model-00002-of-00002.safetensors").unlink()
        message = self.refused(directory)
        assert "lacks 1 of the 2 files" in message
        assert "model-00002-of-00002.safetensors" in message

    def test_a_shard_of_another_model(self, tmp_path: Path) -> None:
        directory = write_shards(tmp_path / "m")
        write_safetensors(directory / "model-00002-of-00002.safetensors", {"other": (1,)})
        message = self.refused(directory)
        assert "model-00002-of-00002.safetensors lacks 3 of the 3 tensors" in message

    @pytest.mark.parametrize("name", ["../m/x.safetensors", "/etc/passwd", "..", "", 3])
    def test_an_index_that_leads_elsewhere(self, tmp_path: Path, name: object) -> None:
        directory = write_shards(tmp_path / "m")
        index = {"weight_map": {"a": name}}
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
        assert "is not a file beside it" in self.refused(directory)

    @pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": ["a"]}])
    def test_an_index_without_a_map(self, tmp_path: Path, index: dict[str, Any]) -> None:
        directory = write_shards(tmp_path / "m")
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
        assert "has no weight_map" in self.refused(directory)


class TestHeaders:
    """Safetensors files that are damaged in every way that a header can be."""

    def refused(self, path: Path) -> str:
        with pytest.raises(ModelError) as caught:
            read_tensors(path)
        assert path.name in str(caught.value)
        return str(caught.value)

    def test_truncated_data_is_refused_with_both_sizes(self, model_directory: Path) -> None:
        path = model_directory / "model.safetensors"
        whole = path.read_bytes()
        path.write_bytes(whole[:-10])
        message = self.refused(path)
        assert f"{len(whole) - 10:,} bytes" in message
        assert f"{len(whole):,}" in message

    def test_bytes_after_the_end(self, model_directory: Path) -> None:
        path = model_directory / "model.safetensors"
        path.write_bytes(path.read_bytes() + b"x")
        assert "is damaged" in self.refused(path)

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
    @given(share=st.floats(0, 1, exclude_max=True))
    def test_every_cut_is_refused(self, model_directory: Path, share: float) -> None:
        whole = (model_directory / "model.safetensors").read_bytes()
        cut = model_directory / "cut.safetensors"
        cut.write_bytes(whole[: int(share * len(whole))])
        assert "is truncated" in self.refused(cut)

    def test_a_git_lfs_pointer(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n")
        assert "git lfs pull" in self.refused(path)

    def test_a_length_beyond_all_sense(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        path.write_bytes(b"\xff" * 64)
        assert "is not a safetensors file" in self.refused(path)

    def test_a_file_that_cannot_be_opened(self, tmp_path: Path) -> None:
        (tmp_path / "x.safetensors").mkdir()
        assert "cannot be read" in self.refused(tmp_path / "x.safetensors")

    @pytest.mark.parametrize(
        ("header", "words"),
        [
            ("{]", "not valid JSON"),
            ("[" * 100_000, "not valid JSON"),
            ("[]", "not a JSON object"),
            ('{"a": 1}', "no dtype, shape and offsets for a"),
            ('{"a": {"dtype": "F32", "shape": [1]}}', "no dtype, shape and offsets for a"),
            ('{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}', "unknown type F99"),
            ('{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}', "shape [-1]"),
            ('{"a": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}', "shape [True]"),
            ('{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}', "do not fit F32"),
            ('{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}', "begins at 4"),
            (
                f'{{"a": {ENTRY}, "b": {ENTRY}}}',
                "begins at 0 instead of 4",
            ),
            (
                f'{{"a": {ENTRY}, "a": {ENTRY}}}',
                "occurs twice",
            ),
        ],
    )
    def test_a_header_that_contradicts_itself(
        self, tmp_path: Path, header: str, words: str
    ) -> None:
        path = tmp_path / "x.safetensors"
        write_raw(path, header.encode(), bytes(4))
        assert words in self.refused(path)

    def test_empty_tensors_and_scalars_are_tensors(self, tmp_path: Path) -> None:
        path = tmp_path / "x.safetensors"
        write_safetensors(path, {"empty": (0, 3), "scalar": ()}, "F32")
        found = {tensor.name: (tensor.elements, tensor.bytes) for tensor in read_tensors(path)}
        assert found == {"empty": (0, 0), "scalar": (1, 4)}


def test_reading_takes_milliseconds_and_loads_nothing_heavy(tmp_path: Path) -> None:
    directory = write_model(tmp_path / "m")
    many = {**SHAPES, **{f"model.layers.{n}.mlp.down_proj.weight": (8, 16) for n in range(294)}}
    write_safetensors(directory / "model.safetensors", many)
    times = []
    for _ in range(10):
        started = time.perf_counter()
        model = Model.read(directory)
        times.append(time.perf_counter() - started)
    assert len(model.tensors) == 300
    assert min(times) < 0.02
    script = (
        "import sys; from workbench.model import Model; Model.read(sys.argv[1]);"
        "heavy = {'numpy', 'torch', 'safetensors', 'httpx', 'requests', 'transformers'};"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    command = [sys.executable, "-c", script, str(directory)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "\n"


# The hub. huggingface_hub reads its environment when it is imported, hence a process of its own.

ASK = """
import json, sys
from workbench.errors import ModelError
from workbench.model import Model

answers = []
for verb, source, revision in json.loads(sys.argv[-1]):
    try:
        model = Model.read(source, revision)
        path = model.download() if verb == "download" else model.path
        if verb == "facts":
            answers.append([model.counted_from, model.licence, model.gate, model.unread])
        else:
            answers.append([model.parameters, model.commit, path and str(path)])
    except ModelError as error:
        answers.append(str(error))
print(json.dumps(answers))
"""


DOWNLOAD_ON_A_FULL_DISK = """
import json
from workbench import hub
from workbench.errors import ModelError

hub.free_disk = lambda _: 0
answers = [str(hub.download("open/whole", None))]
try:
    hub.download("bare/whole", None)
except ModelError as error:
    answers.append(str(error))
print(json.dumps(answers))
"""


@pytest.fixture(scope="session")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("hub")
    whole = write_model(root / "whole")
    (whole / "tokenizer.json").write_text("{}")
    (whole / "chat_template.jinja").write_text("{{ messages }}")
    (whole / "README.md").write_text("not for us")
    pickled = write_model(root / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    bare = root / "bare"
    bare.mkdir()
    (bare / "README.md").write_text("nothing here")
    damaged = write_model(root / "damaged")
    (damaged / "model.safetensors").write_bytes(b"\xff" * 100)
    foreign = write_model(root / "foreign", architectures=["UnheardOfForCausalLM"])
    (foreign / "model.safetensors").rename(foreign / "pytorch_model.bin")
    return {
        "open/foreign": foreign,
        "asking/whole": whole,
        "bare/whole": whole,
        "open/whole": whole,
        "open/sharded": write_shards(root / "sharded"),
        "open/pickled": pickled,
        "open/bare": bare,
        "open/damaged": damaged,
        "closed/whole": whole,
    }


def ask(
    tmp_path: Path,
    endpoint: str,
    *questions: tuple[str, str, str | None],
    script: str = ASK,
    **more: str,
) -> Any:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))
    }
    answer = subprocess.run(
        [sys.executable, "-c", script, json.dumps(questions)],
        env={**environment, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), **more},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(answer.stdout)


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


class TestConfigurationAlone:
    """A directory with config.json and no weights is a model to plan with."""

    @pytest.mark.parametrize("kind", ["qwen2", "gemma3"])
    def test_it_is_the_model_that_has_weights(self, tmp_path: Path, kind: Kind) -> None:
        whole = Model.read(make_tiny_model(kind, tmp_path / "whole"))
        alone = tmp_path / "alone"
        alone.mkdir()
        shutil.copy(tmp_path / "whole" / "config.json", alone)
        model = Model.read(alone)
        assert model.counted_from == "configuration"
        assert whole.counted_from == "headers"
        assert model.path is None
        assert sorted(map(repr, model.tensors)) == sorted(map(repr, whole.tensors))
        same = ("source", "path", "tensors", "counted_from", "has_chat_template")
        without = dict.fromkeys(same)
        mine, its = ({**vars(one), **without} for one in (model, whole))
        assert mine == its

    @pytest.mark.parametrize(
        ("name", "kv_heads", "head_size"),
        [
            ("tiiuae/falcon-7b", 1, 64),
            ("tiiuae/falcon-40b", 8, 64),
            ("bigcode/starcoderbase-1b", 1, 128),
            ("bigscience/bloom-560m", 16, 64),
            ("EleutherAI/pythia-1b", 8, 256),
            ("openai-community/gpt2", 12, 64),
            ("google/gemma-3-4b-it", 4, 256),
            ("microsoft/phi-4", 10, 128),
            ("meta-llama/Llama-3.2-1B", 8, 64),
        ],
    )
    def test_heads_for_keys_and_values_are_counted(
        self, tmp_path: Path, name: str, kv_heads: int, head_size: int
    ) -> None:
        known = next(known for known in KNOWN if known.name == name)
        config = {"architectures": [known.architecture], **known.config}
        (tmp_path / "config.json").write_text(json.dumps(config))
        model = Model.read(tmp_path)
        assert (model.kv_heads, model.head_size) == (kv_heads, head_size)
        assert model.parameters == known.parameters

    def test_it_cannot_be_built_and_says_so(self, model_directory: Path) -> None:
        (model_directory / "model.safetensors").unlink()
        spec = make_spec({"backend": "openvino", "model": str(model_directory)})
        plan = Plan.make(spec)
        assert plan.fit is not None
        with pytest.raises(SpecError, match="no weights, only its configuration"):
            refuse(plan.room)
        with pytest.raises(ModelError, match="Copy its safetensors files and its tokenizer there"):
            plan.model.download()
        assert "parameters (derived from config.json)" in model_line(plan.model)


class TestHub:
    """A real HTTP server on loopback gives models, or does not."""

    def test_headers_come_by_range_and_nothing_else(
        self, tmp_path: Path, repositories: dict[str, Path]
    ) -> None:
        big = tmp_path / "big"
        shutil.copytree(repositories["open/whole"], big)
        write_safetensors(big / "model.safetensors", {**SHAPES, "model.big": (1 << 20,)}, "F32")
        with serve({"open/big": big}) as hub:
            [answer] = ask(tmp_path, hub.url, ("read", "open/big", None))
        assert answer == [PARAMETERS + (1 << 20), COMMIT, None]
        assert 0 < hub.sent_weights < 200_000
        assert not [request for request in hub.requests if "README" in request]

    def test_what_is_downloaded_is_read_from_the_cache_also_without_a_network(
        self, tmp_path: Path, repositories: dict[str, Path], closed_port: str
    ) -> None:
        questions = [
            ("read", "open/whole", "main"),
            ("download", "open/whole", "main"),
            ("read", "open/whole", "main"),
            ("read", "open/sharded", COMMIT),
        ]
        with serve(repositories) as hub:
            first, downloaded, cached, sharded = ask(tmp_path, hub.url, *questions)
        assert first == [PARAMETERS, COMMIT, None]
        assert downloaded[:2] == [PARAMETERS, COMMIT]
        directory = Path(downloaded[2])
        assert sorted(path.name for path in directory.iterdir()) == [
            "chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json",
        ]  # fmt: skip
        assert cached == downloaded
        assert sharded == [PARAMETERS, COMMIT, None]

        question = ("download", "open/whole", "main")
        assert ask(tmp_path, closed_port, question) == [downloaded]
        assert ask(tmp_path, closed_port, question, HF_HUB_OFFLINE="1") == [downloaded]

    def test_what_the_hub_refuses_is_said_in_one_sentence(
        self, tmp_path: Path, repositories: dict[str, Path]
    ) -> None:
        expected = {
            ("open/nothing", None): "no such directory here and no such model on the hub",
            ("open/whole", "no-such-tag"): "has no revision 'no-such-tag'",
            ("closed/whole", None): "closed/whole is gated",
            ("open/foreign", None): "only as pytorch_model.bin, a pickle",
            ("open/bare", None): "open/bare has no config.json on the hub",
            ("open/no--such", None): "neither a directory here nor a valid hub id",
        }
        with serve(repositories) as hub:
            questions = [("read", *question) for question in expected]
            answers = ask(tmp_path, hub.url, *questions)
        for words, answer in zip(expected.values(), answers, strict=True):
            assert words in answer
            assert "\n" not in answer

    @pytest.mark.parametrize("more", [{}, {"HF_HUB_OFFLINE": "1"}])
    def test_without_a_network_the_sentence_says_how_the_name_was_understood(
        self, tmp_path: Path, repositories: dict[str, Path], closed_port: str, more: dict[str, str]
    ) -> None:
        with serve(repositories) as hub:
            # Only the small files are in the cache now.
            ask(tmp_path, hub.url, ("read", "open/whole", None))
        questions = [("read", "models/mine", None), ("facts", "open/whole", None)]
        nothing, described = ask(tmp_path, closed_port, *questions, **more)
        assert described[:3] == ["configuration", "", ""]
        for answer in (nothing, described[3]):
            assert "looks like a hub id, since there is no such directory here" in answer
            assert "the hub cannot be reached" in answer
            assert "\n" not in answer

    def test_its_page_tells_the_licence_and_who_grants_access(
        self, tmp_path: Path, repositories: dict[str, Path]
    ) -> None:
        owners = ("open", "asking", "bare")
        with serve(repositories) as hub:
            answers = ask(tmp_path, hub.url, *(("facts", f"{one}/whole", None) for one in owners))
        assert answers == [
            ["headers", "mit", "", ""],
            ["headers", "apache-2.0, mit", "auto", ""],
            ["headers", "", "", ""],
        ]

    @pytest.mark.parametrize(
        ("more", "then"),
        [({}, "then log in with `hf auth login`"), ({"HF_TOKEN": "hf_x"}, "has no access yet")],
    )
    def test_a_gated_model_says_how_to_get_access(
        self, tmp_path: Path, repositories: dict[str, Path], more: dict[str, str], then: str
    ) -> None:
        with serve(repositories) as hub:
            [answer] = ask(tmp_path, hub.url, ("read", "closed/whole", None), **more)
            assert f"accept its terms on {hub.url}/closed/whole, " in answer
        assert "is gated under the licence theirs and its owners grant access one by one" in answer
        assert then in answer

    @pytest.mark.parametrize(
        ("repository", "why"),
        [
            ("open/pickled", "only as pytorch_model.bin, a pickle"),
            ("open/damaged", "The weights of open/damaged are damaged on the hub"),
        ],
    )
    def test_headers_that_cannot_be_read_leave_the_configuration_to_plan_with(
        self, tmp_path: Path, repositories: dict[str, Path], repository: str, why: str
    ) -> None:
        with serve(repositories) as hub:
            questions = [("facts", repository, None), ("download", repository, None)]
            facts, refused = ask(tmp_path, hub.url, *questions)
        assert facts[:3] == ["configuration", "mit", ""]
        assert why in facts[3]
        assert refused == facts[3]

    @pytest.mark.parametrize("tells_sizes", [True, False])
    def test_a_small_disk_is_told_with_its_numbers_and_not_as_a_network(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tells_sizes: bool
    ) -> None:
        big, small = write_model(tmp_path / "big"), tmp_path / "small"
        write_safetensors(big / "model.safetensors", {**SHAPES, "model.big": (1 << 20,)}, "F32")
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("HF_HOME", str(small / "hf"))
        with serve({"open/big": big}) as hub:
            hub.tells_sizes = tells_sizes
            monkeypatch.setenv("HF_ENDPOINT", hub.url)
            question = json.dumps([("download", "open/big", None)])
            printed = on_small_disk(small, "2m", ASK, question)
        [answer] = json.loads(printed[printed.rindex('["') :])
        if tells_sizes:
            assert "open/big was not downloaded: 4.0" in answer
            assert "are free on the disk of" in answer
        else:
            assert "No space left on device in" in answer
            assert "are free there" in answer
        assert str(small / "hf" / "hub") in answer
        assert "network" not in answer

    def test_what_is_in_the_cache_needs_no_room(
        self, tmp_path: Path, repositories: dict[str, Path]
    ) -> None:
        question = ("download", "open/whole", None)
        with serve(repositories) as hub:
            downloaded = ask(tmp_path, hub.url, question)
            again, refused = ask(tmp_path, hub.url, script=DOWNLOAD_ON_A_FULL_DISK)
        assert again == downloaded[0][2]
        assert "of it are missing, and only 0 bytes are free" in refused

    def test_a_cache_that_cannot_be_written_to_is_no_network_error(
        self,
        repositories: dict[str, Path],
        home: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        home.mkdir()
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setenv("HF_HOME", str(home / "hf"))
        with serve(repositories) as hub:
            monkeypatch.setenv("HF_ENDPOINT", hub.url)
            printed = on_read_only_disk(home, ASK, json.dumps([("read", "open/whole", None)]))
        [answer] = json.loads(printed[printed.rindex('["') :])
        assert "cannot be written to (Read-only file system)" in answer
        assert "network" not in answer

    @pytest.mark.parametrize("kind", [OSError, RuntimeError])
    def test_a_full_disk_that_hf_xet_tells_of_in_words_is_told_as_one(
        self, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
    ) -> None:
        answer = _download_that_ends_with(
            kind("I/O error: No space left on device (os error 28)"), monkeypatch
        )
        assert "No space left on device in" in answer
        assert "are free there" in answer

    def test_whatever_else_hf_xet_ends_with_is_one_sentence(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answer = _download_that_ends_with(RuntimeError("Internal error: it\nbroke"), monkeypatch)
        assert "open/whole was not downloaded as a whole (Internal error: it). Try again" in answer
        refused = OSError("Network error: connection refused (os error 111)")
        assert "the hub cannot be reached" in _download_that_ends_with(refused, monkeypatch)

    def test_a_page_of_a_proxy_is_told_from_the_hub(self, tmp_path: Path) -> None:
        with serve({"open/whole": tmp_path}) as hub:
            hub.speaks_json = False
            [answer] = ask(tmp_path, hub.url, ("read", "open/whole", None))
        assert "or a proxy answers in its place" in answer


def _download_that_ends_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the sentence that a download ends with, played in place of huggingface_hub's."""

    def end(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", end)
    with pytest.raises(ModelError) as caught:
        Model.read("open/whole")
    return str(caught.value)
