"""The doctor on this machine, and on toolchains whose packages are only metadata."""

from __future__ import annotations

import dataclasses
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from workbench.backends import get_backend
from workbench.cli import main
from workbench.doctor import (
    cuda_of,
    examine,
    examine_toolchain,
    find_engines,
    find_toolchains,
    lines,
    runnable,
)
from workbench.gpus import Gpu, driver
from workbench.releases import IMAGE, engines_gone
from workbench.report import Remedy

H100 = Gpu(0, "NVIDIA H100", (9, 0), 80 << 30, 79 << 30, "GPU-0")


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No toolchain but the one that runs the tests."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("CONDA_PREFIX", "MAMBA_ROOT_PREFIX", "VIRTUAL_ENV"):
        monkeypatch.delenv(variable, raising=False)


def _toolchain(folder: Path, **packages: str) -> str:
    """Make an interpreter in which these distributions, and no others, are installed."""
    for name, version in packages.items():
        info = folder / "packages" / f"{name}-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    python = folder / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}/packages" exec {sys.executable} -S "$@"\n')
    python.chmod(0o755)
    return str(python)


def _remedies(*, gpus: tuple[Gpu, ...] = (H100,), cuda: str = "13.0", problem: str = "") -> dict:
    from workbench import doctor

    toolchains = tuple(examine_toolchain(*found) for found in find_toolchains())
    versions = ("580.65.06", cuda) if cuda else None
    works = [name for name, (_, trouble) in find_engines().items() if not trouble]
    return {r.backend: r for r in doctor._remedies(toolchains, gpus, versions, problem, works)}


@pytest.mark.parametrize(
    ("version", "gone"),
    [
        ("0.20.0", False),
        ("1.2.1", False),
        ("1.3.0rc3", False),
        ("1.3.0rc15", False),
        ("1.3.0rc9.post1", False),
        ("1.3.0rc22", True),
        ("1.3.0", True),
        ("1.4.0rc1", True),
        ("unknown", False),
    ],
)
def test_which_releases_have_engines(version: str, gone: bool) -> None:
    assert engines_gone(version) is gone
    # A leftover TensorRT does not bring the engines back.
    able = runnable({"tensorrt-llm": version, "tensorrt": "10.15.1"})
    assert ("tensorrt_llm" in able) is not gone
    assert "tensorrt_llm_torch" in able
    assert runnable({"tensorrt-llm": version}) == ("tensorrt_llm_torch",)
    # A build would refuse these, too: tensorrt_llm itself requires `tensorrt`.
    assert "tensorrt_llm" not in runnable({"tensorrt-llm": version, "tensorrt-cu13": "10.14"})


@pytest.mark.parametrize(
    ("versions", "cuda"),
    [
        ({"torch": "2.9.1+cu130"}, "13.0"),
        ({"torch": "2.4.0+cu121"}, "12.1"),
        ({"torch": "2.13.0+cpu"}, None),
        ({"torch": "2.9.1", "nvidia-cuda-runtime": "13.0.96"}, "13.0"),
        ({"nvidia-cuda-runtime-cu12": "12.8.90"}, "12.8"),
        ({"torch": None}, None),
    ],
)
def test_the_cuda_of_a_toolchain(versions: dict[str, str | None], cuda: str | None) -> None:
    assert cuda_of(versions) == cuda


def test_what_runs_depends_on_all_packages() -> None:
    complete: dict[str, str | None] = dict.fromkeys(get_backend("openvino").packages, "1")
    assert runnable(complete) == ("openvino", "transformers")
    assert runnable({**complete, "nncf": None}) == ("transformers",)
    assert runnable({**complete, "torch": None}) == ()
    engines = {"tensorrt-llm": "1.2.1", "tensorrt": "10.14.1"}
    assert runnable(engines) == ("tensorrt_llm", "tensorrt_llm_torch")


def test_this_machine_runs_the_default(capsys: pytest.CaptureFixture) -> None:
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert f"Toolchain   {sys.executable} (this interpreter)" in shown
    assert "openvino            can run" in shown
    assert main(["doctor", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["ready"]
    assert record["host"]["memory_bytes"] > 0
    assert record["toolchains"][0]["versions"]["openvino"]


def test_without_any_backend_the_status_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("workbench.doctor.list_gpus", tuple)
    empty = _toolchain(tmp_path / "empty")
    monkeypatch.setenv("WORKBENCH_TOOLCHAIN_OPENVINO", empty)
    monkeypatch.setenv("WORKBENCH_TOOLCHAIN_TRANSFORMERS", empty)
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    # The interpreter that runs this has them, so that one variable is all it takes.
    assert f"openvino            cannot run: {empty} lacks its packages" in shown
    assert f"export WORKBENCH_TOOLCHAIN_OPENVINO={sys.executable}" in shown


def test_a_machine_without_a_driver_is_told_so() -> None:
    if driver() is not None:
        pytest.skip("this machine has a driver")
    report = examine()
    assert report.driver is None
    assert "GPU         no NVIDIA driver" in list(lines(report))
    assert "no driver answers" in next(
        remedy.missing for remedy in report.remedies if remedy.backend == "tensorrt_llm"
    )


def test_a_toolchain_with_engines_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = _toolchain(
        tmp_path / "trt", tensorrt_llm="1.2.1", tensorrt="10.14.1.48", torch="2.9.1+cu130"
    )
    monkeypatch.setenv("WORKBENCH_TOOLCHAIN_TENSORRT_LLM", python)
    found = examine_toolchain(python, "a test")
    assert found.backends == ("tensorrt_llm", "tensorrt_llm_torch")
    assert found.versions == {
        "tensorrt-llm": "1.2.1",
        "tensorrt": "10.14.1.48",
        "torch": "2.9.1+cu130",
    }
    assert (found.cuda, found.problem) == ("13.0", "")
    remedies = _remedies()
    assert "tensorrt_llm" not in remedies
    assert remedies["tensorrt_llm_torch"].command == (
        f"export WORKBENCH_TOOLCHAIN_TENSORRT_LLM_TORCH={python}"
    )
    assert "supports CUDA up to 12.8" in _remedies(cuda="12.8")["tensorrt_llm"].missing


def test_a_toolchain_without_engines_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = _toolchain(tmp_path / "new", tensorrt_llm="1.4.0rc1", torch="2.14.0+cu130")
    monkeypatch.setenv("WORKBENCH_TOOLCHAIN_TENSORRT_LLM", python)
    found = examine_toolchain(python, "a test")
    assert found.backends == ("tensorrt_llm_torch",)
    assert found.problem == ("This tensorrt_llm has no engine API: use backend tensorrt_llm_torch.")


def test_what_is_missing_has_one_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "pip install tensorrt-llm==1.2.1" in _remedies()["tensorrt_llm"].command
    _program(tmp_path / "podman", "echo podman version 5")
    # Without it containers get no GPU.
    assert "pip install" in _remedies()["tensorrt_llm"].command
    _program(tmp_path / "nvidia-ctk", "echo NVIDIA Container Toolkit")
    _program(tmp_path / "docker", '[ "$1" = --version ] && echo Docker version 29')
    assert find_engines() == {
        "docker": ("Docker version 29", "its daemon does not answer (see `docker info`)"),
        "podman": ("podman version 5", ""),
    }
    assert _remedies()["tensorrt_llm"].command == (
        f"podman pull {IMAGE} && export WORKBENCH_TOOLCHAIN_TENSORRT_LLM=podman:{IMAGE}"
    )
    assert _remedies(gpus=())["tensorrt_llm"] == Remedy(
        "tensorrt_llm", "no GPU is visible.", "unset CUDA_VISIBLE_DEVICES"
    )
    broken = _remedies(gpus=(), cuda="", problem="It does not answer.")
    assert broken["tensorrt_llm"].missing == "It does not answer."
    assert set(broken) == {"tensorrt_llm", "tensorrt_llm_torch"}


def _program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_path_with_spaces_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = _toolchain(tmp_path / "my tools" / "trt", tensorrt_llm="1.2.1")
    monkeypatch.setenv("VIRTUAL_ENV", str(Path(python).parents[1]))
    command = _remedies()["tensorrt_llm_torch"].command
    assert shlex.split(command) == ["export", f"WORKBENCH_TOOLCHAIN_TENSORRT_LLM_TORCH={python}"]


def test_one_backend_that_runs_is_enough() -> None:
    report = examine()
    broken = tuple(Remedy(name, "", "") for name in ("openvino", "tensorrt_llm"))
    assert dataclasses.replace(report, remedies=broken).ready
    others = tuple(Remedy(name, "", "") for name in ("tensorrt_llm_torch", "transformers"))
    assert not dataclasses.replace(report, remedies=broken + others).ready


def test_each_toolchain_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = _toolchain(tmp_path / "one")
    (tmp_path / "one/bin/python3").symlink_to(one)
    (tmp_path / ".conda").mkdir()
    (tmp_path / ".conda/environments.txt").write_text(f"{tmp_path}/one\n")
    monkeypatch.setenv("WORKBENCH_TOOLCHAIN_A", f"{one}3")
    monkeypatch.setenv("WORKBENCH_TOOLCHAIN_B", "docker:python:3.12")
    monkeypatch.setenv("WORKBENCH_TOOLCHAIN_C", "conda:nowhere")
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "one"))
    assert list(find_toolchains()) == [
        (sys.executable, "this interpreter"),
        (f"{one}3", "WORKBENCH_TOOLCHAIN_A"),
        ("docker:python:3.12", "WORKBENCH_TOOLCHAIN_B"),
        ("conda:nowhere", "WORKBENCH_TOOLCHAIN_C"),
    ]
    assert "no conda environment" in examine_toolchain("conda:nowhere", "C").problem


def test_the_mpi_of_an_environment_comes_first(tmp_path: Path) -> None:
    python = _toolchain(tmp_path / "mpi", tensorrt_llm="1.2.1")
    mpirun = tmp_path / "mpi/bin/mpirun"
    mpirun.write_text("#!/bin/sh\necho 'mpirun (Open MPI) 5.0.8'\necho 'Report bugs'\n")
    mpirun.chmod(0o755)
    assert examine_toolchain(python, "a test").mpi == "mpirun (Open MPI) 5.0.8"


def test_nothing_of_a_toolchain_is_imported(tmp_path: Path) -> None:
    python = _toolchain(tmp_path / "heavy", tensorrt_llm="1.2.1")
    trap = tmp_path / "heavy/packages/tensorrt_llm"
    trap.mkdir()
    (trap / "__init__.py").write_text("raise SystemExit('imported')\n")
    assert subprocess.run([python, "-c", "import tensorrt_llm"], check=False).returncode == 1
    assert examine_toolchain(python, "a test").problem
    assert examine_toolchain(python, "a test").versions == {"tensorrt-llm": "1.2.1"}
