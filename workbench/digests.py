"""Digests: SHA-256 of files, computed at disk speed and remembered by the identity of each file.

Hashing reads the whole content once; afterwards a file is known by its identity (device, inode,
size and times), so that many gigabytes are recognized in milliseconds. The change time is part of
it, which no program can set: content that changes under the same size and date is noticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from workbench import files

THREADS = 4
"""Files hashed at the same time; hashlib lets other threads run meanwhile."""

BUFFER = 4 << 20
"""Bytes read at a time."""

TICK = 0.1
"""File systems stamp times in ticks (10 ms and less on Linux's own). A file that changed less than
this many seconds before it was hashed could change again under the same times, so its hash is not
remembered."""


class ChangedError(Exception):
    """A file changed while it was read; its path is the only argument."""


class FileIdentity(NamedTuple):
    """What a file is known by without reading it; times in nanoseconds."""

    device: int
    inode: int
    size: int
    mtime: int
    ctime: int

    @classmethod
    def of(cls, path: Path) -> FileIdentity:
        """Take the identity of a file; links are followed."""
        stat = path.stat()
        return cls(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)

    def is_fresh(self) -> bool:
        """Whether the file changed so recently that a later change could hide."""
        return time.time() - max(self.mtime, self.ctime) / 1e9 < TICK


def cache_folder() -> Path:
    """Return the folder in which the digests of known files are remembered."""
    return files.home() / "fingerprints"


def digests(
    path: Path,
    names: Collection[str],
    cache: Path | None,
    progress: Callable[[int, int], None] | None = None,
    *,
    afresh: bool = False,
) -> dict[str, str]:
    """Return the SHA-256 of files in a directory by name, in hexadecimal.

    Args:
        path: The directory.
        names: Names of the files, relative to it.
        cache: Directory where digests of known files are kept; None keeps nothing.
        progress: Called with the bytes hashed and the bytes of all files that must be read; from
            other threads, but never twice at the same time.
        afresh: Read everything, whatever is known; what is found is remembered.

    Raises:
        OSError: A file cannot be read.
        ChangedError: A file changed while it was read.
    """
    identities = {name: FileIdentity.of(path / name) for name in names}
    known = {} if afresh else _known(path, cache, identities)
    settled = {name for name, identity in identities.items() if not identity.is_fresh()}
    found = known | _hash(path, identities, set(identities) - set(known), progress)
    if cache and not settled <= set(known):
        remember(path, cache, {name: found[name] for name in settled}, identities)
    return found


def are_known(path: Path, names: Collection[str], cache: Path | None) -> bool:
    """Whether `digests` would answer without reading a content.

    Raises:
        OSError: A file is not there.
    """
    identities = {name: FileIdentity.of(path / name) for name in names}
    return len(_known(path, cache, identities)) == len(identities)


def _hash(
    path: Path,
    identities: Mapping[str, FileIdentity],
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


def _hash_file(path: Path, identity: FileIdentity, count: Callable[[int], None]) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(min(BUFFER, identity.size + 1)))
    left = identity.size
    with path.open("rb", buffering=0) as file:
        # A file that grows as fast as it is read would have no end.
        while left >= 0 and (size := file.readinto(buffer)):
            digest.update(buffer[:size])
            left -= size
            count(size)
    if FileIdentity.of(path) != identity:
        raise ChangedError(path)
    return digest.hexdigest()


def _record(path: Path, cache: Path) -> Path:
    """Return where the hashes of a directory are kept: a file of its own for each."""
    return cache / (hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:32] + ".json")


def _known(
    path: Path, cache: Path | None, identities: Mapping[str, FileIdentity]
) -> dict[str, str]:
    """Return the remembered hashes of files that are still the same; damage counts as a miss."""
    record = files.read_json(_record(path, cache)) if cache else None
    known = {}
    for name, entry in record.items() if isinstance(record, dict) else ():
        match entry:
            case {"identity": identity, "sha256": str(digest)}:
                if name in identities and identity == list(identities[name]):
                    known[name] = digest
    return known


def remember(
    path: Path,
    cache: Path,
    found: Mapping[str, str],
    identities: Mapping[str, FileIdentity] | None = None,
) -> None:
    """Keep the digests of files in a directory, by their identity.

    Args:
        path: The directory.
        cache: Where they are kept.
        found: Digests by name.
        identities: What the files were when they were read; by default, what they are now.
    """
    identities = identities or {name: FileIdentity.of(path / name) for name in found}
    record = {
        name: {"identity": identities[name], "sha256": digest} for name, digest in found.items()
    }
    # A cache that cannot be written costs time at the next call, and nothing else.
    with contextlib.suppress(OSError):
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        files.write_json(_record(path, cache), record)
