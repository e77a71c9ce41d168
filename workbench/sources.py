"""What can be opened for streaming: an engine of the store, or a server by its address."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from workbench.backends import get_backend, make_spec
from workbench.devices import gpus_of_engine
from workbench.endpoint import Endpoint
from workbench.engine import Engine
from workbench.opened import Opened
from workbench.opening import open_engine
from workbench.spec import BuildSpec, parameters_of
from workbench.units import format_bytes, printable

Source = Engine | Endpoint


def open_source(source: Source, stage: Callable[[str], None] = lambda _: None) -> Opened:
    """Load an engine, or connect to a server.

    Args:
        source: What to open.
        stage: Called with each stage of loading an engine, see `session.LOADING`.

    Raises:
        WorkbenchError: It cannot be opened; see `open_engine` and `Endpoint.open`.
    """
    return source.open() if isinstance(source, Endpoint) else open_engine(source, stage=stage)


def source_name(source: Source) -> str:
    """Return what tells sources apart: an engine with its limits, or a server with its model."""
    if isinstance(source, Engine):
        return f"{source.key} {sorted(source.limits.items())}"
    extra = json.dumps(dict(source.extra), sort_keys=True, default=str)
    return f"{source.url} {source.model} {source.key_env} {source.chat} {source.patience} {extra}"


def source_label(source: Source) -> str:
    """Return what people call a source, short enough for a heading."""
    if isinstance(source, Endpoint):
        return printable(f"endpoint {source.url}{f' ({source.model})' if source.model else ''}")
    spec = source.manifest["identity"]["spec"]
    known = {**source.limits, **spec}
    precision = "/".join(str(known[n]) for n in ("quantization", "dtype") if n in known)
    model = source.manifest["model"]["name"]
    return printable(f"{model} {precision} on {source.backend} ({source.key[:8]})")


def same_vocabulary(first: Source, second: Source) -> bool:
    """Say whether equal token ids surely mean equal texts: both come from one checkpoint."""
    weights = [
        source.manifest["identity"]["weights"] if isinstance(source, Engine) else None
        for source in (first, second)
    ]
    return weights[0] is not None and weights[0] == weights[1]


def least_memory(source: Source) -> int:
    """Return the least memory in bytes that opening takes here; 0 for a server.

    It is the larger of what the smoke stage of the build measured and the size of the files. On a
    GPU, whose memory that stage does not measure, it is at least what the weights take which lie
    elsewhere.
    """
    if isinstance(source, Endpoint):
        return 0
    if gpus_of_engine(source):
        return max(source.bytes, _weights_elsewhere(source))
    smoke = source.manifest["build"].get("smoke") or {}
    return max(source.bytes, int(smoke.get("memory_bytes") or 0))


def _weights_elsewhere(engine: Engine) -> int:
    """Return the least bytes of weights that a recipe loads; 0 for an engine that holds its own."""
    if engine.backend != "transformers":
        return 0
    full = {**engine.manifest["identity"]["spec"], **engine.limits}.get("dtype") == "float32"
    return int(engine.manifest["model"].get("parameters") or 0) * (4 if full else 2)


def exact_source(source: Source | None, session: Opened) -> Source | None:
    """Return a source with the model that is really asked, where a server had the choice."""
    if isinstance(source, Endpoint) and source.model is None:
        return replace(source, model=str(session.facts["model"]))
    return source


def opened_line(source: Source, session: Opened) -> str:
    """Return one line on what was opened, its limits and its memory."""
    words = [
        source_label(source)
        if isinstance(source, Endpoint)
        else f"engine {source.key} on {source.backend}"
    ]
    named = {"max_batch_size": "batch {}", "max_input_len": "prompt up to {}"}
    named |= {"max_output_len": "output up to {} tokens", "max_seq_len": "context {} tokens"}
    words += [text.format(session.limits[n]) for n, text in named.items() if session.limits.get(n)]
    if memory := session.memory():
        words.append(f"memory {format_bytes(memory)}")
    if exposed := session.facts.get("exposed"):
        words.append(str(exposed))
    return printable(" · ".join(words))


def spec_of(engine: Engine) -> BuildSpec:
    """Return the spec that an engine was built from, under the limits that it has now."""
    return make_spec({**engine.manifest["identity"]["spec"], **_known(engine, engine.backend)})


def baseline_of(engine: Engine) -> BuildSpec:
    """Return the spec of the eager baseline: the same model, limits and compute precision.

    Raises:
        SpecError: The baseline does not take one of them.
    """
    return make_spec({"backend": "transformers", **_known(engine, "transformers")})


def _known(engine: Engine, backend: str) -> dict[str, Any]:
    """Return what is known of an engine and a backend has a parameter for."""
    model = engine.manifest["model"]
    values = {**engine.limits, "model": model["source"], "revision": model.get("revision")}
    names = parameters_of(get_backend(backend).spec_class)
    return {name: value for name, value in values.items() if name in names}
