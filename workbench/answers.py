"""Answers that outlive the kernel: what a source was asked, and what it answered.

    answers/<engine's key, or a digest of a server's address and model>.jsonl

One line an answer, which like all of the workbench's home only its user may read. A file keeps the
latest of them, and `forget` removes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from workbench import files
from workbench.endpoint import Endpoint
from workbench.errors import StoreError
from workbench.sources import Source

KEPT = 50
"""Answers of a source that are kept, the latest ones."""

LONGEST = 20_000
"""Characters that are kept of a question, and of an answer."""

MOST = 2 << 20
"""Bytes at which a file is cut back to what is kept, so that this is not done for each answer."""


@dataclass(frozen=True)
class Answer:
    """What was asked and answered at a time (seconds since the epoch).

    `how` is one line on how fast it was, and `settings` one on its sampling options.
    """

    time: float
    asked: str
    answered: str
    how: str
    settings: str

    @classmethod
    def parse(cls, line: dict[str, Any]) -> Self | None:
        """Return what a line of a file says; None where it holds no answer."""
        found = {field.name: line.get(field.name) for field in fields(cls)}
        when = found.pop("time")
        if not isinstance(when, float) or not all(isinstance(v, str) for v in found.values()):
            return None
        return cls(when, **found)  # type: ignore[arg-type]


def keep(source: Source, asked: str, answered: str, how: str, settings: str) -> None:
    """Keep an answer; where the disk takes nothing it is not kept, and that is all.

    Args:
        source: Who answered.
        asked: The prompt, as a person wrote it.
        answered: The text that came.
        how: One line on how fast it was.
        settings: One line on the sampling options.
    """
    answer = Answer(time.time(), _shortened(asked), _shortened(answered), how, settings)
    with contextlib.suppress(OSError, StoreError):
        path = _file(source)
        files.make_folder(path.parent)
        files.append_line(path, asdict(answer))
        if path.stat().st_size > MOST:
            _cut_back(path)


def kept(source: Source) -> tuple[Answer, ...]:
    """Return the answers of a source that were kept, the latest one first."""
    with contextlib.suppress(OSError, StoreError):
        return _read(_file(source))[::-1]
    return ()


def forget(source: Source) -> None:
    """Remove all that is kept of a source.

    Raises:
        OSError: The disk refused.
        StoreError: The workbench's home cannot be used.
    """
    _file(source).unlink(missing_ok=True)


def _file(source: Source) -> Path:
    name = source.key if not isinstance(source, Endpoint) else _digest(source)
    return files.home() / "answers" / f"{name}.jsonl"


def _digest(server: Endpoint) -> str:
    return hashlib.sha256(f"{server.url} {server.model}".encode()).hexdigest()[:20]


def _read(path: Path) -> tuple[Answer, ...]:
    found = map(Answer.parse, files.read_lines(path)[0])
    return tuple(answer for answer in found if answer is not None)[-KEPT:]


def _recent(answers: tuple[Answer, ...]) -> Iterator[Answer]:
    """Yield the latest answers that fit into half of a file, the oldest of them first."""
    sizes = itertools.accumulate(len(json.dumps(asdict(answer))) for answer in answers[::-1])
    few = sum(size <= MOST // 2 for size in sizes)
    yield from answers[len(answers) - few :]


def _cut_back(path: Path) -> None:
    """Write a file anew; a line that another kernel appends at this moment may be lost."""
    temporary = files.temporary_name(path.parent, path.name)
    try:
        descriptor = files.open_journal(temporary)
        try:
            for answer in _recent(_read(path)):
                files.append_record(descriptor, asdict(answer))
        finally:
            os.close(descriptor)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} \u2026"
