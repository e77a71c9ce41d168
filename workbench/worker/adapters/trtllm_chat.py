"""What lies beside an engine to talk with it: tokenizer, chat template, end tokens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from .channel import Refusal
from .own_code import write_without_pointers

TOKENIZER = "tokenizer"
"""Folder of the tokenizer in an engine directory: `trtllm-build` itself writes none."""


TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
)
OTHER_TOKENIZERS = ("tokenizer.model", "vocab.json", "spiece.model")
"""Formats from which transformers can make a tokenizer.json."""

CONFIGS = ("config.json", "generation_config.json")


class ChatTemplate:
    """The model's own chat template, rendered by transformers, which is imported when needed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._tokenizer: Any = None

    @property
    def chat_template(self) -> str | None:
        """The template, or None where the model has none."""
        beside = self._directory / "chat_template.jinja"
        if beside.is_file():
            return beside.read_text(encoding="utf-8")
        config = self._directory / "tokenizer_config.json"
        if not config.is_file():
            return None
        found = json.loads(config.read_text(encoding="utf-8")).get("chat_template")
        return str(found) if found else None

    def apply_chat_template(self, messages: Any, add_generation_prompt: bool) -> str:
        """Return the text that the model was trained on for these messages.

        Raises:
            Refusal: The template does not take them.
        """
        from jinja2 import TemplateError

        if self._tokenizer is None:
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(
                str(self._directory), trust_remote_code=False
            )
        try:
            text = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=add_generation_prompt, tokenize=False
            )
        except TemplateError as error:
            raise Refusal(f"The model's chat template refuses these messages: {error}") from error
        return str(text)


def save_tokenizer(source: Path, output: Path, *, trust_remote_code: bool) -> None:
    """Write the tokenizer of a checkpoint into an engine directory, with the model's configs.

    Nothing in there points to code, so that no session runs any.

    Args:
        source: The checkpoint.
        output: The engine's directory.
        trust_remote_code: Whether code of the checkpoint may run to make a tokenizer.json.

    Raises:
        Refusal: The checkpoint has none.
    """
    target = output / TOKENIZER
    target.mkdir(parents=True)
    if (source / "tokenizer.json").is_file():
        _copy(source, target, TOKENIZER_FILES)
    else:
        _make(source, target, trust_remote_code=trust_remote_code)
    _copy(source, target, CONFIGS)


def _copy(source: Path, target: Path, names: tuple[str, ...]) -> None:
    for name in names:
        if (source / name).is_file():
            if name.endswith("config.json"):
                write_without_pointers(source / name, target / name)
            else:
                shutil.copyfile(source / name, target / name)


def _make(source: Path, target: Path, *, trust_remote_code: bool) -> None:
    """Let transformers make a tokenizer.json from another format."""
    if not any((source / name).is_file() for name in OTHER_TOKENIZERS):
        # transformers would make an empty one, without a word.
        raise Refusal(f"{source} has no tokenizer. Put its tokenizer.json beside the weights.")
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), trust_remote_code=trust_remote_code)
        tokenizer.save_pretrained(str(target))
    except (OSError, ValueError, KeyError, ImportError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Refusal(f"transformers cannot load the model's tokenizer: {line}") from error
    if not (target / "tokenizer.json").is_file():
        raise Refusal(
            "The model's tokenizer cannot be written as a tokenizer.json. Give a checkpoint that "
            "has one."
        )
    # transformers saves the code of a class beside what it made.
    made = target.rename(target.with_name("made"))
    target.mkdir()
    _copy(made, target, TOKENIZER_FILES)
    shutil.rmtree(made)


def is_gone(error: ImportError) -> bool:
    """Whether a part of tensorrt_llm itself is not there, as in releases without engines."""
    # For a name that cannot be imported, this is the package that lacks it; a library that does
    # not load has no name, or that of its file.
    name, _, rest = str(error.name).partition(".")
    if name != "tensorrt_llm":
        return False
    if isinstance(error, ModuleNotFoundError):
        return bool(rest)
    return error.msg.startswith("cannot import name")


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
