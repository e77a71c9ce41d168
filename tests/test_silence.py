"""Silence: processes that compute are left alone, and those that stand still are ended."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.faults import until
from workbench.errors import SessionError
from workbench.silence import Pulse, ended_when_silent

# Not for ever: where nobody ends them, the tests shall fail and not hang.
SLEEP = """
import time
while time.process_time() < 0.05:  # the system counts hundredths
    pass
time.sleep(60)
"""
COMPUTE = """
import sys, time
end = time.process_time() + float(sys.argv[1])
while time.process_time() < end:
    pass
"""


@pytest.fixture
def sleeper() -> Iterator[psutil.Process]:
    with subprocess.Popen([sys.executable, "-c", SLEEP]) as child:
        yield psutil.Process(child.pid)
        child.kill()


def _run(*words: str) -> None:
    """Wait for a process as a session does: how it ended is an error of ours."""
    status = subprocess.run([sys.executable, "-c", *words], check=False).returncode
    if status:
        raise SessionError(f"It ended with {status}.")


def test_what_computes_has_a_pulse_and_what_stands_still_has_none(sleeper: psutil.Process) -> None:
    still = Pulse(lambda: [sleeper])
    # It takes a while until Python has started.
    until(lambda: not still.beats())
    with subprocess.Popen([sys.executable, "-c", COMPUTE, "60"]) as child:
        computing = Pulse(lambda: [psutil.Process(child.pid)])
        until(computing.beats)
        child.kill()


def test_what_has_begun_or_ended_since_the_last_look_is_a_sign(sleeper: psutil.Process) -> None:
    alive: list[psutil.Process] = []
    pulse = Pulse(lambda: alive)
    assert not pulse.beats()
    until(lambda: sleeper.cpu_times().user > 0)
    alive.append(sleeper)
    assert pulse.beats()
    assert not pulse.beats()


def test_what_stands_still_is_ended_and_named() -> None:
    with (
        pytest.raises(
            TimeoutError, match=r"^Loading gave no sign of life for 500 ms and was ended"
        ),
        ended_when_silent(0.5, "Loading"),
    ):
        _run(SLEEP)


def test_what_computes_for_longer_than_the_limit_goes_on() -> None:
    with ended_when_silent(0.5, "Loading"):
        _run(COMPUTE, "1.5")


def test_a_process_that_was_there_before_is_watched_by_its_id(sleeper: psutil.Process) -> None:
    with ended_when_silent(0.5, "Loading"):
        _run(COMPUTE, "1")
    assert sleeper.is_running()
    with (
        pytest.raises(TimeoutError, match="The engine gave no sign"),
        ended_when_silent(0.5, "The engine", sleeper.pid),
    ):
        _wait_for_the_death_of(sleeper)


def _wait_for_the_death_of(process: psutil.Process) -> None:
    until(lambda: process.status() == psutil.STATUS_ZOMBIE)
    raise SessionError("The worker died.")


def test_an_error_of_another_cause_is_told_as_it_is() -> None:
    with pytest.raises(SessionError, match="It ended with 3"), ended_when_silent(60, "Loading"):
        _run("raise SystemExit(3)")
