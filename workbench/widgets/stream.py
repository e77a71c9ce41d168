"""The stream panel: a prompt, sampling options, live tokens, Stop."""

from __future__ import annotations

import html
import threading
from typing import Any

import ipywidgets as widgets

from workbench import store
from workbench.engine import Engine
from workbench.errors import RequestError, SessionError, WorkbenchError
from workbench.flags import typed
from workbench.generation import Generation
from workbench.notebook import headless
from workbench.opening import open_engine
from workbench.sampling import Sampling
from workbench.session import Session
from workbench.spec import Parameter, parameters_of
from workbench.summaries import milliseconds, timing_line
from workbench.units import format_bytes
from workbench.widgets.panel import Panel
from workbench.widgets.source import EngineSource
from workbench.widgets.tokens import TokenView

SHOWN = ("max_tokens", "temperature", "top_k", "top_p", "seed", "ignore_eos")
"""Sampling options that the panel shows; all of them can be given in code."""

_OPTION = widgets.Layout(width="210px")
_STYLE = {"description_width": "90px"}

_SESSIONS: dict[str, Session] = {}
"""Open sessions of this kernel by engine: running a cell again makes a new panel, and loading the
engine a second time would double its memory."""

_SESSIONS_LOCK = threading.Lock()


class StreamPanel(Panel):
    """Streams generations from an engine; `record` holds the last one as plain values."""

    def __init__(
        self,
        source: EngineSource | Engine | str,
        *,
        prompt: str = "write a haiku about latency",
        start: bool = False,
        **options: Any,
    ) -> None:
        """Show the panel.

        Args:
            source: A panel from which engines come (each of them is opened), an engine, or a key.
            prompt: What stands in the prompt area.
            start: Send the prompt as soon as the engine is open. Headless, this returns when
                the answer is complete.
            options: Sampling options, fields of `Sampling`.

        Raises:
            WorkbenchError: An option is wrong; headless also what went wrong in the work.
        """
        self._sampling = Sampling.parse(options)
        self._session: Session | None = None
        self._engine: Engine | None = None
        self._generation: Generation | None = None
        self._start = start
        self._idle = threading.Event()
        self._idle.set()
        self.record: dict[str, Any] | None = None
        self._view = TokenView()
        self._title = widgets.HTML()
        self._prompt = widgets.Textarea(
            value=prompt,
            placeholder="What to ask",
            layout=widgets.Layout(width="100%", height="64px"),
        )
        self._options = {name: _control(p, getattr(self._sampling, name)) for name, p in _shown()}
        self._send_button = widgets.Button(
            description="Send", button_style="primary", disabled=True, tooltip="Generate"
        )
        self._stop_button = widgets.Button(
            description="Stop", disabled=True, tooltip="Stop this generation at once"
        )
        self._close_button = widgets.Button(
            description="Unload", disabled=True, tooltip="End the engine's process, free its memory"
        )
        buttons = widgets.HBox([self._send_button, self._stop_button, self._close_button])
        grid = widgets.Box(
            list(self._options.values()),
            layout=widgets.Layout(flex_flow="row wrap", grid_gap="4px 16px"),
        )
        super().__init__(
            "Stream",
            [self._title, self._prompt, grid, buttons, self._view],
            {name: parameter.help for name, parameter in _shown()},
        )
        self._send_button.on_click(lambda _: self.send())
        self._stop_button.on_click(lambda _: self.stop())
        self._close_button.on_click(lambda _: self.unload())
        self._attach(source)

    def _attach(self, source: EngineSource | Engine | str) -> None:
        """Open the engine of the source: now if headless, else when it is there."""
        if headless():
            engine = source.wait() if isinstance(source, EngineSource) else source
            self._open(store.find_engine(engine) if isinstance(engine, str) else engine)
            if self._start:
                self._generate(self._prompt.value, self._sampling)
                self.wait()
            return
        self._show_title("waiting for an engine")
        if isinstance(source, EngineSource):
            source.on_engine(self.load)
        else:
            self.load(store.find_engine(source) if isinstance(source, str) else source)

    def load(self, engine: Engine) -> None:
        """Load an engine in the background; the one before it is unloaded."""
        threading.Thread(target=self._open_and_start, args=(engine,), daemon=True).start()

    def send(self, prompt: str | None = None) -> None:
        """Generate; returns at once, the tokens appear in the panel."""
        with self.boundary():
            if not self._idle.is_set():
                raise RequestError("A generation is running. Press Stop, or wait for its end.")
            sampling = self._sampling.replace(
                **{
                    name: typed(self._options[name].value, parameter)
                    for name, parameter in _shown()
                }
            )
            self._generate(self._prompt.value if prompt is None else prompt, sampling)

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
        self.stop()
        if self._generation:
            self._idle.wait(10.0)
        if self._engine:
            _release(self._engine)
            self._show_title(f"engine {self._engine.key} is not loaded; Send loads it again")
        self._session = None
        self._close_button.disabled = True
        self.show_error("")

    def plain(self) -> str:
        """Return prompt, text and timings as plain text."""
        lines = [f"> {self._prompt.value}", "", self._view.text]
        if self.record:
            lines += ["", timing_line(self.record)]
        return "\n".join(lines)

    def _open_and_start(self, engine: Engine) -> None:
        with self.boundary():
            self._open(engine)
            if self._start:
                self._start = False
                self.send()

    def _open(self, engine: Engine) -> None:
        if self._engine and _name(self._engine) != _name(engine):
            self.unload()
            self._view.reset()
        self.show_error("")
        self._show_title(f"loading engine {engine.key} ...")
        self._engine = engine
        try:
            self._session = _acquire(engine)
        except WorkbenchError:
            self._show_title(f"engine {engine.key} is not loaded")
            raise
        self._send_button.disabled = self._close_button.disabled = False
        limits = self._session.limits
        memory = self._session.memory()
        self._show_title(
            f"engine {engine.key} on {engine.backend} · batch {limits['max_batch_size']} · "
            f"prompt up to {limits['max_input_len']} · output up to {limits['max_output_len']} "
            f"tokens · memory {format_bytes(memory) if memory else 'unknown'}"
        )

    def _generate(self, prompt: str, sampling: Sampling) -> None:
        if self._session is None or self._session.closed:
            self._reopen()
        assert self._session is not None  # noqa: S101 - _reopen raises without one
        self.show_error("")
        chat: Any = [{"role": "user", "content": prompt}]
        generation = self._session.generate(
            chat if self._session.facts["chat_template"] else prompt, sampling
        )
        self._idle.clear()
        self._generation = generation
        self._view.reset()
        self._send_button.disabled, self._stop_button.disabled = True, False
        threading.Thread(target=self._show, args=(generation,), daemon=True).start()

    def _reopen(self) -> None:
        """Load the engine again after its worker died.

        Raises:
            SessionError: No engine was chosen.
        """
        if self._engine is None:
            raise SessionError("No engine is loaded. Build one first.")
        self._open(self._engine)

    def _show(self, generation: Generation) -> None:
        """Pass deltas on to the view until the end (runs in a thread)."""
        done = threading.Event()
        queue = threading.Thread(target=self._show_queue, args=(generation, done), daemon=True)
        queue.start()
        with self.boundary():
            try:
                for delta in generation:
                    self._view.append(delta.text)
                    self._view.status("decode", **_facts(generation))
            except WorkbenchError as error:
                self.show_error(str(error))
            finally:
                done.set()
                queue.join()  # its word would come after the last one
                self.record = generation.record()
                self._view.finish(_ending(generation), **_facts(generation))
                self._send_button.disabled = False
                self._stop_button.disabled = True
                self.touch()
                self._idle.set()

    def _show_queue(self, generation: Generation, done: threading.Event) -> None:
        """Name the phases before the first token, while they last."""
        while generation.phase in ("queued", "prefill") and not done.wait(0.1):
            phase = generation.phase
            if phase == "queued" and generation.queue_place:
                with self.boundary():
                    self._view.status(
                        "queued", place=generation.queue_place, because=generation.queue_reason
                    )

    def _show_title(self, text: str) -> None:
        self._title.value = f'<span class="quiet" role="status">{html.escape(text)}</span>'
        self.touch()


def _shown() -> list[tuple[str, Parameter]]:
    declared = parameters_of(Sampling)
    return [(name, declared[name]) for name in SHOWN]


def _control(parameter: Parameter, value: Any) -> widgets.Widget:
    if parameter.kind == "switch":
        return widgets.Checkbox(
            value=value,
            description=parameter.name,
            tooltip=parameter.help,
            layout=_OPTION,
            style=_STYLE,
        )
    return widgets.Text(
        value="" if value is None else str(value),
        description=parameter.name,
        placeholder=parameter.none_means,
        tooltip=parameter.help,
        layout=_OPTION,
        style=_STYLE,
    )


def _facts(generation: Generation) -> dict[str, Any]:
    """Return what the status line says about a generation."""
    timings = generation.timings
    facts: dict[str, Any] = {"tokens": len(timings.tokens)}
    if timings.ttft is not None:
        facts["TTFT"] = milliseconds(timings.ttft)
    if timings.tokens_per_second:
        facts["tokens/s"] = f"{timings.tokens_per_second:.1f}"
    if generation.finish_reason in ("stop", "length"):
        facts["ended by"] = generation.finish_reason
    if generation.finish_reason:
        record = generation.record()
        if record["itl"]:
            facts["ITL p50"] = milliseconds(record["itl"]["p50"])
            facts["ITL p99"] = milliseconds(record["itl"]["p99"])
    return facts


def _ending(generation: Generation) -> Any:
    phase = generation.phase
    return phase if phase in ("finished", "stopped", "failed") else "failed"


def _name(engine: Engine) -> str:
    """Return what tells sessions apart: the engine and the limits that it is loaded with."""
    return f"{engine.key} {sorted(engine.limits.items())}"


def _acquire(engine: Engine) -> Session:
    """Return the kernel's session of an engine, opened if there is none that lives."""
    with _SESSIONS_LOCK:
        session = _SESSIONS.get(_name(engine))
        if session is None or session.closed:
            _close_idle()
            session = _SESSIONS[_name(engine)] = open_engine(engine)
        return session


def _close_idle() -> None:
    """Close the sessions that nobody generates with, so that engines do not pile up in memory.

    Which panels are still on a page, a kernel does not know; one that needs its engine again
    loads it when Send is pressed.
    """
    for key, session in list(_SESSIONS.items()):
        if not session.active:
            del _SESSIONS[key]
            session.close()


def _release(engine: Engine) -> None:
    """Close the session of an engine unless another panel is generating with it.

    A panel that still shows the engine loads it again when Send is pressed.
    """
    with _SESSIONS_LOCK:
        session = _SESSIONS.get(_name(engine))
        if session and not session.active:
            del _SESSIONS[_name(engine)]
            session.close()
