"""The processes of the executor: mpi4py spawns them, and they import the main module anew.

The executor itself stays in this process; only what can go wrong on the way is played: how
mpi4py.futures finds the main module in a spawned process (its _core.py, import_main). With
WORKBENCH_STANDIN_MPI=1 a process is really spawned, by mpi4py and Open MPI.
"""

from __future__ import annotations

import os
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
    if os.environ.get("WORKBENCH_STANDIN_MPI") == "1":
        _spawn_through_mpi()
        return
    main = sys.modules["__main__"]
    name = getattr(getattr(main, "__spec__", None), "name", None) or ""
    path = getattr(main, "__file__", "")
    if not path:
        return  # an interactive interpreter has none, and none is imported
    child = subprocess.run([sys.executable, "-c", _CHILD, name, path], check=False)
    if child.returncode:
        raise RuntimeError(error("worker"))


def _spawn_through_mpi() -> None:
    """Let a spawned process do a sum, as tensorrt_llm llmapi/mpi_session.py starts its own."""
    from mpi4py.futures import MPIPoolExecutor

    with MPIPoolExecutor(max_workers=1, path=sys.path) as pool:
        if pool.submit(abs, -3).result(timeout=60) != 3:
            raise RuntimeError(error("worker"))
