"""The transformers backend: memory against its estimate, speed, and how fast it stops.

    python -m tests.benchmarks.eager [--device cpu|cuda] [--parameters 1e8] [--threads 2]

On random models, for each precision: the memory of a session after its longest request against
`eager_fit` (on a GPU what the driver counts as taken; nobody else may use it meanwhile), decode
speed, and the time from Stop to the end. Greedy tokens on a GPU are compared with those of the
processor in float32, of which rounding may part them late.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.tiny_models import make_random_model
from workbench.backends import make_spec
from workbench.build import Plan, start_build
from workbench.gpus import list_gpus
from workbench.opening import open_engine
from workbench.session import Session
from workbench.units import format_bytes

PROMPT, OUTPUT = 512, 128


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--parameters", type=float, default=1e8)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["WORKBENCH_HOME"] = str(Path(folder) / "home")
        model = make_random_model(Path(folder) / "model", options.parameters)
        reference: list[int] = []
        for device, dtype in _runs(options.device):
            values = {"backend": "transformers", "model": str(model), "device": device}
            values |= {"dtype": dtype, "max_input_len": PROMPT, "max_output_len": OUTPUT}
            values |= {"threads": options.threads} if device == "cpu" else {}
            tokens = measure(values)
            reference = reference or tokens
            same = sum(a == b for a, b in zip(tokens, reference, strict=True))
            print(f"  {same} of {len(tokens)} greedy tokens as in float32 on the processor")


def _runs(device: str) -> list[tuple[str, str]]:
    others = ["bfloat16", "float16"] if device == "cpu" else ["float32", "bfloat16", "float16"]
    return [("cpu", "float32"), *((device, dtype) for dtype in others)]


def measure(values: dict[str, Any]) -> list[int]:
    """Measure one session; return its greedy tokens."""
    spec = make_spec(values)
    fit = Plan.make(spec).fit
    assert fit is not None
    on_gpu = values["device"] == "cuda"
    engine = start_build(spec).wait()
    before = _taken() if on_gpu else 0
    with open_engine(engine) as session:
        prompt = [7 + number % 400 for number in range(PROMPT)]
        generation = session.generate(prompt, max_tokens=OUTPUT, ignore_eos=True).wait()
        memory = _taken() - before if on_gpu else session.memory() or 0
        low, high = fit.total_low, fit.total_high
        inside = "" if low <= memory <= high else "  OUTSIDE"
        speed = generation.timings.tokens_per_second or 0.0
        print(
            f"{values['device']} {values['dtype']:<9} {format_bytes(low)} <= "
            f"{format_bytes(memory)} <= {format_bytes(high)}{inside}, {speed:.1f} tokens/s, "
            f"stop after {1000 * _stop(session):.0f} ms"
        )
    return generation.token_ids


def _taken() -> int:
    gpu = list_gpus()[0]
    return gpu.memory_bytes - gpu.memory_free


def _stop(session: Session) -> float:
    """Return the seconds from Stop to the end of a generation."""
    generation = session.generate([5] * 16, max_tokens=OUTPUT, ignore_eos=True)
    for _ in generation:
        began = time.monotonic()
        generation.cancel()
        generation.wait()
        return time.monotonic() - began
    raise RuntimeError("There was no token to stop after.")


if __name__ == "__main__":
    main()
