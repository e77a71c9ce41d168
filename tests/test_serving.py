"""Servers as jobs: real ones serve and stop; broken ones end in a sentence; none is left over."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.faults import until
from tests.servers import llama_cpp
from workbench import jobs
from workbench.addresses import obstacle, place_of
from workbench.build import DEMO_MODEL
from workbench.cli import main
from workbench.console import watch_server
from workbench.errors import InputError, JobError
from workbench.jobs import Job
from workbench.journal import ENDED
from workbench.listing import health_line
from workbench.processes import processes_of
from workbench.serving import Server, await_server, server_at, start_server
from workbench.session import Session

LISTENING = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(sys.argv[2])); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.fixture(autouse=True)
def nothing_is_left(home: Path) -> Iterator[None]:
    yield
    for job in jobs.list_jobs():
        job.cancel()


def _python(code: str, port: int, *words: str, **options: object) -> Server:
    command = (sys.executable, "-c", code, str(port), *words)
    return Server(command, f"http://127.0.0.1:{port}", **options)  # type: ignore[arg-type]


def _failure(server: Server) -> str:
    job, _ = start_server(server)
    with pytest.raises(JobError) as caught:
        await_server(job, 60.0)
    until(lambda: processes_of(job.path) == [])
    return str(caught.value)


def test_a_real_server_serves_the_notebooks_text_and_stops(
    demo_session: Session, tmp_path: Path, port: int
) -> None:
    script = str(Path(llama_cpp.__file__))
    command = (sys.executable, script, str(DEMO_MODEL), str(tmp_path / "demo.gguf"), str(port))
    job, new = start_server(Server(command, f"http://127.0.0.1:{port}"))
    assert new
    chat = [{"role": "user", "content": "write a haiku about latency"}]
    with await_server(job, 120.0).open() as session:
        text = session.generate(chat, max_tokens=40).wait(60.0).text
    assert text == demo_session.generate(chat, max_tokens=40).wait().text
    assert start_server(Server(command, f"http://127.0.0.1:{port}")) == (job, False)
    assert job.cancel() == "cancelled"
    until(lambda: processes_of(job.path) == [])
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 1.0)


def test_a_port_in_use_is_a_sentence_before_anything_starts(port: int) -> None:
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(JobError, match=rf"port {port} of 127\.0\.0\.1 cannot be used \(address alr"),
    ):
        start_server(_python(LISTENING, port, "200"))
    assert jobs.list_jobs() == []


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1"])
def test_an_address_of_another_machine_is_a_sentence(port: int, host: str) -> None:
    # The second one is reserved for documentation (RFC 5737).
    with pytest.raises(JobError, match=rf"{host} is no address of this machine \(.*Give 127\.0"):
        start_server(Server(("any",), f"http://{host}:{port}"))
    assert jobs.list_jobs() == []


def test_one_that_dies_while_it_starts_is_a_sentence_with_the_end_of_its_log(port: int) -> None:
    told = _failure(_python("print('x' * 2000, 'no such engine'); raise SystemExit(3)", port))
    assert told.startswith("The server ended with status 3 while it started. Its log ends: xxx")
    assert told.endswith("x no such engine")
    assert len(told) < 700


def test_one_that_is_never_healthy_is_ended_with_what_it_answered(port: int) -> None:
    told = _failure(_python(LISTENING, port, "503", start_limit=0.5))
    assert f"http://127.0.0.1:{port}/health answered status 503 after 500 ms" in told
    assert '"GET /health HTTP/1.1" 503' in told


def test_one_that_never_listens_is_ended(port: int) -> None:
    told = _failure(_python("import time; time.sleep(600)", port, start_limit=0.5))
    assert "answered nothing after 500 ms, where 200 means that it serves. Its log is empty" in told


def test_a_program_that_is_not_there_is_a_sentence(port: int) -> None:
    told = _failure(Server(("no-such-server",), f"http://127.0.0.1:{port}"))
    assert told == (
        "no-such-server cannot be started: No such file or directory. Check that it is installed, "
        "and give its path."
    )


def test_a_server_of_ours_is_known_by_its_address_while_it_runs(port: int) -> None:
    server = _python(LISTENING, port, "200", model="owner/name")
    job, _ = start_server(server)
    await_server(job, 60.0)
    assert server_at(f"http://localhost:{port}/v1") == server
    assert server_at(f"http://localhost:{port + 1}/v1") is None
    job.cancel()
    assert server_at(f"http://localhost:{port}/v1") is None


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://127.0.0.1:8000/v1", "localhost:8000"),
        ("http://0.0.0.0:8000", "localhost:8000"),
        ("https://api.example.org/v1", "api.example.org"),
        ("http://a:b", "http://a:b"),
        ("somewhere", "somewhere"),
    ],
)
def test_an_address_has_one_form(url: str, place: str) -> None:
    assert place_of(url) == place


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::", "http://[::1]:8000"),
        ("::1", "http://[::1]:8000"),
        ("[::1]", "http://[::1]:8000"),
    ],
)
def test_a_server_is_asked_at_a_url_of_its_host(
    host: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Server] = []

    def start(server: Server) -> None:
        started.append(server)
        raise JobError

    monkeypatch.setattr("workbench.serve_commands.start_server", start)
    assert main(["serve", "--host", host, "--command", "x"]) == 1
    (server,) = started
    assert (server.url, server.place) == (url, (host.strip("[]"), 8000))


def test_a_machine_without_ipv6_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")

    monkeypatch.setattr(socket, "socket", refuse)
    assert obstacle("::1", 8000).startswith("::1 is no address of this machine (address family")


@pytest.mark.parametrize("url", ["127.0.0.1:80", "http://127.0.0.1", "http://a:b", "https://a:1"])
def test_an_address_without_host_and_port_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="is no address such as"):
        start_server(Server(("x",), url))


def test_one_that_dies_while_it_serves_ends_its_job_in_a_sentence(port: int) -> None:
    job, _ = start_server(_python(LISTENING, port, "200"))
    await_server(job, 60.0)
    _server(job).send_signal(signal.SIGSEGV)
    view = job.wait(30.0)
    assert view.state() == "failed"
    assert view.end
    assert view.end["text"].startswith("The server crashed (signal 11) while it served. Its log")


def _server(job: Job) -> psutil.Process:
    (process,) = (p for p in processes_of(job.path) if LISTENING in p.cmdline())
    return process


START = """
import sys
from workbench.serving import Server, await_server, start_server
code, port, stay = sys.argv[1], sys.argv[2], sys.argv[3] == "stay"
server = Server((sys.executable, "-c", code, port, "200"), f"http://127.0.0.1:{port}", stay=stay)
job, _ = start_server(server)
await_server(job, 60.0)
print(job.id, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("stay", [False, True])
def test_it_goes_with_the_kernel_unless_it_was_asked_to_stay(port: int, stay: bool) -> None:
    words = [LISTENING, str(port), "stay" if stay else "go"]
    with subprocess.Popen(
        [sys.executable, "-c", START, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as kernel:
        assert kernel.stdout
        job = Job.named(kernel.stdout.readline().decode().strip())
        assert job.state() == "running"
        os.kill(kernel.pid, signal.SIGKILL)
    if stay:
        # Longer than it takes to notice.
        with pytest.raises(TimeoutError):
            job.wait(1.0)
        assert job.cancel() == "cancelled"
    else:
        view = job.wait(30.0)
        assert view.end
        assert view.end["text"] == "The server was ended: whoever started it is gone."
    assert job.state() in ENDED
    until(lambda: processes_of(job.path) == [])


def _server_of_a_killed_kernel(port: int) -> Job:
    """Return a server that goes with its kernel, which is gone."""
    words = [LISTENING, str(port), "go"]
    with subprocess.Popen(
        [sys.executable, "-c", START, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as kernel:
        assert kernel.stdout
        job = Job.named(kernel.stdout.readline().decode().strip())
        os.kill(kernel.pid, signal.SIGKILL)
    return job


def test_who_asks_while_it_goes_with_its_owner_gets_one_that_stays(port: int) -> None:
    former = _server_of_a_killed_kernel(port)
    job, new = start_server(_python(LISTENING, port, "200"))
    assert (new, former.state()) == (True, "done")
    assert await_server(job, 60.0).url == f"http://127.0.0.1:{port}/v1"


def test_a_server_whose_job_was_killed_does_not_stand_in_the_way(port: int) -> None:
    server = _python(LISTENING, port, "200")
    former, _ = start_server(server)
    await_server(former, 60.0)
    owner = former.view().owner
    assert owner
    os.kill(owner.pid, signal.SIGKILL)
    until(lambda: former.state() == "killed")
    assert _server(former).is_running()
    job, new = start_server(server)
    assert new
    assert await_server(job, 60.0)
    until(lambda: processes_of(former.path) == [])


def test_a_retried_server_belongs_to_who_retries(port: int) -> None:
    former = _server_of_a_killed_kernel(port)
    former.wait(30.0)
    job = jobs.retry(former)
    assert await_server(job, 60.0)
    # Longer than it takes to notice that an owner is gone.
    with pytest.raises(TimeoutError):
        job.wait(1.0)


FICKLE = """
import http.server, pathlib, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(int(pathlib.Path(sys.argv[2]).read_text())); self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def fickle(port: int, folder: Path) -> tuple[Server, Callable[[str], object]]:
    """Return a server, and what changes the status that it answers."""
    path = folder / "status"

    def answer(status: str) -> None:
        temporary = folder / "next"  # it is never read half written
        temporary.write_text(status)
        temporary.replace(path)

    answer("200")
    return _python(FICKLE, port, str(path)), answer


def test_health_is_watched_and_only_its_changes_are_written(
    port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, answer = fickle(port, tmp_path)
    job, _ = start_server(server)
    await_server(job, 60.0)

    def asked() -> int:
        return job.log.read_text().count("GET /health")

    def told() -> list[str]:
        lines = (job.path / "journal.jsonl").read_text().splitlines()
        values = [json.loads(line).get("values", {}) for line in lines]
        return [value["unhealthy"] for value in values if "unhealthy" in value]

    answer("500")
    until(told)
    known = asked()
    until(lambda: asked() >= known + 2)
    (since,) = told()
    assert since.endswith("(it answers status 500)")
    assert main(["jobs"]) == 0
    shown = f"serve on http://127.0.0.1:{port}, not healthy {since}"
    assert shown in capsys.readouterr().out
    answer("200")
    until(lambda: told() == [since, ""])
    assert main(["jobs"]) == 0
    assert "not healthy" not in capsys.readouterr().out
    assert job.state() == "running"


def test_a_server_that_answers_nothing_is_not_healthy_and_is_left_alone(port: int) -> None:
    job, _ = start_server(_python(LISTENING, port, "200"))
    await_server(job, 60.0)
    _server(job).suspend()
    until(lambda: "(it answers nothing)" in health_line(job.view().facts))
    assert job.state() == "running"
    _server(job).resume()
    until(lambda: not health_line(job.view().facts))


def test_the_command_that_serves_tells_of_health(
    port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server, answer = fickle(port, tmp_path)
    job, _ = start_server(server)
    await_server(job, 60.0)
    answer("500")
    until(lambda: health_line(job.view().facts))
    watching = threading.Thread(target=watch_server, args=(job,))
    watching.start()
    seen = ""

    def shows(words: str) -> bool:
        nonlocal seen
        seen += capsys.readouterr().out
        return words in seen

    until(lambda: shows("It is not healthy since 2"))
    answer("200")
    until(lambda: shows("It is healthy again."))
    job.cancel()
    watching.join(30.0)


def test_jobs_lists_servers(port: int, capsys: pytest.CaptureFixture[str]) -> None:
    job, _ = start_server(_python(LISTENING, port, "200"))
    await_server(job, 60.0)
    assert main(["jobs"]) == 0
    shown = capsys.readouterr().out
    assert f"serve {sys.executable}" in shown
    assert f"serve on http://127.0.0.1:{port}" in shown
    assert main(["jobs", "show", job.id]) == 0


def test_ctrl_c_stops_what_the_command_line_serves(port: int) -> None:
    words = ["serve", "--port", str(port), "--command", sys.executable, "-c", LISTENING, str(port)]
    with subprocess.Popen(
        [sys.executable, "-m", "workbench.cli", *words, "200"], stdout=subprocess.PIPE, text=True
    ) as command:
        assert command.stdout
        assert f"It serves on http://127.0.0.1:{port}/v1" in command.stdout.readline()
        command.send_signal(signal.SIGINT)
        assert command.wait(30.0) == 130
    (job,) = jobs.list_jobs()
    assert job.state() == "cancelled"
    assert processes_of(job.path) == []
