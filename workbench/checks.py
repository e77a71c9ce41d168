"""The self-check of a trial: arithmetic that true measurements keep.

A benchmark that drops the first chunk, merges chunks or counts a retried request twice shows an
engine that is too fast. What breaks a rule here makes a trial invalid, with the reason; it is kept,
and never shown as fast.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from workbench.measurement import LATENCIES, Requests

CLOCK = 1e-6
"""Seconds by which sums of stamps may differ: rounding of a few thousand floating-point numbers."""


RECOUNTED = 0.25
"""Share by which tokens that were counted here may differ from those that the server made: a text
need not be encoded into what it was decoded from. What was lost or counted twice is more."""


def violations(
    repetitions: Sequence[Requests],
    summary: Mapping[str, Any],
    *,
    exact_output: bool = False,
    several_at_once: bool = False,
) -> list[str]:
    """Return what cannot be true of a trial, a sentence each; none where everything adds up.

    Args:
        repetitions: The records of the requests.
        summary: As `measurement.summarize` makes it.
        exact_output: Whether each request generates all that it was asked for (ignore_eos).
        several_at_once: Whether a step may give several tokens, as speculative decoding does.
    """
    found: list[str] = []
    for number, requests in enumerate(repetitions):
        found += _counted_once(requests)
        for request in requests:
            where = f"request {request['number']} of repetition {number}"
            broken = _request(request, exact=exact_output, merged=several_at_once)
            found += (f"{where}: {what}" for what in broken)
    found += _summary(summary)
    return _short(found)


MOST = 5
"""Sentences of one trial: what is wrong once is mostly wrong a thousand times."""


def _short(found: list[str]) -> list[str]:
    more = len(found) - MOST
    return found if more <= 0 else [*found[:MOST], f"and {more} more like these"]


def _counted_once(requests: Requests) -> Iterator[str]:
    for number, times in Counter(request["number"] for request in requests).items():
        if times > 1:
            yield f"request {number} is counted {times} times: it was sent again"


def _request(request: Mapping[str, Any], *, exact: bool, merged: bool) -> Iterator[str]:
    """Yield what is wrong with one request."""
    if request["error"]:
        yield f"it failed: {request['error']}"
        return
    if request["finish_reason"] == "cancelled":
        yield "it was stopped before its end"
        return
    ttft, e2e, gaps = request["ttft"], request["e2e"], request["itl"]
    if ttft is None or e2e is None:
        yield "it ended without a token: its first chunk is missing"
        return
    if ttft <= 0:
        yield f"its TTFT is {ttft:g} s: no engine answers before it was asked"
    if any(gap < 0 for gap in gaps):
        yield "a token came before the one before it"
    if abs(ttft + sum(gaps) - e2e) > CLOCK + 1e-9 * len(gaps):
        yield f"TTFT {ttft:g} s and all ITLs {sum(gaps):g} s are not its E2E latency {e2e:g} s"
    ended, sent = request.get("ended"), request["sent"]
    if ended is not None and sent + e2e > ended + CLOCK:
        yield "its last token is stamped after we saw its end: the clocks differ"
    yield from _counts(request, exact=exact)
    yield from _merged(request, merged=merged)


def _counts(request: Mapping[str, Any], *, exact: bool) -> Iterator[str]:
    """Yield where tokens that were stamped, told and asked for differ."""
    stamps, told = len(request["itl"]) + 1, request["output_tokens"]
    wanted, slack = request["asked_output_tokens"], 0
    if told is not None and request.get("counted") == "here":
        slack = 1 + math.ceil(RECOUNTED * max(told, wanted or 0))
    if told is None:
        yield (
            "nobody tells how many output tokens it had; with the tokenizer of its model they are "
            "counted here"
        )
    elif request["stamped"] == "token" and told != stamps:
        yield f"{told} output tokens are told and {stamps} were stamped"
    elif request["stamped"] == "chunk" and told + slack < stamps:
        yield f"{told} output tokens are told and it came in more chunks: {stamps}"
    if told is not None and wanted is not None:
        short = exact and told + slack < wanted
        if short or told > wanted + slack:
            yield f"it was asked for {wanted} output tokens and gave {told}"
    wanted, told = request["asked_input_tokens"], request["input_tokens"]
    if wanted is not None and told is not None and told != wanted:
        yield f"{wanted} input tokens were sent and the engine read {told}"


def _merged(request: Mapping[str, Any], *, merged: bool) -> Iterator[str]:
    """Yield where tokens came at the same time, so that nobody streamed them one by one."""
    together = sum(gap == 0 for gap in request["itl"])
    if together and not merged:
        count = len(request["itl"]) + 1
        yield f"{together} of {count} tokens came in one piece with the one before: ITL 0 s"


def _summary(summary: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is wrong with the figures."""
    for name in LATENCIES:
        spread = summary.get(name)
        # Interpolating between equal values may lose their last bit.
        if spread and not (
            spread["p50"] <= spread["p90"] + CLOCK and spread["p90"] <= spread["p99"] + CLOCK
        ):
            yield f"the percentiles of {name} do not rise: {spread}"
    for name, value in summary.items():
        if name.endswith("per_second") and value is not None and value <= 0:
            yield f"{name} is {value:g}"
    if not summary.get("output_tokens"):
        yield "no token was generated"
