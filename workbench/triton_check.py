"""Check a Triton model repository: against Triton's schema, and against the engine it serves.

The schema is `ModelConfig` of the package tritonclient (triton-inference-server/common
protobuf/model_config.proto). What the schema allows Triton may still refuse: it was not run here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from workbench import files
from workbench.errors import StoreError, ToolchainError
from workbench.triton_values import MODELS, tensorrt_release

ABOUT, RECORD, REPOSITORY = "engine.json", "repository.json", "repository"

_NEEDED = {
    ABOUT: (
        ("key", "files", "limits", "toolchain", "device"),
        "Export an engine with `workbench export KEY FOLDER --triton`.",
    ),
    RECORD: (
        ("key", "root", "configs", "versions", "gpus"),
        "Fill it first: run fill.py in the container, as its README.md says.",
    ),
}
"""What each record must have, and what to do where it has not."""

_LIMITS = ("max_batch_size", "max_num_tokens", "max_beam_width", "max_seq_len")


def check_triton(folder: str | Path) -> list[str]:
    """Check the filled repository of an export for Triton; return what was checked as lines.

    Args:
        folder: The export, in which fill.py has run.

    Raises:
        StoreError: It is none, or something does not fit; says all of it.
        ToolchainError: The package with the schema is missing.
    """
    folder = Path(folder).expanduser().absolute()
    about = _record(folder, ABOUT)
    if about.get("backend") != "tensorrt_llm":
        raise StoreError(f"{folder} holds no engine of tensorrt_llm. {_NEEDED[ABOUT][1]}")
    record = _record(folder, RECORD)
    configs, problems = {}, [*_engine_problems(folder, about)]
    for model in MODELS:
        path = folder / REPOSITORY / model / "config.pbtxt"
        try:
            configs[model] = _parse(path)
        except StoreError as error:
            problems.append(str(error))
    problems += _machine_problems(about, record)
    if len(configs) == len(MODELS):
        problems += _layout_problems(folder / REPOSITORY, configs)
        problems += _value_problems(about, record, configs)
    if problems:
        raise StoreError(f"{folder / REPOSITORY} does not serve the engine: {' '.join(problems)}")
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return [
        f"{len(configs)} models parse as Triton's model configuration, with every value filled.",
        f"Engine {about['key']} is whole, and its limits are the models'.",
        f"Filled with {versions} beside {record['gpus'][0][0]}.",
    ]


def _record(folder: Path, name: str) -> dict[str, Any]:
    value = files.read_json(folder / name)
    parts, remedy = _NEEDED[name]
    if not isinstance(value, dict) or not value.keys() >= set(parts):
        raise StoreError(f"{folder} has no {name} that can be read. {remedy}")
    return value


def _parse(path: Path) -> Any:
    """Return a config.pbtxt as the message of Triton's schema.

    Raises:
        StoreError: It is missing, not filled, or not of the schema.
        ToolchainError: The package with the schema is missing.
    """
    try:
        # Imports take half a second, and only this needs them.
        from google.protobuf import text_format  # noqa: PLC0415
        from tritonclient.grpc import model_config_pb2  # noqa: PLC0415
    except (ImportError, RuntimeError) as error:
        raise ToolchainError(
            f"Triton's model configuration cannot be checked here ({error}). Get its schema: pip "
            "install 'trtllm-workbench[triton]'."
        ) from error
    name = f"{path.parent.name}/{path.name}"
    data = files.read_file(path)
    if data is None:
        raise StoreError(f"{name} is missing.")
    text = data.decode("utf-8", "replace")
    if left := sorted(set(re.findall(r"\$\{[^}]*\}?", text))):
        raise StoreError(f"{name} was not filled: {', '.join(left)}.")
    try:
        return text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise StoreError(f"{name} is no model configuration of Triton ({error}).") from error


def _engine_problems(folder: Path, about: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the engine that the repository points to."""
    for name, entry in about["files"].items():
        path = folder / "engine" / name
        if not path.is_file() or files.checksum(path) != entry["sha256"]:
            yield f"{name} of the engine {about['key']} is missing or changed."
    config = files.read_json(folder / "engine" / "config.json")
    if not isinstance(config, dict):
        yield "The engine's config.json cannot be read."
        return
    built, wanted = config.get("build_config", {}), about["toolchain"]["tensorrt-llm"]
    if config.get("version") != wanted:
        yield f"The engine's config.json is of version {config.get('version')}, not {wanted}."
    for name in _LIMITS:
        if about["limits"][name] > (built.get(name) or 0):
            yield f"{name} is {about['limits'][name]}, above the engine's {built.get(name)}."


def _machine_problems(about: Mapping[str, Any], record: Mapping[str, Any]) -> Iterator[str]:
    """Yield where versions or GPU differ from what the engine was built with."""
    if record["key"] != about["key"]:
        yield f"It was filled for the engine {record['key']}, not {about['key']}."
    wanted, found = about["toolchain"], record["versions"]
    same = {
        "tensorrt-llm": found["tensorrt-llm"] == wanted["tensorrt-llm"],
        "tensorrt": tensorrt_release(found["tensorrt"]) == tensorrt_release(wanted["tensorrt"]),
    }
    for name, fits in same.items():
        if not fits:
            yield (
                f"It was filled with {name} {found[name] or 'missing'}, and the engine is of "
                f"{wanted[name]}."
            )
    capability = about["device"].get("compute capability")
    others = sorted({f"{name} ({its})" for name, its in record["gpus"] if its != capability})
    if others or not record["gpus"]:
        yield (
            f"It was filled beside {', '.join(others) or 'no GPU'}, and the engine is for compute "
            f"capability {capability}."
        )


def _layout_problems(repository: Path, configs: Mapping[str, Any]) -> Iterator[str]:
    """Yield where names, backends and folders are not those of the layout."""
    backends = {"ensemble": "", "tensorrt_llm": "tensorrtllm"}
    for model, config in configs.items():
        if config.name != model:
            yield f"{model} calls itself {config.name!r}."
        if config.backend != backends.get(model, "python"):
            yield f"{model} has the backend {config.backend!r}."
        version = repository / model / "1"
        if not version.is_dir():
            yield f"{model} has no folder 1, its version."
        elif backends.get(model, "python") == "python" and not (version / "model.py").is_file():
            yield f"{model} has no 1/model.py."
    if configs["ensemble"].platform != "ensemble":
        yield f"ensemble has the platform {configs['ensemble'].platform!r}."
    steps = {step.model_name for step in configs["ensemble"].ensemble_scheduling.step}
    if missing := sorted({"preprocessing", "tensorrt_llm", "postprocessing"} - steps):
        yield f"The ensemble does not call {', '.join(missing)}."


def _value_problems(
    about: Mapping[str, Any], record: Mapping[str, Any], configs: Mapping[str, Any]
) -> Iterator[str]:
    """Yield where a value is not the engine's."""
    limits, root = about["limits"], record["root"]
    for model, config in configs.items():
        if config.max_batch_size != limits["max_batch_size"]:
            yield (
                f"{model} has max_batch_size {config.max_batch_size}, and the engine "
                f"{limits['max_batch_size']}."
            )
    for model in ("tensorrt_llm", "tensorrt_llm_bls"):
        if not configs[model].model_transaction_policy.decoupled:
            yield f"{model} is not decoupled, so that it cannot stream."
    tokens = limits.get("kv_cache_tokens")
    tokenizer, engine = f"{root}/engine/tokenizer", f"{root}/engine"
    wanted = {
        ("tensorrt_llm", "gpt_model_path"): engine,
        ("preprocessing", "tokenizer_dir"): tokenizer,
        ("postprocessing", "tokenizer_dir"): tokenizer,
        ("tensorrt_llm", "max_beam_width"): str(limits["max_beam_width"]),
        ("tensorrt_llm", "kv_cache_free_gpu_mem_fraction"): str(
            limits["kv_cache_free_gpu_memory_fraction"]
        ),
        ("tensorrt_llm", "max_tokens_in_paged_kv_cache"): "" if tokens is None else str(tokens),
    }
    for (model, name), value in wanted.items():
        found = configs[model].parameters[name].string_value
        if found != value:
            yield f"{model} has {name} {found!r}, where the engine has {value!r}."
