"""What lies beside an engine to talk with it: tokenizer, chat template, end tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .channel import Refusal

TOKENIZER = "tokenizer"
"""Folder of the tokenizer in an engine directory: `trtllm-build` itself writes none."""


class ChatTemplate:
    """The model's own chat template, rendered by transformers."""

    def __init__(self, directory: Path) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(str(directory), trust_remote_code=False)

    @property
    def chat_template(self) -> str | None:
        """The template, or None where the model has none."""
        template = self._tokenizer.chat_template
        return str(template) if template else None

    def apply_chat_template(self, messages: Any, add_generation_prompt: bool) -> str:
        """Return the text that the model was trained on for these messages.

        Raises:
            Refusal: The template does not take them.
        """
        from jinja2 import TemplateError

        try:
            text = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=add_generation_prompt, tokenize=False
            )
        except TemplateError as error:
            raise Refusal(f"The model's chat template refuses these messages: {error}") from error
        return str(text)


def save_tokenizer(source: Path, output: Path) -> None:
    """Write the tokenizer of a checkpoint into an engine directory, with the model's configs.

    Raises:
        Refusal: The checkpoint has no tokenizer that transformers can load.
    """
    import shutil

    from transformers import AutoTokenizer

    target = output / TOKENIZER
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Refusal(f"transformers cannot load the model's tokenizer: {line}") from error
    tokenizer.save_pretrained(str(target))
    if not (target / "tokenizer.json").is_file():
        raise Refusal(
            "The model's tokenizer cannot be written as a tokenizer.json. Give a checkpoint that "
            "has one."
        )
    for name in ("config.json", "generation_config.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def end_tokens(directory: Path) -> list[int]:
    """Return the ids that end a text: those of generation_config.json, else of config.json.

    TensorRT-LLM looks for the first file beside the engine and does not find it, so that chat
    models with several end tokens would not stop; they are given with each request instead.
    """
    for name in ("generation_config.json", "config.json"):
        path = directory / name
        if path.is_file():
            ids = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
            if isinstance(ids, int):
                return [ids]
            if ids:
                return [int(number) for number in ids]
    return []
