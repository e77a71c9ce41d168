"""The notebook side installs beside what TensorRT-LLM pins, and depends on no runtime."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# What tensorrt-llm 1.2.1 declares: exactly one transformers, numpy below 2, setuptools below 80.
PINS = {"transformers": "4.57.3", "numpy": "1.26.4", "setuptools": "79.0.1"}


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


def test_the_hub_library_may_be_the_one_that_old_transformers_need() -> None:
    # transformers 4.57.3 requires huggingface-hub >= 0.34, < 1.0.
    for name, requirement in CLOSURE["huggingface-hub"]:
        assert requirement.specifier.contains("0.36.0"), f"{name} requires {requirement}"


def test_no_runtime_comes_with_the_notebook_side() -> None:
    runtimes = {"torch", "transformers", "openvino", "openvino-genai", "optimum-intel", "nncf"}
    assert not runtimes & set(CLOSURE)
