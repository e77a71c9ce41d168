"""Why an engine is none of those that are there: first fields in short, all of them at length."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import stock
from tests.faults import Faulty, job_of
from workbench.cli import main
from workbench.engine import Engine, Identity
from workbench.explanations import explain_miss

OTHERS = {
    "max_batch_size": 5,
    "max_input_len": 65,
    "max_seq_len": 129,
    "seed": 1,
    "size": 6000,
}


def test_a_note_names_the_first_fields_and_show_all_of_them(
    faulty: Faulty, capsys: pytest.CaptureFixture[str]
) -> None:
    nearest = stock.stock(faulty)
    job = job_of(faulty.start(**OTHERS))
    job.wait()
    (note,) = job.view().notes
    assert f"the nearest, {nearest.key}, differed in max_batch_size (4 there, 5 here), " in note
    assert note.endswith(", and 1 more.")
    assert "size (5000 there" not in note
    assert main(["jobs", "show", job.id]) == 0
    shown = capsys.readouterr().out
    assert "All differences from the nearest engine:" in shown
    for words in ("max_batch_size (4 there, 5 here)", "seed (0 there, 1 here)", "size (5000 there"):
        assert f"    {words}" in shown


def test_what_a_note_names_is_not_said_twice(
    faulty: Faulty, capsys: pytest.CaptureFixture[str]
) -> None:
    stock.stock(faulty)
    job = job_of(faulty.start(seed=1))
    job.wait()
    assert main(["jobs", "show", job.id]) == 0
    assert capsys.readouterr().out.count("seed (0 there, 1 here)") == 1


def test_another_version_of_the_toolchain_is_a_miss_that_is_explained(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    nearest = stock.stock(faulty)
    monkeypatch.setenv("WORKBENCH_FAULT_VERSION", "2.0")
    job = job_of(faulty.start())
    job.wait()
    (note,) = job.view().notes
    assert f"the nearest, {nearest.key}, differed in version of fault (1.0 there, 2.0 " in note


def test_another_gpu_is_a_miss_that_is_explained(home: Path) -> None:
    def on(name: str, capability: str) -> Identity:
        device = {"name": name, "compute capability": capability}
        return Identity({"backend": "fault"}, "weights", {"fault": "1.0"}, device)

    said = explain_miss(on("L40S", "8.9"), [stock.publish(on("H100", "9.0"))])
    assert "the GPU's compute capability (9.0 there, 8.9 here)" in said
    assert "the GPU's name (H100 there, L40S here)" in said


def test_fit_names_every_field_in_which_the_nearest_engine_differs(
    stocked: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["fit", "--quantization", "int8"])
    shown = capsys.readouterr().out
    assert f"the nearest, {stocked.key}, differs in:" in shown
    assert "quantization (none there, int8 here)" in shown
