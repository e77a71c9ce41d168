"""Panels from which engines come, so that others can follow them."""

from __future__ import annotations

from collections.abc import Callable

from workbench.engine import Engine
from workbench.errors import StoreError
from workbench.widgets.panel import Panel


class EngineSource(Panel):
    """A panel from which engines come; `engine` is the last one."""

    _engine: Engine | None = None

    @property
    def engine(self) -> Engine | None:
        """The engine that came last, or None before the first."""
        return self._engine

    def on_engine(self, listener: Callable[[Engine], None]) -> None:
        """Call `listener` with each engine that comes, and at once with the one there is."""
        self._listeners = [*getattr(self, "_listeners", []), listener]
        if self._engine:
            listener(self._engine)

    def wait(self) -> Engine:
        """Return the engine, waiting for it where one is on its way.

        Raises:
            WorkbenchError: None is there, and none comes.
        """
        if self._engine is None:
            raise StoreError("No engine was chosen. Select one, and press Use engine.")
        return self._engine

    def _hand_out(self, engine: Engine) -> None:
        self._engine = engine
        self.touch()
        for listener in getattr(self, "_listeners", []):
            listener(engine)
