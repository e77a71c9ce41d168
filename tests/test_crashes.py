"""Engines that crash when they are loaded: told wherever they are offered, and built anew."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests import stock
from tests.faults import Faulty, fault
from tests.faults.spoil import SPOIL
from workbench import files, store, usage
from workbench.build import start_build
from workbench.cli import main
from workbench.engine import Engine
from workbench.errors import CrashError, JobError
from workbench.offers import already_built
from workbench.opening import open_engine
from workbench.process import crash_of
from workbench.widgets.store import StorePanel

KEY = "0" * 20
WORDS = "crashed on load (SIGSEGV, moments ago)"


@pytest.fixture
def crashed(faulty: Faulty) -> Engine:
    """An engine that was loaded once, and crashed."""
    engine = stock.stock(faulty, fault=json.dumps([fault("open", "segfault")]))
    with pytest.raises(CrashError, match=r"its worker crashed \(signal 11\).*--again"):
        open_engine(engine.key)
    return engine


def test_a_crash_on_load_is_told_wherever_the_engine_is_offered(
    faulty: Faulty, crashed: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    build = faulty.start()
    assert build.hit
    assert f" It {WORDS}. If it does so again, " in build.explanation
    assert "--again" in build.explanation
    [(_, sentence)] = already_built(faulty.spec())
    assert f" It {WORDS}. If it does so again, " in sentence
    assert main(["engines", "list"]) == 0
    assert WORDS in capsys.readouterr().out
    assert main(["engines", "show", crashed.key]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == crashed.manifest
    assert WORDS in shown.err
    panel = StorePanel()
    assert WORDS in panel.plain()
    panel.choose(crashed.key)
    assert WORDS in panel._suspicion.value


def test_a_load_that_works_clears_it(faulty: Faulty, crashed: Engine) -> None:
    with open_engine(crashed.under({"fault": ""})):
        assert usage.crash(crashed.key) == ""
    assert "crashed" not in faulty.start().explanation


def test_an_engine_that_crashed_is_built_again_on_request(faulty: Faulty, crashed: Engine) -> None:
    again = start_build(faulty.spec(), smoke=False, again=True).wait()
    assert again.key == crashed.key
    assert again.created > crashed.created
    assert again.damage(thorough=True) == ""
    assert "crashed" not in faulty.start().explanation


def test_the_command_line_builds_again(faulty: Faulty) -> None:
    words = ["build", "--backend", "fault", "--model", str(faulty.model), "--no-smoke"]
    assert main(words) == 0
    (first,) = store.list_engines()
    assert main(words) == 0
    assert [engine.created for engine in store.list_engines()] == [first.created]
    assert main([*words, "--again"]) == 0
    (second,) = store.list_engines()
    assert second.created > first.created


def test_what_is_pinned_is_not_built_again(faulty: Faulty) -> None:
    engine = stock.stock(faulty)
    usage.pin(engine.key)
    build = start_build(faulty.spec(), smoke=False, again=True)
    with pytest.raises(JobError, match=rf"{engine.key} is not built again: it is pinned"):
        build.wait()
    assert store.find_engine(engine.key).manifest == engine.manifest


def test_a_build_again_that_fails_leaves_the_engine(faulty: Faulty) -> None:
    engine = stock.stock(faulty)
    with pytest.raises(JobError, match="played"):
        start_build(faulty.spec(fault("end", "raise")), smoke=False, again=True).wait()
    assert store.find_engine(engine.key).manifest == engine.manifest


def test_an_engine_that_is_removed_takes_its_crash_with_it(home: Path) -> None:
    usage.note_crash(KEY, signal.SIGBUS)
    assert "SIGBUS" in usage.crash(KEY)
    usage.forget(KEY)
    assert usage.crash(KEY) == ""
    assert not (home / "usage" / KEY).exists()


@pytest.mark.parametrize("kind", SPOIL)
def test_a_spoiled_note_is_none(home: Path, kind: str) -> None:
    usage.note_crash(KEY, signal.SIGSEGV)
    SPOIL[kind](files.home() / "usage" / KEY / "crashed")
    assert usage.crash(KEY) == ""
    assert usage.suspicion(KEY) == ""
    assert home.is_dir()


@pytest.mark.parametrize(
    ("status", "number"),
    [
        (0, 0),
        (1, 0),
        (-11, 11),
        (-9, 9),
        (139, 11),
        (255, 0),
        (128, 0),
        (-15, 0),
        (-2, 0),
        (143, 0),
    ],
)
def test_only_a_signal_that_nobody_sent_to_stop_it_is_a_crash(status: int, number: int) -> None:
    assert crash_of(status) == number
