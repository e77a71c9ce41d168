"""A stand-in for NVIDIA's management library; `nvml.c` beside it says why and what it answers.

    library = require_library(tmp_path)
    subprocess.run(command, env={**os.environ, **environment(library, TWO_GPUS)})

Both ways to use it rest on the same fact: glibc gives a library that is already loaded to whoever
asks for its SONAME, before it searches any folder. So a real driver on the machine is hidden too.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

SONAME = "libnvidia-ml.so.1"
SOURCE = Path(__file__).with_name("nvml.c")
DRIVER_VERSION = "580.65.06"
CUDA_VERSION = (13, 0)
TWO_GPUS = (
    "NVIDIA H100 80GB HBM3,9.0,85520809984,84000000000;NVIDIA L40S,8.9,48305799168,47000000000"
)


def compile_library(directory: Path) -> Path | None:
    """Compile the library into a folder; None where there is no C compiler.

    Raises:
        subprocess.CalledProcessError: the compiler refused; its messages are on stderr.
    """
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    library = directory / SONAME
    flags = ("-Wall", "-Wextra", "-shared", "-fPIC", f"-Wl,-soname,{SONAME}")
    subprocess.run([compiler, *flags, "-o", str(library), str(SOURCE)], check=True)
    return library


def require_library(directory: Path) -> Path:
    """Compile the library for a test; without a C compiler skip it, but fail under CI."""
    library = compile_library(directory)
    if library is None:
        reason = (
            "The stand-in for NVML needs a C compiler, and there is no `cc` or `gcc` on the PATH. "
            "Install one (Debian: apt-get install gcc)."
        )
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return library


def environment(library: Path, gpus: str) -> dict[str, str]:
    """Return what a child process needs in its environment to see these GPUs; "": no driver.

    The children of the child inherit it. The loader splits LD_PRELOAD at spaces and colons, so
    the path must have none.
    """
    return {"LD_PRELOAD": str(library), "STANDIN_GPUS": gpus}


def load(library: Path) -> ctypes.CDLL:
    """Load the library into this process, where it stays until the process ends.

    From then on `os.environ["STANDIN_GPUS"]` decides: unset, it answers as if no driver were
    loaded. It comes too late where a real NVML is loaded already.
    """
    return ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
