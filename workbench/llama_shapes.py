"""Tensors of Llama and of what descends from it: rotary positions, gated feed-forward, RMSNorm.

Each family differs from Llama in a few points, which its `Style` names. Names, shapes and defaults
are those of transformers (models/<family>/); tests instantiate each family and compare.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from workbench.configuration import Configuration
from workbench.shapes import Shapes, gated, linear, norm, table, under

FeedForward = Callable[[Configuration, int], Shapes]
"""What yields the feed-forward part of a layer: of a configuration, and the layer's number."""

Attention = Callable[[Configuration], Shapes]
"""What yields the attention of a layer."""

TWO_NORMS = ("input_layernorm", "post_attention_layernorm")
FOUR_NORMS = (*TWO_NORMS, "pre_feedforward_layernorm", "post_feedforward_layernorm")


def llama_feed_forward(config: Configuration, layer: int) -> Shapes:
    """Yield a gated feed-forward part; mlp_bias is Llama's and Granite's."""
    del layer
    bias = config.flag("mlp_bias", default=False)
    yield from gated("mlp", config.hidden, config.number("intermediate_size"), bias=bias)


@dataclass(frozen=True)
class Heads:
    """Attention with queries, keys and values of each head.

    Attributes:
        bias: What switches biases of queries, keys and values on; "always", or "" for never.
        output_bias: The same of the matrix that follows them.
        norms: Queries and keys are normalized, "each" head alone or "all" of them; "" for neither.
        size: Of a head where config.json does not say; 0 for hidden_size / heads.
        shared: Whether config.json must say how many heads share keys and values; where it need
            not, each head has its own.
    """

    bias: str = ""
    output_bias: str = ""
    norms: Literal["", "each", "all"] = ""
    size: int = 0
    shared: bool = True

    def __call__(self, config: Configuration) -> Shapes:
        """Yield the tensors of attention in one layer."""
        hidden, heads = config.hidden, config.heads
        head = config.number("head_dim", default=self.size or hidden // heads)
        kv_heads = config.number("num_key_value_heads", default=None if self.shared else heads)
        bias = _is_on(config, self.bias)
        yield from linear("q_proj", heads * head, hidden, bias=bias)
        yield from linear("k_proj", kv_heads * head, hidden, bias=bias)
        yield from linear("v_proj", kv_heads * head, hidden, bias=bias)
        yield from linear("o_proj", hidden, heads * head, bias=_is_on(config, self.output_bias))
        if self.norms:
            each = self.norms == "each"
            yield from norm("q_norm", head if each else heads * head)
            yield from norm("k_norm", head if each else kv_heads * head)


@dataclass(frozen=True)
class Style:
    """A family: what its layers are made of.

    Attributes:
        attention: Of a layer.
        feed_forward: Of a layer.
        norms: Normalizations of a layer.
        norm_bias: Whether they, and the last one, have shifts.
        tied: Whether the output layer is the embedding table where config.json does not say.
        unknown: Switches that would bring tensors which are not described here.
    """

    attention: Attention
    feed_forward: FeedForward = llama_feed_forward
    norms: tuple[str, ...] = TWO_NORMS
    norm_bias: bool = False
    tied: bool = False
    unknown: tuple[str, ...] = ()

    def __call__(self, config: Configuration) -> Shapes:
        """Yield the tensors of a network of this family."""
        for switch in self.unknown:
            config.refuse(switch)
        yield from table("model.embed_tokens", config.vocabulary, config.hidden)
        for number in range(config.layers):
            yield from under(f"model.layers.{number}", self.layer(config, number))
        yield from norm("model.norm", config.hidden, bias=self.norm_bias)
        if not config.flag("tie_word_embeddings", default=self.tied):
            yield from table("lm_head", config.vocabulary, config.hidden)

    def layer(self, config: Configuration, number: int) -> Shapes:
        """Yield the tensors of one layer."""
        yield from under("self_attn", self.attention(config))
        yield from self.feed_forward(config, number)
        for name in self.norms:
            yield from norm(name, config.hidden, bias=self.norm_bias)


def _is_on(config: Configuration, switch: str) -> bool:
    return switch == "always" or (bool(switch) and config.flag(switch, default=False))


def _fused_heads(config: Configuration) -> Shapes:
    """Yield Phi-3's attention, where queries, keys and values are one matrix."""
    heads = config.heads
    head = config.hidden // heads
    kv_heads = config.number("num_key_value_heads", default=heads)
    yield from linear("qkv_proj", (heads + 2 * kv_heads) * head, config.hidden)
    yield from linear("o_proj", config.hidden, heads * head)


def _fused_feed_forward(config: Configuration, layer: int) -> Shapes:
    """Yield Phi-3's feed-forward part, where gate and up projection are one matrix."""
    del layer
    inner = config.number("intermediate_size")
    yield from linear("mlp.gate_up_proj", 2 * inner, config.hidden)
    yield from linear("mlp.down_proj", config.hidden, inner)


def _starcoder2_heads(config: Configuration) -> Shapes:
    bias = "always" if config.flag("use_bias", default=True) else ""
    yield from Heads(bias, bias)(config)


def _starcoder2_feed_forward(config: Configuration, layer: int) -> Shapes:
    del layer
    inner, bias = config.number("intermediate_size"), config.flag("use_bias", default=True)
    yield from linear("mlp.c_fc", inner, config.hidden, bias=bias)
    yield from linear("mlp.c_proj", config.hidden, inner, bias=bias)


_SWITCHED = "attention_bias"

LLAMA = Style(Heads(_SWITCHED, _SWITCHED, shared=False))
MISTRAL = Style(Heads())
QWEN2 = Style(Heads("always"))
QWEN3 = Style(Heads(_SWITCHED, _SWITCHED, "each", 128))
GEMMA = Style(Heads(_SWITCHED, _SWITCHED, size=256), tied=True)
GEMMA2 = Style(Heads(_SWITCHED, _SWITCHED, size=256), norms=FOUR_NORMS, tied=True)
GEMMA3 = Style(Heads(_SWITCHED, _SWITCHED, "each", 256), norms=FOUR_NORMS, tied=True)
OLMO2 = Style(
    Heads(_SWITCHED, _SWITCHED, "all", shared=False),
    norms=("post_attention_layernorm", "post_feedforward_layernorm"),
)
COHERE = Style(
    Heads(_SWITCHED, _SWITCHED, shared=False),
    norms=("input_layernorm",),
    tied=True,
    unknown=("use_qk_norm",),
)
PHI3 = Style(_fused_heads, _fused_feed_forward)
STARCODER2 = Style(_starcoder2_heads, _starcoder2_feed_forward, norm_bias=True, tied=True)

GEMMA3_DEFAULTS = {
    "vocab_size": 262_208,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
}
"""What multimodal checkpoints of Gemma 3 leave to transformers' Gemma3TextConfig."""
