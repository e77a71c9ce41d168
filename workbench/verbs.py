"""Verbs below a verb of the command line, such as `engines list`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping

Action = Callable[[argparse.Namespace], int]
Verb = tuple[str, Callable[[argparse.ArgumentParser], None], Action]
"""What a verb is for, how its flags are declared, and what it does."""


def declare_verbs(parser: argparse.ArgumentParser, verbs: Mapping[str, Verb]) -> Action:
    """Declare verbs below a verb; without one, `list` runs with its defaults."""
    chooser = parser.add_subparsers(dest="what", metavar="WHAT")
    for name, (purpose, flags, _) in verbs.items():
        below = chooser.add_parser(
            name, help=purpose, description=f"{purpose.capitalize()}.", allow_abbrev=False
        )
        flags(below)
        if name == "list":
            # What was given before the word counts too.
            for action in below._actions:  # noqa: SLF001 - argparse has no other way
                action.default = argparse.SUPPRESS
    verbs["list"][1](parser)
    return lambda parsed: verbs[parsed.what or "list"][2](parsed)


def json_flag(parser: argparse.ArgumentParser) -> None:
    """Declare --json."""
    parser.add_argument("--json", action="store_true", help="Print everything as JSON.")
