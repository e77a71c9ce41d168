"""Why an engine is none of those that are there, and which of those would do all the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from workbench.engine import Engine, Identity

SHORT = 4
"""Fields that a sentence in a panel has room for."""


def nearest(identity: Identity, engines: Iterable[Engine]) -> tuple[Engine, list[str]] | None:
    """Return the engine that differs in the fewest fields, and each of those in words."""
    candidates = [(identity.differences(engine.manifest["identity"]), engine) for engine in engines]
    if not candidates:
        return None
    differences, engine = min(candidates, key=lambda pair: len(pair[0]))
    return engine, [_difference(name, *values) for name, values in differences.items()]


def explain_miss(identity: Identity, engines: Iterable[Engine]) -> str:
    """Name the nearest engine and the first fields in which it differs, in one sentence."""
    found = nearest(identity, engines)
    if found is None:
        return "The store held no engine."
    engine, words = found
    if len(words) > SHORT:
        words = [*words[:SHORT], f"and {len(words) - SHORT} more"]
    return f"No engine was the same; the nearest, {engine.key}, differed in {', '.join(words)}."


def _difference(name: str, theirs: Any, mine: Any) -> str:
    if name.startswith("the model"):
        return name  # two fingerprints would tell nobody anything
    return f"{name} ({theirs} there, {mine} here)"


def covering(
    identity: Identity, shapes: Mapping[str, int | None], engines: Iterable[Engine]
) -> list[Engine]:
    """Return the engines that serve all that one of this identity would; the smallest first.

    They differ from it in nothing but their shapes, and each of those is at least as large.

    Args:
        identity: Of the engine that is wanted.
        shapes: What it shall serve, by the names of its limits; None where nothing is asked.
        engines: What there is.
    """
    asked = {name: value for name, value in shapes.items() if value is not None}
    found = [
        engine
        for engine in engines
        if (differing := identity.differences(engine.manifest["identity"]))
        and set(differing) <= set(shapes)
        and _serves(engine, asked)
    ]
    return sorted(found, key=lambda engine: [engine.manifest["limits"][name] for name in asked])


def _serves(engine: Engine, asked: Mapping[str, int]) -> bool:
    own = engine.manifest["limits"]
    return all(isinstance(own.get(n), int) and own[n] >= value for n, value in asked.items())


def covers_sentence(engine: Engine, shapes: Mapping[str, int | None]) -> str:
    """Say what an engine was built for, and that this covers what is asked."""
    own = engine.manifest["limits"]
    larger = {n: v for n, v in shapes.items() if v is not None and own.get(n, v) != v}
    if not larger:
        return f"The engine {engine.key} has the very limits that you ask for."
    built = ", ".join(f"{name} {own[name]}" for name in larger)
    asked = ", ".join(f"{value}" for value in larger.values())
    return f"The engine {engine.key} was built for {built}: it covers your {asked}."
