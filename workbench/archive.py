"""Engine archives: one file that carries a published engine to another machine.

    <key>/manifest.json, then <key>/NAME of every file that the manifest names, in sorted order

An archive is a plain tar file, since weights do not compress, and the same engine gives the same
bytes. Import takes an archive for what anybody may have written: it reads exactly the members that
`export_engine` writes, header by header, so that no link, device, path or extension of the tar
format is ever followed. What a runtime does with an engine that was made to harm is another
matter: open only engines of people whom you trust.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from workbench import eviction, files, store, usage
from workbench.engine import FORMAT, MANIFEST, Engine, Identity, is_unaltered, read_engine
from workbench.errors import StoreError
from workbench.hardware import free_disk
from workbench.tarball import (
    END,
    NAME_LIMIT,
    Broken,
    Counter,
    Progress,
    copy,
    expect_member,
    read_header,
    skip_padding,
    write_member,
)
from workbench.units import format_bytes

MANIFEST_LIMIT = 4 << 20
"""Largest manifest that is read; one of ten files has some kilobytes."""

_KEY = re.compile(r"[0-9a-f]{20}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class _Contents:
    """What a manifest says that belongs to its engine; `data` are the manifest's own bytes."""

    key: str
    manifest: Mapping[str, Any]
    data: bytes

    @classmethod
    def parse(cls, data: bytes, key: str) -> _Contents:
        """Read a manifest that nobody vouches for.

        Raises:
            Broken: It is none, belongs to another key, or names what is not a file of an engine.
        """
        try:
            manifest = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise Broken(f"its {MANIFEST} is not valid JSON") from error
        match manifest:
            case {
                "format": int(number),
                "identity": {
                    "spec": {"backend": str()} as spec,
                    "weights": str(weights),
                    "toolchain": dict(toolchain),
                    "device": dict(device),
                } as record,
                "created": int() | float() as created,
                "files": dict(entries),
                "key": str(named),
                "limits": dict(),
                "facts": dict(),
                "model": {"name": str(), "parameters": int()},
                "build": {"stages": list(stages), "smoke": {"ran": bool()}},
            } if (number, named) == (FORMAT, key) and _is_time(created) and _are_stages(stages):
                pass
            case _:
                raise Broken(f"its {MANIFEST} is not one that this version writes")
        if not is_unaltered(manifest):
            raise Broken(f"the content of its {MANIFEST} is not what was published")
        identity = Identity(spec, weights, toolchain, device)
        if identity.record() != record or identity.key != key:
            raise Broken(f"its {MANIFEST} is not that of {key}: the key is a hash over it")
        for name, entry in entries.items():
            _check_entry(key, name, entry)
        return cls(key, manifest, data)

    @property
    def entries(self) -> list[tuple[str, int, str]]:
        """Name, bytes and SHA-256 of each file, sorted by name."""
        listed = self.manifest["files"].items()
        return sorted((name, entry["bytes"], entry["sha256"]) for name, entry in listed)

    @property
    def bytes(self) -> int:
        """Bytes of all files."""
        return sum(size for _, size, _ in self.entries)

    @property
    def runs_code(self) -> bool:
        """Whether a session may run code of the model's repository."""
        spec, limits = self.manifest["identity"]["spec"], self.manifest["limits"]
        return bool(spec.get("trust_remote_code") or limits.get("trust_remote_code"))


def _is_stage(value: Any) -> bool:
    match value:
        case {"name": str(), "seconds": int() | float()}:
            return True
    return False


def _are_stages(values: list[Any]) -> bool:
    return all(map(_is_stage, values))


def _is_time(seconds: float) -> bool:
    """Say whether a number is a time since 1970 that a person would believe."""
    return 0 <= seconds < 1e11


def _check_entry(key: str, name: str, entry: Any) -> None:
    """Raise Broken unless a name leads to a file inside, with a size and a checksum."""
    parts = PurePosixPath(name).parts
    inside = parts and "/".join(parts) == name and parts[0] != "/" and ".." not in parts
    if not inside or not name.isprintable() or name == MANIFEST:
        raise Broken(f"its {MANIFEST} names {name!r}, which is no file inside an engine")
    if len(f"{key}/{name}".encode()) > NAME_LIMIT:
        raise Broken(f"the name {name} is longer than an archive holds")
    match entry:
        case {"bytes": int(size), "sha256": str(digest)} if size >= 0 and _SHA256.fullmatch(digest):
            return
    raise Broken(f"its {MANIFEST} gives no size and checksum for {name}")


def export_engine(
    engine: Engine, path: str | Path, *, overwrite: bool = False, progress: Progress | None = None
) -> None:
    """Write a published engine into one file, for `import_engine`.

    Args:
        engine: The engine; every byte is compared with its manifest on the way.
        path: The file; only its user may read it.
        overwrite: Replace a file of that name.
        progress: Called with the bytes written and the bytes of all files.

    Raises:
        StoreError: The engine is damaged or gone, the file exists, or the disk refused. No file is
            left.
    """
    path = Path(path).expanduser().absolute()
    if not overwrite and os.path.lexists(path):
        raise _exists(path)
    with usage.using(engine):
        _export(engine, path, overwrite=overwrite, progress=progress)


def _export(engine: Engine, path: Path, *, overwrite: bool, progress: Progress | None) -> None:
    temporary = files.temporary_name(path.parent, path.name)
    try:
        contents = _Contents.parse((engine.path / MANIFEST).read_bytes(), engine.key)
        with open(temporary, "xb", opener=files.private) as file:
            _write(file, engine.path, contents, progress)
            file.flush()
            os.fsync(file.fileno())
        _put_in_place(temporary, path, overwrite=overwrite)
    except Broken as error:
        raise StoreError(
            f"The engine {engine.key} is damaged: {error}. It was not exported; build it again."
        ) from error
    except OSError as error:
        raise StoreError(
            f"The engine {engine.key} was not exported to {path}: {error.strerror}."
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _write(
    file: IO[bytes], directory: Path, contents: _Contents, progress: Progress | None
) -> None:
    with write_member(file, f"{contents.key}/{MANIFEST}", len(contents.data)):
        file.write(contents.data)
    count = Counter(contents.bytes, progress)
    for name, size, digest in contents.entries:
        with (
            _source(directory, name) as source,
            write_member(file, f"{contents.key}/{name}", size),
        ):
            if copy(source, file, name, size, count) != digest or source.read(1):
                raise Broken(f"the content of {name} is not what was published")
    file.write(END)


def _source(directory: Path, name: str) -> IO[bytes]:
    try:
        return (directory / name).open("rb")
    except FileNotFoundError as error:
        raise Broken(f"{name} is missing") from error


def _put_in_place(temporary: Path, path: Path, *, overwrite: bool) -> None:
    """Give a finished file its name, in one step; a file that came meanwhile stays."""
    if overwrite:
        temporary.replace(path)
    else:
        try:
            os.link(temporary, path)
        except OSError as error:
            if os.path.lexists(path):
                raise _exists(path) from error
            # Not every file system has links; here a file of this very moment could be lost.
            temporary.rename(path)
    files.sync_directory(path.parent)


def _exists(path: Path) -> StoreError:
    return StoreError(
        f"{path} exists, and it was not overwritten. Give another name, or say that it may be "
        "(--overwrite)."
    )


def import_engine(
    path: str | Path,
    *,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
) -> tuple[Engine, bool]:
    """Bring the engine of an archive into the store, and keep that in its budget.

    Args:
        path: A file that `export_engine` wrote, here or elsewhere.
        trust_remote_code: Take also an engine whose spec lets code of the model's repository run.
        progress: Called with the bytes read and the bytes of all files.
        tell: Called with a sentence for each thing that was removed for it.

    Returns:
        The engine, and whether it is new; one that is there already stays as it is.

    Raises:
        StoreError: The file is no archive, holds anything but the engine of its manifest, or does
            not fit on the disk. Nothing is changed.
        InputError: The budget that the environment gives is no size.
    """
    path = Path(path).expanduser()
    try:
        if not path.is_file():
            raise StoreError(f"There is no file {path}. Give one that `engines export` wrote.")
        with path.open("rb") as file:
            contents = _read_manifest(file)
            there = read_engine(store.folder() / contents.key)
            if there and not there.damage():
                return there, False
            _check_import(path, contents, trust_remote_code=trust_remote_code)
            eviction.budget()  # one that is no size is told before anything is read
            engine = _read_and_publish(file, contents, progress)
            eviction.keep_budget(engine, tell)
            return engine, True
    except Broken as error:
        raise StoreError(
            f"{path} is no archive that can be imported: {error}. Nothing was imported. Export "
            "the engine again, and compare the two files after copying."
        ) from error
    except OSError as error:
        raise StoreError(f"{path} was not imported: {error.strerror}.") from error


def _check_import(path: Path, contents: _Contents, *, trust_remote_code: bool) -> None:
    """Refuse what would run code, or would not fit, before anything is written.

    Raises:
        StoreError: Says which, and what to do.
    """
    if contents.runs_code and not trust_remote_code:
        raise StoreError(
            f"The engine in {path} was built with trust_remote_code: code from the repository of "
            "its model may run with your rights. Import it with trust_remote_code if you trust "
            "that code and whoever gave you the file."
        )
    free = free_disk(store.folder())
    if contents.bytes > free:
        raise StoreError(
            f"The engine in {path} takes {format_bytes(contents.bytes)}, and "
            f"{format_bytes(free)} are free in {store.folder()}. Free some space first."
        )


def _read_and_publish(file: IO[bytes], contents: _Contents, progress: Progress | None) -> Engine:
    """Copy all files into a directory of our own; then it appears in the store as a whole."""
    temporary = files.temporary_name(store.folder(), f"import-{contents.key}")
    # So that a sweep knows whether somebody still writes it.
    claim = usage.claim(temporary.name)
    try:
        temporary.mkdir(mode=0o700)
        count = Counter(contents.bytes, progress)
        for name, size, digest in contents.entries:
            expect_member(file, f"{contents.key}/{name}", size)
            target = temporary / name
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with open(target, "xb", opener=files.private) as output:
                if copy(file, output, name, size, count) != digest:
                    raise Broken(f"the content of {name} is not what was exported")
            skip_padding(file, size)
        if file.read(len(END)) != END:
            raise Broken("it does not end after the last file of its manifest")
        with open(temporary / MANIFEST, "xb", opener=files.private) as output:
            output.write(contents.data)
        known = {name: digest for name, _, digest in contents.entries}
        return store.place(temporary, store.folder() / contents.key, known)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        claim.release()
        usage.forget(temporary.name)


def _read_manifest(file: IO[bytes]) -> _Contents:
    """Read the first member; its folder is the engine's key."""
    header = read_header(file)
    key, _, name = header.name.partition("/")
    if not header.isreg() or not _KEY.fullmatch(key) or name != MANIFEST:
        raise Broken(f"it does not begin with the {MANIFEST} of an engine")
    if not 0 <= header.size <= MANIFEST_LIMIT:
        raise Broken(f"its {MANIFEST} has {header.size:,} bytes")
    data = file.read(header.size)
    skip_padding(file, header.size)
    return _Contents.parse(data, key)
