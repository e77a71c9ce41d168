"""Tokens/s of the playground's panel, against what the engine can do.

    python -m tests.benchmarks.playground [--rounds 15] [--tokens 48]

On a random model of 0.3 B parameters, int4, with the same number of threads on both sides: a
`PlaygroundPanel` in this process, from Send to the record, against a bare
`ContinuousBatchingPipeline` loop in the same process, at one stream and at four (`n` samples of
one prompt, each in a token view of its own): >= 0.97. The panel asks for each token's probability,
as it does for everybody, and so does the loop; what that costs OpenVINO is printed beside it, from
the same loop without. A browser is not part of it; `token_view.py` measures what the page costs.

Both sides take turns and swap who begins; see `streaming.py` for why, and for what else has to be
quiet. The median of the ratios of the rounds counts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks import bare
from tests.benchmarks.streaming import build, compare
from workbench.widgets.playground import PlaygroundPanel

STREAMS = (1, 4)
LIMIT = 0.97


def through_panel(panel: PlaygroundPanel, streams: int, tokens: int) -> float:
    """Return the total tokens/s from Send until the panel has its record."""
    panel._sampling.controls["max_tokens"].value = str(tokens)
    panel._sampling._counter.value = str(streams)
    started = time.perf_counter()
    panel.send("ab")
    record = panel.wait()
    seconds = time.perf_counter() - started
    if panel._error_text:
        raise RuntimeError(panel._error_text)
    return sum(one["output_tokens"] for one in [record, *record.get("samples", [])]) / seconds


def main() -> int:
    """Print the ratios; the exit status says whether the limit was kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="at least 2")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--parameters", type=float, default=3e8, help="size of the model")
    options = parser.parse_args()
    print(f"load before: {os.getloadavg()[0]:.1f} (average of the last minute)", flush=True)
    ratios, costs = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"WORKBENCH_HOME": f"{folder}/home", "WORKBENCH_HEADLESS": "0"}
        engine = build(Path(folder) / "model", options.parameters)
        limits = json.dumps(engine.manifest["limits"])
        loop = bare.openvino(str(engine.path), limits, logprobs=1)
        plain = bare.openvino(str(engine.path), limits)
        panel = PlaygroundPanel(mode="completion", ignore_eos=True, seed=1)
        panel._open(engine)

        def ours(streams: int, tokens: int) -> float:
            return through_panel(panel, streams, tokens)

        try:
            for streams in STREAMS:
                given = streams, options.rounds, options.tokens
                _, _, ratios[streams] = compare(ours, loop, *given)
                print("the loop with probabilities against itself without, ", end="")
                _, _, costs[streams] = compare(loop, plain, *given)
        finally:
            panel.unload()
    for streams, ratio in ratios.items():
        print(f"playground / bare loop, {streams} streams  {ratio:.3f} (limit {LIMIT})")
        print(f"what probabilities leave of the loop's speed  {costs[streams]:.3f}")
    return 0 if all(ratio >= LIMIT for ratio in ratios.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
