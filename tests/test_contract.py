"""The stand-in builds as the contract says, and the contract hangs together."""

from __future__ import annotations

import inspect
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract import fields, interface, rule, wording
from tests.contract.driver import Toolchain
from tests.contract.toolchain import STANDIN, make_toolchain
from workbench.build import DEMO_MODEL


def interpreters() -> list[str]:
    """Return every Python that a toolchain may have; this one is always among them."""
    found = [sys.executable]
    for minor in range(10, 14):
        found += map(str, Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
        found += filter(None, [shutil.which(f"python3.{minor}")])
    places = {_place(path): path for path in reversed(found)}
    return sorted(path for place, path in places.items() if place)


def _place(path: str) -> str:
    """Return where an interpreter is; nothing when it does not start, as a shim may not."""
    script = "import sys, venv; print(sys.base_prefix)"
    answer = subprocess.run([path, "-c", script], capture_output=True, text=True, check=False)
    return answer.stdout.strip() if answer.returncode == 0 else ""


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toolchain(tmp_path_factory.mktemp("toolchain") / "env")


@pytest.fixture
def toolchain(environment: Path, tmp_path: Path) -> Toolchain:
    return Toolchain(environment, tmp_path)


# --- the contract ---


def test_the_parser_has_every_flag_with_its_default() -> None:
    given = vars(interface.parser().parse_args([]))
    assert len(interface.FLAGS) == 39 + 28
    assert given == {flag.name: flag.default for flag in interface.FLAGS if not flag.absent}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--kv_cache_type", "PAGED"], {"kv_cache_type": interface.KVCacheType.PAGED}),
        (["--max_decoder_seq_len", "77"], {"max_seq_len": 77}),
        (["--max_multimodal_len", "5"], {"max_prompt_embedding_table_size": 5}),
        (["--gemm_plugin", "nvfp4"], {"gemm_plugin": "nvfp4"}),
        (["--strip_plan"], {"strip_plan": True}),
        (
            ["--lora_target_modules", "attn_q", "attn_v"],
            {"lora_target_modules": ["attn_q", "attn_v"]},
        ),
    ],
)
def test_the_parser_takes(arguments: list[str], expected: dict[str, object]) -> None:
    given = vars(interface.parser().parse_args(arguments))
    assert {name: given[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--max_output_len", "10"], "unrecognized arguments: --max_output_len"),
        (["--max_batch", "10"], "unrecognized arguments: --max_batch"),
        (["--tp_size", "2"], "unrecognized arguments"),
        (["--gemm_plugin", "fp16"], "invalid choice: 'fp16'"),
        (["--context_fmha", "true"], "invalid choice: 'true'"),
        (["--max_batch_size", "many"], "invalid int value"),
        (["--kv_cache_type", "pages"], "invalid KVCacheType value"),
    ],
)
def test_the_parser_refuses(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        interface.parser().parse_args(arguments)
    assert exit_.value.code == 2
    assert complaint in capsys.readouterr().err


@pytest.mark.parametrize("name", interface.SIGNATURES)
def test_every_signature_can_be_read(name: str) -> None:
    assert isinstance(interface.signature(name), inspect.Signature)


def test_the_older_wording_differs_where_it_says_so() -> None:
    assert wording.lines("1.0.3")["set_plugin"] == "Set {field} to {value}."
    assert wording.lines("1.2.1")["set_plugin"] == "Set PluginConfig.{field} to {value}."
    assert wording.lines("1.10.0")["banner"].startswith("[TensorRT-LLM] TensorRT LLM")
    assert set(wording.OLD) < set(wording.LINES)


def test_the_rule_stops_sometimes_and_keeps_off_special_ids() -> None:
    ids, ends = [5, 6, 7], 0
    for _ in range(2000):
        token = rule.next_token(ids, 100)
        ends += token == 2
        assert token == 2 or 3 <= token < 100
        ids.append(token)
    assert 10 < ends < 80
    assert [rule.next_token([4], 500, seed) for seed in range(4)] != [rule.next_token([4], 500)] * 4


# --- the toolchain ---


def test_the_toolchain_looks_like_a_users(toolchain: Toolchain) -> None:
    script = """
import importlib.metadata, importlib.util, json, sys
names = ["workbench.spec", "torch", "tokenizers", "interface", "tests.contract"]
def found(name):
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
print(json.dumps({
    "versions": [importlib.metadata.version(n) for n in ("tensorrt_llm", "tensorrt")],
    "found": [n for n in names if found(n)],
}))
"""
    answer = json.loads(toolchain.run("-c", script).stdout)
    assert answer["versions"] == ["1.2.1", "10.14.1"]
    assert answer["found"] == ["torch", "tokenizers"]


@pytest.mark.parametrize("name", sorted(interface.SIGNATURES))
def test_the_stand_in_has_the_declared_parameters(toolchain: Toolchain, name: str) -> None:
    module, _ = interface.SIGNATURES[name]
    script = f"import inspect, {module} as module\nprint(inspect.signature(module.{name}))"
    done = toolchain.run("-c", script)
    assert done.returncode == 0, done.stderr
    declared = list(interface.signature(name).parameters.values())
    if declared[0].name in ("self", "cls"):
        bound = inspect.Signature(declared[1:])
        assert done.stdout.splitlines()[-1] in (str(bound), str(inspect.Signature(declared)))
    else:
        assert done.stdout.splitlines()[-1] == str(inspect.Signature(declared))


@pytest.mark.parametrize("python", interpreters())
def test_every_interpreter_converts_and_builds(python: str, tmp_path: Path) -> None:
    made = make_toolchain(tmp_path / "env", python, version="1.0.0")
    toolchain = Toolchain(made, tmp_path)
    done = toolchain.build(toolchain.convert(), "--log_level", "info")
    assert done.returncode == 0, done.stderr
    assert "] Set gemm_plugin to None." in done.stdout
    assert "[TensorRT-LLM] TensorRT-LLM version: 1.0.0" in done.stdout
    config = json.loads((tmp_path / "engine" / "config.json").read_text())
    assert config["build_config"]["kv_cache_type"] == "PAGED"
    refused = toolchain.build(tmp_path, "--nothing")
    assert refused.returncode == 2
    served = toolchain.script(SERVE, DEMO_MODEL, version="1.3.0rc22")
    assert served.returncode == 0, served.stderr
    assert served.stdout.splitlines()[-1] == "4"


SERVE = """
import sys
from tensorrt_llm import LLM, SamplingParams
llm = LLM(sys.argv[1], skip_tokenizer_init=True)
settings = SamplingParams(end_id=2, max_tokens=4, ignore_eos=True)
print(llm.generate([5, 6], settings).outputs[0].length)
"""


# --- conversion ---


def test_a_checkpoint_has_the_real_layout(toolchain: Toolchain) -> None:
    checkpoint = toolchain.convert(tp=2, pp=3)
    names = {f"rank{rank}.safetensors" for rank in range(6)}
    assert {path.name for path in checkpoint.iterdir()} == names | {"config.json"}
    config = json.loads((checkpoint / "config.json").read_text())
    assert set(config) >= set(fields.PRETRAINED_CONFIG)
    assert set(config["mapping"]) == set(fields.MAPPING)
    assert (config["mapping"]["tp_size"], config["mapping"]["pp_size"]) == (2, 3)
    assert config["dtype"] == "bfloat16"
    assert _layers(checkpoint / "rank0.safetensors") == {0, 1}  # the first rank has the extra one
    assert _layers(checkpoint / "rank5.safetensors") == {3}


def _layers(path: Path) -> set[int]:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert 8 + length + max(row["data_offsets"][1] for row in header.values()) == len(data)
    return {int(name.split(".")[2]) for name in header if ".layers." in name}


def test_calibration_writes_every_rank_and_tells_its_batches(toolchain: Toolchain) -> None:
    script = """
import sys, tensorrt_llm
from tensorrt_llm.models import AutoModelForCausalLM, QuantConfig
from tensorrt_llm.quantization import QuantAlgo
tensorrt_llm.logger.set_level("debug")
kind = AutoModelForCausalLM.get_trtllm_model_class(sys.argv[1])
config = QuantConfig(quant_algo=QuantAlgo.W4A16_AWQ, group_size=64)
kind.quantize(sys.argv[1], "out", mapping=tensorrt_llm.Mapping(world_size=2, tp_size=2),
              quant_config=config, calib_batches=40)
"""
    done = toolchain.script(script, DEMO_MODEL)
    assert done.returncode == 0, done.stderr
    assert "Calibrating batch 31" in done.stdout
    assert "Calibrating batch 32" not in done.stdout  # AWQ takes 32 at most
    config = json.loads((toolchain.folder / "out" / "config.json").read_text())
    assert config["quantization"]["quant_algo"] == "W4A16_AWQ"
    assert (toolchain.folder / "out" / "rank1.safetensors").exists()


def test_the_library_is_silent_until_a_level_is_set(toolchain: Toolchain) -> None:
    script = "import tensorrt_llm as t; t.logger.info('heard'); t.logger.error('loud')"
    quiet = toolchain.run("-c", script).stdout
    assert "loud" in quiet
    assert "heard" not in quiet


# --- building ---


def test_a_build_says_and_writes_what_the_real_one_does(toolchain: Toolchain) -> None:
    done = toolchain.build(
        toolchain.convert(tp=2),
        "--max_batch_size",
        4,
        "--output_timing_cache",
        "timing",
        gpu="NVIDIA H100 80GB HBM3,9.0",
    )
    assert done.returncode == 0, done.stderr
    order = [
        "[TensorRT-LLM] TensorRT LLM version: 1.2.1",
        "Set PluginConfig.bert_attention_plugin to auto.",
        "Set PluginConfig.dtype to bfloat16.",
        "max_seq_len is not specified, using deduced value 2048",
        "Init builder kernel library",
        "Total time of constructing network from module object",
        "Build TensorRT engine Unnamed Network 0",
        "Detected 17 inputs and 1 output network tensors.",
        "Total Weights Memory:",
        "Engine generation completed in",
        "Timing cache serialized to timing",
        "rank0.engine...",
        "Engine serialized. Total time:",
        "rank1.engine...",
        "Total time of building all engines: 00:00:0",
    ]
    places = [done.stdout.find(line) for line in order]
    assert -1 not in places, order[places.index(-1)]
    assert places == sorted(places)
    assert done.stdout.count("Set PluginConfig.") > 28
    assert done.stdout.count("Timing cache serialized") == 1
    assert (toolchain.folder / "timing").exists()
    folder = toolchain.folder / "engine"
    assert {path.name for path in folder.iterdir()} == {
        "config.json",
        "rank0.engine",
        "rank1.engine",
    }
    config = json.loads((folder / "config.json").read_text())
    assert tuple(config) == fields.ENGINE_CONFIG
    build = config["build_config"]
    assert set(build) == set(fields.BUILD_CONFIG) - set(fields.NOT_IN_ENGINE)
    assert set(build["plugin_config"]) == set(interface.PLUGINS)
    expected = {"max_seq_len": 2048, "max_num_tokens": 8192, "opt_num_tokens": 4}
    assert {name: build[name] for name in expected} == expected
    assert build["kv_cache_type"] == "paged"


@pytest.mark.parametrize(
    ("flags", "line", "changed"),
    [
        (["--max_seq_len", 100], "clipping it to max_seq_len", {"max_input_len": 100}),
        (["--max_seq_len", 4096], "the model accuracy might be affected", {"max_seq_len": 4096}),
        (
            ["--max_seq_len", 8, "--max_batch_size", 2],
            "to max_seq_len * max_batch",
            {"max_num_tokens": 32},
        ),
        (["--max_num_tokens", 20000], "larger than 16384", {"max_num_tokens": 20000}),
        (["--opt_num_tokens", 9000], "to max_num_tokens (8192)", {"opt_num_tokens": 8192}),
        (["--remove_input_padding", "disable"], "will be ignored", {"max_num_tokens": 2048 * 2048}),
        (["--reduce_fusion", "enable"], "Overriding reduce_fusion to False", {}),
        (["--context_fmha", "disable"], "Paged Context FMHA are disabled", {}),
    ],
)
def test_limits_are_changed_as_the_library_changes_them(
    toolchain: Toolchain, flags: list[object], line: str, changed: dict[str, int]
) -> None:
    done = toolchain.build(toolchain.convert(), *flags, pace="0.01")
    assert done.returncode == 0, done.stderr
    assert line in done.stdout
    build = json.loads((toolchain.folder / "engine" / "config.json").read_text())["build_config"]
    assert {name: build[name] for name in changed} == changed


@pytest.mark.parametrize(
    ("flags", "settings", "complaint"),
    [
        (["--streamingllm", "enable"], {}, wording.ERRORS["streamingllm"]),
        (["--pp_reduce_scatter", "enable"], {}, wording.ERRORS["pp_reduce_scatter"]),
        (["--multiple_profiles", "enable", "--opt_num_tokens", 8], {}, wording.ERRORS["profiles"]),
        (["--gather_context_logits", "--max_draft_len", 1], {}, wording.ERRORS["context_logits"]),
        (
            ["--low_latency_gemm_plugin", "fp8"],
            {"gpu": "NVIDIA B200,10.0"},
            "is not supported on SM",
        ),
        ([], {"gpu": ""}, "No CUDA GPUs are available"),
    ],
)
def test_a_build_refuses(
    toolchain: Toolchain, flags: list[object], settings: dict[str, str], complaint: str
) -> None:
    done = toolchain.build(toolchain.convert(), *flags, pace="0.01", **settings)
    assert done.returncode == 1
    assert complaint in done.stderr


def test_several_workers_interleave_and_print_the_banner_again(toolchain: Toolchain) -> None:
    two = "NVIDIA H100 80GB HBM3,9.0,2"
    done = toolchain.build(toolchain.convert(tp=2), "--workers", 2, gpu=two, pace="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("TensorRT LLM version: 1.2.1") == 3
    assert done.stdout.rfind("Build TensorRT engine") < done.stdout.find("rank0.engine...")
    one = toolchain.build(toolchain.convert(tp=2), "--workers", 2)
    assert one.stdout.count("TensorRT LLM version: 1.2.1") == 1  # as many as there are GPUs


MONITORED = """
import sys
import tensorrt
import tensorrt_llm.builder as builder
from tensorrt_llm.commands import build

class Monitor(tensorrt.IProgressMonitor):
    def __init__(self): super().__init__(); self.steps = 0
    def phase_start(self, phase_name, parent_phase, num_steps):
        print("START", phase_name, num_steps)
    def step_complete(self, phase_name, step):
        self.steps += 1
        return self.steps < LIMIT
    def phase_finish(self, phase_name): print("FINISH", phase_name)

original = builder.Builder.create_builder_config
def wrapped(self, *given, **named):
    made = original(self, *given, **named)
    made.trt_builder_config.progress_monitor = Monitor()
    return made
builder.Builder.create_builder_config = wrapped
build.main()
"""


@pytest.mark.parametrize(("limit", "status"), [(1000, 0), (5, 1)])
def test_a_monitor_hears_of_the_build_and_can_cancel_it(
    toolchain: Toolchain, limit: int, status: int
) -> None:
    script = MONITORED.replace("LIMIT", str(limit))
    checkpoint = toolchain.convert()
    done = toolchain.script(script, "--checkpoint_dir", checkpoint, "--output_dir", "engine")
    assert done.returncode == status, done.stderr
    assert "START Building engine 3" in done.stdout
    assert done.stdout.count("START") == done.stdout.count("FINISH")
    assert (wording.ERRORS["build_failed"] in done.stderr) == bool(status)


def test_the_stand_in_imports_nothing_of_ours() -> None:
    text = "\n".join(path.read_text() for path in STANDIN.rglob("*.py"))
    assert "import workbench" not in text
    assert "from workbench" not in text
