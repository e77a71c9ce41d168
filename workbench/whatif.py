"""What-if: the memory of a plan while one limit of it changes and the others stay."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from functools import cached_property

from workbench.build import Plan
from workbench.errors import WorkbenchError
from workbench.fit import Fit
from workbench.session_history import estimator
from workbench.spec import parameters_of

LIMITS = ("max_batch_size", "max_seq_len", "max_num_tokens")
"""The parameters that decide about memory at run time."""

HALVED, DOUBLED = 7, 4
"""How often a value is halved and doubled around the current one: 12 points with it."""


@dataclass(frozen=True)
class Curve:
    """The fits of a plan over the values of one parameter, in rising order.

    Attributes:
        parameter: Its name.
        current: The value that the plan has.
        values: From a 128th of the current value to 16 times as much, in factors of two, as far
            as the parameter and the model's context allow.
        fits: One for each of them.
    """

    parameter: str
    current: int
    values: tuple[int, ...]
    fits: tuple[Fit, ...]

    @cached_property
    def largest(self) -> int | None:
        """The largest of the values with which the whole range fits; None where none does."""
        fitting = [v for v, fit in zip(self.values, self.fits, strict=True) if fit.free_low >= 0]
        return max(fitting, default=None)


def what_if(plan: Plan, parameter: str) -> Curve | None:
    """Return the fits of a plan over one of `LIMITS`.

    None where the plan's memory is not known, or its backend has no such parameter.
    """
    declared = _parameters(plan.backend.spec_class).get(parameter)
    current = _current(plan, parameter)
    if plan.fit is None or declared is None or current is None:
        return None
    least, most = declared.minimum or 1, declared.maximum or 1 << 40
    if parameter == "max_seq_len" and plan.model.context_length:
        most = max(current, min(most, plan.model.context_length))
    estimate = estimator(plan.spec, plan.model, plan.device)
    steps = range(-HALVED, DOUBLED + 1)
    wanted = (current << step if step >= 0 else current >> -step for step in steps)
    points = {}
    for value in sorted({current, *(v for v in wanted if least <= v <= most)}):
        # A limit may be refused together with another one, and nothing is known there.
        try:
            points[value] = estimate(plan.spec.replace(**{parameter: value}))
        except WorkbenchError:
            continue
    return Curve(parameter, current, tuple(points), tuple(points.values()))


def what_if_curves(plan: Plan) -> list[Curve]:
    """Return the curves of a plan over all `LIMITS` that it has."""
    curves = (what_if(plan, parameter) for parameter in LIMITS)
    return [curve for curve in curves if curve]


def curve_line(curve: Curve) -> str:
    """Return one line on how far a limit may go while the whole estimate fits."""
    name, now = curve.parameter, f"{curve.current:,}"
    if not curve.fits[0].device.memory_bytes:
        return f"{name} {now}: there is no device to compare with."
    if curve.largest is None:
        return f"{name} {now}: no value from {curve.values[0]:,} on is sure to fit."
    if curve.largest == curve.values[-1]:
        return f"{name} {now}: all values up to {curve.largest:,} fit."
    return f"{name} {now}: of those in the curve, values up to {curve.largest:,} are sure to fit."


_parameters = functools.cache(parameters_of)


def _current(plan: Plan, parameter: str) -> int | None:
    """Return the value of a limit with what stands for None resolved."""
    value = getattr(plan.spec, parameter, None)
    if value is None and parameter == "max_seq_len":
        # What its parts add up to, or else what the model can do (all backends' fits).
        value = getattr(plan.spec, "sequence_limit", None) or plan.model.context_length or None
    return value
