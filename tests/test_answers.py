"""Answers that outlive the kernel: kept within bounds, listed by the next panel, forgotten."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tests.servers.scripted import DONE, Connection, delta, scripted
from tests.test_playground import playground, ready, say
from workbench import answers
from workbench.endpoint import Endpoint
from workbench.engine import Engine
from workbench.widgets.playground import PlaygroundPanel

SERVER = Endpoint("http://127.0.0.1:9/v1", model="m")


@pytest.fixture(autouse=True)
def clicking(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is somebody who clicks."""
    monkeypatch.setenv("WORKBENCH_HEADLESS", "0")


def keep(asked: str, answered: str = "yes", source: Endpoint = SERVER) -> None:
    answers.keep(source, asked, answered, "1 tokens", "seed=1")


def test_a_new_panel_lists_what_the_engine_answered_before(stocked: Engine) -> None:
    before = playground(stocked, mode="completion")
    assert before._earlier.layout.display == "none"
    text = say(before, "a <b>c</b>")
    panel = playground(stocked)
    earlier = panel._earlier
    assert earlier.layout.display == ""
    assert earlier._shown.value == ""
    (_, nothing), (name, answer) = earlier._list.options
    assert nothing is None
    assert name.endswith("a <b>c</b>")
    assert (answer.asked, answer.answered) == ("a <b>c</b>", text)
    earlier._list.value = answer
    assert "a &lt;b&gt;c&lt;/b&gt;" in earlier._shown.value
    assert "<b>c</b>" not in earlier._shown.value
    assert "12 tokens" in earlier._shown.value
    assert "max_tokens=12" in answer.settings
    use, forget = earlier._buttons.children
    use.click()
    assert panel._prompt.value == "a <b>c</b>"
    panel.unload()
    forget.click()
    assert earlier.layout.display == "none"
    assert answers.kept(stocked) == ()


@pytest.mark.usefixtures("home")
def test_a_server_is_known_by_the_model_that_it_had() -> None:
    with scripted(answer) as server:
        for count in range(2):
            panel = ready(PlaygroundPanel(Endpoint(server.url)))
            assert len(panel._earlier._list.options) == 1 + count
            say(panel, "hi")
            panel.unload()


def answer(connection: Connection) -> None:
    connection.stream(delta("yes"), delta(reason="stop"), DONE)


def test_what_is_kept_is_private_and_of_one_source(home: Path) -> None:
    keep("one")
    (file,) = (home / "answers").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert answers.kept(Endpoint(SERVER.url, model="another")) == ()
    assert [one.asked for one in answers.kept(SERVER)] == ["one"]


def test_the_latest_answers_are_kept_within_bounds(home: Path) -> None:
    for number in range(2 * answers.KEPT):
        keep(f"{number}", "long" * answers.LONGEST)
    found = answers.kept(SERVER)
    latest = range(2 * answers.KEPT - 1, answers.KEPT - 1, -1)
    assert [one.asked for one in found] == [f"{number}" for number in latest]
    assert all(len(one.answered) < answers.LONGEST + 3 for one in found)
    (file,) = (home / "answers").iterdir()
    assert file.stat().st_size <= answers.MOST


def test_a_file_of_long_answers_is_not_written_anew_for_each(home: Path) -> None:
    # Every character takes six bytes of JSON.
    for number in range(2 * answers.KEPT):
        keep(f"{number}", "\u8a9e" * answers.LONGEST)
    (file,) = (home / "answers").iterdir()
    before = file.stat()
    keep("one more")
    assert file.stat().st_ino == before.st_ino
    assert answers.kept(SERVER)[0].asked == "one more"


def test_lines_that_are_no_answer_are_passed_over(home: Path) -> None:
    keep("one")
    (file,) = (home / "answers").iterdir()
    with file.open("a") as lines:
        lines.write('{"time": "late", "asked": "x"}\n[1]\n{"asked": "torn')
    keep("two")
    assert [one.asked for one in answers.kept(SERVER)] == ["two", "one"]


def test_a_disk_that_refuses_keeps_nothing_and_says_nothing(home: Path) -> None:
    home.mkdir()
    (home / "answers").write_text("no folder")
    keep("one")
    assert answers.kept(SERVER) == ()
