"""The stream panel: a prompt, sampling options, live tokens, Stop."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ipywidgets as widgets

from workbench import shared, store
from workbench.errors import RequestError, WorkbenchError
from workbench.generation import Delta, Generation
from workbench.notebook import headless
from workbench.opened import Opened, Prompt
from workbench.sampling import Sampling
from workbench.sources import Source, exact_source, source_label
from workbench.steering import Trail
from workbench.summaries import timing_line
from workbench.widgets.live import follow
from workbench.widgets.loaded import LoadedPanel
from workbench.widgets.sampling import SamplingForm
from workbench.widgets.source import EngineSource
from workbench.widgets.tokens import TokenView

RECORDS = 200
"""Records that a panel keeps, the newest ones."""


class StreamPanel(LoadedPanel):
    """Streams generations from an engine or a server.

    `record` holds the last generation as plain values, `records` those of this panel in their
    order.
    """

    def __init__(
        self,
        source: EngineSource | Source | str | None,
        *,
        prompt: str = "write a haiku about latency",
        start: bool = False,
        idle_minutes: float | None = None,
        title: str = "Stream",
        **options: Any,
    ) -> None:
        """Show the panel.

        Args:
            source: A panel from which engines come (each of them is opened), an engine, a key, a
                server; or None, for whoever calls `load`.
            prompt: What stands in the prompt area.
            start: Send the prompt as soon as the engine is open. Headless, this returns when
                the answer is complete.
            idle_minutes: Unload when nothing was generated for so long; None never does.
            title: Heading.
            options: Sampling options, fields of `Sampling`.

        Raises:
            WorkbenchError: An option is wrong; headless also what went wrong in the work.
        """
        self._generation: Generation | None = None
        self._question = ""
        self._asked_source: Source | None = None
        """What the last prompt was, and who was asked."""
        self._start = start
        self._refusal: WorkbenchError | None = None
        """Why the last question was not asked; None when it was."""
        self._idle = threading.Event()
        self._idle.set()
        self._showing: threading.Thread | None = None
        self._came: list[Delta] = []
        self.record: dict[str, Any] | None = None
        self.records: deque[dict[str, Any]] = deque(maxlen=RECORDS)
        self._view = self._make_view()
        self._prompt = widgets.Textarea(
            value=prompt,
            placeholder="What to ask",
            layout=widgets.Layout(width="100%", height="64px"),
        )
        self._sampling = self._make_form(Sampling.parse(options))
        self._options = self._sampling.controls
        self._send_button = widgets.Button(
            description="Send", button_style="primary", disabled=True, tooltip="Generate"
        )
        self._stop_button = widgets.Button(
            description="Stop", disabled=True, tooltip="Stop this generation at once"
        )
        super().__init__(title, self._layout, self._sampling.explanations, idle_minutes)
        self._send_button.on_click(lambda _: self.send())
        self._stop_button.on_click(lambda _: self.stop())
        if source is not None:
            self._attach(source)

    def _make_view(self) -> TokenView:
        return TokenView()

    def _make_form(self, sampling: Sampling) -> SamplingForm:
        return SamplingForm(sampling)

    def _layout(self) -> list[widgets.Widget]:
        """Return what is in the panel, from top to bottom."""
        return [self._title, self._prompt, self._sampling, self._buttons(), self._view]

    def _buttons(self) -> widgets.HBox:
        buttons = [self._send_button, self._stop_button, self._close_button, self._load_button]
        return widgets.HBox(buttons)

    def _attach(self, source: EngineSource | Source | str) -> None:
        """Open the source: now if headless, else when it is there."""
        if headless():
            source = source.wait() if isinstance(source, EngineSource) else source
            self._open(store.find_engine(source) if isinstance(source, str) else source)
            if self._start:
                self._generate(self._prompt.value, self._sampling.value)
                self.wait()
            return
        self._follow(source)

    def send(self, prompt: str | None = None) -> None:
        """Generate; returns at once, the tokens appear in the panel."""
        with self.boundary():
            self._refuse_while_running()
            self._ask(self._prompt.value if prompt is None else prompt)

    def load(self, source: Source) -> None:
        """Open an engine or a server in the background; this panel lets go of the one before it."""
        self._retired = False
        self.in_background(self._open_and_start, source)

    def _open_and_start(self, source: Source) -> None:
        self._open(source)
        if self._start and not self._retired:
            self._start = False
            self.send()

    def _take(self, session: Opened) -> None:
        self._send_button.disabled = False
        self._sampling.disable(session.lacks)

    def _forget(self) -> None:
        self._view.reset()

    def _is_idle(self) -> bool:
        return self._idle.is_set()

    def _end_work(self) -> None:
        self.stop()
        if self._showing:
            self._showing.join(10.0)

    def _refuse_while_running(self) -> None:
        """Refuse to begin in the middle of an answer.

        Raises:
            RequestError: A generation is running.
        """
        if not self._idle.is_set():
            raise RequestError("A generation is running. Press Stop, or wait for its end.")

    def _ask(self, prompt: str) -> None:
        """Generate; where something has to be opened first, in the background."""
        self._retired = False
        awaited = self._changing
        if self._session and not self._session.closed and not awaited:
            with self._keeping_refusal():
                self._generate(prompt, self._sampling.value)
            return
        self._idle.clear()
        self._send_button.disabled = True
        self.in_background(self._load_and_generate, prompt, awaited)

    def _load_and_generate(self, prompt: str, awaited: Source | None) -> None:
        begun = False
        try:
            with self._opening, self._keeping_refusal():
                if awaited:
                    self._check_awaited(awaited)
                self._generate(prompt, self._sampling.value)
            begun = True
        finally:
            if not begun:
                self._send_button.disabled = False
                self._idle.set()

    @contextmanager
    def _keeping_refusal(self) -> Iterator[None]:
        """Keep the error for `wait`, which would tell of the answer before it."""
        try:
            yield
        except WorkbenchError as error:
            self._refusal = error
            raise

    def stop(self) -> None:
        """Stop the running generation."""
        if self._generation:
            self._generation.cancel()

    def wait(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait for the running generation; return its record.

        Raises:
            WorkbenchError: It failed, or what was asked last was refused.
            TimeoutError: It goes on after `timeout` seconds.
        """
        if not self._idle.wait(timeout):
            raise TimeoutError(f"The generation goes on after {timeout} s.")
        if self._refusal:
            raise self._refusal
        if self._generation and self._generation.error:
            raise self._generation.error
        return self.record or {}

    def plain(self) -> str:
        """Return prompt, text and timings as plain text."""
        lines = [f"> {self._prompt.value}", "", self._view.text]
        if self.record:
            lines += ["", timing_line(self.record)]
        return "\n".join(lines)

    def _generate(self, prompt: str, sampling: Sampling) -> None:
        if self._session is None or self._session.closed:
            self._reopen()
            sampling = self._sampling.value
        assert self._session is not None  # noqa: S101 - _reopen raises without one
        self.show_error("")
        self._begin(prompt, self._asked(prompt, self._session), sampling)

    def _begin(
        self, prompt: str, asked: Prompt, sampling: Sampling, head: Trail | None = None
    ) -> None:
        """Generate and show it; one that is refused leaves the answer before it as it is.

        Args:
            prompt: What the person asked.
            asked: What the session is given for it.
            sampling: Options.
            head: The beginning of the answer, where it goes on from one.
        """
        session = self._session
        assert session is not None  # noqa: S101 - whoever calls has opened it
        generation = self._start_one(session, asked, self._wanted(sampling, session), head)
        if self._source:
            shared.hold(self._source, self)
        self._stop_timer()
        self._idle.clear()
        self._generation, self._refusal, self._came = generation, None, []
        self._question, self._asked_source = prompt, exact_source(self._source, session)
        self._view.reset()
        self._send_button.disabled, self._stop_button.disabled = True, False
        self._started(asked, head)
        arguments = (generation, prompt, session, head.text if head else "")
        self._showing = threading.Thread(target=self._show, args=arguments, daemon=True)
        self._showing.start()

    def _start_one(
        self, session: Opened, asked: Prompt, sampling: Sampling, head: Trail | None
    ) -> Generation:
        """Start a generation; only a panel that lets a person choose a token gives a head."""
        del head
        return session.generate(asked, sampling)

    def _asked(self, prompt: str, session: Opened) -> Prompt:
        """Return what the session is given for a prompt."""
        chat = [{"role": "user", "content": prompt}]
        return chat if session.facts["chat_template"] else prompt

    def _wanted(self, sampling: Sampling, session: Opened) -> Sampling:
        """Return the options with what the view needs beside them."""
        del session
        return sampling

    def _started(self, asked: Prompt, head: Trail | None) -> None:
        """Take note of what was asked; show what stands before the first token that comes."""

    def _show(self, generation: Generation, prompt: str, session: Opened, said: str) -> None:
        """Pass deltas on to the view until the end (runs in a thread)."""
        with self.boundary():
            try:
                follow(
                    generation,
                    self._view,
                    session.limits,
                    self.show_error,
                    came=self._came,
                    alive=self.touch,
                )
            finally:
                self.record = generation.record()
                self.record["text"] = said + self.record["text"]
                if self._asked_source:
                    self.record["source"] = source_label(self._asked_source)
                self.records.append(self.record)
                self._ended(prompt, generation)
                self._send_button.disabled = False
                self._stop_button.disabled = True
                self._restart_timer()
                self.touch()
                self._idle.set()

    def _ended(self, prompt: str, generation: Generation) -> None:
        """Take note of a generation that has ended."""
