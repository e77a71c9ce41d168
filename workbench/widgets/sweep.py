"""The sweep panel: what a sweep would take, its start, its progress point by point, its trials."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from workbench import jobs, results
from workbench.candidates import labels
from workbench.errors import JobError, TrialError
from workbench.freshness import Demand
from workbench.jobs import Job
from workbench.journal import ENDED, View
from workbench.notebook import headless
from workbench.sweep import Point, Sweep
from workbench.sweep_job import start_sweep
from workbench.sweep_plan import SweepPlan
from workbench.trial import Trial
from workbench.trial_words import trial_lines
from workbench.units import format_seconds, printable
from workbench.widgets.lists import ListPanel, Row, contains, hidden
from workbench.widgets.progress import Progress

COLUMNS = (("point", ""), ("state", ""), ("tokens/s", "number"), ("TTFT p50", "number"),
           ("what", "wide"), ("outcome", "wide"))  # fmt: skip

MARKS = {"done": "✓ done", "invalid": "! invalid", "failed": "✗ failed", "running": "► running",
         "left": "· left", "stale": "≠ stale"}  # fmt: skip

UNMEASURED = {MARKS[name] for name in ("running", "left", "stale")}


class SweepPanel(ListPanel):
    """Plans a sweep, starts it or attaches to it, and shows what it has found so far.

    The sweep runs as a job: nothing that happens to this panel, its kernel or the browser stops
    it. All that is shown comes from the store: running the cell again shows the same.
    """

    WHAT = "points"

    def __init__(
        self,
        sweep: Sweep | Mapping[str, Any] | str | Path,
        *,
        start: bool = False,
        retry_failed: bool = False,
        again: bool = False,
        scheduler: str = "",
        text: str = "",
        show: int = 50,
    ) -> None:
        """Show the panel.

        Args:
            sweep: What to measure: a sweep, its plain values, or the path of its TOML file.
            start: Start at once what is left. Headless, this returns when it is measured.
            retry_failed: Measure points again whose newest trial failed or is invalid.
            again: Measure all points, whatever was measured before this panel was made.
            scheduler: Address of a Dask scheduler that has it measured, see `workbench.cluster`.
            text: Only points whose line contains these words.
            show: Lines at first.

        Raises:
            SpecError: A name or a value of the sweep is none.
            InputError: The file is not there, or it has no points.
            JobError: Headless only: the sweep did not get to its end.
        """
        self.sweep = _sweep(sweep)
        self._demand = Demand(retry_failed=retry_failed, again=again, anywhere=bool(scheduler))
        self._scheduler = scheduler
        self._stale: dict[str, str] = {}
        self._standing: dict[str, Trial] = {}
        self._planned = 0.0
        self._job: Job | None = None
        self._view: View | None = None
        self._over = True
        fields = [
            {**p.spec.model_dump(mode="json"), **p.workload.model_dump(mode="json")}
            for p in self.sweep.points
        ]
        self._labels = [
            words or p.title for words, p in zip(labels(fields), self.sweep.points, strict=True)
        ]
        self.plan_lines: list[str] = []
        self.progress = Progress()
        self._plan = widgets.HTML()
        self._trial = widgets.HTML()
        self._bar = widgets.IntProgress(
            max=len(self.sweep.points), layout=widgets.Layout(width="520px", max_width="100%")
        )
        self.start_button = widgets.Button(
            description="Start", button_style="primary", tooltip="Measure what is left"
        )
        self.cancel_button = widgets.Button(
            description="Cancel",
            disabled=True,
            tooltip="Stop the sweep and all that it started; what was measured is kept",
        )
        self.plan_button = widgets.Button(
            description="Plan again", tooltip="Look at what is left, and at what it would take"
        )
        buttons = widgets.HBox([self.start_button, self.cancel_button, self.plan_button])
        head = widgets.VBox([self._plan, buttons, self.progress.state, self._bar])
        super().__init__(
            f"Sweep {self.sweep.name}",
            COLUMNS,
            above=[head],
            below=[self._trial, self.progress],
            text=text,
            show=show,
        )
        hidden(self.progress, None)
        hidden(self.progress.stages, None)  # the table has them
        self.start_button.on_click(lambda _: self.start())
        self.cancel_button.on_click(lambda _: self.cancel())
        self.plan_button.on_click(lambda _: self.plan())
        self.plan()
        self._attach(jobs.running("sweep", self._wanted))
        self.refresh()
        if start and headless():
            self._attach(self._begin())
            self.wait_trials()
        elif start:
            self.start()

    @property
    def job_id(self) -> str | None:
        """Id of the job that is shown, or None when there is none."""
        return self._job.id if self._job else None

    @property
    def _wanted(self) -> dict[str, Any]:
        return {"points": sorted(point.id for point in self.sweep.points)}

    def plan(self) -> None:
        """Look at what is left and at what it would take; nothing is started."""
        with self._lock, self.boundary():
            self._planned = time.time()
            plan = SweepPlan.make(self.sweep, self._demand)
            self._stale, self._standing = plan.stale, plan.standing
            self.plan_lines = plan.lines()
            text = html.escape("\n".join(self.plan_lines))
            self._plan.value = f'<pre aria-label="Plan">{text}</pre>'
            self._tell_left(plan.points - plan.done)

    def start(self) -> None:
        """Measure what is left in a job, or attach to the one that does; errors show here."""
        self.show_error("")
        with self._lock, self.boundary():
            self._attach(self._begin())
        self.refresh()

    def cancel(self) -> None:
        """Stop the sweep; returns at once, the panel shows the rest."""
        if job := self._job:
            self.cancel_button.disabled = True
            self.progress.say("cancelling ...")
            self.in_background(job.cancel)

    def wait_trials(self) -> list[Trial]:
        """Wait for the end of the sweep; return the trial of each point, see `Sweep.trials`.

        Raises:
            JobError: The sweep did not get to its end.
        """
        if self._job:
            view = self._job.wait()
            with self._lock:
                while not self._over:
                    self._follow()
            if view.state() != "done":
                raise JobError(
                    f"The sweep {self._job.id} is {view.state()}. {_last_words(view)} What was "
                    "measured is kept; started again, it does what is left."
                )
        return self.sweep.trials(self._demand)

    def plain(self) -> str:
        """Return the plan, the state and the points as plain text."""
        return "\n".join([*self.plan_lines, "", super().plain()])

    def static(self) -> str:
        """Return the plan and the points as HTML without widgets."""
        return f"{self._plan.value}{super().static()}"

    def record(self) -> dict[str, Any]:
        """Return how many points there are, and the trials of those that were measured."""
        trials = self.sweep.trials(self._demand)
        return {
            "points": len(self.sweep.points),
            "trials": [trial.id for trial in trials],
            "sound": sum(trial.valid for trial in trials),
        }

    def _begin(self) -> Job:
        """Start the sweep; after one that got to its end it is asked for anew."""
        if self._over and self._view and self._view.state() == "done":
            self._demand = replace(self._demand, begun=time.time())
            self.plan()
        return start_sweep(self.sweep, self._demand, scheduler=self._scheduler)[0]

    def _attach(self, job: Job | None) -> None:
        """Show a job from now on; without one, what the store knows."""
        self._job, self._view = job, job.view() if job else None
        self._over = job is None
        hidden(self.progress, job)
        self._buttons()

    def _buttons(self) -> None:
        self.start_button.disabled = not self._over
        self.cancel_button.disabled = self._over

    def _tell_left(self, left: int) -> None:
        self.start_button.description = f"Start ({left} left)" if left else "Start"

    def _follow(self) -> None:
        """Show the job; when it has ended, look at what is left."""
        if self._over or not self._job or not self._view:
            return
        # The state first: what the job wrote before it ended is then in the update.
        self._over = self._view.state() in ENDED
        self._view.update()
        self.progress.show(self._job, self._view)
        if self._view.state() not in ENDED and (now := self._view.facts.get("now")):
            self.progress.say(f"{self._bar.value} of {self._bar.max} measured: {now}")
        if self._over:
            self.show_error(_last_words(self._view) if self._view.state() == "failed" else "")
            self.plan()
            self.refresh()
            # Last: who may start again sees what is left.
            self._buttons()
        self.touch()

    def _rows(self, words: Sequence[str], count: int) -> tuple[list[Row], int]:
        now = time.time()
        rows = [
            [p.id, str(number), *self._cells(p, label, now)]
            for number, (p, label) in enumerate(
                zip(self.sweep.points, self._labels, strict=True), start=1
            )
        ]
        self._bar.value = sum(row[2] not in UNMEASURED for row in rows)
        self.table.empty = "No point is like that."
        found = [row for row in rows if contains(" ".join(row), words)]
        return found[:count], len(found)

    def _cells(self, point: Point, label: str, now: float) -> list[str]:
        """Return what is known of a point, and whether it still stands."""
        running, trial = self._running(point, now), self._trial_of(point.id)
        if trial and self._demand.again and not self._demand.takes(trial):
            trial = None
        # What has been measured since the plan was made is not what that calls stale.
        if trial and not running and trial.created < self._planned and point.id in self._stale:
            return [MARKS["stale"], "", "", label, printable(self._stale[point.id])]
        return _cells(label, trial, running)

    def _trial_of(self, point: str) -> Trial | None:
        """Return what was measured since the plan was made, or else what that takes."""
        newest = results.latest(point)
        if newest and newest.created >= self._planned:
            return newest
        return self._standing.get(point, newest)

    def _running(self, point: Point, now: float) -> str:
        """Return for how long a point has been worked on, or nothing."""
        stage = self._view.stages.get(point.id) if self._view and not self._over else None
        return format_seconds(stage.seconds(now)) if stage and stage.ended is None else ""

    def _choose(self, name: str) -> None:
        if not name:
            self._trial.value = ""
            return
        trial = self._trial_of(name)
        if trial is None:
            raise TrialError("This point was not measured yet.")
        text = html.escape("\n".join(trial_lines(trial)))
        self._trial.value = f"<pre>{text}</pre>"


def _sweep(given: Sweep | Mapping[str, Any] | str | Path) -> Sweep:
    if isinstance(given, Sweep):
        return given
    return Sweep.parse(given) if isinstance(given, Mapping) else Sweep.read(Path(given))


def _cells(label: str, trial: Trial | None, running: str) -> list[str]:
    """Return what is known of a point: state, throughput, TTFT, what it is, what came out."""
    if running:
        return [MARKS["running"], "", "", label, running]
    if trial is None:
        return [MARKS["left"], "", "", label, ""]
    if not trial.valid:
        why = printable("; ".join(trial.record["reasons"]))
        return [MARKS.get(trial.status, trial.status), "", "", label, why]
    speed, ttft = trial.summary["output_tokens_per_second"], trial.summary.get("ttft")
    first = format_seconds(ttft["p50"]) if ttft else ""
    return [MARKS["done"], f"{speed:.4g}", first, label, trial.id]


def _last_words(view: View) -> str:
    return str(view.end.get("text", "")) if view.end else ""
