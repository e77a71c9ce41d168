"""Predicted against measured memory, with real builds and real sessions of random models.

    python -m tests.benchmarks.fit [--large | --quick] [--threads N]

For each build the peak resident memory of its worker is compared with `build_memory`, for each
session that of a fresh worker whose KV cache was filled, with `openvino_fit`. The last lines say
how far the upper ends lie from the peaks (the error of an estimate, as a part of the peak), and how
many of them lie below: an underestimate lets somebody start what will not fit. Below 5 % of the
cases may be one; the status is 1 where more are. These are the estimates of a store that has
measured nothing yet; `fit_corrected` says what its own measurements make of them.

The lower ends stand for what cannot be given back ("kept"): for a session its memory without the
mapped pages of the engine, for a build the peak of its anonymous memory.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.tiny_models import make_random_model, make_tiny_model
from workbench.backends import get_backend, make_spec
from workbench.hardware import host
from workbench.memory import Part, build_memory
from workbench.model import Model
from workbench.process import Worker
from workbench.session import Session
from workbench.toolchain import Toolchain, find_toolchain
from workbench.units import format_bytes

QUANTIZATIONS = ("none", "fp16", "int8", "int4")

SESSIONS: tuple[dict[str, Any], ...] = (
    {"max_batch_size": 4, "max_input_len": 200, "max_output_len": 56, "max_num_tokens": 128},
    {"max_batch_size": 1, "max_input_len": 2000, "max_output_len": 48, "max_num_tokens": 512},
    {
        "max_batch_size": 8,
        "max_input_len": 20,
        "max_output_len": 44,
        "dtype": "bfloat16",
        "kv_cache_dtype": "int8",
    },
)
"""The second fills the cache by one long prompt in four steps, the third by many short ones."""

LONG = {"max_batch_size": 1, "max_input_len": 8000, "max_output_len": 8, "max_num_tokens": 128}
"""Many steps, each with a longer past; only for the smallest model, since it takes its time."""


UNDERESTIMATES = 0.05
"""Part of the cases that must not be reached."""


@dataclass(frozen=True)
class Row:
    """A prediction and its measurement, in bytes; `kept` is what could not be given back."""

    what: str
    low: int
    high: int
    peak: int
    kept: int

    def line(self) -> str:
        """Return the row as text."""
        inside = self.low <= self.kept and self.peak <= self.high
        sizes = (self.low, self.kept, self.peak, self.high)
        return (
            f"{self.what:<58}" + "".join(f"{format_bytes(size):>11}" for size in sizes)
        ) + f"{self.high / self.peak:>8.2f}  {'' if inside else 'OUTSIDE'}"


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--large", action="store_true", help="also a model of 0.3 billion")
    parser.add_argument("--quick", action="store_true", help="only the smallest model")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    print(f"{host()}\n")
    header = ("low", "kept", "peak", "high", "high/peak")
    print(f"{'':<58}" + "".join(f"{title:>11}" for title in header))
    rows: dict[str, list[Row]] = {"build": [], "session": []}
    with tempfile.TemporaryDirectory() as scratch:
        for model in models(Path(scratch), large=options.large)[: 1 if options.quick else None]:
            for quantization in QUANTIZATIONS:
                directory = Path(scratch) / f"{model.name}-{quantization}"
                show(rows["build"], measure_build(model, quantization, directory))
                for limits in (*SESSIONS, *([LONG] if "10M" in model.name else [])):
                    row = measure_session(model, quantization, directory, options.threads, limits)
                    show(rows["session"], row)
    under = [len(report(kind, measured)) for kind, measured in rows.items()]
    return 1 if sum(under) >= UNDERESTIMATES * sum(map(len, rows.values())) else 0


def report(kind: str, rows: list[Row]) -> list[Row]:
    """Print how good the estimates of one kind were; return those that were too low."""
    errors = [row.high / row.peak - 1 for row in rows]
    under = [row for row in rows if row.high < row.peak]
    low = [row for row in rows if row.kept < row.low]
    print(
        f"{kind}: error of the upper end {statistics.median(errors):+.0%} in the median, "
        f"{max(errors, key=abs):+.0%} at the worst; {len(under)} of {len(rows)} underestimates "
        f"({len(under) / len(rows):.0%}); {len(low)} took less than the lower end"
    )
    return under


def show(rows: list[Row], row: Row) -> None:
    """Keep a row and print it."""
    rows.append(row)
    print(row.line(), flush=True)


def models(scratch: Path, large: bool) -> list[Path]:
    """Make random models: 10 M, 74 M (two thirds of it a tied vocabulary), 0.3 billion."""
    common = {"max_position_embeddings": 8192}
    made = [
        make_tiny_model(
            "llama", scratch / "llama-10M", vocab_size=8000, hidden_size=256,
            intermediate_size=768, num_hidden_layers=8, num_attention_heads=4,
            num_key_value_heads=2, **common,
        ),
        make_tiny_model(
            "qwen2", scratch / "qwen2-74M", vocab_size=100_000, hidden_size=512,
            intermediate_size=1408, num_hidden_layers=8, num_attention_heads=8,
            num_key_value_heads=2, tie_word_embeddings=True, **common,
        ),
    ]  # fmt: skip
    return [*made, make_random_model(scratch / "qwen2-0.3B")] if large else made


def measure_build(source: Path, quantization: str, directory: Path) -> Row:
    """Build into `directory` with the real worker, and compare its peak with the prediction."""
    spec = make_spec({"model": str(source), "quantization": quantization})
    worker = Worker(toolchain(), "build", log())
    worker.send(
        backend="openvino",
        spec=spec.model_dump(mode="json"),
        model=str(source),
        output=str(directory),
    )
    memory: dict[str, int] = {}
    kept = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal kept
        while not done.wait(0.05):
            kept = max(kept, status(worker.pid).get("RssAnon", 0))

    thread = threading.Thread(target=watch)
    thread.start()
    for message in worker.messages():
        if message["event"] == "error":
            raise SystemExit(message["message"])
        if message["event"] == "done":
            memory = status(worker.pid)
            done.set()
    thread.join()
    worker.close()
    predicted: Part = build_memory(Model.read(source), quantization).memory
    return Row(f"{directory.name} build", predicted.low, predicted.high, memory["VmHWM"], kept)


def measure_session(
    source: Path, quantization: str, directory: Path, threads: int, limits: dict[str, Any]
) -> Row:
    """Fill the KV cache of a fresh session, and compare its peak with the prediction."""
    values = {"model": str(source), "quantization": quantization, "threads": threads, **limits}
    spec = make_spec(values)
    backend = get_backend("openvino")
    fit = backend.fit(spec, Model.read(source), host())
    with Session(directory, "openvino", backend.limits(spec), toolchain()) as session:
        fill(session, limits)
        memory = status(session.pid)
        mapped = resident_of(session.pid, directory)
    what = f"{directory.name} {' '.join(f'{value}' for value in limits.values())}"
    return Row(what, fit.total_low, fit.total_high, memory["VmHWM"], memory["VmRSS"] - mapped)


def fill(session: Session, limits: dict[str, Any]) -> None:
    """Generate until the KV cache of a session holds all that its limits let in."""
    prompts = [
        # Different from the first token on, so that no prefix is shared.
        [10 + (7 * number + place) % 400 for place in range(limits["max_input_len"])]
        for number in range(limits["max_batch_size"])
    ]
    generations = [
        session.generate(prompt, ignore_eos=True, max_tokens=limits["max_output_len"])
        for prompt in prompts
    ]
    for generation in generations:
        generation.wait()


def status(pid: int) -> dict[str, int]:
    """Return the memory lines of a process's status, in bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    pairs = (line.split(":", 1) for line in lines if line.endswith(" kB"))
    return {name: int(value.removesuffix(" kB")) * 1024 for name, value in pairs}


def resident_of(pid: int, directory: Path) -> int:
    """Return the resident bytes that a process maps from files of a directory."""
    total, ours = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        name = line.split(maxsplit=1)[0]
        if not name.endswith(":"):
            ours = str(directory) in line
        elif ours and name == "Rss:":
            total += int(line.split()[1]) * 1024
    return total


def toolchain() -> Toolchain:
    """Return the interpreter that the backend runs in."""
    return find_toolchain("openvino")


def log() -> Any:
    """Return a file for what a worker prints."""
    return tempfile.TemporaryFile()


if __name__ == "__main__":
    sys.exit(main())
