"""Files that earlier versions wrote open in this one.

`tests/fixtures/state` holds a home of each, with the names of machines and paths replaced: of the
first version real builds of a tiny model, since then what `tests.state_home` does with the played
backend. A version that changes a format adds the home of the one before.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.faults import Faulty
from workbench import jobs, listing, results, store, usage
from workbench.eviction import budget, why_kept
from workbench.history import peak_range, stage_ranges
from workbench.jobs import Job
from workbench.opening import open_engine
from workbench.sweep_job import sweep_of

STATES = Path(__file__).parent / "fixtures" / "state"
FIRST = STATES / "0.1.0-first.tar.gz"
PLAYED = sorted(set(STATES.glob("*.tar.gz")) - {FIRST})


def _unpack(archive: Path, home: Path) -> Path:
    # The filter came with Python 3.11.4; the archive is ours.
    options: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(archive) as tar:
        tar.extractall(home.parent, **options)
    return home


@pytest.fixture
def old_home(home: Path) -> Path:
    return _unpack(FIRST, home)


@pytest.fixture(params=PLAYED, ids=lambda path: path.name)
def played_home(request: pytest.FixtureRequest, faulty: Faulty, home: Path) -> Faulty:
    _unpack(request.param, home)
    return faulty


def test_jobs_of_an_earlier_version_are_listed_as_what_they_became(old_home: Path) -> None:
    assert old_home.is_dir()
    states = {entry.state for entry in listing.list_entries()}
    # The one whose last line is torn ran on another host, and nobody knows more.
    assert states == {"done", "cancelled", "silent"}
    assert all(entry.what.startswith("openvino ") for entry in listing.list_entries())
    done = next(e for e in listing.list_entries() if e.state == "done")
    view = Job.named(done.id).view()
    assert view.stages["trace"].total == 2
    assert view.stages["convert"].seconds(0) > 0
    assert view.facts["peak_memory_bytes"] > 0
    assert store.find_engine(done.outcome).manifest["build"]["job"] == done.id


def test_a_silent_job_of_another_host_can_be_given_up(old_home: Path) -> None:
    assert old_home.is_dir()
    (silent,) = [job for job in jobs.list_jobs() if job.state() == "silent"]
    assert silent.cancel() == "cancelled"


def test_an_engine_of_an_earlier_version_is_sound_and_runs(old_home: Path) -> None:
    assert old_home.is_dir()
    (engine,) = store.list_engines()
    assert engine.damage(thorough=True) == ""
    with open_engine(engine) as session:
        generation = session.generate("The harbour", max_tokens=4, ignore_eos=True).wait()
    assert len(generation.token_ids) == 4


def _pinned() -> Any:
    (engine,) = [engine for engine in store.list_engines() if usage.is_pinned(engine.key)]
    return engine


def test_what_a_home_holds_is_listed_as_what_became_of_it(played_home: Faulty) -> None:
    became = {
        (entry.what.split()[0], entry.state): entry.outcome for entry in listing.list_entries()
    }
    assert {"done", "failed", "cancelled"} == {state for _, state in became}
    assert became["fault", "failed"] == "There is no such layer."
    assert ("sweep", "done") in became
    for job in jobs.list_jobs():
        assert job.view().stages or job.state() == "cancelled"


def test_pins_and_the_budget_hold(played_home: Faulty) -> None:
    assert budget() == 1 << 30
    assert why_kept(_pinned().key) == "it is pinned (the one that people use)"


def test_every_engine_of_a_home_is_sound_and_runs(played_home: Faulty) -> None:
    engines = store.list_engines()
    assert len(engines) >= 2
    assert [engine.damage(thorough=True) for engine in engines] == [""] * len(engines)
    with open_engine(_pinned()) as session:
        assert len(session.generate([1], max_tokens=3, ignore_eos=True).wait().token_ids) == 3


def test_past_builds_of_a_home_give_ranges(played_home: Faulty) -> None:
    parameters = _pinned().manifest["model"]["parameters"]
    ranges = stage_ranges("fault", "", parameters)
    assert ranges["compile"].builds == len(store.list_engines())
    peak = peak_range("fault", "", parameters)
    assert peak is not None
    assert peak.low > 0


def test_trials_and_the_sweep_that_made_them_are_found(played_home: Faulty) -> None:
    trials = results.list_trials(valid=True)
    assert len(trials) == 2
    (job,) = [job for job in jobs.list_jobs() if job.request.get("points")]
    sweep, _ = sweep_of(job)
    assert {point.id for point in sweep.points} == {trial.point for trial in trials}
    assert all(trial.record["summary"] and trial.record["environment"] for trial in trials)


def test_the_queue_of_a_home_lets_the_next_build_pass(played_home: Faulty) -> None:
    before = len(store.list_engines())
    played_home.start(seed=9).wait()
    assert len(store.list_engines()) == before + 1
