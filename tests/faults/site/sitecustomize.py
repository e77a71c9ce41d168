"""Python runs this at the start of every process that has this folder in PYTHONPATH.

It makes the backend `fault` known to processes that a test starts (runners, kernels, command
lines), and in the runner of a faulty build it strikes at the points of the runner itself. The
package knows nothing of it: publish and journal are watched where they ask the system.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

FAULTS = Path(__file__).parents[1]


class Finder:
    """Adds `workbench.backends.fault`, and its name to those of the backends."""

    @staticmethod
    def find_spec(name: str, path: Any = None, _target: Any = None) -> ModuleSpec | None:
        """Answer for two modules only."""
        if name == "workbench.backends.fault":
            return importlib.util.spec_from_file_location(name, FAULTS / "backend.py")
        if name != "workbench.backends":
            return None
        spec = PathFinder.find_spec(name, path)
        load = spec.loader.exec_module

        def load_and_add(module: ModuleType) -> None:
            load(module)
            module.NAMES = (*module.NAMES, "fault")

        spec.loader.exec_module = load_and_add
        return spec


def _request() -> dict[str, Any] | None:
    """Return the request of the job whose runner this process is, or None."""
    for word in sys.orig_argv[1:]:
        try:
            return json.loads((Path(word) / "spec.json").read_text())
        except (OSError, ValueError):
            continue
    return None


def _is_temporary(path: Path) -> bool:
    return path.parent.name == "engines" and path.name.startswith(".tmp-")


Point = tuple[str, str] | None
"""Name of a point without before_ or after_, and the file or stage that it is about."""


def _making(path: Any, *_: Any) -> Point:
    return ("temp", "") if _is_temporary(Path(path)) else None


def _renaming(source: Any, target: Any, *_: Any) -> Point:
    source, target = Path(source), Path(target)
    if _is_temporary(target.parent) and target.name == "manifest.json":
        return "manifest", ""
    if source.parent.name == "engines" and not _is_temporary(source):
        return "displace", ""
    published = _is_temporary(source) and target.parent.name == "engines"
    return ("rename", "") if published and not _is_temporary(target) else None


def _syncing(descriptor: int) -> Point:
    path = Path(f"/proc/self/fd/{descriptor}").readlink()
    inside = any(_is_temporary(parent) for parent in (path, *path.parents))
    return ("sync", path.name) if inside or path.name == "engines" else None


def _writing(_: int, data: bytes) -> Point:
    if b'"event": "done"' in data:
        return "record", ""
    if b'"event": "owner"' in data:
        return "owner", ""
    for name in STAGES:
        if f'"event": "stage", "name": "{name}"'.encode() in data:
            return "stage", name
    return None


STAGES = ("fingerprint", "load", "compile", "write", "smoke", "publish")

WATCHED: dict[str, Callable[..., Point]] = {
    "mkdir": _making,
    "rename": _renaming,
    "replace": _renaming,
    "fsync": _syncing,
    "write": _writing,
    "setsid": lambda: ("session", ""),
}
"""Calls of the system, and at which point of a runner each of them is."""


def _watch(name: str, script: Any) -> None:
    """Let a function of `os` strike before and after it works."""
    original, where = getattr(os, name), WATCHED[name]

    def struck(*args: Any, **options: Any) -> Any:
        point = where(*args)
        if point:
            script.at(f"before_{point[0]}", point[1])
        result = original(*args, **options)
        if point:
            script.at(f"after_{point[0]}", point[1])
        return result

    setattr(os, name, struck)


sys.meta_path.insert(0, Finder)
_asked = (_request() or {}).get("spec", {})
if isinstance(_asked, dict) and _asked.get("backend") == "fault":
    _spec = importlib.util.spec_from_file_location("fault_actions", FAULTS / "actions.py")
    _actions = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(_actions)
    for _name in WATCHED:
        _watch(_name, _actions.Script(_asked["fault"]))
