"""Opening an engine: claimed, sound, and made for this toolchain and GPU, before it is loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from workbench import session_history, store, usage
from workbench.backends import get_backend
from workbench.backends.base import Backend
from workbench.build import Build, built_for, toolchain_of
from workbench.digests import cache_folder
from workbench.engine import Engine
from workbench.errors import CrashError, InputError, StoreError
from workbench.fingerprint import fingerprint
from workbench.session import Session


def open_engine(
    engine: Engine | Build | str, *, stage: Callable[[str], None] = lambda _: None
) -> Session:
    """Load an engine of the store.

    Args:
        engine: An engine, a build (which is waited for), or a key or the beginning of one.
        stage: Called with each stage of loading, see `session.LOADING`.

    Raises:
        InputError: It is none of these.
        StoreError: There is no such engine, or it is damaged.
        ToolchainError: The backend cannot run here.
        SessionError: It cannot be loaded. That it crashed is noted beside it until a load works.
    """
    if isinstance(engine, Build):
        engine = engine.wait()
    if not isinstance(engine, Engine | str):
        raise InputError(
            f"Give an engine, a build or a key to open, not {type(engine).__name__}. "
            "start_build(spec) makes a build, list_engines() shows what there is."
        )
    asked = {} if isinstance(engine, str) else engine.asked
    key = store.find_engine(engine if isinstance(engine, str) else engine.key).key
    with contextlib.ExitStack() as undo:
        # From here on nobody removes it.
        claim = usage.claim(key)
        undo.callback(claim.release)
        engine = replace(store.sound_engine(key), asked=asked)
        backend = get_backend(engine.backend)
        toolchain, versions = toolchain_of(backend)
        _check_bound(engine, backend, versions)
        try:
            session = Session(
                engine.path,
                engine.backend,
                engine.limits,
                toolchain,
                mounts=_checkpoint(engine),
                release=claim.release,
                measured=partial(session_history.record, engine),
                stage=stage,
            )
        except CrashError as error:
            usage.note_crash(key, error.number)
            raise CrashError(f"{error} {usage.crash_remedy(key)}", error.number) from error
        undo.pop_all()
    usage.forget_crash(key)
    return session


def _checkpoint(engine: Engine) -> list[Path]:
    """Return the checkpoint that an engine only refers to, if it does.

    Raises:
        StoreError: It is not what it was.
    """
    where = engine.limits.get("checkpoint") or engine.manifest.get("facts", {}).get("checkpoint")
    if where is None:
        return []
    path = Path(where)
    if not path.is_dir():
        raise StoreError(
            f"The checkpoint {path} is gone, which the engine {engine.key} was made from and "
            "needs. Bring it back, or build again from where it is."
        )
    if fingerprint(path, cache_folder()) != engine.manifest["identity"]["weights"]:
        raise StoreError(
            f"The checkpoint {path} has changed since {engine.key} was made from it. Build again."
        )
    return [path]


def _check_bound(engine: Engine, backend: Backend, versions: Mapping[str, str]) -> None:
    """Refuse an engine of another version or GPU before the runtime sees a byte of it.

    Raises:
        StoreError: Says what differs and what to do.
    """
    identity = engine.manifest["identity"]
    there = {f"{name} {identity['toolchain'].get(name)}" for name in backend.bound}
    here = {f"{name} {versions.get(name)}" for name in backend.bound}
    if backend.compiles_for_gpu:
        there.add(f"compute capability {identity['device'].get('compute capability')}")
        here.add(f"compute capability {built_for(backend)['compute capability']}")
    if there != here:
        raise StoreError(
            f"The engine {engine.key} was built for {', '.join(sorted(there - here))}, and this is "
            f"{', '.join(sorted(here - there))}. Build it again here, or open it with the "
            "toolchain and on a GPU of the kind that built it."
        )
