"""The account of a demo run: everything that somebody elsewhere needs to know about it."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import workbench
from workbench import files
from workbench.store import Engine


def make_account(engine: Engine, generation: Mapping[str, Any], prompt: str) -> dict[str, Any]:
    """Return versions, stages with their times, and what was generated, as plain values.

    Args:
        engine: What ran.
        generation: The record of its generation.
        prompt: What was asked.
    """
    manifest = engine.manifest
    return {
        "workbench": workbench.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "backend": engine.backend,
        "toolchain": manifest["identity"]["toolchain"],
        "device": manifest["identity"].get("device", {}),
        "model": {k: v for k, v in manifest["model"].items() if k != "source"},
        "spec": manifest["identity"]["spec"],
        "limits": engine.limits,
        "engine": {"key": engine.key, "bytes": engine.bytes, **manifest.get("facts", {})},
        "build": manifest["build"],
        "prompt": prompt,
        "generation": dict(generation),
    }


def save_account(account: Mapping[str, Any]) -> Path:
    """Write an account beside those of other engines and return its path.

    Raises:
        OSError: The disk refused.
    """
    path = files.make_folder(files.home() / "accounts") / f"{account['engine']['key']}.json"
    files.write_json(path, dict(account))
    return path


def account_lines(account: Mapping[str, Any]) -> list[str]:
    """Return the account in short lines for people."""
    toolchain = ", ".join(f"{name} {version}" for name, version in account["toolchain"].items())
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
