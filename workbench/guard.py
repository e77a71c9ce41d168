"""Resource guard: what a build needs against what there is, before it begins and when it fails.

What cannot work is refused at once. What is short only at this moment is told in the form, and
refused by the job when its turn on the device comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from workbench import files
from workbench.errors import JobError
from workbench.fit import BuildNeed, Fit, Part
from workbench.gpus import Gpu
from workbench.hardware import address_limit, free_disk, memory, oom_kills, swap
from workbench.journal import Journal
from workbench.model import BRING_WEIGHTS, UNREAD, WEIGHTLESS, Model
from workbench.rules import Finding
from workbench.units import format_bytes

Resource = Literal["disk", "memory", "GPU memory"]

REMEDIES: Mapping[Resource, str] = {
    "disk": "Free some space, or set WORKBENCH_HOME to a folder on a larger disk.",
    "memory": "Close other programs, or choose a smaller model.",
    "GPU memory": "End other programs on the GPU, or choose a smaller model or quantization.",
}


@dataclass(frozen=True)
class Room:
    """One resource: what a build needs of it, the bytes free now, and all that there could be."""

    resource: Resource
    part: Part
    free: int
    most: int
    where: str

    @property
    def sentence(self) -> str:
        """The least that is needed and what is there, in words."""
        low, free, most = (format_bytes(n) for n in (self.part.low, self.free, self.most))
        match self.resource:
            case "disk":
                return (
                    f"the build writes at least {low}, and only {free} are free on the disk of "
                    f"{self.where}."
                )
            case "memory":
                return (
                    f"the build needs at least {low} of memory; {free} are available, and this "
                    f"process can have no more than {most}."
                )
            case "GPU memory":
                return (
                    f"the build needs at least {low} on the GPU; {free} of {most} are free on "
                    f"{self.where}."
                )


def rooms(need: BuildNeed, gpus: Sequence[Gpu]) -> Iterator[Room]:
    """Yield what a build needs of each resource beside what this machine has of it."""
    home = files.home()
    disk = free_disk(home)
    # Nothing but the user makes room on a disk, so what is free is all that there could be.
    yield Room("disk", need.disk, disk, disk, str(home))
    total, available = memory()
    swap_total, swap_free = swap()
    limit = address_limit() or total + swap_total
    yield Room(
        "memory",
        need.memory,
        min(available + swap_free, limit),
        min(total + swap_total, limit),
        "this machine",
    )
    if need.device and (taken := gpus[: max(need.devices, need.ranks)]):
        yield _tightest(need.device, taken)


def _tightest(part: Part, gpus: Sequence[Gpu]) -> Room:
    """Return the room on the GPU that has the least; one that is too small altogether is first."""
    gpu = min(gpus, key=lambda one: (one.memory_bytes >= part.low, one.memory_free))
    where = gpu.name if len(gpus) == 1 else f"{gpu.name} (GPU {gpu.index})"
    return Room("GPU memory", part, gpu.memory_free, gpu.memory_bytes, where)


def findings(
    need: BuildNeed, fit: Fit, gpus: Sequence[Gpu], *, elsewhere: bool = False
) -> list[Finding]:
    """Compare what build and session take with what this machine has.

    Args:
        need: What the build takes.
        fit: What a session takes.
        gpus: Those that the build would see, in its order.
        elsewhere: The GPUs are of another machine, of which nothing else is known: memory and disk
            of this one then say nothing.
    """
    found = []
    for room in rooms(need, gpus):
        if elsewhere and room.resource != "GPU memory":
            continue
        remedy, source = REMEDIES[room.resource], room.part.how
        if room.most < room.part.low:
            found.append(Finding("refuse", "model", room.sentence, remedy, source=source))
        elif room.free < room.part.low:
            # Until the build begins, others may give it back.
            found.append(Finding("warn", "model", room.sentence, remedy, source=source))
        elif room.resource == "disk" and room.free < room.part.high:
            # Only here: a disk that fills up ends a build at its end, when all is paid for.
            reason = (
                f"the build may write up to {format_bytes(room.part.high)}, and "
                f"{format_bytes(room.free)} are free in {room.where}."
            )
            found.append(Finding("warn", "model", reason, remedy, source=source))
    if fit.verdict == "does not fit":
        found.append(Finding("warn", "model", "a session will not fit.", fit.summary))
    return found


def weightless(model: Model) -> list[Finding]:
    """Return the finding that a model can only be planned with, where its weights are not known."""
    if model.unread:
        return [Finding("refuse", "model", UNREAD, model.unread)]
    if model.counted_from == "configuration":
        return [Finding("refuse", "model", f"it {WEIGHTLESS}", BRING_WEIGHTS)]
    return []


def check_now(journal: Journal, need: BuildNeed, gpus: Sequence[Gpu], *, spare: int = 0) -> None:
    """Refuse a build whose turn has come where not even the least that it needs is free.

    The estimate is journalled as the fact `need`, for whoever has to explain a failure.

    Beginning all the same would take the memory that others work in, and end in a failure after
    minutes. What lies between the least and the most that a build may take is no reason: such an
    estimate is a range, and most builds get by with less.

    Args:
        journal: Of the build.
        need: What it takes.
        gpus: Those that it sees, in its order.
        spare: Bytes on the disk that are about to be freed for it.

    Raises:
        JobError: Says what is needed and what is free.
    """
    found = list(rooms(need, gpus))
    journal.fact(need={room.resource: [room.part.low, room.part.high] for room in found})
    for room in found:
        free = room.free + (spare if room.resource == "disk" else 0)
        if free < room.part.low:
            raise JobError(f"Nothing was begun: {room.sentence} {REMEDIES[room.resource]}")


SHORTAGES: Mapping[Resource, tuple[str, ...]] = {
    # First: "OutOfMemoryError" holds "MemoryError".
    "GPU memory": ("CUDA out of memory", "OutOfMemoryError", "GPU's memory", "CUDA error: out of"),
    "memory": (
        "MemoryError",
        "std::bad_alloc",
        "an't allocate memory",
        "annot allocate memory",
        "Failed to allocate",
        "Memory allocation still failed",
        "failed to map segment",
        "host's memory",
        "signal 9",
    ),
    "disk": ("disk is full", "No space left on device"),
}
"""What the words of runtimes, and our own, hold when a resource has run out.

C++'s allocator, Python, glibc ("Cannot allocate memory"; "failed to map segment" of a library),
PyTorch ("DefaultCPUAllocator: can't allocate memory", "CUDA out of memory"), OpenVINO ("Failed to
allocate"), OpenBLAS ("Memory allocation still failed")."""


def shortage(text: str) -> Resource | None:
    """Return the resource that ran out, going by the words of a failure; None for none."""
    for resource, marks in SHORTAGES.items():
        if any(mark in text for mark in marks):
            return resource
    return None


def explained(text: str, facts: Mapping[str, Any], root: Path = Path("/")) -> str:
    """Add to the last word of a failed build the numbers of what it ran out of, if of anything.

    Args:
        text: Why it failed.
        facts: Of its journal.
        root: Where /proc and /sys are.
    """
    match shortage(text):
        case None:
            return text
        case "disk":
            return f"{text} {_disk_numbers(facts)}".strip()
        case "GPU memory":
            return f"{text} {_gpu_numbers(facts)}".strip()
        case "memory":
            return " ".join(filter(None, [text, _killed(facts, root), memory_numbers(facts)]))


def last_words(facts: Mapping[str, Any]) -> str:
    """Say what the journal of a build tells whose process is gone without a last word."""
    words = ["Its process is gone without a last word:"]
    if memory_was_short(facts):
        words.append("it was killed, most likely because the host's memory ran out.")
    else:
        words.append("it was killed, perhaps for memory.")
    return " ".join(filter(None, [*words, memory_numbers(facts)]))


def memory_was_short(facts: Mapping[str, Any]) -> bool:
    """Say whether a machine had less than a twentieth of its memory left while a job ran.

    Nobody saw the job die, but where that was so, it is the likely reason.
    """
    least, total = _bytes(facts, "least_available_memory_bytes"), _bytes(facts, "host_memory_bytes")
    return least is not None and bool(total) and least < (total or 0) // 20


def memory_numbers(facts: Mapping[str, Any]) -> str:
    """Return one sentence on the memory that a build took, had and was expected to take."""
    words = []
    if (peak := _bytes(facts, "peak_memory_bytes")) is not None:
        words.append(f"it had reached {format_bytes(peak)}")
    least, total = _bytes(facts, "least_available_memory_bytes"), _bytes(facts, "host_memory_bytes")
    if least is not None and total:
        words.append(f"at the least {format_bytes(least)} of {format_bytes(total)} were available")
    if limit := _bytes(facts, "address_limit_bytes"):
        words.append(f"its address space was limited to {format_bytes(limit)} (ulimit -v)")
    return _sentence([*words, _expected(facts, "memory")])


def _gpu_numbers(facts: Mapping[str, Any]) -> str:
    words = []
    peak, total = _bytes(facts, "peak_gpu_memory_bytes"), _bytes(facts, "gpu_memory_total_bytes")
    if peak is not None and total:
        words.append(
            f"at the most {format_bytes(peak)} of the GPU's {format_bytes(total)} were seen in use"
        )
    return _sentence([*words, _expected(facts, "GPU memory")])


def _disk_numbers(facts: Mapping[str, Any]) -> str:
    words = []
    if (least := _bytes(facts, "least_disk_free_bytes")) is not None:
        words.append(f"at the least {format_bytes(least)} were seen free")
    return _sentence([*words, _expected(facts, "disk")])


def _expected(facts: Mapping[str, Any], resource: Resource) -> str:
    need = facts.get("need")
    ends = need.get(resource) if isinstance(need, Mapping) else None
    match ends:
        case [int(low), int(high)]:
            return (
                f"the estimate was {format_bytes(low)}"
                f"{f' to {format_bytes(high)}' if high > low else ''}"
            )
    return ""


def _killed(facts: Mapping[str, Any], root: Path) -> str:
    """Say that the kernel has killed for memory here since the build began, where it has."""
    before, now = _bytes(facts, "oom_kills"), oom_kills(root)
    if before is None or now is None or now <= before:
        return ""
    count = f"{now - before} process{'es' if now - before > 1 else ''}"
    return f"Since it began, the kernel has killed {count} here because memory ran out."


def _bytes(facts: Mapping[str, Any], name: str) -> int | None:
    value = facts.get(name)
    return value if isinstance(value, int) else None


def _sentence(words: Sequence[str]) -> str:
    text = ", ".join(filter(None, words))
    return f"{text[0].upper()}{text[1:]}." if text else ""
