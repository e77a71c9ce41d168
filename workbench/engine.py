"""Engines: what decides one, and one that was published.

The key of an engine hashes what decides its content: the canonical spec, the content fingerprint
of the weights, the versions of the toolchain's packages, and the GPU where it is made for one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench import files
from workbench.digests import ChangedError, cache_folder, digests
from workbench.errors import StoreError
from workbench.units import format_bytes, printable

FORMAT = 1
"""Version of the manifest's layout."""

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Identity:
    """What decides an engine; `key` is its name in the store."""

    spec: Mapping[str, Any]
    weights: str
    toolchain: Mapping[str, str]
    device: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """Twenty hexadecimal digits of a SHA-256 over the identity."""
        return key_of(self.record())

    def record(self) -> dict[str, Any]:
        """Return plain values, for manifests."""
        return {
            "format": FORMAT,
            "spec": dict(self.spec),
            "weights": self.weights,
            "toolchain": dict(self.toolchain),
            "device": dict(self.device),
        }

    def differences(self, other: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """Return the fields in which another identity record differs: name -> (other, this)."""
        mine, theirs = _flat(self.record()), _flat(other)
        return {
            name: (theirs.get(name), mine.get(name))
            for name in sorted(mine.keys() | theirs.keys())
            if mine.get(name) != theirs.get(name)
        }


def key_of(record: Mapping[str, Any]) -> str:
    """Return the key of an identity record."""
    return _checksum(record)[:20]


def _checksum(record: Mapping[str, Any]) -> str:
    """Return a SHA-256 over plain values, however they are written down."""
    return hashlib.sha256(_CANONICAL.encode(record).encode()).hexdigest()


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest with a checksum over itself: what it says decides how an engine runs."""
    plain = json.loads(json.dumps(manifest))
    return {**plain, "checksum": _checksum(plain)}


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of an identity record under the names that users know."""
    flat: dict[str, Any] = {"the model's weights or tokenizer": record.get("weights")}
    flat.update(record.get("spec") or {})
    flat.update({f"version of {k}": v for k, v in (record.get("toolchain") or {}).items()})
    flat.update({f"the GPU's {k}": v for k, v in (record.get("device") or {}).items()})
    return flat


@dataclass(frozen=True)
class Engine:
    """A published engine; immutable. `asked` are limits that differ from those of its build."""

    path: Path
    manifest: Mapping[str, Any]
    asked: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Name in the store."""
        return self.path.name

    @property
    def backend(self) -> str:
        """Name of the backend that built it and can run it."""
        return str(self.manifest["identity"]["spec"]["backend"])

    @property
    def limits(self) -> dict[str, Any]:
        """What a session gives to the runtime and enforces, unless told otherwise."""
        return {**self.manifest["limits"], **self.asked}

    def under(self, limits: Mapping[str, Any]) -> Engine:
        """Return the same engine under other limits, where they differ from its own."""
        own = self.manifest["limits"]
        asked = {name: value for name, value in limits.items() if own.get(name) != value}
        return replace(self, asked=asked)

    @property
    def bytes(self) -> int:
        """Size of its files on disk."""
        return sum(entry["bytes"] for entry in self.manifest["files"].values())

    @property
    def created(self) -> float:
        """When it was published, in seconds since 1970."""
        return float(self.manifest["created"])

    def damage(
        self,
        *,
        thorough: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> str:
        """Say what is wrong with the files, or nothing.

        Every byte counts: contents are compared with the checksums in the manifest. A file that
        was read before and has not been touched since is known without being read again.

        Args:
            thorough: Read every byte at disk speed, whatever is known: a disk can lose what nobody
                has touched.
            progress: Called with the bytes read and the bytes that must be read.

        Raises:
            StoreError: The system cannot read just now, which says nothing about the engine.
        """
        if why := self._altered() or self._misfit():
            return why
        inventory = self.manifest["files"]
        try:
            found = digests(self.path, inventory, cache_folder(), progress, afresh=thorough)
        except ChangedError as error:
            return f"{error} changes while it is read"
        except OSError as error:
            return self._unreadable(error)
        for name, entry in inventory.items():
            if found[name] != entry["sha256"]:
                return f"the content of {name} is not what was published"
        return ""

    def _altered(self) -> str:
        """Say that the manifest is not what was published, or nothing."""
        sound = is_unaltered(self.manifest)
        return "" if sound else f"the content of {MANIFEST} is not what was published"

    def _misfit(self) -> str:
        """Say which file is missing or has another size, or nothing; quick for any size."""
        for name, entry in self.manifest["files"].items():
            try:
                status = (self.path / name).stat()
            except FileNotFoundError:
                return f"{name} is missing"
            except OSError as error:
                return self._unreadable(error)
            if not stat.S_ISREG(status.st_mode):
                return f"{name} is no file"
            if status.st_size != entry["bytes"]:
                return f"{name} has {status.st_size} bytes instead of {entry['bytes']}"
        return ""

    def _unreadable(self, error: OSError) -> str:
        """Say what cannot be read.

        Raises:
            StoreError: The reason is none of the engine: a sound one must not be set aside for it.
        """
        name = Path(error.filename).name if error.filename else "a file"
        if error.errno in files.ABSENT | {errno.EIO}:
            return f"{name} cannot be read: {error.strerror}"
        raise StoreError(
            f"The engine {self.key} cannot be read just now ({name}: {error.strerror}). Nothing "
            "is concluded from that; try again."
        ) from error

    @property
    def title(self) -> str:
        """What was built, in a few words: the model, its precision, the shapes."""
        limits = self.limits
        spec = self.manifest["identity"]["spec"]
        known = {**limits, **spec}
        precision = "/".join(str(known[n]) for n in ("quantization", "dtype") if n in known)
        shape = ", ".join(
            f"{name.removeprefix('max_')} {limits[name]}"
            for name in ("max_batch_size", "max_input_len", "max_output_len")
            if name in limits
        )
        return f"{self.model_name}  {precision}  {shape}"

    def __str__(self) -> str:
        when = age(time.time() - self.created)
        return printable(f"{self.key}  {self.title}  {format_bytes(self.bytes)}  built {when} ago")

    @property
    def model_name(self) -> str:
        """The model's name on one line: a manifest from elsewhere may have any text there."""
        return " ".join(printable(self.manifest["model"]["name"]).split())

    def __repr__(self) -> str:
        return f"<Engine {self}>"


def age(seconds: float) -> str:
    """Return how long something took in the largest unit that fits, "3 days"."""
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "moments"


def is_unaltered(manifest: Mapping[str, Any]) -> bool:
    """Whether a manifest is what was published; early ones have no checksum, and cannot tell."""
    plain = {name: value for name, value in manifest.items() if name != "checksum"}
    return manifest.get("checksum") in (None, _checksum(plain))


def read_engine(path: Path, *, any_name: bool = False) -> Engine | None:
    """Return the engine in a directory of the store, or None when it holds none.

    What is not published (or not any more) has a name of its own, and counts as none; so does one
    whose name is not the key of its identity, such as one of two that were swapped.

    Args:
        path: The directory.
        any_name: Read it whatever its name is.
    """
    if path.name.startswith(".") and not any_name:
        return None
    match files.read_json(path / MANIFEST):
        # What everything else relies on is there and of the right kind.
        case {
            "format": int(number),
            "identity": {
                "spec": {"backend": str()},
                "weights": str(),
                "toolchain": dict(),
            } as known,
            "created": int() | float(),
            "files": dict(entries),
            "limits": dict(),
            "model": {"name": str()},
        } as manifest if number == FORMAT and all(map(_is_entry, entries.values())):
            return Engine(path, manifest) if any_name or key_of(known) == path.name else None
    return None


def _is_entry(entry: Any) -> bool:
    match entry:
        case {"bytes": int(), "sha256": str()}:
            return True
    return False
