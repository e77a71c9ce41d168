"""Builds of the stand-in fail as real ones do."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.contract import wording
from tests.contract.driver import CONVERT, Toolchain
from tests.contract.toolchain import make_toolchain
from workbench.build import DEMO_MODEL


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toolchain(tmp_path_factory.mktemp("toolchain") / "env")


@pytest.fixture
def toolchain(environment: Path, tmp_path: Path) -> Toolchain:
    return Toolchain(environment, tmp_path)


@pytest.mark.parametrize(
    ("failure", "status", "stream", "complaint"),
    [
        (
            "gpu_oom",
            1,
            "stdout",
            "Error Code 2: OutOfMemory (Requested size was 16654532608 bytes.)",
        ),
        ("gpu_oom", 1, "stderr", wording.ERRORS["build_failed"]),
        ("assertion", 1, "stderr", wording.ERRORS["build_failed"]),
        ("import_error", 1, "stderr", "ImportError: libmpi.so.40"),
        ("disk_full", 1, "stderr", "No space left on device"),
        ("host_killed", -signal.SIGKILL, "stdout", "Set PluginConfig"),
        ("segfault", -signal.SIGSEGV, "stdout", "Detected"),
    ],
)
def test_a_build_fails_as_real_ones_do(
    toolchain: Toolchain, failure: str, status: int, stream: str, complaint: str
) -> None:
    done = toolchain.build(toolchain.convert(), fail=failure)
    assert done.returncode == status
    assert complaint in getattr(done, stream)
    assert not (toolchain.folder / "engine" / "rank0.engine").exists() or failure == "disk_full"


def test_a_worker_that_fails_says_the_other_sentence(toolchain: Toolchain) -> None:
    two = "NVIDIA H100 80GB HBM3,9.0,2"
    checkpoint = toolchain.convert(tp=2)
    done = toolchain.build(checkpoint, "--workers", 2, gpu=two, fail="assertion")
    assert done.returncode == 1
    assert wording.ERRORS["parallel_failed"] in done.stderr


def test_a_build_can_hang(toolchain: Toolchain) -> None:
    build, checkpoint = toolchain.python.parent / "trtllm-build", toolchain.convert()
    command = [str(build), "--checkpoint_dir", str(checkpoint)]
    environment = {**os.environ, "WORKBENCH_STANDIN_FAIL": "hang", "WORKBENCH_STANDIN_PACE": "0.01"}
    with subprocess.Popen(
        command, env=environment, cwd=toolchain.folder, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        lines = iter(process.stdout)
        assert any("Detected" in line for line in lines)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.5)
        process.terminate()
        assert process.wait(timeout=5) == -signal.SIGTERM


def test_an_architecture_without_an_engine_is_refused(toolchain: Toolchain, tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    config = json.loads((DEMO_MODEL / "config.json").read_text())
    config["architectures"] = ["GptOssForCausalLM"]
    (model / "config.json").write_text(json.dumps(config))
    done = toolchain.script(CONVERT, model, tmp_path / "out", 1, 1)
    assert done.returncode == 1
    assert wording.ERRORS["architecture"].format(name="GptOssForCausalLM") in done.stderr
    forced = toolchain.script(
        CONVERT, DEMO_MODEL, tmp_path / "out", 1, 1, fail="unsupported_architecture"
    )
    assert "LlamaForCausalLM is not supported" in forced.stderr


def test_calibration_can_be_slow(toolchain: Toolchain) -> None:
    script = """
import sys
from tensorrt_llm.models import AutoModelForCausalLM, QuantConfig
kind = AutoModelForCausalLM.get_trtllm_model_class(sys.argv[1])
kind.quantize(sys.argv[1], "out", quant_config=QuantConfig(quant_algo="FP8"), calib_batches=2)
"""
    assert toolchain.script(script, DEMO_MODEL, fail="calibration_slow").returncode == 0
