"""The tokenizer of a model, from its tokenizer.json: the ids of a text, and a text of ids.

It needs the package `tokenizers`, which is no part of the notebook side.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workbench.errors import InputError

_ROUNDS = 8
"""Most attempts at a text of a certain length; two or three do for most."""


class Tokenizer:
    """What is used of a `tokenizers.Tokenizer`."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def ids(self, text: str) -> list[int]:
        """Return the ids of a text, with the special tokens that the model puts around it."""
        return list(self._inner.encode(text).ids)

    def count(self, text: str) -> int:
        """Return the number of tokens of a text, without special ones."""
        return len(self._plain(text))

    def spell(self, ids: Sequence[int]) -> str:
        """Return a text of as many tokens as there are ids, as near as that can be had.

        Random tokens seldom come back from their text: some merge with their neighbours. So it is
        made of more of them, and what is too much when it is encoded again is cut off.
        """
        text = self._inner.decode([*ids, *ids])
        for _ in range(_ROUNDS):
            found = self._plain(text)
            if len(found) <= len(ids):
                break
            text = self._inner.decode(found[: len(ids)])
        return str(text)

    def _plain(self, text: str) -> list[int]:
        return list(self._inner.encode(text, add_special_tokens=False).ids)


def read_tokenizer(folder: Path) -> Tokenizer | None:
    """Return the tokenizer of the model in a folder.

    None where it has no tokenizer.json, or the package `tokenizers` is not installed.

    Raises:
        InputError: The installed version cannot read the file.
    """
    try:
        tokenizers = importlib.import_module("tokenizers")
    except ModuleNotFoundError:
        return None
    file = folder / "tokenizer.json"
    if not file.is_file():
        return None
    try:
        return Tokenizer(tokenizers.Tokenizer.from_file(str(file)))
    except Exception as error:  # tokenizers raises nothing narrower
        raise InputError(
            f"{file} cannot be read by tokenizers {tokenizers.__version__}: {error}. Install the "
            "version that wrote it (pip install -U tokenizers)."
        ) from error
