"""Showing a generation while it grows: its text, its phases and its figures."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workbench.errors import WorkbenchError
from workbench.generation import Delta, Generation
from workbench.metrics import Timings, percentiles
from workbench.summaries import milliseconds
from workbench.widgets.tokens import TokenView

BARS = "▁▂▃▄▅▆▇█"

_RECENT = 16
"""Inter-token latencies that the sparkline shows."""

_LOOK = 0.1
"""Seconds between two looks at a generation that waits."""

_FIGURES = 0.25
"""Seconds between two lines of figures. Nobody reads them faster, and each one takes a processor
from the engine for as long as half a dozen tokens do."""

_BEAT = 1.0
"""Seconds between two signs that a generation is followed."""


def follow(
    generation: Generation,
    view: TokenView,
    limits: Mapping[str, Any],
    failed: Callable[[str], None],
    *,
    came: list[Delta] | None = None,
    alive: Callable[[], None] = lambda: None,
) -> list[Delta]:
    """Pass a generation on to a view until its end; return what came.

    Args:
        generation: What to show.
        view: Where; it begins a new stream.
        limits: Of its session.
        failed: Called with the sentence of the error that it ends with.
        came: Where what comes is kept, for whoever looks at it meanwhile.
        alive: Called about once a second while the view follows it.
    """
    done = threading.Event()
    beat = _Beat(alive)
    told = 0.0
    came = [] if came is None else came
    waiting = threading.Thread(
        target=_show_waiting, args=(generation, view, done, beat), daemon=True
    )
    waiting.start()
    try:
        for delta in generation:
            came.append(delta)
            # Rounded, a probability of 1 may come as a little more.
            view.append(delta.text, [min(0.0, value) for value in delta.logprobs])
            # Not with each token: the figures of a long stream take a while to compute.
            if (now := time.monotonic()) - told >= _FIGURES:
                told = now
                view.status("decode", **facts(generation, limits))
                beat()
    except WorkbenchError as error:
        failed(str(error))
    finally:
        done.set()
        waiting.join()  # its word would come after the last one
        phase = generation.phase
        ended: Any = phase if phase in ("finished", "stopped", "failed") else "failed"
        view.finish(ended, **facts(generation, limits))
    return came


class _Beat:
    """Passes on one call a second at most."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call, self._last = call, time.monotonic()

    def __call__(self) -> None:
        """Call, unless that was just done."""
        if time.monotonic() - self._last >= _BEAT:
            self._last = time.monotonic()
            self._call()


def _show_waiting(
    generation: Generation, view: TokenView, done: threading.Event, beat: Callable[[], None]
) -> None:
    """Name the phases before the first token, while they last (runs in a thread)."""
    while generation.phase in ("queued", "prefill") and not done.wait(_LOOK):
        beat()
        phase = generation.phase
        if phase == "queued" and generation.queue_place:
            view.status("queued", place=generation.queue_place, because=generation.queue_reason)
        elif phase in ("queued", "prefill"):
            view.status(phase, prompt=_counted(generation.input_tokens))


def _counted(tokens: int | None) -> str | None:
    return None if tokens is None else f"{tokens} tokens"


def facts(generation: Generation, limits: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the status line says about a generation."""
    timings = generation.timings
    tokens = timings.output_tokens
    shown: dict[str, Any] = {"tokens": len(timings.tokens) if tokens is None else tokens}
    if timings.ttft is not None:
        shown["TTFT"] = milliseconds(timings.ttft)
    if timings.tokens_per_second:
        shown["tokens/s"] = f"{timings.tokens_per_second:.1f}"
    if context := _context(generation.input_tokens, tokens, limits):
        shown["context"] = context
    if generation.finish_reason in ("stop", "length"):
        shown["ended by"] = generation.finish_reason
    shown |= _latencies(timings, ended=bool(generation.finish_reason))
    if generation.cache_usage is not None:
        shown["KV cache"] = f"{generation.cache_usage:.0f}%"
    return shown


def _latencies(timings: Timings, *, ended: bool) -> dict[str, Any]:
    """Return the inter-token latencies: the last ones while it runs, at the end percentiles."""
    if not ended:
        recent = timings.tokens[-_RECENT - 1 :]
        return {"ITL": sparkline([b - a for a, b in itertools.pairwise(recent)])}
    if not timings.itl:
        return {}
    found = percentiles(timings.itl)
    named = {"p50": found.p50, "p90": found.p90, "p99": found.p99}
    return {f"ITL {name}": milliseconds(seconds) for name, seconds in named.items()}


def _context(given: int | None, made: int | None, limits: Mapping[str, Any]) -> str:
    """Say how many tokens of the longest sequence are used; nothing where that is not known."""
    if given is None or made is None or not limits.get("max_seq_len"):
        return ""
    return f"{given + made} of {limits['max_seq_len']}"


def sparkline(values: Sequence[float]) -> str | None:
    """Return values as bars from nothing to the largest one; None without any."""
    if not values:
        return None
    top = max(values)
    steps = len(BARS) - 1
    return "".join(BARS[round(steps * value / top) if top > 0 else 0] for value in values)
