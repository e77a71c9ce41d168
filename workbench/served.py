"""Trials of endpoints: the same workload on a server that speaks OpenAI's protocol.

What is not known of a server stays empty: its memory, its build, how many devices it has unless
the user says so. Its stamps are of chunks, taken when they arrived here, so the network counts.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from workbench import results
from workbench.endpoint import Endpoint, EndpointSession
from workbench.errors import InputError, RequestError, WorkbenchError
from workbench.measuring import Measured, Report, Spell, complete, measure, say_nothing
from workbench.prompts import Prompt, content, vocabulary_of
from workbench.surroundings import surroundings
from workbench.tokenizer import Tokenizer, read_tokenizer
from workbench.trial import Trial, new_record
from workbench.workload import Workload


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
            take for completions (vLLM, SGLang, trtllm-serve, llama.cpp). Who refuses them when it
            is asked for one token gets texts, which are only nearly of these lengths.
        tokenizer: Folder with the tokenizer.json of the model that is served, which such prompts
            are made from; not needed with a file of prompts. It counts the output tokens where the
            server does not tell.
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
    known = read_tokenizer(tokenizer.expanduser()) if tokenizer else None
    started = time.monotonic()
    deadline = None if time_limit is None else started + time_limit
    try:
        record["environment"] = surroundings({}, uses_gpu=False)
        # What it runs on is not this machine, as far as anybody knows here.
        record["environment"]["device"] = None
        report(f"ask {endpoint.url}")
        with endpoint.open(known.count if known else None) as session:
            record["spec"]["model"] = session.model
            record["point"] = _point(record["spec"], workload, devices)
            spell = _speller(session, vocabulary, known, deadline) if vocabulary else None
            measured = measure(
                session,
                workload,
                vocabulary,
                deadline=deadline,
                salt=salt,
                spell=spell,
                report=report,
            )
        complete(record, workload, measured, several_at_once=True)
        record["warnings"] += _notes(measured, spelled=spell is not None)
    except (WorkbenchError, TimeoutError) as error:
        record |= {"status": "failed", "reasons": [str(error)]}
    record["seconds"] = time.monotonic() - started
    return results.save(record)


def _speller(
    session: EndpointSession,
    vocabulary: Sequence[int],
    tokenizer: Tokenizer | None,
    deadline: float | None,
) -> Spell | None:
    """Return what makes texts of prompts where a server takes no token ids; None where it does.

    Triton's OpenAI frontend takes one text alone (triton-inference-server/server python/openai,
    engine/triton_engine.py, _validate_completion_request).

    Raises:
        RequestError: It refuses a text, too, or none can be made here.
        SessionError: It does not answer.
        TimeoutError: The deadline has passed.
    """
    middle = len(vocabulary) // 2  # of a vocabulary: whole words rather than single bytes
    ids = list(vocabulary[middle : middle + 8])

    def ask(prompt: Prompt) -> None:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        session.generate(prompt, max_tokens=1).wait(left)

    try:
        ask(ids)
    except RequestError as refusal:
        if tokenizer is None:
            raise RequestError(
                f"{refusal} If it is token ids that it refuses: texts are sent where the package "
                "tokenizers is installed (pip install 'trtllm-workbench[trials]')."
            ) from refusal
        ask(tokenizer.spell(ids))
        return tokenizer.spell
    return None


def _notes(measured: Measured, *, spelled: bool) -> list[str]:
    """Say so where prompts were sent as text, or their tokens counted here."""
    sent = [request for requests in measured.repetitions for request in requests]
    found = []
    if spelled:
        found.append(
            "The server takes no token ids: prompts were sent as text, and may have a few tokens "
            "more or fewer than input_len."
        )
    if any(request["counted"] == "here" for request in sent):
        found.append(
            "The server does not tell how many tokens it generated: they were counted here, by "
            "encoding its text, which may give a few more or fewer."
        )
    return found


def _point(spec: Mapping[str, Any], workload: Workload, devices: int) -> str:
    """Return what trials of one model on one server under one workload share."""
    asked = {**workload.model_dump(mode="json"), "prompts": content(workload.prompts)}
    text = json.dumps([spec, asked, devices], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
