"""Model cards: what the README of a model's repository declares in its front matter."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from workbench.units import printable

MOST = 20_000
"""Characters of a README that are read: the front matter is its beginning."""

_FRONT = re.compile(r"\A---\s*\n(.*?)\n---\s*$", re.DOTALL | re.MULTILINE)
_ENTRY = re.compile(r"^(license|license_name):[ \t]*[\"']?([^\"'\n#]+)", re.MULTILINE)


def licence_of(directory: Path) -> str:
    """Return the licence that a model's card names, or nothing.

    Where the card says "other", it names its own licence beside that. (Hugging Face hub
    documentation, "Model Cards": `license` and `license_name` in the YAML front matter.)

    Args:
        directory: The model's.
    """
    try:
        with (directory / "README.md").open(encoding="utf-8", errors="replace") as file:
            text = file.read(MOST)
    except OSError:
        return ""
    front = _FRONT.match(text)
    return licence_in(dict(_ENTRY.findall(front[1])) if front else {})


def licence_in(card: Mapping[str, object]) -> str:
    """Return the licence that the entries of a card name, or nothing; of several, all."""
    name = _words(card.get("license"))
    if name == "other":
        name = _words(card.get("license_name")) or name
    return printable(name[:80])


def _words(value: object) -> str:
    names = value if isinstance(value, list) else [value]
    return ", ".join(name.strip() for name in names if isinstance(name, str))
