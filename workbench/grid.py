"""Grids: the plain values of a sweep, and of each of its points."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from workbench.errors import SpecError

KEYS = ("name", "time_limit", "silence_limit", "spec", "workload", "quality", "grid", "points")
_PARTS = ("spec", "workload", "quality")


def seconds(values: Mapping[str, Any], name: str) -> float | None:
    """Return a number of seconds, if there is one.

    Raises:
        SpecError: It is none.
    """
    limit = values.get(name)
    sound = isinstance(limit, int | float) and not isinstance(limit, bool) and limit >= 0
    if limit is not None and not sound:
        raise SpecError(f"{name} must be a number of seconds; got {limit!r}.")
    return limit


def combinations(values: Mapping[str, Any]) -> Iterator[dict[str, dict[str, Any]]]:
    """Yield the plain values of each point: the grid first, the last field varying fastest.

    Raises:
        SpecError: A part is not what it should be.
    """
    shared = {part: _table(values.get(part, {}), f"[{part}]") for part in _PARTS}
    grid = _table(values.get("grid", {}), "[grid]")
    single = values.get("points", [])
    if not isinstance(single, Sequence) or isinstance(single, str):
        raise SpecError("points must be a list of tables, each [[points]] with spec or workload.")
    _check_parts(grid, "[grid]")
    axes = [
        [(part, name, value) for value in _values(part, name, given)]
        for part in _PARTS
        for name, given in _table(grid.get(part, {}), f"[grid.{part}]").items()
    ]
    for combination in itertools.product(*axes) if axes else ():
        point = {part: dict(shared[part]) for part in _PARTS}
        for part, name, value in combination:
            point[part][name] = value
        yield point
    for given in single:
        table = _table(given, "[[points]]")
        _check_parts(table, "[[points]]")
        yield {
            part: shared[part] | _table(table.get(part, {}), f"{part} of [[points]]")
            for part in _PARTS
        }


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise SpecError(f"{where} must be a table of names and values; got {value!r}.")
    return dict(value)


def _check_parts(table: Mapping[str, Any], where: str) -> None:
    if unknown := [name for name in table if name not in _PARTS]:
        raise SpecError(f"{where} has {', '.join(_PARTS)}; '{unknown[0]}' is none of them.")


def _values(part: str, name: str, given: Any) -> list[Any]:
    if not isinstance(given, list) or not given:
        raise SpecError(f"{name} in [grid.{part}] must be a list of values; got {given!r}.")
    return given
