"""Exports: a directory from which an engine runs without the workbench.

    engine/...     the engine's files, byte for byte
    engine.json    what it is: key, model, fingerprint of the weights, versions, limits
    ...            what its backend needs to run it; see `embedded_export`, `trtllm_export` and,
                   where it is for Triton, `triton_export`

The same engine gives the same bytes: nothing here depends on when, where or by whom it was
written. Paths of this machine stay out unless they are asked for, and the environment is not read.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from workbench import embedded_export, files, triton_export, trtllm_export, usage
from workbench.engine import Engine
from workbench.errors import StoreError
from workbench.tarball import Broken, Counter, copy

ABOUT = "engine.json"
"""The file that tells what an export is; also by which an earlier one is known."""

FORMAT = 1
"""Version of the layout of an export."""

_SMALL = 1 << 20
"""Bytes up to which a file of an engine is searched for paths; weights hold none."""

_PATH = re.compile(r"(/|~/|[A-Za-z]:[/\\\\])[^/\\\\\n]+[/\\\\][^\n]+")
"""A text that is an absolute path of two names or more, on any system."""

_VOCABULARIES = ("tokenizer.json", "vocab.json")
"""Files whose texts are tokens, some of which look like paths and are none."""

_WRITERS: Mapping[str, Callable[[Engine], Mapping[str, str]]] = {
    "openvino": embedded_export.texts,
    "tensorrt_llm": trtllm_export.texts,
}
"""What writes the texts beside an engine, by backend."""

_EXECUTABLE = (".sh",)


def export_to_run(
    engine: Engine,
    target: str | Path,
    *,
    overwrite: bool = False,
    paths: bool = False,
    triton: bool = False,
) -> Path:
    """Write an engine and what runs it into a directory, which appears as a whole or not at all.

    Args:
        engine: The engine; every byte is compared with its manifest on the way.
        target: The directory.
        overwrite: Replace an earlier export of that name; nothing else is ever replaced.
        paths: Let paths of this machine be in it, such as where the model came from.
        triton: Write what serves it with Triton, in place of trtllm-serve.

    Returns:
        The directory.

    Raises:
        StoreError: There is no export for its backend, the engine is damaged, gone or names a path
            of this machine, the directory exists, or the disk refused. Nothing is left behind.
    """
    target = Path(target).expanduser().absolute()
    write = triton_export.texts if triton else _WRITERS.get(engine.backend)
    if write is None:
        raise StoreError(
            f"The engine {engine.key} is of the backend {engine.backend}, which has nothing to "
            f"export. Engines of {' and '.join(_WRITERS)} can be."
        )
    _check_target(target, overwrite=overwrite)
    with usage.using(engine):
        if why := engine.damage():
            raise _damaged(engine, why)
        if not paths:
            _check_paths(engine)
        _export(engine, target, write, overwrite=overwrite, paths=paths)
    return target


def _export(
    engine: Engine,
    target: Path,
    write: Callable[[Engine], Mapping[str, str]],
    *,
    overwrite: bool,
    paths: bool,
) -> None:
    """Copy the engine and write the texts beside it; nothing is left where that fails."""
    temporary = files.temporary_name(target.parent, target.name)
    try:
        temporary.mkdir(parents=True)
        _copy_engine(engine, temporary / "engine")
        texts = {ABOUT: _text(about(engine, paths=paths)), **write(engine)}
        for name, text in texts.items():
            path = temporary / name
            path.write_text(text, encoding="utf-8")
            path.chmod(0o755 if path.suffix in _EXECUTABLE else 0o644)
        _put_in_place(temporary, target, overwrite=overwrite)
    except Broken as error:
        raise _damaged(engine, str(error)) from error
    except OSError as error:
        raise StoreError(
            f"The engine {engine.key} was not exported to {target}: {error.strerror}."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def about(engine: Engine, *, paths: bool = False) -> dict[str, Any]:
    """Return what an export says of its engine.

    Args:
        engine: The engine.
        paths: Also where on this machine the model came from.
    """
    identity, model = engine.manifest["identity"], dict(engine.manifest["model"])
    if not paths and _is_path(model.get("source")):
        del model["source"]
    return {
        "format": FORMAT,
        "key": engine.key,
        "backend": engine.backend,
        "model": model,
        "weights": identity["weights"],
        "spec": {k: v for k, v in identity["spec"].items() if paths or not _is_path(v)},
        "toolchain": identity["toolchain"],
        "device": identity.get("device", {}),
        "limits": engine.limits,
        "files": engine.manifest["files"],
        **embedded_export.settings(engine),
    }


def _text(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _is_path(value: Any) -> bool:
    """Say whether a value names a place on this machine, or several with commas between."""
    return isinstance(value, str) and any(
        part.strip().startswith(("/", "~")) for part in value.split(",")
    )


def _check_target(target: Path, *, overwrite: bool) -> None:
    """Refuse what is there already, unless it is an export and may be replaced.

    Raises:
        StoreError: Says what to do.
    """
    if not os.path.lexists(target):
        return
    if not overwrite:
        raise _exists(target)
    known = files.read_json(target / ABOUT)
    if target.is_symlink() or not isinstance(known, dict) or known.get("format") != FORMAT:
        raise StoreError(
            f"{target} is no export, so it was not replaced, whatever may be overwritten. Give "
            "another name."
        )


def _check_paths(engine: Engine) -> None:
    """Refuse an engine whose own files name a place on this machine, or on one before it.

    They cannot be changed: the manifest has their checksums, and so has whoever gets the export.

    Raises:
        StoreError: Names the file.
    """
    source = engine.manifest["model"].get("source")
    places = [str(files.home()), *([source] if _is_path(source) else [])]
    for name, entry in engine.manifest["files"].items():
        if entry["bytes"] > _SMALL:
            continue
        data = files.read_file(engine.path / name) or b""
        here = any(place.encode() in data for place in places)
        field = _path_field(name, data)
        if here or field:
            what = "a path of this machine" if here else f"a path of some machine in {field}"
            raise StoreError(
                f"{name} of the engine {engine.key} names {what}, and was not exported. Export it "
                "with paths (--with-paths) if whoever gets it may see that."
            )


def _path_field(name: str, data: bytes) -> str:
    """Return the field of a JSON file that holds an absolute path, or nothing.

    Such as "input_timing_cache" in the config.json of a TensorRT-LLM engine, or "_name_or_path".
    """
    if not name.endswith(".json") or Path(name).name in _VOCABULARIES:
        return ""
    with contextlib.suppress(ValueError):
        return _holder(json.loads(data), "it")
    return ""


def _holder(value: Any, field: str) -> str:
    if isinstance(value, dict):
        return next((found for k, v in value.items() if (found := _holder(v, str(k)))), "")
    if isinstance(value, list):
        return next((found for one in value if (found := _holder(one, field))), "")
    return field if isinstance(value, str) and _PATH.fullmatch(value) else ""


def _copy_engine(engine: Engine, directory: Path) -> None:
    """Copy all files of an engine; each is compared with the manifest while it is read.

    Raises:
        Broken: One is not what was published.
    """
    inventory = engine.manifest["files"]
    count = Counter(engine.bytes, None)
    for name, entry in sorted(inventory.items()):
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with (engine.path / name).open("rb") as source, path.open("xb") as target:
            if copy(source, target, name, entry["bytes"], count) != entry["sha256"]:
                raise Broken(f"the content of {name} is not what was published")
        path.chmod(0o644)


def _put_in_place(temporary: Path, target: Path, *, overwrite: bool) -> None:
    """Give a finished directory its name; an earlier export makes room in the last moment."""
    old = files.temporary_name(target.parent, f"old-{target.name}")
    if overwrite and target.exists():
        target.rename(old)
    try:
        # rename(2) would take the place of an empty directory, which somebody has just made.
        if os.path.lexists(target) or not files.publish_directory(temporary, target):
            raise _exists(target)
    except (OSError, StoreError):
        if old.exists() and not os.path.lexists(target):
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exists(target: Path) -> StoreError:
    return StoreError(
        f"{target} exists, and it was not overwritten. Give another name, or say that it may be "
        "(--overwrite)."
    )


def _damaged(engine: Engine, why: str) -> StoreError:
    return StoreError(
        f"The engine {engine.key} is damaged: {why}. It was not exported; build it again."
    )
