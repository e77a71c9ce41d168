"""Makers of random models: real checkpoints, small enough to build and run in a test.

Weights are random, everything else is what the hub would give: a configuration that transformers
wrote, safetensors, a trained byte-level BPE tokenizer and a chat template.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerFast

Kind = Literal["llama", "qwen2", "qwen3", "phi3", "gemma3"]

SENTENCES = (
    "The harbour was quiet when the first boat came in with the tide.",
    "A compiler reads the whole program before it decides what to keep.",
    "She counted 12 lamps, 7 of them broken, and wrote the numbers down.",
    "Rain fell on the tin roof; nobody in the kitchen wanted to speak first.",
    "def add(a, b):\n    return a + b  # the smallest useful function",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "早く起きた朝は、川まで歩いて水の音を聞く。",
    "When the queue is full, the next request waits until a place is free.",
    "Every bridge in the city has a name, and most names have a story.",
    "To measure is to compare: say with what, how often, and how far apart.",
)
SPECIAL = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
TURNS = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)

TINY: dict[str, int] = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 512,
}
# What a kind needs beyond the common sizes. Phi-3 derives its head size; the others are told.
EXTRA: dict[str, dict[str, Any]] = {
    "llama": {"head_dim": 64},
    "qwen2": {},
    "qwen3": {"head_dim": 64},
    "phi3": {},
    "gemma3": {"head_dim": 64, "query_pre_attn_scalar": 64, "sliding_window": 64},
}


def make_tiny_model(kind: Kind, directory: Path, seed: int = 0, **sizes: Any) -> Path:
    """Write a random model of `kind` in float32 into `directory`.

    Args:
        kind: The architecture.
        directory: Created if missing.
        seed: Of the weights; the same seed gives the same bytes.
        sizes: Fields of the transformers configuration that differ from `TINY`; `dtype` as well,
            the name under which the weights are saved.

    Returns:
        `directory`.
    """
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    dtype = getattr(torch, sizes.pop("dtype", "float32"))
    tokenizer = make_tokenizer(sizes.get("vocab_size", TINY["vocab_size"]))
    tokens = {f"{name[:3]}_token_id": getattr(tokenizer, f"{name}_id") for name in SPECIAL}
    torch.manual_seed(seed)
    model = _make_network(kind, {**TINY, **EXTRA[kind], **tokens, **sizes})
    # Fresh norms are ones and fresh biases zeros, which exporters fold away; trained ones differ.
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data += 0.02 * torch.randn_like(parameter)
    model.to(dtype).save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def make_random_model(directory: Path, parameters: float = 0.3e9, seed: int = 0) -> Path:
    """Write a random Qwen2-like model of about `parameters` for benchmarks.

    24 layers of width 1024 (intermediate 2560, 16 query heads, 4 heads for keys and values) and a
    vocabulary of 32,000 give 0.317 billion. Other sizes scale the width with the square root of
    the ratio to that, in steps of one head of 64.
    """
    width = max(2, round(16 * (parameters / 0.317e9) ** 0.5))
    return make_tiny_model(
        "qwen2",
        directory,
        seed,
        vocab_size=32_000,
        hidden_size=64 * width,
        intermediate_size=160 * width // 64 * 64,
        num_hidden_layers=24,
        num_attention_heads=width,
        num_key_value_heads=math.gcd(width, 4),
        max_position_embeddings=4096,
    )


def make_tokenizer(vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE on `SENTENCES` and fill it up with unused words to `vocab_size`.

    The filling makes every id that a random model may choose decodable.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*SPECIAL.values(), *TURNS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    spec = json.loads(tokenizer.to_str())
    vocabulary = spec["model"]["vocab"]
    # "Ġ" is how a byte-level vocabulary writes a space.
    fillers = {f"Ġword{number}": number for number in range(len(vocabulary), vocab_size)}
    spec["model"]["vocab"] = vocabulary | fillers
    filled = Tokenizer.from_str(json.dumps(spec))
    fast = PreTrainedTokenizerFast(tokenizer_object=filled, **SPECIAL)
    fast.chat_template = CHAT_TEMPLATE
    return fast


def _make_network(kind: Kind, fields: dict[str, Any]) -> PreTrainedModel:
    import transformers

    names = {
        "llama": ("LlamaConfig", "LlamaForCausalLM"),
        "qwen2": ("Qwen2Config", "Qwen2ForCausalLM"),
        "qwen3": ("Qwen3Config", "Qwen3ForCausalLM"),
        "phi3": ("Phi3Config", "Phi3ForCausalLM"),
        "gemma3": ("Gemma3TextConfig", "Gemma3ForCausalLM"),
    }
    config, network = (getattr(transformers, name) for name in names[kind])
    return network(config(**fields)).eval()
