"""Reports of other tools become trials, with the same doubts about their figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from workbench import results
from workbench.cli import main
from workbench.errors import InputError
from workbench.foreign import import_trials
from workbench.trial_words import trial_lines


def _percentiles(middle: float) -> dict[str, float]:
    ends = {"minimum": middle / 2, "maximum": middle * 4, "average": middle * 1.1}
    return {**ends, "p50": middle, "p90": middle * 2, "p95": middle * 2.5, "p99": middle * 3}


def trtllm_bench(**performance: Any) -> dict[str, Any]:
    """A report_json of 100 requests of 512 and 128 tokens in 4 s, on two GPUs."""
    return {
        "engine": {"model": "meta/x", "model_path": "/m", "engine_dir": "/e", "version": "1.2.1",
                   "backend": "TRT", "dtype": "float16", "kv_cache_dtype": "FP8",
                   "quantization": "FP8", "max_input_length": 1024, "max_sequence_length": 2048},
        "machine": {"name": "NVIDIA H100 80GB HBM3", "memory.total": 79.1, "clocks.mem": 2.6},
        "world_info": {"tp_size": 2, "pp_size": 1, "ep_size": 1, "world_size": 2,
                       "max_batch_size": 64, "max_num_tokens": 8192, "issue_rate": 1e9},
        "request_info": {"num_requests": 100, "avg_num_concurrent_requests": 15.5,
                         "avg_input_length": 512.0, "avg_output_length": 128.0},
        "performance": {
            "total_latency_ms": 4000.0, "avg_request_latency_ms": 600.0,
            "request_throughput_req_s": 25.0, "system_output_throughput_tok_s": 3200.0,
            "system_total_throughput_tok_s": 16000.0, "output_throughput_per_user_tok_s": 210.0,
            "output_throughput_per_gpu_tok_s": 1600.0,
            "request_latency_percentiles_ms": _percentiles(600.0), **performance,
        },
        "streaming_metrics": {
            "token_output_speed_tok_s": 220.0, "avg_ttft_ms": 33.0, "avg_tpot_ms": 4.4,
            "tpot_percentiles": _percentiles(4.0), "ttft_percentiles": _percentiles(30.0),
            "gen_tps_percentiles": _percentiles(220.0),
        },
        "dataset": {"isl": 512, "osl": 128},
    }  # fmt: skip


def _distribution(mean: float, count: int = 10) -> dict[str, Any]:
    places = {"p50": mean, "p90": mean * 2, "p99": mean * 3}
    found = {"mean": mean, "count": count, "total_sum": mean * count, "percentiles": places}
    return {"successful": found, "errored": None, "incomplete": None, "total": found}


def guidellm(*streams: int, errored: int = 0, version: int = 2) -> dict[str, Any]:
    """A benchmarks.json with a benchmark of ten requests for each number of streams."""

    def benchmark(concurrency: int) -> dict[str, Any]:
        totals = {"successful": 10, "errored": errored, "incomplete": 0, "total": 10 + errored}
        return {
            "config": {
                "strategy": {"type_": "concurrent", "streams": concurrency},
                "backend": {"target": "http://localhost:8000", "model": "m"},
            },
            "duration": 5.0,
            "metrics": {
                "request_totals": totals,
                "prompt_token_count": _distribution(100.0),
                "output_token_count": _distribution(50.0),
                "requests_per_second": _distribution(2.0),
                "output_tokens_per_second": _distribution(100.0),
                "request_concurrency": _distribution(float(concurrency)),
                "time_to_first_token_ms": _distribution(20.0),
                "inter_token_latency_ms": _distribution(8.0),
                "request_latency": _distribution(0.42),
            },
        }

    about = {"version": version, "guidellm_version": "0.6.0"}
    return {"metadata": about, "benchmarks": [benchmark(number) for number in streams]}


def aiperf(number: int = 0, **metrics: float) -> dict[str, Any]:
    """A line of a profile_export.jsonl: one request of three chunks."""
    values = {"input_sequence_length": 55, "output_sequence_length": 3,
              "time_to_first_token": 20.0, "inter_chunk_latency": [5.0, 6.0],
              "request_latency": 31.0, **metrics}  # fmt: skip
    begin = 1_759_813_207_000_000_000 + number * 40_000_000
    return {
        "metadata": {"session_num": number, "request_start_ns": begin,
                     "request_end_ns": begin + 32_000_000, "was_cancelled": False},
        "metrics": {name: {"value": value, "unit": ""} for name, value in values.items()},
        "error": None,
    }  # fmt: skip


def _write(path: Path, *values: Any) -> Path:
    path.write_text("\n".join(map(json.dumps, values)))
    return path


def test_a_report_of_trtllm_bench_is_a_trial(tmp_path: Path) -> None:
    (trial,) = import_trials(_write(tmp_path / "r.json", trtllm_bench()))
    assert trial.require().record["source"] == "trtllm-bench 1.2.1"
    assert trial.spec["backend"] == "tensorrt_llm"
    assert trial.record["devices"] == 2
    summary = trial.summary
    assert (summary["seconds"], summary["output_tokens"]) == (4.0, 12800)
    assert summary["output_tokens_per_second_per_device"] == 1600.0
    assert summary["output_tokens_per_second_per_user"] == 220.0
    assert summary["ttft"] == pytest.approx({"mean": 0.033, "p50": 0.03, "p90": 0.06, "p99": 0.09})
    assert summary["tpot"]["p50"] == pytest.approx(0.004)
    assert summary["e2e"]["p99"] == pytest.approx(1.8)
    assert "Output   3200 tokens/s" in "\n".join(trial_lines(trial))


def test_one_without_streaming_has_no_first_token(tmp_path: Path) -> None:
    report = trtllm_bench()
    del report["streaming_metrics"]
    (trial,) = import_trials(_write(tmp_path / "r.json", report))
    assert trial.valid
    assert trial.summary["ttft"] is None
    assert trial.summary["output_tokens_per_second_per_user"] is None


def test_every_benchmark_of_guidellm_is_a_trial(tmp_path: Path) -> None:
    one, two = import_trials(_write(tmp_path / "benchmarks.json", guidellm(1, 8)))
    assert [trial.workload["concurrency"] for trial in (one, two)] == [1, 8]
    assert one.require().record["source"] == "guidellm 0.6.0"
    assert one.summary["output_tokens_per_second_per_user"] == pytest.approx(1 / 0.008)
    assert one.summary["e2e"]["p90"] == pytest.approx(0.84)
    assert one.spec["url"] == "http://localhost:8000"


def test_the_warm_up_of_aiperf_is_not_measured(tmp_path: Path) -> None:
    lines = [aiperf(number) for number in range(3)]
    lines[0]["metadata"]["benchmark_phase"] = "warmup"
    (trial,) = import_trials(_write(tmp_path / "profile_export.jsonl", *lines))
    assert trial.require().summary["requests"] == 2
    with pytest.raises(InputError, match="warm-up alone"):
        import_trials(_write(tmp_path / "other.jsonl", lines[0]))


def test_requests_of_aiperf_are_measured_like_our_own(tmp_path: Path) -> None:
    lines = [aiperf(number) for number in range(3)]
    (trial,) = import_trials(_write(tmp_path / "profile_export.jsonl", *lines))
    assert trial.require().summary["output_tokens"] == 9
    # From the first request to the last chunk of the third.
    assert trial.summary["seconds"] == pytest.approx(0.08 + 0.031)
    assert trial.summary["ttft"]["p50"] == pytest.approx(0.02)
    assert trial.summary["tpot"]["p50"] == pytest.approx(0.0055)


@pytest.mark.parametrize(
    ("report", "sentence"),
    [
        (trtllm_bench(system_output_throughput_tok_s=6400.0), "output_tokens_per_second is told"),
        (guidellm(4, errored=2), "2 of 12 requests failed"),
        (aiperf(time_to_first_token=0.0), "TTFT is 0 s"),
        (aiperf(request_latency=25.0), "are not its E2E latency"),
        (aiperf(output_sequence_length=2), "more chunks"),
    ],
)
def test_figures_that_cannot_be_true_make_it_invalid(
    tmp_path: Path, report: dict[str, Any], sentence: str
) -> None:
    (trial,) = import_trials(_write(tmp_path / "r.json", report))
    assert trial.status == "invalid"
    assert any(sentence in reason for reason in trial.record["reasons"])


def test_a_report_says_what_is_known_of_its_devices_and_how_to_say_more(tmp_path: Path) -> None:
    path = _write(tmp_path / "benchmarks.json", guidellm(1))
    (unknown,) = import_trials(path)
    shown = "\n".join(trial_lines(unknown))
    assert "unknown; imported again with --device it is compared" in shown
    assert "counted as one" in shown
    (named,) = import_trials(path, device="NVIDIA H200")
    assert not named.of_unknown_device
    # A name says nothing of how many there are.
    assert named.of_unknown_count


def test_a_report_is_imported_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = _write(tmp_path / "benchmarks.json", guidellm(1, 8))
    first = import_trials(path)
    assert main(["trials", "--import", str(path)]) == 0
    shown = capsys.readouterr().out
    assert [trial.id in shown for trial in first] == [True, True]
    assert len(results.list_trials()) == 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no measurement|is no report"),
        ("no json", "is no report that can be read"),
        ("[]", "is no report that can be read"),
        ('{"a": 1}', "no known part is in it"),
        ('{"performance": {}, "request_info": {}}', "KeyError 'engine'"),
        (json.dumps(guidellm(1, version=1)), "version 2 of GuideLLM's report is known, not 1"),
        ('{"metadata": {"version": 2}, "benchmarks": []}', "has no measurement in it"),
    ],
)
def test_what_is_no_report_is_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "r.json"
    path.write_text(text)
    with pytest.raises(InputError, match=sentence):
        import_trials(path)
    assert results.list_trials() == []
    with pytest.raises(InputError, match="There is no report"):
        import_trials(tmp_path / "none.json")
