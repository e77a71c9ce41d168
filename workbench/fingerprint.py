"""Fingerprints: one hash over everything in a model's directory that decides what an engine is.

Hashing reads the whole content once; afterwards a file is known by its identity (device, inode,
size and times), so that a model of many gigabytes is recognized in milliseconds.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

from workbench import files
from workbench.errors import ModelError
from workbench.hub import ENGINE_FILES, OTHER_WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

THREADS = 4
"""Files hashed at the same time; hashlib lets other threads run meanwhile."""

BUFFER = 4 << 20
"""Bytes read at a time."""

TICK = 0.1
"""File systems stamp times in ticks (10 ms and less on Linux's own). A file that changed less than
this many seconds before it was hashed could change again under the same times, so its hash is not
remembered."""


class _Identity(NamedTuple):
    """What a file is known by without reading it; times in nanoseconds."""

    device: int
    inode: int
    size: int
    mtime: int
    ctime: int

    @classmethod
    def of(cls, path: Path) -> _Identity:
        """Take the identity of a file; links are followed."""
        stat = path.stat()
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

    def is_fresh(self) -> bool:
        """Whether the file changed so recently that a later change could hide."""
        return time.time() - max(self.mtime, self.ctime) / 1e9 < TICK


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
        identities = _identities(path)
        known = _known(path, cache, identities)
        settled = {name for name, identity in identities.items() if not identity.is_fresh()}
        digests = known | _hash(path, identities, set(identities) - set(known), progress)
    except OSError as error:
        raise ModelError(f"{error.filename or path} cannot be read: {error.strerror}.") from error
    if cache and not settled <= set(known):
        _remember(path, cache, {name: identities[name] for name in settled}, digests)
    parts = [[name, identities[name].size, digests[name]] for name in sorted(identities)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def is_known(path: Path, cache: Path | None) -> bool:
    """Whether `fingerprint` would answer without reading a content.

    Raises:
        ModelError: There is no safetensors file.
    """
    try:
        identities = _identities(path)
    except OSError as error:
        raise ModelError(f"{error.filename or path} cannot be read: {error.strerror}.") from error
    return len(_known(path, cache, identities)) == len(identities)


def _identities(path: Path) -> dict[str, _Identity]:
    """Return the files that count, by name."""
    if not path.is_dir():
        raise ModelError(f"There is no directory {path} to fingerprint.")
    found = {
        entry.name: _Identity.of(entry)
        for entry in path.iterdir()
        if _counts(entry.name) and entry.is_file()
    }
    if not any(name.endswith(".safetensors") for name in found):
        raise ModelError(f"{path} has no safetensors file, so there are no weights to fingerprint.")
    return found


def _counts(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in ENGINE_FILES) and not any(
        fnmatchcase(name, pattern) for pattern in OTHER_WEIGHTS
    )


def _hash(
    path: Path,
    identities: Mapping[str, _Identity],
    names: set[str],
    progress: Callable[[int, int], None] | None,
) -> dict[str, str]:
    """Hash files, several at a time, the largest first."""
    total = sum(identities[name].size for name in names)
    done = 0
    lock = threading.Lock()

    def count(size: int) -> None:
        nonlocal done
        with lock:
            done += size
            if progress:
                progress(done, total)

    largest_first = sorted(names, key=lambda name: -identities[name].size)
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        hashes = pool.map(lambda n: _hash_file(path / n, identities[n], count), largest_first)
        return dict(zip(largest_first, hashes, strict=True))


def _hash_file(path: Path, identity: _Identity, count: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(min(BUFFER, identity.size + 1)))
    left = identity.size
    with path.open("rb", buffering=0) as file:
        # A file that grows as fast as it is read would have no end.
        while left >= 0 and (size := file.readinto(buffer)):
            digest.update(buffer[:size])
            left -= size
            count(size)
    if _Identity.of(path) != identity:
        raise ModelError(
            f"{path} changed while it was read. Wait until nothing writes to it, then try again."
        )
    return digest.hexdigest()


def _record(path: Path, cache: Path) -> Path:
    """Return where the hashes of a directory are kept: a file of its own for each."""
    return cache / (hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32] + ".json")


def _known(path: Path, cache: Path | None, identities: Mapping[str, _Identity]) -> dict[str, str]:
    """Return the remembered hashes of files that are still the same; damage counts as a miss."""
    record = files.read_json(_record(path, cache)) if cache else None
    known = {}
    for name, entry in record.items() if isinstance(record, dict) else ():
        match entry:
            case {"identity": identity, "sha256": str(digest)}:
                if name in identities and identity == list(identities[name]):
                    known[name] = digest
    return known


def _remember(
    path: Path, cache: Path, identities: Mapping[str, _Identity], digests: Mapping[str, str]
) -> None:
    record = {
        name: {"identity": identity, "sha256": digests[name]}
        for name, identity in identities.items()
    }
    # A cache that cannot be written costs time at the next call, and nothing else.
    with contextlib.suppress(OSError):
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_json(_record(path, cache), record)
