"""What the stand-in plays, from the environment, and the contract that it is made from.

WORKBENCH_STANDIN_VERSION   version of tensorrt_llm, which decides the wording (the toolchain's,
                            else "1.2.1")
WORKBENCH_STANDIN_TENSORRT  version of TensorRT ("10.14.1.48")
WORKBENCH_STANDIN_GPU       name, compute capability, and optionally how many and GiB each
                            ("NVIDIA H100 80GB HBM3,9.0"; "NVIDIA L4,8.9,2,22.5"); empty: none
WORKBENCH_STANDIN_PACE      seconds of a whole build (0.3)
WORKBENCH_STANDIN_STEP      seconds of one generation step (0.001)
WORKBENCH_STANDIN_MPI       1: spawn a process through the real mpi4py when an LLM is made
WORKBENCH_STANDIN_FAIL      how to fail: one of FAILURES
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

CONTRACT = Path(__file__).resolve().parents[2]
FAILURES = (
    *("", "import_error", "unsupported_architecture", "calibration_slow", "host_killed"),
    *("gpu_oom", "assertion", "segfault", "hang", "disk_full"),
    *("load_version_mismatch", "load_wrong_gpu", "stream_crash"),
)


def _load(name: str) -> ModuleType:
    """Load a page of the contract by its path: its folder must not be importable here."""
    full = f"_workbench_contract_{name}"
    spec = importlib.util.spec_from_file_location(full, CONTRACT / f"{name}.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"{CONTRACT} has no {name}.py.")
    module = sys.modules[full] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


interface, fields, wording = _load("interface"), _load("fields"), _load("wording")
rule = _load("rule")


def _installed() -> str:
    try:
        return importlib.metadata.version("tensorrt_llm")
    except importlib.metadata.PackageNotFoundError:
        return "1.2.1"


VERSION = os.environ.get("WORKBENCH_STANDIN_VERSION") or _installed()
FAIL = os.environ.get("WORKBENCH_STANDIN_FAIL", "")
PACE = float(os.environ.get("WORKBENCH_STANDIN_PACE", "0.3"))
STEP = float(os.environ.get("WORKBENCH_STANDIN_STEP", "0.001"))
LINES = wording.lines(VERSION)
if FAIL not in FAILURES:
    raise ValueError(f"WORKBENCH_STANDIN_FAIL is {FAIL!r}; known are {', '.join(FAILURES)}.")


@dataclass(frozen=True)
class Gpu:
    """The GPUs that are played: `count` of a kind, each with `gib` of memory."""

    name: str
    capability: str
    count: int
    gib: float

    @property
    def sm(self) -> int:
        """Return the number of the streaming multiprocessor: 9.0 is 90."""
        major, minor = self.capability.split(".")
        return int(major) * 10 + int(minor)


def gpu() -> Gpu:
    """Return what WORKBENCH_STANDIN_GPU says.

    Raises:
        RuntimeError: There is none; in torch's words.
    """
    text = os.environ.get("WORKBENCH_STANDIN_GPU", "NVIDIA H100 80GB HBM3,9.0")
    if not text:
        raise RuntimeError("No CUDA GPUs are available")
    name, capability, *more = text.split(",")
    count, gib = [*more, "", ""][:2]
    return Gpu(name, capability, int(count or 1), float(gib or 79.1))


def line(name: str, /, **values: Any) -> str:
    """Return a log line of the version that is played."""
    return str(LINES[name].format(**values))


def error(name: str, /, **values: Any) -> str:
    """Return the sentence of an error."""
    return str(wording.ERRORS[name].format(**values))


def rest(share: float) -> None:
    """Be busy for a share of the pace of a build."""
    time.sleep(share * PACE)


def die(number: signal.Signals) -> None:
    """End the process as a fault in native code, or the kernel, ends it."""
    sys.stdout.flush()
    os.kill(os.getpid(), number)
    time.sleep(5)


def fail_at_import() -> None:
    """Fail as the import does where a library of the system is missing.

    Raises:
        ImportError: In the words of the dynamic linker.
    """
    if FAIL == "import_error":
        raise ImportError(error("import"))


def follows(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Take the arguments that the contract declares under `name`, with its defaults.

    The function then gets all of them by keyword, but `self` or `cls`.
    """
    declared = interface.signature(name)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*given: Any, **named: Any) -> Any:
            bound = declared.bind(*given, **named)
            bound.apply_defaults()
            values = dict(bound.arguments)
            extra = values.pop("kwargs", {})
            first = [values.pop(key) for key in ("self", "cls") if key in values]
            return function(*first, **values, **extra)

        call.__signature__ = declared  # type: ignore[attr-defined]
        return call

    return decorate
