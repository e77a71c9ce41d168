"""The same spec is built once, however many ask, whoever of them dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import nbformat
import pytest

from tests.faults import Faulty, Gate, fault, job_of, until
from workbench import jobs, store
from workbench.errors import JobError
from workbench.jobs import Job, take_over
from workbench.notebook import read_results
from workbench.processes import processes_of

ROOT = Path(__file__).parents[1]
MANY = 16

ASK = """
import json, os, sys
from workbench.build import start_build

values, count = json.loads(sys.argv[1]), int(sys.argv[2])
wait, go = os.pipe()

def say(line):
    os.write(1, f"{line}\\n".encode())  # in one piece: others write into the same pipe

def ask():
    os.close(go)
    os.read(wait, 1)
    build = start_build(values, smoke=False)
    say(build.job.id if build.job else "hit")
    say(build.wait().key)

def child():
    try:
        ask()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)
    os._exit(0)

children = [os.fork() or child() for _ in range(count)]
os.close(go)  # all of them read its end now
sys.exit(any(os.waitpid(pid, 0)[1] for pid in children))
"""


def ask(count: int, values: dict, stack: ExitStack) -> subprocess.Popen[str]:
    """Let processes ask for the same engine at the same moment; all of them print into one pipe.

    They are forks of one that has imported everything: that would take longer than asking.
    """
    words = [sys.executable, "-c", ASK, json.dumps(values), str(count)]
    process = stack.enter_context(
        subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    )
    stack.callback(process.kill)  # or a test that fails would wait for it for ever
    return process


def read(process: subprocess.Popen[str], count: int) -> set[str]:
    """Return what differs in so many lines."""
    assert process.stdout is not None
    return {process.stdout.readline().strip() for _ in range(count)}


def values_of(faulty: Faulty, *faults: dict) -> dict:
    return {"backend": "fault", "model": str(faulty.model), "fault": json.dumps(faults)}


def built() -> list[str]:
    """The jobs that have really built something."""
    views = [(job.id, job.view()) for job in jobs.list_jobs()]
    return [name for name, view in views if view.end and view.end.get("reused") is False]


def test_many_who_ask_at_once_get_one_build(faulty: Faulty) -> None:
    gate = faulty.gate()
    stall = fault("compile", "stall", until=gate)
    with ExitStack() as stack:
        asking = ask(MANY, values_of(faulty, stall), stack)
        assert len(read(asking, MANY)) == 1
        gate.wait_reached()
        gate.open()
        assert read(asking, MANY) == {faulty.identity().key}
        assert asking.wait(60) == 0
    assert len(built()) == len(jobs.list_jobs()) == 1
    assert [engine.key for engine in store.list_engines()] == [faulty.identity().key]
    assert faulty.temporaries() == []


def test_when_the_builder_is_killed_exactly_one_takes_over(faulty: Faulty) -> None:
    gate = faulty.gate()
    stall = fault("compile", "stall", until=gate)
    with ExitStack() as stack:
        asking = ask(MANY, values_of(faulty, stall), stack)
        (name,) = read(asking, MANY)
        gate.wait_reached()
        first = Job.named(name)
        owner = first.view().owner
        assert owner is not None
        gate.open()
        os.kill(owner.pid, signal.SIGKILL)
        assert read(asking, MANY) == {faulty.identity().key}
        assert asking.wait(60) == 0
    (second,) = [job for job in jobs.list_jobs() if job.id != name]
    notes = [note for note in second.view().notes if "Takes over" in note]
    assert notes == [f"Takes over from {name}, whose process is gone."]
    assert first.state() == "killed"
    assert built() == [second.id]
    until(lambda: faulty.temporaries() == [])


def test_who_looks_late_finds_the_one_who_took_over(faulty: Faulty) -> None:
    build = faulty.start(fault("compile", "kill_runner"))
    first = job_of(build)
    first.wait(30)
    # The first who asks starts it; it dies again, as its request says.
    second, new = take_over(first)
    assert new
    second.wait(30)
    assert take_over(first) == (second, False)
    with pytest.raises(JobError, match="gone without a last word"):
        build.wait()
    assert {job.id for job in jobs.list_jobs()} == {first.id, second.id}


# --- notebooks

ASK_CELL = """
from pathlib import Path
from workbench.build import start_build
from workbench.notebook import publish_result
values = {'backend': 'fault', 'model': model, 'fault': fault}
build = start_build(values, smoke=False)
(Path(folder) / f'{name}.asked').write_text(build.job.id if build.job else 'hit')
"""

CELLS = [
    ("parameters", "model = fault = folder = name = ''"),
    ("", ASK_CELL),
    ("", "publish_result(engine=build.wait().key)"),
]


class Run:
    """A notebook that is executed by papermill, in a process of its own."""

    def __init__(self, folder: Path, name: str, values: dict) -> None:
        self.output = folder / f"{name}.out.ipynb"
        self._asked = folder / f"{name}.asked"
        self._asked.unlink(missing_ok=True)
        cells = [
            nbformat.v4.new_code_cell(source, metadata={"tags": [tag] if tag else []})
            for tag, source in CELLS
        ]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(notebook, folder / f"{name}.ipynb")
        given = {**values, "folder": str(folder), "name": name}
        words = [word for pair in given.items() for word in ("-r", *pair)]
        command = [sys.executable, "-m", "papermill", "--no-progress-bar"]
        paths = os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])
        self._log = (folder / f"{name}.log").open("wb")
        self.process = subprocess.Popen(
            [*command, str(folder / f"{name}.ipynb"), str(self.output), *words],
            cwd=ROOT,
            stderr=self._log,
            env=os.environ | {"PYTHONPATH": paths},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        self._log.close()

    def asked(self, seconds: float = 60.0) -> str:
        """Wait until it has asked; return the id of its job, or "hit"."""
        until(lambda: self._asked.exists() and self._asked.read_text(), seconds)
        return self._asked.read_text()

    def result(self) -> str:
        """Wait for the end; return the key of the engine."""
        assert self.process.wait(120) == 0, Path(self._log.name).read_text()
        return str(read_results(self.output)["engine"])


def stalled(faulty: Faulty) -> tuple[Gate, dict]:
    gate = faulty.gate()
    faults = json.dumps([fault("compile", "stall", until=gate)])
    return gate, {"model": str(faulty.model), "fault": faults}


def test_four_notebooks_on_one_store_share_one_build(faulty: Faulty, tmp_path: Path) -> None:
    gate, values = stalled(faulty)
    with ExitStack() as stack:
        runs = [stack.enter_context(Run(tmp_path, f"n{n}", values)) for n in range(4)]
        assert len({run.asked() for run in runs}) == 1
        gate.open()
        assert {run.result() for run in runs} == {faulty.identity().key}
    assert len(built()) == len(jobs.list_jobs()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_notebook_that_is_killed_leaves_the_build_and_finds_it_again(
    faulty: Faulty, tmp_path: Path, number: int
) -> None:
    gate, values = stalled(faulty)
    with Run(tmp_path, "n", values) as run:
        name = run.asked()
        gate.wait_reached()
        run.process.send_signal(number)
        assert run.process.wait(30) != 0
    assert nbformat.reads(run.output.read_text(), as_version=4).cells
    job = Job.named(name)
    # Its kernel goes too; the build does not.
    until(lambda: {process.pid for process in faulty.processes()} == _pids(job), 60)
    assert job.state() == "running"
    with Run(tmp_path, "n", values) as again:
        assert again.asked() == name
        gate.open()
        assert again.result() == faulty.identity().key
    assert faulty.start().job is None
    assert built() == [name]


def _pids(job: Job) -> set[int]:
    return {process.pid for process in processes_of(job.path)}


def test_the_command_line_takes_over_too(faulty: Faulty) -> None:
    gate = faulty.gate()
    faults = json.dumps([fault("compile", "stall", until=gate)])
    command = [sys.executable, "-m", "workbench.cli", "build", "--backend", "fault", "--no-smoke"]
    words = ["--model", str(faulty.model), "--fault", faults]
    with subprocess.Popen(
        [*command, *words], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        gate.wait_reached()
        (job,) = jobs.list_jobs()
        owner = job.view().owner
        assert owner is not None
        os.kill(owner.pid, signal.SIGKILL)
        gate.open()
        told, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert f"The process of {job.id} is gone; " in told
    assert f"Engine {faulty.identity().key}: " in told
    assert len(built()) == 1
    # One that is dead already is only looked at.
    attach = [sys.executable, "-m", "workbench.cli", "jobs", "attach", job.id]
    late = subprocess.run(attach, capture_output=True, text=True, check=False, cwd=ROOT)
    assert late.returncode == 1
    assert "gone without a last word" in late.stderr
    assert len(jobs.list_jobs()) == 2
