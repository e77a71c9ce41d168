"""Sweeps on a Dask cluster: Dask says where a point is measured, and our jobs do the work.

    dask scheduler                                            # anywhere
    dask worker tcp://HOST:8786 --nthreads 4 --resources GPU=4      # on each machine with GPUs
    workbench sweep FILE --scheduler tcp://HOST:8786

All machines share one WORKBENCH_HOME. The sweep is a job where it is started, and talks to the
scheduler. A task on a worker only starts the job of its point, or attaches to it, and follows it:
when a worker dies nothing is lost, and the task that takes its place finds the same job. That job
is on a leash: it ends, with all that it started, when the job of its sweep has ended in whatever
way, or is cancelled. Dask alone would leave the children of a task running in all those cases.

A point whose backend needs GPUs asks for as many of the resource GPU. Each worker should see its
own (CUDA_VISIBLE_DEVICES); the queues of devices keep two points from sharing one all the same.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from workbench import files
from workbench.backends import get_backend
from workbench.errors import JobError, ToolchainError
from workbench.freshness import Demand
from workbench.heartbeat import heartbeat
from workbench.jobs import Job, attach_or_start
from workbench.journal import Journal, append
from workbench.leash import leash
from workbench.recipe import gpus_needed
from workbench.spec import BuildSpec
from workbench.sweep import Point, Sweep, closing_words, record_failure, run_sweep_job, sweep_of
from workbench.units import printable

TICK = 0.5
"""Seconds between two looks at what the cluster has done."""

PATIENCE = 15.0
"""Seconds in which the scheduler must answer."""

INSTALL = "pip install 'trtllm-workbench[dask]'"


def run_cluster_job(journal: Journal) -> dict[str, Any]:
    """Run the sweep of a job on the cluster that it names; return the last word of its journal.

    Facts as those of `run_sweep_job`. What the cluster has measured is told in notes.

    Raises:
        ToolchainError: The package distributed is missing.
        JobError: The scheduler does not answer, or is gone.
    """
    job = Job(journal.path)
    sweep, demand = sweep_of(job)
    url = str(job.request["scheduler"])
    with heartbeat(journal, uses_gpu=False), _connected(url) as client:
        # A worker may have the device that this machine lacks to know whether a trial stands.
        left = [p for p, known in sweep.standings(demand) if not known.trial or known.unsure]
        tasks = {_submit(client, job, sweep, demand, point): point for point in left}
        total = len(sweep.points)
        for number, point in enumerate(_ended(client, url, tasks, journal), total - len(left) + 1):
            journal.note(f"{number} of {total}: {point.title}")
            journal.fact(points=total, trials=number, now="the cluster measures")
    return closing_words(journal, sweep)


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
        "points": [point.record()],
        **asdict(demand),
        "parent": job.id,
    }
    return client.submit(
        follow_point,
        order,
        key=f"{job.id}-{point.id}",
        resources=resources_of(point.spec),
        priority=-sweep.points.index(point),
        pure=False,
    )


def resources_of(spec: BuildSpec) -> dict[str, int]:
    """Return what of a worker's resources a point takes; a processor needs no label."""
    return {"GPU": gpus_needed(spec)} if get_backend(spec.backend).uses_gpu else {}


def _ended(client: Any, url: str, tasks: dict[Any, Point], journal: Journal) -> Iterator[Point]:
    """Yield each point when its task has ended; one that ended badly is recorded first.

    Raises:
        JobError: The scheduler is gone.
    """
    journal.fact(now="wait for the cluster")
    waits = ""
    while tasks:
        for task in [task for task in tasks if task.done()]:
            # Nobody but a client that has lost its scheduler gives up a task.
            if task.cancelled():
                raise JobError(_lost(url))
            point = tasks.pop(task)
            if error := task.exception():
                record_failure(point, error)
            yield point
        try:
            identity = client.sync(client.scheduler.identity, callback_timeout=PATIENCE)
        except (OSError, TimeoutError) as error:
            raise JobError(_lost(url)) from error
        if (lack := _lack(identity["workers"], tasks.values())) != waits:
            journal.note(lack or "The cluster has what was missing.")
            waits = lack
        time.sleep(TICK)


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
    label = f" --resources GPU={needed}" if needed else ""
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
    wanted = {"points": [order["points"][0]["id"]], "parent": order["parent"]}
    job, _ = attach_or_start("point", {**order, "environ": _set_by_dask()}, wanted)
    with contextlib.suppress(OSError):  # it runs, also where the disk takes no note
        append(job.path, "note", text=f"Followed by the worker {os.getpid()} on {host}.")
    for view in job.follow(interval=TICK):
        if view.state() == "silent" and view.owner and view.owner.presence() == "elsewhere":
            raise JobError(
                f"The job {job.id} of this point gives no sign of life; it runs on "
                f"{view.owner.host}. If that machine is gone: workbench jobs cancel {job.id}"
            )
    if view.state() != "done":
        words = str(view.end.get("text", "")) if view.end else ""
        raise JobError(printable(f"The job {job.id} of this point is {view.state()}. {words}"))
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
