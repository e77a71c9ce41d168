"""Findings: what the rules of a backend say about a spec before anything is spent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from workbench.errors import SpecError
from workbench.units import printable

Level = Literal["refuse", "warn", "ignored"]
"""refuse: cannot work; warn: works, but not as one may think; ignored: has no effect here."""


@dataclass(frozen=True)
class Finding:
    """One verdict of a rule on a spec.

    `remedy` says what to do; `changes` are the parameter values that do it, where there is one
    obvious answer.
    """

    level: Level
    field: str
    reason: str
    remedy: str
    changes: tuple[tuple[str, object], ...] = ()
    source: str = ""

    def __str__(self) -> str:
        return printable(f"{self.field}: {self.reason} {self.remedy}".strip())


def refuse(findings: Iterable[Finding]) -> None:
    """Raise when a finding forbids the build.

    Raises:
        SpecError: With one line for each refusal.
    """
    refusals = [str(finding) for finding in findings if finding.level == "refuse"]
    if refusals:
        raise SpecError("\n".join(refusals))
