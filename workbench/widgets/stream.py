"""The stream panel: a prompt, sampling options, live tokens, Stop."""

from __future__ import annotations

import html
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ipywidgets as widgets

from workbench import shared, store
from workbench.endpoint import Endpoint
from workbench.errors import RequestError, SessionError, WorkbenchError
from workbench.generation import Delta, Generation
from workbench.notebook import headless
from workbench.opened import Opened, Prompt
from workbench.sampling import Sampling
from workbench.session import Session
from workbench.sources import (
    Source,
    exact_source,
    opened_line,
    source_label,
    source_name,
)
from workbench.summaries import timing_line
from workbench.units import format_seconds, printable
from workbench.widgets.live import follow
from workbench.widgets.panel import Panel
from workbench.widgets.sampling import SamplingForm
from workbench.widgets.source import EngineSource
from workbench.widgets.tokens import TokenView

RECORDS = 200
"""Records that a panel keeps, the newest ones."""

_LOOK = 0.2
"""Seconds between two looks at what loads or may die."""


class StreamPanel(Panel):
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
        self._session: Opened | None = None
        self._source: Source | None = None
        self._generation: Generation | None = None
        self._question = ""
        self._asked_source: Source | None = None
        """What the last prompt was, and who was asked."""
        self._opening = threading.RLock()
        self._start = start
        self._idle = threading.Event()
        self._idle.set()
        self._timer = shared.IdleTimer(idle_minutes, self._unload_idle)
        self._idle_minutes = idle_minutes
        self._came: list[Delta] = []
        self.record: dict[str, Any] | None = None
        self.records: deque[dict[str, Any]] = deque(maxlen=RECORDS)
        self._view = self._make_view()
        self._title = widgets.HTML()
        self._prompt = widgets.Textarea(
            value=prompt,
            placeholder="What to ask",
            layout=widgets.Layout(width="100%", height="64px"),
        )
        self._sampling = SamplingForm(Sampling.parse(options))
        self._options = self._sampling.controls
        self._send_button = widgets.Button(
            description="Send", button_style="primary", disabled=True, tooltip="Generate"
        )
        self._stop_button = widgets.Button(
            description="Stop", disabled=True, tooltip="Stop this generation at once"
        )
        self._close_button = widgets.Button(
            description="Unload", disabled=True, tooltip="End the engine's process, free its memory"
        )
        self._load_button = widgets.Button(
            description="Load again", disabled=True, tooltip="Open what was open before"
        )
        super().__init__(title, self._layout(), self._sampling.explanations)
        self._send_button.on_click(lambda _: self.send())
        self._stop_button.on_click(lambda _: self.stop())
        self._close_button.on_click(lambda _: self.unload())
        self._load_button.on_click(lambda _: self._source and self.load(self._source))
        if source is not None:
            self._attach(source)

    def _make_view(self) -> TokenView:
        return TokenView()

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
        self._show_title("waiting for an engine")
        if isinstance(source, EngineSource):
            source.on_engine(self.load)
        else:
            self.load(store.find_engine(source) if isinstance(source, str) else source)

    def load(self, source: Source) -> None:
        """Open an engine or a server in the background; the one before it is unloaded."""
        threading.Thread(target=self._open_and_start, args=(source,), daemon=True).start()

    def send(self, prompt: str | None = None) -> None:
        """Generate; returns at once, the tokens appear in the panel."""
        with self.boundary():
            self._refuse_while_running()
            self._ask(self._prompt.value if prompt is None else prompt)

    def _refuse_while_running(self) -> None:
        """Refuse to begin in the middle of an answer.

        Raises:
            RequestError: A generation is running.
        """
        if not self._idle.is_set():
            raise RequestError("A generation is running. Press Stop, or wait for its end.")

    def _ask(self, prompt: str) -> None:
        """Generate; where the engine has to be loaded first, in the background."""
        if self._session and not self._session.closed:
            self._generate(prompt, self._sampling.value)
            return
        self._idle.clear()
        self._send_button.disabled = True
        self.in_background(self._load_and_generate, prompt)

    def _load_and_generate(self, prompt: str) -> None:
        begun = False
        try:
            self._generate(prompt, self._sampling.value)
            begun = True
        finally:
            if not begun:
                self._send_button.disabled = False
                self._idle.set()

    def stop(self) -> None:
        """Stop the running generation."""
        if self._generation:
            self._generation.cancel()

    def wait(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait for the running generation; return its record.

        Raises:
            WorkbenchError: It failed.
            TimeoutError: It goes on after `timeout` seconds.
        """
        if not self._idle.wait(timeout):
            raise TimeoutError(f"The generation goes on after {timeout} s.")
        if self._generation and self._generation.error:
            raise self._generation.error
        return self.record or {}

    def unload(self) -> None:
        """Let go of the engine; its process ends unless another panel generates with it."""
        self._unload("")

    def _unload(self, why: str) -> None:
        self._timer.stop()
        self.stop()
        if self._generation:
            self._idle.wait(10.0)
        # First, so that whoever watches the session knows that this was wanted.
        self._session = None
        closed = True
        if self._source:
            closed = shared.release(self._source)
            what = "is not loaded" if closed else "is busy, and stays loaded"
            self._show_title(f"{_named(self._source)} {what}{why}; Send loads it again")
            self._load_button.disabled = False
        self._close_button.disabled = closed
        self.show_error("")

    def _unload_idle(self) -> None:
        """Unload after a while without work (called by the timer's thread)."""
        with self.boundary():
            if self._idle.is_set() and self._session is not None:
                self._unload(f" after {self._idle_minutes:g} idle minutes")

    def plain(self) -> str:
        """Return prompt, text and timings as plain text."""
        lines = [f"> {self._prompt.value}", "", self._view.text]
        if self.record:
            lines += ["", timing_line(self.record)]
        return "\n".join(lines)

    def _open_and_start(self, source: Source) -> None:
        with self.boundary():
            self._open(source)
            if self._start:
                self._start = False
                self.send()

    def _open(self, source: Source) -> None:
        with self._opening:  # or what is shown and what is open could be of two sources
            self._open_alone(source)

    def _open_alone(self, source: Source) -> None:
        if self._source and source_name(self._source) != source_name(source):
            self.unload()
            self._view.reset()
        self.show_error("")
        self._source = source
        self._load_button.disabled = True
        try:
            with self._shown_loading(source):
                self._session = shared.acquire(source)
        except WorkbenchError:
            self._show_title(f"{_named(source)} is not loaded")
            self._load_button.disabled = False
            raise
        self._send_button.disabled = self._close_button.disabled = False
        self._sampling.disable(self._session.lacks)
        self._show_title(opened_line(source, self._session))
        self._timer.restart()
        if isinstance(self._session, Session):
            threading.Thread(target=self._watch, args=(self._session,), daemon=True).start()

    @contextmanager
    def _shown_loading(self, source: Source) -> Iterator[None]:
        """Say how long it has been loading, and what it needs, until the block ends."""
        need = shared.room_line(source)
        loaded = threading.Event()

        def show() -> None:
            began = time.monotonic()
            while not loaded.is_set():
                seconds = format_seconds(time.monotonic() - began)
                self._show_title(f"loading {_named(source)} ... {seconds}. {need}")
                loaded.wait(_LOOK)

        thread = threading.Thread(target=show, daemon=True)
        thread.start()
        try:
            yield
        finally:
            loaded.set()
            thread.join()

    def _watch(self, session: Session) -> None:
        """Say so when it ends while nobody asks it anything (runs in a thread).

        The worker has died, or another panel has let go of the engine.
        """
        while self._session is session and not session.closed:
            time.sleep(_LOOK)
        if self._session is session and self._source:
            self._close_button.disabled, self._load_button.disabled = True, False
            self._show_title(f"{_named(self._source)} is not loaded; Send loads it again")
            self.show_error(str(session.error or ""))

    def _generate(self, prompt: str, sampling: Sampling) -> None:
        if self._session is None or self._session.closed:
            self._reopen()
            sampling = self._sampling.value
        assert self._session is not None  # noqa: S101 - _reopen raises without one
        self.show_error("")
        self._begin(prompt, self._asked(prompt, self._session), sampling)

    def _begin(self, prompt: str, asked: Prompt, sampling: Sampling, said: str = "") -> None:
        """Generate and show it.

        Args:
            prompt: What the person asked.
            asked: What the session is given for it.
            sampling: Options.
            said: The beginning of the answer, where it goes on from one.
        """
        assert self._session is not None  # noqa: S101 - whoever calls has opened it
        self._question, self._asked_source = prompt, exact_source(self._source, self._session)
        generation = self._session.generate(asked, self._wanted(sampling, self._session))
        self._timer.stop()
        self._idle.clear()
        self._generation = generation
        self._view.reset()
        self._send_button.disabled, self._stop_button.disabled = True, False
        self._view_beginning()
        arguments = (generation, prompt, self._session, said)
        threading.Thread(target=self._show, args=arguments, daemon=True).start()

    def _asked(self, prompt: str, session: Opened) -> Prompt:
        """Return what the session is given for a prompt."""
        chat = [{"role": "user", "content": prompt}]
        return chat if session.facts["chat_template"] else prompt

    def _reopen(self) -> None:
        """Load the engine again after its worker died.

        Raises:
            SessionError: No engine was chosen.
        """
        if self._source is None:
            raise SessionError("No engine is loaded. Build one first.")
        self._open(self._source)

    def _wanted(self, sampling: Sampling, session: Opened) -> Sampling:
        """Return the options with what the view needs beside them."""
        del session
        return sampling

    def _view_beginning(self) -> None:
        """Show what stands before the first token that comes."""

    def _show(self, generation: Generation, prompt: str, session: Opened, said: str) -> None:
        """Pass deltas on to the view until the end (runs in a thread)."""
        with self.boundary():
            try:
                self._came = follow(generation, self._view, session.limits, self.show_error)
            finally:
                self.record = generation.record()
                self.record["text"] = said + self.record["text"]
                if self._asked_source:
                    self.record["source"] = source_label(self._asked_source)
                self.records.append(self.record)
                self._ended(prompt, generation)
                self._send_button.disabled = False
                self._stop_button.disabled = True
                self._timer.restart()
                self.touch()
                self._idle.set()

    def _ended(self, prompt: str, generation: Generation) -> None:
        """Take note of a generation that has ended."""

    def _show_title(self, text: str) -> None:
        shown = html.escape(printable(text))
        self._title.value = f'<span class="quiet" role="status">{shown}</span>'
        self.touch()


def _named(source: Source) -> str:
    return source_label(source) if isinstance(source, Endpoint) else f"engine {source.key}"
