"""Offers: the engines that are there already or are being built, for one who still chooses."""

from __future__ import annotations

from workbench import store
from workbench.build import (
    Build,
    Plan,
    built_for,
    covering,
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
    return [(engine, f"The engine {engine.key} is the one that you ask for.")]


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
    absolute = with_absolute_paths(spec, plan.model.path)
    request = {"spec": {}, "toolchain": toolchain.name, "smoke": smoke}
    job = running("build", wanted_by(absolute, request, versions, built_for(plan.backend)))
    return Build(absolute, job, None, "This very build runs already.") if job else None
