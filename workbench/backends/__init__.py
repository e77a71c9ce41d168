"""The backends by name, each imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workbench.errors import SpecError

if TYPE_CHECKING:
    from workbench.backends.base import Backend
    from workbench.spec import BuildSpec

NAMES = ("openvino", "tensorrt_llm", "tensorrt_llm_torch", "transformers")
DEFAULT = "openvino"


def get_backend(name: str) -> Backend:
    """Return a backend by name.

    Raises:
        SpecError: There is none of that name.
    """
    if name not in NAMES:
        raise SpecError(f"There is no backend '{name}'; there is: {', '.join(NAMES)}.")
    backend: Backend = importlib.import_module(f"workbench.backends.{name}").BACKEND
    return backend


def make_spec(values: Mapping[str, Any] | None = None, /, **more: Any) -> BuildSpec:
    """Make the spec of the backend that is named in the values (by default `DEFAULT`).

    make_spec({"quantization": "int4"}) and make_spec(quantization="int4") are the same.

    Raises:
        SpecError: Unknown or ill-typed parameters, each by name.
    """
    values = {**(values or {}), **more}
    backend = get_backend(str(values.get("backend", DEFAULT)))
    return backend.spec_class.parse({**values, "backend": backend.name})
