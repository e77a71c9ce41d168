"""Offers: the engines that are there already or are being built, for one who still chooses."""

from __future__ import annotations

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
from workbench.engine import Engine
from workbench.jobs import running
from workbench.spec import BuildSpec


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
    plan = Plan.make(spec)
    _, versions = toolchain_of(plan.backend)
    device = built_for(plan.backend)
    absolute = with_absolute_paths(spec, plan.model.path)
    identity = known_identity(plan, absolute, versions, device)
    engine = store.look_up(identity)[0] if identity else None
    if engine is None:
        return covering(spec, smoke=smoke)
    engine = engine.under(plan.backend.limits(absolute))
    suspicion = usage.suspicion(engine.key)
    return [(engine, f"The engine {engine.key} is the one that you ask for.{suspicion}")]


def missing(spec: BuildSpec) -> list[str]:
    """Return every field in which the nearest engine differs from that of a spec, one a line.

    Raises:
        ModelError: The model cannot be used.
        ToolchainError: The backend cannot run here.
    """
    plan = Plan.make(spec)
    _, versions = toolchain_of(plan.backend)
    absolute = with_absolute_paths(spec, plan.model.path)
    identity = known_identity(plan, absolute, versions, built_for(plan.backend))
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
    plan = Plan.make(spec)
    toolchain, versions = toolchain_of(plan.backend)
    device = built_for(plan.backend)
    spec = with_absolute_paths(spec, plan.model.path)
    identity = known_identity(plan, spec, versions, device)
    if identity is None or store.look_up(identity)[0]:
        return []
    request = {"spec": {}, "toolchain": toolchain.name, "smoke": smoke}
    if running("build", wanted_by(plan.model, spec, request, versions, device)):
        return []
    shapes = plan.backend.shapes(spec, plan.model)
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
    plan = Plan.make(spec)
    toolchain, versions = toolchain_of(plan.backend)
    absolute, device = with_absolute_paths(spec, plan.model.path), built_for(plan.backend)
    request = {"spec": {}, "toolchain": toolchain.name, "smoke": smoke}
    job = running("build", wanted_by(plan.model, absolute, request, versions, device))
    return Build(absolute, job, None, "This very build runs already.") if job else None
