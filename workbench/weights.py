"""What OpenVINO stores of a model's weights, tensor by tensor."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from workbench.errors import ModelError, SpecError

if TYPE_CHECKING:
    from workbench.model import Model
    from workbench.tensors import Tensor

QUANTIZATIONS = ("none", "fp16", "int8", "int4")

Role = Literal["vector", "table", "output", "matrix"]
"""Norms and biases; embedding tables; the layer that gives the logits; every other matrix."""


@dataclass(frozen=True)
class Compression:
    """How weights are stored.

    float32 for "none", float16 for "fp16". NNCF's int8 keeps a float16 scale for each row of a
    matrix and, unless symmetric, a zero point of 8 bits. Its int4 keeps both for each group of a
    row, the zero point in 4 bits; embedding and output layer stay int8 with a zero point. Vectors
    stay float32. The rule was read off engines written with NNCF 3.4 (Llama, Qwen2, Qwen3, Phi-3).

    Attributes:
        quantization: One of `QUANTIZATIONS`.
        group_size: Weights that share a scale in int4; -1 means a whole row.
        symmetric: Whether zero points are left out.
    """

    quantization: str
    group_size: int
    symmetric: bool

    def __post_init__(self) -> None:
        if self.quantization not in QUANTIZATIONS:
            raise SpecError(
                f"quantization must be one of {', '.join(QUANTIZATIONS)}; got "
                f"{self.quantization!r}."
            )
        if self.group_size < 1 and self.group_size != -1:
            raise SpecError(f"group_size must be positive, or -1; got {self.group_size}.")

    @property
    def is_integer(self) -> bool:
        """Whether matrices are stored as integers with scales."""
        return self.quantization in ("int8", "int4")

    def stored_bytes(self, tensor: Tensor, role: Role) -> int:
        """Return the bytes of one tensor with its scales and zero points."""
        if not self.is_integer:
            return tensor.elements * (4 if self.quantization == "none" else 2)
        if role == "vector":
            return tensor.elements * 4
        scales = self.scales(tensor, role)
        if self.quantization == "int4" and role == "matrix":
            return tensor.elements // 2 + 2 * scales + (0 if self.symmetric else scales // 2)
        zero_point = 0 if self.symmetric and self.quantization == "int8" else 1
        return tensor.elements + (2 + zero_point) * scales

    def scales(self, tensor: Tensor, role: Role) -> int:
        """Return the number of scales of one tensor."""
        if role == "vector" or not self.is_integer:
            return 0
        columns = tensor.shape[-1]
        rows = tensor.elements // columns
        if self.quantization == "int8" or role != "matrix" or self.group_size == -1:
            return rows
        return rows * -(-columns // self.group_size)


@lru_cache(maxsize=64)  # a form asks with every change
def weight_bytes(model: Model, quantization: str, group_size: int, symmetric: bool) -> int:
    """Return the bytes of the weights that an OpenVINO engine stores, see `Compression`.

    An engine's file is some hundred bytes larger: scalars of the graph stand beside the weights
    (319 to 505 bytes in 41 engines of 0.4 M to 317 M parameters).

    Args:
        model: The model.
        quantization: One of `QUANTIZATIONS`.
        group_size: Weights that share a scale in int4; -1 means a whole row.
        symmetric: Whether zero points are left out.

    Raises:
        SpecError: The quantization is unknown.
        ModelError: The checkpoint itself is quantized, and this arithmetic is not for it.
    """
    compression = Compression(quantization, group_size, symmetric)
    if model.quantized_with:
        raise ModelError(
            f"{model.source} is quantized already ({model.quantized_with}). Use the checkpoint "
            "with its original weights."
        )
    return sum(compression.stored_bytes(t, role_of(t, model)) for t in model.tensors)


def role_of(tensor: Tensor, model: Model) -> Role:
    """Say what a tensor is; tables and the output layer have a row for each token id."""
    if len(tensor.shape) < 2:
        return "vector"
    in_layer = any(part.isdigit() for part in tensor.name.split("."))
    if in_layer or tensor.shape[0] != model.vocab_size:
        return "matrix"
    return "output" if "lm_head" in tensor.name or "embed_out" in tensor.name else "table"


def is_multiplied(tensor: Tensor, model: Model) -> bool:
    """Whether a tensor is a factor of a matrix product; a table is only looked up, unless tied."""
    role = role_of(tensor, model)
    return role in ("matrix", "output") or (role == "table" and model.tied_embeddings)
