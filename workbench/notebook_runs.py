"""A notebook once for each line of a file of parameters, some at the same time."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from workbench import files
from workbench.errors import InputError, JobError, SpecError, WorkbenchError
from workbench.notebook import run_notebook
from workbench.notebook_parameters import typed_parameters
from workbench.units import printable


def run_file(
    notebook: Path,
    folder: Path,
    path: Path,
    shared: Mapping[str, Any] | None = None,
    jobs: int = 1,
) -> int:
    """Execute a notebook for each line, and print a JSON line as each is over.

    One that fails does not stop the others.

    Args:
        notebook: The notebook.
        folder: Where the executed notebooks go, each named after its line.
        path: A JSON object of parameters a line.
        shared: Parameters that all have, unless their line says otherwise.
        jobs: How many run at the same time.

    Returns:
        The exit status: 0 where all went well.

    Raises:
        InputError: There is no notebook or no such file, or a line is not what the notebook
            declares; nothing has run then.
    """
    if jobs < 1:
        raise InputError(f"At least one notebook has to run at a time; got --jobs {jobs}.")
    lines = read_parameters(notebook, path, shared or {})
    failed = 0
    with ThreadPoolExecutor(min(jobs, len(lines))) as pool:
        running = {
            pool.submit(_run_alone, notebook, _output(notebook, folder, number), values): number
            for number, values in lines.items()
        }
        for future in as_completed(running):
            number = running[future]
            told: dict[str, Any] = {"line": number, "parameters": lines[number]}
            told["output"] = str(_output(notebook, folder, number))
            try:
                told["results"] = future.result()
            except WorkbenchError as error:
                failed += 1
                told["error"] = str(error)
            print(printable(json.dumps(told)), flush=True)
    return 1 if failed else 0


def _run_alone(notebook: Path, output: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Execute a notebook in a process of its own, and return its results.

    nbclient and the signal handlers of one must not meet those of another, and a process that
    dies takes no other along.

    Raises:
        WorkbenchError: As `run_notebook`.
        JobError: The process died.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as process:
        try:
            return process.submit(run_notebook, notebook, output, values).result()
        except BrokenProcessPool as error:
            raise JobError(
                "The process that ran the notebook is gone. It crashed, or was killed, as the "
                "system does for want of memory."
            ) from error


def _output(notebook: Path, folder: Path, number: int) -> Path:
    return folder / f"{notebook.stem}-{number:03d}.ipynb"


def read_parameters(
    notebook: Path, path: Path, shared: Mapping[str, Any]
) -> dict[int, dict[str, Any]]:
    """Return the parameters of each line by its number, of the types that the notebook declares.

    Raises:
        InputError: As `run_file`.
    """
    data = files.read_file(path)
    if data is None:
        raise InputError(f"There is no file of parameters {path}.")
    found = {}
    for number, line in enumerate(data.decode(errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except ValueError:
            values = None
        if not isinstance(values, dict):
            raise InputError(f"Line {number} of {path} is no JSON object of parameters: {line}")
        try:
            found[number] = typed_parameters(notebook, {**shared, **values})
        except SpecError as error:
            raise SpecError(f"Line {number} of {path}: {error}") from None
    if not found:
        raise InputError(f"The file of parameters {path} has no line in it.")
    return found
