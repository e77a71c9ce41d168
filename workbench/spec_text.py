"""A spec as text: TOML and JSON to keep and to paste, a notebook's cell, a command line.

Only what is not the default is written, beside backend and model: what is left out has its
default, as everywhere.
"""

from __future__ import annotations

import json
import shlex
import tomllib
from pathlib import Path
from typing import Any

from workbench.backends import DEFAULT, make_spec
from workbench.errors import InputError, SpecError
from workbench.flags import words
from workbench.spec import BuildSpec, Parameter, parameters_of

MOST = 100_000
"""Characters that a text may have; all parameters with their values have some thousand."""


def chosen(spec: BuildSpec) -> dict[str, Any]:
    """Return backend, model and every value that is not the default."""
    values = spec.model_dump(mode="json")
    known = parameters_of(type(spec)).values()
    changed = {p.name: values[p.name] for p in known if values[p.name] != p.default}
    return {"backend": spec.backend, "model": spec.model, **changed}


def to_json(spec: BuildSpec) -> str:
    """Return a spec as JSON."""
    return json.dumps(chosen(spec), indent=2, ensure_ascii=False)


def to_toml(spec: BuildSpec) -> str:
    """Return a spec as TOML.

    TOML has no null: no parameter can be none where that is not its default.
    """
    # A JSON text without escapes of its own is a basic string of TOML; DEL is the exception.
    lines = [
        f"{name} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
        for name, value in chosen(spec).items()
        if value is not None
    ]
    return "\n".join(lines)


def parse(text: str) -> BuildSpec:
    """Return the spec that a text in TOML or JSON means.

    Raises:
        SpecError: It is neither, or a value is refused, with the sentences of every other place.
    """
    if len(text) > MOST:
        raise SpecError(f"The text has {len(text):,} characters; a spec has some hundred.")
    if not text.strip():
        raise SpecError("The text is empty. Paste a spec as TOML (name = value) or JSON.")
    values = _from_json(text) if text.lstrip().startswith(("{", "[")) else _from_toml(text)
    return make_spec(values)


def _from_json(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(f"The text is no JSON: {error}.") from None
    if not isinstance(values, dict):
        raise SpecError("The text is a JSON list. A spec is an object: names and values in braces.")
    return values


def _from_toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SpecError(
            f"The text is neither TOML nor JSON: {error}. A line of TOML is name = value, with "
            "texts in double quotes."
        ) from None


def save(spec: BuildSpec, path: Path) -> Path:
    """Write a spec into a file, as JSON where its name ends so, else as TOML; return the file.

    Raises:
        InputError: The file is there already, or cannot be written.
    """
    path = path.expanduser().absolute()
    text = to_json(spec) if path.suffix == ".json" else to_toml(spec)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text + "\n")
    except FileExistsError:
        raise InputError(f"{path} is there already. Give another name.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from None
    return path


def load(path: Path) -> BuildSpec:
    """Return the spec that a file holds.

    Raises:
        InputError: It cannot be read.
        SpecError: As `parse`.
    """
    try:
        return parse(path.expanduser().read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"{path} cannot be read: {reason}.") from None


def command_line(spec: BuildSpec) -> str:
    """Return the command that builds a spec."""
    backend = [] if spec.backend == DEFAULT else ["--backend", spec.backend]
    return shlex.join(["workbench", "build", *backend, *words(spec)])


def papermill_line(spec: BuildSpec, notebook: str) -> str:
    """Return the command that runs a notebook with a spec; `-p` reads numbers and true as such."""
    parts = ["papermill", notebook, "out.ipynb"]
    for name, value in chosen(spec).items():
        text = isinstance(value, str)
        parts += ["-r" if text else "-p", name, str(value)]
    return shlex.join(parts)


def parameters_cell(spec: BuildSpec) -> str:
    """Return the lines that give a notebook this spec."""
    values = chosen(spec)
    lines = [f"backend = {json.dumps(values.pop('backend'))}  # what compiles and runs the engine"]
    known = parameters_of(type(spec))
    return "\n".join([*lines, *(declaration(known[name], values[name]) for name in values)])


def declaration(parameter: Parameter, value: Any) -> str:
    """Return the line of a notebook that gives a parameter a value, with what it is."""
    written = json.dumps(value) if isinstance(value, str) else repr(value)
    return f"{parameter.name} = {written}  # {_comment(parameter)}"


def _comment(parameter: Parameter) -> str:
    said = parameter.help.split(". ")[0].rstrip(".")
    if parameter.choices:
        said += f": {', '.join(str(choice) for choice in parameter.choices)}"
    if parameter.unit:
        said += f", in {parameter.unit}"
    return f"{said}; None: {parameter.none_means}" if parameter.optional else said
