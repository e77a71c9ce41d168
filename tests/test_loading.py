"""Watching a session: told when it ends, and nobody is kept alive for that."""

from __future__ import annotations

import gc
import threading

from tests.faults import until
from workbench.session import Session
from workbench.widgets.loading import watch


class Fake:
    """A session that lives until it is told not to."""

    closed = False


class Panel:
    """Shows one session, and notes that it has ended."""

    def __init__(self, session: Fake) -> None:
        self.session, self.told = session, threading.Event()

    def shows(self, session: Session) -> bool:
        return session is self.session

    def ended(self, _session: Session) -> None:
        self.told.set()


def watches() -> int:
    return sum(thread.name == "session-watch" for thread in threading.enumerate())


def test_a_panel_is_told_when_its_session_ends() -> None:
    session = Fake()
    panel = Panel(session)
    watch(panel, session)  # type: ignore[arg-type]
    session.closed = True
    assert panel.told.wait(30.0)


def test_a_watch_ends_with_its_panel_and_with_another_session() -> None:
    before, session = watches(), Fake()
    panel, other = Panel(session), Panel(session)
    for one in (panel, other):
        watch(one, session)  # type: ignore[arg-type]
    other.session = Fake()
    del panel, one
    gc.collect()
    until(lambda: watches() <= before)
    assert not session.closed
    assert not other.told.is_set()
