"""Whether an earlier trial still stands: it measured what would be measured now.

A point is a spec and a workload. Weights, versions and the device can change beneath it, so a trial
counts as measured only where its engine is the one that would be used now (the key covers the
content of weights and files, the toolchain's versions, and the GPU that it was compiled for), on
the same device. A trial that cannot be repeated here, since its model or its GPU is gone, stands:
it is better than the failure that would take its place.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench import results
from workbench.backends import get_backend, make_spec
from workbench.build import built_for, key_values, read_model, toolchain_of, with_absolute_paths
from workbench.devices import gpus_of, needs_gpu
from workbench.digests import cache_folder
from workbench.engine import Identity
from workbench.errors import ModelError, ToolchainError, WorkbenchError
from workbench.fingerprint import fingerprint
from workbench.model import Model
from workbench.quality import Quality
from workbench.spec import BuildSpec
from workbench.surroundings import device_name
from workbench.trial import Trial


@dataclass(frozen=True)
class Demand:
    """Which of the trials that stand are taken in place of measuring once more.

    Attributes:
        retry_failed: None that failed or is invalid.
        again: None at all.
        begun: When this was asked for, in seconds since 1970. What was measured since then is
            taken whatever came out, so that work which was stopped goes on where it was.
        anywhere: Whether other machines may measure it: nobody knows here which devices they have.
    """

    retry_failed: bool = False
    again: bool = False
    begun: float = field(default_factory=time.time)
    anywhere: bool = False

    def takes(self, trial: Trial) -> bool:
        """Say whether a trial need not be measured once more."""
        if trial.created >= self.begun:
            return True
        return not self.again and (trial.valid or not self.retry_failed)


ANY = Demand()
"""Takes every trial that stands."""


@dataclass(frozen=True)
class Standing:
    """What is known of a point: the trial that is taken for it, if there is one.

    Attributes:
        trial: The newest that stands, where it is taken. One that failed before it had an engine
            only where no other stands.
        stale: In what the newest trial differs from now, where none stands.
        unsure: Why nobody can tell whether it does.
    """

    trial: Trial | None
    stale: str = ""
    unsure: str = ""


class Here:
    """What engines would be made of and run on here; each toolchain and model is asked once."""

    def __init__(self) -> None:
        self._versions: dict[str, dict[str, str]] = {}
        self._models: dict[tuple[str, str | None], Model] = {}

    def standing(
        self, point: str, spec: BuildSpec, quality: Quality, demand: Demand = ANY
    ) -> Standing:
        """Return what is known of a point. Weights that nobody has read since they changed are.

        Args:
            point: Its id.
            spec: What would be measured.
            quality: What its answers would be compared with.
            demand: Which trials are taken.
        """
        stale, without_engine = "", None
        for trial in results.trials_of(point):
            why, unsure = self._doubts(trial, spec, quality, anywhere=demand.anywhere)
            if why:
                stale = stale or why
                continue
            standing = Standing(trial if demand.takes(trial) else None, unsure=unsure)
            if "key" not in trial.record["engine"] and not trial.valid:
                without_engine = without_engine or standing
            else:
                return standing if standing.trial else without_engine or standing
        return without_engine or Standing(None, stale)

    def _doubts(
        self, trial: Trial, spec: BuildSpec, quality: Quality, *, anywhere: bool
    ) -> tuple[str, str]:
        """Return why a trial does not stand, and why nobody can tell whether it does."""
        try:
            differences = list(self._differences(trial, spec, quality))
            device = _device_difference(trial, spec)
        except WorkbenchError as error:
            return "", str(error)
        except OSError as error:
            return "", f"{error.filename or spec.model} cannot be read: {error.strerror}."
        if device and anywhere and not differences:
            return "", device
        return "; ".join([*differences, device] if device else differences), ""

    def _differences(self, trial: Trial, spec: BuildSpec, quality: Quality) -> Iterator[str]:
        """Yield in what a trial was measured otherwise than it would be now, but for the device.

        Raises:
            WorkbenchError: The model, the toolchain or the GPU is not here.
            OSError: A file that the spec names cannot be read.
        """
        engine = trial.record["engine"]
        then = (trial.record.get("environment") or {}).get("toolchain")
        if "key" not in engine:
            # Of a failure without an engine only this is known; early ones have not even that.
            if then is not None:
                yield from _version_differences(then, self.circumstances(spec)["toolchain"])
            return
        identity = self._identity(spec)
        if engine["key"] != identity.key:
            yield from _engine_differences(trial, identity)
        reference = (trial.record.get("quality") or {}).get("reference")
        if reference and quality.reference:
            now = self._identity(make_spec(quality.reference_of(spec))).key
            if reference != now:
                yield f"its reference was the engine {reference} and would be {now}"

    def _identity(self, spec: BuildSpec) -> Identity:
        """Return what would decide the engine of a spec.

        Raises:
            WorkbenchError: As `_differences`.
        """
        backend, name = get_backend(spec.backend), (spec.model, spec.revision)
        if name not in self._models:
            self._models[name] = read_model(spec)
        model = self._models[name]
        if model.path is None:
            raise ModelError(f"The weights of {model.source} are not on this machine.")
        values = key_values(with_absolute_paths(spec, model.path))
        weights = fingerprint(model.path, cache_folder())
        return Identity(values, weights, self._toolchain(spec.backend), built_for(backend))

    def circumstances(self, spec: BuildSpec) -> dict[str, Any]:
        """Return what a failure may be due to: versions and device, as a trial records them.

        What is missing is left out: that may be the very reason.
        """
        told: dict[str, Any] = {"toolchain": {}}
        with contextlib.suppress(ToolchainError):
            told["toolchain"] = self._toolchain(spec.backend)
        with contextlib.suppress(ToolchainError):
            told["device"] = device_name(gpus_of(spec))
        return told

    def _toolchain(self, backend: str) -> dict[str, str]:
        """Return the versions of a backend's packages.

        Raises:
            ToolchainError: It is missing.
        """
        if backend not in self._versions:
            self._versions[backend] = toolchain_of(get_backend(backend))[1]
        return self._versions[backend]


def _device_difference(trial: Trial, spec: BuildSpec) -> str:
    """Return on which other device a trial was measured, if on one.

    Raises:
        ToolchainError: It needs a GPU and there is none, or the driver does not answer.
    """
    gpus = gpus_of(spec)
    device = device_name(gpus)
    environment = trial.record.get("environment") or {}
    # A runtime that sees none of the GPUs which it was to take sees none of them now either.
    then = next(iter(environment.get("gpus") or ()), environment.get("device"))
    if then in (None, device):
        return ""
    if needs_gpu(spec) and not gpus:
        raise ToolchainError("It runs on an NVIDIA GPU, and none was found here.")
    return f"it was measured on {then}, and this is {device}"


def _version_differences(then: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """Yield, where packages have other versions than then, all of them in one line."""
    changed = {name: version for name, version in now.items() if then.get(name) != version}
    if changed:
        yield ", ".join(f"{n} was {then.get(n, 'missing')} and is {v}" for n, v in changed.items())


def _engine_differences(trial: Trial, identity: Identity) -> Iterator[str]:
    """Yield why the engine of a trial is not the one that would be measured now."""
    then = (trial.record.get("environment") or {}).get("toolchain") or {}
    changed = list(_version_differences(then, identity.toolchain)) if then else []
    yield from changed
    # Early records have no weights.
    if trial.record["engine"].get("weights", identity.weights) != identity.weights:
        yield "the model's weights or tokenizer were others"
    elif not changed:
        yield "its engine was made of other weights or files than are there now"
