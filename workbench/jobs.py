"""Jobs: detached processes with a journal on disk, which anyone can watch, attach to and cancel.

    jobs/<id>/spec.json  journal.jsonl  log.txt

The directory appears in one rename, which is what makes a start exclusive. The journal is
append-only; the state of a job is derived from it and from whether its owner lives.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import files
from workbench.containers import ENGINES
from workbench.errors import JobError
from workbench.journal import ENDED, State, View, append
from workbench.owner import Owner
from workbench.processes import MARK, end, kill

CONTAINERS = tuple(f"{engine}:" for engine in ENGINES)
"""Beginnings of the names of toolchains that are containers."""


@dataclass(frozen=True)
class Job:
    """One job on disk, running or not."""

    path: Path

    @classmethod
    def named(cls, name: str) -> Job:
        """Return the job of that id, whether it is there or not."""
        return cls(folder() / name)

    @property
    def id(self) -> str:
        """Name of the job's directory."""
        return self.path.name

    @property
    def request(self) -> dict[str, Any]:
        """What was asked for.

        Raises:
            JobError: The job is gone or damaged.
        """
        request = files.read_json(self.path / "spec.json")
        if not isinstance(request, dict):
            raise JobError(f"The job {self.id} has no readable spec.json in {self.path}.")
        return request

    @property
    def log(self) -> Path:
        """File with everything that the job's processes print."""
        return self.path / "log.txt"

    def view(self) -> View:
        """Return what is known now; its `update` follows the job."""
        view = View(self.path)
        request = self.path / "spec.json"
        try:
            # A job whose request was lost has a journal all the same.
            known = request if request.exists() else self.path
            view.created = view.last_sign = known.stat().st_mtime
        except OSError as error:
            raise JobError(f"There is no job {self.id} in {self.path.parent}.") from error
        view.update()
        return view

    def state(self) -> State:
        """Return the state as it is now."""
        return self.view().state()

    def follow(self, interval: float = 0.1, timeout: float | None = None) -> Iterator[View]:
        """Yield the view, brought up to date every `interval` seconds, until the job has ended.

        Raises:
            TimeoutError: The job runs on after `timeout` seconds.
        """
        view = self.view()
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            # The state first: what the job wrote before it ended is then in the update.
            ended = view.state() in ENDED
            view.update()
            yield view
            if ended:
                return
            if deadline and time.monotonic() > deadline:
                raise TimeoutError(f"The job {self.id} goes on after {timeout} s.")
            time.sleep(interval)

    def wait(self, timeout: float | None = None) -> View:
        """Wait for the end of the job.

        Raises:
            TimeoutError: The job runs on after `timeout` seconds.
        """
        view, started = self.view(), time.monotonic()
        while True:
            ended = view.state() in ENDED
            view.update()
            if ended:
                return view
            waited = time.monotonic() - started
            if timeout is not None and waited > timeout:
                raise TimeoutError(f"The job {self.id} goes on after {timeout} s.")
            # Quick for what is quick; 16 who wait for an hour take < 1 % of a processor together.
            time.sleep(min(2.0, 0.05 + waited / 10))

    def cancel(self, patience: float | None = None) -> State:
        """Stop the job and everything that it started; return the state that it ended in.

        The runner is asked first, so that it can tidy up; when it has ended, or after `patience`
        seconds (5, or 30 where it also has to stop a container), what is still there is killed.
        Of a job that has ended only that is done.

        A job of another host can only be given up, and only when it gives no sign of life.

        Raises:
            JobError: The job runs on another host.
        """
        view = self.view()
        while view.state() == "starting":
            time.sleep(0.02)  # until there is somebody who can be asked
            view.update()
        owner = view.owner
        if view.state() in ENDED or owner is None:
            # Also a runner that stood still until nobody expected it to begin any more.
            kill(self.path)
            return view.state()
        if owner.presence() == "elsewhere" and view.state() == "silent":
            append(self.path, "cancelled", text=f"Given up: no sign of life from {owner.host}.")
            view.update()
            return view.state()
        if owner.presence() == "elsewhere":
            raise JobError(
                f"The job {self.id} runs on the host {owner.host}; cancel it there: "
                f"workbench jobs cancel {self.id}"
            )
        patience = self._patience() if patience is None else patience
        with contextlib.suppress(OSError):  # also where the disk is full
            # Before anybody is killed, so that nobody takes the job for one that died by itself.
            append(self.path, "cancel")
        end(self.path, owner, patience)
        view.update()
        if view.end is None:
            with contextlib.suppress(OSError):
                # It could not write its last word itself any more.
                append(self.path, "cancelled", text="Cancelled.")
            view.update()
        return view.state()

    def _patience(self) -> float:
        request = files.read_json(self.path / "spec.json")
        if not isinstance(request, dict):
            return 30.0  # nobody knows
        return 30.0 if str(request.get("toolchain", "")).startswith(CONTAINERS) else 5.0


def end_leftovers(name: str) -> None:
    """Kill what a job that is gone has left running, so that its device is free.

    Of the job that this very process runs, everything else.
    """
    job = Job.named(name)
    mine = os.environ.get(MARK) == str(job.path.absolute())
    if mine or ((job.path / "spec.json").is_file() and job.state() in ENDED):
        kill(job.path)


def folder() -> Path:
    """Return the folder of all jobs."""
    return files.make_folder(files.home() / "jobs")


def list_jobs() -> list[Job]:
    """Return all jobs, the newest first."""
    return _newest_first(folder().iterdir())


def find_job(name: str) -> Job:
    """Return a job by its id, or by the beginning of its id where that is enough.

    Raises:
        JobError: There is none, or more than one.
    """
    if not name:
        raise JobError("Say which job: its id was empty. `workbench jobs` lists them.")
    matches = _newest_first(path for path in folder().iterdir() if path.name.startswith(name))
    if len(matches) == 1:
        return matches[0]
    what = "is no job" if not matches else f"are {len(matches)} jobs"
    raise JobError(f"There {what} whose id begins with '{name}'. `workbench jobs` lists them.")


def _newest_first(paths: Iterable[Path]) -> list[Job]:
    """Return the jobs among paths; what is not published yet, or no job, is left out."""
    found = [
        (path.joinpath("spec.json").stat().st_mtime, path)
        for path in paths
        if not path.name.startswith(".") and path.joinpath("spec.json").is_file()
    ]
    return [Job(path) for _, path in sorted(found, reverse=True)]


def attach_or_start(
    kind: str, request: Mapping[str, Any], wanted: Mapping[str, Any] | None = None
) -> tuple[Job, bool]:
    """Return the job that works on this request, started if none does; and whether it is new.

    Requests for the same `wanted` (by default, equal requests) share one job.

    Two callers at the same moment get the same job: the rename of a finished directory onto a
    name that exists fails for one of them.

    Raises:
        JobError: The job could not be written or its process not be started.
    """
    request = {"kind": kind, **request}
    return _attach_or_start(_digest(kind, wanted or request), request)


def running(kind: str, wanted: Mapping[str, Any]) -> Job | None:
    """Return the job that `attach_or_start` would attach to, or None where it would start one."""
    last = newest(kind, wanted)
    return last if last and last.state() not in ENDED else None


def newest(kind: str, wanted: Mapping[str, Any]) -> Job | None:
    """Return the last job for a request, whether it has ended or not; None before the first."""
    digest = _digest(kind, wanted)
    last = Job.named(f"{digest}-{_last_attempt(digest):03d}")
    return last if last.path.is_dir() else None


def _digest(kind: str, wanted: Mapping[str, Any]) -> str:
    """Return the name that all attempts at a request begin with."""
    same = json.dumps({"kind": kind, **wanted}, sort_keys=True)
    return hashlib.sha256(same.encode()).hexdigest()[:12]


def retry(job: Job) -> Job:
    """Start what an ended job was asked for once more; return the new job, or the one that runs.

    One that goes with its owner, as servers do, is from now on this process's. A sweep that got to
    its end is asked for anew; any other goes on where it was.

    Raises:
        JobError: The job is damaged, or could not be started.
    """
    request = dict(job.request)
    if request.get("owner"):
        request["owner"] = Owner.current().record()
    if "begun" in request and job.state() == "done":
        request["begun"] = time.time()
    return _attach_or_start(job.id.rpartition("-")[0], request)[0]


def take_over(job: Job) -> tuple[Job, bool]:
    """Return the next attempt at what a dead job was asked for, and whether it was started now.

    Of all who ask exactly one starts it, whenever they ask: the others get the same one, also when
    it has ended by then.

    Raises:
        JobError: The job is damaged, or could not be started.
    """
    digest, _, number = job.id.rpartition("-")
    path = folder() / f"{digest}-{int(number) + 1:03d}"
    new = not path.exists() and _claim(path, job.request)
    if new:
        _spawn(path)
    return Job(path), new


def _attach_or_start(digest: str, request: Mapping[str, Any]) -> tuple[Job, bool]:
    """Return the running attempt at a request, or start the next one."""
    while True:
        number = _last_attempt(digest)
        last = Job.named(f"{digest}-{number:03d}")
        if number and last.state() not in ENDED:
            return last, False
        path = folder() / f"{digest}-{number + 1:03d}"
        if _claim(path, request):
            _spawn(path)
            return Job(path), True


def newest_attempt(job: Job) -> Job:
    """Return the last job that was started for the same request: a job may be taken over."""
    digest = job.id.rpartition("-")[0]
    return Job.named(f"{digest}-{_last_attempt(digest):03d}")


def _last_attempt(digest: str) -> int:
    """Return the number of the last attempt at a request, or 0."""
    return max((_attempt(path) for path in folder().glob(f"{digest}-*")), default=0)


def _attempt(path: Path) -> int:
    """Return the number at the end of a job's name, or 0."""
    number = path.name.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def _claim(path: Path, request: Mapping[str, Any]) -> bool:
    """Create the job's directory with its request inside, in one step."""
    temporary = files.temporary_name(path.parent, path.name)
    try:
        temporary.mkdir(mode=0o700)
        files.write_json(temporary / "spec.json", request)
        return files.publish_directory(temporary, path)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise JobError(f"The job cannot be written to {path.parent}: {error.strerror}.") from error


def _spawn(path: Path) -> None:
    """Start the detached runner of a job."""
    # Imported from where we were, also when the package is not installed; a variable such as
    # PYTHONPATH would reach the toolchain, whose packages are its own.
    command = [sys.executable, "-c", _RUN, str(Path(__file__).parents[1]), str(path)]
    try:
        with open(path / "log.txt", "ab", opener=files.private) as log:
            starter = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=path,
                start_new_session=True,
                # Absolute, since the runner works in another directory.
                env=os.environ | {"WORKBENCH_HOME": str(files.home()), MARK: str(path.absolute())},
            )
    except OSError as error:
        text = f"The runner of the job could not be started: {error.strerror}."
        with contextlib.suppress(OSError):  # so that nobody waits for it
            append(path, "failed", text=text)
        raise JobError(text) from error
    # The starter forks the runner and ends at once, so that no zombie is ever left with us.
    if starter.wait() != 0:
        tail = (path / "log.txt").read_text(encoding="utf-8", errors="replace")[-500:]
        raise JobError(f"The runner of the job did not start: {tail.strip()}")


_RUN = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from workbench import runner; runner.main()"
)
