"""What is left is said from past builds, and only of stages that still come."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.gpu_table import GPUS, GpuModel, find
from workbench.gpus import Gpu
from workbench.history import ELSEWHERE, Range
from workbench.journal import Stage, View
from workbench.summaries import fact_line, gpus_line, remaining, stage_line

ORDER = ["download", "load", "convert", "smoke"]
RANGES = {
    "download": Range(300.0, 600.0, 2),
    "load": Range(2.0, 4.0, 3),
    "convert": Range(10.0, 20.0, 3),
}


def _view(**stages: float | None) -> View:
    """A view of stages by name: all begin at 100 s, and end as given."""
    view = View(Path())
    view.stages = {name: Stage(name, name, 100.0, end) for name, end in stages.items()}
    return view


def test_stages_that_were_passed_over_do_not_count() -> None:
    assert remaining(_view(load=None), RANGES, ORDER, 100.0) == (
        "about 12 to 24 s left, from 3 builds like this"
    )


def test_what_the_running_stage_has_taken_is_subtracted() -> None:
    assert remaining(_view(load=103.0, convert=None), RANGES, ORDER, 115.0) == (
        "about 0 to 5 s left, from 3 builds like this"
    )


def test_a_last_stage_that_takes_longer_than_ever_is_said_so() -> None:
    assert remaining(_view(convert=None), RANGES, ORDER, 121.0) == (
        "longer than in 3 builds like this"
    )


def test_nothing_is_said_without_past_builds_or_without_a_running_stage() -> None:
    assert remaining(_view(load=None), {}, ORDER, 100.0) == ""
    assert remaining(_view(load=101.0), RANGES, ORDER, 102.0) == ""
    assert remaining(_view(smoke=None), RANGES, ORDER, 102.0) == ""


def test_a_range_from_other_devices_says_so() -> None:
    elsewhere = {"load": Range(2.0, 4.0, 3, note=ELSEWHERE)}
    assert remaining(_view(load=None), elsewhere, ORDER, 100.0) == (
        "about 2 to 4 s left, from 3 builds like this, on devices that may differ"
    )
    line = stage_line(Stage("load", "load weights", 100.0), elsewhere, 101.0)
    assert line.endswith("(2-4 s in 3 builds like this, on devices that may differ)")


def test_the_peak_of_memory_stands_beside_that_of_past_builds() -> None:
    view = _view(load=None)
    view.facts = {"peak_memory_bytes": 3 << 30, "available_memory_bytes": 1 << 30}
    past = Range(2 << 30, 4 << 30, 2, "bytes")
    running = (
        "memory of all its processes at the peak 3.00 GiB "
        "(2.00 GiB to 4.00 GiB in 2 builds like this)"
    )
    assert fact_line(view, past) == f"{running} · memory available 1.00 GiB"
    view.end = {"event": "done"}
    assert fact_line(view, past) == running
    assert fact_line(view) == "memory of all its processes at the peak 3.00 GiB"


def test_all_that_the_table_has_of_a_gpu_is_told_in_one_line() -> None:
    gpus = [find("H100 SXM").as_gpu(index) for index in range(2)]
    assert gpus_line(gpus) == (
        "2 x H100 SXM 80GB: 79.6 GiB at 3,350 GB/s, compute capability 9.0, 10^12 operations a "
        "second on dense matrices in tf32 494.7, float16 989.4, bfloat16 989.4, int8 1,979, fp8 "
        f"1,979. Source: {find('H100 SXM').source}."
    )


@pytest.mark.parametrize("model", GPUS, ids=lambda model: model.name)
def test_no_line_of_the_table_is_longer_than_its_room(model: GpuModel) -> None:
    # Three lines of some 150 characters at the narrowest width that the form is made for.
    assert len(gpus_line([model.as_gpu()])) < 420


def test_gpus_of_this_machine_are_told_by_kind() -> None:
    gpus = [Gpu(i, "NVIDIA L4", (8, 9), 23034 << 20, 1, f"GPU-{i}") for i in range(2)]
    gpus.append(Gpu(2, "NVIDIA A100", (8, 0), 80 << 30, 1, "GPU-2"))
    assert gpus_line(gpus) == (
        "2 x NVIDIA L4: 22.5 GiB, compute capability 8.9; 1 x NVIDIA A100: 80.0 GiB, compute "
        "capability 8.0"
    )
    assert gpus_line([]) == ""
