"""Builds: plan what will happen, find the engine, or start the job or attach to it.

What the job then does stands in `workbench.recipe`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench import explanations, guard, store, usage
from workbench.backends import get_backend, make_spec
from workbench.backends.base import Backend, Lister
from workbench.correction import corrected_need
from workbench.devices import device_of
from workbench.digests import cache_folder
from workbench.engine import Engine, Identity
from workbench.errors import JobError, ModelError, ToolchainError
from workbench.eviction import sweep
from workbench.files import read_end
from workbench.fingerprint import content_of, fingerprint, is_known
from workbench.fit import BuildNeed, Fit
from workbench.gpus import Gpu, list_gpus
from workbench.hardware import Device
from workbench.jobs import Job, attach_or_start, take_over
from workbench.journal import State, View, append
from workbench.model import Model
from workbench.rules import Finding, refuse
from workbench.session_history import expected_fit
from workbench.spec import BuildSpec
from workbench.store import list_engines
from workbench.toolchain import Toolchain, find_toolchain

DEMO_MODEL = Path(__file__).parent / "demo_model"
"""The model that ships with the workbench; `demo` as a model's name means this directory."""

DEMO = "demo"


@dataclass(frozen=True)
class Plan:
    """What is known about a build before anything is spent."""

    spec: BuildSpec
    backend: Backend
    model: Model
    device: Device
    gpus: tuple[Gpu, ...]
    findings: tuple[Finding, ...]
    fit: Fit | None
    need: BuildNeed | None
    room: tuple[Finding, ...] = ()
    """Those of the findings that say what this machine, or the GPU that is planned for, lacks; an
    engine that is there needs none of it."""

    @property
    def expected_need(self) -> BuildNeed | None:
        """What the build needs, corrected by past builds like it."""
        if self.need is None:
            return None
        quantization = str(getattr(self.spec, "quantization", "") or "")
        family = (self.backend.name, quantization, self.model.parameters, self.device.name)
        return corrected_need(self.need, *family)

    def check_rules(self) -> None:
        """Refuse what cannot work on any machine.

        Raises:
            SpecError: With one line for each refusal.
        """
        refuse(finding for finding in self.findings if finding not in self.room)

    @classmethod
    def make(
        cls,
        spec: BuildSpec,
        gpus: Sequence[Gpu] | None = None,
        model: Model | None = None,
        here: Lister = list_gpus,
    ) -> Plan:
        """Read the model's headers, apply the rules, and estimate memory and disk.

        Args:
            spec: What would be built.
            gpus: Those to plan for, by default this machine's. A spec that runs on the processor
                takes none of them.
            model: That of the spec, where it was read already.
            here: Asks for the GPUs of this machine.

        Raises:
            ModelError: The model is missing, damaged or not one that can be read.
        """
        backend = get_backend(spec.backend)
        model = model or read_model(spec)
        there = here if gpus is None else lambda: gpus
        seen = tuple(there() if backend.uses_gpu else backend.takes(spec, there))
        device = device_of(backend, seen)
        findings = backend.findings(spec, model, seen)
        fit, need = None, None
        room = guard.weightless(model)
        try:
            fit, need = expected_fit(spec, model, device), backend.need(spec, model)
        except ModelError as error:
            # It may work all the same; only nobody can say how much memory it takes.
            findings.append(Finding("warn", "model", "its memory is not known.", str(error)))
        else:
            if not seen and not backend.uses_gpu:
                need = replace(need, device=None)
            if backend.not_runnable(spec, seen):
                need = need.untried
            elsewhere = any(gpu.is_planned for gpu in seen)
            room += guard.findings(need, fit, seen, elsewhere=elsewhere)
            fit = fit.from_configuration() if model.counted_from == "configuration" else fit
        findings += room
        return cls(spec, backend, model, device, seen, tuple(findings), fit, need, tuple(room))


def read_model(spec: BuildSpec) -> Model:
    """Read the model that a spec names.

    Raises:
        ModelError: As `Model.read`.
    """
    if spec.model == DEMO:
        return Model.read(DEMO_MODEL)
    return Model.read(spec.model, spec.revision)


@dataclass(frozen=True)
class Build:
    """A build that runs, or the engine that was already there (then there is no job)."""

    spec: BuildSpec
    job: Job | None
    hit: Engine | None
    explanation: str

    def cancel(self) -> None:
        """Stop the build and everything that it started; a hit has nothing to stop.

        Raises:
            JobError: The job runs on another host.
        """
        if self.job:
            cancel(self.job)

    def wait(self) -> Engine:
        """Wait for the engine.

        When the process of the build dies without a last word, one of those who wait starts it
        once more; the others wait for that one. Not where memory was short: it would die again.

        Raises:
            JobError: The build failed, was cancelled, or its process is gone a second time.
        """
        if self.hit:
            return self.hit
        assert self.job is not None  # noqa: S101 - one of the two is always there
        job, view = self.job, self.job.wait()
        if after := successor(job, view):
            job, view = after, after.wait()
        return engine_of(job, view, self.spec)


def cancel(job: Job) -> State:
    """Stop a job as `Job.cancel`; what its runner could not tidy up any more is removed.

    Raises:
        JobError: The job runs on another host.
    """
    state = job.cancel()
    sweep()
    return state


def successor(job: Job, view: View) -> Job | None:
    """Return the attempt that takes over from a job whose process died without a last word.

    Of all who ask exactly one starts it. None where it ended otherwise, where memory was short (it
    would die again), or where it could not even start and says why.

    Args:
        job: The job.
        view: Of it, brought up to date.

    Raises:
        JobError: The job is damaged, or the next one could not be started.
    """
    if view.state() != "killed" or guard.memory_was_short(view.facts):
        return None
    if view.owner is None and log_tail(job.log):
        return None
    after, new = take_over(job)
    if new:
        with contextlib.suppress(OSError):  # it runs, also where the disk takes no note
            append(after.path, "note", text=f"Takes over from {job.id}, whose process is gone.")
    return after


def engine_of(job: Job, view: View, spec: BuildSpec | None = None) -> Engine:
    """Return the engine that a finished job published, under the limits of a spec.

    Args:
        job: The job.
        view: Of it, brought up to date.
        spec: Whose limits; by default the spec that the job was started with.

    Raises:
        JobError: It published none; says why.
    """
    state = view.state()
    if state == "done" and view.end and "engine" in view.end:
        spec = spec or make_spec(job.request["spec"])
        return store.find_engine(str(view.end["engine"])).under(
            get_backend(spec.backend).limits(spec)
        )
    words = view.end.get("text", "") if view.end else ""
    if state == "killed" and view.owner is None:
        words = f"The build's process did not start. {log_tail(job.log)}"
    elif state == "killed":
        words = guard.last_words(view.facts)
    raise JobError(words or f"The build {job.id} is {state}.")


def log_tail(log: Path) -> str:
    """Return the last line of a log as a sentence, or nothing."""
    lines = read_end(log, 16_384).strip().splitlines()
    return f"Its last words: {lines[-1]}" if lines else ""


def start_build(
    spec: BuildSpec | Mapping[str, Any],
    *,
    smoke: bool = True,
    accept_covering: bool = False,
    again: bool = False,
) -> Build:
    """Return the engine of a spec if it is there, else attach to its build or start one.

    Args:
        spec: What to build; plain values are made into a spec first.
        smoke: Load the engine once and generate a few tokens before it is published.
        accept_covering: Take an engine that was built for larger shapes instead, where there is
            one; see `offers.covering`.
        again: Build it also where it is there, as one that crashes; it is replaced when the new
            one is complete, and must not be pinned or in use.

    Raises:
        SpecError: A rule refuses the spec.
        ModelError: The model cannot be used.
        ToolchainError: The backend cannot run here.
        JobError: The job could not be started.
    """
    if not isinstance(spec, BuildSpec):
        spec = make_spec(spec)
    sweep()  # what the dead have left is no reason to refuse
    plan = Plan.make(spec)
    plan.check_rules()
    toolchain, versions = toolchain_of(plan.backend)
    device = built_for(plan.backend)
    spec = with_absolute_paths(spec, plan.model.path)
    identity = known_identity(plan, spec, versions, device)
    if identity and not again:
        engine, explanation = store.look_up(identity)
        if engine:
            usage.touch(engine.key)
            engine = engine.under(plan.backend.limits(spec))
            return Build(spec, None, engine, explanation + _loaded_otherwise(engine))
        shapes = plan.backend.shapes(spec, plan.model)
        found = explanations.covering(identity, shapes, list_engines()) if accept_covering else []
        if larger := next((engine for engine in found if not engine.damage()), None):
            usage.touch(larger.key)
            explanation = explanations.covers_sentence(larger, shapes)
            return Build(spec, None, larger.under(plan.backend.limits(spec)), explanation)
    refuse(plan.room)
    request = {"spec": spec.model_dump(mode="json"), "toolchain": toolchain.name, "smoke": smoke}
    request |= {"again": True} if again else {}
    job, new = attach_or_start(
        "build", request, wanted_by(plan.model, spec, request, versions, device)
    )
    # Why it was a miss stands in the job's journal.
    return Build(spec, job, None, "" if new else _attached(job))


def wanted_by(
    model: Model,
    spec: BuildSpec,
    request: Mapping[str, Any],
    versions: Mapping[str, str],
    device: Mapping[str, str],
) -> dict[str, Any]:
    """Return what tells builds apart: one who wants other limits only waits for the same job."""
    # One of the hub is the same before and after its job has downloaded it.
    name = {"model": model.source, "revision": model.commit} if model.commit else {}
    values = {**key_values(spec), "model": spec.model, "revision": spec.revision, **name}
    return {**request, "spec": values, "versions": versions, "device": device}


def known_identity(
    plan: Plan, spec: BuildSpec, versions: Mapping[str, str], device: Mapping[str, str]
) -> Identity | None:
    """Return what decides the engine, or None where the weights would have to be read first."""
    path = plan.model.path
    if path is None or not is_known(path, cache_folder()):
        return None
    return Identity(key_values(spec), fingerprint(path, cache_folder()), versions, device)


def with_absolute_paths(spec: BuildSpec, model: Path | None) -> BuildSpec:
    """Return a spec that means the same in another directory, where its job runs."""
    changes = {
        name: ",".join(str(path.expanduser().absolute()) for path in paths)
        for name, paths in spec.local_paths().items()
    }
    if model:
        changes["model"] = str(model.absolute())
    return spec.replace(**changes)


def key_values(spec: BuildSpec) -> dict[str, Any]:
    """Return what of a spec decides the engine, with the content of what it names by a path.

    Raises:
        InputError: Something that it names is not there.
    """
    values = spec.canonical()
    for name, paths in spec.local_paths().items():
        values[name] = [content_of(name, path) for path in paths]
    return values


def toolchain_of(backend: Backend) -> tuple[Toolchain, dict[str, str]]:
    """Return where a backend runs, and the versions of its packages there.

    Raises:
        ToolchainError: It is missing, or lacks what the backend needs; with the way to get it.
    """
    toolchain = find_toolchain(backend.name)
    versions = toolchain.versions(backend.packages)
    if obstacle := backend.obstacle(versions):
        raise ToolchainError(f"{obstacle} (The toolchain is {toolchain.name}.)")
    return toolchain, toolchain.require(backend.packages, backend.install, versions)


def built_for(backend: Backend) -> dict[str, str]:
    """Return what an engine of this backend belongs to on this machine; empty for a processor.

    TensorRT refuses a plan of another compute capability, and advises against one of another GPU.

    Raises:
        ToolchainError: The backend needs an NVIDIA GPU and there is none.
    """
    if not backend.uses_gpu:
        return {}
    gpus = list_gpus()
    if not gpus:
        raise ToolchainError(
            f"The backend {backend.name} needs an NVIDIA GPU, and none was found here. Build on "
            "a machine that has one (`workbench doctor` says what is missing; Show commands gives "
            "the commands for elsewhere), or use the backend openvino."
        )
    if not backend.compiles_for_gpu:
        return {}
    major, minor = gpus[0].compute_capability
    return {"name": gpus[0].name, "compute capability": f"{major}.{minor}"}


def _loaded_otherwise(engine: Engine) -> str:
    """Say which limits of a hit are not those that it was built with, as a sentence."""
    if not engine.asked:
        return ""
    values = ", ".join(f"{name} {value}" for name, value in engine.asked.items())
    return f" What only counts when it is loaded is taken from your parameters: {values}."


def _attached(job: Job) -> str:
    view = job.view()
    if view.state() != "silent" or view.owner is None:
        return "This very build runs already."
    return (
        f"This very build was started on {view.owner.host}, and gives no sign of life. To give "
        f"it up: workbench jobs cancel {job.id}"
    )
