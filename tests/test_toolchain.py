"""Toolchains: every interpreter that workers run in, and containers through a stand-in for docker.

The stand-in is test equipment (tests/standin_docker.py); docker's real client, where there is one,
is asked whether it understands our options.
"""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from workbench.backends import get_backend, make_spec
from workbench.build import DEMO_MODEL
from workbench.containers import Container, plan_mounts
from workbench.engine import Engine
from workbench.errors import SessionError, ToolchainError
from workbench.process import Worker
from workbench.session import Session
from workbench.toolchain import WORKER, Toolchain, find_toolchain

STANDIN = Path(__file__).with_name("standin_docker.py")
IMAGE = "registry/engines:1.2.1"


def _until(condition: object, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def _interpreters() -> list[str]:
    """Every Python from 3.10 to 3.13 that is found here and starts."""
    found = {}
    for minor in range(10, 14):
        paths = [shutil.which(f"python3.{minor}")]
        paths += sorted(map(str, (Path.home() / ".pyenv/versions").glob(f"3.{minor}.*/bin/python")))
        for path in filter(None, paths):
            answer = subprocess.run(
                [path, "-c", "import sys; print(sys.executable)"], capture_output=True, check=False
            )
            if answer.returncode == 0:
                found[os.path.realpath(answer.stdout.decode().strip())] = path
    return list(found.values())


# Interpreters.


@pytest.mark.parametrize("python", _interpreters())
def test_the_worker_runs_in_every_python(python: str) -> None:
    versions = Toolchain(python).versions(("pip", "no-such-package"))
    assert set(versions) == {"pip", "no-such-package"}
    assert versions["no-such-package"] is None


@pytest.mark.parametrize("python", _interpreters())
def test_every_module_of_the_worker_is_understood_by_every_python(
    python: str, tmp_path: Path
) -> None:
    # Compiled elsewhere: the worker's folder stays as it is.
    script = (
        "import py_compile, sys; out, *paths = sys.argv[1:]; "
        "[py_compile.compile(path, out, doraise=True) for path in paths]"
    )
    modules = map(str, WORKER.rglob("*.py"))
    subprocess.run([python, "-c", script, str(tmp_path / "out.pyc"), *modules], check=True)


def test_the_name_of_a_toolchain_makes_it_again(tmp_path: Path) -> None:
    for text in (sys.executable, f"docker:{IMAGE}", "podman:a/b@sha256:0", "apptainer:/a b.sif"):
        toolchain = Toolchain.parse(text)
        assert toolchain.name == text
        assert Toolchain.parse(toolchain.name) == toolchain
    assert Toolchain(sys.executable) == Toolchain.parse(sys.executable)


def test_a_relative_path_becomes_absolute_and_links_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "python").symlink_to(sys.executable)
    assert Toolchain.parse("python").name == str(tmp_path / "python")
    assert Toolchain.parse("apptainer:x.sif").name == f"apptainer:{tmp_path}/x.sif"


@pytest.fixture
def conda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two conda environments of one name, and one of another."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("CONDA_PREFIX", "MAMBA_ROOT_PREFIX"):
        monkeypatch.delenv(variable, raising=False)
    prefixes = [tmp_path / where for where in ("a/envs/twice", "b/envs/twice", "a/envs/trt")]
    for prefix in prefixes:
        (prefix / "bin").mkdir(parents=True)
        (prefix / "conda-meta").mkdir()
        # A script: a link would look for its library beside itself.
        python = prefix / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
        python.chmod(0o755)
    gone = tmp_path / "gone"
    (tmp_path / ".conda").mkdir()
    (tmp_path / ".conda" / "environments.txt").write_text("\n".join(map(str, [*prefixes, gone])))
    return tmp_path


def test_conda_environments_have_names(conda: Path) -> None:
    trt = conda / "a/envs/trt"
    assert Toolchain.parse("conda:trt").name == f"{trt}/bin/python"
    assert Toolchain.parse(f"conda:{trt}").name == f"{trt}/bin/python"
    with pytest.raises(ToolchainError, match=r"more than one .*'twice'.*/a/envs/twice, .*/b/envs"):
        Toolchain.parse("conda:twice")
    with pytest.raises(ToolchainError, match=r"no conda environment of the name 'gone'"):
        Toolchain.parse("conda:gone")


def test_an_environment_is_as_if_activated(conda: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("PATH", "/usr/bin")
    _, environment = Toolchain.parse("conda:trt").command(["versions"])
    assert environment["PATH"] == f"{conda}/a/envs/trt/bin:/usr/bin"
    assert environment["CONDA_PREFIX"] == f"{conda}/a/envs/trt"
    assert environment["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert "PYTHONPATH" not in environment
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    _, environment = Toolchain.parse("conda:trt").command(["versions"])
    assert environment["CUDA_DEVICE_ORDER"] == "FASTEST_FIRST"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "/nowhere/python",
            r"OPENVINO names /nowhere/python, .*not an executable file.*conda:NAME",
        ),
        ("conda:nowhere", r"OPENVINO: There is no conda environment"),
        ("docker:", r"docker: names no image\. Give docker:IMAGE"),
        ("podman:image", r"podman:image needs the program podman, which is not found"),
        ("singularity:x", r"not an executable file"),
    ],
)
def test_what_is_not_there_is_a_sentence(
    text: str, sentence: str, conda: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(conda))
    monkeypatch.setenv("WORKBENCH_TOOLCHAIN_OPENVINO", text)
    with pytest.raises(ToolchainError, match=sentence):
        find_toolchain("openvino")


def test_a_missing_image_file_says_how_to_make_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "apptainer").write_text("#!/bin/sh\n")
    (tmp_path / "apptainer").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("WORKBENCH_TOOLCHAIN_OPENVINO", f"apptainer:{tmp_path}/x.sif")
    with pytest.raises(ToolchainError, match=rf"apptainer pull {tmp_path}/x.sif docker://IMAGE"):
        find_toolchain("openvino")


# What is mounted.


def test_nothing_is_mounted_twice(tmp_path: Path) -> None:
    store, model = tmp_path / "store", tmp_path / "model"
    for folder in (store / "engine", model / "part"):
        folder.mkdir(parents=True)
    mounts = plan_mounts([store / "engine", model, model / "part", model], [store])
    assert [(mount.path, mount.write) for mount in mounts] == [(store, True), (model, False)]


def test_a_checkpoint_of_links_brings_its_files_and_nothing_beside(tmp_path: Path) -> None:
    hub = tmp_path / "hub"
    blobs, snapshot = hub / "blobs", hub / "snapshots" / "rev"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (blobs / "weights").write_text("w")
    (blobs / "other").write_text("o")
    (snapshot / "model.safetensors").symlink_to("../../blobs/weights")
    (snapshot / "own").write_text("x")
    (snapshot / "again").symlink_to("own")
    (snapshot / "dangling").symlink_to("../../blobs/none")
    paths = [mount.path for mount in plan_mounts([snapshot], [])]
    assert paths == [snapshot, blobs / "weights"]
    # Through a link to the whole, ".." leads elsewhere inside, where no links are above.
    (tmp_path / "mine").symlink_to(snapshot)
    (_, outside) = plan_mounts([tmp_path / "mine"], [])
    assert (outside.source, outside.path) == (
        blobs / "weights",
        tmp_path.parent / "blobs/weights",
    )


def test_any_name_can_be_mounted() -> None:
    for name in ("/a,b", '/a"b', "/a:b", "/a b=c"):
        (mount,) = plan_mounts([Path(name)], [])
        (fields,) = csv.reader([str(mount)])
        assert fields == ["type=bind", f"source={name}", f"destination={name}", "ro"]


# What is run.


def _command(engine: str, *, gpus: bool = True) -> list[str]:
    return Container(engine, "image").command(
        ["/worker", "session"],
        name="workbench-1",
        variables={"A": "1,2"},
        readable=[WORKER],
        writable=[Path("/tmp")],
        gpus=gpus,
    )


def test_each_program_gets_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    docker, podman, apptainer = (
        " ".join(_command(engine)) for engine in ("docker", "podman", "apptainer")
    )
    assert "--gpus all" in docker
    assert "--device nvidia.com/gpu=all" in podman
    assert " --nv " in apptainer
    assert docker.endswith(" image /worker session")
    assert apptainer.endswith(" image python3 /worker session")
    for command in (docker, podman):
        assert "--ipc=host" in command
        assert "--entrypoint python3" in command
        assert "--env A=1,2" in command
    assert not [word for word in _command("docker", gpus=False) if "gpu" in word]
    assert "--nv" not in _command("apptainer", gpus=False)

    monkeypatch.setattr(os, "getuid", lambda: 1000)
    assert "--userns=keep-id" in _command("podman")
    assert "--user" in _command("docker")
    monkeypatch.setattr(os, "getuid", lambda: 0)
    # podman refuses keep-id for root.
    assert "--userns=keep-id" not in _command("podman")


def test_apptainer_takes_variables_from_its_environment() -> None:
    environment = Container("apptainer", "/x.sif").environment({"A": "1,2", "HOME": "/h"})
    assert environment["APPTAINERENV_A"] == "1,2"
    assert "APPTAINERENV_HOME" not in environment


def test_the_real_client_of_docker_understands_us() -> None:
    if shutil.which("docker") is None:
        pytest.skip("no docker here")
    nowhere = {**os.environ, "DOCKER_HOST": "unix:///nowhere/docker.sock"}
    answers = [
        subprocess.run(command, capture_output=True, text=True, env=nowhere, check=False).stderr
        for command in (_command("docker"), ["docker", "run", "--no-such-option", "image"])
    ]
    assert "unix:///nowhere/docker.sock" in answers[0]
    assert "unknown flag" in answers[1]


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("localhost", "127.0.0.1:8:8"),
        ("0.0.0.0", "0.0.0.0:8:8"),
        ("::1", "[::1]:8:8"),
        # What the system understands and docker does not, such as a name.
        ("127.1", "127.0.0.1:8:8"),
    ],
)
@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_a_port_is_published_at_the_address_that_was_asked_for(
    engine: str, host: str, shown: str
) -> None:
    command = Container(engine, "image").command(
        ["serve"],
        name="name",
        variables={},
        readable=[],
        writable=[],
        gpus=False,
        published=(host, 8),
    )
    assert command[command.index("--publish") + 1] == shown
    assert "--publish" not in _command(engine)


# Containers that run.


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The stand-in on PATH and chosen for openvino; returns the folder of its state."""
    state, programs = tmp_path / "state", tmp_path / "programs"
    for folder in (state, programs):
        folder.mkdir()
    program = programs / "docker"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {STANDIN} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("STANDIN_STATE", str(state))
    monkeypatch.setenv("STANDIN_PYTHON", sys.executable)
    monkeypatch.setenv("STANDIN_IMAGE", IMAGE)
    monkeypatch.setenv("WORKBENCH_TOOLCHAIN_OPENVINO", f"docker:{IMAGE}")
    return state


def _kills(state: Path) -> list[str]:
    return (state / "kills").read_text().split() if (state / "kills").exists() else []


def _containers(state: Path) -> list[Path]:
    """What the stand-in believes to be running."""
    return [path for path in state.iterdir() if path.name != "kills"]


def _is_gone(process: psutil.Process) -> bool:
    """Whether it has ended; where nobody takes orphans in, a zombie stays."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def _open(engine: Engine) -> Session:
    return Session(engine.path, "openvino", engine.manifest["limits"], find_toolchain("openvino"))


def test_versions_come_from_inside(docker: Path) -> None:
    versions = find_toolchain("openvino").require(("openvino",), "never asked for")
    assert versions == Toolchain(sys.executable).versions(("openvino",))
    with pytest.raises(
        ToolchainError, match=r"no-such is not installed for docker:.* Choose an im"
    ):
        find_toolchain("openvino").require(("no-such",), "never asked for")


def test_an_image_that_is_not_there_is_a_sentence(
    docker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STANDIN_IMAGE", "another")
    with pytest.raises(ToolchainError, match=rf"No such image: {IMAGE}\. .*docker pull {IMAGE}"):
        find_toolchain("openvino").versions(("openvino",))
    with pytest.raises(ToolchainError, match="ended with status 125 before it was running"):
        Worker(find_toolchain("openvino"), "session", subprocess.DEVNULL)


def test_a_session_streams_from_a_container(docker: Path, stocked: Engine) -> None:
    with _open(stocked) as session:
        inside = psutil.Process(session.pid)
        (container,) = _containers(docker)
        # The worker itself, not the program that started its container.
        assert inside.pid == int(container.read_text())
        assert (session.memory() or 0) > 50 << 20
        generation = session.generate("a", max_tokens=8, ignore_eos=True)
        assert "".join(delta.text for delta in generation) == generation.text
        assert len(generation.token_ids) == 8
    # It was asked, and went by itself.
    assert _is_gone(inside)
    assert _kills(docker) == []
    assert _containers(docker) == []


def test_a_worker_that_dies_inside_is_a_sentence_and_its_session_closes(
    docker: Path, stocked: Engine
) -> None:
    with _open(stocked) as session:
        session.generate("a", max_tokens=8, ignore_eos=True).wait()
        os.kill(session.pid, signal.SIGKILL)
        with pytest.raises(SessionError, match="worker"):
            session.generate("a", max_tokens=2000, ignore_eos=True).wait()
    assert _containers(docker) == []


def test_the_worker_inside_has_its_own_environment(
    docker: Path, stocked: Engine, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.setenv("TLLM_LOG_LEVEL", "INFO")
    monkeypatch.setenv("HF_TOKEN", "secret")
    with _open(stocked) as session:
        environment = psutil.Process(session.pid).environ()
    assert environment["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert environment["TLLM_LOG_LEVEL"] == "INFO"
    assert environment["HF_HUB_OFFLINE"] == "1"
    # torch asks for the name of the user, whom the image does not know.
    assert environment["USER"]
    assert Path(environment["HOME"]).is_relative_to(home)
    assert Path(environment["TORCHINDUCTOR_CACHE_DIR"]).is_relative_to(home)
    assert "HF_TOKEN" not in environment


def test_only_what_is_mounted_is_there(docker: Path, stocked: Engine, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(stocked.path, tmp_path / "elsewhere")
    with _open(Engine(elsewhere, stocked.manifest)) as session:
        assert session.generate([5], max_tokens=2).wait().token_ids
    order = {"op": "open", "backend": "openvino", "engine": str(elsewhere)}
    with (tmp_path / "log").open("wb") as log:
        worker = Worker(find_toolchain("openvino"), "session", log)
        worker.send(**order, limits=stocked.limits)
        *_, message = worker.messages()
        worker.close()
    assert message["event"] == "error"
    assert _containers(docker) == []


def test_a_build_runs_in_a_container(docker: Path, home: Path, tmp_path: Path) -> None:
    spec = make_spec(quantization="int8")
    assert get_backend(spec.backend).name == "openvino"
    output = home / "output"
    output.mkdir(parents=True)
    with (tmp_path / "log").open("wb") as log:
        worker = Worker(find_toolchain("openvino"), "build", log, mounts=[DEMO_MODEL])
        worker.send(
            backend="openvino",
            spec=spec.model_dump(mode="json"),
            model=str(DEMO_MODEL),
            output=str(output),
        )
        last = list(worker.messages())[-1]
        status = worker.close(patience=60)
    assert (last["event"], status) == ("done", 0), (tmp_path / "log").read_text()
    assert (output / "openvino_model.bin").stat().st_size > 0


def test_killing_the_worker_kills_the_container(docker: Path, stocked: Engine) -> None:
    session = _open(stocked)
    inside = psutil.Process(session.pid)
    session._worker.kill()
    _until(lambda: _is_gone(inside))
    assert _kills(docker)[0].startswith("workbench-")
    session.close()


def test_a_worker_that_hangs_is_killed_in_its_container(docker: Path, stocked: Engine) -> None:
    session = _open(stocked)
    inside = psutil.Process(session.pid)
    inside.suspend()
    assert session._worker.close(patience=0.3) < 0
    assert _is_gone(inside)
    assert len(_kills(docker)) >= 1
    session.close()


def test_a_crash_inside_is_told_with_its_signal(docker: Path, stocked: Engine) -> None:
    session = _open(stocked)
    generation = session.generate("a", max_tokens=250, ignore_eos=True)
    os.kill(session.pid, signal.SIGSEGV)
    with pytest.raises(SessionError, match=r"crashed \(signal 11\)"):
        generation.wait(10)
    session.close()


def test_without_the_program_that_started_it_the_container_ends(
    docker: Path, stocked: Engine
) -> None:
    session = _open(stocked)
    inside = psutil.Process(session.pid)
    inside.suspend()  # so that only a kill can end it
    os.kill(session._worker._process.pid, signal.SIGKILL)
    session.close()
    _until(lambda: _is_gone(inside))


def test_nothing_is_left_of_the_socket(
    docker: Path, stocked: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Too long for the address of a socket.
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with _open(stocked) as session:
        assert session.generate("a", max_tokens=2, ignore_eos=True).wait().token_ids
        (container,) = _containers(docker)
        assert list(deep.iterdir()) == []
        code = psutil.Process(int(container.read_text())).cmdline()[-1]
    path = code.partition("'--connect', '")[2].partition("'")[0]
    assert path.startswith("/tmp/workbench-")
    assert not Path(path).parent.exists()


def test_a_worker_that_comes_too_late_goes_quietly(tmp_path: Path) -> None:
    answer = subprocess.run(
        [sys.executable, str(WORKER), "session", "--connect", str(tmp_path / "gone")],
        capture_output=True,
        check=False,
    )
    assert (answer.returncode, answer.stderr) == (3, b"")
