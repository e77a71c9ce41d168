"""Releases of TensorRT-LLM: what they offer, and how to get the one that compiles engines."""

from __future__ import annotations

from packaging.version import InvalidVersion, Version

ENGINE_API_ENDS = Version("1.3.0rc22")
"""The first release on PyPI that requires no TensorRT any more: it has no engines."""

LAST_STABLE = "1.2.1"
"""The last stable release that compiles engines."""

IMAGE = f"nvcr.io/nvidia/tensorrt-llm/release:{LAST_STABLE}"
"""NVIDIA's container of that release; its tag follows the pattern of NVIDIA's tags."""

INSTALL = (
    "sudo apt-get -y install libopenmpi-dev && "
    f"python3 -m venv trtllm && trtllm/bin/pip install tensorrt-llm=={LAST_STABLE}"
)
"""The one command that gets it without a container; Python 3.10 or 3.12 on Linux."""

CUDA_MAJOR = 13
"""The CUDA that it is made for (its requirements: cuda-python>=13, nvidia-nccl-cu13)."""


def engines_gone(version: str) -> bool:
    """Say whether a release of TensorRT-LLM can no longer build and run TensorRT engines.

    Its metadata requires tensorrt up to 1.3.0rc15 and not in 1.3.0rc22, and none in between is on
    PyPI. A version that is no number, as of a build of one's own, says nothing.

    Args:
        version: Of the distribution tensorrt-llm.
    """
    try:
        return Version(version) >= ENGINE_API_ENDS
    except InvalidVersion:
        return False
