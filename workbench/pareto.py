"""The Pareto frontier: what no other point beats in both of two figures."""

from __future__ import annotations

from collections.abc import Sequence


def frontier(
    points: Sequence[tuple[float, float]], *, higher: tuple[bool, bool] = (False, False)
) -> list[int]:
    """Return the places of the points that no other dominates, from the best first figure on.

    A point dominates another when it is at least as good in both figures and better in one. So
    points that are equal in both stay or go together.

    Args:
        points: Two figures each, none of them NaN.
        higher: For each figure whether more is better.
    """
    signs = [-1 if more else 1 for more in higher]
    costs = [tuple(sign * value for sign, value in zip(signs, p, strict=True)) for p in points]
    kept: list[int] = []
    for place in sorted(range(len(costs)), key=lambda place: (costs[place], place)):
        # By the first cost in order, only the second can still be a reason to stay.
        if not kept or costs[place][1] < costs[kept[-1]][1] or costs[place] == costs[kept[-1]]:
            kept.append(place)
    return kept
