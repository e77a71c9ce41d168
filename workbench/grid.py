"""Grids: the plain values of a sweep, and of each of its points."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from workbench.errors import SpecError

KEYS = (
    "name",
    "time_limit",
    "silence_limit",
    "spec",
    "workload",
    "quality",
    "server",
    "grid",
    "points",
)
_PARTS = ("spec", "workload", "quality", "server")


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

    A point that names something of a server is that server's, and has neither spec nor quality.

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
        own: dict[str, dict[str, Any]] = {}
        for part, name, value in combination:
            own.setdefault(part, {})[name] = value
        yield _merged(shared, own)
    for given in single:
        table = _table(given, "[[points]]")
        _check_parts(table, "[[points]]")
        yield _merged(
            shared, {part: _table(value, f"{part} of [[points]]") for part, value in table.items()}
        )


def _merged(
    shared: Mapping[str, dict[str, Any]], own: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Return the parts of a point: its own values over the shared ones.

    Raises:
        SpecError: It is a server's, and chooses what only an engine has.
    """
    if "server" not in own:
        parts: tuple[str, ...] = ("spec", "workload", "quality")
    elif chosen := [part for part in ("spec", "quality") if part in own]:
        raise SpecError(
            f"A server is what it is: a point with a server has no {' and no '.join(chosen)}."
        )
    else:
        parts = ("server", "workload")
    return {part: shared[part] | own.get(part, {}) for part in parts}


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
