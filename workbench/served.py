"""Trials of endpoints: the same workload on a server that speaks OpenAI's protocol.

What is not known of a server stays empty: its memory, its build, how many devices it has unless
the user says so. Its stamps are of chunks, taken when they arrived here, so the network counts.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workbench import results
from workbench.endpoint import Endpoint
from workbench.errors import InputError, WorkbenchError
from workbench.measuring import Report, complete, measure, say_nothing
from workbench.prompts import content, vocabulary_of
from workbench.server_spec import ServerSpec
from workbench.surroundings import surroundings
from workbench.trial import Trial, new_record
from workbench.workload import Workload


def run_server_trial(
    server: ServerSpec,
    workload: Workload,
    *,
    time_limit: float | None = None,
    report: Report = say_nothing,
) -> Trial:
    """Measure a workload on a server as it was declared, see `run_endpoint_trial`.

    Raises:
        InputError: No server is named, or as `run_endpoint_trial`.
        OSError: The record cannot be written.
    """
    return run_endpoint_trial(
        server.endpoint,
        workload,
        tokenizer=Path(server.tokenizer) if server.tokenizer else None,
        devices=server.devices or 1,
        time_limit=time_limit,
        report=report,
    )


def run_endpoint_trial(
    endpoint: Endpoint,
    workload: Workload,
    *,
    tokenizer: Path | None = None,
    devices: int = 1,
    time_limit: float | None = None,
    report: Report = say_nothing,
) -> Trial:
    """Measure a workload on a server; whatever comes out is in the store.

    Args:
        endpoint: The server.
        workload: What to send, and when. Prompts of exact lengths are token ids, which servers
            take for completions (vLLM, SGLang, trtllm-serve, llama.cpp).
        tokenizer: Folder with the tokenizer.json of the model that is served, which such prompts
            are made from; not needed with a file of prompts.
        devices: How many the server runs on, for the throughput per device.
        time_limit: Seconds for all requests.
        report: Told what goes on.

    Raises:
        InputError: The file of prompts is not there, or the tokenizer.
        OSError: The record cannot be written.
    """
    spec = {"backend": "endpoint", "url": endpoint.url, "model": endpoint.model}
    point = _point(spec, workload, devices)
    record = new_record(point, spec, workload.model_dump(mode="json"))
    record["devices"] = devices
    # A server lives on, and may answer known prompts from its cache of prefixes.
    record["salt"] = salt = uuid.uuid4().hex
    vocabulary = vocabulary_of(tokenizer.expanduser()) if tokenizer else []
    if tokenizer and not vocabulary:
        raise InputError(f"There is no tokenizer.json in {tokenizer} that prompts can be made of.")
    started = time.monotonic()
    deadline = None if time_limit is None else started + time_limit
    try:
        record["environment"] = surroundings({}, uses_gpu=False)
        # What it runs on is not this machine, as far as anybody knows here.
        record["environment"]["device"] = None
        report(f"ask {endpoint.url}")
        with endpoint.open() as session:
            record["spec"]["model"] = session.model
            record["point"] = _point(record["spec"], workload, devices)
            measured = measure(
                session, workload, vocabulary, deadline=deadline, salt=salt, report=report
            )
        complete(record, workload, measured, several_at_once=True)
    except (WorkbenchError, TimeoutError) as error:
        record |= {"status": "failed", "reasons": [str(error)]}
    record["seconds"] = time.monotonic() - started
    return results.save(record)


def _point(spec: Mapping[str, Any], workload: Workload, devices: int) -> str:
    """Return what trials of one model on one server under one workload share."""
    asked = {**workload.model_dump(mode="json"), "prompts": content(workload.prompts)}
    text = json.dumps([spec, asked, devices], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
