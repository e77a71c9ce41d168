"""Tensors of mixtures of experts, and of DeepSeek's latent attention.

Names are those of checkpoints, where each expert has matrices of its own (transformers joins them
when it loads a model); shapes and defaults are those of transformers (models/<family>/).
"""

from __future__ import annotations

from workbench.configuration import Configuration
from workbench.llama_shapes import MISTRAL, Heads, Style
from workbench.shapes import Shapes, gated, linear, norm, table, under


def _mixtral_experts(config: Configuration, layer: int) -> Shapes:
    del layer
    hidden, inner = config.hidden, config.number("intermediate_size")
    experts = config.number("num_local_experts")
    yield from linear("block_sparse_moe.gate", experts, hidden)
    for number in range(experts):
        name = f"block_sparse_moe.experts.{number}"
        yield from linear(f"{name}.w1", inner, hidden)
        yield from linear(f"{name}.w2", hidden, inner)
        yield from linear(f"{name}.w3", inner, hidden)


def _experts(config: Configuration, experts: int) -> Shapes:
    """Yield a router and its experts."""
    inner = config.number("moe_intermediate_size")
    yield from linear("mlp.gate", experts, config.hidden)
    for number in range(experts):
        yield from gated(f"mlp.experts.{number}", config.hidden, inner)


def _dense(config: Configuration) -> Shapes:
    yield from gated("mlp", config.hidden, config.number("intermediate_size"))


def _qwen_is_sparse(config: Configuration, layer: int) -> bool:
    step = config.number("decoder_sparse_step", default=1)
    return layer not in config.numbers("mlp_only_layers") and (layer + 1) % step == 0


def _qwen2_feed_forward(config: Configuration, layer: int) -> Shapes:
    if not _qwen_is_sparse(config, layer):
        yield from _dense(config)
        return
    yield from _experts(config, config.number("num_experts"))
    shared = config.number("shared_expert_intermediate_size")
    yield from gated("mlp.shared_expert", config.hidden, shared)
    yield from linear("mlp.shared_expert_gate", 1, config.hidden)


def _qwen3_feed_forward(config: Configuration, layer: int) -> Shapes:
    if _qwen_is_sparse(config, layer):
        yield from _experts(config, config.number("num_experts"))
    else:
        yield from _dense(config)


def _latent_attention(config: Configuration) -> Shapes:
    """Yield latent attention (DeepSeek-AI, arXiv:2405.04434, 2.1): keys and values from a few."""
    hidden, heads = config.hidden, config.heads
    rope, plain = config.number("qk_rope_head_dim"), config.number("qk_nope_head_dim")
    values, rank = config.number("v_head_dim"), config.number("kv_lora_rank")
    bias = config.flag("attention_bias", default=False)
    if config.values.get("q_lora_rank") is None:
        yield from linear("q_proj", heads * (plain + rope), hidden)
    else:
        query_rank = config.number("q_lora_rank")
        yield from linear("q_a_proj", query_rank, hidden, bias=bias)
        yield from norm("q_a_layernorm", query_rank)
        yield from linear("q_b_proj", heads * (plain + rope), query_rank)
    yield from linear("kv_a_proj_with_mqa", rank + rope, hidden, bias=bias)
    yield from norm("kv_a_layernorm", rank)
    yield from linear("kv_b_proj", heads * (plain + values), rank)
    yield from linear("o_proj", hidden, heads * values, bias=bias)


def _deepseek_feed_forward(config: Configuration, layer: int) -> Shapes:
    if config.number("moe_layer_freq", default=1) != 1:
        config.refuse("moe_layer_freq")
    if layer < config.number("first_k_dense_replace"):
        yield from _dense(config)
        return
    yield from _experts(config, config.number("n_routed_experts"))
    shared = config.number("n_shared_experts") * config.number("moe_intermediate_size")
    yield from gated("mlp.shared_experts", config.hidden, shared)


def _deepseek_v3_feed_forward(config: Configuration, layer: int) -> Shapes:
    yield from _deepseek_feed_forward(config, layer)
    if layer >= config.number("first_k_dense_replace"):
        yield "mlp.gate.e_score_correction_bias", (config.number("n_routed_experts"),)


_DEEPSEEK_V3 = Style(_latent_attention, _deepseek_v3_feed_forward)


def deepseek_v3(config: Configuration) -> Shapes:
    """Yield the tensors of DeepSeek V3, with the layers that predict a second token ahead.

    Those follow the others, with tables and matrices of their own (README_WEIGHTS.md of
    DeepSeek-V3); configurations without num_nextn_predict_layers have none.
    """
    hidden, vocabulary = config.hidden, config.vocabulary
    yield from _DEEPSEEK_V3(config)
    if config.values.get("num_nextn_predict_layers"):
        for number in range(config.number("num_nextn_predict_layers")):
            prefix = f"model.layers.{config.layers + number}"
            yield from under(prefix, _DEEPSEEK_V3.layer(config, config.layers))
            yield from table(f"{prefix}.embed_tokens", vocabulary, hidden)
            yield from norm(f"{prefix}.enorm", hidden)
            yield from norm(f"{prefix}.hnorm", hidden)
            yield from linear(f"{prefix}.eh_proj", hidden, 2 * hidden)
            yield from norm(f"{prefix}.shared_head.norm", hidden)
            yield from table(f"{prefix}.shared_head.head", vocabulary, hidden)


MIXTRAL = Style(MISTRAL.attention, _mixtral_experts)
QWEN2_MOE = Style(Heads("always"), _qwen2_feed_forward)
QWEN3_MOE = Style(Heads("attention_bias", "attention_bias", "each"), _qwen3_feed_forward)
DEEPSEEK_V2 = Style(_latent_attention, _deepseek_feed_forward)
