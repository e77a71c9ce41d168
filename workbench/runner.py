"""The detached process of a job, started by `workbench.jobs`.

It leads a session of its own, so that neither a kernel interrupt nor a restart nor the end of
JupyterLab reaches it, and writes the journal.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from workbench.journal import Journal


def main() -> None:
    """Run the job in the directory that is the only argument, detached; does not return."""
    if os.fork():
        # Whoever started us sees its child end at once, and is never left with a zombie.
        os._exit(0)
    os.setsid()
    # What a build and all that it starts write is for its user alone.
    os.umask(0o077)

    # Imported from here on, since the starter waits for the lines above.
    import signal
    import traceback

    from workbench.errors import WorkbenchError
    from workbench.journal import Journal

    journal = Journal(Path(sys.argv[1]))

    def on_term(*_: object) -> None:
        # Once is enough: a second one would interrupt the tidying up.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, on_term)
    try:
        # From here on everybody knows whom to ask to stop.
        journal.own()
        from workbench.jobs import Job

        work = _work(Job(journal.path).request)
        if _asked_to_end():
            # Lost: importlib cleans up its locks in callbacks, where nothing can come up.
            _end_cancelled(journal)
        result = work(journal)
    except KeyboardInterrupt:
        _end_cancelled(journal)
    except WorkbenchError as error:
        journal.end("failed", text=with_numbers(str(error), journal.path))
    except OSError as error:
        # The last word first: on a full disk the log takes no more.
        journal.end("failed", text=with_numbers(describe_os_error(error), journal.path))
        traceback.print_exc()
    except Exception as error:  # noqa: BLE001 - the boundary: a job never ends without a word
        if _asked_to_end():
            # It was asked to end while a class was made, as imports do. CPython 3.11,
            # type_new_set_names: what comes up there becomes a RuntimeError.
            _end_cancelled(journal)
        text = (
            f"The job stopped at an unexpected {type(error).__name__}: {error}. "
            "The log has the details."
        )
        journal.end("failed", text=with_numbers(text, journal.path))
        traceback.print_exc()
    else:
        journal.end("done", **result)
    _remember(journal.path)
    sys.exit()


def _end_cancelled(journal: Journal) -> NoReturn:
    """End at once: whoever cancels waits for it, and the list of jobs makes its line itself."""
    journal.end("cancelled", text="Cancelled.")
    sys.exit()


def _asked_to_end() -> bool:
    """Whether SIGTERM has come, also where Python made something else of it or lost it."""
    import signal

    return signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def _work(request: Mapping[str, Any]) -> Callable[[Journal], dict[str, Any]]:
    """Return what does what the job was asked for, and gives the last word of its journal."""
    match request.get("kind"):
        case "sweep" if request.get("scheduler"):
            from workbench.cluster import run_cluster_job

            return run_cluster_job
        case "sweep":
            from workbench.sweep_job import run_sweep_job

            return run_sweep_job
        case "point":
            from workbench.cluster import run_point_job

            return run_point_job
        case "serve":
            from workbench.serving import run_server_job

            return run_server_job
    from workbench.recipe import run_build

    return run_build


def _remember(path: Path) -> None:
    """Keep the job's line in the list of all jobs, which is only a cache."""
    from workbench.jobs import Job
    from workbench.listing import remember

    remember(Job(path))


def with_numbers(text: str, job: Path) -> str:
    """Return why a job failed with the numbers of what it ran out of, if of anything."""
    from workbench.guard import explained
    from workbench.journal import View

    view = View(job)
    view.update()
    return explained(text, view.facts)


def describe_os_error(error: OSError) -> str:
    """Say what the system refused; a full disk with what is free by now."""
    import errno

    from workbench.files import home
    from workbench.hardware import free_disk
    from workbench.units import format_bytes

    if error.errno == errno.ENOSPC:
        return (
            f"The disk is full: {format_bytes(free_disk(home()))} are free in {home()}, now that "
            "what was unfinished is gone. Free some space, or set WORKBENCH_HOME to a folder on a "
            "larger disk; nothing was published."
        )
    where = f" ({error.filename})" if error.filename else ""
    return f"The system refused: {error.strerror or error}{where}. Nothing was published."
