"""A comparison of candidates: their figures, what each differs from a baseline, the frontier."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from workbench import results
from workbench.axes import AXES, COST, THROUGHPUT, Axis, Interval, find_axis
from workbench.candidates import Candidate, candidates_of
from workbench.errors import InputError
from workbench.pareto import frontier
from workbench.trial import Trial
from workbench.units import printable
from workbench.yardsticks import QUALITIES, is_early, most_shared

COLUMNS = (THROUGHPUT, "ttft.p50", "tpot.p50", "e2e.p99", "quality.token_match", COST)
"""What the table shows, as far as anything of it was measured."""

NOTHING = (
    "There is no trial to compare yet. `workbench trial` measures one engine, and `workbench "
    "sweep` many."
)


@dataclass(frozen=True)
class Comparison:
    """Candidates side by side.

    Attributes:
        candidates: Those that the filter leaves, the highest throughput first.
        total: How many there are without the filter.
        baseline: The one that the others are compared with, whether the filter leaves it or not.
        price: Of a device for an hour in dollars, or None where nobody said.
        left_out: Trials that failed or are invalid: they are never compared.
    """

    candidates: tuple[Candidate, ...]
    total: int
    baseline: Candidate | None
    price: float | None
    left_out: tuple[Trial, ...]

    @classmethod
    def make(
        cls,
        trials: Iterable[Trial] | None = None,
        *,
        text: str = "",
        baseline: str = "",
        price: float | None = None,
    ) -> Comparison:
        """Compare trials.

        Args:
            trials: Which; by default all of the store.
            text: Only candidates whose words contain all of these.
            baseline: Number of a candidate, the beginning of the id of one of its trials, or
                words that it alone has; none if empty.
            price: Of a device for an hour, in dollars.

        Raises:
            InputError: No candidate, or more than one, is the baseline; the price is none.
        """
        price = check_price(price)
        known = list(results.list_trials() if trials is None else trials)
        everyone = candidates_of(known)
        wanted = text.lower().split()
        return cls(
            tuple(c for c in everyone if all(word in words_of(c) for word in wanted)),
            len(everyone),
            _find(everyone, baseline) if baseline.strip() else None,
            price,
            tuple(trial for trial in known if not trial.valid),
        )

    def axes(self, names: Iterable[str] = AXES) -> list[Axis]:
        """Return those axes of which something was measured."""
        axes = [find_axis(name) for name in names]
        return [axis for axis in axes if any(self.figure(c, axis) for c in self.candidates)]

    def figure(self, candidate: Candidate, axis: Axis) -> Interval | None:
        """Return a figure of a candidate over its repetitions, or None.

        Also None for a quality that was measured with another yardstick than is compared here.
        """
        return candidate.figure(axis, self.price, self._yardsticks.get(axis.name, ""))

    @cached_property
    def _yardsticks(self) -> dict[str, str]:
        """What each quality is compared by: the baseline's yardstick, or what most share."""
        chosen = {}
        for name in QUALITIES:
            axis = find_axis(name)
            own = self.baseline.yardsticks(axis) if self.baseline else []
            everyone = [each for c in self.candidates for each in c.yardsticks(axis)]
            chosen[name] = most_shared(own or everyone)
        return chosen

    def _unlike(self, axis: Axis) -> list[Candidate]:
        """Return the candidates whose quality was measured with another yardstick."""
        return [c for c in self.candidates if c.yardsticks(axis) and not self.figure(c, axis)]

    def _early(self, axis: Axis) -> bool:
        """Say whether any yardstick of a quality is known as early versions wrote it."""
        shown = [*self.candidates, *([self.baseline] if self.baseline else [])]
        trials = (trial for c in shown if c.yardsticks(axis) for trial in c.trials)
        return any(is_early(trial, axis.name) for trial in trials)

    def difference(self, candidate: Candidate, axis: Axis) -> float | None:
        """Return how far a figure is from the baseline's, as a share of that: 0.1 is 10 % more.

        None without a baseline, for itself, and where either has no such figure.
        """
        if self.baseline is None or candidate.number == self.baseline.number:
            return None
        mine, theirs = self.figure(candidate, axis), self.figure(self.baseline, axis)
        if mine is None or theirs is None or not theirs.median:
            return None
        return mine.median / theirs.median - 1

    def frontiers(self, x: Axis, y: Axis) -> dict[str, list[Candidate]]:
        """Return the Pareto frontier of each group, from the best `x` on.

        What ran on another device, with another model or with other lengths does not compete.
        """
        groups: dict[str, list[tuple[Candidate, tuple[float, float]]]] = {}
        for candidate in self.candidates:
            across, up = self.figure(candidate, x), self.figure(candidate, y)
            if across and up:
                point = (across.median, up.median)
                groups.setdefault(candidate.group, []).append((candidate, point))
        return {
            name: [
                members[place][0]
                for place in frontier([p for _, p in members], higher=(x.higher, y.higher))
            ]
            for name, members in groups.items()
        }

    def cell(self, candidate: Candidate, axis: Axis, *, unit: bool = True) -> str:
        """Return a figure in words: its value, and the difference from the baseline.

        Args:
            candidate: Whose.
            axis: Which figure.
            unit: Whether its unit stands with it, or elsewhere.
        """
        figure, difference = self.figure(candidate, axis), self.difference(candidate, axis)
        if figure is None:
            return ""
        shown = axis.shown(figure.median) if unit else axis.digits(figure.median)
        return shown if difference is None else f"{shown} ({_difference(difference)})"

    def name(self, candidate: Candidate) -> str:
        """Return the number of a candidate, and whether it is the baseline."""
        base = self.baseline is not None and candidate.number == self.baseline.number
        return f"{candidate.number}{' baseline' if base else ''}"

    def lines(self) -> list[str]:
        """Return the table in plain lines for people, and what is left out of it."""
        axes = self.axes(COLUMNS)
        head = ["", *(axis.title for axis in axes), "what"]
        body = [
            [self.name(c), *(self.cell(c, axis) for axis in axes), c.label] for c in self.candidates
        ]
        rows = [head, *body] if body else []
        # The last column is the longest, and nothing stands after it.
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
        lines = [
            "  ".join([*map(str.ljust, row, widths), row[-1]]).rstrip()  # the widths end first
            for row in rows
        ]
        return [printable(line) for line in [*lines, *self.notes()]]

    def notes(self) -> list[str]:
        """Return what a reader must know beside the figures, a sentence each."""
        notes = []
        if not self.candidates:
            notes.append("No trial is like that." if self.total else NOTHING)
        if count := len(self.left_out):
            what = "trial that failed or is" if count == 1 else "trials that failed or are"
            notes.append(f"Left out: {count} {what} invalid. `workbench trials` says why.")
        if len({c.group for c in self.candidates}) > 1:
            notes.append(
                "Not all have the same device, model and lengths: each group has a frontier of "
                "its own."
            )
        notes += self._notes_on_devices()
        if doubtful := _numbers(c for c in self.candidates if c.newest.record.get("warnings")):
            notes.append(f"Doubtful, see their notes: {doubtful}.")
        for name, other in QUALITIES.items():
            axis = find_axis(name)
            if unlike := self._unlike(axis):
                numbers = _numbers(unlike)
                earlier = ", or by an earlier version" if self._early(axis) else ""
                notes.append(
                    f"{axis.title} of {numbers} is left out: it was measured with {other}{earlier}."
                )
        return notes

    def _notes_on_devices(self) -> list[str]:
        """Return what is not known of the devices of servers, and how to say it."""
        notes = []
        if unknown := _numbers(c for c in self.candidates if c.newest.of_unknown_device):
            notes.append(
                f"What {unknown} ran on is unknown: nothing else competes with it. A server's "
                "device_name says it, and --device where a report is imported."
            )
        one = _numbers(c for c in self.candidates if c.newest.of_unknown_count)
        if one and self.price is not None:
            notes.append(
                f"The cost of {one} is that of a single device: how many the server has is "
                "unknown. Its devices says it; a report that was imported tells it nowhere."
            )
        return notes

    def record(self) -> list[dict[str, Any]]:
        """Return every figure of every candidate as plain values, in the units of the records."""
        return [self._record(candidate) for candidate in self.candidates]

    def _record(self, candidate: Candidate) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        for axis in AXES.values():
            if figure := self.figure(candidate, axis):
                figures[axis.name] = {
                    "median": figure.median,
                    "low": figure.low,
                    "high": figure.high,
                    "count": figure.count,
                    "difference": self.difference(candidate, axis),
                }
        return {
            "number": candidate.number,
            "label": candidate.label,
            "device": candidate.device,
            "engine": candidate.key,
            "trials": [trial.id for trial in candidate.trials],
            "command": candidate.command,
            "figures": figures,
        }


def _numbers(candidates: Iterable[Candidate]) -> str:
    return ", ".join(str(candidate.number) for candidate in candidates)


def _difference(share: float) -> str:
    """Return a difference in few characters: from ten times as much on, a factor."""
    return f"x{share + 1:.3g}" if share >= 9 else f"{share:+.0%}"


def words_of(candidate: Candidate) -> str:
    """Return all that the filter looks at, in small letters."""
    fields = {**candidate.newest.spec, **candidate.newest.workload}
    pairs = (f"{name}={value}" for name, value in fields.items() if value is not None)
    ids = (trial.id for trial in candidate.trials)
    return " ".join([candidate.device, candidate.key, *pairs, *ids]).lower()


def check_price(price: float | None) -> float | None:
    """Return a price that can be one.

    Raises:
        InputError: It is negative, or no number.
    """
    if price is None:
        return None
    # papermill passes whatever it was given.
    sound = isinstance(price, int | float) and math.isfinite(price) and price >= 0
    if not sound:
        raise InputError(
            f"The price must be dollars for a device and an hour, 0 or more; got {price!r}."
        )
    return float(price)


def _find(everyone: Sequence[Candidate], name: str) -> Candidate:
    """Return the candidate that a name means.

    Raises:
        InputError: None or several do.
    """
    asked = name.lower().split()
    found = [c for c in everyone if [str(c.number)] == asked]
    if not name.strip().isdecimal() or len(name) > 4:
        found = found or [c for c in everyone if any(t.id.startswith(name) for t in c.trials)]
    found = found or [c for c in everyone if all(word in words_of(c) for word in asked)]
    if len(found) == 1:
        return found[0]
    what = "Nothing that was measured is" if not found else f"{len(found)} candidates are"
    raise InputError(
        f"{what} the baseline '{name}'. Give the number of a candidate in the table, the id of "
        "one of its trials, or words that it alone has."
    )
