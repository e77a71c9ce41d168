"""The build panel: start a build or attach to it, watch its stages, cancel it."""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Sequence
from dataclasses import replace

import ipywidgets as widgets

from workbench.build import Build, Plan, engine_of, start_build
from workbench.engine import Engine
from workbench.errors import JobError, WorkbenchError
from workbench.jobs import Job, newest_attempt
from workbench.journal import ENDED, View
from workbench.notebook import headless
from workbench.offers import already_built, covering, running_build
from workbench.spec import BuildSpec
from workbench.units import printable
from workbench.widgets.form import BuildForm
from workbench.widgets.progress import Progress
from workbench.widgets.source import EngineSource

TAKEOVER = 3.0
"""Seconds in which one who waits for a build starts it again when its process has died."""


QUIET = 0.3
"""Seconds without a change after which the store is searched for what is built already."""


class BuildPanel(EngineSource):
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
                returns when the engine is there. Where an engine covers what is asked, it is
                offered first; headless, what was asked is built.
            smoke: Load each engine once and generate a few tokens before it is published.

        Raises:
            WorkbenchError: Headless only: the build was refused or failed.
        """
        self._source = source
        self._smoke = smoke
        self._build: Build | None = None
        self._offered: list[tuple[Engine, str]] = []
        self._look = threading.Timer(0, lambda: None)
        self.progress = Progress()
        self._start_button = widgets.Button(
            description="Build", button_style="primary", tooltip="Compile the engine"
        )
        self._cancel_button = widgets.Button(
            description="Cancel", disabled=True, tooltip="Stop the build and all that it started"
        )
        self._take_button = widgets.Button(
            description="Use it", button_style="primary", tooltip="Take the engine that is there"
        )
        self._anyway_button = widgets.Button(
            description="Build anyway", tooltip="Compile what is asked for, and nothing larger"
        )
        self._which = widgets.Dropdown(
            description="engine",
            tooltip="The engines that serve all that you ask for, the smallest first",
            layout=widgets.Layout(width="560px"),
        )
        self._lead = ""
        self._sentence = widgets.HTML()
        choice = widgets.HBox([self._take_button, self._anyway_button])
        self._offer = widgets.VBox([self._which, self._sentence, choice])
        self._offer.layout.display = "none"
        buttons = widgets.HBox([self._start_button, self._cancel_button, self.progress.state])
        super().__init__("Build", [buttons, self._offer, self.progress])
        self._start_button.on_click(lambda _: self.start())
        self._cancel_button.on_click(lambda _: self.cancel())
        self._which.observe(lambda _: self._say_offered(), names="value")
        self._take_button.on_click(lambda _: self.take())
        self._anyway_button.on_click(lambda _: self.start(anyway=True))
        if isinstance(source, BuildForm) and not headless():
            source.on_spec(self._look_soon)
            self._look_soon(self._chosen())
        if not start and not headless():
            self.in_background(self._attach)
        if not start and headless() and (spec := self._chosen()):
            self._note(self._found(spec))  # nobody waits for a moment without a change
        if start and headless():
            self._begin(self._look_for_cover())
            self.wait()
        elif start:
            self.start()

    @property
    def job_id(self) -> str | None:
        """Id of the job that is shown, or None when there is none."""
        return self.progress.job.id if self.progress.job else None

    def start(self, *, anyway: bool = False) -> None:
        """Start a build of the chosen spec, or attach to it; its errors show in the panel.

        Args:
            anyway: Build also where an engine covers what is asked for.
        """
        self.show_error("")
        self._start_button.disabled = True
        self._look.cancel()
        with self.boundary():
            spec = self._look_for_cover()
            if self._offered and not anyway:
                self._show_offer(asks=True)
            else:
                self._begin(spec)
        self._start_button.disabled = self._follows()

    def take(self) -> None:
        """Take the engine that was offered, or of several the one that is chosen."""
        with self.boundary():
            if self._which.value is None:
                raise JobError("No engine was offered. Press Build first.")
            engine, sentence = self._which.value
            self._hide_offer()
            self._build = None
            self.progress.clear()
            self.progress.say(sentence)
            self._hand_out(engine)

    def _look_for_cover(self) -> BuildSpec:
        """Return the spec that is asked for; note the engines that cover it."""
        spec = self._source.check() if isinstance(self._source, BuildForm) else self._source
        Plan.make(spec).check_rules()
        self._note(covering(spec, smoke=self._smoke))
        return spec

    def _look_soon(self, spec: BuildSpec | None) -> None:
        """Offer what is built already, once nothing has changed for a moment."""
        self._look.cancel()
        self._hide_offer()
        if spec is None or self._follows():
            return
        if self._build is None:
            self.show_error("")  # it refused what was chosen before
        self._look = look = threading.Timer(QUIET, lambda: self._look_now(spec, look))
        look.daemon = True
        look.start()

    def _look_now(self, spec: BuildSpec, look: threading.Timer) -> None:
        """Offer what is built already (runs in a thread)."""
        found = self._found(spec)
        if look is self._look and not self._follows():
            self._note(found)
            own = self._engine.key if self._engine else None
            if found and own not in [engine.key for engine, _ in found]:
                self._show_offer("Already built. ")

    def _found(self, spec: BuildSpec) -> list[tuple[Engine, str]]:
        """Return what is built already, with a sentence each."""
        try:
            return already_built(spec, smoke=self._smoke)
        except WorkbenchError:
            return []  # that nothing can be built or opened here is said when Build is pressed

    def _chosen(self) -> BuildSpec | None:
        """Return the spec that is chosen now; None where one of its values is refused."""
        if isinstance(self._source, BuildForm):
            return None if self._source.faults else self._source.spec
        return self._source

    def _attach(self) -> None:
        """Follow the build of what is chosen where it runs, as after a restart of the kernel."""
        spec = self._chosen()
        if spec is None:
            return
        try:
            build = running_build(spec, smoke=self._smoke)
            plan = Plan.make(spec)
        except WorkbenchError:
            return  # as in _found
        if build and build.job and self._build is None:
            self._build = build
            self._hide_offer()
            self.progress.expect(plan)
            self._follow(build)

    def _note(self, found: list[tuple[Engine, str]]) -> None:
        """Keep the engines that can be offered; of several one is chosen, at first the smallest."""
        self._offered = found
        labels = _labels([engine for engine, _ in found])
        self._which.options = list(zip(labels, found, strict=True))
        self._which.index = 0 if found else None
        self._which.layout.display = "" if len(found) > 1 else "none"

    def _show_offer(self, lead: str = "", *, asks: bool = False) -> None:
        """Offer what was found; `asks` where nothing goes on before a choice."""
        self._lead = lead
        self._anyway_button.layout.display = "" if asks else "none"
        self._say_offered()
        self._offer.layout.display = ""

    def _say_offered(self) -> None:
        """Say what the chosen engine of those that are offered has."""
        sentence = f"{self._lead}{self._which.value[1]}" if self._which.value else ""
        self._sentence.value = (
            f'<div class="finding" role="status">{html.escape(printable(sentence))}</div>'
        )

    def _hide_offer(self) -> None:
        self._offer.layout.display = "none"

    def _follows(self) -> bool:
        """Say whether a job is shown that has not ended."""
        return bool(self._build and self._build.job and self._build.job.state() not in ENDED)

    def _begin(self, spec: BuildSpec) -> None:
        plan = Plan.make(spec)
        build = start_build(spec, smoke=self._smoke)
        self._build = build
        self._hide_offer()
        self.progress.clear()
        if build.job is None:
            assert build.hit is not None  # noqa: S101 - a build is a hit or a job
            self.progress.say(build.explanation)
            self._hand_out(build.hit)
            return
        self.progress.expect(plan)
        self._show(build.job)
        threading.Thread(target=self._follow, args=(build,), daemon=True).start()

    def cancel(self) -> None:
        """Stop the running build; returns at once, the panel shows the rest."""
        if self._build and self._build.job:
            self._cancel_button.disabled = True
            self.progress.say("cancelling ...")
            self.in_background(self._build.cancel)

    def wait(self) -> Engine:
        """Wait for the engine.

        Raises:
            WorkbenchError: The build was refused, failed or was cancelled.
        """
        if self._build is None:
            if self._engine:
                return self._engine
            raise JobError(self._error_text or "Nothing is being built. Press Build first.")
        engine = self._build.wait()
        if self._build.job:
            # Somebody may have had to start it once more.
            self._show(newest_attempt(self._build.job))
        self._engine = engine
        return engine

    def plain(self) -> str:
        """Return state, stages and engine as plain text."""
        lines = [sentence for _, sentence in self._offered]
        if self._build and self._build.explanation:
            lines.append(self._build.explanation)
        lines += self.progress.lines()
        none = "No engine was taken yet." if self._offered else "No engine yet."
        lines.append(f"Engine {self._engine}" if self._engine else none)
        return "\n".join(lines)

    def _show(self, job: Job) -> None:
        self.progress.show(job, job.view())
        self.touch()

    def _follow(self, build: Build) -> None:
        """Show the job until it has ended (runs in a thread)."""
        with self.boundary():
            self._start_button.disabled = True
            self._cancel_button.disabled = False
            try:
                build, view = self._watch(build)
                if self._build is build and build.job and view.state() != "cancelled":
                    self._hand_out(engine_of(build.job, view, build.spec))
            finally:
                if self._build is build:
                    self._start_button.disabled = False
                    self._cancel_button.disabled = True

    def _watch(self, build: Build) -> tuple[Build, View]:
        """Show a build's job to its end, and then the one that takes over, if there is one."""
        while True:
            assert build.job is not None  # noqa: S101 - a build that is no hit has a job
            for view in build.job.follow(0.2):
                if self._build is not build:
                    return build, view
                self.progress.show(build.job, view)
                self.touch()
            after = _successor(build.job) if view.state() == "killed" and view.owner else None
            if after is None or self._build is not build:
                return build, view
            build = self._build = replace(build, job=after)


def _labels(engines: Sequence[Engine]) -> list[str]:
    """Return the key of each engine, with the limits in which they differ."""
    limits = [engine.manifest["limits"] for engine in engines]
    differing = [
        n
        for n in dict.fromkeys(n for own in limits for n in own)
        if any(own.get(n) != limits[0].get(n) for own in limits)
    ]
    told = [", ".join(f"{name} {own.get(name)}" for name in differing) for own in limits]
    return [
        printable(f"{engine.key}: {words}" if words else engine.key)
        for engine, words in zip(engines, told, strict=True)
    ]


def _successor(job: Job) -> Job | None:
    """Return the job that takes over from one whose process has died, or None."""
    deadline = time.monotonic() + TAKEOVER
    while (after := newest_attempt(job)) == job and time.monotonic() < deadline:
        time.sleep(0.2)
    return None if after == job else after
