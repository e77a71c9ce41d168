"""Command line flags derived from declared parameters."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence
from typing import Any

from workbench.errors import SpecError
from workbench.spec import Declared, Parameter, nearest, parameters_of


def add_flags(parser: argparse.ArgumentParser, record: type[Declared], title: str) -> None:
    """Add a flag for each parameter of a record.

    --max-batch-size and --max_batch_size, as trtllm-build spells it, are one; help shows the
    first. Defaults stay with the record: a flag that is not given leaves no value behind.
    """
    group = parser.add_argument_group(title)
    for name, parameter in parameters_of(record).items():
        # argparse formats help texts with %.
        text = _help(parameter).replace("%", "%%")
        for number, flag in enumerate(dict.fromkeys([name.replace("_", "-"), name])):
            options: dict[str, Any] = {
                "dest": name,
                "default": argparse.SUPPRESS,
                "help": argparse.SUPPRESS if number else text,
            }
            if parameter.kind == "switch":
                options["action"] = argparse.BooleanOptionalAction
            else:
                options["metavar"] = _metavar(parameter)
            group.add_argument(f"--{flag}", **options)


def given(parsed: argparse.Namespace, record: type[Declared]) -> dict[str, Any]:
    """Return the values of the flags that were given, each of the type that was declared.

    A text that is not of that type is left as it is; the record refuses it in its own words.
    """
    return {
        name: typed(getattr(parsed, name), parameter)
        for name, parameter in parameters_of(record).items()
        if hasattr(parsed, name)
    }


def words(record: Declared) -> list[str]:
    """Return the flags that make a record: one for each value that is not the default."""
    found = []
    for name, parameter in parameters_of(type(record)).items():
        value = getattr(record, name)
        flag = name.replace("_", "-")
        if value == parameter.default:
            continue
        if parameter.kind == "switch":
            found.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            # With = because a value such as -1 would be taken for a flag.
            found.append(f"--{flag}={value}")
    return found


def typed(text: Any, parameter: Parameter) -> Any:
    """Return the value that a text means for a parameter, or the text when it means none."""
    if not isinstance(text, str):
        return text
    if parameter.optional and text.lower() in ("none", ""):
        return None
    if parameter.kind == "switch":
        return {"true": True, "false": False}.get(text.lower(), text)
    if parameter.kind == "choice":
        return next((choice for choice in parameter.choices if str(choice) == text), text)
    return text if parameter.kind == "text" else _number(text, parameter.kind == "integer")


def _number(text: str, whole: bool) -> Any:
    """Return the number that a text spells, or the text.

    1.5 is no whole number, but a number it is: so it is named when it is refused.
    """
    for convert in (int, float) if whole else (float,):
        with contextlib.suppress(ValueError):
            return convert(text)
    return text


def refuse_unknown(words: Sequence[str], parsed: argparse.Namespace) -> None:
    """Raise for words that no flag took.

    Raises:
        SpecError: Names them, with the nearest flag of the command where there is one.
    """
    known = [flag.removeprefix("--") for flag in getattr(parsed, "flags", [])]
    gone = getattr(parsed, "gone", {})
    sentences = []
    for word in words:
        name = word.partition("=")[0]
        bare = name.removeprefix("--").replace("_", "-")
        if (old := bare.replace("-", "_")) in gone and word.startswith("--"):
            raise SpecError(f"'{name}' {gone[old]}")
        hint = nearest(bare, known).replace("'", "'--", 1) if word.startswith("-") else ""
        sentences.append(f"'{name}' is not understood.{hint}")
        if word.startswith("--"):
            break  # what follows is most likely its value
    raise SpecError(" ".join(sentences) + f" See: workbench {parsed.verb} --help")


def _metavar(parameter: Parameter) -> str:
    if parameter.kind == "choice":
        return "{" + ",".join(str(choice) for choice in parameter.choices) + "}"
    return {"integer": "N", "number": "X"}.get(parameter.kind, "TEXT")


def _help(parameter: Parameter) -> str:
    default = parameter.none_means if parameter.default is None else parameter.default
    return f"{parameter.help} Default: {default}."
