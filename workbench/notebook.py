"""Notebooks as programs: are we headless, are the parameters right, what came out."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import InputError, JobError, SpecError
from workbench.notebook_parameters import (
    assignments,
    check_parameters,
    meant_for,
    typed_parameters,
    undeclared,
)
from workbench.spec import BuildSpec, Parameter, parameters_of
from workbench.units import printable

if TYPE_CHECKING:
    from workbench.server_spec import ServerSpec

RESULT = "application/vnd.trtllm-workbench.result+json"
"""Media type under which a notebook's results are kept in its outputs."""

# How papermill begins the cell that it injects.
_INJECTED = "# Parameters"


def headless() -> bool:
    """Say whether nobody can click: then cells wait for their work instead of returning.

    `WORKBENCH_HEADLESS` (1 or 0) decides where it is set. Otherwise a client that executes a
    notebook without a person (papermill, nbclient, nbconvert) says in each execute request that
    it cannot answer questions (`allow_stdin` false), while JupyterLab says that it can. Outside
    a kernel there is nobody either.
    """
    setting = os.environ.get("WORKBENCH_HEADLESS")
    if setting is not None:
        return setting != "0"
    kernel = _kernel()
    if kernel is None:
        return True
    return not kernel.get_parent("shell").get("content", {}).get("allow_stdin", True)


def running_cell() -> tuple[str, str] | None:
    """Return the id of the cell that runs and that of this run; None where nobody tells.

    JupyterLab sends both with each execute request; see its `CodeCell.execute`.
    """
    kernel = _kernel()
    if kernel is None:
        return None
    request = kernel.get_parent("shell")
    cell = request.get("metadata", {}).get("cellId")
    run = request.get("header", {}).get("msg_id")
    return (str(cell), str(run)) if cell and run else None


def _kernel() -> Any:
    import sys  # noqa: PLC0415 - beside its only use

    # Whoever runs in IPython has imported it; nobody else shall pay for the import.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None)


def spec_from(namespace: Mapping[str, Any]) -> BuildSpec:
    """Make a spec from a notebook's variables: `spec_from(globals())`.

    Args:
        namespace: Variables, of which the declared parameters are taken. papermill may pass any
            parameter of the backend, also one that the notebook's own cell leaves out. Where it
            passes another backend than that cell declares, the values which stand beside that one
            are nobody's wish: only the model counts, and what was passed.

    Raises:
        SpecError: A parameter is ill-typed, or papermill passed one that the notebook or the
            backend does not know (papermill itself only logs that).
    """
    from workbench.backends import DEFAULT, get_backend, make_spec  # noqa: PLC0415 - pydantic

    backend = get_backend(str(namespace.get("backend", DEFAULT)))
    names = parameters_of(backend.spec_class)
    _check_injected(namespace, names, backend.name)
    beside, common = _beside(map(assignments, _cells(namespace))), parameters_of(BuildSpec)
    values = {
        name: namespace[name]
        for name in names
        if name in namespace and (name in common or beside.get(name, backend.name) == backend.name)
    }
    return make_spec({"backend": backend.name, **values})


def target_from(namespace: Mapping[str, Any]) -> BuildSpec | ServerSpec:
    """Make what a trial measures from a notebook's variables: a server where there is a `url`.

    Raises:
        SpecError: As `spec_from`; or papermill passed something with a `url` that only an engine
            has.
    """
    from workbench.backends import DEFAULT, get_backend  # noqa: PLC0415 - pydantic
    from workbench.quality import Quality  # noqa: PLC0415 - pydantic
    from workbench.server_spec import ServerSpec  # noqa: PLC0415 - pydantic

    server = ServerSpec.of(namespace)
    if server.url is None:
        return spec_from(namespace)
    backend = get_backend(str(namespace.get("backend", DEFAULT)))
    names = parameters_of(backend.spec_class)
    _check_injected(namespace, names, backend.name)
    of_engines = {"backend", *names, *parameters_of(Quality)}
    if chosen := [name for name in _passed(namespace)[0] if name in of_engines]:
        raise SpecError(f"A server is what it is: {', '.join(chosen)} cannot be chosen with url.")
    return server


def check_injected(namespace: Mapping[str, Any]) -> None:
    """Refuse what papermill passed and the notebook does not declare: `check_injected(globals())`.

    Raises:
        SpecError: A parameter is unknown or of another type (papermill itself only logs that).
    """
    _check_injected(namespace, {})


def _check_injected(
    namespace: Mapping[str, Any], known: Mapping[str, Parameter], backend: str = ""
) -> None:
    """Compare what papermill injected with what the notebook declared before it."""
    injected, declared = _passed(namespace)
    check_parameters(injected, undeclared(known) | meant_for(backend, declared))


def _passed(namespace: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what papermill injected, and what the notebook declared."""
    cells = _cells(namespace)
    injected: dict[str, Any] = {}
    declared: dict[str, Any] = {}
    for cell in cells:
        (injected if cell.startswith(_INJECTED) else declared).update(assignments(cell))
    # A person may begin a cell with the same words: papermill's comes after one that declares.
    by_papermill = declared and not cells[0].startswith(_INJECTED)
    return (injected if by_papermill else {}), declared


def _cells(namespace: Mapping[str, Any]) -> list[str]:
    """Return the sources of the cells that were run, in their order; none outside IPython."""
    return [cell for cell in namespace.get("In", []) if cell.strip()]


def _beside(cells: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the backend that stood when each name was assigned, where one did.

    Args:
        cells: The assigned values of each cell by their names, in the order of the cells.
    """
    found: dict[str, str] = {}
    stands = ""
    for assigned in cells:
        stands = str(assigned.get("backend") or stands)
        if stands:
            found |= dict.fromkeys(assigned, stands)
    return found


def publish_result(**values: Any) -> None:
    """Keep results in the output of the running cell, where `run_notebook` finds them.

    Args:
        values: Plain JSON values by name.
    """
    from IPython.display import display  # noqa: PLC0415 - only inside a notebook

    lines = "\n".join(f"{name}: {value}" for name, value in values.items())
    display({RESULT: values, "text/plain": printable(lines)}, raw=True)


def run_notebook(
    notebook: Path, output: Path | None = None, parameters: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Execute a notebook with papermill and return its results.

    Args:
        notebook: The notebook.
        output: Where the executed notebook goes; by default see `run_path`.
        parameters: Values by name; texts are read as the type that the notebook declares.

    Raises:
        InputError: The notebook is missing or does not declare a parameter.
        JobError: Its kernel died, or did not start.
        WorkbenchError: A cell failed; with its sentence.
    """
    import jupyter_client.kernelspec  # noqa: PLC0415 - takes a second
    import papermill  # noqa: PLC0415 - takes a second

    values = typed_parameters(notebook, parameters or {})
    output = output or run_path(notebook)
    _make_room(output)
    try:
        papermill.execute_notebook(str(notebook), str(output), values, progress_bar=False)
    except jupyter_client.kernelspec.NoSuchKernel as error:
        raise InputError(
            f"The notebook {notebook} asks for the kernel '{error.name}', which is not installed. "
            "Install it, or choose another kernel in JupyterLab and save."
        ) from error
    except papermill.PapermillExecutionError as error:
        raise InputError(
            f"The notebook stopped at cell {error.exec_count}: {error.ename}: {error.evalue} "
            f"(the executed notebook is {output})"
        ) from error
    except RuntimeError as error:  # of nbclient, DeadKernelError, and before it of jupyter_client
        raise JobError(
            f"The kernel that ran the notebook is gone: {error}. It crashed, or was killed, as the "
            f"system does for want of memory (as far as it came, the executed notebook is {output})"
        ) from error
    return read_results(output)


def _make_room(output: Path) -> None:
    """Make what a notebook is written into; in our own folders it is private to the user."""
    from workbench.files import home, make_folder, private  # noqa: PLC0415 - beside its only use

    if not output.absolute().is_relative_to(home()):
        output.parent.mkdir(parents=True, exist_ok=True)
        return
    make_folder(output.parent)
    with open(output, "ab", opener=private):
        pass  # papermill writes into the file that is there


def read_results(notebook: Path) -> dict[str, Any]:
    """Return the results that an executed notebook published, later ones over earlier ones."""
    import nbformat  # noqa: PLC0415 - takes a while

    results: dict[str, Any] = {}
    for cell in nbformat.read(notebook, as_version=4).cells:
        for output in cell.get("outputs", []):
            results.update(output.get("data", {}).get(RESULT, {}))
    return results


def run_path(notebook: Path) -> Path:
    """Return where an executed notebook goes when nothing else was asked for."""
    import time  # noqa: PLC0415 - beside its only use

    from workbench.files import home  # noqa: PLC0415 - beside its only use

    return home() / "runs" / f"{notebook.stem}-{time.strftime('%Y%m%d-%H%M%S')}.ipynb"
