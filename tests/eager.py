"""Greedy tokens of transformers in eager float32, the reference that everybody knows.

    python tests/eager.py TOKENS < prompts.json > tokens.json

The prompts are lists of token ids for each model's directory, and the tokens come the same way.
In a process of its own: what torch warns about is not ours to mend.
"""

from __future__ import annotations

import json
import sys

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel


def main() -> None:
    count = int(sys.argv[1])
    torch.set_num_threads(1)  # for tiny models others would only wait, and busily
    answers = {
        directory: [tokens(model, prompt, count) for prompt in prompts]
        for directory, prompts in json.load(sys.stdin).items()
        for model in [AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()]
    }
    json.dump(answers, sys.stdout)


def tokens(model: PreTrainedModel, prompt: list[int], count: int) -> list[int]:
    """Return so many greedy tokens after a prompt."""
    model.generation_config.eos_token_id = None  # go on after the end, as ignore_eos does
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
        )
    return output[0, len(prompt) :].tolist()


if __name__ == "__main__":
    main()
