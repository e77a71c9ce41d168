"""The declaration of the played backend: parameters as a TensorRT engine has them, no rule."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any, Literal

from workbench.backends.base import Backend, Command
from workbench.fit import BuildNeed, Fit, Part
from workbench.flags import words
from workbench.gpus import Gpu
from workbench.hardware import Device
from workbench.model import Model
from workbench.rules import Finding
from workbench.spec import BuildSpec, parameter

LIMITS = ("max_batch_size", "max_input_len", "max_output_len", "max_seq_len", "fault", "pace")


class FaultSpec(BuildSpec):
    """`seed`, `size` and the first three limits are compiled; the rest is no part of the key."""

    backend: Literal["fault"] = "fault"
    seed: int = parameter(0, ge=0, help="Decides the engine's content.", effect="compiled")
    size: int = parameter(5000, ge=0, help="Bytes of engine.bin.", effect="compiled")
    max_batch_size: int = parameter(4, ge=1, help="Requests at a time.", effect="compiled")
    max_input_len: int = parameter(64, ge=1, help="Longest prompt.", effect="compiled")
    max_seq_len: int = parameter(128, ge=2, help="Prompt plus output.", effect="compiled")
    max_output_len: int = parameter(64, ge=1, help="Longest output.")
    pace: float = parameter(0.0, ge=0.0, help="Seconds a step of a session takes.", unit="s")
    needs_memory: int = parameter(0, ge=0, help="Bytes of memory that a build is said to need.")
    needs_disk: int = parameter(0, ge=0, help="Bytes of disk that a build is said to need.")
    keeps_disk: int = parameter(0, ge=0, help="Bytes of disk that an engine is said to keep.")
    fault: str = parameter("", help="What goes wrong: JSON that `tests.faults.fault` makes.")


def _part(name: str, size: int) -> Part:
    return Part(name, size, size, exact=True, how="played")


def _fit(spec: BuildSpec, model: Model, device: Device) -> Fit:
    names = ("weights", "KV cache", "activations", "runtime")
    parts = [_part(name, 1 << 20) for name in names]
    return Fit(device, *parts, kv_tokens=1024, full_length_requests=8)


def _need(spec: BuildSpec, model: Model) -> BuildNeed:
    memory, disk = _part("memory", spec.needs_memory), _part("disk", spec.needs_disk)
    return BuildNeed(memory, disk, engine=spec.keeps_disk)


def _limits(spec: BuildSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in LIMITS}


def _findings(spec: BuildSpec, model: Model | None, gpus: Sequence[Gpu]) -> list[Finding]:
    return []


def _commands(spec: BuildSpec, model: Model | None) -> list[Command]:
    return [Command("build", shlex.join(["workbench", "build", *words(spec)]))]


BACKEND = Backend(
    name="fault",
    title="Played, with faults",
    about="Compiles nothing, and goes wrong where a test asks for it.",
    spec_class=FaultSpec,
    packages=("fault",),
    install="nothing: only tests have it",
    stages={"load": "load weights", "compile": "compile layers", "write": "write engine"},
    findings=_findings,
    fit=_fit,
    need=_need,
    limits=_limits,
    commands=_commands,
)
