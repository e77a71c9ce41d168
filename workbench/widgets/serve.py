"""The serve panel: start a server, see whether it is healthy, read its log, stop it."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable

import ipywidgets as widgets

from workbench.endpoint import Endpoint
from workbench.errors import JobError
from workbench.jobs import Job
from workbench.journal import ENDED, View
from workbench.listing import health_line
from workbench.notebook import headless
from workbench.owner import Owner
from workbench.serving import Server, await_server, find_server, start_server
from workbench.units import printable
from workbench.widgets.cells import take_place
from workbench.widgets.panel import Panel
from workbench.widgets.progress import Progress


class ServePanel(Panel):
    """Runs one server as a job, which ends with this kernel unless it was asked to stay.

    Running the cell again attaches to the server that runs; where another one is asked for, the
    one before ends first, which has the memory. `endpoint` is what it serves.
    """

    def __init__(self, server: Server, *, start: bool = False) -> None:
        """Show the panel.

        Args:
            server: What to start.
            start: Start it at once. Headless, this returns when it serves.

        Raises:
            WorkbenchError: Headless, why it does not serve.
        """
        self._server = server
        self._job: Job | None = None
        self._retired = False
        self._listeners: list[Callable[[Endpoint], object]] = []
        self.endpoint: Endpoint | None = None
        self.progress = Progress(log=True)
        self.start_button = widgets.Button(
            description="Start", button_style="primary", tooltip="Start the server"
        )
        self.stop_button = widgets.Button(
            description="Stop", disabled=True, tooltip="End the server and all that it started"
        )
        self._health = widgets.HTML()
        buttons = widgets.HBox([self.start_button, self.stop_button, self.progress.state])
        super().__init__("Serve", [buttons, self._health, self.progress])
        with self.boundary():
            for former in take_place(self):
                if isinstance(former, ServePanel):
                    former.make_room(server)
        self.start_button.on_click(lambda _: self.start())
        self.stop_button.on_click(lambda _: self.stop())
        if start and headless():
            self.wait()
        elif start:
            self.start()
        elif job := find_server(server):
            self._follow_soon(job)

    @property
    def job_id(self) -> str | None:
        """Id of the job that is shown, or None."""
        return self._job.id if self._job else None

    def on_endpoint(self, listener: Callable[[Endpoint], object]) -> None:
        """Call `listener` whenever the server has begun to serve, and at once where it does."""
        self._listeners.append(listener)
        if self.endpoint:
            listener(self.endpoint)

    def start(self) -> None:
        """Start the server, or attach to the one that runs; errors show in the panel."""
        self.show_error("")
        with self.boundary():
            job, _ = start_server(self._server)
            self._follow_soon(job)

    def stop(self) -> None:
        """End the server; returns at once, the panel shows the rest."""
        if job := self._job:
            self.stop_button.disabled = True
            self.progress.say("stopping ...")
            self.in_background(job.cancel)

    def wait(self) -> Endpoint:
        """Start the server if it does not run, and wait until it serves; return what it serves.

        Raises:
            WorkbenchError: It could not be started, or ended before it served.
        """
        self._retired = False
        self._job, _ = start_server(self._server)
        self.endpoint = await_server(self._job)
        self._show(self._job, self._job.view())
        return self.endpoint

    def retire(self) -> None:
        """Leave the server to the panel that has taken the place of this one."""
        self._retired = True

    def close(self) -> None:
        """Take the panel away, and the server with it where it is this kernel's and may not stay.

        Not where another panel has taken the place of this one: it is that one's server then.
        """
        if self._job and not self._retired and self._ends_with_kernel(self._job):
            self._job.cancel()
        super().close()

    def make_room(self, server: Server) -> None:
        """End the server for another one that is asked for in its place."""
        same = (server.command, server.url) == (self._server.command, self._server.url)
        if self._job and not same and self._ends_with_kernel(self._job):
            self._job.cancel()

    def plain(self) -> str:
        """Return state, address and stages as plain text."""
        lines = self.progress.lines() if self._job else ["No server was started."]
        return "\n".join([*lines, self._words()])

    def _ends_with_kernel(self, job: Job) -> bool:
        """Say whether a server was started by this kernel, and not asked to stay."""
        if self._server.stay or Server.of(job).stay:
            return False
        return Owner.from_record(job.request.get("owner")) == Owner.current()

    def _words(self) -> str:
        if self.endpoint is None:
            return "It does not serve."
        view = self.progress.view
        why = health_line(view.facts) if view else ""
        return f"It is {why}: {self.endpoint.url}" if why else f"It serves on {self.endpoint.url}"

    def _follow_soon(self, job: Job) -> None:
        self._job, self._retired = job, False
        threading.Thread(target=self._follow, args=(job,), daemon=True).start()

    def _follow(self, job: Job) -> None:
        """Show the job until it has ended (runs in a thread)."""
        with self.boundary():
            for view in job.follow(0.2):
                if self._retired or self._job is not job:
                    return
                self._show(job, view)
            if view.state() != "cancelled" and view.end and view.end.get("text"):
                raise JobError(str(view.end["text"]))

    def _show(self, job: Job, view: View) -> None:
        ended = view.state() in ENDED
        serves = bool(view.facts.get("serves")) and not ended
        before, self.endpoint = self.endpoint, Endpoint(self._server.url) if serves else None
        if self.endpoint and not before:
            for listener in self._listeners:
                listener(self.endpoint)
        self.start_button.disabled, self.stop_button.disabled = not ended, ended
        self.progress.show(job, view)
        words = html.escape(printable(self._words()))
        self._health.value = f'<div role="status">{words}</div>'
        self.touch()
