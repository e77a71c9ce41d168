"""BuildSpec: everything that decides what an engine is, declared once.

A backend declares its parameters as fields of a `BuildSpec` subclass with `parameter(...)`. The
widget form, the papermill `parameters` cell, the command line, validation and the documentation
table are derived from that declaration through `parameters_of`.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from workbench.errors import SpecError

Effect = Literal["identity", "compiled", "load", "run"]
"""What a parameter decides: which model it is about, what is written into the engine, what the
session gives to the runtime (and enforces) when it loads the engine, or only how a build runs."""


@dataclass(frozen=True)
class Parameter:
    """One declared parameter, as forms, flags and tables need it.

    `kind` is one of "text", "integer", "number", "switch" and "choice"; `optional` says that
    None is allowed, which `none_means` explains.
    """

    name: str
    kind: Literal["text", "integer", "number", "switch", "choice"]
    default: Any
    help: str
    unit: str
    group: str
    effect: Effect
    source: str
    choices: tuple[str | int, ...]
    minimum: float | None
    maximum: float | None
    bounds: str
    optional: bool
    none_means: str
    later: bool

    @property
    def expected(self) -> str:
        """What a value must be, in words."""
        if self.kind == "choice":
            words = "one of " + ", ".join(str(choice) for choice in self.choices)
        elif self.kind == "switch":
            words = "true or false"
        elif self.kind == "text":
            words = "text"
        else:
            words = "a whole number" if self.kind == "integer" else "a number"
            words += f" {self.bounds}" if self.bounds else ""
        return f"{words}, or none ({self.none_means})" if self.optional else words


def parameter(  # noqa: D417 - the remaining arguments are pydantic's own
    default: Any,
    *,
    help: str,  # noqa: A002 - the word that forms and flags use
    unit: str = "",
    group: str = "",
    effect: Effect = "load",
    source: str = "",
    none_means: str = "",
    later: bool = False,
    **constraints: Any,
) -> Any:
    """Declare a field of a record whose form, flags and table are derived.

    Args:
        default: The default value; `...` makes the parameter required.
        help: One or two sentences for people.
        unit: Unit of the value, such as "tokens".
        group: Heading under which forms show it.
        effect: What the parameter decides, see `Effect`.
        source: Where the meaning or the default comes from.
        none_means: What None stands for, where None is allowed.
        later: Whether engines were built before there was this parameter. Its default is what
            they were built with, and is left out of the key, so that they are found.
    """
    extra: dict[str, Any] = {
        "unit": unit,
        "group": group,
        "effect": effect,
        "source": source,
        "none_means": none_means,
        "later": later,
    }
    return Field(default, description=help, json_schema_extra=extra, **constraints)


class Declared(BaseModel):
    """A frozen record whose fields are declared with `parameter`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> Self:
        """Make a record from plain values.

        Raises:
            SpecError: Names every unknown key (with the nearest known one) and every value that
                is not what was expected.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise SpecError("\n".join(_sentence(cls, e) for e in error.errors())) from None

    @classmethod
    def of(cls, namespace: Mapping[str, Any]) -> Self:
        """Make a record from a notebook's variables: `Workload.of(globals())`.

        Raises:
            SpecError: As `parse`.
        """
        return cls.parse(
            {name: namespace[name] for name in parameters_of(cls) if name in namespace}
        )

    @classmethod
    def faults(cls, values: Mapping[str, Any]) -> dict[str, str]:
        """Return what `parse` would say of these values, by the name of the parameter."""
        try:
            cls.model_validate(dict(values))
        except ValidationError as error:
            return {_name(e): _sentence(cls, e) for e in error.errors()}
        return {}

    def replace(self, **changes: Any) -> Self:
        """Return a copy with some values changed, validated like a new one.

        Raises:
            SpecError: As `parse`.
        """
        return self.parse(self.model_dump() | changes)


class BuildSpec(Declared):
    """What every backend's spec has; see the module docstring."""

    backend: str
    model: str = parameter(
        "demo",
        min_length=1,
        help="A local directory with a Hugging Face checkpoint, a hub id such as owner/name, or "
        "demo for the small model that ships with the workbench.",
        group="Model",
        effect="identity",
    )
    revision: str | None = parameter(
        None,
        help="Branch, tag or commit of a hub id.",
        group="Model",
        effect="identity",
        none_means="the main branch",
    )
    trust_remote_code: bool = parameter(
        default=False,
        help="Let Python code from the model's repository run, with your rights, where its "
        "configuration points to some. Off, none of it runs.",
        group="Model",
        effect="compiled",
        source="transformers AutoModelForCausalLM.from_pretrained",
        later=True,
    )

    @classmethod
    def gone_names(cls) -> Mapping[str, str]:
        """Return names that are no parameters; what takes their place, as ends of sentences."""
        return {}

    def local_paths(self) -> dict[str, list[Path]]:
        """Return the files and directories beside the model that a build reads, by parameter."""
        return {}

    def canonical(self) -> dict[str, Any]:
        """Return the values that go into the engine key: the backend and what is compiled.

        The model is left out: its content fingerprint stands for it, so that the same weights
        in another folder are the same engine. What is only given to the runtime is left out too:
        one engine serves under many limits.
        """
        declared = parameters_of(type(self))
        values = self.model_dump(mode="json")
        compiled = sorted(
            name
            for name, known in declared.items()
            if known.effect == "compiled" and not (known.later and values[name] == known.default)
        )
        return {"backend": self.backend, **{name: values[name] for name in compiled}}


def parameters_of(cls: type[Declared]) -> dict[str, Parameter]:
    """Return the declared parameters of a record by name, in the order of declaration."""
    return {parameter.name: parameter for parameter in _declared(cls)}


@cache  # a form asks with every change
def _declared(cls: type[Declared]) -> tuple[Parameter, ...]:
    return tuple(
        _parameter(name, field)
        for name, field in cls.model_fields.items()
        if isinstance(field.json_schema_extra, dict)
    )


def got(value: Any) -> str:
    """Return a value as people write it, for "expected ..., got ..."."""
    if value == "":
        return "nothing"
    if value is None or isinstance(value, bool):
        return str(value).lower()
    # A text that spells a number looks like one in most places.
    spelled = isinstance(value, str) and value.lstrip("+-.")[:1].isdigit()
    return f"the text {value!r}" if spelled else repr(value)


def nearest(name: str, known: Mapping[str, Any] | list[str] | tuple[str, ...]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, or an empty string."""
    matches = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean '{matches[0]}'?" if matches else ""


def unknown_names(names: list[str], known: Mapping[str, Any]) -> str:
    """Return one sentence for each name that is not declared; empty when all are."""
    return "\n".join(
        f"'{name}' is not a known parameter.{nearest(name, known)}"
        for name in names
        if name not in known
    )


def _parameter(name: str, field: FieldInfo) -> Parameter:
    inner, optional = _without_none(field.annotation)
    extra = field.json_schema_extra
    assert isinstance(extra, dict)  # noqa: S101 - parameters_of selected on it
    words: dict[str, Any] = dict(extra)
    bounds = {
        key: getattr(part, key) for part in field.metadata for key in _BOUNDS if hasattr(part, key)
    }
    choices = tuple(get_args(inner)) if get_origin(inner) is Literal else ()
    kind: Any = "choice" if choices else _KINDS[inner]
    return Parameter(
        name=name,
        kind=kind,
        default=field.default,
        help=field.description or "",
        choices=choices,
        minimum=bounds.get("ge"),
        maximum=bounds.get("le"),
        bounds=_in_words(bounds),
        optional=optional,
        **words,
    )


_BOUNDS = {"gt": "above", "ge": "from", "lt": "below", "le": "to"}


def _in_words(bounds: Mapping[str, float]) -> str:
    """Return bounds such as {"ge": 0, "lt": 1} as "from 0 below 1"."""
    if set(bounds) == {"ge"}:
        return f"of at least {_number(bounds['ge'])}"
    return " ".join(
        f"{word} {_number(bounds[key])}" for key, word in _BOUNDS.items() if key in bounds
    )


def _number(value: float) -> str:
    """Return a bound with all its digits: 2147483647, and 1 for 1.0."""
    return str(int(value)) if value == int(value) else str(value)


_KINDS = {str: "text", int: "integer", float: "number", bool: "switch"}


def _without_none(annotation: Any) -> tuple[Any, bool]:
    """Split `X | None` into X and whether None was allowed."""
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [part for part in get_args(annotation) if part is not type(None)]
        return inner[0], len(inner) < len(get_args(annotation))
    return annotation, False


def _sentence(cls: type[Declared], error: ErrorDetails) -> str:
    """Turn one pydantic error into a sentence with the name, what was got and what to give."""
    name = _name(error)
    known = parameters_of(cls)
    if error["type"] == "extra_forbidden":
        return unknown_names([name], known)
    if name in known and error["type"] != "value_error":
        return f"{name} must be {known[name].expected}; got {got(error['input'])}."
    return f"{name or cls.__name__}: {error['msg'].removeprefix('Value error, ')}"


def _name(error: ErrorDetails) -> str:
    return str(error["loc"][0]) if error["loc"] else ""
