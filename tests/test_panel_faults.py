"""Panels where something is refused, fails or ends in between: what they show stays true."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import close_all
from tests.faults import Faulty, fault, until
from tests.servers.scripted import DONE, Connection, delta, nowhere, scripted
from tests.test_playground import echo, playground, ready, say
from workbench import shared
from workbench.endpoint import Endpoint
from workbench.engine import Engine
from workbench.errors import ModelError, RequestError, SessionError
from workbench.widgets import build
from workbench.widgets.build import BuildPanel
from workbench.widgets.playground import PlaygroundPanel

pytestmark = pytest.mark.usefixtures("clicking", "closed_at_the_end")


def known(panel: PlaygroundPanel) -> list[str]:
    """Return what a panel shows of its answer, and what it would make of it."""
    session, trail, _ = panel._trail()
    assert session is panel._session
    exports = [panel.export(form) for form in ("markdown", "json", "python")]
    samples = [view.text for view, _ in panel._samples._rows[: len(panel._samples.children)]]
    return [*exports, panel._view.text, trail.text, *samples]


@pytest.mark.parametrize("mode", ["chat", "completion"])
def test_a_refused_prompt_leaves_the_answer_before_it(stocked: Engine, mode: str) -> None:
    panel = playground(stocked, mode=mode, system_prompt="be short", n=2)
    say(panel, "a b c")
    before = known(panel)
    panel._sampling._counter.value = "9"
    panel._system.value = "be long"
    panel.send("x y z")
    assert "n must be a whole number" in panel._error_text
    assert known(panel) == before


def test_a_sample_that_is_refused_leaves_the_samples_before_it(
    stocked: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = playground(stocked, n=2)
    say(panel, "a b c")
    before = known(panel)
    assert panel._session is not None
    generate, calls = panel._session.generate, iter([True, False])

    def once(*args: object, **more: object) -> object:
        if next(calls):
            return generate(*args, **more)  # type: ignore[arg-type]
        raise SessionError("Played: it died.")

    monkeypatch.setattr(panel._session, "generate", once)
    panel.send("x y z")
    assert "Played: it died." in panel._error_text
    assert known(panel) == before


def test_a_refused_prompt_leaves_an_answer_that_goes_on_from_another_token(
    stocked: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = playground(stocked)
    say(panel, "a b c")
    other = panel._choices_at(3)[1].token_id
    before = known(panel)

    def die(*_: object, **__: object) -> object:
        raise SessionError("Played: it died.")

    with monkeypatch.context() as patch:
        patch.setattr(panel._session, "generate", die)
        with pytest.raises(SessionError, match="Played"):
            panel.continue_from(3, other)
    assert known(panel) == before
    panel.continue_from(3, other)
    panel.wait(20)
    went_on = known(panel)
    assert went_on != before
    panel._sampling._counter.value = "9"
    panel.send("x y z")
    assert "n must be a whole number" in panel._error_text
    assert known(panel) == went_on


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What is opened from now on is opened when this is set."""
    acquire, go = shared.acquire, threading.Event()
    monkeypatch.setattr(
        shared, "acquire", lambda *args, **more: go.wait(30.0) and acquire(*args, **more)
    )
    yield go
    go.set()


def test_a_question_for_a_server_that_does_not_answer_is_asked_of_nobody_else(
    stocked: Engine, request: pytest.FixtureRequest
) -> None:
    panel = playground(stocked)
    say(panel, "a")
    gate = request.getfixturevalue("gate")
    with nowhere() as url:
        panel.load(Endpoint(url))
        until(lambda: "loading endpoint" in panel._title.value)
        panel.send("b")
        gate.set()
        with pytest.raises(RequestError, match=f"Nothing listens at .* for endpoint {url}"):
            panel.wait(20)
    assert len(panel.records) == 1
    assert "Nothing listens at" in panel._error_text
    assert say(panel, "b")
    assert len(panel.records) == 2


def test_waiting_for_what_could_not_be_loaded_again_tells_no_older_answer(
    stocked: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = playground(stocked)
    say(panel, "a")
    panel.unload()
    with monkeypatch.context() as patch:
        patch.setattr(shared, "memory", lambda: (1 << 30, 1 << 20))
        panel.send("b")
        with pytest.raises(SessionError, match="It needs at least"):
            panel.wait(20)
    assert say(panel, "b")


def test_a_panel_that_is_replaced_while_its_engine_loads_stays_without_it(
    stocked: Engine, gate: threading.Event
) -> None:
    panel = PlaygroundPanel(stocked, start=True, max_tokens=12, idle_minutes=30.0)
    until(lambda: "loading" in panel._title.value)
    panel.retire()
    gate.set()
    until(lambda: "has taken the place of this one" in panel._error_text)
    assert panel._session is None
    assert panel._timer is not None
    assert panel._timer._timer is None
    assert not holds(panel)
    assert panel._generation is None
    # Whoever still has it may go on with it.
    assert say(panel, "a")
    assert holds(panel)


def holds(panel: PlaygroundPanel) -> bool:
    """Say whether a panel wants anything open."""
    return any(panel in holders for holders in shared._HOLDERS.values())


def test_a_question_of_a_panel_that_is_replaced_is_not_asked(
    stocked: Engine, gate: threading.Event
) -> None:
    panel = PlaygroundPanel(max_tokens=12)
    with scripted(echo) as server:
        panel.load(Endpoint(server.url))
        until(lambda: "loading" in panel._title.value)
        panel.send("a")
        panel.retire()
        gate.set()
        with pytest.raises(SessionError, match="has taken the place of this one"):
            panel.wait(20)
        assert server.asked == []
        panel.load(Endpoint(server.url))
        until(lambda: panel._session is not None)
        assert say(panel, "a") == "user"
        panel.unload()


class Meanwhile:
    """A lock that something happens before; whoever has it may take it again."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self._happens, self._lock = happens, threading.RLock()

    def __enter__(self) -> None:
        self._happens()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_an_idle_engine_stays_where_somebody_asks_it_at_the_last_moment(stocked: Engine) -> None:
    close_all()  # what another panel shows stays anyway
    panel = playground(stocked)
    session, opening = panel._session, panel._opening
    panel._idle_minutes = 1.0
    assert session is not None
    panel._opening = Meanwhile(panel._idle.clear)  # type: ignore[assignment]
    panel._unload_idle()
    assert panel._session is session
    assert not session.closed
    panel._idle.set()
    # Or opens something else.
    other = object()
    panel._opening = Meanwhile(lambda: setattr(panel, "_session", other))  # type: ignore[assignment]
    panel._unload_idle()
    assert panel._session is other
    panel._session, panel._opening = session, opening
    assert say(panel, "a")


def fails(*seeds: int) -> Callable[[Connection], None]:
    """Answer with the seed; for these seeds cut the stream short."""

    def script(connection: Connection) -> None:
        seed = connection.body["seed"]
        text = delta(f"seed {seed}")
        if seed in seeds:
            connection.stream(text, end=False)
        else:
            connection.stream(text, delta(reason="stop"), DONE)

    return script


def test_another_sample_is_the_answer_where_the_first_one_failed() -> None:
    with scripted(fails(3)) as server:
        panel = ready(PlaygroundPanel(Endpoint(server.url), n=2, seed=3))
        assert isinstance(panel, PlaygroundPanel)
        panel.send("hi")
        until(panel._idle.is_set)
        assert panel._error_text
        assert panel.conversation.turns == []
        (_, button), *_ = panel._samples._rows
        button.click()
        assert [(turn.asked, turn.answered) for turn in panel.conversation.turns] == [
            ("hi", "seed 4")
        ]
        assert panel.wait()["text"] == "seed 4"
        # The other one is no answer.
        assert button.disabled
        panel.take_sample(0)
        assert "Sample 2 failed" in panel._error_text
        assert panel.wait()["text"] == "seed 4"
        # Asked again, and the first one fails again: the turn is replaced.
        panel.regenerate()
        until(lambda: len(panel.records) == 2 and panel._idle.is_set())
        panel.take_sample(0)
        assert len(panel.conversation.turns) == 1
        assert panel.conversation.turns[0].record is panel.record
        panel.unload()


def test_a_sample_that_failed_cannot_be_taken() -> None:
    with scripted(fails(4)) as server:
        panel = ready(PlaygroundPanel(Endpoint(server.url), n=3, seed=3))
        assert isinstance(panel, PlaygroundPanel)
        panel.send("hi")
        assert panel.wait(20)["text"] == "seed 3"
        assert [button.disabled for _, button in panel._samples._rows] == [True, False]
        panel.take_sample(0)
        assert "Sample 2 failed" in panel._error_text
        assert [turn.answered for turn in panel.conversation.turns] == ["seed 3"]
        panel.unload()


def test_a_sample_of_a_turn_that_is_gone_does_not_come_after_other_turns() -> None:
    with scripted(fails()) as server:
        panel = ready(PlaygroundPanel(Endpoint(server.url), n=2, seed=3))
        assert isinstance(panel, PlaygroundPanel)
        say(panel, "one")
        say(panel, "two")
        panel.edit(0)
        panel.take_sample(0)
        assert panel.conversation.turns == []
        assert panel.wait()["text"] == "seed 4"
        panel.unload()


def test_a_build_that_cannot_be_followed_is_not_taken_for_the_panels_own(
    faulty: Faulty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORKBENCH_HEADLESS")  # or it would follow on its own
    gate = faulty.gate()
    running = faulty.start(fault("compile", "stall", until=gate))
    gate.wait_reached()
    panel = BuildPanel(running.spec, smoke=False)

    class Broken:
        @staticmethod
        def make(_: object) -> object:
            raise ModelError("Played: the model went away.")

    with monkeypatch.context() as patch:
        patch.setattr(build, "Plan", Broken)
        panel._attach()
    assert panel._build is None
    gate.open()
    running.wait()
