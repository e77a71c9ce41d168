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
from workbench.notebook import headless
from workbench.serving import Server, await_server, find_server, start_server
from workbench.units import printable
from workbench.widgets.panel import Panel
from workbench.widgets.progress import Progress


class ServePanel(Panel):
    """Runs one server as a job, which ends with this kernel unless it was asked to stay.

    Running the cell again attaches to the server that runs. `endpoint` is what it serves.
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
        self._mine = False
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
            job, self._mine = start_server(self._server)
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
        self._job, new = start_server(self._server)
        self._mine = self._mine or new
        self.endpoint = await_server(self._job)
        self._show(self._job, self._job.view())
        return self.endpoint

    def close(self) -> None:
        """Take the panel away, and the server with it where this panel started it for itself."""
        if self._job and self._mine and not self._server.stay:
            self._job.cancel()
        super().close()

    def plain(self) -> str:
        """Return state, address and stages as plain text."""
        lines = self.progress.lines() if self._job else ["No server was started."]
        return "\n".join([*lines, self._words()])

    def _words(self) -> str:
        return f"It serves on {self.endpoint.url}" if self.endpoint else "It does not serve."

    def _follow_soon(self, job: Job) -> None:
        self._job = job
        threading.Thread(target=self._follow, args=(job,), daemon=True).start()

    def _follow(self, job: Job) -> None:
        """Show the job until it has ended (runs in a thread)."""
        with self.boundary():
            for view in job.follow(0.2):
                if self._job is not job:
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
        words = html.escape(printable(self._words()))
        self._health.value = f'<div role="status">{words}</div>'
        self.progress.show(job, view)
        self.touch()
