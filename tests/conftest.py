"""Fixtures: a home of its own for each test, and engines of the demo model built once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import standin_nvml
from tests.contract.toolchain import make_toolchain
from tests.faults import Faulty, until
from workbench import shared, store
from workbench.backends import make_spec
from workbench.bench import run_trial
from workbench.build import DEMO_MODEL, start_build
from workbench.digests import cache_folder
from workbench.engine import Engine
from workbench.fingerprint import fingerprint
from workbench.session import Session
from workbench.toolchain import find_toolchain
from workbench.trial import Trial

# The tests start some hundred processes, each of which would compile all that it imports.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store; the user's own is never touched."""
    path = tmp_path / "home"
    monkeypatch.setenv("WORKBENCH_HOME", str(path))
    return path


@pytest.fixture
def faulty(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Faulty]:
    """A backend whose builds go wrong on request; see tests/faults."""
    faulty = Faulty.install(tmp_path / "faulty", monkeypatch)
    yield faulty
    faulty.kill_all()


@pytest.fixture
def clicking(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is somebody who clicks."""
    monkeypatch.setenv("WORKBENCH_HEADLESS", "0")


def close_all() -> None:
    """Close every session and endpoint that panels share."""
    for source, _ in shared.opened():
        until(lambda source=source: shared.release(source))


@pytest.fixture(scope="module")
def closed_at_the_end() -> Iterator[None]:
    """The tests of a module share what is open, as panels do; loading takes a second or more."""
    yield
    close_all()


H100 = "NVIDIA H100 80GB HBM3,9.0,85520809984,84000000000"


@pytest.fixture(scope="session")
def gpu_machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a machine with one H100 and TensorRT-LLM, both played by stand-ins.

    This process takes NVIDIA's library for there from now on; without these variables it says
    that there is no driver.
    """
    folder = tmp_path_factory.mktemp("gpu")
    library = standin_nvml.require_library(folder)
    standin_nvml.load(library)
    toolchain = str(make_toolchain(folder / "toolchain"))
    return {
        **standin_nvml.environment(library, H100),
        "WORKBENCH_TOOLCHAIN_TENSORRT_LLM": toolchain,
        "WORKBENCH_TOOLCHAIN_TENSORRT_LLM_TORCH": toolchain,
        "WORKBENCH_STANDIN_PACE": "0.1",
    }


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that lives as long as the test run, for engines that only are read.

    Processes of pytest-xdist share it: what two of them ask for is built once, as promised.
    """
    folder = tmp_path_factory.getbasetemp()
    return (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "shared"


@pytest.fixture(scope="session")
def build_engine(shared_home: Path) -> Callable[..., Engine]:
    """Build an engine into the shared store: `build_engine(quantization="int8")`."""

    def build(**values: object) -> Engine:
        before = os.environ.get("WORKBENCH_HOME")
        os.environ["WORKBENCH_HOME"] = str(shared_home)
        try:
            return start_build(make_spec(values)).wait()
        finally:
            if before is None:
                del os.environ["WORKBENCH_HOME"]
            else:
                os.environ["WORKBENCH_HOME"] = before

    return build


DEMO = {
    "quantization": "none",
    "max_batch_size": 2,
    "max_input_len": 64,
    "max_output_len": 256,
    "kv_cache_tokens": 640,
    "threads": 2,
}


@pytest.fixture(scope="session")
def demo_engine(build_engine: Callable[..., Engine]) -> Engine:
    """The demo model with float32 weights, and limits that tests can reach."""
    return build_engine(**DEMO)


@pytest.fixture(scope="session")
def int4_engine(build_engine: Callable[..., Engine]) -> Engine:
    """The demo model with its weights in int4."""
    return build_engine(quantization="int4")


@pytest.fixture
def stocked(home: Path, demo_engine: Engine) -> Engine:
    """The demo engine in the test's own store, which knows the weights as its builder did."""
    assert home in store.folder().parents
    return take(demo_engine)


def take(engine: Engine) -> Engine:
    """Copy an engine of the demo model into the store of a test, as if it had been built there."""
    shutil.copytree(engine.path, store.folder() / engine.key)
    fingerprint(DEMO_MODEL, cache_folder())
    return store.find_engine(engine.key)


@pytest.fixture(scope="session")
def demo_session(demo_engine: Engine) -> Iterator[Session]:
    """An open session of the demo engine, shared by tests that leave it as it was."""
    with open_session(demo_engine) as session:
        yield session


@pytest.fixture(scope="session")
def long_session(demo_engine: Engine) -> Iterator[Session]:
    """A session whose generations may take a second or two, for tests that come in between."""
    with open_session(demo_engine, max_output_len=1900, max_seq_len=1980, kv_blocks=130) as session:
        yield session


def open_session(engine: Engine, **limits: object) -> Session:
    """Load an engine wherever it is, with some limits changed."""
    toolchain = find_toolchain(engine.backend)
    return Session(engine.path, engine.backend, {**engine.limits, **limits}, toolchain)


@pytest.fixture(scope="session")
def measured_trials(demo_engine: Engine, shared_home: Path) -> list[Trial]:
    """Trials of the demo engine at one and at two streams, two repetitions each."""
    load = {"input_len": 8, "output_len": 6, "requests": 3, "warmup": 1, "repetitions": 2}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME", str(shared_home))
        return [
            run_trial(DEMO, {**load, "concurrency": streams}, again=False).require()
            for streams in (1, 2)
        ]
