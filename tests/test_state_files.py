"""Files that earlier versions wrote open in this one.

`tests/fixtures/state` holds a home of each: real builds of a tiny model, with the names of machines
and paths replaced. A version that changes a format adds the home of the one before.
"""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest

from workbench import jobs, listing, store
from workbench.jobs import Job
from workbench.opening import open_engine

STATES = sorted((Path(__file__).parent / "fixtures" / "state").glob("*.tar.gz"))


@pytest.fixture(params=STATES, ids=lambda path: path.name)
def old_home(request: pytest.FixtureRequest, home: Path) -> Path:
    # The filter came with Python 3.11.4; the archive is ours.
    options: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
    with tarfile.open(request.param) as archive:
        archive.extractall(home.parent, **options)
    return home


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
