"""The verbs of the command line that hand an engine to others: export."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from workbench.export import export_to_run
from workbench.store import find_engine

Action = Callable[[argparse.Namespace], int]


def declare_export(parser: argparse.ArgumentParser, words: list[str]) -> Action:
    """Declare `workbench export`: write what runs an engine without the workbench."""
    del words
    parser.add_argument("engine", metavar="KEY", help="Key of an engine, or the beginning of one.")
    parser.add_argument("folder", type=Path, help="The directory that is written.")
    parser.add_argument(
        "--overwrite", action="store_true", help="Replace an earlier export of that name."
    )
    parser.add_argument(
        "--with-paths", action="store_true", help="Let paths of this machine be in it."
    )

    def run(parsed: argparse.Namespace) -> int:
        engine = find_engine(parsed.engine)
        folder = export_to_run(
            engine, parsed.folder, overwrite=parsed.overwrite, paths=parsed.with_paths
        )
        print(f"Engine {engine.key} is in {folder}; its README.md says how to run it.")
        return 0

    return run
