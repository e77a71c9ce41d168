"""Our load generator against AIPerf on the same real server: TTFT, ITL and throughput.

    python3 -m venv aiperf && aiperf/bin/pip install aiperf
    python -m tests.benchmarks.independent --aiperf aiperf/bin/aiperf [--rounds 3] [--streams 1]

llama.cpp's server has a random model of `--parameters`; both tools send it completions of the same
lengths at the same concurrency, in turns, and swap who begins. Each reads the server's stream by
itself; AIPerf's report comes in through our import, so that both are summed up the same way. The
median over the rounds of each figure must be within 5 % of the other's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.servers.running import llama_cpp
from tests.tiny_models import make_tiny_model
from workbench.endpoint import Endpoint
from workbench.foreign import import_trials
from workbench.served import run_endpoint_trial
from workbench.workload import Workload

LIMIT = 0.05

FIGURES: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "TTFT p50, ms": lambda summary: 1e3 * float(summary["ttft"]["p50"]),
    "TPOT p50, ms": lambda summary: 1e3 * float(summary["tpot"]["p50"]),
    "ITL p50, ms": lambda summary: 1e3 * float(summary["itl"]["p50"]),
    "output tokens/s": lambda summary: float(summary["output_tokens_per_second"]),
}


def aiperf(program: Path, url: str, model: Path, workload: Workload) -> Mapping[str, Any]:
    """Return what AIPerf measures, summed up by us."""
    with tempfile.TemporaryDirectory() as folder:
        words = {
            "--model": "demo",
            "--url": url,
            "--endpoint-type": "completions",
            "--tokenizer": str(model),
            "--concurrency": workload.concurrency,
            "--request-count": workload.requests,
            "--warmup-request-count": workload.warmup,
            "--synthetic-input-tokens-mean": workload.input_len,
            "--synthetic-input-tokens-stddev": 0,
            "--output-tokens-mean": workload.output_len,
            "--output-tokens-stddev": 0,
            "--extra-inputs": '{"ignore_eos": true, "temperature": 0}',
            "--random-seed": uuid.uuid4().int % 2**31,  # the server remembers prompts
            "--artifact-dir": folder,
            "--export-level": "records",
            "--ui": "none",
            # As ours: a connection that was kept may be closed by the server at that moment.
            "--connection-reuse-strategy": "never",
            # Where cores are few, more of them would take the server's time.
            "--workers-max": 1,
            "--record-processors": 1,
        }
        flat = [str(word) for pair in words.items() for word in pair]
        done = subprocess.run(
            [program, "profile", "--streaming", "--use-server-token-count", *flat],
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            sys.exit(f"AIPerf failed:\n{done.stdout[-4000:]}")
        (report,) = Path(folder).rglob("profile_export.jsonl")
        (trial,) = import_trials(report)
    return trial.require().summary


def ours(url: str, model: Path, workload: Workload) -> Mapping[str, Any]:
    """Return what our trial measures."""
    return run_endpoint_trial(Endpoint(url), workload, tokenizer=model).require().summary


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--aiperf", type=Path, required=True, help="its program")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--streams", type=int, default=1)
    parser.add_argument("--requests", type=int, default=24)
    options = parser.parse_args()
    workload = Workload(
        input_len=128, output_len=64, concurrency=options.streams, requests=options.requests
    )
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WORKBENCH_HOME"] = str(Path(folder) / "home")
        model = make_tiny_model("llama", Path(folder) / "model", **SIZES)
        leave_half_characters_out(model)
        with llama_cpp(Path(folder), model) as url:
            sides = {
                "AIPerf": lambda: aiperf(options.aiperf, url, model, workload),
                "ours": lambda: ours(url, model, workload),
            }
            found: dict[str, list[Mapping[str, Any]]] = {name: [] for name in sides}
            for number in range(options.rounds):
                for name in sorted(sides, reverse=number % 2 == 1):
                    found[name].append(sides[name]())
    agreed = [compare(name, found) for name in FIGURES]
    sys.exit(not all(agreed))


def leave_half_characters_out(model: Path) -> None:
    """Let a random model choose whole words only: of half a character a server sends nothing."""
    from safetensors.torch import load_file, save_file
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    texts = (tokenizer.decode([token], skip_special_tokens=True) for token in range(len(tokenizer)))
    weights = load_file(model / "model.safetensors")
    for token, text in enumerate(texts):
        if not text.strip("\ufffd"):
            # Some of the other thousand are above 0.
            weights["lm_head.weight"][token] = 0
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


SIZES: dict[str, Any] = {
    "dtype": "bfloat16",
    "vocab_size": 1280,
    "hidden_size": 512,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 2048,
}
"""Some 25 million parameters: a few milliseconds a token, more than either tool needs for one."""


def compare(name: str, found: Mapping[str, list[Mapping[str, Any]]]) -> bool:
    """Print a figure of both sides; say whether they agree."""
    theirs, mine = (
        statistics.median(FIGURES[name](summary) for summary in found[side])
        for side in ("AIPerf", "ours")
    )
    ratio = mine / theirs
    agree = abs(ratio - 1) <= LIMIT
    print(f"{name:16} AIPerf {theirs:8.2f}   ours {mine:8.2f}   ratio {ratio:.3f}", end="")
    print("" if agree else f"   more than {LIMIT:.0%} apart")
    return agree


if __name__ == "__main__":
    main()
