"""One trial, from the spec to the record: build if needed, load, warm up, measure, check, write."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from workbench import results
from workbench.backends import get_backend, make_spec
from workbench.build import Build, cancel, engine_of, start_build, successor
from workbench.checks import violations
from workbench.deadline import kill_children_at
from workbench.engine import Engine
from workbench.errors import SpecError, WorkbenchError
from workbench.gpus import list_gpus
from workbench.heartbeat import descendants, sizes_of
from workbench.jobs import Job
from workbench.journal import WAIT, View
from workbench.load import Load, Target
from workbench.measurement import summarize
from workbench.opening import open_engine
from workbench.prompts import WARMUP, make_requests, vocabulary_of
from workbench.queues import Place, Slot, turn
from workbench.recipe import slots
from workbench.sampling import Sampling
from workbench.session import Session
from workbench.spec import BuildSpec
from workbench.surroundings import Watch, doubts, surroundings
from workbench.trial import Trial, new_record, point_of
from workbench.units import format_seconds
from workbench.workload import Workload

Report = Callable[[str], None]
"""Is told what a trial does now, in a few words."""


def say_nothing(_: str) -> None:
    """Tell nobody."""


def run_trial(
    spec: BuildSpec | Mapping[str, Any],
    workload: Workload | Mapping[str, Any] | None = None,
    *,
    time_limit: float | None = None,
    again: bool = True,
    report: Report = say_nothing,
) -> Trial:
    """Measure a workload on the engine of a spec, which is built if it is not there.

    Whatever comes out is in the store before this returns, also a failure. While it measures, it
    has the device to itself as a build has: others wait in the queue.

    Args:
        spec: What to measure; plain values are made into a spec first.
        workload: How; plain values are made into a workload first.
        time_limit: Seconds that building may take, and measuring again as many; waiting for the
            device counts for neither.
        again: Measure also what was measured before. Without it that trial is returned, also one
            that another process writes while this one waits for the device.
        report: Told what goes on.

    Raises:
        SpecError: A value is unknown or ill-typed.
        InputError: The file of prompts is not there.
        OSError: The record cannot be written.
    """
    spec = spec if isinstance(spec, BuildSpec) else make_spec(spec)
    workload = workload if isinstance(workload, Workload) else Workload.parse(workload or {})
    point = point_of(spec, workload)
    record = new_record(point, spec.model_dump(mode="json"), workload.model_dump(mode="json"))
    try:
        if not again and (known := results.latest(point)):
            return known
        check_lengths(spec, workload)
        engine = _engine(spec, record, time_limit, report)
        with _device(spec, point, report):
            if not again and (known := results.latest(point)):
                return known
            _measure_in_time(engine, workload, record, time_limit, report)
            return results.save(record)
    except (WorkbenchError, TimeoutError) as error:
        if not again and (known := results.latest(point)):
            return known
        record |= {"status": "failed", "reasons": [str(error)]}
        return results.save(record)


def check_lengths(spec: BuildSpec, workload: Workload) -> None:
    """Refuse a workload that a spec has no room for, before anything is built.

    Raises:
        SpecError: Names the limit.
    """
    if workload.prompts:
        return  # nobody knows their lengths before they are encoded
    longest = {
        "max_input_len": workload.longest_input,
        "max_output_len": workload.longest_output,
        "max_seq_len": workload.longest_input + workload.longest_output,
    }
    for name, needed in longest.items():
        limit = getattr(spec, name, None)
        if limit is not None and needed > limit:
            raise SpecError(
                f"This workload needs {name} {needed}, and the engine has {limit}. Shorten "
                f"input_len or output_len, or build with a larger {name}."
            )


def _engine(
    spec: BuildSpec, record: dict[str, Any], time_limit: float | None, report: Report
) -> Engine:
    """Return the engine of a spec; built, within the time limit, where it is not there."""
    build = start_build(spec)
    if build.job:
        report("build the engine")
    engine = _await_engine(build, time_limit)
    stages = engine.manifest["build"]["stages"]
    record["engine"] = {
        "key": engine.key,
        "bytes": engine.bytes,
        "build_seconds": sum(stage["seconds"] for stage in stages),
        "reused": build.job is None,
    }
    record["devices"] = _devices(spec)
    return engine


def _await_engine(build: Build, time_limit: float | None) -> Engine:
    """Wait for an engine as `Build.wait` does.

    Raises:
        TimeoutError: Building took too long; a build that was started for this is cancelled.
        JobError: The build failed.
    """
    if build.job is None or time_limit is None:
        return build.wait()
    job = build.job
    try:
        view = _follow(job, time_limit)
        if after := successor(job, view):
            job, view = after, _follow(after, time_limit)
    except TimeoutError:
        if not build.explanation:  # nobody else had asked for it before
            cancel(job)
        raise
    return engine_of(job, view, build.spec)


def _follow(job: Job, time_limit: float) -> View:
    """Return the view of a job at its end.

    Raises:
        TimeoutError: It has worked for longer than the limit.
    """
    view = job.view()
    for view in job.follow(interval=0.2):
        now = time.time()
        stages = (stage for stage in view.stages.values() if stage.name != WAIT)
        if sum(stage.seconds(now) for stage in stages) > time_limit:
            raise TimeoutError(
                f"The time limit of {time_limit:g} s was over, and the build {job.id} had not "
                f"ended; it was in the stage '{list(view.stages)[-1]}'."
            )
    return view


def _devices(spec: BuildSpec) -> int:
    """Return how many devices an engine runs on: GPUs, or one processor."""
    if not get_backend(spec.backend).uses_gpu:
        return 1
    return int(getattr(spec, "tp_size", 1)) * int(getattr(spec, "pp_size", 1))


@contextlib.contextmanager
def _device(spec: BuildSpec, point: str, report: Report) -> Iterator[None]:
    """Keep the devices of a trial, once it is its turn: nothing of ours computes beside it."""

    def tell(slot: Slot, place: Place) -> None:
        report(f"wait for {slot.title}, place {place.number}")

    with contextlib.ExitStack() as turns:
        for slot in sorted(slots(get_backend(spec.backend), spec), key=lambda slot: slot.name):
            turns.enter_context(turn(slot, f"trial-{point}", functools.partial(tell, slot)))
        yield


def _measure_in_time(
    engine: Engine,
    workload: Workload,
    record: dict[str, Any],
    time_limit: float | None,
    report: Report,
) -> None:
    """Measure an engine, at most as long as the limit says.

    Raises:
        TimeoutError: The limit was over.
    """
    started = time.monotonic()
    deadline = None if time_limit is None else started + time_limit
    try:
        with kill_children_at(deadline):
            _measure_engine(engine, workload, record, deadline, report)
    except (WorkbenchError, TimeoutError) as error:
        if deadline is None or time.monotonic() < deadline:
            raise
        raise TimeoutError(f"The time limit of {time_limit:g} s was over. {error}") from error
    finally:
        record["seconds"] = time.monotonic() - started


def _measure_engine(
    engine: Engine,
    workload: Workload,
    record: dict[str, Any],
    deadline: float | None,
    report: Report,
) -> None:
    """Load an engine, measure it, and complete its record."""
    uses_gpu = get_backend(engine.backend).uses_gpu
    versions = engine.manifest["identity"]["toolchain"]
    record["environment"] = surroundings(versions, uses_gpu=uses_gpu)
    record["warnings"] += doubts(record["environment"])
    report("load the engine")
    with open_engine(engine) as session:
        record["engine"]["load_seconds"] = session.facts["seconds"]
        vocabulary = vocabulary_of_engine(engine)
        measured = measure(session, workload, vocabulary, deadline=deadline, report=report)
        record["memory"] = _memory(session, uses_gpu=uses_gpu)
    complete(record, workload, measured, several_at_once=_speculates(record["spec"]))


@dataclass
class Measured:
    """What came of the requests of a workload; `busy` is the share of the processor in use."""

    repetitions: list[list[dict[str, Any]]] = field(default_factory=list)
    busy: float = 0.0


def measure(
    target: Target,
    workload: Workload,
    vocabulary: Sequence[int] = (),
    *,
    deadline: float | None = None,
    report: Report = say_nothing,
) -> Measured:
    """Send a workload to something that generates: its warm-up, then each repetition.

    Args:
        target: A session, or what has its `generate`.
        workload: What to send, and when.
        vocabulary: Ids that prompts are made of; not needed with a file of prompts.
        deadline: On the monotonic clock.
        report: Told which repetition runs.

    Raises:
        InputError: There are no prompts and no vocabulary.
        TimeoutError: The deadline has passed.
    """
    sampling = Sampling(ignore_eos=workload.ignore_eos, seed=workload.seed % 2**31)

    def run(repetition: int, schedule: Sequence[float] | None) -> list[dict[str, Any]]:
        requests = make_requests(workload, repetition, vocabulary)
        return Load(target, requests, sampling, workload.concurrency, schedule, deadline).run()

    if workload.warmup:
        report("warm up")
        run(WARMUP, None)
    found, watch = Measured(), Watch()
    for repetition in range(workload.repetitions):
        report(f"measure, repetition {repetition + 1} of {workload.repetitions}")
        found.repetitions.append(run(repetition, workload.schedule(repetition)))
    found.busy = watch.share()
    return found


def complete(
    record: dict[str, Any], workload: Workload, measured: Measured, *, several_at_once: bool = False
) -> None:
    """Add the requests, the figures and the verdict of the self-check to a record."""
    open_loop = workload.request_rate is not None
    summary = summarize(measured.repetitions, record["devices"], open_loop=open_loop)
    reasons = violations(
        measured.repetitions,
        summary,
        exact_output=workload.ignore_eos,
        several_at_once=several_at_once,
    )
    record["repetitions"], record["summary"] = measured.repetitions, summary
    record["environment"]["busy_during"] = measured.busy
    record["warnings"] += late(workload, summary)
    record |= {"status": "invalid" if reasons else "done", "reasons": reasons}


def late(workload: Workload, summary: Mapping[str, Any]) -> list[str]:
    """Say so where requests of a rate were not sent when they should have been."""
    error = summary["scheduling_error"]
    if not (error and workload.request_rate) or error["p99"] * workload.request_rate <= 1:
        return []
    words = (
        f"1 % of the requests were sent more than {format_seconds(error['p99'])} late, which is "
        "longer than they are apart: this machine cannot keep the request_rate."
    )
    return [words]


def vocabulary_of_engine(engine: Engine) -> list[int]:
    """Return the ordinary token ids of an engine, from wherever its tokenizer is."""
    facts = engine.manifest.get("facts", {})
    places = (
        engine.path,
        engine.limits.get("checkpoint"),
        facts.get("checkpoint"),
        engine.manifest["model"].get("source"),
    )
    found = (vocabulary_of(Path(place)) for place in places if place)
    return next((ids for ids in found if ids), [])


def _memory(session: Session, *, uses_gpu: bool) -> dict[str, int]:
    """Return the most memory that the processes of a session had, and what is taken of the GPUs."""
    told = {}
    with contextlib.suppress(psutil.NoSuchProcess):  # then the requests say what happened
        tree = descendants(session.pid)
        told["host_peak_bytes"] = sum(peak for _, peak in map(sizes_of, tree))
    if uses_gpu:
        told["gpu_bytes"] = sum(gpu.memory_bytes - gpu.memory_free for gpu in list_gpus())
    return told


def _speculates(spec: Mapping[str, Any]) -> bool:
    """Say whether a step of the engine may give several tokens at once."""
    return any(
        "speculative" in name and value not in (None, "", "none") for name, value in spec.items()
    )
