"""The other samples of a prompt, each in a view of its own below the one that is the answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ipywidgets as widgets

from workbench.generation import Delta, Generation
from workbench.many import Batch, requests
from workbench.opened import Opened, Prompt
from workbench.sampling import Sampling
from workbench.widgets.live import facts, follow
from workbench.widgets.tokens import TokenView


@dataclass
class Sample:
    """One generation, and what came of it; whole when it has ended."""

    generation: Generation
    came: list[Delta] = field(default_factory=list)
    record: dict[str, Any] = field(default_factory=dict)

    def replay(self, view: TokenView, limits: Mapping[str, Any]) -> None:
        """Show it, when it has ended, in another view."""
        view.reset(self.title)
        for delta in self.came:
            view.append(delta.text, [min(0.0, value) for value in delta.logprobs])
        phase: Any = self.generation.phase
        view.finish(phase, **facts(self.generation, limits))

    @property
    def title(self) -> str:
        """What its view is headed with."""
        return f"seed {self.generation.sampling.seed}"

    @property
    def failed(self) -> bool:
        """Whether it is a fragment at best, and no answer."""
        return self.generation.error is not None


class Samples(widgets.VBox):  # type: ignore[misc]
    """Runs and shows the samples beside the answer, at once with it; empty without any."""

    def __init__(self, take: Callable[[int], None], failed: Callable[[str], None]) -> None:
        """Show nothing yet.

        Args:
            take: Called with the number of a sample, from 0, that shall be the answer.
            failed: Called with the sentence of an error.
        """
        self._take, self._failed = take, failed
        self._rows: list[tuple[TokenView, widgets.Button]] = []
        self._threads: list[threading.Thread] = []
        self._limits: Mapping[str, Any] = {}
        self.samples: list[Sample] = []
        super().__init__([])

    def start(self, session: Opened, prompt: Prompt, first: Sampling, count: int) -> None:
        """Start `count` samples with the seeds that follow the one of the answer.

        They run in the same batch as the answer; what finds no place there waits in the queue.

        Args:
            session: What the answer comes from.
            prompt: What was asked.
            first: Options of the answer, with its seed.
            count: Samples beside the answer; 0 shows none.

        Raises:
            WorkbenchError: One of them is refused; then none of them runs, and those of the
                prompt before stay.
        """
        if not count:
            self.clear()
            return
        batch = Batch.start(session, requests([prompt], first, count + 1)[1:])
        self._limits = session.limits
        self.samples = [Sample(generation) for generation in batch.generations]
        self._show_rows(count)
        self._threads = [
            threading.Thread(target=self._follow, args=(sample, *row), daemon=True)
            for sample, row in zip(self.samples, self._rows, strict=False)
        ]
        for thread in self._threads:
            thread.start()

    def clear(self) -> None:
        """Show no samples."""
        self.samples = []
        self._show([])

    def cancel(self) -> None:
        """Stop all of them; what they gave so far is kept."""
        for sample in self.samples:
            sample.generation.cancel()

    def wait(self) -> Sequence[Sample]:
        """Return all of them when they have ended, however they did."""
        for thread in self._threads:
            thread.join()
        return self.samples

    def swap(self, number: int, answer: Sample) -> Sample:
        """Put the answer in the place of a sample; return that one."""
        taken, self.samples[number] = self.samples[number], answer
        view, button = self._rows[number]
        answer.replay(view, self._limits)
        button.disabled = answer.failed
        return taken

    def _follow(self, sample: Sample, view: TokenView, button: widgets.Button) -> None:
        """Show one sample until its end (runs in a thread)."""
        sample.came = follow(sample.generation, view, self._limits, self._failed)
        sample.record = sample.generation.record()
        button.disabled = sample.failed

    def _show_rows(self, count: int) -> None:
        """Show a view and a button for each sample; those that were made before are used again."""
        while len(self._rows) < count:
            self._rows.append(self._row(len(self._rows)))
        for sample, (view, button) in zip(self.samples, self._rows, strict=False):
            view.reset(sample.title)
            button.disabled = True
        self._show([widgets.VBox(row) for row in self._rows[:count]])

    def _show(self, rows: list[widgets.Widget]) -> None:
        self.children = rows

    def _row(self, number: int) -> tuple[TokenView, widgets.Button]:
        button = widgets.Button(
            description="Take this one",
            tooltip=f"Make sample {number + 2} the answer, which the conversation goes on from",
        )
        button.on_click(lambda _: self._take(number))
        return TokenView(heat=True), button
