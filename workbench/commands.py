"""What each verb of the command line does."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench import account, backends
from workbench.build import Build, Plan, read_model, start_build
from workbench.compare_commands import declare_compare
from workbench.console import finish, print_plan, print_stream
from workbench.engine import Engine
from workbench.errors import ModelError, WorkbenchError
from workbench.fit_commands import add_spec_flags, declare_fit
from workbench.flags import add_flags, given
from workbench.job_commands import declare_jobs
from workbench.model import Model
from workbench.opening import open_engine
from workbench.sampling import Sampling
from workbench.serve_commands import declare_export, declare_report, declare_serve, declare_validate
from workbench.spec import BuildSpec
from workbench.store_commands import declare_engines
from workbench.summaries import finding_lines
from workbench.trial_commands import declare_sweep, declare_trial, declare_trials
from workbench.units import format_bytes, printable, printable_json

Action = Callable[[argparse.Namespace], int]

PROMPT = "write a haiku about latency"


def declare(verb: str, parser: argparse.ArgumentParser, words: list[str]) -> Action:
    """Declare the flags of a verb and return what it does."""
    action = _DECLARATIONS[verb](parser, words)
    parser.set_defaults(
        flags=[flag for known in parser._actions for flag in known.option_strings]  # noqa: SLF001
    )
    return action


def _declare_spec(parser: argparse.ArgumentParser, words: list[str]) -> type[BuildSpec]:
    """Add the flags of the backend that the words name, and those of a build."""
    spec_class = add_spec_flags(parser, words)
    parser.add_argument(
        "--accept-covering",
        action="store_true",
        help="Take an engine that was built for larger shapes, where there is one.",
    )
    parser.add_argument(
        "--no-smoke",
        action="store_true",
        help="Publish without loading the engine once and generating a few tokens.",
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="Build it also where it is there, and replace that when the new one is complete.",
    )
    return spec_class


def _demo(parser: argparse.ArgumentParser, words: list[str]) -> Action:
    spec_class = _declare_spec(parser, words)
    parser.add_argument("--prompt", default=PROMPT, help=f"What to ask. Default: {PROMPT}.")
    add_flags(parser, Sampling, "sampling")

    def run(parsed: argparse.Namespace) -> int:
        sampling = Sampling.parse(given(parsed, Sampling))
        plan, build = _start(parsed, spec_class)
        try:
            engine = _finish(plan, build)
            record = _answer(engine, parsed.prompt, sampling)
        except WorkbenchError as error:
            path = account.save_account(account.failure(parsed.backend, build.job, error))
            print(f"What is known about this failure is in {path}", file=sys.stderr)
            raise
        told = account.success(engine, record, parsed.prompt)
        print("\nReport")
        for line in account.account_lines(told):
            print(f"  {printable(line)}")
        print(f"  Everything is in {account.save_account(told)}")
        return 0

    return run


def _answer(engine: Engine, prompt: str, sampling: Sampling) -> dict[str, Any]:
    """Stream the answer to a prompt; return the record of the generation."""
    with open_engine(engine) as session:
        print(f"\n> {prompt}\n")
        chat = [{"role": "user", "content": prompt}]
        generation = session.generate(chat if session.facts["chat_template"] else prompt, sampling)
        print_stream(generation)
        return generation.record()


def _build(parser: argparse.ArgumentParser, words: list[str]) -> Action:
    spec_class = _declare_spec(parser, words)

    def run(parsed: argparse.Namespace) -> int:
        _finish(*_start(parsed, spec_class))
        return 0

    return run


def _commands(parser: argparse.ArgumentParser, words: list[str]) -> Action:
    spec_class = _declare_spec(parser, words)

    def run(parsed: argparse.Namespace) -> int:
        spec = spec_class.parse({"backend": parsed.backend, **given(parsed, spec_class)})
        backend = backends.get_backend(spec.backend)
        model: Model | None = None
        try:
            model = read_model(spec)
        except ModelError as error:
            print(f"# The commands are written without knowing the model: {error}", file=sys.stderr)
        for line in finding_lines(backend.findings(spec, model, ())):
            print(f"# {line}", file=sys.stderr)
        for command in backend.commands(spec, model):
            print(printable(f"# {command.title}\n{command.text}\n"))
        return 0

    return run


def _start(parsed: argparse.Namespace, spec_class: type[BuildSpec]) -> tuple[Plan, Build]:
    """Show the plan, and find the engine or start its build."""
    spec = spec_class.parse({"backend": parsed.backend, **given(parsed, spec_class)})
    plan = Plan.make(spec)
    print_plan(plan)
    build = start_build(
        spec,
        smoke=not parsed.no_smoke,
        accept_covering=parsed.accept_covering,
        again=parsed.again,
    )
    if build.explanation:
        print(printable(build.explanation))
    return plan, build


def _finish(plan: Plan, build: Build) -> Engine:
    """Show progress to the end, and say where the engine is."""
    engine = _await(build, plan)
    print(f"Engine {engine.key}: {format_bytes(engine.bytes)} in {engine.path}")
    return engine


def _await(build: Build, plan: Plan) -> Engine:
    if build.hit:
        return build.hit
    assert build.job is not None  # noqa: S101 - a build is a hit or a job
    try:
        return finish(build.job, plan, build.spec)
    except KeyboardInterrupt:
        print(
            f"\nThe build goes on without this terminal. Attach again: workbench jobs attach "
            f"{build.job.id}; stop it: workbench jobs cancel {build.job.id}",
            file=sys.stderr,
        )
        raise


def _stream(parser: argparse.ArgumentParser, words: list[str]) -> Action:
    del words
    parser.add_argument("engine", metavar="KEY", help="Key of an engine, or the beginning of one.")
    parser.add_argument("prompt", help="What to ask; - reads it from standard input.")
    parser.add_argument("--raw", action="store_true", help="Complete the text, without chat.")
    add_flags(parser, Sampling, "sampling")

    def run(parsed: argparse.Namespace) -> int:
        sampling = Sampling.parse(given(parsed, Sampling))
        text = sys.stdin.read() if parsed.prompt == "-" else parsed.prompt
        with open_engine(parsed.engine) as session:
            prompt: Any = [{"role": "user", "content": text}]
            if parsed.raw or not session.facts["chat_template"]:
                prompt = text
            print_stream(session.generate(prompt, sampling))
        return 0

    return run


def _lab(parser: argparse.ArgumentParser, words: list[str]) -> Action:
    del words
    parser.add_argument("--notebook", default="00_tour.ipynb", help="Notebook to open.")
    parser.add_argument("--no-browser", action="store_true", help="Only start the server.")
    parser.add_argument(
        "options",
        nargs="*",
        metavar="NOTEBOOK -- OPTION",
        help="The same as --notebook; and options of JupyterLab itself, after --, such as "
        "-- --ip=0.0.0.0",
    )
    parser.add_argument("--port", type=int, default=None, help="Port of the server.")

    def run(parsed: argparse.Namespace) -> int:
        from workbench.lab import start  # noqa: PLC0415 - only this verb needs it

        notebook, options = parsed.notebook, parsed.options
        if options and not options[0].startswith("-"):
            notebook, *options = options
        start(notebook, options, browser=not parsed.no_browser, port=parsed.port)

    return run


def _run(parser: argparse.ArgumentParser, words: list[str]) -> Action:
    del words
    parser.add_argument("notebook", type=Path)
    parser.add_argument("output", type=Path, nargs="?", help="Where the executed notebook goes.")
    parser.add_argument(
        "-p",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("NAME", "VALUE"),
        help="A parameter of the notebook; may be repeated.",
    )
    parser.add_argument(
        "--parameters",
        dest="file",
        type=Path,
        metavar="FILE",
        help="Run it once for each line of this file, a JSON object of parameters; those of -p "
        "are the same for all. Then output is a folder.",
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="Run so many at the same time. Default: 1."
    )

    def run(parsed: argparse.Namespace) -> int:
        from workbench.notebook import run_notebook, run_path  # noqa: PLC0415 - takes a second
        from workbench.notebook_parameters import typed_parameters  # noqa: PLC0415 - as above

        if parsed.file:
            from workbench.notebook_runs import run_file  # noqa: PLC0415 - as above

            folder = parsed.output or run_path(parsed.notebook).with_suffix("")
            shared = dict(parsed.parameters)
            return run_file(parsed.notebook, folder, parsed.file, shared, parsed.jobs)
        # Before a word on where the output goes: what is refused has none.
        typed_parameters(parsed.notebook, dict(parsed.parameters))
        output = parsed.output or run_path(parsed.notebook)
        print(f"The executed notebook goes to {output}", file=sys.stderr, flush=True)
        results = run_notebook(parsed.notebook, output, dict(parsed.parameters))
        print(printable_json(results))
        return 0

    return run


def _doctor(parser: argparse.ArgumentParser, words: list[str]) -> Action:
    del words
    parser.add_argument("--json", action="store_true", help="Print everything as JSON.")

    def run(parsed: argparse.Namespace) -> int:
        from workbench.doctor import examine, lines  # noqa: PLC0415 - only this verb needs it

        report = examine()
        if parsed.json:
            print(printable_json(report.record()))
        else:
            for line in lines(report):
                print(printable(line))
        return 0 if report.ready else 1

    return run


_DECLARATIONS: dict[str, Callable[[argparse.ArgumentParser, list[str]], Action]] = {
    "demo": _demo,
    "build": _build,
    "fit": declare_fit,
    "commands": _commands,
    "stream": _stream,
    "trial": declare_trial,
    "trials": declare_trials,
    "sweep": declare_sweep,
    "compare": declare_compare,
    "export": declare_export,
    "validate": declare_validate,
    "report": declare_report,
    "serve": declare_serve,
    "lab": _lab,
    "run": _run,
    "engines": declare_engines,
    "jobs": declare_jobs,
    "doctor": _doctor,
}
