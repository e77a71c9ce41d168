"""The notebook side installs beside what TensorRT-LLM pins, and depends on no runtime."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from workbench.releases import LAST_STABLE

# Versions that what tensorrt-llm 1.2.1 declares allows: exactly one transformers, datasets and
# h5py, numpy below 2, setuptools below 80, onnx below 1.20; and what those demand in turn
# (transformers 4.57.3 a hub library below 1, datasets 3.1 an fsspec of at most 2024.9).
PINS = {
    "transformers": "4.57.3",
    "numpy": "1.26.4",
    "setuptools": "79.0.1",
    "datasets": "3.1.0",
    "h5py": "3.12.1",
    "fsspec": "2024.9.0",
    "huggingface-hub": "0.36.0",
    "pydantic": "2.12.4",
    "fastapi": "0.121.3",
    "tornado": "6.5.7",
    "protobuf": "6.33.5",
    "onnx": "1.19.1",
    "nvidia-ml-py": "13.580.82",
}


def _requirements(name: str) -> Iterator[Requirement]:
    """What a distribution requires on this system, without its extras."""
    for line in metadata.requires(name) or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def _closure() -> dict[str, list[tuple[str, Requirement]]]:
    """Every requirement of the notebook side, direct or not, by the name that it is about."""
    found: dict[str, list[tuple[str, Requirement]]] = {}
    waiting, seen = ["trtllm-workbench"], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for requirement in _requirements(name):
            about = canonicalize_name(requirement.name)
            found.setdefault(about, []).append((name, requirement))
            waiting.append(about)
    return found


CLOSURE = _closure()


@pytest.mark.parametrize("pinned", PINS)
def test_nothing_forbids_what_tensorrt_llm_pins(pinned: str) -> None:
    for name, requirement in CLOSURE.get(pinned, []):
        assert requirement.specifier.contains(PINS[pinned]), f"{name} requires {requirement}"


def test_the_environment_asks_for_what_the_workbench_supports() -> None:
    text = (Path(__file__).parents[1] / "environment.yml").read_text(encoding="utf-8")
    assert f"tensorrt-llm=={LAST_STABLE}\n" in text
    assert {"- openmpi", "- mpi4py", "- -e ."} <= {line.strip() for line in text.splitlines()}


def test_no_runtime_comes_with_the_notebook_side() -> None:
    runtimes = {"torch", "transformers", "openvino", "openvino-genai", "optimum-intel", "nncf"}
    assert not runtimes & set(CLOSURE)
