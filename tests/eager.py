"""Greedy tokens of transformers in eager float32, the reference that everybody knows.

    python tests/eager.py MODEL_DIRECTORY TOKENS < prompts.json > tokens.json

In a process of its own: what torch warns about is not ours to mend.
"""

from __future__ import annotations

import json
import sys

import torch
from transformers import AutoModelForCausalLM


def main() -> None:
    directory, count = sys.argv[1], int(sys.argv[2])
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None  # go on after the end, as ignore_eos does
    answers = []
    for prompt in json.load(sys.stdin):
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            output = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=count,
                do_sample=False,
                pad_token_id=0,
            )
        answers.append(output[0, len(prompt) :].tolist())
    json.dump(answers, sys.stdout)


if __name__ == "__main__":
    main()
