"""Prompts of a workload: from a file, or random tokens of exact lengths.

Made prompts are token ids, since a text that is encoded again has another length. They are drawn
evenly from the ordinary tokens of the engine's own vocabulary: no special token, which could end
or steer a generation, and no two prompts alike, so that no prefix cache answers for the engine.
Random tokens say nothing to a model: speed is measured with them, quality never.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import files
from workbench.errors import InputError
from workbench.workload import WARMUP, Workload

Prompt = str | list[int] | list[dict[str, str]]


@dataclass(frozen=True)
class Request:
    """One request: what is sent, and the output tokens that are asked for."""

    prompt: Prompt
    output_len: int

    @property
    def input_len(self) -> int | None:
        """Its input tokens, where they are known before an engine has read it."""
        return len(self.prompt) if is_ids(self.prompt) else None


def is_ids(prompt: Any) -> bool:
    """Say whether a prompt is a list of token ids."""
    return isinstance(prompt, list) and all(type(number) is int for number in prompt)


def make_requests(
    workload: Workload, repetition: int, vocabulary: Sequence[int] = (), salt: str = ""
) -> list[Request]:
    """Return the requests of a repetition, in the order in which they are sent.

    Args:
        workload: What to send.
        repetition: From 0 on, or `WARMUP`.
        vocabulary: Ids that prompts are made of; not needed with a file of prompts.
        salt: See `Workload.draws`.

    Raises:
        InputError: The file cannot be used, or there is no vocabulary and no file.
    """
    lengths = workload.lengths(repetition, workload.count(repetition))
    if workload.prompts:
        known = read_prompts(Path(workload.prompts))
        # Repetitions go on in the file where the one before ended, and the warm-up after all of
        # them: no cache shall know what is measured.
        place = workload.repetitions if repetition == WARMUP else repetition
        start = place * workload.requests
        chosen = itertools.islice(itertools.cycle(known), start % len(known), None)
        return [
            Request(prompt, output_len or wanted)
            for (prompt, output_len), (_, wanted) in zip(chosen, lengths, strict=False)
        ]
    if not vocabulary:
        raise InputError(
            "The vocabulary of this engine is not known, so no prompts of an exact length can be "
            "made. Give a file of prompts (prompts)."
        )
    draws = workload.draws(repetition, salt)
    return [
        Request(draw.choices(vocabulary, k=input_len), output_len)
        for draw, (input_len, output_len) in zip(draws, lengths, strict=False)
    ]


def read_prompts(path: Path) -> list[tuple[Prompt, int | None]]:
    """Return the prompts of a file, with the output tokens that are asked for where it says so.

    A file that ends in .jsonl has an object a line, as `trtllm-bench` reads them: with prompt,
    messages or input_ids, and perhaps output_tokens. Any other has a prompt a line.

    Raises:
        InputError: It is not there, is empty, or has a line that is no prompt; with its number.
    """
    data = files.read_file(path.expanduser())
    if data is None:
        raise InputError(f"There is no file of prompts {path}.")
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"The file of prompts {path} is no UTF-8: {error}.") from None
    found: list[tuple[Prompt, int | None]] = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            found.append(_parse(path, number, line) if path.suffix == ".jsonl" else (line, None))
    if not found:
        raise InputError(f"The file of prompts {path} has no prompt in it.")
    return found


def _parse(path: Path, number: int, line: str) -> tuple[Prompt, int | None]:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    prompt = _prompt(record) if isinstance(record, Mapping) else None
    wanted = record.get("output_tokens") if isinstance(record, Mapping) else None
    if not prompt or not (wanted is None or (type(wanted) is int and wanted > 0)):
        raise InputError(
            f"Line {number} of {path} is no prompt. Expected an object with a text as prompt, a "
            "list of token ids as input_ids, or a list of chat messages as messages; and a "
            "number of tokens as output_tokens, or none."
        )
    return prompt, wanted


def _prompt(record: Mapping[str, Any]) -> Prompt | None:
    """Return the prompt of a record, or None where it has none."""
    text, ids, messages = (record.get(name) for name in ("prompt", "input_ids", "messages"))
    if isinstance(text, str):
        return text
    if isinstance(ids, list) and is_ids(ids):
        return ids
    if isinstance(messages, list) and all(_is_message(message) for message in messages):
        return [{"role": m["role"], "content": m["content"]} for m in messages]
    return None


def _is_message(message: Any) -> bool:
    return isinstance(message, Mapping) and all(
        isinstance(message.get(name), str) for name in ("role", "content")
    )


def content(path: str | None) -> str | None:
    """Return the checksum of a file of prompts, or None where there is none to read.

    Raises:
        InputError: There is no such file.
    """
    if path is None:
        return None
    try:
        return files.checksum(Path(path).expanduser())
    except OSError:
        raise InputError(f"There is no file of prompts {path}.") from None


def vocabulary_of(folder: Path) -> list[int]:
    """Return the ids of the ordinary tokens of the model in a folder; none where nobody knows.

    From tokenizer.json, without the tokens that were added to the vocabulary (among them all
    special ones), and only those that the embedding has a row for (config.json).
    """
    tokenizer = files.read_json(folder / "tokenizer.json")
    config = files.read_json(folder / "config.json")
    size = _vocabulary_size(config) if isinstance(config, Mapping) else None
    if not isinstance(tokenizer, Mapping):
        return list(range(size or 0))
    added = {t.get("id") for t in tokenizer.get("added_tokens") or () if isinstance(t, Mapping)}
    model = tokenizer.get("model")
    known = set(_ids(model.get("vocab"))) if isinstance(model, Mapping) else set()
    ordinary = known - added
    return sorted(number for number in ordinary if size is None or number < size)


def _ids(vocabulary: Any) -> Iterator[int]:
    """Yield the ids in a vocabulary: a mapping from tokens, or a list of them (Unigram)."""
    if isinstance(vocabulary, Mapping):
        yield from (number for number in vocabulary.values() if type(number) is int)
    elif isinstance(vocabulary, list):
        yield from range(len(vocabulary))


def _vocabulary_size(config: Mapping[str, Any]) -> int | None:
    text = config.get("text_config")
    size = (text if isinstance(text, Mapping) else config).get("vocab_size")
    return size if type(size) is int else None
