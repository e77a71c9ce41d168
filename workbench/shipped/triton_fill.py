"""Fill NVIDIA's templates of a Triton model repository for the engine beside this script.

    python3 fill.py             check this machine and the engine, write repository/
    python3 fill.py --check     check again what is there, and write nothing

Run it inside the container whose templates are meant; compose.yaml names it. It needs nothing but
Python. What fills the templates is in values.json, what the engine needs in engine.json. Every
placeholder of a template must get a value, and every value a placeholder.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TEMPLATES = "/app/all_models/inflight_batcher_llm"
"""Where the templates are in NVIDIA's container (tensorrtllm_backend README.md, r26.03)."""

CONFIG = "config.pbtxt"
PLACEHOLDER = re.compile(r"\$\{(\w+)\}")
PATHS = ("engine_dir", "tokenizer_dir")
"""Values that are folders beside this script."""

LIMITS = ("max_batch_size", "max_num_tokens", "max_beam_width", "max_seq_len")
EXPORT = "Export the engine again."
GPU_QUERY = ("nvidia-smi", "--query-gpu=name,compute_cap", "--format=csv,noheader")


class Mismatch(Exception):
    """Something does not fit; says what, and what was expected."""


def main(words: list[str]) -> int:
    """Fill or check; return the exit status."""
    parser = argparse.ArgumentParser(description="Fill the templates for the engine beside this.")
    parser.add_argument("--check", action="store_true", help="Only check what was filled.")
    parser.add_argument("--templates", type=Path, default=Path(TEMPLATES), metavar="FOLDER")
    parser.add_argument("--overwrite", action="store_true", help="Replace an earlier repository.")
    asked = parser.parse_args(words)
    repository = HERE / "repository"
    try:
        about, values = (read(HERE / name, EXPORT) for name in ("engine.json", "values.json"))
        check_engine(about)
        machine = machine_facts()
        check_machine(about, machine)
        if asked.check:
            check_filled(about, repository)
        else:
            write(about, values, machine, asked.templates, repository, overwrite=asked.overwrite)
    except Mismatch as error:
        print(f"fill.py: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"fill.py: the system refused {what}.", file=sys.stderr)
        return 1
    print(f"{repository} fits the engine {about['key']}, its versions and this GPU.")
    return 0


def read(path: Path, remedy: str) -> dict[str, Any]:
    """Return a file of JSON.

    Raises:
        Mismatch: It is missing or damaged.
    """
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Mismatch(f"{path} cannot be read ({error}). {remedy}") from error
    return value


def check_engine(about: dict[str, Any]) -> None:
    """Compare the engine with what engine.json says of it.

    Raises:
        Mismatch: A file is missing or of another size, or it is another engine.
    """
    for name, entry in about["files"].items():
        path = HERE / "engine" / name
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            raise Mismatch(f"{name} of the engine {about['key']} is not whole. {EXPORT}")
    config = read(HERE / "engine" / "config.json", EXPORT)
    built, limits = config.get("build_config", {}), about["limits"]
    # A session may be asked to stay below the engine, never to go above it.
    wrong = [name for name in LIMITS if limits[name] > (built.get(name) or 0)]
    if config.get("version") != about["toolchain"]["tensorrt-llm"]:
        wrong.append("version")
    if wrong:
        raise Mismatch(
            f"The engine's config.json and engine.json differ in {', '.join(wrong)}: they belong "
            f"to different engines. {EXPORT}"
        )


def machine_facts() -> dict[str, Any]:
    """Return the versions and GPUs that are here."""
    versions = {}
    for name in ("tensorrt-llm", "tensorrt"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = ""
    try:
        answer = subprocess.run(GPU_QUERY, capture_output=True, text=True, check=True, timeout=60)
        lines = answer.stdout.strip().splitlines()
    except (OSError, subprocess.SubprocessError):
        lines = []
    gpus = [[word.strip() for word in line.rsplit(",", 1)] for line in lines]
    return {"versions": versions, "gpus": gpus}


def check_machine(about: dict[str, Any], machine: dict[str, Any]) -> None:
    """Compare the versions and GPUs that are here with those that the engine was built for.

    A plan runs with the TensorRT that built it, on the compute capability that it was built on.

    Raises:
        Mismatch: They differ.
    """
    for name, found in machine["versions"].items():
        wanted = about["toolchain"][name]
        # NVIDIA's wheels have a fourth number or not: 10.14.1 and 10.14.1.48 are one release.
        numbers = 3 if name == "tensorrt" else None
        if found.split(".")[:numbers] != wanted.split(".")[:numbers]:
            raise Mismatch(
                f"The engine was built with {name} {wanted}, and here is {found or 'none'}. Use "
                "the image that compose.yaml names."
            )
    ranks, device = int(about["limits"].get("world_size") or 1), about["device"]
    if len(machine["gpus"]) < ranks:
        raise Mismatch(
            f"The engine needs {ranks} GPU(s), and nvidia-smi shows {len(machine['gpus'])}. Start "
            "the container with --gpus all."
        )
    for name, capability in machine["gpus"]:
        if capability != device["compute capability"]:
            raise Mismatch(
                f"The engine was built for compute capability {device['compute capability']} "
                f"({device['name']}), and here is {capability} ({name}). Build it again for this "
                "GPU, or show the container only GPUs of that kind."
            )
        if name != device["name"]:
            print(f"fill.py: built on {device['name']}, runs on {name}: it may be slower.")


def write(
    about: dict[str, Any],
    values: dict[str, Any],
    machine: dict[str, Any],
    templates: Path,
    repository: Path,
    *,
    overwrite: bool,
) -> None:
    """Write the repository, which appears as a whole or not at all, and a record beside it.

    Raises:
        Mismatch: A repository is there, a template is missing, or one cannot be filled.
    """
    record = repository.with_suffix(".json")
    if repository.exists() and not (overwrite and record.exists()):
        raise Mismatch(f"{repository} exists. Say --overwrite to replace what this script wrote.")
    temporary = repository.with_name(".tmp-repository")
    shutil.rmtree(temporary, ignore_errors=True)
    filled = {}
    try:
        for model in values["must"]:
            if not (templates / model / CONFIG).is_file():
                raise Mismatch(f"{templates} has no template of {model}. Give --templates FOLDER.")
            shutil.copytree(templates / model, temporary / model)
            # Triton wants a folder for the version, also where nothing is in it.
            (temporary / model / "1").mkdir(exist_ok=True)
            path = temporary / model / CONFIG
            text = fill(path.read_text(encoding="utf-8"), model, values)
            path.write_text(text, encoding="utf-8")
            filled[model] = hashlib.sha256(text.encode()).hexdigest()
        told = {"key": about["key"], "root": str(HERE), "configs": filled, **machine}
        swap(temporary, repository, record, json.dumps(told, indent=1, sort_keys=True) + "\n")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def swap(new: Path, repository: Path, record: Path, told: str) -> None:
    """Put a repository in its place, and its record; whoever ends this half-way can repeat it.

    The record comes first: one without its repository is found out by --check, and a repository
    without a record would be taken for somebody else's.
    """
    half = record.with_name(f".tmp-{record.name}")
    half.write_text(told, encoding="utf-8")
    half.replace(record)
    former = repository.with_name(f".tmp-former-{time.time_ns()}")
    if repository.exists():
        repository.rename(former)
    new.rename(repository)
    shutil.rmtree(former, ignore_errors=True)
    if former.exists():
        print(f"fill.py: {former} was replaced and is somebody else's to remove.")


def fill(text: str, model: str, values: dict[str, Any]) -> str:
    """Return a template with all its placeholders replaced.

    Raises:
        Mismatch: A placeholder has no value, or a value no placeholder.
    """
    must, may = values["must"][model], values["may"][model]
    names = set(PLACEHOLDER.findall(text))
    if unknown := sorted(names - must.keys() - may.keys()):
        raise Mismatch(
            f"values.json has no value for {', '.join(unknown)} of {model}/{CONFIG}: these "
            "templates are of another version. Add them under may, or use the image that "
            "compose.yaml names."
        )
    if unused := sorted(must.keys() - names):
        raise Mismatch(
            f"{model}/{CONFIG} has no placeholder for {', '.join(unused)} of values.json: these "
            "templates are of another version, or were filled before."
        )
    known = {**may, **must}
    known.update({name: str(HERE / known[name]) for name in PATHS if known.get(name)})
    return PLACEHOLDER.sub(lambda found: quoted(known[found[1]]), text)


def quoted(value: str) -> str:
    """Return a value as it stands between the quotes of a text of protobuf."""
    return value.replace("\\", "\\\\").replace('"', '\\"')


def check_filled(about: dict[str, Any], repository: Path) -> None:
    """Compare a repository with the record of its filling.

    Raises:
        Mismatch: It is of another engine or place, or a file was changed.
    """
    record = read(repository.with_suffix(".json"), "Fill it first: fill.py without --check.")
    key, root, configs = (record.get(name) for name in ("key", "root", "configs"))
    if (key, root) != (about["key"], str(HERE)) or not isinstance(configs, dict):
        raise Mismatch(
            f"{repository} was filled for the engine {key} in {root}. Fill it again with "
            "--overwrite."
        )
    for model, known in configs.items():
        path = repository / model / CONFIG
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != known:
            raise Mismatch(f"{path} is not what was filled. Fill it again with --overwrite.")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
