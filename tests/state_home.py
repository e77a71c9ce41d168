"""Writes a home of this version for `tests/fixtures/state`, before a later one changes a format.

    python -m tests.state_home tests/fixtures/state/<version>-<word>.tar.gz

Everything went the real way with the played backend of `tests.faults`: builds that were published,
failed and cancelled, a pinned engine, a budget, a sweep with its trials, and what stays of the
queue. Names of this machine, its processor and its folders are replaced.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import socket
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest

from tests.faults import Faulty, fault, job_of
from workbench import usage
from workbench.build import cancel
from workbench.engine import MANIFEST, sealed
from workbench.errors import JobError
from workbench.eviction import set_budget
from workbench.hardware import host
from workbench.jobs import list_jobs
from workbench.listing import list_entries
from workbench.owner import boot
from workbench.sweep import Sweep
from workbench.sweep_job import start_sweep

BOOT = "00000000-1111-2222-3333-444444444444"
SWEEP = {
    "name": "batches",
    # The played engine says that every prompt has one token.
    "workload": {"input_len": 1, "output_len": 3, "requests": 3, "warmup": 1},
    "grid": {"spec": {"max_batch_size": [2, 4]}},
}


def fill(faulty: Faulty) -> None:
    """Let everything happen that leaves files in a home."""
    engine = faulty.start(smoke=True).wait()
    usage.pin(engine.key, "the one that people use")
    with contextlib.suppress(JobError):
        faulty.start(fault("compile", "refuse", text="There is no such layer."), seed=1).wait()
    gate = faulty.gate()
    standing = faulty.start(fault("compile", "stall", until=gate), seed=2)
    gate.wait_reached()
    cancel(job_of(standing))
    set_budget(1 << 30)
    spec = {"backend": "fault", "model": str(faulty.model)}
    job, _ = start_sweep(Sweep.parse({**SWEEP, "spec": spec}))
    job.wait()
    list_entries()  # writes the index of the jobs


def disguised(text: bytes, folder: Path) -> bytes:
    """Return a file without the names of this machine, of its processor and of its folders."""
    words = {
        str(folder): "/home/user",
        str(Path(__file__).parents[1]): "/src",
        sys.executable: "/usr/bin/python3",
        socket.gethostname(): "builder",
        host().name: "A processor",
        boot(): BOOT,
        boot()[:8]: BOOT[:8],
    }
    for word, instead in words.items():
        text = text.replace(word.encode(), instead.encode())
    return re.sub(rb'"platform": "[^"]*"', b'"platform": "Linux"', text)


def resealed(text: bytes) -> bytes:
    """Return a manifest with the checksum of what stands in it now."""
    manifest = json.loads(text)
    del manifest["checksum"]
    return json.dumps(sealed(manifest), indent=1).encode()


def pack(home: Path, folder: Path, archive: Path) -> None:
    """Write the files of a home into an archive, in one order and without an owner."""
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(home.rglob("*")):
            name = f"home/{path.relative_to(home)}".replace(boot()[:8], BOOT[:8])
            entry = tarfile.TarInfo(name)
            entry.mode = path.stat().st_mode & 0o777
            entry.mtime = int(path.stat().st_mtime)
            if path.is_dir():
                entry.type = tarfile.DIRTYPE
                tar.addfile(entry)
            else:
                content = disguised(path.read_bytes(), folder)
                content = resealed(content) if path.name == MANIFEST else content
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


def main() -> None:
    """Write the archive that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    archive = parser.parse_args().archive.absolute()
    with tempfile.TemporaryDirectory() as scratch, pytest.MonkeyPatch.context() as patch:
        home = Path(scratch) / "home"
        patch.setenv("WORKBENCH_HOME", str(home))
        faulty = Faulty.install(Path(scratch) / "faulty", patch)
        try:
            fill(faulty)
            assert len(list_jobs()) >= 4
            pack(home, Path(scratch), archive)
        finally:
            faulty.kill_all()
    print(f"{archive}: {archive.stat().st_size} bytes")


if __name__ == "__main__":
    main()
