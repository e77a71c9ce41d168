"""What a backend is: its declaration, as the rest of the workbench uses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from workbench.fit import BuildNeed, Correct, Fit
from workbench.gpus import Gpu
from workbench.hardware import Device
from workbench.model import Model
from workbench.rules import Finding
from workbench.spec import BuildSpec


class Tracker(Protocol):
    """Reads what a step of a build prints."""

    def feed(self, line: str) -> list[dict[str, Any]]:
        """Return the events that a line means, such as {"event": "stage", "name": "write"}."""
        ...

    def reached(self, stage: str) -> None:
        """Take note of a stage that the worker itself reported."""
        ...

    def failure(self, status: int | None) -> str:
        """Return one sentence on why the step failed, or nothing when the log does not tell."""
        ...


@dataclass(frozen=True)
class Command:
    """A shell command that does a part of the work elsewhere, with a title for people."""

    title: str
    text: str


def no_order(spec: BuildSpec, model: Model, order: Mapping[str, Any]) -> dict[str, Any]:
    """Add nothing to what a worker is told."""
    del spec, model, order
    return {}


def no_obstacle(versions: Mapping[str, str | None]) -> str:
    """Find nothing wrong with any version."""
    del versions
    return ""


def always_runnable(spec: BuildSpec, gpus: Sequence[Gpu]) -> str:
    """Find no reason why an engine could not be loaded."""
    del spec, gpus
    return ""


Lister = Callable[[], Sequence[Gpu]]
"""Asks the driver for the GPUs that are here, as `workbench.gpus.list_gpus` does."""


def no_gpus(spec: BuildSpec, here: Lister) -> Sequence[Gpu]:
    """Take no GPU, and ask for none: that takes time, and a driver may be broken."""
    del spec, here
    return ()


def first_gpus(spec: BuildSpec, here: Lister) -> Sequence[Gpu]:
    """Take the first GPUs, as many as the spec needs and are there."""
    return here()[: gpus_needed(spec)]


def gpus_needed(spec: BuildSpec) -> int:
    """Return how many GPUs a spec takes, where its backend runs on GPUs.

    As many as it compiles on at the same time, or as the engine that is tried runs on.
    """
    return max(ranks(spec), int(getattr(spec, "workers", 1)))


def ranks(spec: BuildSpec) -> int:
    """Return how many devices an engine of a spec runs on: GPUs, or one processor."""
    return int(getattr(spec, "tp_size", 1)) * int(getattr(spec, "pp_size", 1))


def no_shapes(spec: BuildSpec, model: Model) -> dict[str, int | None]:
    """Find that no shape is compiled: one engine serves under all limits."""
    del spec, model
    return {}


@dataclass(frozen=True)
class Backend:
    """One way to compile and run a model.

    Attributes:
        name: Its name in specs and manifests.
        title: Its name for people.
        about: What compiling means here, in a sentence or two.
        spec_class: Its parameters.
        packages: Distributions whose versions are part of the engine key.
        install: The one command that gets them.
        stages: What its workers and their logs report, in order: name -> title.
        findings: Applies its rules; those that need the model or the GPUs only where there are any.
        fit: Estimates the memory of a session.
        corrected_fit: The same, with weights and activations corrected by what builds measured;
            None where builds tell nothing of them.
        need: Estimates what a build takes.
        limits: What a session gives to the runtime and enforces, as far as the spec decides it.
        commands: The shell commands that do the same elsewhere; also for a model that is not known.
        steps: The roles of the workers that compile, in order.
        order: What they are told beside spec, model and paths, given what they are told already.
        tracker: Makes the reader of what a step prints, given the step and the order; for the step
            "session" and an empty order, of what a session prints while it loads.
        obstacle: Says why a toolchain with these versions cannot do it, or nothing.
        uses_gpu: Whether it runs on NVIDIA GPUs, and on nothing else.
        takes: Those of the GPUs here that building and running a spec takes, given how to ask for
            them: what waits in their queues, is watched, and has to have room.
        compiles_for_gpu: Whether an engine belongs to the kind of GPU that it was built on.
        not_runnable: Says why an engine of a spec cannot be loaded here at all, or nothing.
        shapes: The compiled limits of which more serves as well, as far as they are asked for.
        lacks: Fields of `Sampling` that its sessions cannot do, each with the reason, as a
            sentence.
        scores: Whether its sessions can score a text.
        bound: Distributions that must have the very versions which built an engine to open it.
    """

    name: str
    title: str
    about: str
    spec_class: type[BuildSpec]
    packages: tuple[str, ...]
    install: str
    stages: Mapping[str, str]
    findings: Callable[[BuildSpec, Model | None, Sequence[Gpu]], list[Finding]]
    fit: Callable[[BuildSpec, Model, Device], Fit]
    need: Callable[[BuildSpec, Model], BuildNeed]
    limits: Callable[[BuildSpec], dict[str, Any]]
    commands: Callable[[BuildSpec, Model | None], list[Command]]
    corrected_fit: Callable[[BuildSpec, Model, Device, Correct], Fit] | None = None
    steps: tuple[str, ...] = ("build",)
    order: Callable[[BuildSpec, Model, Mapping[str, Any]], dict[str, Any]] = no_order
    tracker: Callable[[str, Mapping[str, Any]], Tracker] | None = None
    obstacle: Callable[[Mapping[str, str | None]], str] = no_obstacle
    uses_gpu: bool = False
    takes: Callable[[BuildSpec, Lister], Sequence[Gpu]] = no_gpus
    compiles_for_gpu: bool = False
    not_runnable: Callable[[BuildSpec, Sequence[Gpu]], str] = always_runnable
    shapes: Callable[[BuildSpec, Model], Mapping[str, int | None]] = no_shapes
    lacks: Mapping[str, str] = field(default_factory=dict)
    scores: bool = False
    bound: tuple[str, ...] = ()

    @property
    def can_use_gpus(self) -> bool:
        """Whether a spec of it may say that it runs on NVIDIA GPUs."""
        return self.takes is not no_gpus
