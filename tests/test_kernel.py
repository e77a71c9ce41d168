"""A real kernel, interrupted and restarted: builds go on, streams stop."""

from __future__ import annotations

import os
import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jupyter_client.blocking import BlockingKernelClient
from jupyter_client.manager import KernelManager

from tests.faults import Faulty, fault
from workbench import jobs
from workbench.engine import Engine

REPOSITORY = Path(__file__).parents[1]


class Kernel:
    """A kernel as a notebook's front end drives it."""

    def __init__(self) -> None:
        self.manager = KernelManager()
        self.manager.start_kernel(cwd=str(REPOSITORY), env=dict(os.environ))
        self._connect()

    def _connect(self) -> None:
        self.client: BlockingKernelClient = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, code: str) -> str:
        """Run a cell; return what it prints, or the name of its error."""
        message = self.client.execute(code)
        return self.result(message)

    def result(self, message: str, timeout: float = 120) -> str:
        """Wait for the end of a cell."""
        printed = ""
        while True:
            reply = self.client.get_iopub_msg(timeout=timeout)
            if reply["parent_header"].get("msg_id") != message:
                continue
            content = reply["content"]
            if reply["msg_type"] == "stream":
                printed += content["text"]
            elif reply["msg_type"] == "error":
                printed += f"{content['ename']}: {content['evalue']}"
            elif reply["msg_type"] == "status" and content["execution_state"] == "idle":
                return printed

    def restart(self) -> None:
        self.client.stop_channels()
        self.manager.restart_kernel(now=True)
        self._connect()

    def stop(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.manager.cleanup_resources()


@pytest.fixture
def kernel(home: Path) -> Iterator[Kernel]:
    kernel = Kernel()
    yield kernel
    kernel.stop()


def _until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


BUILD = """
import workbench as wb
build = wb.start_build(wb.make_spec({"max_batch_size": 11}))
print(build.job.id)
"""


def test_interrupt_and_restart_leave_the_build_running(kernel: Kernel) -> None:
    name = kernel.run(BUILD).strip()
    job = jobs.find_job(name)
    _until(lambda: "import" in job.view().stages)

    waiting = kernel.client.execute("build.wait()")
    time.sleep(0.3)
    asked = time.monotonic()
    kernel.manager.interrupt_kernel()
    assert "KeyboardInterrupt" in kernel.result(waiting)
    assert time.monotonic() - asked < 10.0  # and not when the build is over
    assert job.state() == "running"

    kernel.restart()
    assert job.state() == "running"
    assert kernel.run(BUILD).strip() == name
    assert "<Engine " in kernel.run("print(repr(build.wait()))")
    assert job.state() == "done"


ATTACH = """
import workbench as wb
build = wb.start_build({"backend": "fault", "model": MODEL, "fault": FAULT}, smoke=False)
print(build.job.id, build.job.state(), build.job.log.read_text().split())
"""


def test_a_new_kernel_finds_the_log_where_it_was(faulty: Faulty, kernel: Kernel) -> None:
    gate = faulty.gate()
    spec = faulty.spec(
        fault("load", "print", text="before"),
        fault("compile", "stall", until=gate),
        fault("write", "print", text="after"),
    )
    cell = f"MODEL, FAULT = {spec.model!r}, {spec.fault!r}\n{ATTACH}"
    first = kernel.run(cell).split()[0]
    gate.wait_reached()
    job = jobs.find_job(first)
    view = job.view()
    offset = view.offset

    kernel.restart()
    assert kernel.run(cell).strip() == f"{first} running ['before']"
    gate.open()
    assert faulty.identity().key in kernel.run("print(build.wait())")
    # Who followed it goes on at the next byte.
    view.update()
    assert view.offset > offset
    played = [name for name in view.stages if name in ("load", "compile", "write")]
    assert played == ["load", "compile", "write"]
    assert job.log.read_text().split() == ["before", "after"]
    assert [found.id for found in jobs.list_jobs()] == [first]


STREAM = """
generation = session.generate("a", max_tokens=256, ignore_eos=True)
for delta in generation:
    print(delta.text, end="", flush=True)
"""


def test_interrupt_stops_a_stream_and_the_session_lives(kernel: Kernel, stocked: Engine) -> None:
    kernel.run(f"import workbench as wb; session = wb.open_engine({stocked.key!r})")
    # Slow enough that the interrupt comes in the middle: a reader that takes its time.
    cell = STREAM.replace("flush=True)", "flush=True)\n    import time; time.sleep(0.02)")
    streaming = kernel.client.execute(cell)
    time.sleep(0.5)
    kernel.manager.interrupt_kernel()
    assert "KeyboardInterrupt" in kernel.result(streaming)
    assert kernel.run("print(generation.wait(5).phase)").strip() in ("stopped", "finished")
    after = "print(len(session.generate('a', max_tokens=3, ignore_eos=True).wait().token_ids))"
    assert kernel.run(after).strip() == "3"
    assert kernel.run("print(session.active)").strip() == "0"


def test_a_kernel_with_a_person_is_not_headless_and_one_without_is(kernel: Kernel) -> None:
    code = "import workbench as wb; print(wb.headless())"
    answers = {}
    for asks in (True, False):
        message = kernel.client.execute(code, allow_stdin=asks)
        answers[asks] = kernel.result(message).strip()
    assert answers == {True: "False", False: "True"}
    with pytest.raises(queue.Empty):
        kernel.client.get_iopub_msg(timeout=0.1)
