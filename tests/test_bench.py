"""Trials on a real engine: what is measured, what is written, and how it is shown."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

import workbench
from tests.replay import Replay
from tests.test_cli import _flags
from workbench import results
from workbench.backends import make_spec
from workbench.bench import check_lengths, run_trial
from workbench.cli import main
from workbench.engine import Engine
from workbench.errors import SpecError, ToolchainError, TrialError
from workbench.measuring import complete, late, measure
from workbench.trial import Trial, new_record, point_of
from workbench.trial_words import trial_lines
from workbench.workload import Workload

SMALL = {"input_len": 12, "output_len": 6, "requests": 4, "concurrency": 2, "repetitions": 2}


def _spec(engine: Engine) -> dict[str, Any]:
    return {**engine.manifest["identity"]["spec"], **_limits(engine)}


def _limits(engine: Engine) -> dict[str, Any]:
    names = ("max_batch_size", "max_input_len", "max_output_len", "threads")
    return {name: engine.limits[name] for name in names}


def test_a_trial_of_an_engine_is_in_the_store_with_all_that_it_found(stocked: Engine) -> None:
    told: list[str] = []
    trial = run_trial(_spec(stocked), SMALL, report=told.append).require()
    assert told == [
        "load the engine",
        "warm up",
        *(f"measure, repetition {n} of 2" for n in (1, 2)),
    ]
    found = results.find_trial(trial.id)
    assert json.loads(json.dumps(trial.record)) == found.record
    record = found.record
    assert record["engine"]["key"] == stocked.key
    assert record["engine"]["build_seconds"] > 0
    assert [len(requests) for requests in record["repetitions"]] == [4, 4]
    for requests in record["repetitions"]:
        for request in requests:
            assert (request["input_tokens"], request["output_tokens"]) == (12, 6)
    assert record["summary"]["output_tokens"] == 2 * 4 * 6
    assert 1 < record["summary"]["mean_concurrency"] <= 2
    assert record["environment"]["toolchain"]["openvino-genai"]
    assert record["memory"]["host_peak_bytes"] > 10 << 20
    assert 0 <= record["environment"]["busy_during"] <= 1


def test_the_same_trial_is_measured_again_or_taken_from_the_store(stocked: Engine) -> None:
    first = run_trial(_spec(stocked), SMALL)
    assert run_trial(_spec(stocked), SMALL, again=False).id == first.id
    second = run_trial(_spec(stocked), SMALL)
    assert second.point == first.point
    assert {trial.id for trial in results.list_trials()} == {first.id, second.id}
    assert results.latest(first.point) == second


def test_the_command_line_measures_lists_and_shows(
    stocked: Engine, capsys: pytest.CaptureFixture
) -> None:
    words = [f"--{name.replace('_', '-')}={value}" for name, value in SMALL.items()]
    flags = [
        *_flags(stocked),
        *(f"--{n.replace('_', '-')}={v}" for n, v in _limits(stocked).items()),
    ]
    assert main(["trial", *flags, *words, "--request-rate=200"]) == 0
    shown = capsys.readouterr().out
    for part in ("Output   ", "tokens/s per user", "TTFT     p50", "Late     ", stocked.key):
        assert part in shown
    (trial,) = results.list_trials()
    assert main(["trials"]) == 0
    assert trial.id in capsys.readouterr().out
    assert main(["trials", trial.id[:6]]) == 0
    assert "Sent     8 requests" in capsys.readouterr().out
    assert main(["trials", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["ttft.p50"] > 0
    assert main(["trials", "zz"]) == 1
    assert "no trial whose id begins with 'zz'" in capsys.readouterr().err


def test_the_command_line_plans_and_runs_a_sweep(
    stocked: Engine, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    lines = [f"{name} = {json.dumps(value)}" for name, value in _spec(stocked).items()]
    load = [f"{name} = {value}" for name, value in SMALL.items()]
    text = "\n".join(["[spec]", *lines, "[workload]", *load, "[grid.workload]", "warmup = [0, 1]"])
    path = tmp_path / "small.toml"
    path.write_text(text)
    assert main(["sweep", str(path), "--plan"]) == 0
    assert "Engines  0 to build, 1 there already" in capsys.readouterr().out
    assert main(["sweep", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "2 trials: 2 done, 0 invalid, 0 failed." in shown
    assert main(["jobs"]) == 0
    assert "sweep small of 2 points" in capsys.readouterr().out
    assert main(["sweep", str(path), "--plan"]) == 0
    assert "2 are measured and 0 are left" in capsys.readouterr().out


def test_a_trial_that_failed_is_kept_with_its_reason(home: Path) -> None:
    trial = run_trial({"max_input_len": 8}, {"input_len": 9})
    assert (trial.status, trial.valid, trial.summary) == ("failed", False, {})
    assert "needs max_input_len 9, and the engine has 8" in trial.record["reasons"][0]
    with pytest.raises(TrialError, match="is failed: This workload needs max_input_len"):
        trial.require()
    assert results.list_trials() == [results.find_trial(trial.id)]
    assert results.list_trials(valid=True) == []
    assert not (home / "jobs").exists()


def test_lengths_are_compared_with_limits_as_far_as_they_are_known() -> None:
    spec = make_spec(max_input_len=10, max_output_len=10, max_seq_len=15)
    check_lengths(spec, Workload(input_len=5, output_len=10))
    with pytest.raises(SpecError, match="needs max_seq_len 16"):
        check_lengths(spec, Workload(input_len=6, output_len=10))
    # As they are drawn: the longest of these has 7, where 11 would be possible.
    spread = Workload(input_len=6, input_stdev=1.0, output_len=1)
    longest = spread.longest().input
    check_lengths(make_spec(max_input_len=longest), spread)
    with pytest.raises(SpecError, match=f"needs max_input_len {longest}, and the engine has"):
        check_lengths(make_spec(max_input_len=longest - 1), spread)


def _played(workload: Workload, session: Replay) -> dict[str, Any]:
    record = new_record("0" * 16, {}, workload.model_dump())
    complete(record, workload, measure(session, workload, range(50)))
    return record


@pytest.mark.parametrize(("together", "status"), [(1, "done"), (2, "invalid")])
def test_a_session_that_merges_tokens_makes_an_invalid_trial(together: int, status: str) -> None:
    workload = Workload(input_len=3, output_len=4, requests=3)
    with Replay(together=together) as session:
        record = _played(workload, session)
    assert record["status"] == status
    assert bool(record["reasons"]) == (together == 2)
    assert all("came in one piece" in reason for reason in record["reasons"])


def test_requests_that_are_sent_too_late_are_told() -> None:
    workload = Workload(request_rate=10.0)
    assert late(workload, {"scheduling_error": {"p99": 0.05}}) == []
    assert "more than 150 ms late" in late(workload, {"scheduling_error": {"p99": 0.15}})[0]
    assert late(Workload(), {"scheduling_error": None}) == []


def test_what_is_no_record_is_left_out(home: Path) -> None:
    assert results.list_trials() == []
    trial = results.save(new_record("a" * 16, {"backend": "x"}, {}))
    folder = results.folder()
    (folder / "torn.json").write_text('{"format": 1, "id": "to')
    (folder / "later.json").write_text(json.dumps({**trial.record, "format": 2}))
    (folder / "wrong.json").write_text(json.dumps({**trial.record, "spec": []}))
    (folder / "folder.json").mkdir()
    assert [found.id for found in results.list_trials()] == [trial.id]
    with pytest.raises(TrialError, match="There is no trial whose id begins with ''"):
        results.find_trial("")


def test_a_frame_needs_pandas_and_rows_need_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    record = new_record("b" * 16, {"backend": "x", "dtype": "f"}, {"requests": 3})
    trial = results.save(record)
    (row,) = results.rows()
    assert (row["id"], row["dtype"], row["workload.requests"]) == (trial.id, "f", 3)
    frame = workbench.frame()
    assert list(frame["id"]) == [trial.id]
    assert frame["workload.requests"].sum() == 3
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ToolchainError, match="A frame needs pandas"):
        workbench.frame()


def test_the_point_of_a_trial_is_that_of_its_values() -> None:
    spec, workload = make_spec(quantization="int4"), Workload()
    assert point_of(spec, workload) == point_of(make_spec(quantization="int4"), Workload())
    assert point_of(spec, workload) != point_of(spec, Workload(seed=1))
    assert point_of(spec, workload) != point_of(make_spec(quantization="int8"), workload)


def test_words_of_a_model_cannot_steer_the_terminal() -> None:
    record = new_record("c" * 16, {"backend": "x", "model": "\x1b[31m"}, {})
    trial = Trial({**record, "id": "c"})
    assert "\x1b" not in str(trial)
    assert "\x1b" not in "".join(trial_lines(trial))
