"""The builds panel; what the build panel says of queues, covering engines and dead processes."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.faults import Faulty, Gate, backend, fault, job_of, make_model, until
from workbench import jobs, listing
from workbench.build import Build
from workbench.engine import Engine
from workbench.errors import InputError, JobError
from workbench.jobs import Job
from workbench.summaries import command_line, job_line
from workbench.widgets.build import BuildPanel
from workbench.widgets.jobs import JobsPanel
from workbench.widgets.store import StorePanel
from workbench.widgets.stream import StreamPanel

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def panels() -> Iterator[list[JobsPanel]]:
    """Panels that somebody sees, until the end of a test."""
    shown: list[JobsPanel] = []
    yield shown
    for panel in shown:
        panel.table.shown = False
    until(lambda: not [t for t in threading.enumerate() if t.name.endswith("(_look)")])


@pytest.fixture
def seen(panels: list[JobsPanel]) -> Any:
    """Make a panel that somebody sees."""

    def make(**options: Any) -> JobsPanel:
        panel = JobsPanel(**options)
        panels.append(panel)
        panel.table.shown = True
        return panel

    return make


def _stalled(faulty: Faulty, **values: Any) -> tuple[Build, Gate]:
    """Start a build that stands in its stage "compile"."""
    gate = faulty.gate()
    build = faulty.start(fault("compile", "stall", until=gate), **values)
    gate.wait_reached()
    return build, gate


def _states(panel: JobsPanel) -> list[str]:
    return [row[2] for row in panel.table.rows]


def _outcomes(panel: JobsPanel) -> list[str]:
    return [row[5] for row in panel.table.rows]


def _ended(faulty: Faulty) -> dict[str, Job]:
    """One job of each end, the done one the newest."""
    found = {"cancelled": job_of(_stalled(faulty, seed=1)[0])}
    found["cancelled"].cancel()
    wrong = {
        "failed": fault("compile", "refuse", text=f"No {SCRIPT} precision."),
        "killed": fault("before_stage", "kill", name="load"),
    }
    for seed, (state, what) in enumerate(wrong.items(), 2):
        found[state] = job_of(faulty.start(what, seed=seed))
        found[state].wait()
    found["done"] = job_of(faulty.start(seed=4))
    found["done"].wait()
    return found


def test_an_empty_store_is_a_sentence() -> None:
    panel = JobsPanel()
    assert panel.plain() == "There is no job yet."
    assert "There is no job yet." in panel.static()
    assert panel.job_id is None
    assert panel._error_text == ""


@pytest.mark.parametrize("show", ["many", 0, True, 2.5])
@pytest.mark.parametrize("panel", [JobsPanel, StorePanel])
def test_a_number_of_lines_that_is_none_is_refused(panel: Any, show: Any) -> None:
    with pytest.raises(InputError, match="show must be a whole number above 0, such as 20"):
        panel(show=show)


def test_each_end_is_listed_in_words_and_with_a_mark(faulty: Faulty) -> None:
    ended = _ended(faulty)
    panel = JobsPanel()
    assert [row[0] for row in panel.table.rows] == [job.id for job in reversed(ended.values())]
    assert _states(panel) == ["✓ done", "† killed", "✗ failed", "■ cancelled"]
    assert _outcomes(panel)[0] == faulty.identity(seed=4).key
    assert _outcomes(panel)[2] == f"No {SCRIPT} precision."
    assert "seed=3" in panel.table.rows[1][4]
    assert panel.job_id is None


def test_headless_it_is_a_table_that_waits_for_nothing(faulty: Faulty) -> None:
    build, gate = _stalled(faulty)
    bundle = JobsPanel()._repr_mimebundle_()
    assert job_of(build).id in bundle["text/plain"]
    assert "► running" in bundle["text/html"]
    assert "compile layers" in bundle["text/html"]
    gate.open()
    build.wait()


def test_what_comes_from_elsewhere_is_text(faulty: Faulty, tmp_path: Path) -> None:
    model = make_model(tmp_path / SCRIPT.partition("/")[0])
    says = fault("start", "print", text=SCRIPT)
    ends = fault("compile", "refuse", text=SCRIPT)
    job = job_of(faulty.start(says, ends, model=str(model)))
    job.wait()
    panel = JobsPanel(job=job.id)
    shown = [
        panel.static(), panel.progress.log_end.value, panel._words.value, panel._request.value,
        panel.progress.stages.value, panel.progress.state.value, panel._title.value,
    ]  # fmt: skip
    assert "<script>" not in "".join(shown)
    assert "&lt;script&gt;" in shown[1]
    assert "&lt;script&gt;" in shown[2]
    assert "&lt;script&gt;" in shown[3]


def test_it_follows_what_was_started_elsewhere_to_its_engine(faulty: Faulty, seen: Any) -> None:
    build, gate = _stalled(faulty)
    panel = seen()
    assert panel.job_id == job_of(build).id
    assert "compile layers" in panel.progress.stages.value
    assert panel.use_button.disabled
    assert panel.retry_button.disabled
    heard: list[Engine] = []
    panel.on_engine(heard.append)
    gate.open()
    until(lambda: not panel.use_button.disabled)
    assert "done in" in panel.progress.state.value
    assert panel.cancel_button.disabled
    until(lambda: _states(panel) == ["✓ done"])
    panel.use_button.click()
    assert [engine.key for engine in heard] == [faulty.identity().key]
    assert panel.engine == panel.wait() == heard[0]


def test_nothing_is_looked_at_while_nobody_sees_it(faulty: Faulty, seen: Any) -> None:
    panel = seen()
    until(lambda: [t for t in threading.enumerate() if t.name.endswith("(_look)")])
    panel.table.shown = False
    until(lambda: not [t for t in threading.enumerate() if t.name.endswith("(_look)")])
    build, gate = _stalled(faulty)
    assert panel.table.rows == []
    panel.table.shown = True
    until(lambda: _states(panel) == ["► running"])
    gate.open()
    build.wait()


def test_cancel_and_retry(faulty: Faulty, seen: Any) -> None:
    gate = faulty.gate()
    again = faulty.gate()
    faulty.start(fault("start", "stall", until=gate), fault("compile", "stall", until=again))
    gate.wait_reached()
    panel = seen()
    first = panel.job_id
    panel.cancel_button.click()
    until(lambda: "cancelled after" in panel.progress.state.value)
    assert panel.use_button.disabled
    assert panel._error_text == ""
    gate.open()
    panel.retry_button.click()
    again.wait_reached()
    until(lambda: panel.job_id != first)
    assert panel.job_id == f"{first.rpartition('-')[0]}-002"
    until(lambda: _states(panel) == ["► running", "■ cancelled"])
    again.open()
    until(lambda: "done in" in panel.progress.state.value)


def test_one_who_waits_shows_place_device_and_whom_it_waits_for(faulty: Faulty, seen: Any) -> None:
    first, gate = _stalled(faulty, seed=1)
    second = job_of(faulty.start(seed=2))
    until(lambda: second.state() == "waiting")
    panel = seen(job=second.id)
    place = f"place 1 in the queue for the processor, behind the job {job_of(first).id} (fault "
    until(lambda: f"waiting: {place}" in panel.progress.state.value)
    until(lambda: _states(panel) == ["◔ waiting", "► running"])
    assert _outcomes(panel)[0].startswith(place)
    gate.open()
    until(lambda: "done in" in panel.progress.state.value)


def test_filters_and_show_more(faulty: Faulty) -> None:
    ended = _ended(faulty)
    panel = JobsPanel(show=2)
    assert len(panel.table.rows) == 2
    assert "2 of 4" in panel.plain()
    panel.more_button.click()
    assert len(panel.table.rows) == 4
    assert panel.more_button.layout.display == "none"
    panel.states.value = "failed"
    assert [row[0] for row in panel.table.rows] == [ended["failed"].id]
    panel.states.value = ""
    panel.filter.value = "SEED=4 fault"
    assert [row[0] for row in panel.table.rows] == [ended["done"].id]
    panel.filter.value = "nothing has this"
    assert panel.plain() == "No job is like that."
    assert [row[0] for row in JobsPanel(state="not ended").table.rows] == []
    with pytest.raises(
        InputError, match=r"There is no state 'faild' of a job. Did you mean 'failed'"
    ):
        JobsPanel(state="faild")
    with pytest.raises(JobError, match="There is no job whose id begins with 'zzz'"):
        JobsPanel(job="zzz")


def test_a_second_look_reads_only_what_is_new(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = job_of(faulty.start(fault("start", "refuse", text="No."), seed=1))
    ended.wait()
    build, gate = _stalled(faulty)
    watch = listing.Watch()
    before = watch.entries()
    assert [entry.state for entry in before] == ["running", "failed"]

    def refuse(_: Job) -> None:
        raise AssertionError("a journal was read from its beginning")

    with monkeypatch.context() as patch:
        patch.setattr(Job, "view", refuse)
        assert [entry.id for entry in watch.entries()] == [entry.id for entry in before]
        gate.open()
        until(lambda: [entry.state for entry in watch.entries()] == ["done", "failed"])
    build.wait()


def test_lines_of_the_index_that_are_none_are_passed_over(faulty: Faulty) -> None:
    job = job_of(faulty.start())
    job.wait()
    until((jobs.folder() / listing.INDEX).is_file)
    with (jobs.folder() / listing.INDEX).open("a") as file:
        line = '{"id": "%s", "inode": [1], "state": "done", "created": "x", "last_sign": 0}\n'
        file.write(line % job.id + "[1]\nno json\n")
    assert [entry.id for entry in listing.list_entries()] == [job.id]


def test_the_request_can_be_repeated_on_the_command_line(faulty: Faulty) -> None:
    build, gate = _stalled(faulty, seed=3)
    line = command_line(job_of(build).request)
    assert line.startswith("workbench build --backend fault --model=")
    assert " --seed=3 " in line
    assert line.endswith("--no-smoke")
    assert line.split()[3] in JobsPanel()._request.value
    gate.open()
    build.wait()
    assert command_line({"spec": {"backend": "gone"}}) == ""


def test_a_stream_panel_follows(faulty: Faulty, clicking: None) -> None:
    faulty.start(smoke=True).wait()
    panel = JobsPanel(job=jobs.list_jobs()[0].id)
    stream = StreamPanel(panel, prompt="a", max_tokens=3)
    assert stream._send_button.disabled
    panel.use()
    until(lambda: not stream._send_button.disabled)
    stream.send()
    assert stream.wait(10)["text"] == "0:0 0:1 0:2 "
    stream.unload()


# ------------------------------------------------------------------- the build panel


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines of the played backend serve smaller shapes too."""

    def asked(spec: Any, _: Any) -> dict[str, int]:
        return {name: getattr(spec, name) for name in ("max_batch_size", "max_input_len")}

    monkeypatch.setattr(backend, "BACKEND", replace(backend.BACKEND, shapes=asked))


@pytest.mark.usefixtures("clicking", "shapes")
def test_an_engine_that_covers_is_offered_before_anything_starts(faulty: Faulty) -> None:
    large = faulty.start(max_batch_size=8, max_input_len=64).wait()
    panel = BuildPanel(faulty.spec(max_batch_size=2, max_input_len=64), start=True, smoke=False)
    assert panel._which.layout.display == "none"
    assert "was built for max_batch_size 8: it covers your 2." in panel._sentence.value
    assert panel._offer.layout.display == ""
    assert len(jobs.list_jobs()) == 1
    heard: list[Engine] = []
    panel.on_engine(heard.append)
    panel._take_button.click()
    assert [engine.key for engine in heard] == [large.key]
    assert panel.wait() == large
    assert panel._offer.layout.display == "none"
    assert len(jobs.list_jobs()) == 1


@pytest.mark.usefixtures("clicking", "shapes")
def test_of_several_engines_that_cover_one_is_chosen(faulty: Faulty) -> None:
    engines = [faulty.start(max_batch_size=size).wait() for size in (16, 8)]
    panel = BuildPanel(faulty.spec(max_batch_size=2), start=True, smoke=False)
    assert panel._which.layout.display == ""
    labels = [label for label, _ in panel._which.options]
    assert labels == [f"{engines[1].key}: max_batch_size 8", f"{engines[0].key}: max_batch_size 16"]
    assert "built for max_batch_size 8: " in panel._sentence.value
    panel._which.index = 1
    assert "built for max_batch_size 16: " in panel._sentence.value
    panel._take_button.click()
    assert panel.engine == engines[0]


@pytest.mark.usefixtures("clicking", "shapes")
def test_building_anyway_attaches_when_the_cell_runs_again(faulty: Faulty) -> None:
    faulty.start(max_batch_size=8).wait()
    gate = faulty.gate()
    spec = faulty.spec(fault("compile", "stall", until=gate), max_batch_size=2)
    panel = BuildPanel(spec, start=True, smoke=False)
    panel._anyway_button.click()
    gate.wait_reached()
    assert BuildPanel(spec, start=True, smoke=False).job_id == panel.job_id
    gate.open()
    assert panel.wait().limits["max_batch_size"] == 2
    until(lambda: not panel._start_button.disabled)


@pytest.mark.usefixtures("shapes")
def test_headless_what_was_asked_is_built_and_the_offer_told(faulty: Faulty) -> None:
    faulty.start(max_batch_size=8).wait()
    panel = BuildPanel(faulty.spec(max_batch_size=2), start=True, smoke=False)
    assert panel.engine is not None
    assert panel.engine.limits["max_batch_size"] == 2
    assert "it covers your 2." in panel.plain()


@pytest.mark.usefixtures("clicking")
def test_the_build_panel_says_what_it_waits_for(faulty: Faulty) -> None:
    first, gate = _stalled(faulty, seed=1)
    panel = BuildPanel(faulty.spec(seed=2), start=True, smoke=False)
    until(lambda: "waiting: place 1 in the queue for the pr" in panel.progress.state.value)
    assert f"behind the job {job_of(first).id} (fault" in panel.progress.state.value
    gate.open()
    assert panel.wait().key == faulty.identity(seed=2).key


@pytest.mark.usefixtures("clicking")
def test_a_killed_build_is_told_with_what_is_known_and_can_be_built_again(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.widgets.build.TAKEOVER", 0.0)
    gate = faulty.gate()
    panel = BuildPanel(faulty.spec(fault("compile", "stall", until=gate)), start=True, smoke=False)
    gate.wait_reached()
    _kill_runner(Job.named(panel.job_id or ""))
    until(lambda: "killed after" in panel.progress.state.value)
    assert "in the stage &#x27;compile layers&#x27;" in panel.progress.state.value
    assert "is gone" in panel.progress.state.value
    until(lambda: "killed, perhaps for memory" in panel._error_text)
    until(lambda: not panel._start_button.disabled)
    gate.open()
    panel._start_button.click()
    assert panel._error_text == ""
    assert panel.wait().key == faulty.identity().key


@pytest.mark.usefixtures("clicking")
def test_the_panel_attaches_to_who_takes_over(faulty: Faulty) -> None:
    build, gate = _stalled(faulty)
    panel = BuildPanel(build.spec, start=True, smoke=False)
    until(lambda: "compile layers" in panel.progress.stages.value)
    waiter = threading.Thread(target=build.wait)
    waiter.start()
    _kill_runner(job_of(build))
    until(lambda: panel.job_id == f"{job_of(build).id.rpartition('-')[0]}-002")
    gate.open()
    until(lambda: panel.engine is not None)
    waiter.join(10)
    assert panel._error_text == ""
    assert "Takes over from" in panel.plain()


def _kill_runner(job: Job) -> None:
    owner = job.view().owner
    assert owner is not None
    os.kill(owner.pid, signal.SIGKILL)


def test_the_line_of_a_job_has_all_that_a_terminal_needs(faulty: Faulty) -> None:
    job = job_of(faulty.start(fault("start", "refuse", text="No.")))
    job.wait()
    line = job_line(listing.entry_of(job, job.view()), time.time())
    assert line.startswith(f"{job.id}  moments ago    ✗ failed          fault ")
    assert line.endswith("  No.")
