"""The played backend itself: it takes the real path, is quick, and goes wrong as asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import Faulty, fault, job_of, until
from workbench import store
from workbench.errors import JobError, SessionError
from workbench.opening import open_engine

ROOT = Path(__file__).parents[1]


def test_a_build_without_a_fault_is_a_real_one(faulty: Faulty) -> None:
    engine = faulty.start(smoke=True).wait()
    assert [stage["name"] for stage in engine.manifest["build"]["stages"]] == [
        "fingerprint", "load", "compile", "write", "smoke"
    ]  # fmt: skip
    assert engine.key == faulty.identity().key
    assert engine.damage(thorough=True) == ""
    assert faulty.start().hit is not None
    with open_engine(engine) as session:
        assert session.generate("a", max_tokens=3).wait().text == "0:0 0:1 0:2 "
    until(lambda: not faulty.processes())


ENDS = {
    "segfault": (fault("compile", "segfault"), r"worker crashed \(signal 11\)"),
    "kill": (fault("compile", "kill"), r"worker was killed \(signal 9"),
    "exit": (fault("compile", "exit", status=3), "worker ended with status 3"),
    "raise": (fault("compile", "raise", text="what"), "in the toolchain: RuntimeError: what"),
    "refuse": (fault("compile", "refuse", text="No such precision."), "^No such precision.$"),
    "full disk": (fault("half", "error", error="ENOSPC"), "disk is full: .* are free in"),
    "smoke": (fault("open", "segfault"), r"was not loaded: its worker crashed \(signal 11\)"),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_bad_end_is_one_sentence_and_leaves_nothing(faulty: Faulty, name: str) -> None:
    wrong, words = ENDS[name]
    with pytest.raises(JobError, match=words) as caught:
        faulty.start(wrong, smoke=True).wait()
    assert "\n" not in str(caught.value)
    assert faulty.temporaries() == []
    assert store.list_engines() == []
    assert faulty.start().wait().damage(thorough=True) == ""


def test_a_stalled_stage_goes_on_when_it_is_let(faulty: Faulty) -> None:
    gate = faulty.gate()
    build = faulty.start(fault("compile", "stall", until=gate))
    gate.wait_reached()
    # What the worker said before is on its way to the journal.
    until(lambda: (stage := job_of(build).view().stages.get("compile")) and stage.done == 3)
    assert job_of(build).state() == "running"
    gate.open()
    assert build.wait().key == faulty.identity().key


def test_the_runner_strikes_too(faulty: Faulty) -> None:
    gate = faulty.gate()
    build = faulty.start(fault("after_session", "stall", until=gate))
    gate.wait_reached()
    assert job_of(build).state() == "starting"
    gate.open()
    build.wait()


def test_other_processes_know_the_backend(faulty: Faulty) -> None:
    words = ["build", "--backend", "fault", "--model", str(faulty.model), "--no-smoke"]
    subprocess.run([sys.executable, "-m", "workbench.cli", *words], check=True, cwd=ROOT)
    assert [engine.key for engine in store.list_engines()] == [faulty.identity().key]


def test_what_a_test_leaves_is_found_and_killed(faulty: Faulty, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    orphan = fault("start", "child", pids=pids, detached=True)
    faulty.start(orphan, fault("compile", "kill_runner"), fault("compile", "exit"))
    until(lambda: pids.exists() and pids.read_text().endswith("\n"))
    until(lambda: len(faulty.processes()) == 1)
    assert faulty.processes()[0].pid == int(pids.read_text())
    faulty.kill_all()
    assert faulty.processes() == []


@pytest.mark.parametrize(
    "raw", ["garbage\n", "[]\n", '{"event": "end", "id": 1}\n', '{"event": "tokens"}\n']
)
def test_a_session_that_lies_ends_with_a_sentence_and_hangs_nobody(
    faulty: Faulty, raw: str
) -> None:
    faulty.start().wait()
    lying = faulty.start(fault("prefill", "send", raw=raw), fault("prefill", "stall"))
    with open_engine(lying) as session:
        generation = session.generate("a", max_tokens=3)
        with pytest.raises(SessionError, match=r"^The worker sent what is no message: .* Open the"):
            generation.wait(timeout=20)
        assert session.closed


def test_memory_that_ends_in_mid_stream_is_told_with_its_numbers_and_given_back(
    faulty: Faulty,
) -> None:
    text = "CUDA out of memory. Tried to allocate 2.00 GiB."
    engine = faulty.start().wait()
    with open_engine(faulty.start(fault("decode", "raise", text=text))) as session:
        with pytest.raises(SessionError, match=r"out of memory\. Tried to allocate 2\.00 GiB"):
            session.generate("a").wait()
        until(lambda: not faulty.processes())
    with open_engine(engine) as session:
        assert session.generate("a", max_tokens=2).wait().text == "0:0 0:1 "
