"""Python code that comes with a model: out of reach, unless the spec allows it.

What calls transformers itself says `trust_remote_code=False`. TensorRT-LLM and ModelOpt call it
with True in many places, whatever they are told (models/*/config.py, quantize_by_modelopt.py), so
they get a checkpoint that points to no code.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

CODE = (".py", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
"""Endings of files that run when they are read; weights are there as safetensors."""

POINTER = "auto_map"
"""The key by which a configuration names classes in files of its repository."""


def code_free(checkpoint: Path) -> Path:
    """Return a checkpoint, or where it points to code, a view of it that does not.

    The view lasts as long as this process.
    """
    if not any(_points(path) for path in _configurations(checkpoint)):
        return checkpoint
    folder = Path(tempfile.mkdtemp(prefix="checkpoint-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    hide_code(checkpoint, folder / "model")
    return folder / "model"


def hide_code(checkpoint: Path, view: Path) -> bool:
    """Make a directory with links to everything in a checkpoint but its code and its pickles.

    Configurations that point to code are written anew without that.

    Returns:
        Whether anything pointed to code.
    """
    view.mkdir()
    pointing = [path.name for path in _configurations(checkpoint) if _points(path)]
    for path in checkpoint.iterdir():
        if path.name in pointing:
            write_without_pointers(path, view / path.name)
        elif path.suffix not in CODE:
            (view / path.name).symlink_to(path.resolve())
    return bool(pointing)


def write_without_pointers(source: Path, target: Path) -> None:
    """Copy a configuration; one that names classes of its repository, without those names.

    The tokenizer is then one that transformers makes from tokenizer.json alone.
    """
    if not _points(source):
        shutil.copyfile(source, target)
        return
    values = json.loads(source.read_text(encoding="utf-8"))
    if "tokenizer_class" in values:
        values["tokenizer_class"] = "PreTrainedTokenizerFast"
    target.write_text(json.dumps(_stripped(values), indent=2) + "\n", encoding="utf-8")


def _configurations(checkpoint: Path) -> list[Path]:
    return sorted(path for path in checkpoint.glob("*config.json") if path.is_file())


def _points(path: Path) -> bool:
    text = path.read_text(encoding="utf-8")
    return POINTER in text and _stripped(values := json.loads(text)) != values


def _stripped(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _stripped(inner) for name, inner in value.items() if name != POINTER}
    return [_stripped(inner) for inner in value] if isinstance(value, list) else value
