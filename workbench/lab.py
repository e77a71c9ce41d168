"""Opening the notebooks in JupyterLab."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from workbench.errors import InputError
from workbench.files import home, make_folder

_PACKAGE = Path(__file__).parent


def notebooks_folder() -> Path:
    """Return the folder with notebooks that a user may edit.

    In a checkout that is `notebooks/`; an installed package keeps its own copy clean and gives
    the user one in the workbench's home, which later versions add to but never overwrite.
    """
    checkout = _PACKAGE.parent / "notebooks"
    if checkout.is_dir():
        return checkout
    folder = make_folder(home() / "notebooks")
    for notebook in (_PACKAGE / "notebooks").glob("*.ipynb"):
        if not (folder / notebook.name).exists():
            shutil.copyfile(notebook, folder / notebook.name)
    return folder


def start(
    notebook: str, options: Sequence[str] = (), *, browser: bool = True, port: int | None = None
) -> NoReturn:
    """Become JupyterLab, opened at a notebook; does not return.

    Raises:
        InputError: There is no notebook of that name, or no such port.
    """
    if port is not None and not 0 < port < 65536:
        raise InputError(f"A port is a number from 1 to 65535; got {port}.")
    folder = notebooks_folder()
    if not (folder / notebook).is_file():
        names = ", ".join(sorted(path.name for path in folder.glob("*.ipynb")))
        raise InputError(f"There is no notebook {notebook} in {folder}; there is: {names}.")
    command = [sys.executable, "-m", "jupyterlab", str(folder / notebook)]
    command.append(f"--notebook-dir={folder}")
    if os.geteuid() == 0:
        # As in most containers; JupyterLab refuses to start as root without being told.
        command.append("--allow-root")
    if not browser:
        command.append("--no-browser")
    if port is not None:
        command.append(f"--port={port}")
    command += options
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606 - an argument list, and no shell
