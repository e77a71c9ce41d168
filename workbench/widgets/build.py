"""The build panel: start a build or attach to it, watch its stages, cancel it."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from workbench.build import Build, Plan, engine_of, start_build
from workbench.engine import Engine
from workbench.errors import JobError
from workbench.history import Range, stage_ranges
from workbench.journal import ENDED, Stage, View
from workbench.notebook import headless
from workbench.recipe import stage_order
from workbench.spec import BuildSpec
from workbench.summaries import fact_line, remaining, stage_line
from workbench.units import format_bytes, format_seconds, printable
from workbench.widgets.form import BuildForm
from workbench.widgets.panel import Panel

LOG_LINES = 60


class BuildPanel(Panel):
    """Builds what a form (or a fixed spec) says; `engine` is the last one that came out.

    The build runs in a process of its own: nothing that happens to this panel, its kernel or
    the browser stops it. Running the cell again attaches.
    """

    def __init__(
        self, source: BuildForm | BuildSpec, *, start: bool = False, smoke: bool = True
    ) -> None:
        """Show the panel.

        Args:
            source: Where the spec comes from each time Build is pressed.
            start: Build at once (or find the engine, or attach to the build). Headless, this
                returns when the engine is there.
            smoke: Load each engine once and generate a few tokens before it is published.

        Raises:
            WorkbenchError: Headless only: the build was refused or failed.
        """
        self._source = source
        self._smoke = smoke
        self._build: Build | None = None
        self._view: View | None = None
        self._ranges: dict[str, Range] = {}
        self._order: list[str] = []
        self._engine: Engine | None = None
        self._listeners: list[Callable[[Engine], None]] = []
        self._start_button = widgets.Button(
            description="Build", button_style="primary", tooltip="Compile the engine"
        )
        self._cancel_button = widgets.Button(
            description="Cancel", disabled=True, tooltip="Stop the build and all that it started"
        )
        self._state = widgets.HTML()
        self._progress = widgets.IntProgress(layout=widgets.Layout(width="520px"))
        self._progress.layout.display = "none"
        self._stages = widgets.HTML()
        self._log = widgets.HTML()
        log = widgets.Accordion([self._log], titles=("Log",), selected_index=None)
        buttons = widgets.HBox([self._start_button, self._cancel_button, self._state])
        super().__init__("Build", [buttons, self._stages, self._progress, log])
        self._start_button.on_click(lambda _: self.start())
        self._cancel_button.on_click(lambda _: self.cancel())
        if start and headless():
            self._begin()
            self.wait()
        elif start:
            self.start()

    @property
    def engine(self) -> Engine | None:
        """The engine that came out last, or None before the first."""
        return self._engine

    @property
    def job_id(self) -> str | None:
        """Id of the job that is shown, or None when there is none."""
        return self._build.job.id if self._build and self._build.job else None

    def on_engine(self, listener: Callable[[Engine], None]) -> None:
        """Call `listener` with each engine that comes out, and at once with the one there is."""
        self._listeners.append(listener)
        if self._engine:
            listener(self._engine)

    def start(self) -> None:
        """Start a build of the chosen spec, or attach to it; its errors show in the panel."""
        self.show_error("")
        self._start_button.disabled = True
        with self.boundary():
            self._begin()
        self._start_button.disabled = self._follows()

    def _follows(self) -> bool:
        """Say whether a job is shown that has not ended."""
        return bool(self._build and self._build.job and self._build.job.state() not in ENDED)

    def _begin(self) -> None:
        spec = self._source.check() if isinstance(self._source, BuildForm) else self._source
        plan = Plan.make(spec)
        build = start_build(spec, smoke=self._smoke)
        self._build, self._view = build, None
        if build.hit:
            self._show_state(build.explanation)
            self._stages.value = ""
            self._publish(build.hit)
            return
        quantization = str(getattr(spec, "quantization", ""))
        self._order = stage_order(plan.backend)
        self._ranges = stage_ranges(plan.backend.name, quantization, plan.model.parameters)
        threading.Thread(target=self._follow, args=(build,), daemon=True).start()

    def cancel(self) -> None:
        """Stop the running build; returns at once, the panel shows the rest."""
        build = self._build
        if build and build.job:
            self._cancel_button.disabled = True
            self._show_state("cancelling ...")
            threading.Thread(target=self._cancel, args=(build,), daemon=True).start()

    def wait(self) -> Engine:
        """Wait for the engine.

        Raises:
            WorkbenchError: The build was refused, failed or was cancelled.
        """
        if self._build is None:
            raise JobError(self._error_text or "Nothing is being built. Press Build first.")
        engine = self._build.wait()
        if self._build.job:
            self._view = self._build.job.view()
            self._render(self._build)
        self._engine = engine
        return engine

    def plain(self) -> str:
        """Return state, stages and engine as plain text."""
        lines = []
        if self._build and self._build.explanation:
            lines.append(self._build.explanation)
        if self._view:
            lines += self._view.notes
            lines += [stage_line(stage, self._ranges) for stage in self._view.stages.values()]
            lines += filter(None, [fact_line(self._view)])
        lines.append(f"Engine {self._engine}" if self._engine else "No engine yet.")
        return "\n".join(lines)

    def _cancel(self, build: Build) -> None:
        with self.boundary():
            assert build.job is not None  # noqa: S101 - cancel() asked
            build.job.cancel()

    def _follow(self, build: Build) -> None:
        """Show the job until it has ended (runs in a thread)."""
        with self.boundary():
            assert build.job is not None  # noqa: S101 - a build that is no hit has a job
            self._start_button.disabled = True
            self._cancel_button.disabled = False
            try:
                for view in build.job.follow(0.2):
                    if self._build is not build:
                        return
                    self._view = view
                    self._render(build)
                if view.state() != "cancelled":
                    self._publish(engine_of(build.job, view, build.spec))
            finally:
                if self._build is build:
                    self._start_button.disabled = False
                    self._cancel_button.disabled = True
                    self._progress.layout.display = "none"

    def _publish(self, engine: Engine) -> None:
        self._engine = engine
        self.touch()
        for listener in self._listeners:
            listener(engine)

    def _render(self, build: Build) -> None:
        view = self._view
        assert view is not None and build.job is not None  # noqa: S101, PT018 - just set
        now = time.time()
        self._show_state(
            _state_line(build, view, now, remaining(view, self._ranges, self._order, now))
        )
        self._stages.value = _stages_html(view, self._ranges, now)
        self._show_progress(view)
        log = _tail(build.job.log)
        if log != self._log.value:
            self._log.value = log
        self.touch()

    def _show_state(self, text: str) -> None:
        self._state.value = f'<span role="status">{html.escape(printable(text))}</span>'

    def _show_progress(self, view: View) -> None:
        """Show a bar only where something real is counted."""
        counted = [s for s in view.stages.values() if s.ended is None and s.total]
        self._progress.layout.display = "" if counted else "none"
        if counted:
            self._progress.max, self._progress.value = counted[0].total, counted[0].done


def _state_line(build: Build, view: View, now: float, left: str) -> str:
    state = view.state()
    words = [state if state in ENDED else f"{state}, {format_seconds(now - view.created)}"]
    if state == "done" and view.end:
        took = format_seconds(view.last_sign - view.created)
        key = view.end["engine"]
        words = [f"done in {took}: engine {key}"]
    elif state not in ENDED:
        if left:
            words.append(left)
        if memory := view.facts.get("memory_bytes"):
            words.append(f"memory {format_bytes(memory)}")
        words.append(f"last sign of life {max(0.0, now - view.last_sign):.0f} s ago")
    assert build.job is not None  # noqa: S101 - only shown for jobs
    words.append(f"job {build.job.id}")
    return " · ".join(words)


def _stages_html(view: View, ranges: Mapping[str, Range], now: float) -> str:
    notes = "".join(
        f'<div class="quiet">{html.escape(printable(note))}</div>' for note in view.notes
    )
    rows = "".join(_stage_row(stage, ranges, now) for stage in view.stages.values())
    facts = html.escape(fact_line(view))
    return f'{notes}<table>{rows}</table><div class="quiet">{facts}</div>'


def _stage_row(stage: Stage, ranges: Mapping[str, Range], now: float) -> str:
    mark = "&#10007;" if stage.broken else "&#10003;" if stage.ended else "&#8230;"
    count = f"{stage.done}/{stage.total} {printable(stage.unit)}" if stage.total else ""
    past = str(ranges[stage.name]) if stage.name in ranges and not stage.ended else ""
    cells: list[tuple[str, Any]] = [
        ("number", format_seconds(stage.seconds(now))),
        ("number", count),
        ("quiet", past),
    ]
    columns = "".join(f'<td class="{kind}">{html.escape(str(text))}</td>' for kind, text in cells)
    return f"<tr><td>{mark} {html.escape(printable(stage.title))}</td>{columns}</tr>"


def _tail(path: Path) -> str:
    """Return the end of a log as HTML; what it says is text, whatever it looks like."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 16_384))
            text = file.read().decode(errors="replace")
    except OSError:
        text = ""
    # A progress bar writes over its line; what stood last is what a terminal would show.
    lines = [line.rpartition("\r")[2] for line in text.rstrip().replace("\r\n", "\n").split("\n")]
    return f"<pre>{html.escape(printable(chr(10).join(lines[-LOG_LINES:])))}</pre>"
