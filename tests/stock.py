"""Engines in the store without a build: of the played backend, whole, and made in milliseconds."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from tests.faults import Faulty, until
from tests.faults.backend import BACKEND
from workbench import files, store
from workbench.digests import cache_folder
from workbench.engine import Engine, Identity
from workbench.fingerprint import fingerprint, is_known


def write_files(directory: Path, seed: int, size: int) -> None:
    """Write what the played compiler writes."""
    directory.mkdir()
    content = hashlib.shake_256(str(seed).encode()).digest(size)
    (directory / "engine.bin").write_bytes(content)
    (directory / "words.json").write_text(json.dumps({"seed": seed}))


def publish(identity: Identity, seed: int = 0, size: int = 4096, **limits: Any) -> Engine:
    """Publish an engine as the last step of a build does."""
    temporary = files.temporary_name(store.folder(), "made")
    write_files(temporary, seed, size)
    details = {
        "model": {"name": "made", "parameters": 1},
        "limits": limits,
        "facts": {},
        "build": {"stages": [], "smoke": {"ran": False}},
    }
    try:
        return store.publish(temporary, identity, details)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def make(seed: int = 0, size: int = 4096) -> Engine:
    """Publish an engine that nobody opens."""
    return publish(
        Identity({"backend": "fault", "seed": seed}, "weights", {"fault": "1.0"}), seed, size
    )


def stock(faulty: Faulty, seed: int = 0, **values: Any) -> Engine:
    """Publish an engine of the played backend that a session can load, and a build finds."""
    spec = faulty.spec(seed=seed, **values)
    # A model that was just written is only known after a moment; a build finds no hit before.
    until(lambda: fingerprint(faulty.model, cache_folder()) and _is_known(faulty))
    return publish(faulty.identity(seed=seed, **values), seed, spec.size, **BACKEND.limits(spec))  # type: ignore[attr-defined]


def _is_known(faulty: Faulty) -> bool:
    return is_known(faulty.model, cache_folder())
