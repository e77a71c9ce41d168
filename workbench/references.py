"""Reference engines: asked once, and compared with every engine that is measured against them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import files
from workbench.backends import get_backend
from workbench.engine import Engine
from workbench.errors import InputError, RequestError
from workbench.opening import open_engine
from workbench.prompts import vocabulary_of
from workbench.quality import (
    LACKS,
    Answering,
    Encode,
    Quality,
    ask_reference,
    compare,
    digest,
    encoder,
    perplexity,
    prompts_of,
    window_of,
)


def model_folders(engine: Engine) -> list[Path]:
    """Return where the tokenizer and the configuration of an engine may be, the nearest first."""
    facts = engine.manifest.get("facts", {})
    places = (
        engine.path,
        engine.limits.get("checkpoint"),
        facts.get("checkpoint"),
        engine.manifest["model"].get("source"),
    )
    return [Path(place) for place in places if place]


def vocabulary_of_engine(engine: Engine) -> list[int]:
    """Return the ordinary token ids of an engine; none where nobody knows."""
    return next(filter(None, map(vocabulary_of, model_folders(engine))), [])


@dataclass(frozen=True)
class Comparison:
    """What is asked of an engine for its quality, and what a reference answered.

    `reference` and `answered` are None where answers are not compared.
    """

    quality: Quality
    prompts: Sequence[Any]
    encode: Encode | None
    reference: Engine | None
    answered: Mapping[str, Any] | None

    @classmethod
    def prepare(cls, engine: Engine, quality: Quality, reference: Engine | None) -> Comparison:
        """Have the reference answer, unless it has before; it is closed again.

        Raises:
            InputError: The file of prompts cannot be used, or a prompt does not fit.
            WorkbenchError: The reference cannot be loaded, or its worker died.
        """
        encode = encoder(model_folders(engine))
        prompts = prompts_of(quality, encode)
        told = _answered(reference, prompts, quality) if reference else None
        return cls(quality, prompts, encode, reference, told)

    def measure(self, session: Answering) -> dict[str, Any]:
        """Return the quality of an engine as plain values; why a part of it is missing as "lacks".

        Raises:
            InputError: The text cannot be used.
            RequestError: A prompt does not fit.
            SessionError: The worker died.
        """
        found: dict[str, Any] = {"lacks": []}
        if self.reference and self.answered:
            found["reference"] = self.reference.key
            found |= compare(session, self.answered, self.prompts, self.quality.quality_len)
        if self.quality.quality_text:
            found |= {"text": Path(self.quality.quality_text).name, "window": window_of(session)}
            try:
                found |= self._perplexity(session, Path(self.quality.quality_text))
            except RequestError as error:
                found["perplexity"] = None
                found["lacks"].append(f"no perplexity: {error}")
        return found

    def _perplexity(self, session: Answering, text: Path) -> dict[str, Any]:
        """Return the perplexity of a text, and a digest of its tokens.

        Raises:
            InputError: The text cannot be used.
            RequestError: The text cannot be encoded, or the backend has no scores.
        """
        if self.encode is None:
            raise RequestError(LACKS)
        ids = self.encode(_text(text))
        return {"perplexity": perplexity(session, ids), "text_digest": digest(ids)}


def _text(path: Path) -> str:
    data = files.read_file(path.expanduser())
    if data is None:
        raise InputError(f"There is no text {path}.")
    return data.decode(errors="replace")


def _answered(engine: Engine, prompts: Sequence[Any], quality: Quality) -> Mapping[str, Any]:
    """Return what a reference answers; asked once for an engine, its limits and the prompts."""
    asked = [engine.key, engine.limits, prompts, quality.quality_len]
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:20]
    path = files.make_folder(files.home() / "cache") / f"answers-{digest}.json"
    known = files.read_json(path)
    if isinstance(known, dict) and {"answers", "sampled"} <= known.keys():
        return known
    with open_engine(engine) as session:
        told = ask_reference(session, prompts, quality.quality_len)
    if told["sampled"] is not None or not get_backend(engine.backend).scores:
        files.write_json(path, told)  # else it was refused, which may pass
    return told
