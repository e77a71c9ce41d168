"""Silence: how long nothing may be heard of work before it counts as hung and is ended.

A time limit says how long work may take, and only who knows the work can say that. How long it may
give no sign of life is the same for all: a process that computes nothing and says nothing for half
an hour will not go on. Signs of life are a token, a line in a log, a stage or something counted in
a journal, and processor time.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator

import psutil

from workbench.errors import WorkbenchError
from workbench.jobs import Job
from workbench.journal import WAIT, View
from workbench.processes import processes_of
from workbench.units import format_seconds

SILENCE_LIMIT = 1800.0
"""Seconds without a sign of life after which a trial is given up, unless it is told otherwise.

Longer than whatever is known to be silent: TensorRT-LLM imports for 40 s and loads the engine of a
large model for minutes, and a server may work for minutes on a long prompt."""

LOOKS = 10
"""How often it is looked for signs of life within the limit."""

STIR = 0.02
"""Share of one processor that a process takes at least while it works: waiting takes less."""


class Pulse:
    """Whether processes compute, from one look to the next."""

    def __init__(self, processes: Callable[[], Iterable[psutil.Process]]) -> None:
        self._processes = processes
        self._looked, self._taken = time.monotonic(), self._seconds()

    def beats(self) -> bool:
        """Say whether they have computed, begun or ended since the last call."""
        now, taken = time.monotonic(), self._seconds()
        beats = abs(taken - self._taken) > STIR * (now - self._looked)
        self._looked, self._taken = now, taken
        return beats

    def _seconds(self) -> float:
        """Return the processor time of all that live."""
        found = 0.0
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                user, kernel, *_ = process.cpu_times()
                found += user + kernel
        return found


class BuildSigns:
    """Signs of life of a build: its journal, its log, and the processor time of its processes.

    Not the beat of its runner, which goes on beside a compiler that hangs. Inside a container only
    journal and log tell.
    """

    def __init__(self, job: Job, limit: float) -> None:
        self._job, self._limit = job, limit
        self._pulse = Pulse(lambda: self._workers(job.view()))
        self._told: tuple[object, ...] = ()
        self._heard = self._looked = time.monotonic()

    def check(self, view: View) -> None:
        """Look whether there is a sign of life.

        Args:
            view: What its journal says now.

        Raises:
            TimeoutError: There was none for longer than the limit.
        """
        now = time.monotonic()
        counted = [(stage.name, stage.done) for stage in view.stages.values()]
        size = self._job.log.stat().st_size if self._job.log.exists() else 0
        told = (counted, len(view.notes), size)
        waits = WAIT in view.stages and view.stages[WAIT].ended is None
        if waits or told != self._told:
            self._told, self._heard = told, now
        if now - self._looked < self._limit / LOOKS:
            return
        self._looked = now
        if self._pulse.beats():
            self._heard = now
        elif now - self._heard > self._limit:
            stage = list(view.stages)[-1] if view.stages else "start"
            raise TimeoutError(
                f"The build {self._job.id} gave no sign of life for "
                f"{format_seconds(self._limit)} and was given up; it was in the stage '{stage}'. "
                "Its log says how far it got; a longer silence_limit waits longer."
            )

    def _workers(self, view: View) -> list[psutil.Process]:
        runner = view.owner.pid if view.owner else None
        return [process for process in processes_of(self._job.path) if process.pid != runner]


@contextlib.contextmanager
def ended_when_silent(limit: float | None, what: str, pid: int | None = None) -> Iterator[None]:
    """End the processes that the body waits for when they have computed nothing for too long.

    What computes inside a container is not seen from here, so all of it must be over within the
    limit.

    Args:
        limit: In seconds; None lets them be.
        what: What they do, as the beginning of a sentence.
        pid: Of the process that is waited for; by default all that the body starts.

    Raises:
        TimeoutError: They were ended.
    """
    if limit is None:
        yield
        return
    stop, struck = threading.Event(), threading.Event()
    watcher = threading.Thread(
        target=_watch, args=(limit, _chosen(pid), stop, struck), name="workbench-silence"
    )
    watcher.start()
    try:
        yield
    except WorkbenchError as error:
        if not struck.is_set():
            raise
        raise TimeoutError(
            f"{what} gave no sign of life for {format_seconds(limit)} and was ended. {error}"
        ) from error
    finally:
        stop.set()
        watcher.join()


def _watch(
    limit: float,
    processes: Callable[[], list[psutil.Process]],
    stop: threading.Event,
    struck: threading.Event,
) -> None:
    """Kill processes that are silent for longer than the limit (runs in a thread)."""
    pulse, heard = Pulse(processes), time.monotonic()
    while not stop.wait(limit / LOOKS):
        if pulse.beats():
            heard = time.monotonic()
        elif time.monotonic() - heard > limit:
            struck.set()
            for process in processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            return


def _chosen(pid: int | None) -> Callable[[], list[psutil.Process]]:
    """Return what lists a process and all that it started, or what this one starts from now on."""
    if pid is None:
        before = set(psutil.Process().children(recursive=True))
        return lambda: list(set(psutil.Process().children(recursive=True)) - before)

    def tree() -> list[psutil.Process]:
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(pid)
            return [root, *root.children(recursive=True)]
        return []

    return tree
