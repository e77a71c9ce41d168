"""The builds panel: every job of the store, what each of them does, Cancel, Retry, Use engine."""

from __future__ import annotations

import functools
import html
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets

from workbench import jobs, listing
from workbench.backends import make_spec
from workbench.build import Plan, cancel, engine_of
from workbench.engine import age
from workbench.errors import InputError, JobError, WorkbenchError
from workbench.jobs import Job
from workbench.journal import ENDED, View
from workbench.listing import Entry
from workbench.spec import nearest
from workbench.summaries import STATES, command_line, job_line, state_words
from workbench.units import printable
from workbench.widgets.lists import ListPanel, Row, contains, hidden
from workbench.widgets.progress import Progress

COLUMNS = (("job", ""), ("state", ""), ("begun", ""), ("asked for", "wide"), ("outcome", "wide"))

OPEN = "not ended"
"""Name of the filter for all states in which something may still happen."""


class JobsPanel(ListPanel):
    """Lists the jobs of the store, wherever they were started, and follows the chosen one.

    The jobs run in processes of their own, and all that is shown comes from their journals: running
    the cell again, in this kernel or another, shows the same. Headless it is a table.
    """

    WHAT = "builds"

    def __init__(self, *, state: str = "", text: str = "", show: int = 20, job: str = "") -> None:
        """Show the panel.

        Args:
            state: Only jobs in this state, such as "failed", or "not ended"; all if empty.
            text: Only jobs whose line contains these words.
            show: Lines at first.
            job: Id of the job to show, or its beginning; by default the newest that has not ended.

        Raises:
            InputError: There is no such state.
            JobError: There is no such job.
        """
        choices = {"all": "", OPEN: OPEN, **{words: name for name, (_, words) in STATES.items()}}
        if state not in choices.values():
            known = [name for name in choices.values() if name]
            raise InputError(
                f"There is no state '{state}' of a job.{nearest(state, known)} There is: "
                f"{', '.join(known)}."
            )
        self._entries = listing.Watch()
        self._listed: list[Entry] = []
        self._job: Job | None = None
        self._view: View | None = None
        self._over = False
        self.progress = Progress(log=True)
        self._title = widgets.HTML()
        self._words = widgets.HTML()
        self._request = widgets.HTML()
        self.cancel_button = widgets.Button(
            description="Cancel", tooltip="Stop the build and all that it started"
        )
        self.retry_button = widgets.Button(
            description="Retry", tooltip="Start what was asked for once more"
        )
        self.use_button = widgets.Button(
            description="Use engine", tooltip="Give this engine to the panels that follow this one"
        )
        self.states = widgets.Dropdown(
            options=list(choices.items()),
            value=state,
            description="state",
            layout=widgets.Layout(width="220px"),
            style={"description_width": "40px"},
        )
        buttons = [self.cancel_button, self.retry_button, self.use_button]
        self._details = widgets.VBox(
            [
                self._title,
                widgets.HBox(buttons),
                self.progress.state,
                self._words,
                self.progress,
                self._request,
            ]
        )
        hidden(self._details, None)
        super().__init__(
            "Builds", COLUMNS, above=[self.states], below=[self._details], text=text, show=show
        )
        self.states.observe(lambda _: self.refresh(), "value")
        self.cancel_button.on_click(lambda _: self.cancel())
        self.retry_button.on_click(lambda _: self.retry())
        self.use_button.on_click(lambda _: self.use())
        self.refresh()
        going = [entry.id for entry in self._listed if not entry.ended]
        if job:
            self.choose(jobs.find_job(job).id)
        elif going:
            self.choose(going[0])

    @property
    def job_id(self) -> str | None:
        """Id of the job that is shown below the list, or None."""
        return self._job.id if self._job else None

    def cancel(self) -> None:
        """Stop the chosen job; returns at once, the panel shows the rest."""
        if job := self._job:
            self.cancel_button.disabled = True
            self.progress.say("cancelling ...")
            self.in_background(functools.partial(cancel, job))

    def retry(self) -> None:
        """Start the next attempt at what the chosen job was asked for, and choose that one."""
        if job := self._job:
            self.retry_button.disabled = True
            self.in_background(self._retry, job)

    def use(self) -> None:
        """Hand the engine of the chosen job to those who follow this panel."""
        with self.boundary():
            if self._job is None or self._view is None:
                raise JobError("No job is chosen.")
            self._hand_out(engine_of(self._job, self._view))

    def plain(self) -> str:
        """Return the list and what is known about the chosen job as plain text."""
        now = time.time()
        rows = {row[0] for row in self.table.rows}
        lines = [job_line(entry, now) for entry in self._listed if entry.id in rows]
        lines = [*lines, self._counted] if lines else [self.table.empty]
        if self._job and self._view:
            lines += ["", f"Job {self._job.id}", *self.progress.lines()]
        return "\n".join(lines)

    def static(self) -> str:
        """Return the list and the stages of the chosen job as HTML without widgets."""
        chosen = self.progress.state.value + self._words.value + self.progress.stages.value
        return f"{super().static()}{chosen}"

    def record(self) -> dict[str, Any]:
        """Return the number of jobs in each state as plain values, whatever the filter shows."""
        return {"jobs": dict(Counter(entry.state for entry in self._entries.entries()))}

    def _rows(self, words: Sequence[str], count: int) -> tuple[list[Row], int]:
        now = time.time()
        found = self._entries.entries()
        filtered = words or self.states.value
        self.table.empty = "No job is like that." if filtered else "There is no job yet."
        if filtered:
            found = [entry for entry in found if _is_like(entry, self.states.value, words)]
        self._listed = found
        return [_row(entry, now) for entry in found[:count]], len(found)

    def _choose(self, name: str) -> None:
        job = Job.named(name) if name else None
        # Both or none: it may be gone by now.
        self._job, self._view = job, job.view() if job else None
        self._over = False
        self.progress.clear()
        hidden(self._details, self._job)
        if self._job and self._view:
            self._title.value = f"<h3>Job {html.escape(self._job.id)}</h3>"
            self._request.value = _repeat(command_line(self._job.request))
            self._draw(self._job, self._view)
            self.in_background(self._expect, self._job)

    def _follow(self) -> None:
        if self._job and self._view and not self._over:
            # The state first: what the job wrote before it ended is then in the update.
            self._over = self._view.state() in ENDED
            self._view.update()
            self._draw(self._job, self._view)
            self.touch()

    def _draw(self, job: Job, view: View) -> None:
        state = view.state()
        self.progress.show(job, view)
        self._words.value = _last_words(view)
        self.cancel_button.disabled = state in ENDED or view.cancelling
        self.retry_button.disabled = state not in ENDED
        self.use_button.disabled = state != "done"

    def _expect(self, job: Job) -> None:
        """Find out what past builds like this took; a model that cannot be read has no past."""
        try:
            plan = Plan.make(make_spec(job.request.get("spec", {})))
        except WorkbenchError:
            return
        with self._lock:
            if self._job == job:
                self.progress.expect(plan)

    def _retry(self, job: Job) -> None:
        after = jobs.retry(job)
        self.refresh()
        self.choose(after.id)


def _is_like(entry: Entry, state: str, words: Sequence[str]) -> bool:
    """Say whether a job is in a state, and its line contains all words."""
    there = state in ("", entry.state) or (state == OPEN and not entry.ended)
    return there and contains(f"{entry.id} {entry.what} {entry.outcome}", words)


def _row(entry: Entry, now: float) -> Row:
    begun = f"{age(now - entry.created)} ago"
    return [entry.id, entry.id, state_words(entry.state), begun, entry.what, entry.outcome]


def _last_words(view: View) -> str:
    """Show why a job ended without an engine."""
    text = str(view.end.get("text", "")) if view.end else ""
    return f'<div class="error">{html.escape(printable(text))}</div>' if text else ""


def _repeat(line: str) -> str:
    """Show the command line that asks for the same once more."""
    told = '<span class="quiet">The same on the command line:</span>'
    return f"{told}<pre>{html.escape(printable(line))}</pre>" if line else ""
