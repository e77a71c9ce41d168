"""The EngineStore: published engines by key; what is found, published and set aside.

    engines/<key>/manifest.json  and the engine's files beside it

A directory appears in one rename with its manifest inside, so what can be seen is complete. What is
damaged is set aside under a name of its own, and counts as not there.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from workbench import files, usage
from workbench.digests import cache_folder, digests, remember
from workbench.engine import FORMAT, MANIFEST, Engine, Identity, age, key_of, read_engine, sealed
from workbench.errors import StoreError
from workbench.explanations import explain_miss

DAMAGED = ".damaged-"
"""Prefix of engines that were set aside."""

_SET_ASIDE = re.compile(re.escape(DAMAGED) + "[0-9a-f]{20}-[0-9a-f]{12}")


def folder() -> Path:
    """Return the folder of all engines."""
    return files.make_folder(files.home() / "engines")


def list_engines() -> list[Engine]:
    """Return all engines, the newest first; entries that cannot be read are left out."""
    engines = [engine for path in folder().iterdir() if (engine := read_engine(path))]
    return sorted(engines, key=lambda engine: engine.created, reverse=True)


def list_damaged() -> list[Path]:
    """Return the directories of engines that were set aside, the oldest first."""
    found = []
    with os.scandir(folder()) as entries:
        for entry in entries:
            if _SET_ASIDE.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                with contextlib.suppress(FileNotFoundError):  # removed by somebody else
                    found.append((entry.stat().st_mtime, Path(entry.path)))
    return [path for _, path in sorted(found)]


def find_engine(key: str) -> Engine:
    """Return an engine by its key, or by the beginning of its key where that is enough.

    Raises:
        StoreError: There is none, or more than one.
    """
    if not key:
        raise StoreError("Say which engine: its key was empty. `workbench engines` lists them.")
    # A whole key needs no look at all the others.
    whole = read_engine(folder() / key) if key and Path(key).name == key else None
    matches = [whole] if whole else [e for e in list_engines() if e.key.startswith(key)]
    if len(matches) == 1:
        return matches[0]
    what = "is no engine" if not matches else f"are {len(matches)} engines"
    aside = [path.name for path in list_damaged() if path.name.startswith(f"{DAMAGED}{key}")]
    why = f" One was damaged and set aside as {aside[-1]}; build it again." if aside else ""
    raise StoreError(
        f"There {what} whose key begins with '{key}'.{why} `workbench engines` lists them."
    )


def sound_engine(key: str) -> Engine:
    """Return an engine whose content is what was published; one that is damaged is set aside.

    Raises:
        StoreError: There is none of that key, or it is damaged.
    """
    engine = find_engine(key)
    if why := engine.damage():
        raise StoreError(f"{set_aside(engine, why)} Build it again.")
    return engine


def look_up(identity: Identity) -> tuple[Engine | None, str]:
    """Return the engine of an identity, or None; and why, in one sentence.

    Raises:
        StoreError: The system cannot read just now.
    """
    path = folder() / identity.key
    engine = read_engine(path)
    if engine is None and os.path.lexists(path):
        return None, (
            f"An engine with these parameters is there but damaged (its {MANIFEST} cannot be read "
            "or is that of another engine)."
        )
    if engine is None:
        return None, explain_miss(identity, list_engines())
    if why := engine.damage():
        return None, f"An engine with these parameters is there but damaged ({why})."
    return engine, (
        f"The engine {engine.key} was built {age(time.time() - engine.created)} ago from the same "
        "parameters, the same weights (by content) and the same versions of the toolchain."
        f"{usage.suspicion(engine.key)}"
    )


def set_aside(engine: Engine, why: str) -> str:
    """Give a damaged engine a name under which nobody finds it; say so in a sentence.

    Its files stay for whoever wants to know, until `workbench engines evict` needs their room.
    """
    aside = folder() / f"{DAMAGED}{engine.key}-{uuid.uuid4().hex[:12]}"
    sentence = f"The engine {engine.key} is damaged: {why}."
    now = read_engine(engine.path)
    if now and now.manifest != engine.manifest:
        return f"{sentence} It was built again meanwhile."
    try:
        engine.path.rename(aside)
    except FileNotFoundError:
        return sentence  # somebody else was faster
    except OSError as error:
        return f"{sentence} It could not be set aside: {error.strerror}."
    if _is_sound(aside, engine.key):
        # Another build has replaced it between our look and our rename: it goes back.
        with contextlib.suppress(OSError):  # unless there is a third one by now
            aside.rename(engine.path)
        return sentence
    return f"{sentence} It was set aside as {aside.name}."


def _is_sound(path: Path, key: str) -> bool:
    """Say whether a directory holds the engine of a key, whole, under whatever name."""
    found = read_engine(path, any_name=True)
    if found is None or key_of(found.manifest["identity"]) != key:
        return False
    try:
        return not found.damage()
    except StoreError:
        return True  # nobody can tell just now


def publish(temporary: Path, identity: Identity, details: Mapping[str, Any]) -> Engine:
    """Write the manifest into a finished directory and publish it under its key.

    A damaged entry of the same key is set aside first; a sound one stays, and is returned.

    Args:
        temporary: Directory beside the final one, with the engine's files.
        identity: What decides the engine.
        details: "model", "limits", "build" and whatever else the manifest shall carry.

    Raises:
        OSError: The disk refused.
        StoreError: What stands under the name is no engine, and cannot be moved away.
    """
    final = folder() / identity.key
    inventory = dict(_inventory(temporary))
    manifest = {
        "format": FORMAT,
        "key": identity.key,
        "identity": identity.record(),
        "created": time.time(),
        "files": inventory,
        **details,
    }
    files.write_json(temporary / MANIFEST, sealed(manifest))
    return place(temporary, final, {name: entry["sha256"] for name, entry in inventory.items()})


def place(temporary: Path, final: Path, known: Mapping[str, str]) -> Engine:
    """Publish a directory that has its manifest, unless a sound engine is there already.

    Args:
        temporary: The directory, beside the final one.
        final: Its name in the store.
        known: Checksums of its files, so that they need not be read again.

    Raises:
        OSError: The disk refused.
        StoreError: What stands under the name is no engine, and cannot be moved away.
    """
    # Nobody evicts it before it was looked at once more.
    claim = usage.claim_if_possible(final.name)
    try:
        if os.path.lexists(final):
            there = read_engine(final)
            why = there.damage() if there else f"its {MANIFEST} cannot be read or is another's"
            if why:
                set_aside(there or Engine(final, {}), why)
        if files.publish_directory(temporary, final):
            remember(final, cache_folder(), known)
            usage.forget_crash(final.name)
        engine = read_engine(final)
        if engine is None or engine.damage():
            raise StoreError(
                f"{final} is in the way: it is no sound engine, and could not be moved. Move it "
                "away and build again."
            )
        return engine
    finally:
        claim.release()


def _inventory(directory: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    paths = [path for path in directory.rglob("*") if path.is_file()]
    # A manifest that a worker wrote is about to be replaced by ours.
    names = [p.relative_to(directory).as_posix() for p in paths if p != directory / MANIFEST]
    for name, digest in sorted(digests(directory, names, None).items()):
        yield name, {"bytes": (directory / name).stat().st_size, "sha256": digest}
