"""The report of an engine: one HTML page with what it is, how it was built, and what it did.

Everything comes from the store; the page needs no other file and runs no code. Paths of this
machine stay out unless they are asked for.
"""

from __future__ import annotations

import html
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench import files, results, spec_text
from workbench.backends import get_backend, make_spec
from workbench.build import DEMO_MODEL, read_model
from workbench.engine import Engine
from workbench.errors import ModelError, StoreError
from workbench.history import built_on
from workbench.model import Model
from workbench.spec import BuildSpec, parameters_of
from workbench.summaries import finding_lines
from workbench.units import format_bytes, format_count, format_seconds, printable

NOTEBOOK = "notebooks/01_build.ipynb"
"""What the papermill line runs: it takes every parameter of every backend."""

_FIGURES = {
    "workload.input_len": "ISL",
    "workload.output_len": "OSL",
    "workload.concurrency": "concurrency",
    "output_tokens_per_second": "tokens/s",
    "ttft.p50": "TTFT p50",
    "itl.p50": "ITL p50",
    "e2e.p99": "E2E p99",
}
"""Columns of the table of trials, by the names of `results.rows`."""


def spec_of(engine: Engine, *, paths: bool = False) -> BuildSpec:
    """Return a spec that means this engine, from its manifest: what was compiled, and its limits.

    Args:
        engine: The engine.
        paths: Name the directory of a model by its path; otherwise by its last part alone.
    """
    backend = get_backend(engine.backend)
    known = {**engine.limits, **engine.manifest["identity"]["spec"]}
    if "kv_blocks" in known:
        known["kv_cache_tokens"] = known["kv_blocks"] * known["block_tokens"]
    names = parameters_of(backend.spec_class)
    values = {name: known[name] for name in names if known.get(name) is not None}
    model = engine.manifest["model"]
    return make_spec({**values, "backend": backend.name, **_model(model, paths=paths)})


def _model(model: Mapping[str, Any], *, paths: bool) -> dict[str, Any]:
    source = str(model.get("source") or model["name"])
    if source == str(DEMO_MODEL):
        return {"model": "demo"}
    if source.startswith("/") and not paths:
        return {"model": Path(source).name}
    revision = model.get("revision")
    return {"model": source, **({"revision": revision} if revision else {})}


def report_page(engine: Engine, *, paths: bool = False) -> str:
    """Return the page.

    Args:
        engine: The engine; its trials are those of this store.
        paths: Let paths of this machine be in it.
    """
    spec = spec_of(engine, paths=paths)
    manifest = engine.manifest
    identity, build = manifest["identity"], manifest["build"]
    title = f"Engine {engine.key}"
    parts = [
        _heading("Model", _pairs(_about_model(engine, spec))),
        _heading("Spec", _pairs(spec_text.chosen(spec)) + _list(_findings(engine))),
        _heading("Limits", _pairs(engine.limits)),
        _heading("Build", _stages(build) + _pairs(_about_build(engine))),
        _heading("Versions", _pairs(identity["toolchain"])),
        _heading("Device", _pairs(_about_device(engine))),
        _heading("Trials", _trials(engine)),
        _heading("How to get it again", "".join(_reproduce(spec))),
    ]
    return _PAGE.format(title=html.escape(title), what=_text(engine.title), body="\n".join(parts))


def save_report(
    engine: Engine, path: str | Path, *, overwrite: bool = False, paths: bool = False
) -> Path:
    """Write the page into a file; return the file.

    Raises:
        StoreError: The engine is damaged, the file exists, or the disk refused.
    """
    path = Path(path).expanduser().absolute()
    if not overwrite and os.path.lexists(path):
        raise StoreError(
            f"{path} exists, and it was not overwritten. Give another name, or say that it may be "
            "(--overwrite)."
        )
    if why := engine.damage():
        raise StoreError(f"The engine {engine.key} is damaged: {why}. Build it again.")
    temporary = files.temporary_name(path.parent, path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(report_page(engine, paths=paths), encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _about_model(engine: Engine, spec: BuildSpec) -> dict[str, Any]:
    model = engine.manifest["model"]
    return {
        "name": model["name"],
        "source": spec.model,
        "revision": model.get("revision") or "none",
        "architecture": model.get("architecture"),
        "parameters": format_count(model["parameters"]),
        "fingerprint of the weights": engine.manifest["identity"]["weights"],
    }


def _findings(engine: Engine) -> list[str]:
    """Return what the rules say of the spec; those on the model only where it is still there."""
    spec = spec_of(engine, paths=True)
    model: Model | None = None
    lines = []
    try:
        model = read_model(spec)
    except ModelError:
        lines.append("The model is not here any more: rules that need it were not applied.")
    found = get_backend(engine.backend).findings(spec, model, ())
    return [*lines, *(finding_lines(found) or ["No rule has anything to say."])]


def _stages(build: Mapping[str, Any]) -> str:
    rows = [
        (stage.get("title", stage["name"]), format_seconds(stage["seconds"]))
        for stage in build["stages"]
    ]
    return _table(("stage", "time"), rows)


def _about_build(engine: Engine) -> dict[str, Any]:
    build = engine.manifest["build"]
    peak, smoke = build.get("peak_memory_bytes"), build["smoke"]
    return {
        "size": format_bytes(engine.bytes),
        "peak memory": format_bytes(peak) if peak else "not known",
        "loaded before it was published": "yes" if smoke["ran"] else "no",
    }


def _about_device(engine: Engine) -> dict[str, Any]:
    """Return what the engine was made for, and what it was built on."""
    made_for = engine.manifest["identity"].get("device") or {"made for": "no certain GPU"}
    return {**made_for, "built on": built_on(engine) or "not known"}


def _trials(engine: Engine) -> str:
    known = [t for t in results.list_trials() if t.record["engine"].get("key") == engine.key]
    if not known:
        return "<p>None was measured in this store.</p>"
    rows = [
        (row["id"], row["status"], *(_figure(name, row.get(name)) for name in _FIGURES))
        for row in results.rows(known)
    ]
    return _table(("trial", "status", *_FIGURES.values()), rows)


def _figure(name: str, value: Any) -> str:
    if value is None:
        return ""
    seconds = name.partition(".")[0] in ("ttft", "itl", "e2e")
    return format_seconds(value) if seconds else f"{value:.4g}"


def _reproduce(spec: BuildSpec) -> Iterable[str]:
    yield _code("In a terminal", spec_text.command_line(spec))
    yield _code("As a notebook", spec_text.papermill_line(spec, NOTEBOOK))
    yield _code("As TOML, for the form and for sweeps", spec_text.to_toml(spec))
    for command in get_backend(spec.backend).commands(spec, None):
        yield _code(command.title, command.text)


def _heading(title: str, body: str) -> str:
    return f"<section><h2>{_text(title)}</h2>{body}</section>"


def _pairs(values: Mapping[str, Any]) -> str:
    return _table((), [(name, _plain(value)) for name, value in values.items()])


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table>{f'<tr>{head}</tr>' if head else ''}{body}</table>"


def _list(lines: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{_text(line)}</li>" for line in lines) + "</ul>"


def _code(title: str, text: str) -> str:
    return f"<h3>{_text(title)}</h3><pre>{_text(text)}</pre>"


def _text(value: Any) -> str:
    return html.escape(printable(str(value)))


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta name="viewport" content="width=device-width">
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 960px; margin: 2em auto; padding: 0 1em; }}
td, th {{ padding: 2px 16px 2px 0; text-align: left; vertical-align: top; }}
td {{ overflow-wrap: anywhere; }}
pre {{ padding: 8px; overflow: auto; background: light-dark(#f3f4f6, #20252b); }}
</style></head>
<body><h1>{title}</h1><p>{what}</p>
{body}
</body></html>
"""
