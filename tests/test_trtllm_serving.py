"""Serving engines of TensorRT-LLM: the files of an export, and trtllm-serve as a job.

The toolchain is the stand-in of tests/contract, and trtllm-serve is played (tests/servers): that
flags and limits are right is checked here, not that TensorRT-LLM serves.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import until
from tests.servers import trtllm_serve
from tests.standin_nvml import TWO_GPUS
from workbench import jobs, store, usage
from workbench.build import start_build
from workbench.cli import main
from workbench.engine import Engine
from workbench.engine_report import report_page, spec_of
from workbench.errors import JobError, StoreError, ToolchainError
from workbench.export import export_to_run
from workbench.journal import ENDED
from workbench.serving import (
    Server,
    _start,
    await_server,
    engine_server,
    find_server,
    start_server,
    watched_gpus,
)

IMAGE = "image"
STANDIN = Path(__file__).parent / "standin_docker.py"

SPEC = {"backend": "tensorrt_llm", "max_batch_size": 4, "max_seq_len": 512, "max_num_tokens": 2048}


@pytest.fixture(scope="module")
def built(gpu_machine: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("served") / "home"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**gpu_machine, "WORKBENCH_HOME": str(home)}.items():
            patch.setenv(name, value)
        start_build(SPEC).wait()
    return home


@pytest.fixture
def engine(
    gpu_machine: dict[str, str], built: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Engine:
    for name, value in gpu_machine.items():
        monkeypatch.setenv(name, value)
    shutil.copytree(built, home)
    (engine,) = store.list_engines()
    return engine


def _programs(folder: Path) -> Path:
    """An environment that has the played trtllm-serve; returns its interpreter."""
    folder.mkdir(parents=True)
    script = folder / "trtllm-serve"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} {trtllm_serve.__file__} "$@"\n')
    script.chmod(0o755)
    (folder / "python").symlink_to(sys.executable)
    return folder / "python"


@pytest.fixture
def served(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """The engine, with a toolchain that has the played trtllm-serve."""
    monkeypatch.setenv("WORKBENCH_TOOLCHAIN_TENSORRT_LLM", str(_programs(tmp_path / "bin")))
    return engine


@pytest.fixture
def docker(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in for docker, whose image has the played trtllm-serve; returns its state."""
    state, programs = tmp_path / "state", tmp_path / "programs"
    for folder in (state, programs):
        folder.mkdir()
    program = programs / "docker"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {STANDIN} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("STANDIN_STATE", str(state))
    monkeypatch.setenv("STANDIN_PYTHON", str(_programs(tmp_path / "image" / "bin")))
    monkeypatch.setenv("STANDIN_IMAGE", IMAGE)
    monkeypatch.setenv("STANDIN_TOOLKIT", "1")
    monkeypatch.setenv("WORKBENCH_TOOLCHAIN_TENSORRT_LLM", f"docker:{IMAGE}")
    return state


def _containers(state: Path) -> list[str]:
    """What the stand-in believes to be running."""
    return [path.name for path in state.iterdir() if path.name not in ("kills", "published")]


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _flags(words: list[str]) -> dict[str, str]:
    return dict(zip(words[2::2], words[3::2], strict=True))


def _script(folder: Path) -> list[str]:
    text = (folder / "serve.sh").read_text().replace("\\\n", " ")
    return shlex.split(text.partition("exec ")[2])


def test_an_export_passes_the_engines_own_limits_and_listens_here_alone(
    engine: Engine, tmp_path: Path
) -> None:
    folder = export_to_run(engine, tmp_path / "out")
    words = _script(folder)
    assert words[:2] == ["trtllm-serve", "engine"]
    assert _flags(words) == {
        "--backend": "tensorrt",
        "--tokenizer": "engine/tokenizer",
        "--host": "127.0.0.1",
        "--port": "8000",
        "--max_batch_size": "4",
        "--max_num_tokens": "2048",
        "--max_beam_width": "1",
        "--kv_cache_free_gpu_memory_fraction": "0.9",
    }
    built = json.loads((folder / "engine" / "config.json").read_text())["build_config"]
    assert built["max_batch_size"] == 4
    unit = (folder / "trtllm-serve.service").read_text()
    assert f"ExecStart=/opt/trtllm/bin/{shlex.join(words)}\n" in unit
    version = engine.manifest["identity"]["toolchain"]["tensorrt-llm"]
    assert (folder / "requirements.txt").read_text() == f"tensorrt-llm=={version}\n"
    compose = (folder / "compose.yaml").read_text()
    assert f"nvcr.io/nvidia/tensorrt-llm/release:{version}\n" in compose
    # Inside the container it listens for all; outside, for this machine alone.
    assert '"--host", "0.0.0.0"' in compose
    assert 'ports: ["127.0.0.1:8000:8000"]' in compose
    assert not (folder / "serve.yaml").exists()


def test_what_trtllm_serve_has_no_flag_for_goes_into_a_file(engine: Engine, tmp_path: Path) -> None:
    limits = {"kv_cache_tokens": 1024, "enable_block_reuse": False}
    asked = engine.under({**limits, "guided_decoding_backend": "xgrammar"})
    folder = export_to_run(asked, tmp_path / "out")
    assert _flags(_script(folder))["--extra_llm_api_options"] == "serve.yaml"
    assert (folder / "serve.yaml").read_text() == (
        "kv_cache_config:\n  free_gpu_memory_fraction: 0.9\n  max_tokens: 1024\n"
        "  enable_block_reuse: false\nguided_decoding_backend: xgrammar\n"
    )


def test_an_export_names_no_place_of_this_machine(
    engine: Engine, home: Path, tmp_path: Path
) -> None:
    folder = export_to_run(engine, tmp_path / "out")
    source = engine.manifest["model"]["source"].encode()
    for path in folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not [p for p in (source, bytes(home), sys.prefix.encode()) if p in data], path


@pytest.mark.parametrize("kind", [((), "serve.sh"), (("--triton",), "values.json")])
def test_an_engine_can_be_exported_from_the_store_that_built_it(
    engine: Engine,
    built: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: tuple[tuple[str, ...], str],
) -> None:
    words, name = kind
    # Its own files name no place of that store either: neither its cache nor the build's folder.
    monkeypatch.setenv("WORKBENCH_HOME", str(built))
    folder = tmp_path / "out"
    assert main(["export", engine.key, str(folder), *words]) == 0
    assert (folder / name).is_file()
    for path in folder.rglob("*"):
        assert not path.is_file() or bytes(built) not in path.read_bytes(), path


def test_the_exported_script_is_one_that_a_shell_runs(served: Engine, tmp_path: Path) -> None:
    folder = export_to_run(served, tmp_path / "out")
    # From elsewhere; an engine whose limits changed is refused, so the played server was reached.
    config = folder / "engine" / "config.json"
    config.write_text(config.read_text().replace('"max_batch_size": 4', '"max_batch_size": 3'))
    answer = subprocess.run(
        [folder / "serve.sh"],
        env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "max batch size (4) must not exceed engine max batch size (3)" in answer.stderr


def test_it_is_served_as_a_job_and_kept_in_the_store_meanwhile(served: Engine, port: int) -> None:
    server = engine_server(served, host="127.0.0.1", port=port)
    job, _ = start_server(server)
    try:
        with await_server(job, 60.0).open() as session:
            assert session.model == "engine"
        assert usage.users(served.key)
    finally:
        job.cancel()
    assert not usage.users(served.key)


def test_a_damaged_engine_is_not_served(served: Engine, port: int) -> None:
    (served.path / "rank0.engine").write_bytes(b"half")
    job, _ = start_server(engine_server(served, host="127.0.0.1", port=port))
    view = job.wait(60.0)
    assert view.end
    assert served.key in view.end["text"]
    assert "rank0.engine" in view.end["text"]


def test_a_toolchain_without_trtllm_serve_is_a_sentence(engine: Engine, port: int) -> None:
    with pytest.raises(
        ToolchainError, match=r"trtllm-serve is missing: .*`workbench export \w+ FOLD"
    ):
        engine_server(engine, host="127.0.0.1", port=port)


def test_an_engine_without_tokenizer_is_refused_by_name(engine: Engine, tmp_path: Path) -> None:
    files = {k: v for k, v in engine.manifest["files"].items() if not k.startswith("tokenizer/")}
    plain = {**engine.manifest, "files": files}
    del plain["checksum"]
    with pytest.raises(StoreError, match=f"{engine.key} cannot be served: .* lacks the tokenizer"):
        export_to_run(Engine(engine.path, plain), tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_it_is_served_in_its_container_and_reached_on_this_machine_alone(
    docker: Path, engine: Engine, port: int
) -> None:
    # The stand-in refuses what is not mounted.
    job, _ = start_server(engine_server(engine, host="127.0.0.1", port=port))
    with await_server(job, 60.0).open() as session:
        assert session.model == "engine"
    assert (docker / "published").read_text().split() == ["127.0.0.1"]
    (name,) = _containers(docker)
    assert any(name in note for note in job.view().notes)
    (docker / "another").write_text("1")
    assert job.cancel() == "cancelled"
    # It was asked, and ended by itself; nobody else's was touched.
    assert _containers(docker) == ["another"]
    assert not (docker / "kills").exists()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 1.0)


@pytest.mark.parametrize(("host", "published"), [("0.0.0.0", "0.0.0.0"), ("::", "[::]")])
def test_a_container_is_published_where_it_was_asked_to_listen(
    docker: Path, engine: Engine, port: int, host: str, published: str
) -> None:
    process = _start(engine_server(engine, host=host, port=port))
    try:
        until((docker / "published").exists)
        assert (docker / "published").read_text().split() == [published]
    finally:
        process.stop()


def test_what_listens_elsewhere_is_another_server(docker: Path, engine: Engine, port: int) -> None:
    job, _ = start_server(engine_server(engine, host="0.0.0.0", port=port))
    try:
        await_server(job, 60.0)
        assert find_server(engine_server(engine, host="0.0.0.0", port=port)) == job
        assert find_server(engine_server(engine, host="127.0.0.1", port=port)) is None
    finally:
        job.cancel()


def test_a_container_that_does_not_end_when_asked_is_killed_by_its_name(
    docker: Path, engine: Engine, port: int
) -> None:
    job, _ = start_server(engine_server(engine, host="127.0.0.1", port=port))
    await_server(job, 60.0)
    (name,) = _containers(docker)
    leader = int((docker / name).read_text())
    os.kill(leader, signal.SIGSTOP)
    assert job.cancel() == "cancelled"
    assert (docker / "kills").read_text().split() == [name]
    until(lambda: not _listens(port))


def test_a_container_ends_also_when_its_job_is_killed_outright(
    docker: Path, engine: Engine, port: int
) -> None:
    job, _ = start_server(engine_server(engine, host="127.0.0.1", port=port))
    await_server(job, 60.0)
    owner = job.view().owner
    assert owner
    os.kill(owner.pid, signal.SIGKILL)
    until(lambda: job.state() in ENDED)
    until(lambda: _containers(docker) == [])
    assert not _listens(port)


def test_an_image_without_trtllm_serve_is_a_sentence(
    docker: Path, engine: Engine, port: int, tmp_path: Path
) -> None:
    (tmp_path / "image" / "bin" / "trtllm-serve").unlink()
    job, _ = start_server(engine_server(engine, host="127.0.0.1", port=port))
    with pytest.raises(JobError, match=r"ended with status 127 .* trtllm-serve cannot be started"):
        await_server(job, 60.0)
    assert _containers(docker) == []


def test_an_image_that_is_not_there_is_a_sentence(
    docker: Path, engine: Engine, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_IMAGE", "other")
    job, _ = start_server(engine_server(engine, host="127.0.0.1", port=port))
    with pytest.raises(JobError, match=f"No such image: {IMAGE}"):
        await_server(job, 60.0)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_only_the_gpus_that_a_server_takes_are_watched(
    served: Engine, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_GPUS", TWO_GPUS)
    server = engine_server(served, host="127.0.0.1", port=port)
    assert [gpu.index for gpu in watched_gpus(server)] == [0]
    command = Server(("any",), "http://127.0.0.1:1")
    assert [gpu.index for gpu in watched_gpus(command)] == [0, 1]
    chosen = replace(command, variables={"CUDA_VISIBLE_DEVICES": "1"})
    assert [gpu.index for gpu in watched_gpus(chosen)] == [1]


def test_its_report_leads_back_to_the_same_engine(engine: Engine) -> None:
    page = report_page(engine)
    for words in ("trtllm-build", "trtllm-serve", "NVIDIA H100 80GB HBM3"):
        assert words in page
    hit = start_build(spec_of(engine)).hit
    assert hit
    assert hit.key == engine.key


def test_an_embedded_engine_is_refused_by_name(
    stocked: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", stocked.key]) == 1
    told = capsys.readouterr().err
    assert f"{stocked.key} is of the backend openvino, which brings no server" in told


def test_the_command_line_serves_and_detaches(
    served: Engine, port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["serve", served.key[:8], "--port", str(port), "--detach"]
    assert main(words) == 0
    (job,) = (one for one in jobs.list_jobs() if one.request["kind"] == "serve")
    shown = capsys.readouterr().out
    assert f"It serves on http://127.0.0.1:{port}/v1" in shown
    assert f"workbench jobs cancel {job.id}" in shown
    assert main(words) == 0
    assert "This very server runs already" in capsys.readouterr().out
    assert main(["jobs", "cancel", job.id]) == 0
    assert main(["jobs", "attach", job.id]) == 0
    assert "Cancelled." in capsys.readouterr().out


@pytest.mark.parametrize("words", [[], ["abc", "--command", "x"]])
def test_either_an_engine_or_a_command_is_served(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *words]) == 2
    assert "Say what to serve" in capsys.readouterr().err
