"""The PyTorch backend of TensorRT-LLM: its rules, and the commands that do the same by hand."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workbench.backends.tensorrt_llm_torch import TorchSpec
from workbench.backends.trtllm_torch_command import SETTINGS, torch_commands
from workbench.backends.trtllm_torch_rules import findings
from workbench.gpus import Gpu
from workbench.model import Model
from workbench.rules import Finding
from workbench.spec import parameters_of

LLAMA = dataclasses.replace(
    Model.read(Path(__file__).parents[1] / "workbench" / "demo_model"),
    heads=32,
    kv_heads=8,
    context_length=8192,
    config={},
)
NAMES = {75: "Tesla T4", 80: "NVIDIA A100", 90: "NVIDIA H200"}


def gpus(*generations: int) -> list[Gpu]:
    return [
        Gpu(i, NAMES[sm], (sm // 10, sm % 10), 80 << 30, 79 << 30, f"GPU-{i}")
        for i, sm in enumerate(generations)
    ]


def spec(**values: Any) -> TorchSpec:
    return TorchSpec.parse(values)


def found_by(
    values: dict[str, Any], model: Model | None = None, on: list[Gpu] | None = None
) -> list[Finding]:
    return findings(spec(**values), model, on or [])


RULES: list[tuple[dict[str, Any], tuple[int, ...], str, str, str]] = [
    (
        {"max_input_len": 600, "max_seq_len": 600},
        (90,),
        "refuse",
        "max_input_len",
        "leaves no room for output",
    ),
    (
        {"max_input_len": 4096, "max_num_tokens": 2048},
        (90,),
        "warn",
        "max_num_tokens",
        "a prompt longer than 2048 tokens is refused",
    ),
    (
        {"max_input_len": 8000},
        (90,),
        "warn",
        "max_seq_len",
        "The runtime lowers max_seq_len to 8192 with no more than a line in its log",
    ),
    ({"revision": "main"}, (90,), "ignored", "revision", "a local directory has no revisions"),
    (
        {"tp_size": 3},
        (90, 90, 90),
        "refuse",
        "tp_size",
        "32 attention heads cannot be shared among 3 GPUs",
    ),
    ({"pp_size": 5}, (90, 90), "refuse", "pp_size", "needs 5 GPUs; 2 are here"),
    ({"tp_size": 2, "pp_size": 2}, (90, 90), "refuse", "pp_size", "needs 4 GPUs"),
    ({"tp_size": 4}, (90,), "refuse", "tp_size", "needs 4 GPUs; 1 is here"),
    (
        {"dtype": "bfloat16", "tp_size": 2},
        (90, 75),
        "refuse",
        "dtype",
        "Tesla T4 (sm75) has no bfloat16",
    ),
]


@pytest.mark.parametrize(("values", "generations", "level", "field", "words"), RULES)
def test_a_rule(
    values: dict[str, Any], generations: tuple[int, ...], level: str, field: str, words: str
) -> None:
    on = gpus(*generations)
    found = found_by(values, LLAMA, on)
    (finding,) = [f for f in found if (f.level, f.field) == (level, field) and words in f.reason]
    assert finding.reason.endswith(".")
    assert finding.changes
    mended = found_by({**values, **dict(finding.changes)}, LLAMA, on)
    assert not [f for f in mended if f.field == field and words in f.reason]


@pytest.mark.parametrize(
    ("values", "generations"),
    [
        ({}, (90,)),
        # NVIDIA's matrix lists an FP8 KV cache for Ampere.
        ({"kv_cache_dtype": "fp8"}, (80,)),
        # The second GPU is not used.
        ({"dtype": "bfloat16"}, (90, 75)),
        ({"tp_size": 2}, (90, 90)),
    ],
)
def test_what_works_has_no_findings(values: dict[str, Any], generations: tuple[int, ...]) -> None:
    assert found_by(values, LLAMA, gpus(*generations)) == []


def test_rotary_scaling_lengthens_the_context_as_the_runtime_takes_it() -> None:
    def longest(scaling: dict[str, Any]) -> bool:
        model = dataclasses.replace(LLAMA, config={"rope_scaling": scaling})
        return not found_by({"max_seq_len": 16384}, model)

    assert longest({"type": "linear", "factor": 2.0})
    # Not as for engines, where it counts.
    assert not longest({"rope_type": "yarn", "factor": 2.0})
    assert not longest({"rope_type": "llama3", "factor": 8.0})


OTHERS: dict[str, tuple[Any, str]] = {
    "model": ("owner/other", "owner/other"),
    "revision": ("v1", "--revision v1"),
    "dtype": ("float16", "dtype: float16"),
    "kv_cache_dtype": ("fp8", "  dtype: fp8"),
    "tp_size": (2, "--tp_size 2"),
    "pp_size": (3, "--pp_size 3"),
    "max_batch_size": (7, "--max_batch_size 7"),
    "max_input_len": (99, "--max_seq_len 1123"),
    "max_output_len": (98, "--max_seq_len 1122"),
    "max_seq_len": (777, "--max_seq_len 777"),
    "max_num_tokens": (555, "--max_num_tokens 555"),
    "kv_cache_free_gpu_memory_fraction": (0.5, "--kv_cache_free_gpu_memory_fraction 0.5"),
    "enable_block_reuse": (False, "enable_block_reuse: false"),
    "enable_chunked_prefill": (True, "enable_chunked_prefill: true"),
    "use_cuda_graph": (False, "cuda_graph_config: null"),
    "guided_decoding_backend": ("xgrammar", "guided_decoding_backend: xgrammar"),
    "trust_remote_code": (True, "--trust_remote_code"),
}


@pytest.mark.parametrize("name", parameters_of(TorchSpec))
def test_every_parameter_shows_in_the_commands(name: str) -> None:
    value, words = OTHERS[name]

    def text(**values: Any) -> str:
        commands = torch_commands(spec(**{"model": "owner/name", **values}), None)
        return "\n".join(words for _, words in commands)

    assert words in text(**{name: value})
    assert words not in text()


def _given(commands: list[tuple[str, str]], folder: Path) -> list[list[str]]:
    """Run the texts in a shell whose programs only say what they are given."""
    programs = folder / "bin"
    programs.mkdir()
    for name in ("hf", "trtllm-serve"):
        (programs / name).write_text(
            f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"
        )
        (programs / name).chmod(0o700)
    answer = subprocess.run(
        ["sh", "-ec", "\n".join(text for _, text in commands)],
        env={"PATH": f"{programs}:{os.environ['PATH']}"},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in answer.stdout.splitlines()]


def test_a_shell_serves_a_revision_of_the_hub(tmp_path: Path) -> None:
    commands = torch_commands(spec(model="owner/name", revision="refs/pr/1"), None)
    assert [title for title, _ in commands] == ["Download the checkpoint", "Serve the checkpoint"]
    download, serve = _given(commands, tmp_path)
    assert download[:4] == ["download", "owner/name", "--revision", "refs/pr/1"]
    assert serve[0] == "./name-refs-pr-1"
    assert serve[0].removeprefix("./") == download[-1]
    assert serve[serve.index("--extra_llm_api_options") + 1] == SETTINGS
    assert (tmp_path / SETTINGS).read_text() == (
        "dtype: auto\n"
        "enable_chunked_prefill: false\n"
        "cuda_graph_config:\n"
        "  max_batch_size: 32\n"
        "  enable_padding: true\n"
        "kv_cache_config:\n"
        "  dtype: auto\n"
        "  enable_block_reuse: true\n"
        "  free_gpu_memory_fraction: 0.9\n"
    )


def test_a_local_directory_is_served_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (serve,) = _given(torch_commands(spec(), LLAMA), tmp_path)
    assert serve[0] == str(LLAMA.path)
    # What exists as a path is no hub id.
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert len(torch_commands(spec(model="owner/name", revision="v1"), None)) == 1
