"""A trial in plain lines: what the command line prints and a notebook without a browser shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.trial import Trial
from workbench.units import format_bytes, format_seconds, printable

NAMES = {"ttft": "TTFT", "itl": "ITL", "tpot": "TPOT", "e2e": "E2E", "queued": "queued"}


def trial_lines(trial: Trial) -> list[str]:
    """Return what a trial found, and what speaks against it, in short lines."""
    record, summary = trial.record, trial.summary
    lines = [f"Trial    {trial.id}, {trial.status}", f"         {trial.title}"]
    lines += (f"Wrong    {reason}" for reason in record["reasons"])
    lines += (f"Note     {warning}" for warning in record.get("warnings", ()))
    if summary:
        lines += _figures(summary)
    lines += (f"Device   {line}" for line in _unsaid(trial))
    lines += _engine(record)
    lines += _predicted(record.get("predicted") or {})
    lines += (f"Quality  {line}" for line in _quality(record.get("quality") or {}))
    return [printable(line) for line in lines]


def _figures(summary: Mapping[str, Any]) -> list[str]:
    sent = (
        f"Sent     {summary['requests']} requests in {format_seconds(summary['seconds'])}, "
        f"{summary['errors']} failed; {summary['input_tokens']} tokens in, "
        f"{summary['output_tokens']} out"
    )
    speeds = {
        "tokens/s": summary["output_tokens_per_second"],
        "tokens/s per device": summary["output_tokens_per_second_per_device"],
        "tokens/s per user": summary["output_tokens_per_second_per_user"],
        "requests/s": summary["requests_per_second"],
    }
    known = [f"{value:.4g} {unit}" for unit, value in speeds.items() if value is not None]
    lines = [sent, "Output   " + ", ".join(known)]
    for name, title in NAMES.items():
        if spread := summary.get(name):
            parts = ", ".join(f"{part} {format_seconds(spread[part])}" for part in PARTS)
            lines.append(f"{title:<8} {parts}")
    if late := summary.get("scheduling_error"):
        lines.append(
            f"Late     requests were sent {format_seconds(late['p99'])} (p99) and at most "
            f"{format_seconds(late['max'])} after their time"
        )
    return lines


def _unsaid(trial: Trial) -> list[str]:
    """Return what nobody has said of a server's devices, and how to say it."""
    lines = []
    if trial.of_unknown_device:
        how = "imported again with --device" if trial.imported else "with device_name"
        lines.append(f"unknown; {how} it is compared with what ran on the same")
    if trial.of_unknown_count:
        how = "" if trial.imported else "; devices says how many"
        lines.append(f"counted as one, for what is per device and the cost{how}")
    return lines


PARTS = ("p50", "p90", "p99", "mean")


def _engine(record: Mapping[str, Any]) -> list[str]:
    engine, memory = record["engine"], record.get("memory") or {}
    words = []
    if "key" in engine:
        words.append(f"{engine['key']}, {format_bytes(engine['bytes'])}")
        words.append(f"built in {format_seconds(engine['build_seconds'])}")
    if "load_seconds" in engine:
        words.append(f"loaded in {format_seconds(engine['load_seconds'])}")
    if "host_peak_bytes" in memory:
        words.append(f"{format_bytes(memory['host_peak_bytes'])} of memory at its peak")
    return [f"Engine   {', '.join(words)}"] if words else []


def _predicted(predicted: Mapping[str, Any]) -> list[str]:
    """Return what was predicted, and by whom; or why nothing was, where the database was asked."""
    if "by" not in predicted:
        return [f"Forecast none: {predicted['lacks']}"] if "lacks" in predicted else []
    times = ", ".join(f"{NAMES[n]} {format_seconds(predicted[n])}" for n in ("ttft", "itl", "e2e"))
    speed = f"{predicted['output_tokens_per_second']:.4g} tokens/s"
    return [f"Forecast {speed}, {times} ({predicted['by']})"]


def _quality(quality: Mapping[str, Any]) -> list[str]:
    lines = []
    if "token_match" in quality:
        lines.append(
            f"{quality['token_match']:.1%} of the tokens are those of {quality['reference']}; "
            f"{quality['exact']:.0%} of {quality['prompts']} answers are the same to their end"
        )
    if quality.get("mean_kl") is not None:
        lines.append(f"mean KL {quality['mean_kl']:.4g} nats a token")
    if quality.get("perplexity") is not None:
        lines.append(f"perplexity {quality['perplexity']:.4g} of {quality['text']}")
    return [*lines, *quality.get("lacks", ())]
