"""The detached process of a job: `python -m workbench.runner <job directory>`.

It leads a session of its own, so that neither a kernel interrupt nor a restart nor the end of
JupyterLab reaches it, and writes the journal.
"""

from __future__ import annotations

import os
import sys


def detach() -> None:
    """Leave the process that started us: it sees its child end at once, and we lead a session."""
    if os.fork():
        os._exit(0)
    os.setsid()


def main() -> int:
    """Run one job; the boundary at which every error becomes the job's last word."""
    detach()

    # Imported here, since the starter waits for the lines above.
    import signal
    import traceback
    from pathlib import Path

    from workbench.errors import WorkbenchError
    from workbench.jobs import Job
    from workbench.journal import Journal
    from workbench.recipe import run_build

    path = Path(sys.argv[1])
    journal = Journal(path)
    journal.own()

    def on_term(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, on_term)
    try:
        result = run_build(Job(path).request, journal)
    except KeyboardInterrupt:
        journal.end("cancelled", text="Cancelled.")
        return 1
    except WorkbenchError as error:
        journal.end("failed", text=str(error))
        return 1
    except OSError as error:
        traceback.print_exc()
        journal.end("failed", text=describe_os_error(error))
        return 1
    except Exception as error:  # noqa: BLE001 - the boundary: a job never ends without a word
        traceback.print_exc()
        journal.end(
            "failed",
            text=f"The build stopped at an unexpected {type(error).__name__}: {error}. "
            "The log has the details.",
        )
        return 1
    journal.end("done", **result)
    return 0


def describe_os_error(error: OSError) -> str:
    """Say what the system refused; a full disk with its numbers."""
    import errno

    from workbench.files import home
    from workbench.hardware import free_disk
    from workbench.units import format_bytes

    if error.errno == errno.ENOSPC:
        return (
            f"The disk is full: {format_bytes(free_disk(home()))} are free in {home()}. Free some "
            "space, or set WORKBENCH_HOME to a folder on a larger disk; nothing was published."
        )
    where = f" ({error.filename})" if error.filename else ""
    return f"The system refused: {error.strerror or error}{where}. Nothing was published."


if __name__ == "__main__":
    sys.exit(main())
