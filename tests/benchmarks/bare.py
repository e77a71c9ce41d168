"""The baselines of the streaming benchmark, each as short as its library allows.

    python -m tests.benchmarks.bare openvino ENGINE LIMITS
    python -m tests.benchmarks.bare transformers MODEL THREADS

Reads lines of [streams, tokens] and answers each with the total tokens/s.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable

ANSWER = "tokens/s "


def prompt(number: int) -> list[int]:
    """Return the token ids that stream `number` begins with."""
    return [5, 6, 7, 8 + number]


def openvino(engine: str, limits_json: str, logprobs: int = 0) -> Callable[[int, int], float]:
    """Return a run of a plain loop, which asks for the tokens' probabilities if `logprobs` is 1."""
    import numpy as np
    import openvino as ov
    import openvino_genai as genai

    limits = json.loads(limits_json)
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = 0
    scheduler.num_kv_blocks = limits["kv_blocks"]
    scheduler.max_num_batched_tokens = limits["max_num_tokens"]
    scheduler.max_num_seqs = limits["max_batch_size"]
    scheduler.enable_prefix_caching = limits["enable_prefix_caching"]
    scheduler.dynamic_split_fuse = limits["enable_chunked_prefill"]
    names = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "int8": "u8"}
    pipeline = genai.ContinuousBatchingPipeline(
        engine,
        scheduler,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": names[limits["dtype"]],
            "KV_CACHE_PRECISION": names[limits["kv_cache_dtype"]],
            "INFERENCE_NUM_THREADS": limits["threads"],
        },
    )

    def run(streams: int, tokens: int) -> float:
        config = genai.GenerationConfig()
        config.max_new_tokens = tokens
        config.ignore_eos = True
        config.logprobs = logprobs
        count = 0
        started = time.perf_counter()
        handles = [
            pipeline.add_request(
                number, ov.Tensor(np.array([prompt(number)], dtype=np.int64)), config
            )
            for number in range(streams)
        ]
        while pipeline.has_non_finished_requests():
            pipeline.step()
            for handle in handles:
                while handle.can_read():
                    for output in handle.read().values():
                        count += len(output.generated_ids)
        return count / (time.perf_counter() - started)

    return run


def transformers(model: str, threads: str) -> Callable[[int, int], float]:
    """Return a run of eager greedy generation in bfloat16, one stream."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(int(threads))
    eager = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()
    eager.generation_config.eos_token_id = None

    def run(streams: int, tokens: int) -> float:
        assert streams == 1
        ids = torch.tensor([prompt(0)])
        started = time.perf_counter()
        with torch.inference_mode():
            output = eager.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=tokens,
                do_sample=False,
                pad_token_id=0,
            )
        return (output.shape[1] - ids.shape[1]) / (time.perf_counter() - started)

    return run


def main() -> None:
    """Answer until standard input ends."""
    run = {"openvino": openvino, "transformers": transformers}[sys.argv[1]](*sys.argv[2:])
    for line in sys.stdin:
        print(f"{ANSWER}{run(*json.loads(line))}", flush=True)


if __name__ == "__main__":
    main()
