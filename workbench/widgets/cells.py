"""Which panels a cell has made, so that those of its last run give up what those of this one take.

ipywidgets keeps every widget that was ever made, and a kernel is not told which of them a page
still shows. But it is told which cell it runs: when that runs again, its output is replaced.
"""

from __future__ import annotations

import threading
import weakref
from typing import Protocol

from workbench.notebook import running_cell


class Replaceable(Protocol):
    """A panel that lets go of what it has when another one takes its place."""

    def retire(self) -> None:
        """Let go of everything; whoever still has the panel may go on with it."""
        ...


_MADE: dict[str, tuple[str, weakref.WeakSet[Replaceable]]] = {}
"""By cell: its last run, and what that has made."""

_LOCK = threading.Lock()


def take_place(panel: Replaceable) -> list[Replaceable]:
    """Retire what the last run of the running cell has made, and return it."""
    cell = running_cell()
    if cell is None:
        return []
    name, run = cell
    with _LOCK:
        last, made = _MADE.get(name, (run, weakref.WeakSet()))
        replaced = [] if last == run else list(made)
        made = made if last == run else weakref.WeakSet()
        made.add(panel)
        _MADE[name] = run, made
    for old in replaced:
        old.retire()
    return replaced
