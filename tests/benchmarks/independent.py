"""Our load generator against AIPerf on the same real server: TTFT, ITL and throughput.

    python3 -m venv aiperf && aiperf/bin/pip install aiperf
    python -m tests.benchmarks.independent --aiperf aiperf/bin/aiperf [--rounds 3] [--streams 1]

llama.cpp's server has a random model of `--parameters`; both tools send it completions of the same
lengths at the same concurrency, in turns, and swap who begins. Each reads the server's stream by
itself. AIPerf's figures are taken twice: as AIPerf itself sums them up in its export, and summed up
by us from its records of requests, through our import. Of one and the same run these two must be
within 1 % of each other, whatever else the machine does. And the median over the rounds of our
throughput and of our p50s must be within 5 % of what AIPerf reports; p90 and p99 are shown.
"""

from __future__ import annotations

import argparse
import json
import math
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

LIMIT, SAME_RUN = 0.05, 0.01

PARTS = ("p50", "p90", "p99")

Figures = dict[str, float]
"""Milliseconds and tokens/s by the name of the figure."""


def from_summary(summary: Mapping[str, Any]) -> Figures:
    """Return the figures of a trial."""
    times = {"TTFT": "ttft", "TPOT": "tpot", "ITL": "itl"}
    return {
        **{
            f"{title} {part}, ms": 1e3 * float(summary[name][part])
            for title, name in times.items()
            for part in PARTS
        },
        "output tokens/s": float(summary["output_tokens_per_second"]),
    }


def from_export(export: Mapping[str, Any]) -> Figures:
    """Return the figures of a profile_export_aiperf.json.

    What AIPerf calls inter token latency is the mean of one request (TPOT), and its inter chunk
    latency is ITL (aiperf/metrics/types/inter_token_latency_metric.py, inter_chunk_latency_...).
    """
    times = {
        "TTFT": "time_to_first_token",
        "TPOT": "inter_token_latency",
        "ITL": "inter_chunk_latency",
    }
    return {
        **{
            f"{title} {part}, ms": float(export[name][part])
            for title, name in times.items()
            for part in PARTS
        },
        "output tokens/s": float(export["output_token_throughput"]["avg"]),
    }


def aiperf(program: Path, url: str, model: Path, workload: Workload) -> tuple[Figures, Figures]:
    """Return what AIPerf measures: as it sums it up itself, and as we do."""
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
        export = report.with_name("profile_export_aiperf.json")
        told = json.loads(export.read_text(encoding="utf-8"))
    return from_export(told), from_summary(trial.require().summary)


def ours(url: str, model: Path, workload: Workload) -> Figures:
    """Return what our trial measures."""
    trial = run_endpoint_trial(Endpoint(url), workload, tokenizer=model).require()
    return from_summary(trial.summary)


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
            told: list[tuple[Figures, Figures]] = []
            mine: list[Figures] = []
            sides: list[Callable[[], None]] = [
                lambda: told.append(aiperf(options.aiperf, url, model, workload)),
                lambda: mine.append(ours(url, model, workload)),
            ]
            for number in range(options.rounds):
                for side in sides if number % 2 == 0 else sides[::-1]:
                    side()
    own, summed = ([pair[number] for pair in told] for number in (0, 1))
    print("AIPerf's run, summed up by AIPerf and by us")
    agreed = [compare(name, own, summed, SAME_RUN) for name in mine[0]]
    print("AIPerf's runs and ours")
    agreed += [
        compare(name, own, mine, math.inf if name.endswith(("p90, ms", "p99, ms")) else LIMIT)
        for name in mine[0]
    ]
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


def compare(name: str, left: list[Figures], right: list[Figures], limit: float) -> bool:
    """Print the medians of a figure of both sides; say whether they agree."""
    theirs, mine = (statistics.median(one[name] for one in side) for side in (left, right))
    ratio = mine / theirs
    agree = abs(ratio - 1) <= limit
    print(f"  {name:16} {theirs:9.2f} {mine:9.2f}   ratio {ratio:.3f}", end="")
    print("" if agree else f"   more than {limit:.0%} apart")
    return agree


if __name__ == "__main__":
    main()
