"""Sweeps on a Dask cluster: Dask says where a point is measured, and our jobs do the work.

    dask scheduler                                            # anywhere
    CUDA_VISIBLE_DEVICES=0 dask worker tcp://HOST:8786 --nthreads 1 --resources GPU=1
    CUDA_VISIBLE_DEVICES=1 dask worker tcp://HOST:8786 --nthreads 1 --resources GPU=1
    workbench sweep FILE --scheduler tcp://HOST:8786                # where both may be used

All machines share one WORKBENCH_HOME. The sweep is a job where it is started, and talks to the
scheduler. A task on a worker only starts the job of its point, or attaches to it, and follows it:
when a worker dies nothing is lost, and the task that takes its place finds the same job. That job
is on a leash: it ends, with all that it started, when the job of its sweep has ended in whatever
way, or is cancelled. Dask alone would leave the children of a task running in all those cases.

So a task that fails says little: what counts is the job of its point. While that goes on it is
waited for, and only one that has ended badly without a trial is a failure of its point. A point
that got no job, or one of a machine that is gone, was not measured: the sweep fails, and says why.

A point whose backend needs GPUs asks for as many of the resource GPU, so a worker has one thread
and one GPU of its own; for tp_size 4 it has four: CUDA_VISIBLE_DEVICES=0,1,2,3 and GPU=4. The
queues of devices keep two points from sharing one all the same.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import time
import traceback
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from workbench import files, jobs, results
from workbench.backends.base import gpus_needed
from workbench.devices import needs_gpu
from workbench.errors import JobError, ToolchainError, WorkbenchError
from workbench.freshness import Demand
from workbench.heartbeat import heartbeat
from workbench.jobs import Job, attach_or_start
from workbench.journal import ENDED, Journal, View, append
from workbench.leash import leash
from workbench.server_spec import ServerSpec
from workbench.spec import BuildSpec
from workbench.sweep import Point, Sweep, record_failure
from workbench.sweep_job import closing_words, run_sweep_job, sweep_of
from workbench.units import printable

TICK = 0.5
"""Seconds between two looks at what the cluster has done."""

PATIENCE = 15.0
"""Seconds in which the scheduler must answer."""

MISSES = 4
"""Questions in a row without an answer after which the scheduler counts as gone: it may be busy."""

INSTALL = "pip install 'trtllm-workbench[dask]'"


def run_cluster_job(journal: Journal) -> dict[str, Any]:
    """Run the sweep of a job on the cluster that it names; return the last word of its journal.

    Facts as those of `run_sweep_job`. What the cluster has measured is told in notes.

    Raises:
        ToolchainError: The package distributed is missing.
        JobError: The scheduler does not answer, or is gone; or points could not be measured.
    """
    job = Job(journal.path)
    sweep, demand = sweep_of(job)
    url = str(job.request["scheduler"])
    before, unmeasured = _trials(sweep.points), list[tuple[Point, str]]()
    total = len(sweep.points)
    with heartbeat(journal), _connected(url) as client:
        # A worker may have the device that this machine lacks to know whether a trial stands.
        left = [p for p, known in sweep.standings(demand) if not known.trial or known.unsure]
        tasks = {_submit(client, job, sweep, demand, point): point for point in left}
        number = total - len(left)
        for point, error in _ended(client, url, tasks, journal):
            why = _settle(point, job.id, error, before) if error else ""
            if why:
                if why not in (known for _, known in unmeasured):
                    journal.note(why)
                unmeasured.append((point, why))
                continue
            number += 1
            journal.note(f"{number} of {total}: {point.title}")
            journal.fact(points=total, trials=number, now="the cluster measures")
    words = closing_words(journal, sweep, demand)
    # One that was silent for long may have gone on.
    if lacks := [why for point, why in unmeasured if _trials([point]) <= before]:
        raise JobError(f"{len(lacks)} of {total} points could not be measured. {lacks[0]}")
    return words


def _trials(points: Iterable[Point]) -> set[str]:
    """Return the ids of all trials of points."""
    return {trial.id for point in points for trial in results.trials_of(point.id)}


@contextlib.contextmanager
def _connected(url: str) -> Iterator[Any]:
    """Give a client of a scheduler; tasks that are left at the end are given up.

    Raises:
        ToolchainError: The package distributed is missing.
        JobError: Nobody answers.
    """
    try:
        distributed = importlib.import_module("distributed")
    except ModuleNotFoundError:
        raise ToolchainError(
            f"A sweep on a cluster needs the package distributed: {INSTALL}. Without it, a sweep "
            "runs on this machine (no --scheduler)."
        ) from None
    try:
        client = distributed.Client(url, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise JobError(
            f"There is no Dask scheduler at {url} ({error}). Start one with `dask scheduler`, "
            "which prints its address."
        ) from error
    try:
        yield client
    finally:
        with contextlib.suppress(OSError, TimeoutError):  # it may be gone
            client.close(timeout=2)


def _submit(client: Any, job: Job, sweep: Sweep, demand: Demand, point: Point) -> Any:
    """Hand a point to the cluster; return the future of its task."""
    order = {
        "name": sweep.name,
        "time_limit": sweep.time_limit,
        "silence_limit": sweep.silence_limit,
        "points": [point.record()],
        **asdict(demand),
        "parent": job.id,
    }
    return client.submit(
        follow_point,
        order,
        # Of its own: sweeps of other homes, and of earlier ones, may use this scheduler too.
        key=f"{job.id}-{point.id}-{uuid.uuid4().hex}",
        resources=resources_of(point.spec),
        priority=-sweep.points.index(point),
        pure=False,
    )


def resources_of(spec: BuildSpec | ServerSpec) -> dict[str, int]:
    """Return what of a worker's resources a point takes; processors and servers need no label."""
    if isinstance(spec, ServerSpec) or not needs_gpu(spec):
        return {}
    return {"GPU": gpus_needed(spec)}


def _ended(
    client: Any, url: str, tasks: dict[Any, Point], journal: Journal
) -> Iterator[tuple[Point, Exception | None]]:
    """Yield each point when its task has ended, with the error that the task ended with.

    One whose job goes on all the same is yielded when that has ended.

    Raises:
        JobError: The scheduler is gone.
    """
    journal.fact(now="wait for the cluster")
    sweep, waits, misses = journal.path.name, "", 0
    deserted: list[tuple[Point, Exception]] = []
    while tasks or deserted:
        for task in [task for task in tasks if task.done()]:
            # Nobody but a client that has lost its scheduler gives up a task.
            if task.cancelled():
                raise JobError(_lost(url))
            point = tasks.pop(task)
            if error := task.exception():
                deserted.append((point, error))
            else:
                yield point, None
        over = [each for each in deserted if not _goes_on(each[0], sweep)]
        deserted = [each for each in deserted if each not in over]
        yield from over
        try:
            identity = client.sync(client.scheduler.identity, callback_timeout=PATIENCE)
        except (OSError, TimeoutError) as error:
            misses += 1
            if misses == MISSES:
                raise JobError(_lost(url)) from error
        else:
            misses = 0
            if (lack := _lack(identity["workers"], tasks.values())) != waits:
                journal.note(lack or "The cluster has what was missing.")
                waits = lack
        time.sleep(TICK)


def _wanted(point: str, sweep: str) -> dict[str, Any]:
    """Return what tells the job of a point of a sweep, both by their ids, from all others."""
    return {"points": [point], "parent": sweep}


def _goes_on(point: Point, sweep: str) -> bool:
    """Say whether the job of a point goes on, as far as anybody knows."""
    try:
        job = jobs.newest("point", _wanted(point.id, sweep))
        if job is None:
            return False
        view = job.view()
        return view.state() not in ENDED and not view.lost()
    except (OSError, WorkbenchError):  # the file system may answer the next time
        return True


def _settle(point: Point, sweep: str, error: Exception, before: Collection[str]) -> str:
    """Record the failure of a point whose job has ended badly without a trial.

    Args:
        point: One whose task has failed, and whose job does not go on.
        sweep: Id of the job of its sweep.
        error: What the task ended with.
        before: Ids of the trials that the point had before.

    Returns:
        Why it was not measured, where that is not the fault of the point: it had no job, or the
        machine of its job is gone.
    """
    job = jobs.newest("point", _wanted(point.id, sweep))
    view = job.view() if job else None
    if job is None or view is None or view.state() not in ENDED:
        return _sentence(error)
    if view.state() != "done" and _trials([point]) <= set(before):
        record_failure(point, JobError(_bad_end(job, view)))
    return ""


def _sentence(error: Exception) -> str:
    """Say what a task ended with."""
    if isinstance(error, WorkbenchError):
        return str(error)
    words = " ".join(traceback.format_exception_only(error)[-1].split())
    return printable(f"A worker of the cluster failed: {words}")


def _bad_end(job: Job, view: View) -> str:
    """Say how the job of a point ended."""
    words = str(view.end.get("text", "")) if view.end else ""
    return printable(f"The job {job.id} of this point is {view.state()}. {words}".rstrip())


def _lost(url: str) -> str:
    return (
        f"The Dask scheduler at {url} is gone. What it had begun is stopped, and what was measured "
        "is kept: started again, the sweep does what is left."
    )


def _lack(workers: Mapping[str, Mapping[str, Any]], points: Collection[Point]) -> str:
    """Say what the points that are left wait for, where no worker could take one of them."""
    needed = max((resources_of(point.spec).get("GPU", 0) for point in points), default=0)
    offered = max((worker["resources"].get("GPU", 0) for worker in workers.values()), default=-1)
    if offered >= needed:
        return ""
    label = f" --nthreads 1 --resources GPU={needed}" if needed else ""
    return f"No worker can take what is left. Start one: dask worker ADDRESS{label}"


def follow_point(order: Mapping[str, Any]) -> str:
    """Start the job of a point, or attach to it, and follow it; runs in a worker of the cluster.

    Args:
        order: The request of the job.

    Raises:
        JobError: It did not get to its end, or this machine has another WORKBENCH_HOME.
    """
    host = socket.gethostname()
    if not (Job.named(order["parent"]).path / "spec.json").is_file():
        raise JobError(
            f"The sweep {order['parent']} is not in {files.home()} on {host}. All "
            "machines of a cluster must share one WORKBENCH_HOME; set it before `dask worker`."
        )
    wanted = _wanted(order["points"][0]["id"], order["parent"])
    job, _ = attach_or_start("point", {**order, "environ": _set_by_dask()}, wanted)
    with contextlib.suppress(OSError):  # it runs, also where the disk takes no note
        append(job.path, "note", text=f"Followed by the worker {os.getpid()} on {host}.")
    for view in job.follow(interval=TICK):
        if view.lost() and view.owner:
            raise JobError(
                f"The job {job.id} of a point has given no sign of life for "
                f"{view.silence():.0f} s; it runs on {view.owner.host}. If that machine is gone: "
                f"workbench jobs cancel {job.id}"
            )
    if view.state() != "done":
        raise JobError(_bad_end(job, view))
    return job.id


def _set_by_dask() -> list[str]:
    """Return the variables that Dask has set for this worker: one thread would falsify figures."""
    config = importlib.import_module("dask.config")
    given = {**config.get("distributed.nanny.pre-spawn-environ", {}), "PYTHONHASHSEED": "6640"}
    return [name for name, value in given.items() if os.environ.get(name) == str(value)]


def run_point_job(journal: Journal) -> dict[str, Any]:
    """Measure the point of a job while its sweep goes on; return the last word of its journal."""
    request = Job(journal.path).request
    for name in request["environ"]:
        os.environ.pop(name, None)
    with leash(Job.named(request["parent"])):
        return run_sweep_job(journal)
