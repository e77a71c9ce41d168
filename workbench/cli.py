"""The command line: the same verbs as the notebooks, without one."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from workbench import __version__
from workbench.errors import InputError, WorkbenchError
from workbench.units import printable

VERBS = {
    "demo": "compile a model (the shipped one by default) and stream an answer",
    "build": "compile an engine",
    "fit": "say whether a spec can work and fits, on these GPUs or any; builds nothing",
    "commands": "show the shell commands that do the same elsewhere",
    "stream": "stream a generation from an engine of the store",
    "trial": "measure a workload on an engine, which is built if it is not there",
    "trials": "list what was measured, or show one trial",
    "sweep": "measure a grid of specs and workloads, and resume where it was stopped",
    "compare": "show what was measured side by side, and write a report",
    "export": "write what runs an engine without the workbench into a directory",
    "validate": "check a model repository of Triton's against its schema and the engine",
    "report": "write all that is known of an engine into one HTML page",
    "serve": "serve an engine with trtllm-serve, or run any other server, as a job",
    "lab": "open the notebooks in JupyterLab",
    "run": "run a notebook headless, with checked parameters",
    "engines": "list, verify, pin, evict, export and import engines",
    "jobs": "list jobs, attach to them, cancel or retry them",
    "doctor": "show what this machine has, and how to get what a backend lacks",
}


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are sentences as all others, without pages of usage before them."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            InputError: Always.
        """
        raise InputError(f"{message[0].upper()}{message[1:]}. See: {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status.

    0 fine, 1 failed, 2 bad input, 130 interrupted; 3 is of `fit` alone: nobody can be sure.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words:
        _parser(None, words)[0].print_help(sys.stderr)
        return 2
    chosen = next((word for word in words if not word.startswith("-")), None)
    try:
        if chosen is not None and chosen not in VERBS:
            _refuse_verb(chosen)
        parser, action = _parser(chosen, words)
        parsed, unknown = parser.parse_known_args(words)
        if unknown:
            from workbench.flags import refuse_unknown  # noqa: PLC0415 - only when needed

            refuse_unknown(unknown, parsed)
        return action(parsed)
    except WorkbenchError as error:
        print(f"workbench: {printable(str(error))}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except BrokenPipeError:
        # Whoever read our output (head, less) has gone. Python would complain when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        print(f"workbench: the system refused{where}: {error.strerror}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130


def _parser(
    chosen: str | None, words: list[str]
) -> tuple[argparse.ArgumentParser, Callable[[argparse.Namespace], int]]:
    """Return the parser of all verbs, with the flags of the one that was asked for only.

    Declaring flags imports specs and backends; leaving out what is not needed keeps --help quick.
    """
    parser = _Parser(
        prog="workbench",
        description="Choose, compile, stream and compare TensorRT-LLM engines.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"workbench {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    action: Callable[[argparse.Namespace], int] = _nothing
    for name, purpose in VERBS.items():
        command = verbs.add_parser(
            name, help=purpose, description=purpose.capitalize() + ".", allow_abbrev=False
        )
        if name == chosen:
            from workbench.commands import declare  # noqa: PLC0415 - see the docstring

            action = declare(name, command, words)
    return parser, action


def _refuse_verb(word: str) -> NoReturn:
    """Refuse a word that is no command.

    Raises:
        InputError: Names the nearest one.
    """
    from workbench.spec import nearest  # noqa: PLC0415 - only when needed

    raise InputError(
        f"'{word}' is no command.{nearest(word, list(VERBS))} There is: {', '.join(VERBS)}."
    )


def _nothing(_: argparse.Namespace) -> int:
    """Stand in until a verb is chosen; argparse refuses a command line without one."""
    return 2


if __name__ == "__main__":
    sys.exit(main())
