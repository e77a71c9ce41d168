"""What TensorRT-LLM stores of a model's weights on each rank, tensor by tensor."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

from workbench.latest import keep_latest
from workbench.model import DTYPES, Model
from workbench.tensors import Tensor


@dataclass(frozen=True)
class Packing:
    """How a quantized matrix is stored.

    Attributes:
        bits: Of one weight.
        group: Weights of a row that share a scale; 0 where none do.
        group_bytes: Bytes of such a scale, the least and the most.
        row_bytes: Bytes beside each row: a scale for each output.
        column_bytes: Bytes beside each column: a scale for each input.
        halves_steps: Whether inputs of matrices are of 8 bits or fewer as well.
    """

    bits: int
    group: int = 0
    group_bytes: tuple[int, int] = (0, 0)
    row_bytes: int = 0
    column_bytes: int = 0
    halves_steps: bool = False

    def stored_bytes(self, tensor: Tensor, low: int, high: int) -> tuple[int, int]:
        """Return the least and the most bytes of `low` to `high` weights of a matrix."""
        columns = tensor.shape[-1]
        beside = self.row_bytes * (tensor.elements // columns) + self.column_bytes * columns
        groups = (low // self.group, -(-high // self.group)) if self.group else (0, 0)
        least = low * self.bits // 8 + groups[0] * self.group_bytes[0]
        most = -(-high * self.bits // 8) + groups[1] * self.group_bytes[1] + beside
        # Sizes are padded to multiples of 64 or 128 for some kernels, and there are odd scales.
        return least, most * 101 // 100 + 64


PACKINGS: dict[str, Packing | None] = {
    "none": None,
    "int8_wo": Packing(8, row_bytes=2),
    "int4_wo": Packing(4, row_bytes=2),
    "fp8": Packing(8, halves_steps=True),
    "fp8_rowwise": Packing(8, row_bytes=4, halves_steps=True),
    # The scales of blocks are kept a second time, interleaved as the kernels want them.
    "nvfp4": Packing(4, 16, (1, 2), halves_steps=True),
    "int4_awq": Packing(4, 128, (2, 2), column_bytes=2),
    "w4a8_awq": Packing(4, 128, (2, 2), column_bytes=2, halves_steps=True),
    "int8_sq": Packing(8, row_bytes=4, column_bytes=2, halves_steps=True),
}
"""Quantizations and what they store, from the parameters in tensorrt_llm quantization/layers.py."""

KV_MATRICES = {"k_proj", "v_proj"}
FUSED_MATRICES = {"qkv_proj", "query_key_value", "c_attn", "Wqkv", "W_pack"}
COLUMN_MATRICES = {
    "q_proj", "gate_proj", "up_proj", "gate_up_proj", "c_fc", "fc1", "fc_in", "dense_h_to_4h",
    "w1", "w3",
}  # fmt: skip
ROW_MATRICES = {
    "o_proj", "down_proj", "out_proj", "c_proj", "fc2", "fc_out", "dense", "dense_4h_to_h", "w2",
}  # fmt: skip
ROUTERS = {"gate", "router", "shared_expert_gate"}
"""Modules by the way in which tensor parallelism splits them; what is in no set may be whole."""

TENSORS = {"weight", "bias", "weight_scale", "weight_scale_2", "input_scale"}
"""Tensors of a module; ModelOpt keeps the scales of a matrix beside it, split as that is."""

POSITIONS = {"wpe", "embed_positions", "position_embeddings"}
WITHOUT_ROTATION = {"bloom", "mpt"}
"""Tables of learned positions, and families with neither those nor rotary ones."""


@dataclass(frozen=True)
class Split:
    """A model as it is spread over ranks.

    Layers are quantized; embedding, output layer, routers, norms and biases are not
    (tensorrt_llm quantization/quantize.py).

    Attributes:
        model: The model; where its checkpoint is quantized, layers are taken as they are stored.
        width: Bytes of an unquantized weight.
        packing: How matrices of the layers are stored, or None to leave them.
        tp: GPUs that share each layer.
        pp: Groups of GPUs that share the layers out.
    """

    model: Model
    width: int
    packing: Packing | None
    tp: int
    pp: int

    def all_ranks(self) -> tuple[int, int]:
        """Return the least and the most bytes of the weights of all ranks together."""
        lows, highs = zip(*self.stages, strict=True)
        return self.tp * sum(lows), self.tp * sum(highs)

    def fullest(self) -> tuple[int, int]:
        """Return the least and the most bytes of the weights of the fullest rank."""
        lows, highs = zip(*self.stages, strict=True)
        return max(lows), max(highs)

    @cached_property
    def stages(self) -> tuple[tuple[int, int], ...]:
        """The least and the most bytes of the weights of a rank, for each pipeline stage.

        Counted once, and once for all tensors that differ in the number of their layer alone:
        what the form asks for at every change must not grow with the layers.
        """
        counts = [
            (tensor, Counter(self.stage_of(tensor, layer) for layer in layers))
            for tensor, layers in _kinds(self.model)
        ]
        return tuple(
            self._stage(stage, [(tensor, count[stage]) for tensor, count in counts if count[stage]])
            for stage in range(self.pp)
        )

    @cached_property
    def rotation(self) -> tuple[int, int]:
        """The least and the most bytes of the table of rotary positions on a rank."""
        return rotation_bytes(self.model)

    def _stage(self, stage: int, kinds: Iterable[tuple[Tensor, int]]) -> tuple[int, int]:
        """Add up the weights of a rank of a stage, given one tensor of each kind and how many."""
        sizes = [[count * end for end in self.tensor(tensor)] for tensor, count in kinds]
        low, high = (sum(ends) for ends in zip((0, 0), *sizes, strict=True))
        low, high = low + self.rotation[0], high + self.rotation[1]
        if self.model.tied_embeddings and stage == self.pp - 1:
            output = self.width * self.model.hidden_size * -(-self.model.vocab_size // self.tp)
            # On one GPU the tables have one shape, and some engines may keep one copy; those
            # with the GEMM plugin keep two (GPT-2 with 0.20, Qwen2.5 with 0.15).
            low += output if self.tp * self.pp > 1 else 0
            high += output
        return low, high

    def layers_of(self, stage: int) -> int:
        """Return the number of layers of a pipeline stage (tensorrt_llm mapping.py pp_layers)."""
        each, more = divmod(self.model.layers, self.pp)
        return each + 1 if stage < more else each

    def stage_of(self, tensor: Tensor, number: int | None) -> int:
        """Return the pipeline stage of a tensor of a layer (tensorrt_llm mapping.py pp_layers)."""
        if number is None:
            is_table = len(tensor.shape) > 1 and not _is_output(tensor)
            return 0 if is_table else self.pp - 1
        each, more = divmod(self.model.layers, self.pp)
        number = min(number, self.model.layers - 1)
        # The first `more` stages have a layer above the others.
        longer = more * (each + 1)
        return number // (each + 1) if number < longer else more + (number - longer) // each

    def tensor(self, tensor: Tensor) -> tuple[int, int]:
        """Return the least and the most bytes of one tensor on a rank that has it."""
        if _is_mask(tensor):
            return 0, 0
        if _layer(tensor) is None:
            # A table is whole on each rank, unless use_parallel_embedding splits it.
            rows, *rest = tensor.shape or (1,)
            rows = -(-rows // self.tp) if _is_output(tensor) else rows
            size = self._width_of(tensor) * rows * math.prod(rest)
            return size, size
        if self.model.quantized_with:
            # Packed as they are in the checkpoint, in a layout that is a little smaller or larger.
            shares = self.shares(tensor)
            return math.ceil(tensor.bytes * shares[0] * 9 / 10), math.ceil(
                tensor.bytes * shares[1] * 11 / 10
            )
        low, high = (math.ceil(tensor.elements * share) for share in self.shares(tensor))
        if self.packing is None or len(tensor.shape) < 2 or _module(tensor) in ROUTERS:
            return self.width * low, self.width * high
        return self.packing.stored_bytes(tensor, low, high)

    def _width_of(self, tensor: Tensor) -> int:
        """Return the bytes of an element of a table: one of few bits is taken as it is stored."""
        is_float = tensor.dtype in DTYPES or not self.model.quantized_with
        return self.width if is_float else -(-tensor.bytes // tensor.elements)

    def shares(self, tensor: Tensor) -> tuple[Fraction, Fraction]:
        """Return the least and the most of a layer's tensor that a rank holds.

        Columns are split with their biases, rows without; norms and routers are whole.
        """
        model, module = self.model, _module(tensor)
        heads, kv_heads = -(-model.heads // self.tp), -(-model.kv_heads // self.tp)
        is_matrix = len(tensor.shape) > 1
        share = Fraction(1)
        if module in KV_MATRICES:
            share = Fraction(kv_heads, model.kv_heads)
        elif module in FUSED_MATRICES:
            share = Fraction(heads + 2 * kv_heads, model.heads + 2 * model.kv_heads)
        elif module in COLUMN_MATRICES or (is_matrix and module in ROW_MATRICES):
            share = Fraction(1, self.tp)
        elif is_matrix and module not in ROUTERS:
            return Fraction(1, self.tp), share
        return share, share


def rotation_bytes(model: Model) -> tuple[int, int]:
    """Return the least and the most bytes of the float32 table of rotary positions on a rank.

    One row of head_size for each position; models that extend their context may keep two tables,
    and some rotate a part of the head.
    """
    text = model.config.get("text_config", model.config)
    if model.model_type in WITHOUT_ROTATION or text.get("alibi"):
        return 0, 0
    if any(_module(tensor) in POSITIONS for tensor in model.tensors):
        return 0, 0
    table = 4 * model.context_length * model.head_size
    part = text.get("partial_rotary_factor", text.get("rotary_pct", 1))
    scaling = text.get("rope_scaling") or text.get("rope_parameters") or {}
    kind = scaling.get("rope_type", scaling.get("type")) if isinstance(scaling, dict) else None
    low = int(table * part) if isinstance(part, int | float) and 0 < part <= 1 else table
    return low, 2 * table if kind in {"longrope", "su"} else table


@keep_latest
def _kinds(model: Model) -> list[tuple[Tensor, list[int | None]]]:
    """Return a tensor for all that differ in their layer alone, with the layers of each of them."""
    alike: dict[tuple[Any, ...], list[Tensor]] = {}
    for tensor in model.tensors:
        name = re.sub(r"(?<=\.)\d+(?=\.)", "#", tensor.name)
        alike.setdefault((name, tensor.shape, tensor.dtype, tensor.bytes), []).append(tensor)
    return [(same[0], [_layer(tensor) for tensor in same]) for same in alike.values()]


def _layer(tensor: Tensor) -> int | None:
    """Return the number of the layer that a tensor is in."""
    return next((int(part) for part in tensor.name.split(".") if part.isdigit()), None)


def _module(tensor: Tensor) -> str:
    """Return the name of the module that a tensor is in, such as "q_proj"."""
    parts = tensor.name.split(".")
    return parts[-2] if parts[-1] in TENSORS and len(parts) > 1 else parts[-1]


def _is_output(tensor: Tensor) -> bool:
    return _module(tensor) in {"lm_head", "embed_out"}


def _is_mask(tensor: Tensor) -> bool:
    """Whether a tensor is the causal mask that old checkpoints store in each layer."""
    return tensor.name.endswith(".masked_bias") or (
        tensor.name.endswith((".attn.bias", ".attention.bias")) and len(tensor.shape) == 4
    )
