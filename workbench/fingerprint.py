"""Fingerprints: one hash over everything in a model's directory that decides what an engine is."""

from __future__ import annotations

import hashlib
import json
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from workbench import files
from workbench.digests import ChangedError, are_known, digests
from workbench.errors import InputError, ModelError
from workbench.hub import ENGINE_FILES, OTHER_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def fingerprint(
    path: Path, cache: Path | None, progress: Callable[[int, int], None] | None = None
) -> str:
    """Return the fingerprint of a model's directory: 64 hexadecimal digits.

    It covers names, sizes and contents of weights, configuration, tokenizer and chat template;
    other files, the directory's own name and all dates have no influence.

    Args:
        path: The model's directory.
        cache: Directory where hashes of known files are kept; None reads everything.
        progress: Called with the bytes hashed and the bytes of all files that must be read; from
            other threads, but never twice at the same time.

    Raises:
        ModelError: There is no safetensors file, or a file changed while it was read.
    """
    try:
        names = _names(path)
        found = digests(path, names, cache, progress)
        parts = [[name, (path / name).stat().st_size, found[name]] for name in names]
    except ChangedError as error:
        raise ModelError(
            f"{error} changed while it was read. Wait until nothing writes to it, then try again."
        ) from error
    except OSError as error:
        raise ModelError(f"{error.filename or path} cannot be read: {error.strerror}.") from error
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def is_known(path: Path, cache: Path | None) -> bool:
    """Whether `fingerprint` would answer without reading a content.

    Raises:
        ModelError: There is no safetensors file.
    """
    try:
        return are_known(path, _names(path), cache)
    except OSError as error:
        raise ModelError(f"{error.filename or path} cannot be read: {error.strerror}.") from error


def _names(path: Path) -> list[str]:
    """Return the names of the files that count, sorted."""
    if not path.is_dir():
        raise ModelError(f"There is no directory {path} to fingerprint.")
    found = sorted(
        entry.name for entry in path.iterdir() if _counts(entry.name) and entry.is_file()
    )
    if not any(name.endswith(".safetensors") for name in found):
        raise ModelError(f"{path} has no safetensors file, so there are no weights to fingerprint.")
    return found


def _counts(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in ENGINE_FILES) and not any(
        fnmatchcase(name, pattern) for pattern in OTHER_WEIGHTS
    )


def content_of(name: str, path: Path) -> str:
    """Return a checksum over a file, or over the names and contents of all files in a directory.

    Args:
        name: The parameter that names it.
        path: The file or directory.

    Raises:
        InputError: It is not there.
    """
    if path.is_file():
        return files.checksum(path)
    if not path.is_dir():
        raise InputError(f"{name}: there is no file or directory {path}.")
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            digest.update(f"{file.relative_to(path)}\0{files.checksum(file)}\n".encode())
    return digest.hexdigest()
