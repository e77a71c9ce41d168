"""Safetensors headers: what tensors a file holds, without reading a weight.

A file is 8 bytes (the header's length, little-endian), the header (JSON: name to dtype, shape and
byte offsets) and the data, without a gap:
https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F4": 4,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip
"""Bits of one element by the format's own name of its type."""

HEADER_LIMIT = 100_000_000
"""Longest header that the format's reference implementation accepts, in bytes."""

AGAIN = "Download or copy it again."


@dataclass(frozen=True, slots=True)
class Tensor:
    """One stored tensor; `dtype` in the format's spelling, such as "BF16"."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def read_tensors(path: Path) -> tuple[Tensor, ...]:
    """Read the header of a safetensors file and check it against the file's size.

    Returns:
        The tensors in the order of their data.

    Raises:
        ModelError: The file is no safetensors file, is truncated, or contradicts itself.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(8)
            length = int.from_bytes(head, "little")
            _check_length(path.name, head, length, size)
            raw = file.read(length)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}.") from error
    tensors = tensors_of(_parse(raw, path.name), path.name)
    end = 8 + length + sum(tensor.bytes for tensor in tensors)
    if size < end:
        raise ModelError(
            f"{path.name} is truncated: it has {size:,} bytes, and its header describes {end:,}. "
            f"{AGAIN}"
        )
    if size > end:
        raise ModelError(
            f"{path.name} is damaged: its header describes {end:,} bytes, and it has {size:,}. "
            f"{AGAIN}"
        )
    return tensors


def tensors_of(entries: Mapping[str, Any], file: str) -> tuple[Tensor, ...]:
    """Make records of a header's entries: name to {"dtype", "shape", "data_offsets"}.

    Raises:
        ModelError: An entry is ill-formed, or the data would have a gap or an overlap.
    """
    ordered = sorted(
        (_span(name, entry, file), name, entry)
        for name, entry in entries.items()
        if name != "__metadata__"
    )
    position = 0
    tensors = []
    for (begin, end), name, entry in ordered:
        if begin != position:
            raise _damaged(file, f"the data of {name} begins at {begin:,} instead of {position:,}")
        position = end
        tensors.append(Tensor(name, entry["dtype"], tuple(entry["shape"]), end - begin))
    return tuple(tensors)


def _check_length(file: str, head: bytes, length: int, size: int) -> None:
    if head == b"version ":
        raise ModelError(
            f"{file} is a Git LFS pointer and not the weights. Run `git lfs pull` in the model's "
            "directory."
        )
    if size < 8:
        raise ModelError(
            f"{file} is truncated: it has {size} bytes, and the first 8 should give the length "
            f"of the header. {AGAIN}"
        )
    if not 2 <= length <= HEADER_LIMIT:
        raise ModelError(
            f"{file} is not a safetensors file: its first 8 bytes stand for a header of "
            f"{length:,} bytes, and from 2 to {HEADER_LIMIT:,} are allowed. {AGAIN}"
        )
    if 8 + length > size:
        raise ModelError(
            f"{file} is truncated: it has {size:,} bytes, and its header alone ends at "
            f"{8 + length:,}. {AGAIN}"
        )


def _parse(raw: bytes, file: str) -> dict[str, Any]:
    try:
        header = json.loads(raw, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _damaged(file, f"its header is not valid JSON ({error})") from error
    if not isinstance(header, dict):
        raise _damaged(file, "its header is not a JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse repeated names, which json.loads would drop silently."""
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise ValueError("a name occurs twice")
    return mapping


def _span(name: str, entry: Any, file: str) -> tuple[int, int]:
    """Return where the data of an entry begins and ends, checked against dtype and shape."""
    match entry:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            raise _damaged(file, f"its header gives no dtype, shape and offsets for {name}")
    if dtype not in BITS:
        raise _damaged(file, f"{name} is of the unknown type {dtype}")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise _damaged(file, f"{name} has the shape {shape}")
    if (end - begin) * 8 != math.prod(shape) * BITS[dtype]:
        raise _damaged(
            file, f"{name} takes {end - begin:,} bytes, which do not fit {dtype} of shape {shape}"
        )
    return begin, end


def _damaged(file: str, what: str) -> ModelError:
    return ModelError(f"{file} is damaged: {what}. {AGAIN}")
