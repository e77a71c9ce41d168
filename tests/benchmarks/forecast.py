"""What NVIDIA's performance database answers today beside what the tests replay.

    WORKBENCH_TOOLCHAIN_FORECAST=PYTHON python -m tests.benchmarks.forecast [--record]

Needs the extra `forecast`. Asks the real database the orders of `fixtures/forecasts.json`, prints
both answers and how long it took, and ends with status 1 where they differ; with --record it
writes the new ones down.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from typing import Any

from tests.test_forecast import CONFIGS, FIXTURE, RECORDED
from workbench.process import Worker
from workbench.toolchain import find_toolchain


def main() -> int:
    """Ask, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--record", action="store_true", help="write the answers down")
    options = parser.parse_args()
    differ = 0
    for case in RECORDED["cases"]:
        begin = time.monotonic()
        answer = ask({**case["order"], "config": CONFIGS[case["config"]]})
        same = answer == case["answer"]
        differ += not same
        print(f"{case['gpu']}, {case['config']}, {case['parameters'] or 'defaults'}")
        print(f"  {'the same' if same else 'DIFFERENT'} after {time.monotonic() - begin:.0f} s")
        for text in [answer] if same else [case["answer"], answer]:
            print(f"  {text}", flush=True)
        case["answer"] = answer
    if options.record:
        FIXTURE.write_text(json.dumps(RECORDED, indent=1) + "\n")
        return 0
    return 1 if differ else 0


def ask(order: dict[str, Any]) -> dict[str, Any] | None:
    """Return what the real worker answers to an order; None where it died."""
    with tempfile.TemporaryFile() as log:
        worker = Worker(find_toolchain("forecast"), "forecast", log)
        try:
            worker.send(**order)
            return next(worker.messages(), None)
        finally:
            worker.close()


if __name__ == "__main__":
    sys.exit(main())
