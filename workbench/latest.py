"""Results that are asked for again and again of the same model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar

Subject = TypeVar("Subject")
Values = ParamSpec("Values")
Result = TypeVar("Result")

KEPT = 8
"""Results that are kept of each function."""


def keep_latest(
    work: Callable[Concatenate[Subject, Values], Result], /
) -> Callable[Concatenate[Subject, Values], Result]:
    """Return a function that remembers its latest results.

    The first argument is told by identity (a model is large to compare, and holds what has no
    hash), the others by value. For what depends on nothing else.
    """
    # What is kept holds on to its subject, so that nothing else can get that id meanwhile.
    kept: dict[object, tuple[Subject, Result]] = {}

    @functools.wraps(work)
    def remembered(subject: Subject, /, *args: Values.args, **values: Values.kwargs) -> Result:
        key = (id(subject), args, tuple(values.items()))
        found = kept.get(key)
        if found is None:
            found = (subject, work(subject, *args, **values))
            if len(kept) >= KEPT:
                kept.clear()
            kept[key] = found
        return found[1]

    return remembered
