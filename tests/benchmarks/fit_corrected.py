"""How much better estimates of memory are with what the store itself has measured.

    python -m tests.benchmarks.fit_corrected [--rounds N] [--only PRECISION] [--all] [--threads N]

In a store of its own each random model of `tests.benchmarks.fit` is built again and again in each
precision, and each time opened under several limits until its KV cache is full. What had been
expected before is compared with the peak: by arithmetic alone, and corrected by the builds and
sessions of the rounds before. Only rounds count that have enough before them for a range to be
narrowed (`history.ENOUGH`). The last lines give the errors of the upper ends as parts of the peaks,
and the status is 1 where correction makes the median worse or too many estimates too low.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.fit import QUANTIZATIONS, SESSIONS, UNDERESTIMATES, fill, models, status
from workbench.backends import get_backend, make_spec
from workbench.build import Plan, start_build
from workbench.engine import Engine
from workbench.history import ENOUGH
from workbench.opening import open_engine
from workbench.units import format_bytes


@dataclass(frozen=True)
class Case:
    """The peak of a build or session in bytes, and the upper ends of what had been expected."""

    kind: str
    what: str
    peak: int
    plain: int
    corrected: int
    basis: str


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=ENOUGH + 1)
    parser.add_argument("--only", choices=QUANTIZATIONS, help="one precision instead of all")
    parser.add_argument("--all", action="store_true", help="also the larger model")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    cases: list[Case] = []
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["WORKBENCH_HOME"] = str(Path(scratch) / "home")
        for model in models(Path(scratch), large=False)[: None if options.all else 1]:
            for quantization in [options.only] if options.only else QUANTIZATIONS:
                values = {"model": str(model), "quantization": quantization}
                values |= {"threads": options.threads}
                for number in range(options.rounds):
                    for case in measure(values):
                        counts = number >= ENOUGH
                        print(f"{number + 1}. {line(case)}{'' if counts else ' -'}", flush=True)
                        cases += [case] if counts else []
    worse = [report(kind, [c for c in cases if c.kind == kind]) for kind in ("build", "session")]
    low = sum(case.corrected < case.peak for case in cases)
    return 1 if any(worse) or low >= UNDERESTIMATES * len(cases) else 0


def measure(values: dict[str, Any]) -> Iterator[Case]:
    """Build once more and open what came out, under each of the limits."""
    name = f"{Path(values['model']).name} {values['quantization']}"
    spec = make_spec({**values, **SESSIONS[0]})
    plan = Plan.make(spec)
    assert plan.need is not None
    assert plan.expected_need is not None
    expected = plan.expected_need.memory  # read from the history now, before this build is in it
    build = start_build(spec, again=True)
    engine = build.wait()
    assert build.job is not None
    peak = build.job.view().facts["peak_memory_bytes"]
    yield Case("build", name, peak, plan.need.memory.high, expected.high, expected.basis)
    for limits in SESSIONS:
        yield _session(engine, name, values, limits)


def _session(engine: Engine, name: str, values: dict[str, Any], limits: dict[str, Any]) -> Case:
    spec = make_spec({**values, **limits})
    plan, backend = Plan.make(spec), get_backend("openvino")
    assert plan.fit is not None
    plain = backend.fit(spec, plan.model, plan.device)
    with open_engine(engine.under(backend.limits(spec))) as session:
        fill(session, limits)
        peak = status(session.pid)["VmHWM"]
    what = f"{name} {' '.join(f'{value}' for value in limits.values())}"
    basis = plan.fit.runtime.basis
    return Case("session", what, peak, plain.total_high, plan.fit.total_high, basis)


def line(case: Case) -> str:
    """Return a case as text."""
    sizes = "".join(f"{format_bytes(n):>11}" for n in (case.peak, case.plain, case.corrected))
    return f"{case.kind:<8}{case.what:<48}{sizes}  {case.basis}"


def report(kind: str, cases: list[Case]) -> bool:
    """Print how good estimates were with and without correction; say if the median got worse."""
    plain = [case.plain / case.peak - 1 for case in cases]
    corrected = [case.corrected / case.peak - 1 for case in cases]
    for words, errors in (("by arithmetic alone", plain), ("corrected by the store", corrected)):
        low = sum(error < 0 for error in errors)
        print(
            f"{kind}, {words}: error of the upper end {statistics.median(errors):+.0%} in the "
            f"median, {max(errors, key=abs):+.0%} at the worst; {low} of {len(errors)} too low"
        )
    return abs(statistics.median(corrected)) > abs(statistics.median(plain))


if __name__ == "__main__":
    sys.exit(main())
