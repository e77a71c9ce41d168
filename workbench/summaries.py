"""The facts in plain lines: what the command line prints and what panels show without a browser."""

from __future__ import annotations

import shlex
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from workbench.backends import DEFAULT, make_spec
from workbench.engine import age
from workbench.errors import WorkbenchError
from workbench.fit import BuildNeed, Fit, Part
from workbench.flags import words
from workbench.gpu_table import GIGA, TERA, GpuModel, find
from workbench.gpus import Gpu
from workbench.history import Range
from workbench.journal import ENDED, Stage, State, View
from workbench.listing import Entry, health_line, queue_line
from workbench.model import Model
from workbench.rules import Finding
from workbench.units import format_bytes, format_count, format_seconds, printable


def model_line(model: Model) -> str:
    """Return one line on what a model is."""
    derived = " (derived from config.json)" if model.counted_from == "configuration" else ""
    return printable(
        f"{model.architecture}, {format_count(model.parameters)} parameters{derived}, "
        f"{model.layers} layers, {model.heads} heads ({model.kv_heads} for keys and values) of "
        f"{model.head_size}, vocabulary {model.vocab_size:,}, context {model.context_length:,} "
        f"tokens, {format_bytes(model.weight_bytes)} of {model.dtype} weights"
    )


GATES = {
    "": "",
    "auto": "Gated: the hub gives it to those who have accepted its terms.",
    "manual": "Gated: the hub gives it to those whom its owners have let in, one by one.",
}
"""What the gate of a model on the hub means, see `hub.Gate`."""


def model_lines(model: Model) -> list[str]:
    """Return what a model is, its licence and who grants access to it, as far as that is known."""
    licence = f"Licence: {model.licence} (its model card)" if model.licence else ""
    return list(filter(None, [model_line(model), licence, GATES[model.gate]]))


def gpus_line(gpus: Sequence[Gpu]) -> str:
    """Return one line on GPUs: of the table all that it has, of this machine what NVML tells.

    Raises:
        InputError: One that is planned for is not in the table.
    """
    if gpus and gpus[0].is_planned:
        return _table_line(len(gpus), find(gpus[0].name))
    kinds = Counter((gpu.name, gpu.memory_bytes, gpu.compute_capability) for gpu in gpus)
    return "; ".join(
        f"{count} x {name}: {format_bytes(size)}, compute capability {major}.{minor}"
        for (name, size, (major, minor)), count in kinds.items()
    )


def _table_line(count: int, model: GpuModel) -> str:
    speeds = [f"{name} {speed / TERA:,.4g}" for name, speed in model.throughput.items()]
    major, minor = model.compute_capability
    return (
        f"{count} x {model.name}: {format_bytes(model.memory_bytes)} at "
        f"{model.bandwidth / GIGA:,.0f} GB/s, compute capability {major}.{minor}, 10^12 operations "
        f"a second on dense matrices in {', '.join(speeds)}. Source: {model.source}."
    )


MARKS = {"refuse": "cannot work", "warn": "note", "ignored": "no effect"}
"""What the level of a finding is called for people."""


def finding_lines(findings: Iterable[Finding]) -> list[str]:
    """Return one line a finding."""
    return [f"{MARKS[finding.level]}: {finding}" for finding in findings]


def fit_lines(fit: Fit) -> list[str]:
    """Return the parts of a memory estimate and what is left, a line each.

    Where GPUs hold different parts of the model or have not the same free, those of each follow.
    """
    lines = [_part_line(part) for part in fit.parts]
    lines.append(f"{'together':<12} {size_range(fit.total_low, fit.total_high)}")
    lines.append(fit.summary)
    unlike = len({ranks.device for ranks in fit.ranks}) > 1
    if len(fit.ranks) > 1:
        for ranks in fit.ranks:
            sizes = [f"{part.name} {size_range(part.low, part.high)}" for part in ranks.parts]
            free = format_bytes(ranks.device.memory_available)
            where = f" on {ranks.device.name}, {free} available" if unlike else ""
            lines.append(f"{ranks.title}{where}: {', '.join(sizes)}")
    return lines


def need_lines(need: BuildNeed) -> list[str]:
    """Return what a build needs of each resource, a line each."""
    parts = [need.memory, need.disk, *([need.device] if need.device else [])]
    return ["The build needs:", *(_part_line(part) for part in parts)]


def _part_line(part: Part) -> str:
    return f"{part.name:<12} {size_range(part.low, part.high)} ({part.basis})"


def size_range(low: int, high: int) -> str:
    """Return a size, or a range of sizes where it is an estimate."""
    if low == high:
        return format_bytes(low)
    return f"{format_bytes(low)} to {format_bytes(high)}"


FACTS = {
    "weights_bytes": "weights",
    "activation_bytes": "activations",
    "host_peak_bytes": "host memory at its peak",
    "gpu_peak_bytes": "GPU memory at its peak",
    "peak_memory_bytes": "memory of all its processes at the peak",
}
"""What a log told about a build, and how people call it."""

PASSING = {
    "available_memory_bytes": "memory available",
    "disk_free_bytes": "disk free",
    "gpu_memory_bytes": "GPU memory now",
    "tensorrt_phase": "TensorRT",
}
"""What is only true while a build runs."""


def fact_line(view: View, peak: Range | None = None) -> str:
    """Return one line with what is known of a build beside its stages; empty without anything.

    Args:
        view: Of the job.
        peak: What past builds took of the host's memory.
    """
    titles = FACTS if view.end else FACTS | PASSING
    words = []
    for name, title in titles.items():
        if name in view.facts:
            value = view.facts[name]
            past = f" ({peak})" if peak and name == "peak_memory_bytes" else ""
            shown = format_bytes(value) if name.endswith("_bytes") else value
            words.append(f"{title} {shown}{past}")
    return printable(" · ".join(words))


STATES: dict[State, tuple[str, str]] = {
    "starting": ("▷", "starting"),
    "waiting": ("◔", "waiting"),
    "running": ("►", "running"),
    "done": ("✓", "done"),
    "failed": ("✗", "failed"),
    "cancelled": ("■", "cancelled"),
    "killed": ("†", "killed"),
    "silent": ("?", "no sign of life"),
}
"""How the states of a job are shown: a mark, so that nobody needs colours, and words."""


def state_words(state: State) -> str:
    """Return mark and words of a state; one that we do not know is called what it calls itself."""
    return " ".join(STATES.get(state, ("?", state)))


def job_line(entry: Entry, now: float) -> str:
    """Return one line on a job: id, age, state, what was asked and what came out."""
    when = f"{age(now - entry.created)} ago"
    line = f"{entry.id}  {when:<14} {state_words(entry.state):<17} {entry.what}  {entry.outcome}"
    return printable(line.rstrip())


def state_line(view: View, left: str, now: float) -> str:
    """Return one line on the state of a job: how long, what is left, memory, last sign of life.

    Args:
        view: Of the job.
        left: The expected time left, as `remaining` says it.
        now: Seconds since 1970.
    """
    state = view.state()
    took = format_seconds(max(0.0, view.last_sign - view.created))
    if state == "done" and view.end:
        line = [f"done in {took}: engine {view.end.get('engine')}"]
    elif state == "killed":
        line = [_killed(view, took)]
    elif state in ENDED:
        line = [f"{state} after {took}"]
    else:
        line = [f"{STATES[state][1]}, {format_seconds(max(0.0, now - view.created))}", left]
        if place := queue_line(view.facts):
            line[0] = f"waiting: {place}"
        line.append(health_line(view.facts))
        if isinstance(memory := view.facts.get("memory_bytes"), int):
            line.append(f"memory {format_bytes(memory)}")
        line.append(f"last sign of life {max(0.0, view.silence()):.0f} s ago")
    return printable(" · ".join([*filter(None, line), f"job {view.path.name}"]))


def _killed(view: View, took: str) -> str:
    """Say what is known about a process that is gone without a last word."""
    if view.owner is None:
        return "killed: its process did not start"
    broken = [stage.title for stage in view.stages.values() if stage.ended is None]
    where = f" in the stage '{broken[-1]}'" if broken else ""
    return f"killed after {took}{where}: process {view.owner.pid} on {view.owner.host} is gone"


def command_line(request: Mapping[str, Any]) -> str:
    """Return the command line that asks for the same once more.

    Args:
        request: Of a job.
    """
    if "spec" not in request:
        return ""  # a sweep stands in a file of its own
    try:
        spec = make_spec(request["spec"])
    except WorkbenchError:
        return ""
    backend = [] if spec.backend == DEFAULT else ["--backend", spec.backend]
    smoke = [] if request.get("smoke", True) else ["--no-smoke"]
    return shlex.join(["workbench", "build", *backend, *words(spec), *smoke])


def stage_line(stage: Stage, ranges: Mapping[str, Range], now: float | None = None) -> str:
    """Return one line on a stage: its time, what is counted, and what past builds took."""
    words = [f"{stage.title:<26} {format_seconds(stage.seconds(now or time.time())):>8}"]
    if stage.total:
        words.append(f"{stage.done}/{stage.total} {stage.unit}")
    if stage.ended is None and stage.name in ranges:
        words.append(f"({ranges[stage.name]})")
    return printable("  ".join(words))


def remaining(
    view: View, ranges: Mapping[str, Range], order: Sequence[str], now: float | None = None
) -> str:
    """Return the expected time left as a range from past builds, or nothing without any.

    Once the last stage has taken longer than ever, only that is said.

    Args:
        view: Of the job.
        ranges: What each stage took in past builds.
        order: All stages that a build may have, in their order.
        now: Seconds since 1970.
    """
    running = [stage for stage in view.stages.values() if stage.ended is None]
    if view.end or not running or running[-1].name not in order:
        return ""
    current = running[-1]
    spent = current.seconds(now or time.time())
    ahead = [ranges[name] for name in order[order.index(current.name) :] if name in ranges]
    if not ahead:
        return ""
    if current.name in ranges:
        first = ranges[current.name]
        ahead[0] = replace(
            first, low=max(0.0, first.low - spent), high=max(0.0, first.high - spent)
        )
    low, high = sum(r.low for r in ahead), sum(r.high for r in ahead)
    builds = min(r.builds for r in ahead)
    plural = "s" if builds > 1 else ""
    if high == 0.0:
        return f"longer than in {builds} build{plural} like this{ahead[0].note}"
    return (
        f"about {low:.0f} to {high:.0f} s left, from {builds} build{plural} like this"
        f"{ahead[0].note}"
    )


def timing_line(record: Mapping[str, Any]) -> str:
    """Return one line on how fast a generation was."""
    words = [_counted(record)]
    if record["ttft"] is not None:
        words.append(f"TTFT {milliseconds(record['ttft'])}")
    if record["itl"]:
        itl = record["itl"]
        words.append(
            f"ITL p50 {milliseconds(itl['p50'])}, p90 {milliseconds(itl['p90'])}, "
            f"p99 {milliseconds(itl['p99'])}"
        )
    if record["tokens_per_second"]:
        words.append(f"{record['tokens_per_second']:.1f} tokens/s")
    return "   ".join(words)


def _counted(record: Mapping[str, Any]) -> str:
    """Say how much was generated; of a server, in how many chunks it came."""
    tokens = record["output_tokens"]
    if record.get("stamped", "token") == "token":
        return f"{tokens} tokens"
    chunks = f"{record['chunks']} chunks"
    return f"{chunks}, tokens not told" if tokens is None else f"{tokens} tokens in {chunks}"


def milliseconds(seconds: float) -> str:
    """Return a time in milliseconds with three digits that count."""
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds * 1000:.0f} ms"
