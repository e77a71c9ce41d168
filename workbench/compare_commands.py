"""The verb of the command line that compares what was measured."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from workbench.axes import THROUGHPUT, find_axis
from workbench.comparison import Comparison
from workbench.units import format_bytes, printable_json

Action = Callable[[argparse.Namespace], int]


def declare_compare(parser: argparse.ArgumentParser, words: list[str]) -> Action:
    """Declare `workbench compare`: candidates side by side, and a report of them."""
    del words
    parser.add_argument(
        "text", nargs="*", metavar="WORD", help="Only points whose words contain all of these."
    )
    parser.add_argument(
        "--baseline",
        default="",
        metavar="POINT",
        help="Show differences from this one: its number in the table, the id of a trial, or "
        "words that it alone has.",
    )
    parser.add_argument(
        "--price",
        type=float,
        metavar="DOLLARS",
        help="Of a device for an hour, for the cost of a million output tokens.",
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE.html", help="Also write a page with figures."
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="Let the page replace a file of that name."
    )
    parser.add_argument(
        "-x", default="e2e.p50", metavar="AXIS", help="Of the report's figure. Default: e2e.p50."
    )
    parser.add_argument("-y", default=THROUGHPUT, metavar="AXIS", help=f"Default: {THROUGHPUT}.")
    parser.add_argument("--json", action="store_true", help="Print everything as JSON.")

    def run(parsed: argparse.Namespace) -> int:
        find_axis(parsed.x), find_axis(parsed.y)
        comparison = Comparison.make(
            text=" ".join(parsed.text), baseline=parsed.baseline, price=parsed.price
        )
        print(printable_json(comparison.record()) if parsed.json else "\n".join(comparison.lines()))
        if parsed.report:
            # plotly is imported only where something is drawn.
            from workbench.compare_report import write_report  # noqa: PLC0415

            path = write_report(
                comparison, parsed.report, x=parsed.x, y=parsed.y, overwrite=parsed.overwrite
            )
            if not parsed.json:
                print(f"Report   {path}, {format_bytes(path.stat().st_size)}")
        return 0

    return run
