"""A backend whose builds go wrong on request, for tests: real runner, real store, no compiler.

A build takes the whole real path (start_build, detached runner, recipe, worker process, session,
store); only what the worker does is played. Use the fixture `faulty` of tests/conftest.py:

    def test_something(faulty: Faulty) -> None:
        gate = faulty.gate()
        build = faulty.start(fault("compile", "stall", until=gate))
        gate.wait_reached()                     # the worker stands in its stage "compile"
        gate.open()                             # and goes on
        engine = build.wait()

        faulty.start(fault("before_rename", "kill"), seed=1)    # another engine, another end

`fault(at, do, **values)` says where and what. The keywords of `start` and `spec` are parameters of
`tests.faults.backend.FaultSpec`: `seed`, `size` and the first limits are part of the key, so
`seed=1` is another engine; faults are not, so the same request without its fault is a retry.

Points, in their order: in the runner after_session (before the journal has an owner), after_owner,
before_stage and after_stage (with name="fingerprint", ...: around the line in the journal),
before_temp, after_temp; in the worker start, load, compile, write, half (half of engine.bin is
there), end; in the worker of a session open, prefill, decode; in the runner before_manifest,
after_manifest, before_sync and after_sync (with name="engine.bin": an fsync of that
file in the engine's directory; "engines" is the folder of all), before_displace and after_displace
(of a damaged engine), before_rename, after_rename, before_record, after_record (the journal's last
word).

What can be done (`tests.faults.actions`, with their arguments): stall(until=gate) or stall() for
ever, kill, kill_runner, kill_tree, stop (SIGSTOP), segfault, exit(status=), raise(text=),
error(error="EIO"), descriptors (EMFILE from then on), memory(mebibytes=), child(pids=file,
detached=True), print(text=, times=), deaf (to SIGTERM, and as a worker to its closed channel),
clock(seconds=), fill(path=) (the disk, as a stranger would). Only in runners: end_wrapped (a
SIGTERM that comes out as a RuntimeError) and end_lost (one that comes out as nothing, at
after_owner). Only in workers: send(raw="x\\n").
Only in that of a build: done (a lie), refuse(text=) and overflow (fill the disk from within).

Processes that a test starts itself with os.environ know the backend too: command lines, kernels,
papermill, `python -c`. At the end of a test whatever lives with its home is killed;
`faulty.processes()` lists them, so that a test can say that there is none. The toolchain's version,
which is part of the key, is `WORKBENCH_FAULT_VERSION`.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults import backend
from workbench import backends, store
from workbench.backends import make_spec
from workbench.build import Build, key_values, start_build
from workbench.digests import cache_folder
from workbench.engine import Identity
from workbench.fingerprint import fingerprint
from workbench.jobs import Job
from workbench.spec import BuildSpec

FOLDER = Path(__file__).parent

PUBLISH_POINTS = (
    "before_temp", "after_temp", "half", "end", "before_manifest", "after_manifest",
    "before_rename", "after_rename", "before_record", "after_record",
)  # fmt: skip
"""Where a build can die on its way into the store, in order; "half" and "end" in the worker."""


class Fault(dict[str, Any]):
    """One thing that goes wrong: where, what, and with which arguments."""


def fault(at: str, do: str, **values: Any) -> Fault:
    """Return a fault; see the module docstring."""
    plain = {k: str(v) if isinstance(v, Path | Gate) else v for k, v in values.items()}
    return Fault(at=at, do=do, **plain)


@dataclass(frozen=True)
class Gate:
    """Where a fault stalls until a test lets it go on."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def wait_reached(self, seconds: float = 30.0) -> None:
        """Wait until somebody stands before it."""
        until(self.path.with_name(f"{self.path.name}.reached").exists, seconds)

    def open(self) -> None:
        """Let everybody pass."""
        self.path.touch()


def until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@dataclass(frozen=True)
class Faulty:
    """The played backend, known to this process and to all that it starts."""

    folder: Path
    model: Path

    @classmethod
    def install(cls, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Faulty:
        """Make the backend known until the end of a test; a model and a toolchain with it."""
        monkeypatch.setattr(backends, "NAMES", (*backends.NAMES, "fault"))
        monkeypatch.setitem(sys.modules, "workbench.backends.fault", backend)
        paths = [str(FOLDER / "site"), os.environ.get("PYTHONPATH", "")]
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
        folder.mkdir()
        toolchain = folder / "toolchain"
        worker = FOLDER / "worker.py"
        toolchain.write_text(
            f'#!/bin/sh\nshift\nexec "{sys.executable}" -I -S -u "{worker}" "$@"\n'
        )
        toolchain.chmod(0o755)
        monkeypatch.setenv("WORKBENCH_TOOLCHAIN_FAULT", str(toolchain))
        return cls(folder, make_model(folder / "model"))

    def spec(self, *faults: Fault, **values: Any) -> BuildSpec:
        """Return a spec of the played model; see `tests.faults.backend.FaultSpec`."""
        text = json.dumps(faults) if faults else ""
        return make_spec({"backend": "fault", "model": str(self.model), "fault": text, **values})

    def start(self, *faults: Fault, smoke: bool = False, **values: Any) -> Build:
        """Start a build, or find its engine."""
        return start_build(self.spec(*faults, **values), smoke=smoke)

    def identity(self, **values: Any) -> Identity:
        """Return what decides the engine of a spec, as a build would."""
        weights = fingerprint(self.model, cache_folder())
        version = os.environ.get("WORKBENCH_FAULT_VERSION", "1.0")
        return Identity(key_values(self.spec(**values)), weights, {"fault": version})

    def gate(self) -> Gate:
        """Return a new gate, closed."""
        return Gate(self.folder / f"gate-{len(list(self.folder.glob('gate-*')))}-{time.time_ns()}")

    def processes(self) -> list[psutil.Process]:
        """Return the living processes that work in this test's home, but for this one."""
        home, found = f"WORKBENCH_HOME={os.environ['WORKBENCH_HOME']}\0".encode(), []
        for pid in psutil.pids():
            # Those of others, those that end meanwhile, and zombies, which have no environment.
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                if pid != os.getpid() and home in Path(f"/proc/{pid}/environ").read_bytes():
                    found.append(psutil.Process(pid))
        return found

    def kill_all(self) -> None:
        """Kill whatever a test left behind."""
        while processes := self.processes():
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, timeout=5)

    @staticmethod
    def temporaries() -> list[str]:
        """Return the names of what is not published, or not any more."""
        return sorted(path.name for path in store.folder().glob(".tmp-*"))


def job_of(build: Build) -> Job:
    """Return the job of a build that is no hit."""
    assert build.job is not None, build.explanation
    return build.job


def make_model(directory: Path, seed: int = 0) -> Path:
    """Write a checkpoint of a few kilobytes with true headers; its weights are noise."""
    sizes = {"model.embed_tokens.weight": [64, 16], "model.layers.0.mlp.up_proj.weight": [32, 16],
             "model.norm.weight": [16]}  # fmt: skip
    header, end = {}, 0
    for name, shape in sizes.items():
        start, end = end, end + 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    raw = json.dumps(header).encode()
    directory.mkdir(parents=True)
    weights = bytes((seed + index) % 251 for index in range(end))
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + weights)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 64,
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    }  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    tokens = {f"w{number}": number for number in range(64)}
    tokenizer = {"version": "1.0", "model": {"type": "WordLevel", "vocab": tokens}}
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    return directory
