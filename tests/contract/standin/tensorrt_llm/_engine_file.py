"""The engine file: it knows what it was built with and for, and loads nowhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tensorrt

from ._settings import FAIL, error, gpu
from .logger import logger, runtime_line

_MAGIC = b"ftrt"  # what a real plan begins with, too


def make(config: dict[str, Any], rank: int) -> bytes:
    """Return the contents of a rank's engine file."""
    head = {
        "tensorrt": tensorrt.__version__,
        "compute": gpu().capability,
        "rank": rank,
        "vocab_size": config["vocab_size"],
    }
    return _MAGIC + json.dumps(head).encode() + b"\n" + bytes(16384)


def load(path: Path) -> dict[str, Any]:
    """Read an engine file as the runtime of this machine does.

    Raises:
        RuntimeError: It was built by another TensorRT or for another GPU.
    """
    data = path.read_bytes()
    head: dict[str, Any] = json.loads(data[len(_MAGIC) : data.index(b"\n")])
    runtime_line(f"Loaded engine size: {len(data) // 2**20} MiB")
    here, built = tensorrt.__version__, head["tensorrt"]
    if FAIL == "load_version_mismatch":
        here, built = "9.2.0.5", "9.3.0.1"
    compute, target = gpu().capability, head["compute"]
    if FAIL == "load_wrong_gpu":
        compute, target = "9.0", "8.9"
    if here != built:
        _refuse(error("plan_version", expected=here, got=built))
    if compute != target:
        _refuse(error("plan_gpu", expected=compute, got=target))
    return head


def _refuse(sentence: str) -> None:
    logger.log("[E]", sentence, "TRT")
    runtime_line(sentence, "ERROR")
    raise RuntimeError(error("deserialize"))
