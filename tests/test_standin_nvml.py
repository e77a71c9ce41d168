"""The stand-in NVML, asked through the real pynvml in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.standin_nvml import (
    CUDA_VERSION,
    DRIVER_VERSION,
    TWO_GPUS,
    compile_library,
    environment,
    require_library,
)

REPOSITORY = Path(__file__).parents[1]

# Defines ask(): everything that pynvml sees, or the number of its error.
ASK = """
import json, os, sys
import pynvml

def describe(handle):
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    second = pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2)
    return {
        "name": pynvml.nvmlDeviceGetName(handle),
        "uuid": pynvml.nvmlDeviceGetUUID(handle),
        "capability": pynvml.nvmlDeviceGetCudaComputeCapability(handle),
        "memory": [memory.total, memory.free, memory.used],
        "memory_v2": [second.total, second.reserved, second.free, second.used],
    }

def ask():
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return {"error": error.value}
    count = pynvml.nvmlDeviceGetCount()
    try:
        beyond = pynvml.nvmlDeviceGetHandleByIndex(count)
    except pynvml.NVMLError as error:
        beyond = error.value
    answer = {
        "driver": pynvml.nvmlSystemGetDriverVersion(),
        "cuda": pynvml.nvmlSystemGetCudaDriverVersion_v2(),
        "gpus": [describe(pynvml.nvmlDeviceGetHandleByIndex(i)) for i in range(count)],
        "beyond": beyond,
    }
    pynvml.nvmlShutdown()
    try:
        pynvml.nvmlDeviceGetCount()
    except pynvml.NVMLError as error:
        answer["after shutdown"] = error.value
    return answer
"""

TWO = {
    "driver": DRIVER_VERSION,
    "cuda": CUDA_VERSION[0] * 1000 + CUDA_VERSION[1] * 10,
    "gpus": [
        {
            "name": "NVIDIA H100 80GB HBM3",
            "uuid": "GPU-00000000-0000-0000-0000-000000000000",
            "capability": [9, 0],
            "memory": [85520809984, 84000000000, 1520809984],
            "memory_v2": [85520809984, 0, 84000000000, 1520809984],
        },
        {
            "name": "NVIDIA L40S",
            "uuid": "GPU-00000000-0000-0000-0000-000000000001",
            "capability": [8, 9],
            "memory": [48305799168, 47000000000, 1305799168],
            "memory_v2": [48305799168, 0, 47000000000, 1305799168],
        },
    ],
    "beyond": 2,  # NVML_ERROR_INVALID_ARGUMENT
    "after shutdown": 1,  # NVML_ERROR_UNINITIALIZED
}
NO_DRIVER = {"error": 9}  # NVML_ERROR_DRIVER_NOT_LOADED


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return require_library(tmp_path_factory.mktemp("standin_nvml"))


def _run(script: str, *arguments: str, **variables: str) -> tuple[Any, str]:
    """What a child process prints as JSON, and its stderr."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "STANDIN_GPUS")}
    answer = subprocess.run(
        [sys.executable, "-c", ASK + script, *arguments],
        cwd=REPOSITORY,
        env={**inherited, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout), answer.stderr


def test_a_preloaded_process_sees_the_gpus(library: Path) -> None:
    answer, stderr = _run("print(json.dumps(ask()))", **environment(library, TWO_GPUS))
    assert answer == TWO
    assert stderr == ""  # the loader complains here about a library that it cannot preload


def test_without_gpus_no_driver_is_loaded(library: Path) -> None:
    answer, _ = _run("print(json.dumps(ask()))", **environment(library, ""))
    assert answer == NO_DRIVER


def test_loaded_in_process_it_follows_the_environment(library: Path) -> None:
    script = """
from pathlib import Path
from tests.standin_nvml import load

load(Path(sys.argv[1]))
answers = [ask()]
os.environ["STANDIN_GPUS"] = sys.argv[2]
answers.append(ask())
os.environ["STANDIN_GPUS"] = sys.argv[2].split(";")[1]
answers.append([gpu["name"] for gpu in ask()["gpus"]])
del os.environ["STANDIN_GPUS"]
answers.append(ask())
print(json.dumps(answers))
"""
    answers, _ = _run(script, str(library), TWO_GPUS)
    assert answers == [NO_DRIVER, TWO, ["NVIDIA L40S"], NO_DRIVER]


@pytest.mark.parametrize(
    "gpus",
    ["NVIDIA L40S", "NVIDIA L40S,8.9,10", "NVIDIA L40S,8.9,10,20", f"{TWO_GPUS};", f"{TWO_GPUS},1"],
    ids=["name only", "no free memory", "more free than there is", "empty last", "trailing text"],
)
def test_a_typing_error_does_not_look_like_a_missing_driver(library: Path, gpus: str) -> None:
    answer, stderr = _run("print(json.dumps(ask()))", **environment(library, gpus))
    assert answer == {"error": 999}
    assert "STANDIN_GPUS" in stderr


def test_without_a_compiler_tests_are_skipped_but_fail_under_ci(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compile_library(tmp_path) is None
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no `cc` or `gcc`"):
        require_library(tmp_path)
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no `cc` or `gcc`"):
        require_library(tmp_path)
