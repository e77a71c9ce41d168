"""The serve panel and its notebook: start, health, endpoint, log, stop."""

from __future__ import annotations

import dataclasses
import itertools
import shlex
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import until
from tests.servers import llama_cpp
from tests.test_serving import LISTENING, fickle
from workbench.build import DEMO_MODEL
from workbench.candidates import candidates_of
from workbench.endpoint import Endpoint
from workbench.errors import InputError, JobError
from workbench.jobs import Job
from workbench.notebook import run_notebook
from workbench.processes import processes_of
from workbench.results import find_trial
from workbench.serving import Server
from workbench.widgets import cells
from workbench.widgets.serve import ServePanel

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "06_serve.ipynb"


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _server(port: int, status: str = "200") -> Server:
    words = (sys.executable, "-c", LISTENING, str(port), status)
    return Server(words, f"http://127.0.0.1:{port}", start_limit=20.0)


def test_it_starts_shows_health_and_log_and_stops(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_HEADLESS", "0")
    panel = ServePanel(_server(port))
    told: list[Endpoint] = []
    panel.on_endpoint(told.append)
    panel.start()
    until(lambda: told)
    assert told == [panel.endpoint]
    assert panel.endpoint
    assert panel.endpoint.url == f"http://127.0.0.1:{port}/v1"
    assert f"It serves on http://127.0.0.1:{port}/v1" in panel.plain()
    until(lambda: "GET /health" in panel.progress.log_end.value)
    panel.on_endpoint(told.append)
    assert told == [panel.endpoint] * 2
    again = ServePanel(_server(port))
    assert again.job_id == panel.job_id
    assert (panel.start_button.disabled, panel.stop_button.disabled) == (True, False)
    panel.stop()
    until(lambda: panel.endpoint is None and again.endpoint is None)
    until(lambda: not panel.start_button.disabled)
    assert "It does not serve." in panel.plain()


def test_why_it_does_not_serve_stands_in_the_panel(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_HEADLESS", "0")
    with socket.create_server(("127.0.0.1", port)):
        panel = ServePanel(_server(port), start=True)
        assert f"port {port} of 127.0.0.1 cannot be used" in panel._error_text
    panel = ServePanel(Server((sys.executable, "-c", "exit(3)"), f"http://127.0.0.1:{port}"))
    panel.start()
    until(lambda: "ended with status 3 while it started" in panel._error_text)


def test_headless_it_waits_and_goes_with_the_panel(port: int) -> None:
    panel = ServePanel(_server(port), start=True)
    assert panel.endpoint
    assert panel.job_id
    panel.close()
    job = Job.named(panel.job_id)
    assert job.state() == "cancelled"
    assert processes_of(job.path) == []
    with pytest.raises(JobError, match="ended with status 3"):
        ServePanel(
            Server((sys.executable, "-c", "exit(3)"), f"http://127.0.0.1:{port}"), start=True
        )


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Be in a cell of a notebook; the call runs it again."""
    runs = itertools.count()
    running = [("cell", "0")]
    monkeypatch.setenv("WORKBENCH_HEADLESS", "0")
    monkeypatch.setattr(cells, "running_cell", lambda: running[0])
    monkeypatch.setattr(cells, "_MADE", {})
    return lambda: running.__setitem__(0, ("cell", str(next(runs) + 1)))


def _serving(server: Server) -> tuple[ServePanel, Job]:
    panel = ServePanel(server, start=True)
    until(lambda: panel.endpoint)
    assert panel.job_id
    return panel, Job.named(panel.job_id)


def test_the_cell_that_runs_again_keeps_its_server_and_closing_ends_it(
    port: int, cell: Callable[[], None]
) -> None:
    former, job = _serving(_server(port))
    cell()
    panel, same = _serving(_server(port))
    assert same == job
    former.close()
    assert job.state() == "running"
    panel.close()
    assert job.state() == "cancelled"
    assert processes_of(job.path) == []


def test_the_cell_that_asks_for_another_server_ends_the_one_before(
    port: int, cell: Callable[[], None]
) -> None:
    _, before = _serving(_server(port))
    cell()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        other = int(listener.getsockname()[1])
    panel = ServePanel(_server(other))
    assert before.state() == "cancelled"
    assert processes_of(before.path) == []
    panel.start()
    until(lambda: panel.endpoint)
    panel.close()


def test_a_server_that_was_asked_to_stay_stays_when_its_cell_wants_another(
    port: int, cell: Callable[[], None]
) -> None:
    panel, job = _serving(dataclasses.replace(_server(port), stay=True))
    cell()
    ServePanel(Server(("other",), f"http://127.0.0.1:{port}"))
    panel.close()
    assert job.state() == "running"
    job.cancel()


def test_a_panel_says_since_when_its_server_is_not_healthy(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_HEADLESS", "0")
    server, answer = fickle(port, tmp_path)
    panel, job = _serving(server)
    answer("503")
    until(lambda: "It is not healthy since 2" in panel.plain())
    assert f"(it answers status 503): http://127.0.0.1:{port}/v1" in panel.plain()
    assert panel.endpoint
    answer("200")
    until(lambda: f"It serves on http://127.0.0.1:{port}/v1" in panel.plain())
    job.cancel()


def test_the_notebook_exports_serves_and_measures(
    shared_home: Path, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(shared_home))
    gguf = str(tmp_path / "demo.gguf")
    words = [sys.executable, llama_cpp.__file__, str(DEMO_MODEL), gguf, str(port)]
    load = {"input_len": 16, "output_len": 16, "requests": 4, "warmup": 1}
    values = {"quantization": "none", "folder": str(tmp_path / "out"), "port": port, **load}
    results = run_notebook(
        NOTEBOOK, tmp_path / "out.ipynb", {**values, "command": shlex.join(words)}
    )
    assert results["exported_text"] == results["session_text"] + "\n"
    assert results["served_text"] == results["session_text"]
    assert results["trial"]["output_tokens"] == 4 * 16
    assert "stream.py" in results["exported"]
    trials = [find_trial(results[name]) for name in ("engine_trial", "served_trial")]
    # The same workload, model and device: the server and the engine compete.
    assert [candidate.group for candidate in candidates_of(trials)] == ["", ""]
    assert trials[0].workload == trials[1].workload
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), 1.0)


def test_the_notebook_overwrites_nothing(
    shared_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(shared_home))
    (tmp_path / "out").mkdir()
    values = {"quantization": "none", "folder": str(tmp_path / "out")}
    with pytest.raises(InputError, match="was not overwritten"):
        run_notebook(NOTEBOOK, tmp_path / "out.ipynb", values)
    assert list((tmp_path / "out").iterdir()) == []
