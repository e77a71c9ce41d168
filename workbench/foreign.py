"""Trials from the reports of other tools: trtllm-bench, GuideLLM and AIPerf.

    trtllm-bench throughput|latency --report_json FILE     figures of all requests
    guidellm benchmark ... (benchmarks.json)               figures, one trial for each benchmark
    aiperf profile ... (profile_export.jsonl)              every request, like our own trials

Times come in milliseconds and become seconds. What a tool calls inter-token latency is mostly the
mean of each request, which is our TPOT; ITL stays empty there. The self-check is made here too.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench import files, results
from workbench.checks import violations
from workbench.errors import InputError
from workbench.measurement import summarize
from workbench.trial import Trial, new_record

FORMS = (
    "the report_json of trtllm-bench, the benchmarks.json of GuideLLM, and the "
    "profile_export.jsonl of AIPerf"
)


def import_trials(
    path: Path, *, model: str | None = None, device: str | None = None
) -> list[Trial]:
    """Bring the measurements in a report of another tool into the store.

    A report that was imported before with the same words is found again, not kept twice.

    Args:
        path: The report.
        model: What it is about, as a build spec names it; by default what the report says, which
            may be the name on a server, or nothing.
        device: What that runs on, as our own trials name it; reports of GuideLLM and AIPerf do
            not say. Only what has the same model and device is compared.

    Raises:
        InputError: There is no such file, or it is none of the reports that are known.
    """
    data = files.read_file(path)
    if data is None:
        raise InputError(f"There is no report {path}.")
    said = json.dumps([model, device]).encode() if model or device else b""
    digest = hashlib.sha256(data + said).hexdigest()[:12]
    try:
        records = list(_read(data))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is no report that can be read: {type(error).__name__} {error}. Known are "
            f"{FORMS}."
        ) from error
    if not records:
        raise InputError(f"{path} has no measurement in it. Known are {FORMS}.")
    for record in records:
        record["spec"] |= {"model": model} if model else {}
        record["environment"] |= {"device": device} if device else {}
    return [_keep(f"{digest}{place:04d}", record) for place, record in enumerate(records)]


def _keep(point: str, record: dict[str, Any]) -> Trial:
    known = results.latest(point)
    return known or results.save({**record, "point": point})


def _read(data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the records of a report, whichever tool wrote it.

    Raises:
        ValueError: It is none.
    """
    try:
        report = json.loads(data)
    except ValueError:
        lines = [json.loads(line) for line in data.splitlines() if line.strip()]
        yield _aiperf(lines)
        return
    if "performance" in report and "request_info" in report:
        yield _trtllm_bench(report)
    elif "benchmarks" in report:
        yield from (_guidellm(report, benchmark) for benchmark in report["benchmarks"])
    elif "metrics" in report and "metadata" in report:
        yield _aiperf([report])  # a single request
    else:
        raise ValueError("no known part is in it")


def _finish(
    record: dict[str, Any], summary: dict[str, Any], repetitions: Sequence[Any] = ()
) -> dict[str, Any]:
    """Add figures to a record, and what speaks against them."""
    # What arrives together is stamped together, as in our own trials of servers.
    reasons = [*violations(repetitions, summary, several_at_once=True), *_rates(summary)]
    record |= {"status": "invalid" if reasons else "done", "reasons": reasons}
    return record | {"summary": summary, "seconds": summary["seconds"]}


def _rates(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield where a rate is not what was counted by the time it took, to a hundredth."""
    pairs = {"output_tokens_per_second": "output_tokens", "requests_per_second": "requests"}
    for rate, count in pairs.items():
        told, counted = (
            summary.get(rate),
            summary[count] - (summary["errors"] if count == "requests" else 0),
        )
        if (
            told
            and summary["seconds"]
            and not math.isclose(told, counted / summary["seconds"], rel_tol=0.01)
        ):
            yield (
                f"{rate} is told as {told:.6g}, and {counted:.6g} in {summary['seconds']:.6g} s "
                f"are {counted / summary['seconds']:.6g}"
            )
    if summary["errors"]:
        yield f"{summary['errors']} of {summary['requests']} requests failed"


def _trtllm_bench(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a report_json (tensorrt_llm/bench/dataclasses/reporting.py)."""
    engine, world = report["engine"], report["world_info"]
    asked, found = report["request_info"], report["performance"]
    streamed = report.get("streaming_metrics") or {}
    backend = "tensorrt_llm" if engine.get("backend") == "TRT" else "tensorrt_llm_torch"
    spec = {
        "backend": backend,
        "model": engine["model"],
        "dtype": engine.get("dtype"),
        "quantization": engine.get("quantization"),
        **{name: world.get(name) for name in ("tp_size", "pp_size", "max_batch_size")},
        "max_num_tokens": world.get("max_num_tokens"),
    }
    workload = {
        "input_len": asked["avg_input_length"],
        "output_len": asked["avg_output_length"],
        "concurrency": asked["avg_num_concurrent_requests"],
        "requests": asked["num_requests"],
    }
    record = new_record("", spec, workload, f"trtllm-bench {engine.get('version', '')}".strip())
    record["devices"] = world.get("world_size") or 1
    record["environment"] = {"device": (report.get("machine") or {}).get("name")}
    count = asked["num_requests"]
    spread = _spread(lambda name: _TRTLLM[name], 1e-3)
    summary = {
        **_nothing(),
        "requests": count,
        "seconds": found["total_latency_ms"] / 1000,
        "input_tokens": round(asked["avg_input_length"] * count),
        "output_tokens": round(asked["avg_output_length"] * count),
        "requests_per_second": found["request_throughput_req_s"],
        "output_tokens_per_second": found["system_output_throughput_tok_s"],
        "total_tokens_per_second": found["system_total_throughput_tok_s"],
        "output_tokens_per_second_per_device": found["output_throughput_per_gpu_tok_s"],
        # Theirs "per user" counts the time to the first token too; this is what one user reads.
        "output_tokens_per_second_per_user": streamed.get("token_output_speed_tok_s"),
        "mean_concurrency": asked["avg_num_concurrent_requests"],
        "ttft": spread(streamed.get("ttft_percentiles")),
        "tpot": spread(streamed.get("tpot_percentiles")),
        "e2e": spread(found["request_latency_percentiles_ms"]),
    }
    return _finish(record, summary)


_TRTLLM = {"mean": "average", "p50": "p50", "p90": "p90", "p99": "p99"}


def _guidellm(report: Mapping[str, Any], benchmark: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of one benchmark of a benchmarks.json, schema version 2.

    Raises:
        ValueError: It is of another version.
    """
    about = report["metadata"]
    if about.get("version") != 2:
        raise ValueError(f"version 2 of GuideLLM's report is known, not {about.get('version')}")
    config, metrics = benchmark["config"], benchmark["metrics"]
    strategy, backend = config["strategy"], config.get("backend") or {}
    counts = metrics["request_totals"]
    spec = {"backend": "endpoint", "model": backend.get("model"), "url": backend.get("target")}
    workload = {
        "requests": counts["total"],
        "concurrency": strategy.get("streams"),
        "request_rate": strategy.get("rate"),
        "input_len": metrics["prompt_token_count"]["successful"]["mean"],
        "output_len": metrics["output_token_count"]["successful"]["mean"],
    }
    record = new_record("", spec, workload, f"guidellm {about.get('guidellm_version', '')}".strip())
    good = {name: metrics[name]["successful"] for name in _GUIDELLM}

    def spread(name: str, unit: float) -> dict[str, float] | None:
        flat = {"mean": good[name]["mean"], **good[name]["percentiles"]}
        return _spread(str, unit)(flat if good[name]["count"] else None)

    tpot = spread("inter_token_latency_ms", 1e-3)
    rate = good["output_tokens_per_second"]["mean"]
    summary = {
        **_nothing(),
        "requests": counts["total"],
        "errors": counts["errored"],
        "seconds": benchmark["duration"],
        "input_tokens": round(good["prompt_token_count"]["total_sum"]),
        "output_tokens": round(good["output_token_count"]["total_sum"]),
        "requests_per_second": good["requests_per_second"]["mean"],
        "output_tokens_per_second": rate,
        "output_tokens_per_second_per_device": rate,
        "output_tokens_per_second_per_user": 1 / tpot["mean"] if tpot and tpot["mean"] else None,
        "mean_concurrency": good["request_concurrency"]["mean"],
        "ttft": spread("time_to_first_token_ms", 1e-3),
        "tpot": tpot,
        "e2e": spread("request_latency", 1.0),
    }
    reasons = violations((), summary)
    if counts["errored"]:
        reasons.append(f"{counts['errored']} of {counts['total']} requests failed")
    # Its rates are over time slices that are cut at both ends, so they need not be the quotient.
    record |= {"status": "invalid" if reasons else "done", "reasons": reasons}
    return record | {"summary": summary, "seconds": benchmark["duration"]}


_GUIDELLM = (
    "prompt_token_count", "output_token_count", "requests_per_second", "output_tokens_per_second",
    "request_concurrency", "time_to_first_token_ms", "inter_token_latency_ms", "request_latency",
)  # fmt: skip


def _aiperf(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the record of a profile_export.jsonl: one object a request, also of its warm-up.

    Raises:
        ValueError: Nothing was measured after the warm-up.
    """
    lines = [line for line in lines if line["metadata"].get("benchmark_phase") != "warmup"]
    if not lines:
        raise ValueError("it has requests of the warm-up alone")
    start = min(line["metadata"]["request_start_ns"] for line in lines)
    requests = [_aiperf_request(number, line, start) for number, line in enumerate(lines)]
    workload = {"requests": len(requests)}
    record = new_record("", {"backend": "endpoint"}, workload, "aiperf")
    for name in ("input", "output"):
        # What has other lengths is not compared with it.
        known = [r[f"{name}_tokens"] for r in requests if r[f"{name}_tokens"] is not None]
        record["workload"][f"{name}_len"] = round(sum(known) / len(known)) if known else None
    record["repetitions"] = [requests]
    summary = summarize([requests], 1, open_loop=False)
    return _finish(record, summary, [requests])


def _aiperf_request(number: int, line: Mapping[str, Any], start: int) -> dict[str, Any]:
    about, metrics, error = line["metadata"], line.get("metrics") or {}, line.get("error")
    values = {name: told["value"] for name, told in metrics.items()}
    sent = (about["request_start_ns"] - start) / 1e9
    ttft, e2e = values.get("time_to_first_token"), values.get("request_latency")
    return {
        "number": number,
        "scheduled": sent,
        "sent": sent,
        "ended": (about["request_end_ns"] - start) / 1e9,
        "asked_input_tokens": None,
        "asked_output_tokens": None,
        "input_tokens": values.get("input_sequence_length"),
        "output_tokens": values.get("output_sequence_length"),
        "stamped": "chunk",
        "queued": None,
        "ttft": None if ttft is None else ttft / 1000,
        "itl": [gap / 1000 for gap in values.get("inter_chunk_latency", [])],
        "e2e": None if e2e is None else e2e / 1000,
        "finish_reason": "cancelled" if about.get("was_cancelled") else None,
        "error": str(error.get("message", error.get("type"))) if error else "",
    }


def _spread(
    theirs: Callable[[str], str], unit: float
) -> Callable[[Mapping[str, Any] | None], dict[str, float] | None]:
    """Return what turns their percentiles into ours, in seconds; nothing stays nothing."""

    def ours(found: Mapping[str, Any] | None) -> dict[str, float] | None:
        if not found:
            return None
        return {name: found[theirs(name)] * unit for name in ("mean", "p50", "p90", "p99")}

    return ours


def _nothing() -> dict[str, Any]:
    """Return the figures of a summary that a tool does not tell."""
    return {
        "errors": 0,
        "total_tokens_per_second": None,
        "queued": None,
        "itl": None,
        "scheduling_error": None,
        "repetitions": [],
    }
