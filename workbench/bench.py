"""One trial, from the spec to the record: build if needed, load, warm up, measure, check, write."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import psutil

from workbench import results
from workbench.backends import get_backend, make_spec
from workbench.backends.base import ranks
from workbench.build import Build, cancel, engine_of, start_build, successor
from workbench.deadline import kill_children_at
from workbench.devices import gpus_of_engine
from workbench.engine import Engine
from workbench.errors import SpecError, WorkbenchError
from workbench.freshness import ANY, Demand, Here
from workbench.gpus import list_gpus
from workbench.heartbeat import descendants, sizes_of
from workbench.jobs import Job
from workbench.journal import WAIT, View
from workbench.measuring import Report, complete, measure, say_nothing
from workbench.opening import open_engine
from workbench.predictions import predicted
from workbench.processes import MARK
from workbench.quality import Quality
from workbench.queues import Place, Slot, turn
from workbench.recipe import slots
from workbench.references import Comparison, vocabulary_of_engine
from workbench.session import Session
from workbench.silence import SILENCE_LIMIT, BuildSigns, ended_when_silent
from workbench.spec import BuildSpec
from workbench.surroundings import doubts, surroundings
from workbench.trial import Trial, new_record, point_of
from workbench.workload import Workload


def run_trial(
    spec: BuildSpec | Mapping[str, Any],
    workload: Workload | Mapping[str, Any] | None = None,
    quality: Quality | Mapping[str, Any] | None = None,
    *,
    time_limit: float | None = None,
    silence_limit: float | None = SILENCE_LIMIT,
    again: bool = True,
    demand: Demand = ANY,
    report: Report = say_nothing,
) -> Trial:
    """Measure a workload on the engine of a spec, which is built if it is not there.

    Whatever comes out is in the store before this returns, also a failure. While it measures, it
    has the device to itself as a build has: others wait in the queue.

    Args:
        spec: What to measure; plain values are made into a spec first.
        workload: How; plain values are made into a workload first.
        quality: What its answers are compared with, if with anything; a reference is built too.
        time_limit: Seconds that building may take, and measuring again as many; waiting for the
            device counts for neither.
        silence_limit: Seconds without a sign of life, see `workbench.silence`, after which it is
            given up; None waits for ever.
        again: Measure also what was measured before. Without it that trial is returned where it
            still stands (see `workbench.freshness`), also one that another process writes while
            this one waits for the device.
        demand: Without `again`: which of the trials that stand are returned.
        report: Told what goes on.

    Raises:
        SpecError: A value is unknown or ill-typed.
        InputError: The file of prompts is not there.
        OSError: The record cannot be written.
    """
    spec = spec if isinstance(spec, BuildSpec) else make_spec(spec)
    workload = workload if isinstance(workload, Workload) else Workload.parse(workload or {})
    quality = quality if isinstance(quality, Quality) else Quality.parse(quality or {})
    point = point_of(spec, workload, quality)
    record = new_record(point, spec.model_dump(mode="json"), workload.model_dump(mode="json"))
    record["quality_asked"] = quality.model_dump(mode="json", exclude_defaults=True)

    here = Here()

    def known() -> Trial | None:
        return None if again else here.standing(point, spec, quality, demand).trial

    try:
        if trial := known():
            return trial
        check_lengths(spec, workload)
        limits = _Limits(time_limit, silence_limit)
        subject = _Subject(
            _engine(spec, record, limits, report),
            workload,
            quality,
            _reference(spec, quality, limits, report),
        )
        with _device(spec, point, report):
            if trial := known():
                return trial
            # While it has the device: a prediction computes, which would falsify others' figures.
            record["predicted"] = predicted(spec, workload)
            _measure_in_time(subject, record, limits, report)
            return results.save(record)
    except (WorkbenchError, TimeoutError) as error:
        if trial := known():
            return trial
        record |= {"status": "failed", "reasons": [str(error)]}
        record["environment"] = record["environment"] or here.circumstances(spec)
        return results.save(record)


class _Limits(NamedTuple):
    """When work is given up: what it may take, and how long it may be silent, in seconds."""

    time: float | None
    silence: float | None


def check_lengths(spec: BuildSpec, workload: Workload) -> None:
    """Refuse a workload that a spec has no room for, before anything is built.

    Raises:
        SpecError: Names the limit.
    """
    if workload.prompts:
        return  # nobody knows their lengths before they are encoded
    longest = workload.longest()
    needs = {
        "max_input_len": longest.input,
        "max_output_len": longest.output,
        "max_seq_len": longest.both,
    }
    for name, needed in needs.items():
        limit = getattr(spec, name, None)
        if limit is not None and needed > limit:
            raise SpecError(
                f"This workload needs {name} {needed}, and the engine has {limit}. Shorten "
                f"input_len or output_len, or build with a larger {name}."
            )


def _engine(spec: BuildSpec, record: dict[str, Any], limits: _Limits, report: Report) -> Engine:
    """Return the engine of a spec; built, within the limits, where it is not there."""
    build = start_build(spec)
    if build.job:
        report("build the engine")
    engine = _await_engine(build, limits)
    stages = engine.manifest["build"]["stages"]
    record["engine"] = {
        "key": engine.key,
        "weights": engine.manifest["identity"]["weights"],
        "bytes": engine.bytes,
        "build_seconds": sum(stage["seconds"] for stage in stages),
        "reused": build.job is None,
    }
    record["devices"] = ranks(spec)
    return engine


def _await_engine(build: Build, limits: _Limits) -> Engine:
    """Wait for an engine as `Build.wait` does.

    Raises:
        TimeoutError: Building took too long, or nothing was heard of it; a build that was started
            for this is cancelled.
        JobError: The build failed.
    """
    if build.job is None:
        return build.wait()
    job = build.job
    mine = not build.explanation  # nobody else had asked for it before
    try:
        view = _follow(job, limits)
        if after := successor(job, view):
            job, view = after, _follow(after, limits)
    except TimeoutError:
        if mine:
            cancel(job)
        raise
    except KeyboardInterrupt:
        # A sweep that is cancelled takes its build along; a person who stops waiting does not.
        if mine and MARK in os.environ:
            cancel(job)
        raise
    return engine_of(job, view, build.spec)


def _follow(job: Job, limits: _Limits) -> View:
    """Return the view of a job at its end.

    Raises:
        TimeoutError: It has worked, or was silent, for longer than the limits.
    """
    view = job.view()
    signs = BuildSigns(job, limits.silence) if limits.silence else None
    for view in job.follow(interval=0.2):
        now = time.time()
        stages = (stage for stage in view.stages.values() if stage.name != WAIT)
        if limits.time and sum(stage.seconds(now) for stage in stages) > limits.time:
            raise TimeoutError(
                f"The time limit of {limits.time:g} s was over, and the build {job.id} had not "
                f"ended; it was in the stage '{list(view.stages)[-1]}'."
            )
        if signs and view.end is None:
            signs.check(view)
    return view


@contextlib.contextmanager
def _device(spec: BuildSpec, point: str, report: Report) -> Iterator[None]:
    """Keep the devices of a trial, once it is its turn: nothing of ours computes beside it."""

    def tell(slot: Slot, place: Place) -> None:
        report(f"wait for {slot.title}, place {place.number}")

    with contextlib.ExitStack() as turns:
        for slot in sorted(slots(get_backend(spec.backend), spec), key=lambda slot: slot.name):
            turns.enter_context(turn(slot, f"trial-{point}", functools.partial(tell, slot)))
        yield


def _reference(spec: BuildSpec, quality: Quality, limits: _Limits, report: Report) -> Engine | None:
    """Return the reference engine, built where it is not there; None where none is wanted."""
    if quality.reference is None:
        return None
    build = start_build(quality.reference_of(spec))
    if build.job:
        report("build the reference engine")
    return _await_engine(build, limits)


@dataclass(frozen=True)
class _Subject:
    """What is measured, how, and what its answers are compared with."""

    engine: Engine
    workload: Workload
    quality: Quality
    reference: Engine | None


def _measure_in_time(
    subject: _Subject, record: dict[str, Any], limits: _Limits, report: Report
) -> None:
    """Measure an engine, at most as long as the limits say.

    Raises:
        TimeoutError: A limit was over.
    """
    started = time.monotonic()
    deadline = None if limits.time is None else started + limits.time
    try:
        with kill_children_at(deadline):
            _measure_engine(subject, record, deadline, limits.silence, report)
    except (WorkbenchError, TimeoutError) as error:
        if deadline is None or time.monotonic() < deadline:
            raise
        raise TimeoutError(f"The time limit of {limits.time:g} s was over. {error}") from error
    finally:
        record["seconds"] = time.monotonic() - started


def _measure_engine(
    subject: _Subject,
    record: dict[str, Any],
    deadline: float | None,
    silence: float | None,
    report: Report,
) -> None:
    """Load an engine, measure it, and complete its record."""
    engine, workload = subject.engine, subject.workload
    comparison = None
    if subject.quality.wanted:
        report("ask the reference")
        with ended_when_silent(silence, "The reference"):
            comparison = Comparison.prepare(engine, subject.quality, subject.reference)
    gpus = gpus_of_engine(engine)
    versions = engine.manifest["identity"]["toolchain"]
    record["environment"] = environment = surroundings(versions, gpus)
    record["warnings"] += doubts(record["environment"])
    report("load the engine")
    with ended_when_silent(silence, "Loading the engine"):
        opened = open_engine(engine)
    with opened as session:
        record["engine"]["load_seconds"] = session.facts["seconds"]
        if session.facts.get("device") == "cpu":  # torch may see none of the GPUs that are there
            gpus, environment["device"] = (), environment["processor"]
        vocabulary = vocabulary_of_engine(engine)
        measured = measure(
            session, workload, vocabulary, deadline=deadline, silence=silence, report=report
        )
        record["memory"] = _memory(session, len(gpus))
        if comparison:
            report("compare the answers")
            with ended_when_silent(silence, "The engine", session.pid):
                record["quality"] = comparison.measure(session)
    complete(record, workload, measured, several_at_once=_speculates(record["spec"]))


def _memory(session: Session, gpus: int) -> dict[str, int]:
    """Return the most memory that the processes of a session had, and what is taken of its GPUs.

    The latter counts what others have there too: NVML tells no more.
    """
    told = {}
    with contextlib.suppress(psutil.NoSuchProcess):  # then the requests say what happened
        tree = descendants(session.pid)
        told["host_peak_bytes"] = sum(peak for _, peak in map(sizes_of, tree))
    if gpus:
        told["gpu_bytes"] = sum(gpu.memory_bytes - gpu.memory_free for gpu in list_gpus()[:gpus])
    return told


def _speculates(spec: Mapping[str, Any]) -> bool:
    """Say whether a step of the engine may give several tokens at once."""
    return any(
        "speculative" in name and value not in (None, "", "none") for name, value in spec.items()
    )
