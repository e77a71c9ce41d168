"""Measuring: a workload is sent to something that generates, and a record is completed with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from workbench.checks import violations
from workbench.load import Load, Target
from workbench.measurement import summarize
from workbench.prompts import Request, is_ids, make_requests, read_prompts
from workbench.sampling import Sampling
from workbench.surroundings import Watch
from workbench.units import format_seconds
from workbench.workload import WARMUP, Workload

Report = Callable[[str], None]
"""Is told what a trial does now, in a few words."""

Spell = Callable[[Sequence[int]], str]
"""Returns a text of token ids."""


def say_nothing(_: str) -> None:
    """Tell nobody."""


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
    silence: float | None = None,
    salt: str = "",
    spell: Spell | None = None,
    report: Report = say_nothing,
) -> Measured:
    """Send a workload to something that generates: its warm-up, then each repetition.

    Args:
        target: A session, or what has its `generate`.
        workload: What to send, and when.
        vocabulary: Ids that prompts are made of; not needed with a file of prompts.
        deadline: On the monotonic clock.
        silence: Seconds in which at least one token must come.
        salt: Makes other prompts of the same lengths, see `Workload.draws`.
        spell: Turns prompts of token ids into text, for what takes no ids.
        report: Told which repetition runs.

    Raises:
        InputError: There are no prompts and no vocabulary.
        TimeoutError: The deadline has passed, or no token came for too long.
    """
    sampling = Sampling(ignore_eos=workload.ignore_eos, seed=workload.seed % 2**31)

    def run(repetition: int, schedule: Sequence[float] | None) -> list[dict[str, Any]]:
        requests = make_requests(workload, repetition, vocabulary, salt)
        if spell:
            requests = [_spelled(request, spell) for request in requests]
        concurrency = workload.concurrency
        load = Load(target, requests, sampling, concurrency, schedule, deadline, silence)
        return load.run()

    if workload.warmup:
        report("warm up")
        run(WARMUP, None)
    found, watch = Measured(), Watch()
    for repetition in range(workload.repetitions):
        report(f"measure, repetition {repetition + 1} of {workload.repetitions}")
        found.repetitions.append(run(repetition, workload.schedule(repetition)))
    found.busy = watch.share()
    return found


def _spelled(request: Request, spell: Spell) -> Request:
    prompt: Any = request.prompt
    return replace(request, prompt=spell(prompt)) if is_ids(prompt) else request


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
    record["warnings"] += late(workload, summary) + repeated(workload)
    record |= {"status": "invalid" if reasons else "done", "reasons": reasons}


def repeated(workload: Workload) -> list[str]:
    """Say so where a file has fewer prompts than are sent."""
    if not workload.prompts:
        return []
    known = len(read_prompts(Path(workload.prompts)))
    sent = workload.warmup + workload.requests * workload.repetitions
    if known >= sent:
        return []
    words = (
        f"The file has {known} prompts, and {sent} were sent: repeated ones may have been answered "
        "from a cache of prefixes."
    )
    return [words]


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
