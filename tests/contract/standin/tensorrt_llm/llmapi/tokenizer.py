"""The tokenizer of a directory, with the names that the library's wrapper has.

Read with the tokenizers package alone: importing transformers takes seconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tensorrt_llm.logger import logger


class TransformersTokenizer:
    """Text to ids and back; `tokenizer` is the Hugging Face object, made when it is asked for."""

    def __init__(self, directory: Path) -> None:
        from tokenizers import Tokenizer

        self._directory = directory
        self._fast = Tokenizer.from_file(str(directory / "tokenizer.json"))
        path = directory / "tokenizer_config.json"
        config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        self.eos_token_id = self._special(config, "eos_token")
        self.pad_token_id = self._special(config, "pad_token")

    def _special(self, config: dict[str, Any], name: str) -> int | None:
        text = config.get(name)
        text = text["content"] if isinstance(text, dict) else text
        number: int | None = self._fast.token_to_id(text) if text else None
        return number

    @property
    def tokenizer(self) -> Any:
        """The Hugging Face tokenizer."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self._directory)

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return the ids of a text."""
        ids: list[int] = self._fast.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def decode(self, ids: list[int], skip_special_tokens: bool = False) -> str:
        """Return the text of ids."""
        return str(self._fast.decode(ids, skip_special_tokens=skip_special_tokens))


def load_tokenizer(source: Any) -> Any:
    """Load a tokenizer; None, with a warning, where there is none."""
    if not isinstance(source, (str, Path)):
        return source
    if (Path(source) / "tokenizer.json").exists():
        return TransformersTokenizer(Path(source))
    logger.warn("no_tokenizer", path=source)
    return None


def end_ids(source: Path) -> list[int]:
    """Return the end tokens that a directory's generation_config.json names."""
    path = source / "generation_config.json"
    if not path.exists():
        return []
    ids = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
    return [ids] if isinstance(ids, int) else ids or []
