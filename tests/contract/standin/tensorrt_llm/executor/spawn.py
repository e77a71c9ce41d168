"""The processes of the executor: mpi4py spawns them, and they import the main module anew.

The executor itself stays in this process; only what can go wrong on the way is played: how
mpi4py.futures finds the main module in a spawned process (its _core.py, import_main).
"""

from __future__ import annotations

import subprocess
import sys

from tensorrt_llm._settings import error

_CHILD = """
import runpy, sys, types
name, path = sys.argv[1:]
module = types.ModuleType("__worker__")
sys.modules["__main__"] = sys.modules["__worker__"] = module
if name:
    runpy.run_module(name, run_name="__worker__", alter_sys=True)
else:
    runpy.run_path(path, run_name="__worker__")
"""


def spawn() -> None:
    """Start a process as mpi4py does, with what it is told of the main module.

    Raises:
        RuntimeError: It cannot import the main module; the real one aborts.
    """
    main = sys.modules["__main__"]
    name = getattr(getattr(main, "__spec__", None), "name", None) or ""
    path = getattr(main, "__file__", "")
    if not path:
        return  # an interactive interpreter has none, and none is imported
    child = subprocess.run([sys.executable, "-c", _CHILD, name, path], check=False)
    if child.returncode:
        raise RuntimeError(error("worker"))
