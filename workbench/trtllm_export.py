"""What serves a TensorRT-LLM engine elsewhere: trtllm-serve by hand, as a unit, in a container.

TensorRT-LLM does not run where these texts are tested: the flags are those of its source, and the
container, the unit and trtllm-serve itself were not tried.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from workbench import files
from workbench.backends.trtllm_command import shell_lines
from workbench.engine import Engine
from workbench.errors import StoreError, ToolchainError
from workbench.releases import engines_gone
from workbench.toolchain import AS_ROOT, Toolchain, find_toolchain

TOKENIZER = "tokenizer"
"""Folder of an engine with the tokenizer, which a build puts there."""

SETTINGS = "serve.yaml"
"""What trtllm-serve has no flags for."""

HOST, PORT = "127.0.0.1", 8000
"""Where an exported server listens unless its files are changed."""


def arguments(
    engine: Engine, directory: str, settings: str | None, host: str = HOST, port: int = PORT
) -> list[list[str]]:
    """Return the flags of trtllm-serve, each with its value.

    The engine's own limits are repeated although it knows them: trtllm-serve gives the runtime its
    own defaults otherwise, and the runtime refuses a batch or beam above the engine's
    (tensorrt_llm commands/serve.py and batch_manager/trtGptModel.h).

    Args:
        engine: The engine.
        directory: Where its files are for the server.
        settings: Path of a file with `settings_text` for the server; None for none.
        host: The address that it listens on.
        port: The port.
    """
    limits, spec = engine.limits, engine.manifest["identity"]["spec"]
    share = limits["kv_cache_free_gpu_memory_fraction"]
    flags = [
        ["--backend", "tensorrt"],
        ["--tokenizer", f"{directory}/{TOKENIZER}"],
        ["--host", host],
        ["--port", str(port)],
        *([f"--{name}", str(limits[name])] for name in _LIMITS),
        ["--kv_cache_free_gpu_memory_fraction", str(share)],
        *(
            [f"--{name}", str(spec[name])]
            for name in ("tp_size", "pp_size")
            if _several(spec, name)
        ),
    ]
    if spec.get("trust_remote_code"):
        flags.append(["--trust_remote_code"])
    if limits.get("enable_chunked_context"):
        flags.append(["--enable_chunked_prefill"])
    if settings:
        flags.append(["--extra_llm_api_options", settings])
    return flags


_LIMITS = ("max_batch_size", "max_num_tokens", "max_beam_width")
"""Limits of the engine that trtllm-serve must be told."""


def _several(spec: Mapping[str, Any], name: str) -> bool:
    return int(spec.get(name) or 1) > 1


def settings_text(engine: Engine) -> str:
    """Return what trtllm-serve has no flags for as YAML, or nothing."""
    limits = engine.limits
    lines = []
    if limits.get("kv_cache_tokens") is not None:
        lines.append(f"  max_tokens: {limits['kv_cache_tokens']}")
    if not limits.get("enable_block_reuse", True):
        lines.append("  enable_block_reuse: false")
    if lines:
        # Older releases take this whole group from the file, so that the share stands here, too.
        share = f"  free_gpu_memory_fraction: {limits['kv_cache_free_gpu_memory_fraction']}"
        lines = ["kv_cache_config:", share, *lines]
    # Engines of earlier versions do not say.
    guide = limits.get("guided_decoding_backend", "none")
    lines += [f"guided_decoding_backend: {guide}"] if guide != "none" else []
    return "".join(f"{line}\n" for line in lines)


def check(engine: Engine) -> None:
    """Refuse an engine that trtllm-serve cannot serve.

    Raises:
        StoreError: It misses a limit or its tokenizer, or its release has no engines.
    """
    limits, known = engine.limits, engine.manifest["files"]
    missing = [name for name in _LIMITS if name not in limits]
    if not any(name.startswith(f"{TOKENIZER}/") for name in known):
        missing.append("the tokenizer")
    if missing:
        raise StoreError(
            f"The engine {engine.key} cannot be served: its manifest lacks {', '.join(missing)}. "
            "Build it again with this version of the workbench."
        )
    version = _version(engine)
    if engines_gone(version):
        raise StoreError(
            f"The engine {engine.key} cannot be served: it says that tensorrt-llm {version} built "
            "it, which has no engines."
        )


def _version(engine: Engine) -> str:
    return str(engine.manifest["identity"]["toolchain"]["tensorrt-llm"])


class Launch(NamedTuple):
    """What starts trtllm-serve here.

    Attributes:
        command: The program and its arguments.
        variables: Added to its environment.
        image: The container that it is started in, as toolchains are named; nothing for none.
        reads: Files and directories that it reads.
    """

    command: tuple[str, ...]
    variables: dict[str, str]
    image: str
    reads: tuple[str, ...]


def launch_here(engine: Engine, host: str, port: int) -> Launch:
    """Return what serves an engine of the store on this machine, where its toolchain is.

    Raises:
        StoreError: As `check`.
        ToolchainError: The toolchain has no trtllm-serve.
    """
    check(engine)
    toolchain = find_toolchain(engine.backend)
    container = toolchain.container
    if container and not container.shares_network:
        # Of the container's own addresses; on this machine the port is published at `host` alone.
        host = "0.0.0.0"  # noqa: S104
    settings, reads = None, [str(engine.path)]
    if text := settings_text(engine):
        path = files.make_folder(files.home() / "serving") / f"{engine.key}.yaml"
        path.write_text(text, encoding="utf-8")
        settings = str(path)
        reads.append(settings)
    program = "trtllm-serve" if container else _program(engine, toolchain)
    flags = arguments(engine, str(engine.path), settings, host, port)
    variables = dict(AS_ROOT) if os.geteuid() == 0 else {}
    image = str(container) if container else ""
    return Launch((program, str(engine.path), *_words(flags)), variables, image, tuple(reads))


def _program(engine: Engine, toolchain: Toolchain) -> str:
    """Return the path of trtllm-serve beside an interpreter.

    Raises:
        ToolchainError: It is not there.
    """
    program = Path(toolchain.python).with_name("trtllm-serve")
    if not os.access(program, os.X_OK):
        raise ToolchainError(
            f"trtllm-serve is missing: {program}. `workbench export {engine.key} FOLDER` writes "
            "what starts it elsewhere, also in a container."
        )
    return str(program)


def _words(flags: Sequence[Sequence[str]]) -> list[str]:
    return [word for flag in flags for word in flag]


def texts(engine: Engine) -> Mapping[str, str]:
    """Return the files beside an engine, by name.

    Raises:
        StoreError: As `check`.
    """
    check(engine)
    settings = settings_text(engine)
    named = SETTINGS if settings else None
    version, home = _version(engine), f"/opt/engines/{engine.key}"
    flags = arguments(engine, "engine", named)
    inside = arguments(engine, "engine", named, host="0.0.0.0")  # noqa: S104 - in the container
    values = {
        "key": engine.key,
        "name": engine.model_name,
        "version": version,
        "home": home,
        "port": PORT,
        "gpu": engine.manifest["identity"].get("device", {}),
        "ranks": int(engine.limits.get("world_size") or 1),
        "line": shlex.join(["trtllm-serve", "engine", *_words(flags)]),
        "list": json.dumps(["trtllm-serve", "engine", *_words(inside)]),
    }
    command = shell_lines(["trtllm-serve", "engine"], flags)
    script = f'#!/bin/sh\ncd "$(dirname "$0")" || exit\nexec {command}\n'
    return {
        "serve.sh": script,
        "trtllm-serve.service": _UNIT.format(**values),
        "compose.yaml": _COMPOSE.format(**values),
        "requirements.txt": f"tensorrt-llm=={version}\n",
        "README.md": _README.format(**values),
        **({SETTINGS: settings} if settings else {}),
    }


_UNIT = """\
[Unit]
Description=trtllm-serve, engine {key}
After=network.target

[Service]
WorkingDirectory={home}
ExecStart=/opt/trtllm/bin/{line}
Restart=on-failure
RestartSec=10
DynamicUser=yes
StateDirectory=trtllm-serve
Environment=HOME=/var/lib/trtllm-serve HF_HUB_OFFLINE=1

[Install]
WantedBy=multi-user.target
"""

_COMPOSE = """\
services:
  trtllm-serve:
    image: nvcr.io/nvidia/tensorrt-llm/release:{version}
    command: {list}
    working_dir: /app/export
    volumes: [".:/app/export:ro"]
    ports: ["127.0.0.1:{port}:{port}"]
    environment: {{HF_HUB_OFFLINE: "1"}}
    ipc: host
    ulimits: {{memlock: -1, stack: 67108864}}
    restart: on-failure
    healthcheck:
      test: [CMD, curl, --fail, --silent, "http://127.0.0.1:{port}/health"]
      start_period: 600s
    deploy:
      resources:
        reservations:
          devices: [{{driver: nvidia, count: {ranks}, capabilities: [gpu]}}]
"""

_README = """\
# {name}, engine {key}

Built by TensorRT-LLM {version}; it runs with that version only, on this kind of GPU: {gpu}

    ./serve.sh                                      where trtllm-serve is installed
    docker compose up                               in NVIDIA's container of that version
    cp -r . {home}            then, for systemd:
    cp trtllm-serve.service /etc/systemd/system/ && systemctl enable --now trtllm-serve

Each listens on 127.0.0.1:{port} alone, and /health there answers 200 once it serves. The unit
expects TensorRT-LLM in /opt/trtllm. Measure it as the engine was measured in the notebook:

    workbench trial --url http://127.0.0.1:{port}/v1 --tokenizer engine/tokenizer

These files were checked against TensorRT-LLM's source; none of them was run where they were made.
"""
