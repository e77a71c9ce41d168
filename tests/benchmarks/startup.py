"""What one waits for before anything begins: imports, --help, a cache hit.

    python -m tests.benchmarks.startup [--gigabytes 3]

Limits: `import workbench` <= 0.25 s, `workbench --help` <= 0.4 s, a cache hit for a model of
several GB whose fingerprint is known <= 0.3 s. Each is the median of several fresh processes (the
hit is measured inside one, as a kernel feels it), beside `python -c pass` as the baseline.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from tests.benchmarks.sparse_model import make_sparse_model

ROUNDS = 7

HIT = """
    import sys, time
    from workbench import store
    from workbench.backends import get_backend, make_spec
    from workbench.build import start_build
    from workbench.digests import cache_folder
    from workbench.engine import Identity
    from workbench.fingerprint import fingerprint
    from workbench.toolchain import find_toolchain
    from pathlib import Path

    spec = make_spec({"model": sys.argv[1]})
    backend = get_backend("openvino")
    started = time.perf_counter()
    weights = fingerprint(Path(sys.argv[1]), cache_folder())
    print("fingerprint", time.perf_counter() - started)
    versions = find_toolchain("openvino").require(backend.packages, backend.install)
    identity = Identity(spec.canonical(), weights, versions)
    if store.look_up(identity)[0] is None:
        engine = store.folder() / "new"
        engine.mkdir()
        (engine / "openvino_model.bin").write_bytes(b"0")
        store.publish(engine, identity, {
            "model": {"name": "m", "parameters": 1}, "limits": {}, "build": {"stages": []},
        })
    started = time.perf_counter()
    assert start_build(spec).hit
    print("hit", time.perf_counter() - started)
"""


def _python(*words: str, **environment: str) -> tuple[float, str]:
    started = time.perf_counter()
    answer = subprocess.run(
        [sys.executable, *words],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | environment,
    )
    return time.perf_counter() - started, answer.stdout


def _median(*words: str) -> float:
    return statistics.median(_python(*words)[0] for _ in range(ROUNDS))


def main() -> int:
    """Print the times; the exit status says whether the limits were kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=3.0)
    options = parser.parse_args()
    baseline = _median("-c", "pass")
    measured = {
        "import workbench": (_median("-c", "import workbench"), 0.25),
        "workbench --help": (_median("-m", "workbench.cli", "--help"), 0.4),
    }
    with tempfile.TemporaryDirectory() as folder:
        model = make_sparse_model(Path(folder) / "model", int(options.gigabytes * 1e9))
        hits = []
        for _ in range(ROUNDS):
            _, shown = _python(
                "-c", textwrap.dedent(HIT), str(model), WORKBENCH_HOME=f"{folder}/home"
            )
            found = dict(line.split() for line in shown.splitlines())
            hits.append(float(found["hit"]))
            print(json.dumps(found))
        measured[f"cache hit, {options.gigabytes:g} GB model"] = (statistics.median(hits), 0.3)
    print(f"{'python -c pass':<28} {baseline:.3f} s")
    for name, (seconds, limit) in measured.items():
        ratio = f"{seconds / baseline:.1f} x the baseline" if "hit" not in name else ""
        print(f"{name:<28} {seconds:.3f} s (limit {limit}) {ratio}")
    return 0 if all(seconds <= limit for seconds, limit in measured.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
