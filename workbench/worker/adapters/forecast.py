"""Predicts the speed of TensorRT-LLM with NVIDIA's performance database, through aiconfigurator.

The distribution `aisimulate` that follows it keeps that name for imports.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from adapters.channel import Channel, Refusal  # type: ignore[import-not-found]


def run(order: dict[str, Any], channel: Channel) -> None:
    """Answer one order with a message "forecast".

    Args:
        order: `config`, the model's config.json; `system`, the database's name of the GPU; and
            `values`, the remaining arguments of `cli_estimate`.
        channel: To the notebook side.

    Raises:
        Refusal: The database does not know the model, the GPU or the precision.
    """
    try:
        from aiconfigurator.cli.api import cli_estimate
        from aiconfigurator.sdk.perf_database import get_supported_databases
    except ImportError as error:
        raise Refusal(
            f"The forecast needs aiconfigurator, which does not import here: {error}."
        ) from error
    system = order["system"]
    known = sorted(
        name for name, backends in get_supported_databases().items() if backends.get("trtllm")
    )
    if system not in known:
        raise Refusal(f"The database has no TensorRT-LLM on {system}; it has {', '.join(known)}.")
    with tempfile.TemporaryDirectory() as folder:
        # From a file, so that nothing is looked up on the hub.
        Path(folder, "config.json").write_text(json.dumps(order["config"]), encoding="utf-8")
        try:
            found = cli_estimate(folder, system, backend_name="trtllm", **order["values"])
        # What it raises for all that it does not know; its own errors derive from these.
        except (ValueError, RuntimeError, LookupError, NotImplementedError) as error:
            raise Refusal(_sentence(error, folder)) from error
    channel.send(
        event="forecast",
        ttft_ms=float(found.ttft),
        itl_ms=float(found.tpot),
        tokens_per_second_per_gpu=float(found.tokens_per_second_per_gpu),
        gpus=found.num_total_gpus,
        version=str(found.backend_version),
        sources=_sources(found.per_ops_source),
        warning=str(found.kv_cache_warning or ""),
    )


def _sources(steps: Any) -> dict[str, int]:
    """Count the operations of the steps by where their times come from, such as "silicon"."""
    counts: dict[str, int] = {}
    for operations in (steps or {}).values():
        for source in operations.values():
            counts[str(source)] = counts.get(str(source), 0) + 1
    return counts


def _sentence(error: BaseException, folder: str) -> str:
    """Return what the library says in one line, without the paths of this machine."""
    text = str(error).replace(f"'{folder}'", "").replace(folder, "the model")
    words = " ".join(re.sub(r" at /[^\s;,]+", "", text).split())
    return f"The database cannot say: {type(error).__name__}: {words[:400]}"
