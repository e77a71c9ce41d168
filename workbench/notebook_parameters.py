"""The parameters of a notebook: what its cells declare, and whether what is passed fits that."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench.errors import InputError, SpecError
from workbench.spec import BuildSpec, Parameter, got, parameters_of, unknown_names


def meant_for(backend: str, declared: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a notebook declares, without the build parameters of another backend."""
    from workbench.backends import get_backend  # noqa: PLC0415 - pydantic

    own = str(declared.get("backend") or backend)
    if not backend or own == backend:
        return dict(declared)
    others = parameters_of(get_backend(own).spec_class).keys() - parameters_of(BuildSpec).keys()
    return {name: value for name, value in declared.items() if name not in others}


def undeclared(known: Mapping[str, Parameter]) -> dict[str, Any]:
    """Return the parameters of a backend as if a notebook declared them, of any type.

    Their types are checked when the spec is made.
    """
    return dict.fromkeys(known)


def check_parameters(given: Mapping[str, Any], declared: Mapping[str, Any]) -> None:
    """Refuse parameters that a notebook does not declare, or of another type than declared.

    Args:
        given: Values by name.
        declared: Default values by name; a default of None accepts any type.

    Raises:
        SpecError: One line for each.
    """
    sentences = [unknown_names(list(given), declared)]
    for name, value in given.items():
        default = declared.get(name)
        if default is not None and value is not None and not _same_type(value, default):
            sentences.append(
                f"{name} must be {_WORDS.get(type(default), type(default).__name__)}, such as "
                f"{got(default)}; got {got(value)}."
            )
    if text := "\n".join(filter(None, sentences)):
        raise SpecError(text)


_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "True or False"}


def _same_type(value: Any, default: Any) -> bool:
    if isinstance(default, float) and not isinstance(value, bool):
        return isinstance(value, int | float)
    return type(value) is type(default)


def assignments(source: str) -> dict[str, Any]:
    """Return the names that a cell assigns at its top level; the values where they are plain."""
    try:
        tree = ast.parse(source)
    except SyntaxError:
        return {}  # a cell with IPython's own syntax declares no parameters
    found: dict[str, Any] = {}
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        for target in targets:
            if isinstance(target, ast.Name):
                found[target.id] = _plain(getattr(node, "value", None))
    return found


def _plain(node: ast.expr | None) -> Any:
    try:
        return ast.literal_eval(node) if node else None
    except ValueError:
        return None


def typed_parameters(notebook: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters as the types that a notebook declares.

    Raises:
        InputError: The notebook is missing.
        SpecError: It does not declare a parameter, or declares another type.
    """
    if not notebook.is_file():
        raise InputError(f"There is no notebook {notebook}.")
    declared = _declared(notebook)
    backend = str({**declared, **parameters}.get("backend", ""))
    known, declared = _known(backend), meant_for(backend, declared)
    values = {
        name: _typed_like(name, value, declared.get(name), known)
        for name, value in parameters.items()
    }
    check_parameters(values, undeclared(known) | declared)
    return values


def _declared(notebook: Path) -> dict[str, Any]:
    """Return the default values in the `parameters` cell of a notebook.

    Raises:
        InputError: It is no notebook.
    """
    import nbformat  # noqa: PLC0415 - takes a while

    try:
        content = nbformat.read(notebook, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, ValueError) as error:
        raise InputError(f"{notebook} is not a notebook that can be read.") from error
    declared: dict[str, Any] = {}
    for cell in content.cells:
        if "parameters" in cell.metadata.get("tags", []):
            declared.update(assignments(cell.source))
    return declared


def _plain_text(source: str) -> Any:
    try:
        return ast.literal_eval(source)
    except (ValueError, SyntaxError):
        return None


def _known(backend: str) -> dict[str, Parameter]:
    """Return the parameters of the backend that a notebook runs; none where it names none.

    Raises:
        SpecError: There is no such backend.
    """
    from workbench.backends import get_backend  # noqa: PLC0415 - pydantic

    return parameters_of(get_backend(backend).spec_class) if backend else {}


def _typed_like(name: str, value: Any, default: Any, known: Mapping[str, Parameter]) -> Any:
    """Read a text from the command line as the type that the notebook means."""
    from workbench.flags import typed  # noqa: PLC0415 - pydantic

    if not isinstance(value, str):
        return value
    if name in known:
        return typed(value, known[name])
    if isinstance(default, str):
        return value
    parsed = _plain_text(value.capitalize() if value.lower() in ("true", "false") else value)
    return value if parsed is None else parsed
