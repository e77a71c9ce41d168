"""The account of a demo run: everything that somebody elsewhere needs to know about it."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import workbench
from workbench import files
from workbench.engine import Engine
from workbench.errors import ToolchainError
from workbench.gpus import driver, list_gpus
from workbench.jobs import Job
from workbench.toolchain import find_toolchain

PACKAGES = ("tensorrt-llm", "tensorrt", "torch", "transformers", "mpi4py", "openvino")
LOG_LINES = 200


def success(engine: Engine, generation: Mapping[str, Any], prompt: str) -> dict[str, Any]:
    """Return versions, stages with their times, and what was generated, as plain values.

    Args:
        engine: What ran.
        generation: The record of its generation.
        prompt: What was asked.
    """
    manifest = engine.manifest
    return {
        **_surroundings(engine.backend),
        "device": manifest["identity"].get("device", {}),
        "model": {k: v for k, v in manifest["model"].items() if k != "source"},
        "spec": manifest["identity"]["spec"],
        "limits": engine.limits,
        "engine": {"key": engine.key, "bytes": engine.bytes, **manifest.get("facts", {})},
        "build": manifest["build"],
        "prompt": prompt,
        "generation": dict(generation),
    }


def failure(backend: str, job: Job | None, error: Exception) -> dict[str, Any]:
    """Return the same for a run that failed, with the end of its log.

    Args:
        backend: Name of the backend.
        job: The build, if there was one.
        error: What the run ended with.
    """
    told: dict[str, Any] = {**_surroundings(backend), "error": str(error)}
    if job is None:
        return told
    view = job.view()
    now = time.time()
    stages = [{"name": s.name, "seconds": s.seconds(now)} for s in view.stages.values()]
    log = files.read_end(job.log, 1 << 20).splitlines()[-LOG_LINES:]
    return {
        **told,
        "spec": job.request["spec"],
        "build": {"job": job.id, "stages": stages, "facts": view.facts, "notes": view.notes},
        "log": log,
    }


def _surroundings(backend: str) -> dict[str, Any]:
    """Return what a run depends on outside the workbench."""
    told: dict[str, Any] = {
        "workbench": workbench.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "backend": backend,
    }
    try:
        toolchain = find_toolchain(backend)
        told["toolchain"] = {k: v for k, v in toolchain.versions(PACKAGES).items() if v}
        told["driver"] = driver()
        told["gpus"] = [gpu.name for gpu in list_gpus()]
    except ToolchainError as error:
        told["toolchain_error"] = str(error)
    return told


def save_account(account: Mapping[str, Any]) -> Path:
    """Write an account beside earlier ones and return its path.

    Raises:
        OSError: The disk refused.
    """
    name = f"{account['backend']}-{time.strftime('%Y%m%d-%H%M%S')}.json"
    path = files.make_folder(files.home() / "accounts") / name
    files.write_json(path, dict(account))
    return path


def account_lines(account: Mapping[str, Any]) -> list[str]:
    """Return the account of a run that went well in short lines for people."""
    versions = account.get("toolchain", {})
    toolchain = ", ".join(f"{name} {version}" for name, version in versions.items())
    device = ", ".join(str(value) for value in account["device"].values())
    stages = ", ".join(
        f"{stage['name']} {stage['seconds']:.1f} s" for stage in account["build"]["stages"]
    )
    smoke = account["build"]["smoke"]
    ran = f"generated {smoke['tokens']} tokens" if smoke["ran"] else "did not run"
    generation = account["generation"]
    tokens = f"{generation['input_tokens']} in, {generation['output_tokens']} out"
    return [
        f"Versions   workbench {account['workbench']}, Python {account['python']}, {toolchain}",
        *([f"GPU        {device}"] if device else []),
        f"Stages     {stages}",
        f"Smoke      {ran}",
        f"Tokens     {tokens}, {generation['finish_reason']}",
    ]
