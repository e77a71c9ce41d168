"""Tar files read and written strictly: regular files, one header block each, nothing else.

The `tarfile` module makes and reads the header blocks. Its archives are not used: they follow
extensions of the format (long names, sparse files, links), which a hostile file can turn against
the reader.
"""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

Progress = Callable[[int, int], None]
"""Called with the bytes done and the bytes of all files."""

BUFFER = 4 << 20
"""Bytes copied at a time."""

NAME_LIMIT = 100
"""Bytes of a name that one header holds."""

END = bytes(2 * tarfile.BLOCKSIZE)
"""What ends a tar file."""


class Broken(Exception):
    """A content is not what it should be; the end of a sentence that says why."""


class Counter:
    """Bytes that went through, for whoever wants to know."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def add(self, size: int) -> None:
        """Count some more."""
        self._done += size
        if self._progress:
            self._progress(self._done, self._total)


@contextmanager
def write_member(file: IO[bytes], name: str, size: int) -> Iterator[None]:
    """Write a header; the caller writes `size` bytes, and then the last block is filled.

    Owner and times are those of every `TarInfo`: 0, and no names.
    """
    header = tarfile.TarInfo(name)
    header.size, header.mode = size, 0o600
    file.write(header.tobuf(tarfile.GNU_FORMAT))
    yield
    file.write(bytes(_padding(size)))


def read_header(file: IO[bytes]) -> tarfile.TarInfo:
    """Read one header block; of an extension, this is an entry like any other.

    Raises:
        Broken: There is none.
    """
    try:
        return tarfile.TarInfo.frombuf(file.read(tarfile.BLOCKSIZE), "utf-8", "replace")
    except tarfile.HeaderError as error:
        raise Broken("it is no tar file, or it was cut off") from error


def expect_member(file: IO[bytes], name: str, size: int) -> None:
    """Read the next header.

    Raises:
        Broken: It is not that of a regular file of this name and size.
    """
    header = read_header(file)
    regular = header.type == tarfile.REGTYPE
    if not regular or header.name != name or header.size != size:
        link = header.islnk() or header.issym()
        kind = "file" if regular else "link" if link else "entry"
        raise Broken(
            f"where the file {name} of {size:,} bytes should stand, it has the {kind} "
            f"{header.name!r} of {header.size:,} bytes"
        )


def skip_padding(file: IO[bytes], size: int) -> None:
    """Read what fills the last block of a content.

    Raises:
        Broken: It is not empty.
    """
    if file.read(_padding(size)) != bytes(_padding(size)):
        raise Broken("it was cut off, or something stands between two files")


def copy(source: IO[bytes], target: IO[bytes], name: str, size: int, counter: Counter) -> str:
    """Copy exactly `size` bytes; return their SHA-256.

    Raises:
        Broken: There are fewer.
    """
    digest = hashlib.sha256()
    left = size
    while left:
        data = source.read(min(BUFFER, left))
        if not data:
            raise Broken(f"{name} ends {left:,} bytes too early")
        target.write(data)
        digest.update(data)
        left -= len(data)
        counter.add(len(data))
    return digest.hexdigest()


def _padding(size: int) -> int:
    return -size % tarfile.BLOCKSIZE
