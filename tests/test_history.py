"""Past builds give ranges: by family, size and device; whatever else lies in their files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workbench import files, history, store
from workbench.correction import corrected_need
from workbench.engine import Engine, Identity
from workbench.fit import BuildNeed, Part
from workbench.history import (
    ELSEWHERE,
    RECENT,
    Range,
    keep,
    peak_range,
    record,
    stage_ranges,
)
from workbench.journal import Stage, View

GIB = 1 << 30
XEON, EPYC = "Intel Xeon", "AMD EPYC"
FAMILY = ("openvino", "int8")


def _publish(
    number: int,
    *,
    seconds: float = 10.0,
    parameters: int = 1000,
    quantization: str | None = "int8",
    device: str | None = None,
    build: dict[str, Any] | None = None,
) -> Engine:
    """Publish an engine as a job would, with the manifest of the first version."""
    temporary = files.temporary_name(store.folder(), str(number))
    temporary.mkdir()
    (temporary / "graph.bin").write_bytes(b"graph")
    spec = {"backend": "tensorrt_llm" if device else "openvino", "number": number}
    if quantization is not None:
        spec["quantization"] = quantization
    named = {"name": device, "compute capability": "9.0"} if device else {}
    identity = Identity(spec, "weights", {"openvino": "2026.4"}, named)
    stages = [{"name": "convert", "title": "convert", "seconds": seconds}]
    details = {
        "model": {"name": "tiny", "parameters": parameters},
        "limits": {},
        "build": {"job": f"job-{number}", "stages": stages, "peak_memory_bytes": number * GIB}
        if build is None
        else build,
    }
    return store.publish(temporary, identity, details)


def _view(number: int, seconds: float, **facts: Any) -> View:
    view = View(Path(f"jobs/job-{number}"))
    view.stages["convert"] = Stage("convert", "convert", 100.0, 100.0 + seconds)
    view.facts = facts
    return view


def _record(number: int, seconds: float, device: str = XEON, **facts: Any) -> None:
    """Publish and record a build whose manifest would tell of a thousand seconds."""
    parameters = facts.pop("parameters", 1000)
    engine = _publish(number, seconds=1000.0, parameters=parameters)
    record(engine, _view(number, seconds, **facts), device)


def _convert(device: str = XEON, parameters: int = 1000) -> Range | None:
    return stage_ranges(*FAMILY, parameters, device).get("convert")


def _lines(family: str = "openvino-int8") -> list[dict[str, Any]]:
    return files.read_lines(files.home() / "history" / f"{family}.jsonl")[0]


def test_without_past_builds_there_is_no_range(home: Path) -> None:
    assert stage_ranges(*FAMILY, 1000, XEON) == {}
    assert peak_range(*FAMILY, 1000, XEON) is None


def test_builds_alike_give_a_range_of_times_and_of_memory(home: Path) -> None:
    for number, seconds in enumerate([12.0, 19.0, 15.0, 14.0]):
        _record(number, seconds, peak_memory_bytes=(number + 1) * GIB)
    assert _convert() == Range(12.0, 19.0, 4)
    assert str(_convert()) == "12-19 s in 4 builds like this"
    assert str(peak_range(*FAMILY, 1000, XEON)) == "1.00 GiB to 4.00 GiB in 4 builds like this"
    assert peak_range(*FAMILY, 1000, XEON, gpu=True) is None


def test_the_peak_of_a_gpu_is_the_higher_of_log_and_heartbeat(home: Path) -> None:
    _record(1, 5.0, peak_gpu_memory_bytes=7 * GIB, gpu_peak_bytes=6 * GIB)
    _record(2, 5.0, peak_gpu_memory_bytes=7 * GIB, gpu_peak_bytes=8 * GIB)
    found = peak_range(*FAMILY, 1000, XEON, gpu=True)
    assert found == Range(7 * GIB, 8 * GIB, 2, "bytes")


@pytest.mark.parametrize(("parameters", "alike"), [(499, 0), (500, 1), (2000, 1), (2001, 0)])
def test_alike_are_models_of_half_to_twice_the_size(
    home: Path, parameters: int, alike: int
) -> None:
    _record(1, 12.0, parameters=parameters)
    assert bool(_convert()) == bool(alike)


def test_families_are_kept_apart(home: Path) -> None:
    _record(1, 12.0)
    assert stage_ranges("openvino", "int4", 1000, XEON) == {}
    assert stage_ranges("tensorrt_llm", "int8", 1000, XEON) == {}


def test_the_same_kind_of_device_is_preferred_and_another_is_said(home: Path) -> None:
    _record(1, 40.0, EPYC)
    assert _convert(XEON) == Range(40.0, 40.0, 1, note=ELSEWHERE)
    assert str(_convert(XEON)) == "40 s in 1 build like this, on devices that may differ"
    _record(2, 12.0, XEON)
    assert _convert(XEON) == Range(12.0, 12.0, 1)
    assert _convert(EPYC) == Range(40.0, 40.0, 1)
    assert _convert("") == Range(12.0, 40.0, 2)


def test_only_the_latest_builds_count(home: Path) -> None:
    _record(0, 900.0)
    for number in range(RECENT):
        _record(number + 1, 10.0)
    assert _convert() == Range(10.0, 10.0, RECENT)


def test_nothing_is_lost_when_engines_are_removed(home: Path) -> None:
    _record(1, 12.0)
    shutil.rmtree(store.folder())
    assert _convert() == Range(12.0, 12.0, 1)


def test_a_record_says_what_was_built_and_with_what(home: Path) -> None:
    _record(3, 12.0, peak_memory_bytes=GIB)
    (line,) = _lines()
    engine = store.list_engines()[0]
    assert line == {
        "time": engine.created,
        "engine": engine.key,
        "backend": "openvino",
        "quantization": "int8",
        "parameters": 1000,
        "bytes": 5,
        "versions": {"openvino": "2026.4"},
        "job": "job-3",
        "device": XEON,
        "stages": {"convert": 12.0},
        "peak_memory_bytes": GIB,
        "peak_gpu_memory_bytes": None,
        "predicted": None,
    }


def test_a_stage_that_goes_on_counts_until_now_and_waiting_does_not(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history.time, "time", lambda: 130.0)
    view = _view(1, 12.0)
    view.stages["wait"] = Stage("wait", "wait for a GPU", 0.0, 100.0)
    view.stages["publish"] = Stage("publish", "write to the store", 112.0)
    record(_publish(1), view, XEON)
    assert stage_ranges(*FAMILY, 1000, XEON) == {
        "convert": Range(12.0, 12.0, 1),
        "publish": Range(18.0, 18.0, 1),
    }


# Engines of versions that kept no records.


def test_engines_without_records_are_taken_in_once(home: Path) -> None:
    for number, seconds in enumerate([5.0, 7.0]):
        _publish(number, seconds=seconds)
    _publish(2, seconds=9.0, device="NVIDIA L4")
    assert _convert() == Range(5.0, 7.0, 2, note=ELSEWHERE)
    assert stage_ranges("tensorrt_llm", "int8", 1000, "NVIDIA L4") == {
        "convert": Range(9.0, 9.0, 1)
    }
    assert str(peak_range(*FAMILY, 1000)) == "0 bytes to 1.00 GiB in 2 builds like this"
    before = _lines()
    _convert()
    assert _lines() == before


def test_a_store_that_is_known_is_not_read_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _convert()
    monkeypatch.setattr(history, "list_engines", lambda: pytest.fail("the store was read"))
    _convert()


def test_an_engine_is_kept_before_it_goes_unless_its_job_recorded_it(home: Path) -> None:
    _record(1, 12.0)
    old = _publish(2, seconds=14.0)
    keep(store.list_engines())
    keep([old])
    assert [line["job"] for line in _lines()] == ["job-1", "job-2"]
    assert _convert("") == Range(12.0, 14.0, 2)


def test_a_build_that_is_written_down_twice_counts_once_as_its_job_told_it(home: Path) -> None:
    engine = _publish(1, seconds=1000.0)
    keep([engine])
    record(engine, _view(1, 12.0), XEON)
    line = (files.home() / "history/openvino-int8.jsonl").read_bytes().splitlines()[0]
    with (files.home() / "history/openvino-int8.jsonl").open("ab") as file:
        file.write(line + b"\n")
    assert len(_lines()) == 3
    assert _convert() == Range(12.0, 12.0, 1)


TAKE_IN = """
import sys
from workbench.history import stage_ranges
print("ready", flush=True)
sys.stdin.readline()
print(stage_ranges("openvino", "int8", 1000)["convert"])
"""


def test_processes_that_take_in_at_the_same_time_count_nothing_twice(home: Path) -> None:
    for number in range(10):
        _publish(number, seconds=10.0 + number)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", TAKE_IN],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    answers = [process.communicate("\n", timeout=60)[0] for process in processes]
    assert answers == ["10-19 s in 10 builds like this\n"] * 3
    assert stage_ranges(*FAMILY, 1000)["convert"] == Range(10.0, 19.0, 10)


@pytest.mark.parametrize(
    "build",
    [
        {},
        {"job": "j"},
        {"job": "j", "stages": 7},
        {"job": "j", "stages": [{"name": "convert"}]},
        {"job": "j", "stages": [{"name": "convert", "seconds": "long"}]},
    ],
)
def test_a_manifest_that_tells_no_story_is_passed_over(home: Path, build: dict[str, Any]) -> None:
    _publish(1, build=build)
    _publish(2, seconds=8.0)
    assert _convert("") == Range(8.0, 8.0, 1)


def test_a_name_from_elsewhere_does_not_lead_out_of_the_folder(home: Path) -> None:
    keep([_publish(1, quantization="../../evil")])
    assert [path.name for path in (home / "history").iterdir()] == ["openvino-______evil.jsonl"]


def test_a_backend_without_a_precision_has_a_family(home: Path) -> None:
    record(_publish(1, quantization=None), _view(1, 3.0), XEON)
    assert stage_ranges("openvino", "", 1000, XEON)["convert"] == Range(3.0, 3.0, 1)


# What else may lie there.

FIRST_FORMAT = (
    '{"time": 1790000000.5, "engine": "0123456789abcdef0123", "backend": "openvino", '
    '"quantization": "int8", "parameters": 1000, "bytes": 5, "versions": {"openvino": "2026.4"}, '
    '"job": "a1b2-001", "device": "Intel Xeon", "stages": {"convert": 12.5}, '
    '"peak_memory_bytes": 1073741824, "peak_gpu_memory_bytes": null}\n'
)
"""A line as this version writes it; later ones must read it."""


def _line(parameters: str = "1000", stages: str = "{}") -> bytes:
    """A line of this device with one value in it that may be wrong."""
    text = '{"job": "x", "time": 1, "device": "Intel Xeon", "parameters": %s, "stages": %s}'
    return (text % (parameters, stages)).encode()


MALFORMED = [
    b"",
    b"\n",
    b"{",
    b"null",
    b"[]",
    b"\x00\xff\xfe\x80",
    b'{"job": "x"}',
    _line(parameters='"many"'),
    _line(parameters="Infinity"),
    _line(stages="[]"),
    _line(stages='{"convert": "long"}'),
    _line(stages='{"convert": NaN}'),
    _line(stages='{"convert": Infinity}'),
    _line(stages='{"convert": -3}'),
]


@pytest.mark.parametrize("line", MALFORMED)
def test_lines_that_hold_no_record_are_passed_over(home: Path, line: bytes) -> None:
    path = files.make_folder(files.home() / "history") / "openvino-int8.jsonl"
    path.write_bytes(line + b"\n" + FIRST_FORMAT.encode() + line)
    assert _convert() == Range(12.5, 12.5, 1)
    assert peak_range(*FAMILY, 1000, XEON) == Range(GIB, GIB, 1, "bytes")
    _record(1, 14.0)
    assert _convert() == Range(12.5, 14.0, 2)


@pytest.mark.parametrize("kind", ["folder", "fifo", "dangling link"])
def test_what_is_no_file_counts_as_empty_and_stops_nobody(home: Path, kind: str) -> None:
    path = files.make_folder(files.home() / "history") / "openvino-int8.jsonl"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(home / "missing" / "nowhere")
    assert _convert() is None
    _record(1, 12.0)


def test_a_disk_that_is_full_costs_the_record_and_not_the_build(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(files, "append_line", refuse)
        _record(1, 12.0)
    assert _lines() == []
    assert _convert("") == Range(1000.0, 1000.0, 1), "its manifest is there"


def test_thousands_of_records_cost_no_more_than_the_latest(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = files.make_folder(files.home() / "history") / "openvino-int8.jsonl"
    line = json.loads(FIRST_FORMAT)
    with path.open("w", encoding="utf-8") as file:
        for number in range(10_000):
            stages = {f"stage {stage}": 1.0 for stage in range(11)} | {"convert": 1.0 + number}
            file.write(json.dumps({**line, "job": f"job-{number}", "stages": stages}) + "\n")
    assert path.stat().st_size > 4 * history.TAIL
    parsed: list[object] = []
    parse = history._past
    monkeypatch.setattr(history, "_past", lambda values: parsed.append(values) or parse(values))
    assert _convert() == Range(9981.0, 10000.0, RECENT)
    assert 100 < len(parsed) < 1500


def test_an_engine_of_long_ago_is_not_kept_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "TAIL", 400)
    for number in range(5):
        _record(number, 12.0)
    keep(store.list_engines())
    assert len(_lines()) == 5
    assert _convert() == Range(12.0, 12.0, 1), "the tail holds one whole record"


NEED = BuildNeed(
    Part("memory", GIB, 4 * GIB, exact=False, how=""), Part("disk", 1, 2, exact=False, how="")
)


def _measured(*ratios: float, device: str = XEON) -> BuildNeed:
    """Record builds whose peaks were these parts of what was predicted; correct `NEED` by them."""
    for number, ratio in enumerate(ratios):
        need = {"memory": [GIB, 8 * GIB], "disk": [1, 2]}
        _record(number, 1.0, peak_memory_bytes=int(ratio * 8 * GIB), need=need)
    return corrected_need(NEED, *FAMILY, 1000, device)


def test_without_builds_a_need_is_what_was_predicted(home: Path) -> None:
    assert _measured() == NEED


def test_three_builds_narrow_a_range_to_what_was_measured(home: Path) -> None:
    memory = _measured(0.5, 0.55, 0.6).memory
    assert memory.low == int(4 * GIB * 0.5 / 1.1)
    assert memory.high == pytest.approx(4 * GIB * 0.6 * 1.1, abs=2)
    assert memory.basis == (
        "measured on 3 builds like this, which took 50% to 60% of the most; 1.00 GiB to 4.00 GiB "
        "by arithmetic alone"
    )


def test_a_single_build_only_widens_a_range(home: Path) -> None:
    memory = _measured(0.6).memory
    assert (memory.low, memory.high) == (GIB, 4 * GIB)
    assert memory.basis == "estimate; 1 build like this took 60% of the most"


def test_who_took_more_than_predicted_raises_the_range(home: Path) -> None:
    assert _measured(1.2).memory.high == pytest.approx(4 * GIB * 1.2 * 1.1, abs=2)


def test_builds_on_other_devices_correct_it_and_that_is_said(home: Path) -> None:
    assert ELSEWHERE in _measured(0.5, device=EPYC).memory.basis


def test_builds_without_a_prediction_correct_nothing(home: Path) -> None:
    _record(1, 1.0, peak_memory_bytes=GIB)
    _record(2, 1.0, peak_memory_bytes=GIB, need={"memory": "much"})
    assert corrected_need(NEED, *FAMILY, 1000, XEON) == NEED


def test_a_long_history_is_read_once_and_again_when_a_build_was_added(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = []
    read = files.read_lines
    monkeypatch.setattr(files, "read_lines", lambda *a: reads.append(a) or read(*a))
    _record(1, 10.0)
    assert [_convert(), _convert()] == [Range(10.0, 10.0, 1)] * 2
    once = len(reads)
    assert _convert() == Range(10.0, 10.0, 1)
    assert len(reads) == once
    _record(2, 20.0)
    assert _convert() == Range(10.0, 20.0, 2)
