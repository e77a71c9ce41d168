"""What a build job does, from the model to the published engine, in its own process."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import engine_history, explanations, files, history, store
from workbench.backends import get_backend, make_spec
from workbench.backends.base import Backend
from workbench.build import built_for, key_values, read_model
from workbench.compilation import Compilation
from workbench.devices import device_of
from workbench.digests import cache_folder
from workbench.engine import Engine, Identity, read_engine
from workbench.errors import JobError, ModelError
from workbench.eviction import evict, keep_budget, make_room, spare, sweep, why_kept
from workbench.fingerprint import fingerprint
from workbench.gpus import Gpu, list_gpus
from workbench.guard import check_now
from workbench.heartbeat import heartbeat
from workbench.jobs import Job
from workbench.journal import WAIT, Journal
from workbench.model import Model
from workbench.owner import boot
from workbench.queues import Place, Slot, processor, turn
from workbench.sampling import Sampling
from workbench.session import Session
from workbench.spec import BuildSpec
from workbench.toolchain import Toolchain

STAGES = {
    "download": "download the model",
    "fingerprint": "fingerprint the weights",
    "room": "make room in the store",
    "smoke": "load and generate",
    "publish": "write to the store",
}
"""Stages around those of a backend's worker."""


_JOB_LOG = os.fdopen(1, "ab", closefd=False)
"""What this process prints goes into the job's log."""


def stage_order(backend: Backend) -> list[str]:
    """Return the names of all stages that a build may have, in their order."""
    before, after = ("download", "fingerprint", "room"), ("smoke", "publish")
    return [*before, *backend.stages, *after]


def run_build(journal: Journal) -> dict[str, Any]:
    """Build and publish an engine; return the last word of the journal.

    Raises:
        WorkbenchError: With the sentence that the job ends on.
        OSError: The system refused something, such as room on the disk.
    """
    request = Job(journal.path).request
    spec = make_spec(request["spec"])
    again = bool(request.get("again"))
    toolchain = Toolchain.parse(request["toolchain"])
    work = _Work(spec, get_backend(spec.backend), toolchain, journal, again)
    with heartbeat(journal, work.gpus):
        model, source = work.obtain()
        identity = work.identify(source)
        engine, explanation = store.look_up(identity)
        journal.note(explanation)
        if engine and not again:
            return {"engine": engine.key, "reused": True}
        if engine:
            work.check_replaceable(engine.key)
            journal.note("It is built again, as was asked for, and then replaced.")
        elif found := explanations.nearest(identity, store.list_engines()):
            # All of them; the note names the first ones only.
            journal.fact(nearest=found[0].key, differences=found[1])
        work.tell_covering(model, identity)
    with work.turn() as waited:
        if waited:
            journal.stage("room", STAGES["room"])
        with heartbeat(journal, work.gpus):
            # Somebody else may have built it meanwhile.
            engine = store.look_up(identity)[0]
            if engine and not again:
                journal.note(f"The engine {engine.key} was published meanwhile.")
                return {"engine": engine.key, "reused": True}
            work.make_room(model, identity, smoke=request["smoke"])
            engine = work.build(model, source, identity, smoke=request["smoke"])
        view, device = Job(journal.path).view(), work.device
        history.record(engine, view, device)
        engine_history.record(engine, work.spec, model, view.facts, device)
    return {"engine": engine.key, "reused": False, "bytes": engine.bytes}


def slots(backend: Backend, spec: BuildSpec) -> list[Slot]:
    """Return the devices that a build takes: the processor, or GPUs."""
    gpus = backend.takes(spec, list_gpus)
    if not gpus and not backend.uses_gpu:
        return [processor()]
    # A ticket from before a restart of the machine is in nobody's way.
    return [Slot(f"{gpu.uuid}-{boot()[:8]}", f"GPU {gpu.index} ({gpu.name})") for gpu in gpus]


@dataclass(frozen=True)
class _Work:
    """One build: what to make, where its code runs, and where it is written down.

    `again` says that an engine which is there shall be replaced.
    """

    spec: BuildSpec
    backend: Backend
    toolchain: Toolchain
    journal: Journal
    again: bool = False

    def obtain(self) -> tuple[Model, Path]:
        """Return the model and its local directory, downloaded where it is only on the hub."""
        model = read_model(self.spec)
        if model.path is None:
            self.journal.stage("download", STAGES["download"])
        return model, model.download()

    def identify(self, source: Path) -> Identity:
        """Return what decides the engine; reads the weights where they are not known yet."""
        self.journal.stage("fingerprint", STAGES["fingerprint"])
        weights = fingerprint(source, cache_folder(), self._count_bytes())
        versions = self.toolchain.require(self.backend.packages, self.backend.install)
        return Identity(key_values(self.spec), weights, versions, built_for(self.backend))

    def _count_bytes(self) -> Callable[[int, int], None]:
        """Return a callback that journals hashed megabytes, a few times a second."""
        last = 0.0

        def report(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last > 0.25 or done == total:
                last = time.monotonic()
                self.journal.count("fingerprint", done >> 20, total >> 20, "MiB")

        return report

    @property
    def device(self) -> str:
        """Name of what this is built on."""
        return device_of(self.backend, self.gpus()).name

    def gpus(self) -> Sequence[Gpu]:
        """Return the GPUs that it takes, as they are now."""
        return self.backend.takes(self.spec, list_gpus)

    def make_room(self, model: Model, identity: Identity, *, smoke: bool) -> None:
        """Keep the store in its budget; refuse where not even the least that is needed is free.

        Raises:
            JobError: With the numbers.
        """
        sweep()
        key = identity.key  # what is there of it stays until it is replaced
        try:
            need, gpus = self.backend.need(self.spec, model), self.gpus()
        except ModelError:  # what it needs is not known: it may work
            make_room(keep=key, tell=self.journal.note)
            return
        if not smoke or self.backend.not_runnable(self.spec, gpus):
            need = need.untried
        # First what no eviction can help, so that no engine goes for a build that is refused.
        check_now(self.journal, need, gpus, spare=spare(need.engine, keep=key))
        make_room(extra=need.engine, keep=key, tell=self.journal.note)
        check_now(self.journal, need, gpus)

    def check_replaceable(self, key: str) -> None:
        """Refuse to build an engine again that may not be removed, before anything is spent.

        Raises:
            JobError: Says why it may not.
        """
        if why := why_kept(key):
            raise JobError(f"The engine {key} is not built again: {why}.")

    def tell_covering(self, model: Model, identity: Identity) -> None:
        """Note an engine that would do: whoever watches may cancel and take it."""
        shapes = self.backend.shapes(self.spec, model)
        for engine in explanations.covering(identity, shapes, store.list_engines())[:1]:
            self.journal.note(explanations.covers_sentence(engine, shapes))

    @contextlib.contextmanager
    def turn(self) -> Iterator[bool]:
        """Keep the devices of this build, once it is its turn; yield whether it had to wait."""
        waited = False

        def report(slot: Slot, place: Place) -> None:
            nonlocal waited
            if not waited:
                self.journal.stage(WAIT, f"wait for {slot.title}")
            waited = True
            self.journal.fact(queue=place.record(slot))

        with contextlib.ExitStack() as turns:
            # In one order, so that no two builds wait for each other.
            for slot in sorted(slots(self.backend, self.spec), key=lambda slot: slot.name):
                turns.enter_context(
                    turn(slot, self.journal.path.name, functools.partial(report, slot))
                )
            yield waited

    def build(self, model: Model, source: Path, identity: Identity, *, smoke: bool) -> Engine:
        """Compile, try and publish an engine; nothing half done is left."""
        temporary = files.temporary_name(store.folder(), self.journal.path.name)
        try:
            temporary.mkdir(mode=0o700)
            built = self.compile(model, source, temporary)
            if not any(path.is_file() for path in temporary.rglob("*")):
                raise JobError(
                    "The toolchain said that it was done, and wrote no file. The log has the "
                    "details; `workbench doctor` shows the versions."
                )
            limits = self.backend.limits(self.spec) | built["limits"]
            tried = self.try_smoke(temporary, source, limits, wanted=smoke)
            self.journal.stage("publish", STAGES["publish"])
            details = self.details(model, limits, built["facts"], tried)
            if self.again and read_engine(store.folder() / identity.key):
                evict(identity.key)
            engine = store.publish(temporary, identity, details)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        keep_budget(engine, tell=self.journal.note)
        return engine

    def compile(self, model: Model, source: Path, output: Path) -> dict[str, Any]:
        """Run the backend's steps; see `Compilation.run`.

        What one step leaves for the next is gone afterwards.
        """
        between = files.make_folder(output / ".between")
        order = {
            "backend": self.spec.backend,
            "spec": self.spec.model_dump(mode="json"),
            "model": str(source),
            "output": str(output),
            "between": str(between),
            "reads": [str(path) for paths in self.spec.local_paths().values() for path in paths],
            "cache": str(files.make_folder(files.home() / "cache")),
        }
        order |= self.backend.order(self.spec, model, order)
        try:
            return Compilation(self.backend, self.toolchain, self.journal, self._disk(model)).run(
                order
            )
        finally:
            shutil.rmtree(between, ignore_errors=True)

    def _disk(self, model: Model) -> int:
        """Return the least bytes that the build writes; 0 where nobody knows."""
        try:
            return self.backend.need(self.spec, model).disk.low
        except ModelError:
            return 0

    def try_smoke(
        self, directory: Path, source: Path, limits: Mapping[str, Any], *, wanted: bool
    ) -> dict[str, Any]:
        """Run the smoke stage unless it is not wanted or cannot be; the manifest says which."""
        if not wanted:
            return {"ran": False, "why": "it was switched off"}
        gpus = list_gpus() if self.backend.uses_gpu else ()
        if why := self.backend.not_runnable(self.spec, gpus):
            self.journal.note(f"The engine is published without having been run: {why}")
            return {"ran": False, "why": why}
        return self.smoke(directory, source, limits)

    def smoke(self, directory: Path, source: Path, limits: Mapping[str, Any]) -> dict[str, Any]:
        """Load the engine once and generate a few tokens, so that what is published has run.

        Raises:
            SessionError: It does not load.
            RequestError: It does not generate.
        """
        self.journal.stage("smoke", STAGES["smoke"])
        # A prompt of one token, and as many as fit into the narrowest limits.
        room = min(8, int(limits["max_output_len"]), int(limits["max_seq_len"]) - 1)
        sampling = Sampling(max_tokens=room, ignore_eos=True)
        with tempfile.TemporaryFile() as log:
            try:
                with Session(
                    directory, self.spec.backend, limits, self.toolchain, log=log, mounts=[source]
                ) as session:
                    generation = session.generate([0], sampling).wait()
                    memory = session.memory()
            finally:
                log.seek(0)
                shutil.copyfileobj(log, _JOB_LOG)
                _JOB_LOG.flush()
        return {
            "ran": True,
            "tokens": len(generation.token_ids),
            "load_seconds": session.facts["seconds"],
            "memory_bytes": memory,
        }

    def details(
        self,
        model: Model,
        limits: Mapping[str, Any],
        facts: Mapping[str, Any],
        smoke: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Return what the manifest carries beside identity and files."""
        view = Job(self.journal.path).view()
        now = time.time()
        source = self.spec.model
        return {
            "model": {
                "name": Path(source).name if Path(source).is_dir() else source,
                "source": source,
                "revision": self.spec.revision,
                "architecture": model.architecture,
                "parameters": model.parameters,
            },
            "limits": dict(limits),
            "facts": dict(facts),
            "build": {
                "job": self.journal.path.name,
                "stages": [
                    {"name": stage.name, "title": stage.title, "seconds": stage.seconds(now)}
                    for stage in view.stages.values()
                    # The last one ends with the manifest on the disk; waiting is no work.
                    if stage.name not in ("publish", WAIT)
                ],
                "peak_memory_bytes": view.facts.get("peak_memory_bytes"),
                "smoke": dict(smoke),
            },
        }
