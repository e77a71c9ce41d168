"""A panel that has something open: it loads it, says what it is, and lets go of it."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Mapping

import ipywidgets as widgets

from workbench import shared, store
from workbench.endpoint import Endpoint
from workbench.engine import Engine
from workbench.errors import RequestError, SessionError, WorkbenchError
from workbench.opened import Opened
from workbench.session import LOADING, Session
from workbench.sources import Source, opened_line, source_label, source_name
from workbench.units import printable
from workbench.widgets.cells import take_place
from workbench.widgets.loading import shown_seconds, watch
from workbench.widgets.panel import Panel
from workbench.widgets.source import EngineSource


class LoadedPanel(Panel):
    """What is open here stays open until it is unloaded, or something else is opened here.

    Panels share what is open. A panel that the same cell makes later takes the place of this one.
    """

    # Also for `close`, which is called even where __init__ has failed.
    _session: Opened | None = None
    _source: Source | None = None
    _timer: shared.IdleTimer | None = None
    _retired = False
    """Whether another panel has taken the place of this one, and nobody went on with it."""
    _changing: Source | None = None
    """What is about to take the place of something else that is open."""

    def __init__(
        self,
        title: str,
        layout: Callable[[], list[widgets.Widget]],
        explanations: Mapping[str, str],
        idle_minutes: float | None,
    ) -> None:
        """Show the panel, with nothing open.

        Args:
            title: Heading.
            layout: Gives what is in it, when the title line and the buttons are there.
            explanations: Help texts by label.
            idle_minutes: Unload when nothing was done for so long; None never does.
        """
        self._opening = threading.RLock()
        self._timer = shared.IdleTimer(idle_minutes, self._unload_idle)
        self._idle_minutes = idle_minutes
        self._title = widgets.HTML()
        self._close_button = widgets.Button(
            description="Unload", disabled=True, tooltip="End the engine's process, free its memory"
        )
        self._load_button = widgets.Button(
            description="Load again", disabled=True, tooltip="Open what was open before"
        )
        super().__init__(title, layout(), explanations)
        self._close_button.on_click(lambda _: self._unload_in_background())
        self._load_button.on_click(lambda _: self._reopen_in_background())
        take_place(self)

    def _is_idle(self) -> bool:
        """Say whether nothing is being done with what is open."""
        raise NotImplementedError

    def _end_work(self) -> None:
        """End what is being done with what is open."""
        raise NotImplementedError

    def _take(self, session: Opened) -> None:
        """Take note of what has been opened."""

    def _forget(self) -> None:
        """Show nothing of the source that was open before any more."""

    def _follow(self, source: EngineSource | Source | str) -> None:
        """Open a source in the background when it is there."""
        self._show_title("waiting for an engine")
        if isinstance(source, EngineSource):
            source.on_engine(self._load_next)
        else:
            self.load(store.find_engine(source) if isinstance(source, str) else source)

    def _load_next(self, engine: Engine) -> None:
        if not self._retired:
            self.load(engine)

    def load(self, source: Source) -> None:
        """Open an engine or a server in the background; this panel lets go of the one before it."""
        self._retired = False
        self.in_background(self._open, source)

    def unload(self) -> None:
        """Let go of the engine; its process ends unless another panel generates with it."""
        self._unload("")

    def retire(self) -> None:
        """Let go of the engine, which stays open: another panel has taken the place of this one.

        Whoever still has this panel in a variable may go on with it. This does not wait for an
        engine that loads; see `_refuse_retired`.
        """
        self._retired = True
        self._stop_timer()
        self._session = None
        shared.forget(self)

    def close(self) -> None:
        """Let go of the engine, which stays open for other panels, and leave the page."""
        self.retire()
        super().close()

    def _open(self, source: Source) -> None:
        with self._opening:  # or what is shown and what is open could be of two sources
            try:
                self._refuse_retired()
                self._open_alone(source)
                self._refuse_retired()
            finally:
                self._changing = None

    def _refuse_retired(self) -> None:
        """Let go of what was loaded for a panel whose place another one has taken meanwhile.

        Raises:
            SessionError: That is so.
        """
        if self._retired:
            self.retire()
            raise SessionError(
                "Another panel has taken the place of this one while it loaded. Send again to go "
                "on with this one."
            )

    def _open_alone(self, source: Source) -> None:
        other = self._source is not None and not self._has(source)
        self._changing = source if other else None
        # An engine needs the room of the one before it. A server needs none, and may be out of
        # reach: then what was open stays.
        if other and not isinstance(source, Endpoint):
            self._leave()
            self._source, other = source, False
        self.show_error("")
        self._load_button.disabled = True
        try:
            session = self._acquire(source)
        except WorkbenchError as error:
            self._source = self._source or source
            self._show_what_is_open()
            self.show_error(str(error))  # now, for a question that waits for this source
            raise
        if other:
            self._leave()
        self._source = source
        watched, self._session = self._session is session, session
        if isinstance(session, Session) and not watched:
            watch(self, session)
        self._take(session)
        self._show_what_is_open()
        self._restart_timer()

    def _has(self, source: Source) -> bool:
        """Say whether it is this source that was opened last."""
        return self._source is not None and source_name(self._source) == source_name(source)

    def _check_awaited(self, source: Source) -> None:
        """Refuse a question that has waited for a source which is not the one that is open now.

        Raises:
            RequestError: That is so.
        """
        if not self._has(source):
            raise RequestError(
                f"{self._error_text} The question was for {_named(source)}, which is not what is "
                "open; nobody was asked. Send it again to ask what is open.".strip()
            )

    def _acquire(self, source: Source) -> Opened:
        """Open a source, and say meanwhile what it does, for how long, and what it needs."""
        need, name = shared.room_line(source), _named(source)
        doing: list[str] = []

        def show(*seconds: str) -> None:
            words = ", ".join([*doing[-1:], *seconds])
            self._show_title(f"loading {name} ... {words}. {need}")

        def begin(stage: str) -> None:
            doing.append(LOADING.get(stage, stage))
            show()

        with shown_seconds(show):
            return shared.acquire(source, holder=self, stage=begin)

    def _reopen(self) -> None:
        """Load again what is not loaded any more.

        Raises:
            SessionError: Nothing was chosen.
        """
        if self._source is None:
            raise SessionError("No engine is loaded. Build one first.")
        self._open(self._source)

    def _reopen_in_background(self) -> None:
        self._retired = False
        self.in_background(self._reopen)

    def _leave(self) -> None:
        """Let go of what is open, for another source; what another panel shows stays open."""
        if self._source and not shared.let_go(self._source, self):
            self._end_work()
            self._session = None
        else:
            self.unload()
        self._forget()

    def _unload_in_background(self) -> None:
        """Unload; ending a worker takes seconds, in which the kernel can run other cells."""
        self._close_button.disabled = True
        self._show_title("unloading ...")
        self.in_background(self.unload)

    def _unload(self, why: str) -> None:
        with self._opening:
            self._stop_timer()
            self._end_work()
            # First, so that whoever watches the session knows that this was wanted.
            self._session = None
            closed = True
            if self._source:
                shared.let_go(self._source, self)
                closed = shared.release(self._source)
                what = "is not loaded" if closed else "is busy, and stays loaded"
                self._show_title(f"{_named(self._source)} {what}{why}; Send loads it again")
                self._load_button.disabled = False
            self._close_button.disabled = closed
            self.show_error("")

    def _unload_idle(self) -> None:
        """Unload after a while without work (called by the timer's thread).

        Not what another panel still shows: the one that is idle last unloads it.
        """
        session = self._session
        with self.boundary(), self._opening:
            # While this waited, somebody may have asked, or opened something.
            if not self._is_idle() or self._session is not session:
                return
            if session is None or self._source is None:
                return
            if shared.let_go(self._source, self):
                self._unload(f" after {self._idle_minutes:g} idle minutes")
            else:
                self._restart_timer()

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.stop()

    def _restart_timer(self) -> None:
        if self._timer and self._session is not None:
            self._timer.restart()

    def shows(self, session: Session) -> bool:
        """Say whether it is this session that is open here."""
        return self._session is session

    def ended(self, session: Session) -> None:
        """Say that a session has ended while nobody asked it anything, and why."""
        self._show_what_is_open()
        self.show_error(str(session.error or ""))

    def _show_what_is_open(self) -> None:
        """Say what the source is, and whether it is loaded."""
        session, source = self._session, self._source
        loaded = session is not None and not session.closed
        if source is None:
            self._show_title("")
        elif session is not None and loaded:
            self._show_title(opened_line(source, session))
        else:
            self._show_title(f"{_named(source)} is not loaded; Send loads it again")
        # Last, or what a click on them says would be written over.
        self._close_button.disabled = not loaded
        self._load_button.disabled = loaded or source is None

    def _show_title(self, text: str) -> None:
        shown = html.escape(printable(text))
        self._title.value = f'<span class="quiet" role="status">{shown}</span>'
        self.touch()


def _named(source: Source) -> str:
    return source_label(source) if isinstance(source, Endpoint) else f"engine {source.key}"
