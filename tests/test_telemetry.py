"""Nothing is sent home: neither by a build nor by a session."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.conftest import open_session
from workbench.backends import make_spec
from workbench.build import start_build

# Loaded by every Python that starts with this folder on its path: writes down who is called and
# whether the telemetry package is loaded.
SPY = """
    import os, sys

    def spy(event, arguments):
        if event == "import" and arguments[0] == "openvino_telemetry.main":
            note("telemetry")
        elif event == "socket.connect" and not isinstance(arguments[1], (str, bytes)):
            note(f"connect {arguments[1]}")
        elif event == "socket.getaddrinfo":
            note(f"look up {arguments[0]}")

    def note(what):
        with open(os.environ["SPY_LOG"], "a") as file:
            file.write(f"{os.getpid()} {what}\\n")

    sys.addaudithook(spy)
    note("started")
"""


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(SPY))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("SPY_LOG", str(tmp_path / "seen.txt"))
    # As on the machine of a user, not of a CI service, which the packages leave alone.
    for name in ("CI", "NNCF_CI", "TF_BUILD", "JENKINS_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "seen.txt"


def _events(seen: Path) -> list[str]:
    return [line.split(" ", 1)[1] for line in seen.read_text().splitlines()]


def test_the_spy_sees_what_the_packages_do_when_they_may(seen: Path) -> None:
    script = "import nncf, socket; s = socket.socket(); s.connect_ex(('127.0.0.1', 9)); s.close()"
    subprocess.run([sys.executable, "-c", script], check=True, env=os.environ, capture_output=True)
    assert "telemetry" in _events(seen)
    assert "connect ('127.0.0.1', 9)" in _events(seen)


def test_a_build_and_a_session_call_nobody(seen: Path) -> None:
    engine = start_build(make_spec({"quantization": "int8"})).wait()
    with open_session(engine) as session:
        assert session.generate("a", max_tokens=4, ignore_eos=True).wait().token_ids
    events = _events(seen)
    # The runner, its two workers, and ours.
    assert events.count("started") >= 4
    assert [event for event in events if event != "started"] == []
