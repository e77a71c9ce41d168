"""The verbs of the command line that hand an engine on: export, validate, report and serve."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from workbench.addresses import url_of
from workbench.console import watch_server
from workbench.engine_report import save_report
from workbench.errors import InputError
from workbench.export import export_to_run
from workbench.serving import Server, await_server, engine_server, start_server
from workbench.store import find_engine
from workbench.triton_check import check_triton

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
    parser.add_argument(
        "--triton",
        action="store_true",
        help="Write what serves an engine of TensorRT-LLM with Triton, in place of trtllm-serve.",
    )

    def run(parsed: argparse.Namespace) -> int:
        engine = find_engine(parsed.engine)
        folder = export_to_run(
            engine,
            parsed.folder,
            overwrite=parsed.overwrite,
            paths=parsed.with_paths,
            triton=parsed.triton,
        )
        print(f"Engine {engine.key} is in {folder}; its README.md says how to run it.")
        return 0

    return run


def declare_validate(parser: argparse.ArgumentParser, words: list[str]) -> Action:
    """Declare `workbench validate`: check a model repository of Triton's and its engine."""
    del words
    parser.add_argument("folder", type=Path, help="An export for Triton, in which fill.py has run.")

    def run(parsed: argparse.Namespace) -> int:
        print("\n".join(check_triton(parsed.folder)))
        return 0

    return run


def declare_report(parser: argparse.ArgumentParser, words: list[str]) -> Action:
    """Declare `workbench report`: one HTML page on an engine."""
    del words
    parser.add_argument("engine", metavar="KEY", help="Key of an engine, or the beginning of one.")
    parser.add_argument("file", type=Path, nargs="?", help="The page. Default: KEY.html, here.")
    parser.add_argument("--overwrite", action="store_true", help="Replace a file of that name.")
    parser.add_argument(
        "--with-paths", action="store_true", help="Let paths of this machine be in it."
    )

    def run(parsed: argparse.Namespace) -> int:
        engine = find_engine(parsed.engine)
        path = parsed.file or Path(f"{engine.key}.html")
        path = save_report(engine, path, overwrite=parsed.overwrite, paths=parsed.with_paths)
        print(f"The report of the engine {engine.key} is {path}")
        return 0

    return run


def declare_serve(parser: argparse.ArgumentParser, words: list[str]) -> Action:
    """Declare `workbench serve`: run a server of OpenAI's API as a job."""
    del words
    parser.add_argument("engine", metavar="KEY", nargs="?", help="Engine of TensorRT-LLM.")
    parser.add_argument(
        "--command",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="WORD",
        help="Any other server in place of an engine, with all its flags; comes last.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="Default: 127.0.0.1, this machine.")
    parser.add_argument("--port", type=int, default=8000, help="Default: 8000.")
    parser.add_argument("--health", default="/health", metavar="PATH", help="Default: /health.")
    parser.add_argument(
        "--start-limit",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="Give up when it does not serve by then. Default: 600.",
    )
    parser.add_argument(
        "--detach", action="store_true", help="Let it stay when this command has ended."
    )

    def run(parsed: argparse.Namespace) -> int:
        server = _server(parsed)
        job, new = start_server(server)
        if not new:
            print(f"This very server runs already: {job.id}")
        try:
            endpoint = await_server(job)
            print(f"It serves on {endpoint.url}; its log is {job.log}", flush=True)
            if not parsed.detach:
                return watch_server(job)
        except KeyboardInterrupt:
            if new:
                job.cancel()
            raise
        stays = job.request["server"].get("stay")
        how = "It stays." if stays else "It ends with whoever started it before."
        print(f"{how} Stop it: workbench jobs cancel {job.id}")
        return 0

    return run


def _server(parsed: argparse.Namespace) -> Server:
    """Return what to start.

    Raises:
        InputError: Neither an engine nor a command was given, or both.
        WorkbenchError: The engine cannot be served here.
    """
    if bool(parsed.engine) == bool(parsed.command):
        raise InputError("Say what to serve: the key of an engine, or --command and its words.")
    options = {"stay": parsed.detach, "start_limit": parsed.start_limit, "health": parsed.health}
    host, port = parsed.host.strip("[]"), parsed.port  # brackets are for URLs alone
    if parsed.engine:
        return engine_server(find_engine(parsed.engine), host=host, port=port, **options)
    return Server(tuple(parsed.command), url_of(host, port), host=host, **options)
