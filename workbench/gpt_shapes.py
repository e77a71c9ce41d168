"""Tensors of the families before Llama: LayerNorm with shifts, biases, learned or other positions.

Names, shapes and defaults are those of transformers (models/<family>/); tests instantiate each
family and compare.
"""

from __future__ import annotations

from workbench.configuration import Configuration
from workbench.shapes import Shapes, linear, norm, table, under


def gpt2(config: Configuration) -> Shapes:
    """Yield the tensors of GPT-2, whose matrices have a row for each input."""
    hidden = config.hidden
    inner = config.number("n_inner", default=4 * hidden)
    yield from table("transformer.wte", config.vocabulary, hidden)
    yield from table("transformer.wpe", config.number("n_positions", "n_ctx"), hidden)
    for layer in range(config.layers):
        prefix = f"transformer.h.{layer}"
        for name, inputs, outputs in (
            ("attn.c_attn", hidden, 3 * hidden),
            ("attn.c_proj", hidden, hidden),
            ("mlp.c_fc", hidden, inner),
            ("mlp.c_proj", inner, hidden),
        ):
            yield f"{prefix}.{name}.weight", (inputs, outputs)
            yield f"{prefix}.{name}.bias", (outputs,)
        yield from norm(f"{prefix}.ln_1", hidden, bias=True)
        yield from norm(f"{prefix}.ln_2", hidden, bias=True)
    yield from norm("transformer.ln_f", hidden, bias=True)
    yield from _output(config, tied=True)


def gpt_bigcode(config: Configuration) -> Shapes:
    """Yield the tensors of StarCoder, a GPT-2 whose heads share keys and values."""
    hidden = config.hidden
    inner = config.number("n_inner", default=4 * hidden)
    shared = 2 * hidden // config.heads
    keys_and_values = shared if config.flag("multi_query", default=True) else 2 * hidden
    yield from table("transformer.wte", config.vocabulary, hidden)
    yield from table("transformer.wpe", config.number("n_positions"), hidden)
    for layer in range(config.layers):
        prefix = f"transformer.h.{layer}"
        yield from linear(f"{prefix}.attn.c_attn", hidden + keys_and_values, hidden, bias=True)
        yield from linear(f"{prefix}.attn.c_proj", hidden, hidden, bias=True)
        yield from linear(f"{prefix}.mlp.c_fc", inner, hidden, bias=True)
        yield from linear(f"{prefix}.mlp.c_proj", hidden, inner, bias=True)
        yield from norm(f"{prefix}.ln_1", hidden, bias=True)
        yield from norm(f"{prefix}.ln_2", hidden, bias=True)
    yield from norm("transformer.ln_f", hidden, bias=True)
    yield from _output(config, tied=True)


def gptj(config: Configuration) -> Shapes:
    """Yield the tensors of GPT-J, whose output layer has a bias."""
    hidden = config.hidden
    inner = config.number("n_inner", default=4 * hidden)
    yield from table("transformer.wte", config.vocabulary, hidden)
    for layer in range(config.layers):
        prefix = f"transformer.h.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from linear(f"{prefix}.attn.{name}", hidden, hidden)
        yield from linear(f"{prefix}.mlp.fc_in", inner, hidden, bias=True)
        yield from linear(f"{prefix}.mlp.fc_out", hidden, inner, bias=True)
        yield from norm(f"{prefix}.ln_1", hidden, bias=True)
    yield from norm("transformer.ln_f", hidden, bias=True)
    config.refuse("tie_word_embeddings")
    yield from linear("lm_head", config.vocabulary, hidden, bias=True)


def gpt_neox(config: Configuration) -> Shapes:
    """Yield the tensors of GPT-NeoX and Pythia."""
    hidden, bias = config.hidden, config.flag("attention_bias", default=True)
    yield from table("gpt_neox.embed_in", config.vocabulary, hidden)
    for layer in range(config.layers):
        prefix = f"gpt_neox.layers.{layer}"
        yield from linear(f"{prefix}.attention.query_key_value", 3 * hidden, hidden, bias=bias)
        yield from linear(f"{prefix}.attention.dense", hidden, hidden, bias=bias)
        yield from _four_times(f"{prefix}.mlp", hidden, config.number("intermediate_size"))
        yield from norm(f"{prefix}.input_layernorm", hidden, bias=True)
        yield from norm(f"{prefix}.post_attention_layernorm", hidden, bias=True)
    yield from norm("gpt_neox.final_layer_norm", hidden, bias=True)
    if not config.flag("tie_word_embeddings", default=False):
        yield from table("embed_out", config.vocabulary, hidden)


def opt(config: Configuration) -> Shapes:
    """Yield the tensors of OPT; its table of positions has two more rows."""
    hidden, inner = config.hidden, config.number("ffn_dim")
    width = config.number("word_embed_proj_dim", default=hidden)
    bias = config.flag("enable_bias", default=True)
    scales = config.flag("layer_norm_elementwise_affine", default=True)
    positions = config.number("max_position_embeddings") + 2
    yield from table("model.decoder.embed_tokens", config.vocabulary, width)
    yield from table("model.decoder.embed_positions", positions, hidden)
    if width != hidden:
        yield from linear("model.decoder.project_out", width, hidden)
        yield from linear("model.decoder.project_in", hidden, width)
    for layer in range(config.layers):
        prefix = f"model.decoder.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            yield from linear(f"{prefix}.self_attn.{name}", hidden, hidden, bias=bias)
        yield from linear(f"{prefix}.fc1", inner, hidden, bias=bias)
        yield from linear(f"{prefix}.fc2", hidden, inner, bias=bias)
        if scales:
            yield from norm(f"{prefix}.self_attn_layer_norm", hidden, bias=True)
            yield from norm(f"{prefix}.final_layer_norm", hidden, bias=True)
    is_last = config.flag("do_layer_norm_before", default=True) and not config.flag(
        "_remove_final_layer_norm", default=False
    )
    if scales and is_last:
        yield from norm("model.decoder.final_layer_norm", hidden, bias=True)
    if not config.flag("tie_word_embeddings", default=True):
        yield from table("lm_head", config.vocabulary, width)


def bloom(config: Configuration) -> Shapes:
    """Yield the tensors of BLOOM, which has no table of positions."""
    hidden = config.hidden
    yield from table("transformer.word_embeddings", config.vocabulary, hidden)
    yield from norm("transformer.word_embeddings_layernorm", hidden, bias=True)
    for layer in range(config.layers):
        prefix = f"transformer.h.{layer}"
        name = f"{prefix}.self_attention"
        yield from linear(f"{name}.query_key_value", 3 * hidden, hidden, bias=True)
        yield from linear(f"{name}.dense", hidden, hidden, bias=True)
        yield from _four_times(f"{prefix}.mlp", hidden, 4 * hidden)
        yield from norm(f"{prefix}.input_layernorm", hidden, bias=True)
        yield from norm(f"{prefix}.post_attention_layernorm", hidden, bias=True)
    yield from norm("transformer.ln_f", hidden, bias=True)
    yield from _output(config, tied=True)


def falcon(config: Configuration) -> Shapes:
    """Yield the tensors of Falcon, in all its generations."""
    hidden, heads = config.hidden, config.heads
    inner = config.number("ffn_hidden_size", default=4 * hidden)
    bias = config.flag("bias", default=False)
    yield from table("transformer.word_embeddings", config.vocabulary, hidden)
    for layer in range(config.layers):
        prefix = f"transformer.h.{layer}"
        rows = hidden + 2 * _falcon_kv_heads(config) * (hidden // heads)
        name = f"{prefix}.self_attention"
        yield from linear(f"{name}.query_key_value", rows, hidden, bias=bias)
        yield from linear(f"{name}.dense", hidden, hidden, bias=bias)
        yield from _four_times(f"{prefix}.mlp", hidden, inner, bias=bias)
        yield from under(prefix, _falcon_norms(config))
    yield from norm("transformer.ln_f", hidden, bias=True)
    yield from _output(config, tied=True)


def _falcon_kv_heads(config: Configuration) -> int:
    if config.flag("new_decoder_architecture", default=False):
        return config.number("num_kv_heads", default=config.heads)
    return 1 if config.flag("multi_query", default=True) else config.heads


def _falcon_norms(config: Configuration) -> Shapes:
    new = config.flag("new_decoder_architecture", default=False)
    if not config.flag("parallel_attn", default=True):
        names = ["input_layernorm", "post_attention_layernorm"]
    elif config.number("num_ln_in_parallel_attn", default=2 if new else 1) == 2:
        names = ["ln_attn", "ln_mlp"]
    else:
        names = ["input_layernorm"]
    for name in names:
        yield from norm(name, config.hidden, bias=True)


def phi(config: Configuration) -> Shapes:
    """Yield the tensors of Phi-1, 1.5 and 2, which have biases wherever there can be one."""
    config.refuse("qk_layernorm")
    hidden, heads = config.hidden, config.heads
    inner = config.number("intermediate_size")
    kv_width = config.number("num_key_value_heads", default=heads) * (hidden // heads)
    yield from table("model.embed_tokens", config.vocabulary, hidden)
    for layer in range(config.layers):
        prefix = f"model.layers.{layer}"
        yield from linear(f"{prefix}.self_attn.q_proj", hidden, hidden, bias=True)
        yield from linear(f"{prefix}.self_attn.k_proj", kv_width, hidden, bias=True)
        yield from linear(f"{prefix}.self_attn.v_proj", kv_width, hidden, bias=True)
        yield from linear(f"{prefix}.self_attn.dense", hidden, hidden, bias=True)
        yield from linear(f"{prefix}.mlp.fc1", inner, hidden, bias=True)
        yield from linear(f"{prefix}.mlp.fc2", hidden, inner, bias=True)
        yield from norm(f"{prefix}.input_layernorm", hidden, bias=True)
    yield from norm("model.final_layernorm", hidden, bias=True)
    config.refuse("tie_word_embeddings")
    yield from linear("lm_head", config.vocabulary, hidden, bias=True)


def _four_times(name: str, hidden: int, inner: int, *, bias: bool = True) -> Shapes:
    """Yield a feed-forward part as Megatron names it."""
    yield from linear(f"{name}.dense_h_to_4h", inner, hidden, bias=bias)
    yield from linear(f"{name}.dense_4h_to_h", hidden, inner, bias=bias)


def _output(config: Configuration, *, tied: bool) -> Shapes:
    if not config.flag("tie_word_embeddings", default=tied):
        yield from table("lm_head", config.vocabulary, config.hidden)
