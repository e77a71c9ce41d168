"""Trials of endpoints: the same workload on a server that speaks OpenAI's protocol.

What is not known of a server stays empty: its memory, its build, what it runs on and how many of
those it has unless the user says so. Of one that the workbench runs itself (`workbench.serving`)
device, model and engine are known, so that it competes with what was measured without a server. Its
stamps are of chunks, taken when they arrived here, so the network counts.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from workbench import results, store
from workbench.build import DEMO_MODEL
from workbench.devices import gpus_of_engine
from workbench.endpoint import Endpoint
from workbench.engine import Engine
from workbench.errors import InputError, WorkbenchError
from workbench.gpus import list_gpus
from workbench.measuring import Report, complete, measure, say_nothing
from workbench.prompts import content, vocabulary_of
from workbench.server_spec import ServerSpec
from workbench.serving import server_at
from workbench.silence import SILENCE_LIMIT
from workbench.spelling import speller_for, spelling_notes
from workbench.surroundings import surroundings
from workbench.tokenizer import read_tokenizer
from workbench.trial import Trial, new_record
from workbench.workload import Workload


def run_server_trial(
    server: ServerSpec,
    workload: Workload,
    *,
    time_limit: float | None = None,
    silence_limit: float | None = SILENCE_LIMIT,
    point: str = "",
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
        devices=server.devices,
        device_name=server.device_name,
        time_limit=time_limit,
        silence_limit=silence_limit,
        point=point,
        report=report,
    )


def server_point(server: ServerSpec, workload: Workload) -> str:
    """Return what tells a point of a sweep that measures a server from all others.

    Raises:
        InputError: There is no such file of prompts.
    """
    spec = {"backend": "endpoint", "url": server.endpoint.url, "model": server.served_model}
    return _point(spec, workload, server.devices or 1, server.device_name)


def run_endpoint_trial(
    endpoint: Endpoint,
    workload: Workload,
    *,
    tokenizer: Path | None = None,
    devices: int | None = None,
    device_name: str | None = None,
    time_limit: float | None = None,
    silence_limit: float | None = SILENCE_LIMIT,
    point: str = "",
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
        devices: How many the server runs on, for the throughput per device; by default those of
            the engine, where the workbench serves one there, else 1.
        device_name: What each of them is, as other trials name it; by default what the workbench
            knows of a server of its own, else unknown.
        time_limit: Seconds for all requests.
        silence_limit: Seconds in which no token comes of any request, after which they are given
            up; None leaves that to the endpoint's own patience.
        point: Under which a sweep finds the trial; by default that of server, model and workload.
        report: Told what goes on.

    Raises:
        InputError: The file of prompts is not there, or the tokenizer.
        OSError: The record cannot be written.
    """
    spec = {"backend": "endpoint", "url": endpoint.url, "model": endpoint.model}
    count = devices or 1
    named = point or _point(spec, workload, count, device_name)
    record = new_record(named, spec, workload.model_dump(mode="json"))
    record["devices"] = count
    record["asked"] = {
        "served_model": endpoint.model,
        "key_env": endpoint.key_env,
        "tokenizer": str(tokenizer.expanduser().absolute()) if tokenizer else None,
        "devices": devices,
        "device_name": device_name,
    }
    # A server lives on, and may answer known prompts from its cache of prefixes.
    record["salt"] = salt = uuid.uuid4().hex
    vocabulary = vocabulary_of(tokenizer.expanduser()) if tokenizer else []
    if tokenizer and not vocabulary:
        raise InputError(f"There is no tokenizer.json in {tokenizer} that prompts can be made of.")
    known = read_tokenizer(tokenizer.expanduser()) if tokenizer else None
    started = time.monotonic()
    deadline = None if time_limit is None else started + time_limit
    try:
        about = _About.of(endpoint)
        record["environment"] = about.environment(device_name)
        record["engine"] = about.engine_words()
        record["devices"] = count = devices or about.devices
        report(f"ask {endpoint.url}")
        with endpoint.open(known.count if known else None) as session:
            told = {**spec, "model": session.model}
            record["point"] = point or _point(told, workload, count, device_name)
            record["spec"] |= about.model_words(session.model)
            spell = speller_for(session, vocabulary, known, deadline) if vocabulary else None
            measured = measure(
                session,
                workload,
                vocabulary,
                deadline=deadline,
                silence=silence_limit,
                salt=salt,
                spell=spell,
                report=report,
            )
        complete(record, workload, measured, several_at_once=True)
        record["warnings"] += spelling_notes(measured, spelled=spell is not None)
    except (WorkbenchError, TimeoutError) as error:
        record |= {"status": "failed", "reasons": [str(error)]}
    record["seconds"] = time.monotonic() - started
    return results.save(record)


@dataclass(frozen=True)
class _About:
    """What is known of a server beside its address: all of one of ours, of others nothing.

    `runs_here` says that it runs on this machine.
    """

    runs_here: bool = False
    model: str = ""
    engine: Engine | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, endpoint: Endpoint) -> Self:
        """Look among the servers that the workbench runs.

        Raises:
            StoreError: The engine that it serves is gone.
        """
        server = server_at(endpoint.url)
        if server is None:
            return cls()
        if not server.engine:
            return cls(runs_here=True, model=server.model)
        engine = store.find_engine(server.engine)
        source = str(engine.manifest["model"].get("source") or engine.model_name)
        name = "demo" if source == str(DEMO_MODEL) else source
        spec = engine.manifest["identity"]["spec"]
        return cls(runs_here=True, model=server.model or name, engine=engine, spec=spec)

    @property
    def devices(self) -> int:
        """How many devices its engine runs on."""
        return int(self.spec.get("tp_size", 1)) * int(self.spec.get("pp_size", 1))

    def environment(self, device: str | None) -> dict[str, Any]:
        """Return versions and device of a measurement that is about to start.

        Args:
            device: As the user says it, who knows best.

        Raises:
            ToolchainError: There is a GPU driver that does not answer.
        """
        versions = self.engine.manifest["identity"]["toolchain"] if self.engine else {}
        told = surroundings(versions, gpus_of_engine(self.engine) if self.engine else ())
        # A command of the user's may compute on a GPU, where there is one.
        if not self.runs_here or (self.engine is None and list_gpus()):
            told["device"] = None
        return {**told, "device": device or told["device"]}

    def engine_words(self) -> dict[str, Any]:
        """Return what a trial records of the engine; nothing where there is none of ours."""
        if self.engine is None:
            return {}
        manifest = self.engine.manifest
        return {
            "key": self.engine.key,
            "weights": manifest["identity"]["weights"],
            "bytes": self.engine.bytes,
            "build_seconds": sum(stage["seconds"] for stage in manifest["build"]["stages"]),
        }

    def model_words(self, served: str) -> dict[str, str]:
        """Return the model as a build spec names it, and its name on the server.

        Args:
            served: The latter; also the former, where nobody knows better.
        """
        return {"model": self.model, "served_model": served} if self.model else {"model": served}


def _point(spec: Mapping[str, Any], workload: Workload, devices: int, device: str | None) -> str:
    """Return what trials of one model on one server under one workload share."""
    asked = {**workload.model_dump(mode="json"), "prompts": content(workload.prompts)}
    # Trials from before a device could be said have none in their name.
    text = json.dumps([spec, asked, devices, *([device] if device else [])], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
