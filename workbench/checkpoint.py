"""The files of a checkpoint, in a directory or on the hub: which there are, and what they hold."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import hub, stored_quantization
from workbench.errors import ModelError
from workbench.tensors import Tensor, read_tensors, tensors_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

CONFIG = "config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
PICKLED = re.compile(
    r"(?!training_args|optimizer|scheduler|rng_state).*\.(bin|pt|pth|ckpt|pkl|pickle)"
)
"""Files that hold weights as a pickle; training leaves other pickles beside them."""
SAVE_AGAIN = (
    "Convert it where you trust it: load it with transformers and save it again with "
    "model.save_pretrained, which writes safetensors."
)
AGAIN = "Download or copy the model again."


def read_config(directory: Path) -> dict[str, Any]:
    """Read config.json.

    Raises:
        ModelError: There is none, or it is not a JSON object.
    """
    if not (directory / CONFIG).is_file():
        raise ModelError(
            f"{directory} has no {CONFIG}. A model's directory holds {CONFIG}, safetensors weights "
            "and the tokenizer's files."
        )
    return _read_object(directory / CONFIG)


def read_quantization(directory: Path) -> dict[str, Any]:
    """Read what ModelOpt wrote of the quantization; empty where there is no such file.

    Raises:
        ModelError: It is not a JSON object.
    """
    path = directory / stored_quantization.FILE
    return _read_object(path) if path.is_file() else {}


def read_weights(directory: Path) -> tuple[Tensor, ...]:
    """Read the headers of all weights in a directory.

    As in transformers, one model.safetensors is preferred to the shards of an index.

    Raises:
        ModelError: There are no safetensors weights, a shard is missing, or a file is damaged.
    """
    if (directory / SINGLE).is_file():
        return read_tensors(directory / SINGLE)
    if not (directory / INDEX).is_file():
        raise _no_weights(str(directory), (path.name for path in directory.iterdir()))
    shards = _shards(directory)
    missing = [name for name in shards if not (directory / name).is_file()]
    if missing:
        raise ModelError(
            f"{directory} lacks {len(missing)} of the {len(shards)} files that {INDEX} names, "
            f"{missing[0]} first. {AGAIN}"
        )
    return _collect(shards, {name: read_tensors(directory / name) for name in shards})


def is_described_only(directory: Path) -> bool:
    """Whether a directory holds no weights of any kind, so that only config.json tells of them."""
    names = [path.name for path in directory.iterdir()]
    return not any(
        name == INDEX or name.endswith(".safetensors") or PICKLED.fullmatch(name) for name in names
    )


def read_hub_weights(repository: str, snapshot: Path, files: Collection[str]) -> tuple[Tensor, ...]:
    """Read the headers of a model on the hub by range requests.

    Args:
        repository: The hub id.
        snapshot: Where `hub.fetch_descriptions` put the small files; its name is the commit.
        files: All that the repository has.

    Raises:
        ModelError: As `read_weights`, or the hub does not give them.
    """
    commit = snapshot.name
    if SINGLE in files:
        return tensors_of(hub.fetch_headers(repository, commit, [SINGLE])[SINGLE], SINGLE)
    if not (snapshot / INDEX).is_file():
        raise _no_weights(f"{repository} on the hub", files)
    shards = _shards(snapshot)
    headers = hub.fetch_headers(repository, commit, shards)
    return _collect(shards, {name: tensors_of(headers[name], name) for name in shards})


def is_complete(snapshot: Path) -> bool:
    """Whether a snapshot of the hub's cache has configuration, all weights and a tokenizer.

    The cache fills file by file, so a snapshot may hold any part of a repository.
    """
    if (snapshot / SINGLE).is_file():
        weights = [SINGLE]
    elif (snapshot / INDEX).is_file():
        weights = list(_shards(snapshot))
    else:
        return False
    there = all((snapshot / name).is_file() for name in (CONFIG, *weights))
    return there and any((snapshot / name).is_file() for name in TOKENIZERS)


def has_chat_template(directory: Path) -> bool:
    """Whether the tokenizer's files bring a chat template.

    Raises:
        ModelError: tokenizer_config.json is not a JSON object.
    """
    if any((directory / name).is_file() for name in ("chat_template.jinja", "chat_template.json")):
        return True
    tokenizer = directory / TOKENIZER_CONFIG
    return tokenizer.is_file() and bool(_read_object(tokenizer).get("chat_template"))


def own_code(directory: Path) -> tuple[str, ...]:
    """Return the files with Python code that the configurations point to, sorted.

    One of another repository on the hub has that repository and -- before its name, as there.

    Raises:
        ModelError: A configuration is not a JSON object.
    """
    found = set()
    for name in (CONFIG, TOKENIZER_CONFIG):
        path = directory / name
        pointers = _read_object(path).get("auto_map") if path.is_file() else None
        for pointer in pointers.values() if isinstance(pointers, dict) else ():
            # Of a tokenizer, a pair: the slow class and the fast one, either of which may be None.
            classes = pointer if isinstance(pointer, list) else [pointer]
            found |= {one.rpartition(".")[0] + ".py" for one in classes if isinstance(one, str)}
    return tuple(sorted(found))


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON ({error}). {AGAIN}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} should hold a JSON object and holds a {type(value).__name__}.")
    return value


def _shards(directory: Path) -> dict[str, frozenset[str]]:
    """Return the shards that the index names, each with its tensors."""
    weight_map = _read_object(directory / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ModelError(f"{INDEX} has no weight_map from tensors to files. {AGAIN}")
    shards: dict[str, set[str]] = {}
    for tensor, name in weight_map.items():
        # A shard lies beside its index; a path could lead anywhere.
        if not isinstance(name, str) or not name or Path(name).name != name or name == "..":
            raise ModelError(f"{INDEX} names {name!r} for {tensor}, which is not a file beside it.")
        if not name.endswith(".safetensors"):
            # Loaders go by the ending: they would read it as a pickle.
            raise ModelError(
                f"{INDEX} names {name!r} for {tensor}, which is no safetensors file. {SAVE_AGAIN}"
            )
        shards.setdefault(name, set()).add(tensor)
    return {name: frozenset(tensors) for name, tensors in sorted(shards.items())}


def _collect(
    shards: Mapping[str, frozenset[str]], read: Mapping[str, tuple[Tensor, ...]]
) -> tuple[Tensor, ...]:
    """Return the tensors that the index names, each from the shard that should hold it."""
    found: list[Tensor] = []
    for name, wanted in shards.items():
        here = [tensor for tensor in read[name] if tensor.name in wanted]
        missing = sorted(wanted.difference(tensor.name for tensor in here))
        if missing:
            raise ModelError(
                f"{name} lacks {len(missing)} of the {len(wanted)} tensors that {INDEX} expects in "
                f"it, {missing[0]} first: they are from different models. {AGAIN}"
            )
        found.extend(here)
    return tuple(found)


def _no_weights(where: str, files: Iterable[str]) -> ModelError:
    pickled = sorted(name for name in files if PICKLED.fullmatch(name))
    if not pickled:
        return ModelError(f"{where} has no weights: {SINGLE} or {INDEX} is expected.")
    return ModelError(
        f"{where} has its weights only as {pickled[0]}, a pickle, which can run code when it is "
        f"read. {SAVE_AGAIN}"
    )
