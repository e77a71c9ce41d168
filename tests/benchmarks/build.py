"""A build through the workbench against the same export and compression in a plain script.

    python -m tests.benchmarks.build [--quantization int4] [--rounds 3]

Both sides run in fresh processes, in turns, on the same random model of 0.3 B parameters, and
neither runs a smoke stage. Limit: wall ratio of the medians <= 1.05. The fingerprint of the
weights is not known before the first round; what it took is in that round and is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from tests.tiny_models import make_random_model

LIMIT = 1.05

PLAIN = """
    import sys
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from optimum.exporters.openvino.convert import export_from_model, export_tokenizer
    from optimum.intel.openvino.configuration import OVConfig
    import nncf, openvino

    source, output, quantization = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    export_from_model(
        model, output, task="text-generation-with-past", stateful=True,
        ov_config=OVConfig(dtype="fp32"), preprocessors=[tokenizer],
    )
    del model
    if quantization != "none":
        graph = openvino.Core().read_model(output + "/openvino_model.xml")
        modes = nncf.CompressWeightsMode
        if quantization == "int8":
            graph = nncf.compress_weights(graph, mode=modes.INT8_ASYM)
        else:
            graph = nncf.compress_weights(graph, mode=modes.INT4_ASYM, group_size=64, ratio=1.0)
        openvino.save_model(graph, output + "/compressed.xml", compress_to_fp16=False)
    export_tokenizer(tokenizer, output, task="text-generation-with-past")
"""

OURS = """
    import sys
    from workbench.backends import make_spec
    from workbench.build import start_build

    model, quantization = sys.argv[1:]
    spec = make_spec({"model": model, "quantization": quantization})
    start_build(spec, smoke=False).wait()
"""


def _timed(script: str, *words: str, **environment: str) -> float:
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *words],
        check=True,
        capture_output=True,
        env=os.environ | environment,
    )
    return time.perf_counter() - started


def _stages(home: Path) -> dict[str, float]:
    (manifest,) = (home / "engines").glob("*/manifest.json")
    stages = json.loads(manifest.read_text())["build"]["stages"]
    return {stage["name"]: stage["seconds"] for stage in stages}


def main() -> int:
    """Run the comparison; the exit status says whether the limit was kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quantization", default="int4", choices=["none", "int8", "int4"])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    times: dict[str, list[float]] = {"plain": [], "workbench": []}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = str(make_random_model(root / "model"))
        home = root / "home"
        for number in range(options.rounds):
            output = root / "plain"
            times["plain"].append(_timed(PLAIN, model, str(output), options.quantization))
            shutil.rmtree(output)
            times["workbench"].append(
                _timed(OURS, model, options.quantization, WORKBENCH_HOME=str(home))
            )
            stages = _stages(home)
            print(
                f"round {number + 1}: plain {times['plain'][-1]:.1f} s, "
                f"workbench {times['workbench'][-1]:.1f} s ("
                + ", ".join(f"{name} {seconds:.1f}" for name, seconds in stages.items())
                + ")",
                flush=True,
            )
            shutil.rmtree(home / "engines")
    ratio = statistics.median(times["workbench"]) / statistics.median(times["plain"])
    print(f"wall ratio workbench / plain: {ratio:.3f} (limit {LIMIT})")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
