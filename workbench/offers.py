"""Offers: the engines that are there already or are being built, for one who still chooses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from workbench import explanations, store, usage
from workbench.build import (
    Build,
    Plan,
    built_for,
    known_identity,
    toolchain_of,
    wanted_by,
    with_absolute_paths,
)
from workbench.engine import Engine, Identity
from workbench.jobs import Job, running
from workbench.spec import BuildSpec
from workbench.toolchain import Toolchain


@dataclass(frozen=True)
class _Wanted:
    """A spec and what else decides which engine is meant; nothing is read that takes long."""

    plan: Plan
    spec: BuildSpec
    toolchain: Toolchain
    versions: Mapping[str, str]
    device: Mapping[str, str]

    @classmethod
    def by(cls, spec: BuildSpec) -> Self:
        """Look at what a spec means here.

        Raises:
            ModelError: The model cannot be used.
            ToolchainError: The backend cannot run here.
        """
        plan = Plan.make(spec)
        absolute = with_absolute_paths(spec, plan.model.path)
        return cls(plan, absolute, *toolchain_of(plan.backend), built_for(plan.backend))

    def identity(self) -> Identity | None:
        """Return the identity of the engine; None where the weights were never read."""
        return known_identity(self.plan, self.spec, self.versions, self.device)

    def running(self, *, smoke: bool) -> Job | None:
        """Return the job that builds it at this moment."""
        request = {"spec": {}, "toolchain": self.toolchain.name, "smoke": smoke}
        wanted = wanted_by(self.plan.model, self.spec, request, self.versions, self.device)
        return running("build", wanted)


def already_built(spec: BuildSpec, *, smoke: bool = True) -> list[tuple[Engine, str]]:
    """Return the engine of a spec where it is there, else those that cover it; with a sentence.

    Nothing is read that takes long: weights that were never read match no engine.

    Args:
        spec: What is asked for.
        smoke: As in `start_build`.

    Raises:
        ModelError: The model cannot be used.
        ToolchainError: The backend cannot run here.
    """
    wanted = _Wanted.by(spec)
    identity = wanted.identity()
    engine = store.look_up(identity)[0] if identity else None
    if engine is None:
        return _covering(wanted, smoke=smoke)
    engine = engine.under(wanted.plan.backend.limits(wanted.spec))
    suspicion = usage.suspicion(engine.key)
    return [(engine, f"The engine {engine.key} is the one that you ask for.{suspicion}")]


def missing(spec: BuildSpec) -> list[str]:
    """Return every field in which the nearest engine differs from that of a spec, one a line.

    Raises:
        ModelError: The model cannot be used.
        ToolchainError: The backend cannot run here.
    """
    identity = _Wanted.by(spec).identity()
    found = explanations.nearest(identity, store.list_engines()) if identity else None
    if found is None or not found[1]:
        return []
    return [f"the nearest, {found[0].key}, differs in:", *(f"  {words}" for words in found[1])]


def covering(spec: BuildSpec, *, smoke: bool = True) -> list[tuple[Engine, str]]:
    """Return the engines that serve all that a spec asks for, with a sentence; the smallest first.

    They differ from it in nothing but their shapes. None where the engine itself is there or is
    being built, or where the weights were never read, so that nobody knows what they are.

    Raises:
        ModelError: The model cannot be used.
        ToolchainError: The backend cannot run here.
    """
    return _covering(_Wanted.by(spec), smoke=smoke)


def _covering(wanted: _Wanted, *, smoke: bool) -> list[tuple[Engine, str]]:
    identity = wanted.identity()
    if identity is None or store.look_up(identity)[0] or wanted.running(smoke=smoke):
        return []
    shapes = wanted.plan.backend.shapes(wanted.spec, wanted.plan.model)
    found = explanations.covering(identity, shapes, store.list_engines())
    return [(engine, explanations.covers_sentence(engine, shapes)) for engine in found]


def running_build(spec: BuildSpec, *, smoke: bool = True) -> Build | None:
    """Return the build of a spec that runs at this moment, to be followed; None without one.

    Args:
        spec: What is asked for.
        smoke: As in `start_build`.

    Raises:
        ModelError: The model cannot be used.
        ToolchainError: The backend cannot run here.
    """
    wanted = _Wanted.by(spec)
    job = wanted.running(smoke=smoke)
    return Build(wanted.spec, job, None, "This very build runs already.") if job else None
