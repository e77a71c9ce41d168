"""Builds: plan what will happen, start or attach to the job, and the recipe that it runs."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from workbench import files, store
from workbench.backends import get_backend, make_spec
from workbench.backends.base import Backend
from workbench.errors import JobError
from workbench.fingerprint import fingerprint, is_known
from workbench.hardware import Device, host
from workbench.jobs import HEARTBEAT, Job, Journal, View, attach_or_start
from workbench.memory import Fit
from workbench.model import Model
from workbench.rules import Finding, refuse
from workbench.sampling import Sampling
from workbench.session import Session
from workbench.spec import BuildSpec
from workbench.store import Engine, Identity
from workbench.toolchain import Toolchain, Worker, describe_exit, find_toolchain

DEMO_MODEL = Path(__file__).parent / "demo_model"
"""The model that ships with the workbench; `demo` as a model's name means this directory."""

STAGES = {
    "download": "download the model",
    "fingerprint": "fingerprint the weights",
    "smoke": "load and generate",
    "publish": "write to the store",
}
"""Stages around those of a backend's worker."""


@dataclass(frozen=True)
class Plan:
    """What is known about a build before anything is spent."""

    spec: BuildSpec
    backend: Backend
    model: Model
    device: Device
    findings: tuple[Finding, ...]
    fit: Fit

    @classmethod
    def make(cls, spec: BuildSpec) -> Plan:
        """Read the model's headers, apply the rules and estimate the memory.

        Raises:
            ModelError: The model is missing, damaged or not one that can be read.
        """
        backend = get_backend(spec.backend)
        model = read_model(spec)
        device = host()
        findings = tuple(backend.findings(spec, model))
        return cls(spec, backend, model, device, findings, backend.fit(spec, model, device))


def read_model(spec: BuildSpec) -> Model:
    """Read the model that a spec names.

    Raises:
        ModelError: As `Model.read`.
    """
    return Model.read(DEMO_MODEL if spec.model == "demo" else spec.model, spec.revision)


@dataclass(frozen=True)
class Build:
    """A build that runs, or the engine that was already there (then there is no job)."""

    spec: BuildSpec
    job: Job | None
    hit: Engine | None
    explanation: str

    def wait(self) -> Engine:
        """Wait for the engine.

        Raises:
            JobError: The build failed, was cancelled, or its process is gone.
        """
        if self.hit:
            return self.hit
        assert self.job is not None  # noqa: S101 - one of the two is always there
        return engine_of(self.job, self.job.wait())


def engine_of(job: Job, view: View) -> Engine:
    """Return the engine that a finished job published.

    Raises:
        JobError: It published none; says why.
    """
    state = view.state()
    if state == "done" and view.end:
        return store.find_engine(view.end["engine"])
    words = view.end.get("text", "") if view.end else ""
    if state == "killed":
        words = "Its process is gone without a last word; it was killed, perhaps for memory."
    raise JobError(words or f"The build {job.id} is {state}.")


def start_build(spec: BuildSpec, *, smoke: bool = True) -> Build:
    """Return the engine of a spec if it is there, else attach to its build or start one.

    Args:
        spec: What to build.
        smoke: Load the engine once and generate a few tokens before it is published.

    Raises:
        SpecError: A rule refuses the spec.
        ModelError: The model cannot be used.
        ToolchainError: The backend cannot run here.
        JobError: The job could not be started.
    """
    plan = Plan.make(spec)
    refuse(plan.findings)
    toolchain = find_toolchain(spec.backend)
    versions = toolchain.require(plan.backend.packages, plan.backend.install)
    path = plan.model.path
    if path and is_known(path, _fingerprints()):
        identity = Identity(spec.canonical(), fingerprint(path, _fingerprints()), versions)
        engine, explanation = store.look_up(identity)
        if engine:
            return Build(spec, None, engine, explanation)
    if path:
        # The job runs elsewhere: a relative path would mean another directory there.
        spec = spec.replace(model=str(path.absolute()))
    request = {"spec": spec.model_dump(mode="json"), "python": toolchain.python, "smoke": smoke}
    job, new = attach_or_start("build", request)
    # Why it was a miss stands in the job's journal.
    return Build(spec, job, None, "" if new else "This very build runs already.")


def open_engine(engine: Engine | str) -> Session:
    """Load an engine of the store; a key, or the beginning of one, names it too.

    Raises:
        StoreError: There is no such engine, or it is damaged.
        SessionError: It cannot be loaded.
    """
    if isinstance(engine, str):
        engine = store.find_engine(engine)
    toolchain = find_toolchain(engine.backend)
    return Session(engine.path, engine.backend, engine.manifest["limits"], toolchain)


# What follows runs in the job's own process.


def run_build(request: Mapping[str, Any], journal: Journal) -> dict[str, Any]:
    """Build and publish an engine; return the last word of the journal.

    Raises:
        WorkbenchError: With the sentence that the job ends on.
    """
    spec = make_spec(request["spec"])
    backend = get_backend(spec.backend)
    toolchain = Toolchain(request["python"])
    with _heartbeat(journal):
        source, model = _obtain(spec, journal)
        journal.stage("fingerprint", STAGES["fingerprint"])
        weights = fingerprint(source, _fingerprints(), _count_bytes(journal))
        versions = toolchain.require(backend.packages, backend.install)
        identity = Identity(spec.canonical(), weights, versions)
        engine, explanation = store.look_up(identity)
        journal.note(explanation)
        if engine:
            return {"engine": engine.key, "reused": True}
        temporary = files.temporary_name(store.folder(), identity.key)
        temporary.mkdir(mode=0o700)
        try:
            _compile(spec, backend, toolchain, source, temporary, journal)
            smoke = _smoke(spec, backend, toolchain, temporary, journal, request["smoke"])
            journal.stage("publish", STAGES["publish"])
            engine = store.publish(
                temporary, identity, _details(spec, backend, model, journal, smoke)
            )
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return {"engine": engine.key, "reused": False, "bytes": engine.bytes}


def _fingerprints() -> Path:
    return files.home() / "fingerprints"


def _obtain(spec: BuildSpec, journal: Journal) -> tuple[Path, Model]:
    """Return the local directory of the model, downloaded where it is only on the hub."""
    model = read_model(spec)
    if model.path is None:
        journal.stage("download", STAGES["download"])
        return model.download(), model
    return model.path, model


def _count_bytes(journal: Journal) -> Callable[[int, int], None]:
    """Return a callback that journals hashed megabytes, a few times a second."""
    last = 0.0

    def report(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 0.25:
            last = time.monotonic()
            journal.count("fingerprint", done >> 20, total >> 20, "MiB")

    return report


def _compile(
    spec: BuildSpec,
    backend: Backend,
    toolchain: Toolchain,
    source: Path,
    output: Path,
    journal: Journal,
) -> None:
    """Run the backend's worker and pass what it reports on to the journal.

    Raises:
        JobError: The worker refused, failed or died.
    """
    # Descriptor 1 is the job's log.
    worker = Worker(toolchain, "build", 1)
    finished = False
    try:
        worker.send(
            backend=spec.backend,
            spec=spec.model_dump(mode="json"),
            model=str(source),
            output=str(output),
        )
        for message in worker.messages():
            match message["event"]:
                case "stage":
                    name = message["name"]
                    journal.stage(name, backend.stages.get(name, name))
                case "count":
                    journal.count(
                        message["name"], message["done"], message["total"], message["unit"]
                    )
                case "done":
                    finished = True
                case "error":
                    raise JobError(_failure(message))
    except BaseException:
        worker.kill()
        raise
    finally:
        status = worker.close(patience=60.0)
    if not finished:
        raise JobError(f"The build's worker {describe_exit(status)}. The log has the details.")


def _failure(message: Mapping[str, Any]) -> str:
    text = str(message["message"])
    if message["expected"]:
        return text
    if "No space left on device" in text:
        raise OSError(28, "No space left on device")
    return f"The build failed in the toolchain: {text}. The log has the details."


def _smoke(
    spec: BuildSpec,
    backend: Backend,
    toolchain: Toolchain,
    directory: Path,
    journal: Journal,
    wanted: bool,
) -> dict[str, Any]:
    """Load the engine once and generate a few tokens, so that what is published has run."""
    if not wanted:
        return {"ran": False}
    journal.stage("smoke", STAGES["smoke"])
    sampling = Sampling(max_tokens=min(8, int(backend.limits(spec)["max_output_len"])))  # type: ignore[call-overload]
    with Session(directory, spec.backend, backend.limits(spec), toolchain) as session:
        generation = session.generate("a", sampling).wait()
        memory = session.memory()
    return {
        "ran": True,
        "tokens": len(generation.token_ids),
        "load_seconds": session.facts["seconds"],
        "memory_bytes": memory,
    }


def _details(
    spec: BuildSpec, backend: Backend, model: Model, journal: Journal, smoke: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the manifest carries beside identity and files."""
    view = Job(journal.path).view()
    now = time.time()
    return {
        "model": {
            "name": Path(spec.model).name if model.path else spec.model,
            "source": spec.model,
            "revision": spec.revision,
            "architecture": model.architecture,
            "parameters": model.parameters,
        },
        "limits": backend.limits(spec),
        "build": {
            "job": journal.path.name,
            "stages": [
                {"name": stage.name, "title": stage.title, "seconds": stage.seconds(now)}
                for stage in view.stages.values()
            ],
            "peak_memory_bytes": view.facts.get("peak_memory_bytes"),
            "smoke": dict(smoke),
        },
    }


@contextlib.contextmanager
def _heartbeat(journal: Journal) -> Iterator[None]:
    """Journal a sign of life and the memory of all processes of the job, while it runs."""
    stop = threading.Event()

    def beat() -> None:
        peak = 0
        while not stop.wait(HEARTBEAT if peak else 0.2):
            memory = _tree_memory()
            peak = max(peak, memory)
            journal.fact(memory_bytes=memory, peak_memory_bytes=peak)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _tree_memory() -> int:
    """Return the resident memory of this process and its descendants, in bytes."""
    me = psutil.Process()
    total = 0
    for process in [me, *me.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            total += process.memory_info().rss
    return total

