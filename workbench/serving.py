"""Servers as jobs: any command that serves OpenAI's API, started, watched and stopped.

The job starts the command, asks its health until it answers, and stays with it. When whoever
started it is gone (a kernel, a terminal), so is the server, unless it was asked to stay. It ends
in one sentence, with the end of the log where it ended by itself.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from workbench import store, usage
from workbench.addresses import obstacle, place_of, url_of
from workbench.containers import Container
from workbench.endpoint import Endpoint
from workbench.engine import Engine
from workbench.errors import InputError, JobError, StoreError
from workbench.files import read_end
from workbench.gpus import Gpu, list_gpus
from workbench.heartbeat import heartbeat
from workbench.jobs import Job, attach_or_start, end_leftovers, list_jobs, newest, running
from workbench.journal import ENDED, Journal
from workbench.owner import Owner
from workbench.process import describe_exit
from workbench.processes import kill
from workbench.server_process import ServerProcess
from workbench.trtllm_export import launch_here
from workbench.units import format_seconds

KIND = "serve"
"""What these jobs call themselves in their request."""

TAIL = 600
"""Most characters of a log that a sentence ends with."""

_INTERVAL = 0.2
"""Seconds between two looks at the server and at whoever started it."""

_WATCH = 3.0
"""Seconds between two questions for its health once it serves."""

_ANSWER = 5.0
"""Seconds that it has for an answer then: a busy one takes its time. Meanwhile nobody looks whether
its owner is gone, so that it is less than `_LEAVING` by what ending it takes."""

_LEAVING = 15.0
"""Seconds to wait for a server that ends with its owner: to notice, to ask it and to kill it."""


@dataclass(frozen=True)
class Server:
    """What to start, and how to know that it serves.

    Attributes:
        command: The program and its arguments.
        url: Where it listens, such as http://127.0.0.1:8000.
        health: Path that answers 200 once it serves (trtllm-serve, vLLM, llama.cpp: /health).
        start_limit: Seconds that it may take until then.
        stay: Whether it goes on when the process that started it has ended.
        engine: Key of the engine of the store that it reads, which nobody removes meanwhile.
        model: What it serves, as a build spec names it, where that is known; of an engine nobody
            has to say it.
        variables: Added to its environment. They stand in the job's request: no secrets.
        image: ENGINE:IMAGE of a container that the command is of, as toolchains are named; nothing
            for one of this machine.
        reads: Files and directories that it reads in a container.
        devices: How many of the GPUs that it sees it takes, the first ones; 0 for all.
        host: The address that it listens on, where that is more than the URL's, such as 0.0.0.0.
    """

    command: tuple[str, ...]
    url: str
    health: str = "/health"
    start_limit: float = 600.0
    stay: bool = False
    engine: str = ""
    model: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    image: str = ""
    reads: tuple[str, ...] = ()
    devices: int = 0
    host: str = ""

    @classmethod
    def of(cls, job: Job) -> Self:
        """Return the server that a job was started for.

        Raises:
            JobError: The job is damaged, or of another kind.
        """
        values = job.request.get("server")
        if job.request.get("kind") != KIND or not isinstance(values, Mapping):
            raise JobError(f"The job {job.id} is no server.")
        lists = {name: tuple(values.get(name, ())) for name in ("command", "reads")}
        return cls(**{**values, **lists})

    @property
    def address(self) -> tuple[str, int]:
        """Host and port.

        Raises:
            InputError: The address has none.
        """
        parts = urlsplit(self.url)
        try:
            port = parts.port
        except ValueError:
            port = None
        if parts.scheme != "http" or not parts.hostname or not port:
            raise InputError(
                f"{self.url!r} is no address such as http://127.0.0.1:8000, with a port from 1 to "
                "65535."
            )
        return parts.hostname, port

    @property
    def place(self) -> tuple[str, int]:
        """Address and port on which it listens: the URL names one of several addresses at most.

        Raises:
            InputError: The address has none.
        """
        asked, port = self.address
        return self.host or asked, port

    def check(self) -> None:
        """Refuse what cannot work before anything is started.

        Raises:
            InputError: The command is empty or the address is none.
            JobError: The port is in use.
        """
        if not self.command:
            raise InputError("Say what to start: the command was empty.")
        host, port = self.place
        if why := obstacle(host, port):
            raise JobError(f"The server was not started: {why}")


def engine_server(engine: Engine, *, host: str, port: int, **options: Any) -> Server:
    """Return the server of an engine of the store: trtllm-serve with the engine's own limits.

    Args:
        engine: The engine.
        host: The address that it listens on; on any but this machine's own, others can use it.
        port: The port.
        options: Other fields of `Server`.

    Raises:
        StoreError: The engine cannot be served.
        ToolchainError: The toolchain has no trtllm-serve.
    """
    if engine.backend != "tensorrt_llm":
        raise StoreError(
            f"The engine {engine.key} is of the backend {engine.backend}, which brings no server. "
            "Engines of tensorrt_llm can be served; `workbench export` writes what runs others."
        )
    launch = launch_here(engine, host, port)
    return Server(
        launch.command,
        url_of(host, port),
        engine=engine.key,
        variables=launch.variables,
        image=launch.image,
        reads=launch.reads,
        devices=int(engine.limits.get("world_size") or 1),
        host=host,
        **options,
    )


def start_server(server: Server) -> tuple[Job, bool]:
    """Return the job that runs a server, started if none does; and whether it is new.

    Raises:
        InputError: The command is empty or the address is none.
        JobError: The port is in use, or the job could not be started.
    """
    last = newest(KIND, _wanted(server))
    if last and _goes_with_its_owner(last):
        with contextlib.suppress(TimeoutError):
            last.wait(_LEAVING)
    if last is None or last.state() in ENDED:
        if last:
            # A job that was killed outright could not stop its server any more.
            end_leftovers(last.id)
        server.check()
    # Who cancels it waits longer where there is a container to stop.
    where = {"toolchain": server.image} if server.image else {}
    request = {"server": asdict(server), "owner": Owner.current().record(), **where}
    return attach_or_start(KIND, request, _wanted(server))


def _goes_with_its_owner(job: Job) -> bool:
    """Say whether a server that runs is about to end, since whoever started it is gone."""
    if job.state() in ENDED or Server.of(job).stay:
        return False
    return _is_gone(Owner.from_record(job.request.get("owner")))


def find_server(server: Server) -> Job | None:
    """Return the job that runs this very command on this address, or None."""
    return running(KIND, _wanted(server))


def server_at(url: str) -> Server | None:
    """Return the server of ours that serves on this machine at an address, or None.

    Args:
        url: Where its API begins, in whatever form people write it.
    """
    for job in list_jobs():
        with contextlib.suppress(JobError):  # of another kind, or gone meanwhile
            server = Server.of(job)
            if place_of(server.url) == place_of(url) and job.state() not in ENDED:
                return server
    return None


def _wanted(server: Server) -> dict[str, Any]:
    where = {"image": server.image} if server.image else {}
    if server.host:
        # In a container the command listens on all addresses, whatever is published.
        where["host"] = server.host
    return {"command": list(server.command), "url": server.url, **where}


def await_server(job: Job, timeout: float | None = None) -> Endpoint:
    """Wait until the server of a job serves; return it as an endpoint.

    Raises:
        JobError: It ended before; says why.
        TimeoutError: It does neither after `timeout` seconds.
    """
    server = Server.of(job)
    for view in job.follow(timeout=timeout):
        if view.facts.get("serves") and view.end is None:
            return Endpoint(server.url)
    view = job.view()
    text = view.end.get("text", "") if view.end else ""
    raise JobError(text or f"The server of the job {job.id} is gone ({view.state()}).")


def run_server_job(journal: Journal) -> dict[str, Any]:
    """Run the server of a job to its end; return the last word of its journal.

    Stages: `start` and `serve`. Facts: `serves` and `url` once it does, and `unhealthy`, since when
    and why, which is empty when it is healthy again (`listing.health_line`).

    Raises:
        JobError: It could not be started, never served, or ended by itself.
        StoreError: Its engine is gone or damaged.
    """
    job = Job(journal.path)
    server = Server.of(job)
    owner = None if server.stay else Owner.from_record(job.request.get("owner"))
    server.check()
    where = f" in {server.image}" if server.image else ""
    journal.stage("start", f"start {server.command[0]}{where}")
    with contextlib.ExitStack() as stack:
        if server.engine:
            stack.callback(usage.claim(server.engine).release)
            store.sound_engine(server.engine)
        stack.enter_context(heartbeat(journal, functools.partial(watched_gpus, server)))
        process = _start(server)
        try:
            if process.container_name:
                journal.note(f"It runs in the container {process.container_name}.")
            _await_health(server, process, job, owner)
            journal.fact(serves=True, url=server.url)
            journal.stage("serve", f"serve on {server.url}")
            return {"text": _attend(server, process, journal, owner)}
        finally:
            process.stop()
            kill(job.path)  # also what has left its process group


def watched_gpus(server: Server) -> Sequence[Gpu]:
    """Return the GPUs that a server takes: what it does to others is not its memory."""
    seen = list_gpus(server.variables.get("CUDA_VISIBLE_DEVICES"))
    return seen[: server.devices or None]


def _start(server: Server) -> ServerProcess:
    """Start the command; what it prints goes into the job's log, as ours does."""
    container = Container.parse(server.image) if server.image else None
    if container is None:
        return ServerProcess.here(server.command, server.variables)
    return ServerProcess.inside(
        container,
        server.command,
        server.variables,
        readable=[Path(name) for name in server.reads],
        address=server.place,
    )


def _await_health(server: Server, process: ServerProcess, job: Job, owner: Owner | None) -> None:
    """Return when the server answers that it is healthy.

    Raises:
        JobError: It ended before, or the time is over.
    """
    deadline = time.monotonic() + server.start_limit
    with httpx.Client(timeout=5.0, trust_env=False) as client:
        while True:
            if (status := process.status()) is not None:
                raise JobError(f"The server {describe_exit(status)} while it started.{_tail(job)}")
            answer = _answer(client, server)
            # It may have been another's answer, if ours has ended in the meantime.
            if not answer and process.status() is None:
                return
            if time.monotonic() > deadline:
                raise JobError(
                    f"The server was ended: {server.url}{server.health} answered {answer} after "
                    f"{format_seconds(server.start_limit)}, where 200 means that it "
                    f"serves.{_tail(job)}"
                )
            if _is_gone(owner):
                raise JobError("The server was ended: whoever started it is gone.")
            time.sleep(_INTERVAL)


def _answer(client: httpx.Client, server: Server) -> str:
    """Return what a server answers in place of 200 when it is asked for its health, or nothing."""
    try:
        code = client.get(server.url + server.health).status_code
    except httpx.HTTPError:
        return "nothing"
    return "" if code == httpx.codes.OK else f"status {code}"


def _attend(server: Server, process: ServerProcess, journal: Journal, owner: Owner | None) -> str:
    """Stay until the server ends, or whoever started it does; say which.

    Raises:
        JobError: The server ended by itself, and not well.
    """
    # A connection that is kept would be all that a server of one thread attends to.
    limits = httpx.Limits(max_keepalive_connections=0)
    health, following = "", time.monotonic() + _WATCH
    with httpx.Client(timeout=_ANSWER, limits=limits, trust_env=False) as client:
        while True:
            if (status := process.status(_INTERVAL)) is not None:
                if status == 0:
                    return "The server ended by itself."
                tail = _tail(Job(journal.path))
                raise JobError(f"The server {describe_exit(status)} while it served.{tail}")
            if _is_gone(owner):
                return "The server was ended: whoever started it is gone."
            if time.monotonic() >= following:
                health = _note_health(journal, health, _answer(client, server))
                following = time.monotonic() + _WATCH


def _note_health(journal: Journal, before: str, answer: str) -> str:
    """Journal that a server is not healthy any more, or is again; return what was told last."""
    if bool(before) == bool(answer):
        return before
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    with contextlib.suppress(OSError):  # a full disk ends no server: the next look tries again
        journal.fact(unhealthy=f"since {now} (it answers {answer})" if answer else "")
        return answer
    return before


def _is_gone(owner: Owner | None) -> bool:
    return owner is not None and owner.presence() == "gone"


def _tail(job: Job) -> str:
    """Return the end of the log as the end of a sentence, or nothing."""
    if text := read_end(job.log, 4 * TAIL).strip():
        return f" Its log ends: {text[-TAIL:].strip()}"
    return " Its log is empty."
