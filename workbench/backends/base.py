"""What a backend is: its declaration, as the rest of the workbench uses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from workbench.fit import BuildNeed, Fit
from workbench.hardware import Device
from workbench.model import Model
from workbench.rules import Finding
from workbench.spec import BuildSpec


@dataclass(frozen=True)
class Backend:
    """One way to compile and run a model.

    `packages` are the distributions whose versions are part of the engine key; `install` is the
    one command that gets them; `stages` names what its worker reports, in order. `findings`
    applies its rules, `fit` estimates the memory of a session and `need` what a build takes;
    `limits` are the values that a session gives to the runtime and enforces.
    """

    name: str
    title: str
    spec_class: type[BuildSpec]
    packages: tuple[str, ...]
    install: str
    stages: Mapping[str, str]
    findings: Callable[[BuildSpec, Model | None], list[Finding]]
    fit: Callable[[BuildSpec, Model, Device], Fit]
    need: Callable[[BuildSpec, Model], BuildNeed]
    limits: Callable[[BuildSpec], dict[str, Any]]
