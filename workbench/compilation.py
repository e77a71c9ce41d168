"""Compilation: the steps of a backend, each in a worker, with what they report and print."""

from __future__ import annotations

import codecs
import errno
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench import files
from workbench.backends.base import Backend, Tracker
from workbench.errors import JobError
from workbench.guard import REMEDIES, shortage
from workbench.hardware import free_disk
from workbench.journal import Journal
from workbench.process import Worker, describe_exit, no_message
from workbench.toolchain import Toolchain


@dataclass(frozen=True)
class Compilation:
    """How a model becomes an engine: `run` does all steps and returns what they said at their end.

    `disk` are the least bytes that this writes.
    """

    backend: Backend
    toolchain: Toolchain
    journal: Journal
    disk: int

    def run(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """Run the steps one after the other.

        Args:
            order: What each worker is told; see the adapters.

        Returns:
            What the steps reported at their end: "facts" on the engine and "limits" that hold for
            it, each possibly empty.

        Raises:
            JobError: A step refused, failed or died; with the reason in one sentence.
            ToolchainError: A worker does not start, or sends what is no message.
            OSError: The disk is full.
        """
        result: dict[str, Any] = {"facts": {}, "limits": {}}
        for step in self.backend.steps:
            said = self._run_step(step, order)
            for name, values in result.items():
                values.update(said.get(name, {}))
        return result

    def _run_step(self, step: str, order: Mapping[str, Any]) -> dict[str, Any]:
        tracker = self.backend.tracker(step, order) if self.backend.tracker else None
        printed = Printed(self, tracker) if tracker else None
        # Descriptor 1 is the job's log.
        log = printed.entrance if printed else 1
        mounts = [Path(order["model"]), *map(Path, order["reads"])]
        # Texts for a calibration come from the hub.
        online = step in order.get("online", ())
        worker = Worker(self.toolchain, step, log, mounts, online=online)
        if printed:
            printed.start()
        last: dict[str, Any] = {}
        try:
            worker.send(**order)
            for message in worker.messages():
                try:
                    if tracker and message["event"] == "stage":
                        # Before it is journalled: a line that is read meanwhile would tell it
                        # again.
                        tracker.reached(message["name"])
                    self.take(message)
                except (KeyError, TypeError) as error:
                    raise no_message(message) from error
                if message["event"] in ("done", "error"):
                    last = message
        except BaseException:
            # Cancelled: whatever it does now is for nobody.
            worker.kill()
            raise
        finally:
            status = worker.close(patience=60.0)
            if printed:
                printed.finish()
        if printed and printed.error:
            raise printed.error
        if last.get("event") != "done":
            raise self._failure(last, status, tracker.failure(status) if tracker else "")
        return last

    def take(self, event: Mapping[str, Any]) -> None:
        """Journal one event of a worker or of its log."""
        match event["event"]:
            case "stage":
                self.journal.stage(event["name"], self._title(event["name"]))
            case "count":
                self.journal.count(event["name"], event["done"], event["total"], event["unit"])
            case "fact":
                self.journal.fact(**_values(event))
            case "note":
                self.journal.note(event["text"])

    def _title(self, name: str) -> str:
        """Return a stage's title; write.1 is the stage `write` of the second rank."""
        base, _, rank = name.partition(".")
        title = self.backend.stages.get(base, base)
        return f"{title}, rank {rank}" if rank else title

    def _failure(self, last: Mapping[str, Any], status: int, sentence: str) -> Exception:
        """Return the error that the end of a step stands for.

        What the worker refused with is a sentence, unless it passes on that an allocation failed;
        else what the log tells, else the exception.
        """
        text = str(last.get("message", "")) or self._last_print(status)
        ran_out = shortage(text) == "memory"
        if last.get("expected") and not ran_out:
            return JobError(text)
        # C++ streams only say that they could not write.
        unwritten = "iostream error" in text and free_disk(files.home()) < self.disk
        if unwritten or "No space left" in text:
            return OSError(errno.ENOSPC, "No space left on device")
        if sentence:
            return JobError(sentence)
        if ran_out:
            return JobError(
                f"The host's memory ran out in the toolchain: {text[:300].rstrip('.: ')}. "
                f"{REMEDIES['memory']}"
            )
        if text:
            return JobError(f"The build failed in the toolchain: {text}. The log has the details.")
        return JobError(f"The build's worker {describe_exit(status)}. The log has the details.")

    def _last_print(self, status: int) -> str:
        """Return the line in which a library told that it got no memory, where it ended for it.

        C++ aborts with one, and OpenBLAS exits; neither leaves Python the time for a message.
        """
        log = self.journal.path / "log.txt"
        if status == 0 or not log.is_file():
            return ""
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").splitlines()
        return next((line for line in reversed(lines) if shortage(line) == "memory"), "")


def _values(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the named values of a fact; one from a log has one, with its unit."""
    if "values" in event:
        return dict(event["values"])
    unit = next(unit for unit in ("bytes", "seconds", "text") if unit in event)
    return {event["name"]: event[unit]}


class Printed:
    """What a step prints: kept in the job's log, and read line by line."""

    def __init__(self, compilation: Compilation, tracker: Tracker) -> None:
        self._compilation = compilation
        self._tracker = tracker
        self._exit, self.entrance = os.pipe()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._rest = ""
        self.error: OSError | None = None

    def start(self) -> None:
        """Begin to read; the worker has its own end by now."""
        os.close(self.entrance)
        self._thread.start()

    def finish(self) -> None:
        """Wait for the last line; whoever still holds the other end is not waited for long."""
        self._thread.join(5.0)

    def _read(self) -> None:
        """Read to the end whatever happens: a step whose output nobody takes would stand still."""
        try:
            while data := os.read(self._exit, 1 << 16):
                self._try(data)
            self._try(b"", last=True)
        finally:
            os.close(self._exit)

    def _try(self, data: bytes, *, last: bool = False) -> None:
        """Keep and read a piece; the first thing that the system refuses is remembered."""
        try:
            if data:
                os.write(1, data)
            self._feed(data, last=last)
        except OSError as error:
            self.error = self.error or error

    def _feed(self, data: bytes, *, last: bool) -> None:
        # A progress bar ends its lines with \r.
        text = self._rest + self._decoder.decode(data, final=last)
        *lines, self._rest = text.replace("\r", "\n").split("\n")
        for line in [*lines, self._rest] if last else lines:
            for event in self._tracker.feed(line):
                self._compilation.take(event)
