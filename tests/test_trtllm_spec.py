"""The spec of TensorRT-LLM: declared flags, old names, the recipe and the command lines."""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workbench.backends.trtllm_command import ALWAYS, build_arguments, shell_commands
from workbench.backends.trtllm_conversion import conversion
from workbench.backends.trtllm_models import MODEL_MAP
from workbench.backends.trtllm_plugins import PluginParameters
from workbench.backends.trtllm_spec import BUILD_FLAGS, MANAGED, OLD_NAMES, TensorRtLlmSpec
from workbench.errors import SpecError
from workbench.model import Model
from workbench.spec import BuildSpec, parameters_of

FIRST = {
    "dtype": "bfloat16",
    "gemm_plugin": "auto",
    "max_batch_size": 32,
    "max_input_len": 4096,
    "max_output_len": 1024,
}
"""The example that articles begin with."""


def spec(**values: Any) -> TensorRtLlmSpec:
    return TensorRtLlmSpec.parse(values)


def test_there_is_a_parameter_for_every_flag_that_is_not_managed() -> None:
    plugins = set(PluginParameters.model_fields) - set(BuildSpec.model_fields)
    assert len(plugins) == 28
    # 39 flags in commands/build.py, two of them with a second name, and the plugins.
    assert len(BUILD_FLAGS) + len(MANAGED) == 39 + 28
    assert not set(BUILD_FLAGS) & set(MANAGED)
    assert not set(OLD_NAMES) & set(TensorRtLlmSpec.model_fields)


def test_people_meet_the_important_groups_first() -> None:
    groups = list(dict.fromkeys(p.group for p in parameters_of(TensorRtLlmSpec).values()))
    assert groups == [
        "Model",
        "Shapes",
        "Precision",
        "KV cache",
        "Parallelism",
        "Advanced",
        "Plugins",
        "LoRA",
        "Speculative decoding",
        "Diagnostics",
    ]


def test_every_parameter_explains_itself() -> None:
    for parameter in parameters_of(TensorRtLlmSpec).values():
        assert parameter.help.endswith("."), parameter.name
        assert parameter.none_means or not parameter.optional, parameter.name
        assert parameter.source or parameter.group == "Model", parameter.name


@pytest.mark.parametrize("name", [*MANAGED, *OLD_NAMES])
def test_names_of_elsewhere_are_refused_with_what_takes_their_place(name: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec(**{name: 1})
    sentence = str(caught.value)
    assert sentence.startswith((f"'{name}' is ", f"'{name}' was "))
    assert sentence.endswith(".")
    assert "Did you mean" not in sentence


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("use_gemm_plugin", "replaced in 0.8; use gemm_plugin."),
        ("fp8_kv_cache", "use kv_cache_dtype='fp8'."),
        ("builder_opt", "since 0.14."),
        ("paged_kv_cache", "use kv_cache_type."),
    ],
)
def test_old_names_name_the_new_one_and_since_when(name: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        spec(**{name: 1})
    assert str(caught.value).endswith(words)


def test_all_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(SpecError) as caught:
        spec(use_fp8=True, max_bach_size=1, tokens_per_block="32")
    sentences = str(caught.value).splitlines()
    assert len(sentences) == 3
    assert "'max_bach_size' is not a known parameter. Did you mean 'max_batch_size'?" in sentences


def test_a_sequence_holds_a_prompt_and_an_output() -> None:
    with pytest.raises(SpecError, match="max_seq_len must be a whole number of at least 2"):
        spec(max_seq_len=1)


@pytest.mark.parametrize(
    ("values", "limit"),
    [
        ({}, None),
        ({"max_seq_len": 300}, 300),
        ({"max_input_len": 100, "max_output_len": 20}, 120),
        ({"max_input_len": 100, "max_output_len": 20, "max_seq_len": 300}, 300),
    ],
)
def test_the_sequence_limit(values: dict[str, int], limit: int | None) -> None:
    assert spec(**values).sequence_limit == limit


def test_only_what_differs_from_the_defaults_is_an_argument_and_the_shapes() -> None:
    assert build_arguments(spec(), "ckpt", "out", None) == [
        *("--checkpoint_dir", "ckpt", "--output_dir", "out"),
        *("--max_batch_size", "2048", "--max_input_len", "1024"),
        *("--max_num_tokens", "8192", "--max_beam_width", "1"),
    ]


def test_arguments_are_spelled_as_trtllm_build_takes_them() -> None:
    words = build_arguments(
        spec(
            max_seq_len=64,
            weight_streaming=True,
            context_fmha="disable",
            lora_dir="one, two words",
            quantization="fp8",
            kv_cache_tokens=99,
            workers=2,
        ),
        "ckpt",
        "out",
        "cache",
    )
    assert words[4:8] == ["--input_timing_cache", "cache", "--output_timing_cache", "cache"]
    rest = words[8:]
    start = rest.index("--lora_dir")
    assert rest[start : start + 3] == ["--lora_dir", "one", "two words"]
    assert rest[rest.index("--max_seq_len") + 1] == "64"
    assert rest[rest.index("--context_fmha") + 1] == "disable"
    assert rest[rest.index("--workers") + 1] == "2"
    assert "--weight_streaming" in rest
    # Conversion and session are no business of trtllm-build.
    flags = {word.removeprefix("--") for word in words if word.startswith("--")}
    assert flags <= set(BUILD_FLAGS) | set(MANAGED)


def test_every_flag_reaches_trtllm_build() -> None:
    parameters = parameters_of(TensorRtLlmSpec)
    for name in BUILD_FLAGS:
        parameter = parameters[name]
        if parameter.kind == "choice":
            value: Any = next(c for c in parameter.choices if c != parameter.default)
        else:
            value = {"switch": True, "integer": 7, "text": "attn_q"}[parameter.kind]
        words = build_arguments(spec(**{name: value}), "c", "o", None)
        expected = [] if value is True else [str(value)]
        start = words.index(f"--{name}")
        assert words[start + 1 : start + 1 + len(expected)] == expected, name
        others = {word for word in words if word.startswith("--")} - {f"--{name}"}
        assert others <= {f"--{n}" for n in (*ALWAYS, "checkpoint_dir", "output_dir")}, name


def test_the_first_example_of_articles() -> None:
    model = "meta-llama/Meta-Llama-3-8B-Instruct"
    commands = dict(shell_commands(spec(**FIRST), model))
    assert list(commands) == ["Convert the checkpoint", "Build the engine", "Serve the engine"]
    convert, build, serve = commands.values()
    assert f"source = snapshot_download('{model}')" in convert
    assert "dtype='bfloat16'" in convert
    assert "quantization = QuantConfig()" in convert
    assert build == (
        "trtllm-build \\\n"
        "    --checkpoint_dir engine-checkpoint \\\n"
        "    --output_dir engine \\\n"
        "    --max_batch_size 32 \\\n"
        "    --max_input_len 4096 \\\n"
        "    --max_seq_len 5120 \\\n"
        "    --max_num_tokens 8192 \\\n"
        "    --max_beam_width 1 \\\n"
        "    --gemm_plugin auto"
    )
    assert serve == (
        "trtllm-serve engine \\\n"
        "    --backend tensorrt \\\n"
        f"    --tokenizer {model} \\\n"
        "    --host 127.0.0.1 \\\n"
        "    --port 8000 \\\n"
        "    --max_batch_size 32 \\\n"
        "    --max_num_tokens 8192 \\\n"
        "    --max_beam_width 1 \\\n"
        "    --kv_cache_free_gpu_memory_fraction 0.9"
    )


NASTY = '/models/it\'s "one" $HOME `id` \\n'


def run_in_shell(text: str, name: str, folder: Path) -> Any:
    """Run a shell text in which `name` is a program that only keeps what it is given."""
    program = folder / "bin" / name
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        "print(json.dumps([sys.argv[1:], '' if sys.stdin.isatty() else sys.stdin.read()]))\n"
    )
    program.chmod(0o700)
    answer = subprocess.run(
        ["sh", "-c", text],
        env={"PATH": f"{program.parent}:{os.environ['PATH']}"},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(answer.stdout)


def test_a_shell_gives_trtllm_build_the_very_arguments(tmp_path: Path) -> None:
    built = spec(lora_plugin="auto", lora_dir=f"{NASTY}, second")
    text = shell_commands(built, "model", NASTY)[1][1]
    words, _ = run_in_shell(text, "trtllm-build", tmp_path)
    assert words == build_arguments(built, f"{NASTY}-checkpoint", NASTY, None)


@pytest.mark.parametrize("values", [{}, {"quantization": "fp8"}, {"quantization": "int8_wo"}])
def test_a_shell_gives_python_the_very_script(values: dict[str, Any], tmp_path: Path) -> None:
    text = shell_commands(spec(**values), NASTY)[0][1]
    words, script = run_in_shell(text, "python3", tmp_path)
    assert words == ["-"]
    assigned = {
        node.targets[0].id: node.value
        for node in ast.walk(ast.parse(script))
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    assert ast.literal_eval(assigned["source"]) == NASTY


def test_serving_repeats_what_the_runtime_would_not_take_from_the_engine(tmp_path: Path) -> None:
    served = spec(
        tp_size=2,
        max_beam_width=3,
        kv_cache_tokens=4096,
        enable_block_reuse=False,
        enable_chunked_context=True,
        kv_cache_free_gpu_memory_fraction=0.5,
        guided_decoding_backend="xgrammar",
    )
    text = shell_commands(served, "model dir")[2][1]
    words, _ = run_in_shell(text, "trtllm-serve", tmp_path)
    assert words[0] == "engine"
    given = dict(zip(words[1::2], words[2::2], strict=False))
    assert given["--tokenizer"] == "model dir"
    assert given["--max_beam_width"] == "3"
    assert words[words.index("--tp_size") + 1] == "2"
    assert "--enable_chunked_prefill" in words
    settings = words[words.index("--extra_llm_api_options") + 1]
    assert (tmp_path / settings).read_text() == (
        "kv_cache_config:\n"
        "  free_gpu_memory_fraction: 0.5\n"
        "  max_tokens: 4096\n"
        "  enable_block_reuse: false\n"
        "guided_decoding_backend: xgrammar\n"
    )


def test_a_revision_is_what_is_converted_and_what_tokenizes() -> None:
    commands = [text for _, text in shell_commands(spec(revision="v1"), "owner/name")]
    assert "snapshot_download('owner/name', revision='v1', local_dir='name')" in commands[0]
    assert "--tokenizer name " in commands[2]


@pytest.mark.parametrize(
    ("values", "path", "algorithm", "kv_cache"),
    [
        ({}, "from_hugging_face", None, None),
        ({"quantization": "int8_wo"}, "from_hugging_face", "W8A16", None),
        ({"quantization": "int4_wo"}, "from_hugging_face", "W4A16", None),
        ({"quantization": "fp8"}, "quantize", "FP8", None),
        (
            {"quantization": "fp8_rowwise"},
            "from_hugging_face",
            "FP8_PER_CHANNEL_PER_TOKEN",
            None,
        ),
        ({"quantization": "nvfp4", "kv_cache_dtype": "fp8"}, "quantize", "NVFP4", "FP8"),
        ({"quantization": "int4_awq"}, "quantize", "W4A16_AWQ", None),
        ({"quantization": "w4a8_awq"}, "quantize", "W4A8_AWQ", None),
        ({"quantization": "int8_sq"}, "quantize", "W8A8_SQ_PER_CHANNEL", None),
        (
            {"quantization": "int8_sq", "smoothquant_val": 0.5},
            "quantize",
            "W8A8_SQ_PER_CHANNEL_PER_TOKEN_PLUGIN",
            None,
        ),
        ({"kv_cache_dtype": "fp8"}, "quantize", None, "FP8"),
        ({"kv_cache_dtype": "int8"}, "quantize", None, "INT8"),
        (
            {"quantization": "int8_wo", "kv_cache_dtype": "fp8"},
            "from_hugging_face",
            "W8A16",
            "FP8",
        ),
        ({"quantization": "int8_wo", "kv_cache_dtype": "int8"}, "quantize", "W8A16", "INT8"),
    ],
)
def test_the_way_of_a_conversion(
    values: dict[str, Any], path: str, algorithm: str | None, kv_cache: str | None
) -> None:
    recipe = conversion(spec(**values), "/model")
    assert recipe["path"] == path
    assert recipe["quantization"]["quant_algo"] == algorithm
    assert recipe["quantization"]["kv_cache_quant_algo"] == kv_cache
    assert bool(recipe["calibration"]) == (path == "quantize")
    assert json.loads(json.dumps(recipe)) == recipe


def test_a_recipe_has_all_that_the_calls_take() -> None:
    recipe = conversion(
        spec(
            dtype="float16",
            quantization="int4_awq",
            awq_block_size=64,
            tp_size=2,
            pp_size=2,
            moe_ep_size=2,
            calib_size=16,
        ),
        "/model",
    )
    assert recipe == {
        "path": "quantize",
        "model": "/model",
        "dtype": "float16",
        "mapping": {"world_size": 4, "tp_size": 2, "pp_size": 2, "moe_ep_size": 2},
        "quantization": {
            "quant_algo": "W4A16_AWQ",
            "kv_cache_quant_algo": None,
            "group_size": 64,
        },
        "calibration": {
            "calib_dataset": "cnn_dailymail",
            "calib_batches": 16,
            "calib_batch_size": 1,
            "calib_max_seq_length": 512,
        },
        "options": {},
        "trust_remote_code": False,
    }
    plain = conversion(spec(use_parallel_embedding=True, load_model_on_cpu=True), "/model")
    assert plain["options"] == {
        "use_parallel_embedding": True,
        "embedding_sharding_dim": 0,
        "load_model_on_cpu": True,
    }


@pytest.mark.parametrize(
    ("details", "values", "options"),
    [
        (
            {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True},
            {"quant_algo": "W4A16_GPTQ", "group_size": 64, "has_zero_point": True},
            {"use_autoawq": True},
        ),
        (
            {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True},
            {"quant_algo": "W4A16_GPTQ", "group_size": 128, "has_zero_point": True},
            {},
        ),
        (
            {"quant_method": "fbgemm_fp8", "activation_scale_ub": 900},
            {"quant_algo": "FP8_PER_CHANNEL_PER_TOKEN", "clamp_val": [-900.0, 900.0]},
            {},
        ),
    ],
)
def test_weights_that_are_quantized_already_are_taken_as_they_are(
    details: dict[str, Any], values: dict[str, Any], options: dict[str, Any]
) -> None:
    demo = Model.read(Path(__file__).parents[1] / "workbench" / "demo_model")
    stored = dataclasses.replace(demo, config={"quantization_config": details})
    recipe = conversion(spec(), "/model", stored)
    assert recipe["path"] == "from_hugging_face"
    assert recipe["quantization"] == values | {"kv_cache_quant_algo": None}
    assert recipe["options"] == options
    text = shell_commands(spec(), "/model", known=stored)[0][1]
    assert f"quant_algo=QuantAlgo.{values['quant_algo']}" in text


def test_the_architectures_are_those_of_the_library() -> None:
    assert len(MODEL_MAP) == 82
    assert MODEL_MAP["MistralForCausalLM"] == MODEL_MAP["LlamaForCausalLM"]
    assert MODEL_MAP["Gemma3ForCausalLM"] == "GemmaForCausalLM"
