"""What the requests of a trial amount to: throughput and latencies, by the field's definitions.

Times in seconds, throughput in tokens/s. TTFT, ITL and E2E as in `workbench.metrics`; TPOT is the
mean ITL of one request. Throughput counts the tokens of the requests that went well from the first
request that was sent to the last token, as `trtllm-bench` does, so it includes filling and
emptying the batch: short runs look slower than long ones. Per device is that by the number of
GPUs (or 1); per user is what one of them sees, the mean of 1 / TPOT.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from workbench.metrics import percentiles

Requests = Sequence[Mapping[str, Any]]

LATENCIES = ("queued", "ttft", "itl", "tpot", "e2e")
"""What has percentiles in a summary, in seconds."""


def summarize(repetitions: Sequence[Requests], devices: int, *, open_loop: bool) -> dict[str, Any]:
    """Return the figures of a trial over all repetitions, and those of each.

    Args:
        repetitions: The records of `Load.run`.
        devices: How many the engine runs on.
        open_loop: Whether requests were sent by a schedule, which is then compared.
    """
    whole = _figures(repetitions, devices, open_loop=open_loop)
    each = [_figures([requests], devices, open_loop=open_loop) for requests in repetitions]
    return {**whole, "repetitions": each}


def _figures(repetitions: Sequence[Requests], devices: int, *, open_loop: bool) -> dict[str, Any]:
    sent = [request for requests in repetitions for request in requests]
    good = [request for request in sent if not request["error"] and request["e2e"] is not None]
    seconds = sum(_window(requests) for requests in repetitions)
    tokens_in = sum(request["input_tokens"] or 0 for request in good)
    tokens_out = sum(request["output_tokens"] or 0 for request in good)
    speeds = [1 / tpot for tpot in map(tpot_of, good) if tpot]
    return {
        "requests": len(sent),
        "errors": len(sent) - len(good),
        "seconds": seconds,
        "input_tokens": tokens_in,
        "output_tokens": tokens_out,
        "requests_per_second": _rate(len(good), seconds),
        "output_tokens_per_second": _rate(tokens_out, seconds),
        "total_tokens_per_second": _rate(tokens_in + tokens_out, seconds),
        "output_tokens_per_second_per_device": _rate(tokens_out, seconds * devices),
        "output_tokens_per_second_per_user": statistics.fmean(speeds) if speeds else None,
        "mean_concurrency": _rate(sum(request["e2e"] for request in good), seconds),
        **{name: _spread(name, good) for name in LATENCIES},
        "scheduling_error": _scheduling_error(sent) if open_loop else None,
    }


def tpot_of(request: Mapping[str, Any]) -> float | None:
    """Return the time per output token of one request, after the first; None below two tokens."""
    count = request["output_tokens"]
    if not count or count < 2:
        return None
    return float((request["e2e"] - request["ttft"]) / (count - 1))


def _window(requests: Requests) -> float:
    """Return the seconds from the first request that was sent to the last token."""
    ends = [request["sent"] + request["e2e"] for request in requests if request["e2e"] is not None]
    return max(ends) - min(request["sent"] for request in requests) if ends else 0.0


def _rate(count: float, seconds: float) -> float | None:
    return count / seconds if seconds > 0 else None


def _spread(name: str, requests: Requests) -> dict[str, float] | None:
    """Return mean and percentiles of a latency over requests; of ITL over all gaps."""
    if name == "itl":
        values = [gap for request in requests for gap in request["itl"]]
    else:
        found = (tpot_of(r) if name == "tpot" else r[name] for r in requests)
        values = [value for value in found if value is not None]
    return asdict(percentiles(values)) if values else None


def _scheduling_error(requests: Requests) -> dict[str, float] | None:
    """Return how late requests were sent, in seconds: our own part in an open loop's latencies."""
    late = [request["sent"] - request["scheduled"] for request in requests]
    return {**asdict(percentiles(late)), "max": max(late)} if late else None
