"""Panels where something is refused, fails or ends in between: what they show stays true."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.test_playground import close_all, playground, say
from workbench.engine import Engine
from workbench.errors import SessionError
from workbench.widgets.playground import PlaygroundPanel


@pytest.fixture(autouse=True)
def clicking(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is somebody who clicks."""
    monkeypatch.setenv("WORKBENCH_HEADLESS", "0")


@pytest.fixture(autouse=True, scope="module")
def closed_at_the_end() -> Iterator[None]:
    """Tests share what is open, as panels do."""
    yield
    close_all()


def known(panel: PlaygroundPanel) -> list[str]:
    """Return what a panel shows of its answer, and what it would make of it."""
    session, trail = panel._trail()
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
