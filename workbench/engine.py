"""Engines: what decides one, and one that was published.

The key of an engine hashes what decides its content: the canonical spec, the content fingerprint
of the weights, the versions of the toolchain's packages, and the GPU where it is made for one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench import files
from workbench.digests import ChangedError, cache_folder, digests
from workbench.units import format_bytes

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
        data = json.dumps(self.record(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(data.encode()).hexdigest()[:20]

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
        """
        if why := self._misfit():
            return why
        inventory = self.manifest["files"]
        try:
            found = digests(self.path, inventory, cache_folder(), progress, afresh=thorough)
        except ChangedError as error:
            return f"{error} changes while it is read"
        except OSError as error:
            return f"{error.filename} cannot be read: {error.strerror}"
        for name, entry in inventory.items():
            if found[name] != entry["sha256"]:
                return f"the content of {name} is not what was published"
        return ""

    def _misfit(self) -> str:
        """Say which file is missing or has another size, or nothing; quick for any size."""
        for name, entry in self.manifest["files"].items():
            try:
                size = (self.path / name).stat().st_size
            except OSError:
                return f"{name} is missing"
            if size != entry["bytes"]:
                return f"{name} has {size} bytes instead of {entry['bytes']}"
        return ""

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
        return f"{self.manifest['model']['name']}  {precision}  {shape}"

    def __str__(self) -> str:
        when = age(time.time() - self.created)
        return f"{self.key}  {self.title}  {format_bytes(self.bytes)}  built {when} ago"

    def __repr__(self) -> str:
        return f"<Engine {self}>"


def age(seconds: float) -> str:
    """Return how long something took in the largest unit that fits, "3 days"."""
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "moments"


def read_engine(path: Path, *, any_name: bool = False) -> Engine | None:
    """Return the engine in a directory of the store, or None when it holds none.

    What is not published (or not any more) has a name of its own, and counts as none.
    """
    if path.name.startswith(".") and not any_name:
        return None
    manifest = files.read_json(path / MANIFEST)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        return None
    try:
        engine = Engine(path, manifest)
        # What everything else relies on is there and of the right kind.
        _ = engine.backend, engine.bytes, engine.created, manifest["limits"], manifest["model"]
    except (KeyError, TypeError, ValueError):
        return None
    return engine
