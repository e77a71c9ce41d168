"""The log of TensorRT-LLM as stages, counts, facts and the reason of a failure.

TensorRT-LLM has no hook for progress, so that its log is what there is. No line of it is relied
on: each may be missing, repeated, cut, mixed with those of other processes, or worded in another
way. A stage begins at the first line that belongs to it; a line that says nothing is passed over.
"""

from __future__ import annotations

import re
import threading
from typing import Any

from workbench.backends.trtllm_failures import HOST_MEMORY, SIGNALS, Evidence, signal_of
from workbench.backends.trtllm_lines import (
    BARS,
    MEASURES,
    NOISE,
    SIGNS,
    STAGES,
    STEPS,
    Measure,
    logged,
    records,
)
from workbench.units import format_bytes

__all__ = ["STAGES", "LogTracker"]

Event = dict[str, Any]

NOTES = 20
"""Notes that one step may give."""

_MEASURES = tuple((measure.mark, measure) for measure in MEASURES)
_EXCEPTION = re.compile(r"(?:[A-Za-z_]\w{0,60}\.){0,8}[A-Z]\w{0,60}(?:Error|Exception)(?::|$)")
_BAR = re.compile(r"\| *(\d{1,9})/(\d{1,9}) ", re.ASCII)
_BATCH = re.compile(r"Calibrating batch (\d{1,9})", re.ASCII)
_RANK = re.compile(r"current rank: (\d{1,6})", re.ASCII)
_DTYPE = re.compile(r"Set (?:PluginConfig\.)?dtype to ")
_DIGITS = re.compile(r"\d+")
_UNSAID = "Engine building failed"


class LogTracker:
    """Reads the log of one step, line by line.

    Several threads may use it: one reads what the process prints, another what it reports.

    Args:
        step: "convert" or "build".
        ranks: Engines or checkpoint shards to make.
        workers: Processes that build at the same time; with one, each rank after the first has
            stages of its own, "compile.1".
        batches: Batches of a calibration that numbers them without saying how many.
    """

    def __init__(
        self, step: str, ranks: int = 1, workers: int = 1, batches: int | None = None
    ) -> None:
        self.step = step
        self.ranks = ranks
        self.batches = batches
        self._order = STEPS[step]
        self._signs = SIGNS[step]
        self._serial = workers <= 1
        self._stage = -1
        self._rank = 0
        self._written = 0
        self._flags = False
        self._counts: dict[str, int] = {}
        self._facts: dict[str, float | str] = {}
        self._notes: set[str] = set()
        self._evidence = Evidence()
        self._killed = False
        self._unbuilt = False
        self._error = ""
        self._exception = ""
        self._lock = threading.Lock()

    def reached(self, stage: str) -> None:
        """Take note of a stage that the worker itself has reported, so that it is not repeated."""
        if stage in self._order:
            with self._lock:
                self._stage = max(self._stage, self._order.index(stage))

    def feed(self, line: str) -> list[Event]:
        """Return what a line says, as events of the journal; never raises.

        Events: `stage` and `count` as a worker sends them; `fact` with `name` and `bytes`,
        `seconds` or `text`; `note` with `text`, a warning of the library.
        """
        with self._lock:
            return [event for record in records(line) for event in self._read(record)]

    def failure(self, status: int | None) -> str:
        """Say why the process ended badly and what to do; "" where nothing is known.

        Args:
            status: Its exit status, negative for a signal; None where it is not known.
        """
        with self._lock:
            return self._explain(status)

    def _read(self, record: str) -> list[Event]:
        events = self._staged(record) + self._counted(record) + self._measured(record)
        # What is only told, or traced, is neither a warning nor a failure.
        if "] [I] " not in record and "] [V] " not in record:
            events += self._noted(record)
            self._evidence.take(record)
            self._remember(record)
        return events

    def _explain(self, status: int | None) -> str:
        signal = signal_of(status)
        known = self._evidence.sentence()
        # Whatever a process wrote before it was killed, it had survived.
        if signal == 9 or (self._killed and not known):
            return self._killed_sentence()
        if known:
            return known
        # Where no engine was built, the exception only says that there is none.
        said = self._error if self._unbuilt else self._exception or self._error
        if said:
            return f"TensorRT-LLM stopped with: {said.rstrip('. ')}. The log has the details."
        if signal in SIGNALS:
            what, remedy = SIGNALS[signal]
            return f"{what}. {remedy}"
        return "TensorRT built no engine and logged no error." if self._unbuilt else ""

    # Stages

    def _staged(self, line: str) -> list[Event]:
        base = ""
        for mark, stage in self._signs:
            if mark in line:
                base = stage
                break
        if self.step == "convert":
            return self._enter(base) if base else []
        base = self._look_back(line, base)
        events = self._enter(base) if base else []
        return events + self._engine_written() if "Engine serialized" in line else events

    def _look_back(self, line: str, base: str) -> str:
        """Tell apart what only the lines before can: the end of the flags, and of TensorRT."""
        if "Total time of building " in line and "all engines" not in line:
            return "write"
        if "[I] Set " in line:
            # The flags are set first; the dtype once the checkpoint has been read.
            if self._flags and _DTYPE.search(line):
                return "network"
            self._flags = True
            # Some are set again at any time.
            return "" if self._at_the_end() else base
        return base

    def _enter(self, base: str) -> list[Event]:
        """Begin a stage if it is ahead of the present one, or the first of the next rank."""
        place = self._order.index(base)
        if place <= self._stage:
            if not (self.step == "build" and self._serial and self._at_the_end()):
                return []
            if place == self._stage or self._rank + 1 >= self.ranks:
                return []
            self._rank += 1
        self._stage = place
        return [{"event": "stage", "name": self._name(base)}]

    def _at_the_end(self) -> bool:
        return self._stage == len(self._order) - 1

    def _name(self, base: str) -> str:
        return f"{base}.{self._rank}" if self._rank else base

    def _engine_written(self) -> list[Event]:
        before = self._written
        self._written = self._rank + 1 if self._serial else min(before + 1, self.ranks)
        if self._written == before or self.ranks == 1:
            return []
        events = [_count(self._name("write"), self._written, self.ranks, "ranks")]
        # The next checkpoint is read without a word.
        return events + self._enter("read") if self._serial else events

    # Counts, facts, notes

    def _counted(self, line: str) -> list[Event]:
        if self.step != "convert":
            return []
        if "%|" in line:
            bar = _BAR.search(line)
            for mark, stage, unit in BARS if bar else ():
                if bar and mark in line:
                    return self._progress(stage, int(bar[1]), int(bar[2]), unit)
        elif self.batches and (batch := _BATCH.search(line)):
            return self._progress("calibrate", int(batch[1]) + 1, self.batches, "batches")
        elif self.ranks > 1 and (rank := _RANK.search(line)):
            return self._progress("export", int(rank[1]), self.ranks, "ranks")
        return []

    def _progress(self, stage: str, done: int, total: int, unit: str) -> list[Event]:
        """Count in the present stage, and only upwards: some calibrations go round again."""
        here = self._stage >= 0 and self._order[self._stage] == stage
        if not here or not self._counts.get(stage, 0) < done <= total:
            return []
        self._counts[stage] = done
        return [_count(stage, done, total, unit)]

    def _measured(self, line: str) -> list[Event]:
        events: list[Event] = []
        for mark, measure in _MEASURES:
            if mark in line:
                match = measure.pattern.search(line)
                if match:
                    events += self._fact(measure, match[1])
        if self._serial and "Engine generation completed" in line:
            self._evidence.passed()
        return events

    def _fact(self, measure: Measure, text: str) -> list[Event]:
        """Return a fact that is new, or larger than it was on the ranks before."""
        value: float | str = text
        known = self._facts.get(measure.name)
        if measure.unit != "text":
            value = _clock(text) if ":" in text else float(text) * measure.scale
            value = round(value) if measure.unit == "bytes" else value
            if isinstance(known, float | int) and value <= known:
                return []
        elif known == text:
            return []
        self._facts[measure.name] = value
        return [{"event": "fact", "name": measure.name, measure.unit: value}]

    def _noted(self, line: str) -> list[Event]:
        if "[W" not in line or len(self._notes) >= NOTES or any(n in line for n in NOISE):
            return []
        entry = logged(line)
        if entry is None or entry[1] != "W" or not entry[2]:
            return []
        text = f"{entry[0]}: {entry[2]}"[:300]
        key = _DIGITS.sub("0", text)
        if key in self._notes:
            return []
        self._notes.add(key)
        return [{"event": "note", "text": text}]

    # Failures

    def _remember(self, line: str) -> None:
        if _UNSAID in line:
            self._unbuilt = True
        elif ("[E" in line or "[F" in line) and (entry := logged(line)):
            # TensorRT also writes the number of an error without a word.
            if entry[1] in "EF" and len(entry[2]) > 8:
                self._error = entry[2][:500]
        elif ("Error" in line or "Exception" in line) and _EXCEPTION.match(line):
            self._exception = line.strip()[:500]
        elif "Killed" in line and (line.strip() == "Killed" or "signal 9 (Killed)" in line):
            self._killed = True

    def _killed_sentence(self) -> str:
        peak = self._facts.get("host_peak_bytes")
        reached = f" (it had reached {format_bytes(peak)})" if isinstance(peak, float | int) else ""
        return (
            "The system killed the process, most likely because the host's memory ran out"
            f"{reached}. {HOST_MEMORY}"
        )


def _count(name: str, done: int, total: int, unit: str) -> Event:
    return {"event": "count", "name": name, "done": done, "total": total, "unit": unit}


def _clock(text: str) -> float:
    """Return the seconds of "00:01:47"."""
    hours, minutes, seconds = text.split(":")
    return float(int(hours) * 3600 + int(minutes) * 60 + int(seconds))
