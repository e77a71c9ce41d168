"""GPUs: what NVML says, and which of them CUDA_VISIBLE_DEVICES leaves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.standin_nvml import TWO_GPUS, environment, require_library
from workbench.errors import ToolchainError
from workbench.gpus import Gpu, cuda_version, driver, list_gpus, select


def _gpu(index: int, uuid: str = "", capability: tuple[int, int] = (9, 0)) -> Gpu:
    return Gpu(index, "H100", capability, 80 << 30, 79 << 30, uuid or f"GPU-{index}000-ab")


THREE = (_gpu(0), _gpu(1), _gpu(2, "GPU-1000-cd"))


@pytest.mark.parametrize(
    ("visible", "indices"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1", [1]),
        ("2,0", [2, 0]),
        (" 2 , 0 ", [2, 0]),
        ("1,7,0", [1]),
        ("0,-1,1", [0]),
        ("0,0,1", [0]),
        ("GPU-0000-ab", [0]),
        ("GPU-0", [0]),
        ("GPU-1000-c,0", [2, 0]),
        # Cut so short that it means two.
        ("GPU-1", []),
        ("0,GPU-ffff", [0]),
        ("MIG-0000,0", []),
        ("GPU-2000-ab,0", []),
        ("00,1", []),
    ],
)
def test_what_is_visible(visible: str | None, indices: list[int]) -> None:
    assert [gpu.index for gpu in select(THREE, visible)] == indices


@pytest.mark.parametrize(
    ("capability", "sm"), [((8, 0), 80), ((8, 9), 89), ((9, 0), 90), ((10, 3), 103), ((12, 0), 120)]
)
def test_the_architecture_has_a_number(capability: tuple[int, int], sm: int) -> None:
    assert _gpu(0, capability=capability).sm == sm


def test_the_version_of_cuda_in_words() -> None:
    assert [cuda_version(number) for number in (12080, 13000, 13010)] == ["12.8", "13.0", "13.1"]


def test_a_machine_without_a_driver_has_no_gpus() -> None:
    if Path("/proc/driver/nvidia/version").exists():
        pytest.skip("this machine has a driver")
    assert list_gpus() == ()
    assert driver() is None


SCRIPT = """
import dataclasses, json
from workbench.gpus import driver, list_gpus
print(json.dumps([driver(), [dataclasses.asdict(gpu) for gpu in list_gpus()]]))
"""


def _ask(library: Path, **more: str) -> Any:
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        env={**os.environ, **environment(library, TWO_GPUS), **more},
        check=True,
    )
    return json.loads(answer.stdout)


def test_every_gpu_is_described_by_the_driver(tmp_path: Path) -> None:
    library = require_library(tmp_path)
    version, (first, second) = _ask(library)
    assert version == ["580.65.06", "13.0"]
    assert first["name"] == "NVIDIA H100 80GB HBM3"
    assert first["compute_capability"] == [9, 0]
    assert (first["memory_bytes"], first["memory_free"]) == (85520809984, 84000000000)
    assert second["compute_capability"] == [8, 9]
    assert first["uuid"].startswith("GPU-")

    _, turned = _ask(library, CUDA_VISIBLE_DEVICES=f"{second['uuid']},0")
    assert [gpu["index"] for gpu in turned] == [1, 0]


def test_a_driver_that_does_not_answer_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    import pynvml

    def fail() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)

    monkeypatch.setattr(pynvml, "nvmlInit", fail)
    for ask in (list_gpus, driver):
        with pytest.raises(ToolchainError, match=r"does not answer: .*restart this machine"):
            ask()
