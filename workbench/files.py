"""Files: the root folder, atomic writes, one publish function, append-only journals."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import stat
import sys
import uuid
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from workbench.errors import StoreError

TEMPORARY = ".tmp-"
"""Prefix of everything that is not published yet."""

ABSENT = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EPERM}
)
"""What the system says where there is no file that we could ever read. Everything else, such as
too many open files, says nothing about the file: a good entry must not pass for a missing one."""


def home() -> Path:
    """Return the root of all that the workbench keeps.

    `WORKBENCH_HOME`, or the platform's data directory for the user. Private to the user.

    Raises:
        StoreError: The folder cannot be made.
    """
    path = Path(os.environ.get("WORKBENCH_HOME") or _data_directory()).expanduser().absolute()
    return make_folder(path)


def make_folder(path: Path) -> Path:
    """Return a folder that is private to the user, made if it is not there.

    Raises:
        StoreError: It cannot be made or used.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.scandir(path).close()
    except OSError as error:
        busy = error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
        remedy = "Set WORKBENCH_HOME to a folder that you can write to."
        raise StoreError(
            f"The folder {path} cannot be used: {error.strerror}. "
            f"{'Try again when the system can.' if busy else remedy}"
        ) from error
    return path


def _data_directory() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "trtllm-workbench"
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "trtllm-workbench"


def temporary_name(parent: Path, label: str) -> Path:
    """Return a path beside the final one that no other attempt uses."""
    return parent / f"{TEMPORARY}{label}-{uuid.uuid4().hex[:12]}"


def private(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file that only its user may read, whatever the umask; an `opener` for `open`."""
    return os.open(path, flags, 0o600)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file that is there completely or not at all.

    Raises:
        OSError: The disk refused; nothing is left behind.
    """
    temporary = temporary_name(path.parent, path.name)
    try:
        # File names need not be text; `read_json` gives them back as they were.
        with open(temporary, "x", encoding="utf-8", errors="surrogatepass", opener=private) as file:
            json.dump(value, file, indent=1, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _settle(path.parent)


def read_json(path: Path) -> Any:
    """Return the value of a JSON file, or None when there is none that can be read.

    Raises:
        StoreError: As `read_file`.
    """
    data = read_file(path)
    try:
        return None if data is None else json.loads(data)
    except (ValueError, RecursionError):
        return None


def read_file(path: Path, offset: int = 0) -> bytes | None:
    """Return the content of a file from a byte offset on, or None where there is no file.

    Whatever else has its name counts as no file: a directory, a link to nowhere, a FIFO (which
    would be waited for without end), and a file that we may not read.

    Raises:
        StoreError: The system cannot read just now, which says nothing about the file.
    """
    try:
        with open_regular(path) as file:
            file.seek(offset)
            return file.read()
    except OSError as error:
        if error.errno in ABSENT:
            return None
        raise StoreError(
            f"The system cannot read {path} just now: {error.strerror}. Nothing is concluded "
            "from that; try again when it can."
        ) from error


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file to read; whatever else it is counts as not found, and is not waited for.

    Raises:
        OSError: It cannot be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.ENOENT, "It is no regular file", str(path))
        with open(descriptor, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(descriptor)


def read_end(path: Path, most: int) -> str:
    """Return the last bytes of a log as text, at most so many; nothing where none can be read."""
    try:
        with open_regular(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - most))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def publish_directory(temporary: Path, final: Path) -> bool:
    """Make a finished directory visible under its final name, in one step.

    Every file is on the disk before the rename, so a directory that can be seen is complete,
    also after a power cut.

    Returns:
        False when another attempt had published before; the temporary directory is removed.

    Raises:
        OSError: The disk refused; the temporary directory stays for its owner to remove.
    """
    for path in temporary.rglob("*"):
        if path.is_file():
            sync_file(path)
        elif path.is_dir():
            sync_directory(path)
    sync_directory(temporary)
    try:
        temporary.rename(final)
    except OSError:
        # rename(2) refuses a directory that exists and is not empty.
        if not final.is_dir():
            raise
        shutil.rmtree(temporary, ignore_errors=True)
        return False
    _settle(final.parent)
    return True


def _settle(directory: Path) -> None:
    """Wait until a name that can be seen is on the disk too, where the system can do that.

    What has the name was on the disk before, so a refusal costs at worst the name in a power cut.
    What can be seen already must not be told as a failure.
    """
    with contextlib.suppress(OSError):
        sync_directory(directory)


def sync_file(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


sync_directory = sync_file
"""Wait until the names in a directory are on the disk; the same call does it on POSIX."""


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: It cannot be read, or is no regular file.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def append_line(path: Path, record: dict[str, Any], *, sync: bool = False) -> None:
    """Append one JSON line to a journal; see `append_record`.

    Args:
        path: The journal.
        record: The line.
        sync: Wait until it is on the disk.
    """
    descriptor = open_journal(path)
    try:
        append_record(descriptor, record)
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def open_journal(path: Path) -> int:
    """Return a descriptor for `append_record`; the journal is made if it is not there."""
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)


def append_record(descriptor: int, record: dict[str, Any]) -> None:
    """Append one JSON line to an open journal, in one write where the system takes it in one.

    A write of one line with O_APPEND is not torn by other writers on a local file system; a
    line that a crash tore is ignored by `read_lines`, and the next append starts a new one.

    Raises:
        OSError: The system refused; a part of the line may be there.
    """
    line = json.dumps(record).encode() + b"\n"
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        line = b"\n" + line
    while line:
        line = line[os.write(descriptor, line) :]


def read_lines(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Return the whole records of a journal from a byte offset on, and the next offset.

    A last line without its end is left for the next call; a line that is no JSON object (torn
    by a crash) is passed over. A journal that is not there yet, or is no file, is empty.

    Raises:
        StoreError: As `read_file`.
    """
    data = read_file(path, offset) or b""
    end = data.rfind(b"\n") + 1
    return list(_records(data[:end])), offset + end


def _records(data: bytes) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict):
            yield record
