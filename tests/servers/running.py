"""Servers that are not ours, started on the loopback interface with the demo model."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from workbench.build import DEMO_MODEL

START = 120.0
"""Seconds that a server may take to start: `transformers serve` imports for long where cores are
shared."""


@contextmanager
def llama_cpp(folder: Path, model: Path = DEMO_MODEL) -> Iterator[str]:
    """Start llama.cpp's server on a Llama model; yield its address."""
    script = Path(__file__).with_name("llama_cpp.py")
    arguments = [str(script), str(model), str(folder / "demo.gguf")]
    with _process(arguments, folder / "llama_cpp.log") as process:
        assert process.stdout is not None
        address = process.stdout.readline().decode().strip()
        assert address.startswith("http://127.0.0.1:"), (folder / "llama_cpp.log").read_text()
        yield address


@contextmanager
def transformers_serve(folder: Path) -> Iterator[str]:
    """Start `transformers serve`; yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    (folder / "hub").mkdir()
    arguments = ["-m", "transformers.cli.transformers", "serve", "--host", "127.0.0.1"]
    arguments += ["--port", str(port), "--device", "cpu", "--dtype", "float32"]
    log = folder / "transformers.log"
    with _process(arguments, log, HF_HUB_OFFLINE="1", HF_HOME=str(folder)) as process:
        deadline = time.monotonic() + START
        while not _listens(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"


@contextmanager
def _process(arguments: list[str], log: Path, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    with (
        log.open("wb") as file,
        subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE if "llama" in log.name else file,
            stderr=file,
            env={**os.environ, **more},
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
        return True
    return False
