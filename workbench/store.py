"""The EngineStore: published engines by key, with manifests; hits and misses explained.

    engines/<key>/manifest.json  and the engine's files beside it

The key hashes what decides the engine's content: the canonical spec, the content fingerprint of
the weights, the versions of the toolchain's packages, and the GPU where the engine is made for
one. A directory appears in one rename with
its manifest inside, so what can be seen is complete.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench import files
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

    def damage(self, *, thorough: bool = False) -> str:
        """Say what is wrong with the files, or nothing.

        Args:
            thorough: Read every byte and compare checksums, at disk speed; otherwise sizes.
        """
        for name, entry in self.manifest["files"].items():
            path = self.path / name
            try:
                size = path.stat().st_size
            except OSError:
                return f"{name} is missing"
            if size != entry["bytes"]:
                return f"{name} has {size} bytes instead of {entry['bytes']}"
            if thorough and files.checksum(path) != entry["sha256"]:
                return f"the content of {name} is not what was published"
        return ""

    def __str__(self) -> str:
        limits = self.limits
        spec = self.manifest["identity"]["spec"]
        known = {**limits, **spec}
        precision = "/".join(str(known[n]) for n in ("quantization", "dtype") if n in known)
        shape = ", ".join(
            f"{name.removeprefix('max_')} {limits[name]}"
            for name in ("max_batch_size", "max_input_len", "max_output_len")
            if name in limits
        )
        age = _age(time.time() - self.created)
        size = format_bytes(self.bytes)
        name = self.manifest["model"]["name"]
        return printable(f"{self.key}  {name}  {precision}  {shape}  {size}  built {age} ago")

    def __repr__(self) -> str:
        return f"<Engine {self}>"


def folder() -> Path:
    """Return the folder of all engines."""
    return files.make_folder(files.home() / "engines")


def list_engines() -> list[Engine]:
    """Return all engines, the newest first; entries that cannot be read are left out."""
    engines = [engine for path in folder().iterdir() if (engine := _read(path))]
    return sorted(engines, key=lambda engine: engine.created, reverse=True)


def find_engine(key: str) -> Engine:
    """Return an engine by its key, or by the beginning of its key where that is enough.

    Raises:
        StoreError: There is none, more than one, or it is damaged.
    """
    matches = [engine for engine in list_engines() if engine.key.startswith(key)]
    if len(matches) != 1:
        what = "is no engine" if not matches else f"are {len(matches)} engines"
        raise StoreError(
            f"There {what} whose key begins with '{key}'. `workbench engines` lists them."
        )
    if damage := matches[0].damage():
        raise StoreError(f"The engine {matches[0].key} is damaged: {damage}. Build it again.")
    return matches[0]


def look_up(identity: Identity) -> tuple[Engine | None, str]:
    """Return the engine of an identity, or None; and why, in one sentence."""
    engine = _read(folder() / identity.key)
    if engine is None:
        return None, _explain_miss(identity)
    if damage := engine.damage():
        return None, f"An engine with these parameters is there but damaged ({damage})."
    age = _age(time.time() - engine.created)
    return engine, (
        f"The engine {engine.key} was built {age} ago from the same parameters, the same weights "
        "(by content) and the same versions of the toolchain."
    )


def _explain_miss(identity: Identity) -> str:
    """Name the nearest engine and the fields in which it differs."""
    candidates = [
        (identity.differences(engine.manifest["identity"]), engine) for engine in list_engines()
    ]
    if not candidates:
        return "The store held no engine."
    differences, nearest = min(candidates, key=lambda pair: len(pair[0]))
    words = [_difference(name, *values) for name, values in list(differences.items())[:4]]
    if len(differences) > 4:
        words.append(f"and {len(differences) - 4} more")
    return f"No engine was the same; the nearest, {nearest.key}, differed in {', '.join(words)}."


def _difference(name: str, theirs: Any, mine: Any) -> str:
    if name.startswith("the model"):
        return name  # two fingerprints would tell nobody anything
    return f"{name} ({theirs} there, {mine} here)"


def _age(seconds: float) -> str:
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return "moments"


def _read(path: Path, *, any_name: bool = False) -> Engine | None:
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


def publish(temporary: Path, identity: Identity, details: Mapping[str, Any]) -> Engine:
    """Write the manifest into a finished directory and publish it under its key.

    A damaged entry of the same key is removed first.

    Args:
        temporary: Directory beside the final one, with the engine's files.
        identity: What decides the engine.
        details: "model", "limits", "build" and whatever else the manifest shall carry.

    Raises:
        OSError: The disk refused.
    """
    final = folder() / identity.key
    manifest = {
        "format": FORMAT,
        "key": identity.key,
        "identity": identity.record(),
        "created": time.time(),
        "files": dict(_inventory(temporary)),
        **details,
    }
    files.write_json(temporary / MANIFEST, manifest)
    if final.exists() and not _healthy(final):
        damaged = files.temporary_name(final.parent, f"damaged-{final.name}")
        final.rename(damaged)
        if _healthy(damaged):
            # Another build has replaced it between our look and our rename: it stays.
            damaged.rename(final)
        shutil.rmtree(damaged, ignore_errors=True)
    files.publish_directory(temporary, final)
    engine = _read(final)
    assert engine is not None  # noqa: S101 - just written, or published by another before
    return engine


def _healthy(path: Path) -> bool:
    engine = _read(path, any_name=True)
    return engine is not None and not engine.damage()


def _inventory(directory: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            name = path.relative_to(directory).as_posix()
            yield name, {"bytes": path.stat().st_size, "sha256": files.checksum(path)}
