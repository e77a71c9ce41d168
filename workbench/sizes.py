"""The sizes of a network, from its configuration and the shapes of its tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from workbench.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.tensors import Tensor

NAMES = {
    "layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "heads": ("num_attention_heads", "n_head", "num_heads", "n_heads"),
    "kv_heads": ("num_key_value_heads",),
    "head_size": ("head_dim",),
    "intermediate_size": ("intermediate_size", "n_inner", "ffn_dim"),
    "vocab_size": ("vocab_size",),
    "context_length": ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"),
}
"""The keys under which configurations of different families keep a number."""


def network_sizes(
    source: str, text: Mapping[str, Any], tensors: tuple[Tensor, ...]
) -> dict[str, int]:
    """Return the sizes of a network under the names of `NAMES`.

    What a configuration leaves to the defaults of its class (the vocabulary and heads of a
    multimodal Gemma 3, for one) is taken from the shapes of the tensors.

    Args:
        source: The model's name for messages.
        text: The configuration of the language model.
        tensors: Its stored tensors.

    Raises:
        ModelError: A size is not a positive whole number, or nothing tells it.
    """
    shapes = {".".join(tensor.name.split(".")[-2:]): tensor.shape for tensor in tensors}
    sizes = {name: _number(source, text, name) for name in NAMES}
    rows = {name: shape[0] for name, shape in shapes.items() if shape}

    head = (
        sizes["head_size"]
        or _quotient(rows.get("q_proj.weight", 0), sizes["heads"])
        or _quotient(sizes["hidden_size"], sizes["heads"])
        or rows.get("q_norm.weight", 0)
    )
    derived = {
        "head_size": head,
        "vocab_size": rows.get("embed_tokens.weight", 0),
        "intermediate_size": rows.get("up_proj.weight", 0) or rows.get("dense_h_to_4h.weight", 0),
        "heads": _quotient(rows.get("q_proj.weight", 0), head),
        "kv_heads": _quotient(rows.get("k_proj.weight", 0), head)
        or _fused_kv_heads(rows, sizes["heads"], head),
    }
    for name, value in derived.items():
        sizes[name] = sizes[name] or value
    # Without the key all families give each query head keys and values of its own.
    sizes["kv_heads"] = sizes["kv_heads"] or sizes["heads"]
    for name in ("layers", "hidden_size", "heads", "head_size", "vocab_size"):
        if not sizes[name]:
            raise ModelError(
                f"config.json of {source} does not tell {name} (expected under "
                f"{' or '.join(NAMES[name])}), and neither do its tensors. It is no transformer "
                "decoder that is known here."
            )
    return sizes


def _fused_kv_heads(rows: Mapping[str, int], heads: int, head: int) -> int:
    """Return the heads for keys and values that follow from a matrix with all three; 0 for none.

    Falcon and StarCoder share one pair among all heads, and say so only by a switch.
    """
    for name in ("query_key_value.weight", "c_attn.weight"):
        others = _quotient(rows.get(name, 0), head) - heads
        if others > 0:
            return _quotient(others, 2)
    return 0


def _number(source: str, text: Mapping[str, Any], name: str) -> int:
    """Return a number of the configuration, 0 where it is not given."""
    for key in NAMES[name]:
        value = text.get(key)
        if value is None:
            continue
        if type(value) is not int or value <= 0:
            raise ModelError(
                f"config.json of {source} gives {value!r} for {key}; a positive whole number is "
                "expected."
            )
        return value
    return 0


def _quotient(number: int, divisor: int) -> int:
    """Return the quotient where it is whole, else 0."""
    return number // divisor if divisor and number % divisor == 0 else 0
