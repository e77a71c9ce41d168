"""Trains the demo model from scratch and writes it as a Hugging Face directory.

    python -m tests.demo_model.train --out workbench/demo_model --device cuda

The corpus, the order of the batches and the first weights follow from `--seed`; sums on a GPU may
still differ in the last bit from run to run, and with them the weights.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM

from tests.demo_model.corpus import Message, chats

if TYPE_CHECKING:
    from collections.abc import Iterator

PAD, BEGIN, END, SYSTEM, USER, ASSISTANT = SPECIAL = (
    "<|pad|>",
    "<|begin|>",
    "<|end|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
)  # their ids are 0 to 5
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 1280,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rope_theta": 10000.0,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "mlp_bias": False,
    "initializer_range": 0.04,
    "tie_word_embeddings": True,
    "use_cache": True,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
IGNORED = -100  # the label that the loss skips
PLAIN = 0.1  # share of the one-turn chats that is also learned without the template
ROUND = 32  # lengths are padded to a multiple of it: few shapes, so the GPU's allocator settles
GROUP = 64  # input channels that share a scale in int4 weights
PEAK, DECAY = 2e-3, 0.1  # learning rate and weight decay

Example = tuple[list[int], list[int]]  # token ids and labels


def main() -> None:
    """Reads the command line, trains and writes the directory."""
    args = arguments()
    corpus = list(chats(args.chats, args.seed))
    torch.manual_seed(args.seed)
    model = LlamaForCausalLM(LlamaConfig(**CONFIG | {"torch_dtype": "float32"}))
    if args.start:
        tokenizer = Tokenizer.from_file(str(args.start / "tokenizer.json"))
        # not strict: the output layer shares the embeddings' weights and is not stored
        model.load_state_dict(load_file(args.start / "model.safetensors"), strict=False)
    else:
        tokenizer = learn_tokenizer(corpus[:4000])
    model.to(args.device)
    examples = encode(corpus, tokenizer, random.Random(args.seed))
    count = sum(len(ids) for ids, _ in examples)
    print(f"{len(examples)} examples, {count} tokens, vocabulary {tokenizer.get_vocab_size()}")
    print(f"{model.num_parameters()} parameters on {args.device}", flush=True)
    learn(model, batches(examples, args.tokens, args.seed), args.steps)
    write(args.out, model, tokenizer)


def arguments() -> argparse.Namespace:
    """Reads and checks the command line."""
    parser = argparse.ArgumentParser(description="Train the demo model from scratch.")
    parser.add_argument("--out", type=Path, required=True, help="directory to write")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--chats", type=int, default=200_000, help="chats in the corpus")
    parser.add_argument("--tokens", type=int, default=32_768, help="tokens in a step, padding too")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--start", type=Path, help="go on from the directory of an earlier run")
    args = parser.parse_args()
    if min(args.steps, args.chats, args.tokens) < 1:
        parser.error("--steps, --chats and --tokens must be at least 1")
    if args.start and not (args.start / "model.safetensors").is_file():
        parser.error(f"--start needs a directory that this program wrote; {args.start} is none")
    return args


def learn_tokenizer(corpus: list[list[Message]]) -> Tokenizer:
    """Learns a byte-level BPE from the chats.

    It adds no token of its own to a text: the template writes the first one, so that a templated
    prompt is encoded the same way with and without `add_special_tokens`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=CONFIG["vocab_size"],
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (message["content"] for chat in corpus for message in chat)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(corpus: list[list[Message]], tokenizer: Tokenizer, rng: random.Random) -> list[Example]:
    """Turns chats into token ids and labels; only what the assistant says is learned."""
    contents = [message["content"] for chat in corpus for message in chat]
    encoded = iter(tokenizer.encode_batch(contents))
    begin, end = tokenizer.token_to_id(BEGIN), tokenizer.token_to_id(END)
    newline = tokenizer.encode("\n").ids
    examples = []
    for chat in corpus:
        ids, labels = [begin], [IGNORED]
        for message in chat:
            content = [*next(encoded).ids, end]
            ids += [tokenizer.token_to_id(f"<|{message['role']}|>"), *content]
            said = message["role"] == "assistant"
            labels += [IGNORED, *(content if said else [IGNORED] * len(content))]
        if len(ids) <= CONFIG["max_position_embeddings"]:
            examples.append((ids, labels))
        if len(chat) == 2 and rng.random() < PLAIN:
            prompt = tokenizer.encode(chat[0]["content"]).ids
            answer = [*newline, *content]
            examples.append(([*prompt, *answer], [IGNORED] * len(prompt) + answer))
    return examples


def batches(
    examples: list[Example], tokens: int, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yields batches of examples of like length, for ever.

    Padding stands on the right, where causal attention keeps it from all that is learned.

    Args:
        examples: token ids and labels.
        tokens: at most so many tokens in a batch, padding included, but at least one example.
        seed: decides the order.

    Yields:
        Token ids and labels, both int64 of shape (examples, length).
    """
    rng = random.Random(seed)
    while True:
        rng.shuffle(examples)
        groups: list[list[Example]] = [[]]
        for example in sorted(examples, key=_length):
            if groups[-1] and (len(groups[-1]) + 1) * _length(example) > tokens:
                groups.append([])
            groups[-1].append(example)
        rng.shuffle(groups)
        for group in groups:
            length = _length(group[-1])
            yield (
                torch.tensor([ids + [0] * (length - len(ids)) for ids, _ in group]),
                torch.tensor([said + [IGNORED] * (length - len(said)) for _, said in group]),
            )


def _length(example: Example) -> int:
    return math.ceil(len(example[0]) / ROUND) * ROUND


def learn(
    model: LlamaForCausalLM, data: Iterator[tuple[torch.Tensor, torch.Tensor]], steps: int
) -> None:
    """Trains in place with AdamW, a short warm-up and a cosine down to a fiftieth."""
    decayed = [weight for weight in model.parameters() if weight.dim() > 1]
    others = [weight for weight in model.parameters() if weight.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}],
        lr=PEAK,
        betas=(0.9, 0.98),
    )
    warmup = max(1, steps // 25)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, 0.51 + 0.49 * math.cos(math.pi * step / steps)),
    )
    on_gpu = model.device.type == "cuda"
    began = time.perf_counter()
    model.train()
    for step in range(1, steps + 1):
        ids, labels = (tensor.to(model.device) for tensor in next(data))
        cast = torch.autocast("cuda", torch.bfloat16) if on_gpu else nullcontext()
        with rounding_noise(model), cast:
            loss = model(input_ids=ids, labels=labels).loss
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        if step % 100 == 0 or step in {1, steps}:
            seconds = time.perf_counter() - began
            print(f"step {step} loss {loss.item():.4f} after {seconds:.0f} s", flush=True)


@contextmanager
def rounding_noise(model: LlamaForCausalLM) -> Iterator[None]:
    """Disturbs the weights for one step as if they had been rounded to int4.

    Uniform noise as wide as one step of a symmetric 15-level grid per group of 64 input channels,
    scaled by a random factor of up to 1.5: the model learns to stand what compression will do.
    The idea is that of Defossez, Adi and Synnaeve, "Differentiable Model Compression via Pseudo
    Quantization Noise" (2022); here the number of bits is fixed.
    """
    weights = [m.weight for n, m in model.named_modules() if "_proj" in n]
    kept = [weight.detach().clone() for weight in weights]
    with torch.no_grad():
        for weight in weights:
            groups = weight.view(weight.shape[0], -1, GROUP)
            width = groups.abs().amax(-1, keepdim=True) * (2 / 15)
            noise = (torch.rand_like(groups) - 0.5) * width
            groups += noise * 1.5 * torch.rand((), device=weight.device)
    yield
    with torch.no_grad():
        for weight, original in zip(weights, kept, strict=True):
            weight.copy_(original)


def write(out: Path, model: LlamaForCausalLM, tokenizer: Tokenizer) -> None:
    """Writes weights in bfloat16, configuration, tokenizer and chat template.

    The small files are written by hand and not by `save_pretrained`, so that every version of
    transformers from 4.51 on reads the same thing.
    """
    out.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embeddings
    }
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    (out / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    _write_json(out / "config.json", CONFIG)
    ids = {key: CONFIG[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    _write_json(out / "generation_config.json", ids)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "pad_token": PAD,
        "model_max_length": CONFIG["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
        # without it transformers 4 adds token_type_ids, which Llama's generate refuses
        "model_input_names": ["input_ids", "attention_mask"],
    }
    _write_json(out / "tokenizer_config.json", settings)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
