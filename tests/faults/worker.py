"""The toolchain side of the played backend: the real entry with adapters of our own.

The wrapper script that `Faulty` makes runs this file in place of workbench/worker/__main__.py.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

FAULTS = Path(__file__).parent
WORKER = FAULTS.parents[1] / "workbench" / "worker"


def main() -> int:
    """Run the real `main` with the adapters of tests/faults/adapters added."""
    sys.path[:0] = [str(WORKER), str(FAULTS)]
    import adapters

    adapters.__path__.append(str(FAULTS / "adapters"))
    spec = importlib.util.spec_from_file_location("entry", WORKER / "__main__.py")
    entry = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(entry)
    entry.ADAPTERS["fault"] = {"build": "fault_build", "session": "fault_session"}
    entry.version = lambda _name: os.environ.get("WORKBENCH_FAULT_VERSION", "1.0")
    return entry.main()


if __name__ == "__main__":
    sys.exit(main())
