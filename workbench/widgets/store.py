"""The engines panel: what the store holds, who uses it, what may go, whether it is still sound."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets

from workbench import eviction, store, usage
from workbench.engine import Engine, age, read_engine
from workbench.errors import StoreError
from workbench.eviction import Usage
from workbench.units import format_bytes, format_seconds, printable, printable_json
from workbench.widgets.counted import CountedBytes
from workbench.widgets.lists import ListPanel, Row, contains, hidden
from workbench.widgets.transfer import Transfer

COLUMNS = (
    ("engine", ""),
    ("what", "wide"),
    ("size", "number"),
    ("built", ""),
    ("last used", ""),
    ("kept because", "wide"),
)


class StorePanel(ListPanel):
    """Lists the engines of the store and takes care of them; headless it is a table."""

    WHAT = "engines"
    TICKS = 25
    """The list changes seldom, and every manifest is read for it."""

    def __init__(self, *, text: str = "", show: int = 20, budget: str = "") -> None:
        """Show the panel.

        Args:
            text: Only engines whose line contains these words.
            show: Lines at first.
            budget: The most that the store shall hold from now on, such as "200GiB", or "none";
                as it is if empty.

        Raises:
            InputError: The budget is no size.
            OSError: The budget cannot be written.
        """
        if budget:
            eviction.set_budget(eviction.read_size(budget))
        self._key = ""
        self._verified = ""
        """Key of the engine that is being read."""
        self._title = widgets.HTML()
        self._suspicion = widgets.HTML()
        self._manifest = widgets.HTML()
        self._held = widgets.HTML()
        self._aside = widgets.HTML()
        self.budget = widgets.Text(
            description="budget",
            placeholder="such as 200GiB, or none",
            layout=widgets.Layout(width="260px"),
            style={"description_width": "55px"},
        )
        self.budget_button = widgets.Button(
            description="Set budget", tooltip="The most that the store shall hold"
        )
        self.verify_button = widgets.Button(
            description="Verify", tooltip="Read every byte and compare it with what was published"
        )
        self.pin_button = widgets.Button(description="Pin", tooltip="Keep it whatever the budget")
        self.evict_button = widgets.Button(description="Evict", tooltip="Remove it from the store")
        self.use_button = widgets.Button(
            description="Use engine", tooltip="Give this engine to the panels that follow this one"
        )
        self.confirm_button = widgets.Button(button_style="danger", tooltip="There is no way back")
        self.keep_button = widgets.Button(description="Keep it", tooltip="Remove nothing")
        # A real button: the headers of ipywidgets' accordion cannot be reached with the keyboard.
        self.manifest_button = widgets.ToggleButton(
            description="Manifest", tooltip="Show all that is known about this engine"
        )
        self.transfer = Transfer()
        self._confirm = widgets.HBox([self.confirm_button, self.keep_button])
        self._reading = CountedBytes()
        actions = [
            self.use_button,
            self.verify_button,
            self.pin_button,
            self.evict_button,
            self.manifest_button,
        ]
        self._details = widgets.VBox(
            [
                self._title,
                self._suspicion,
                widgets.HBox(actions),
                self._confirm,
                self._reading,
                self._manifest,
            ]
        )
        for widget in (self._details, self._confirm):
            hidden(widget, None)
        limit = widgets.HBox([self.budget, self.budget_button])
        super().__init__(
            "Engines",
            COLUMNS,
            above=[],
            below=[self._details, self._held, limit, self.transfer, self._aside],
            text=text,
            show=show,
        )
        self.budget_button.on_click(lambda _: self.set_budget(self.budget.value))
        self.verify_button.on_click(lambda _: self.verify())
        self.pin_button.on_click(lambda _: self.pin())
        self.evict_button.on_click(lambda _: self.ask_to_evict())
        self.confirm_button.on_click(lambda _: self.evict())
        self.keep_button.on_click(lambda _: hidden(self._confirm, None))
        self.use_button.on_click(lambda _: self.use())
        self.manifest_button.observe(lambda _: self._show_chosen(), "value")
        self.transfer.export_button.on_click(lambda _: self.export_chosen())
        self.transfer.import_button.on_click(lambda _: self.import_file())
        self.refresh()

    def set_budget(self, size: str) -> None:
        """Keep the most that the store shall hold, such as "200GiB"; "none" takes it away."""
        self.show_error("")
        with self.boundary():
            eviction.set_budget(eviction.read_size(size))
        self.refresh()

    def use(self) -> None:
        """Hand the chosen engine to those who follow this panel."""
        with self.boundary():
            self._hand_out(self._sure())

    def pin(self) -> None:
        """Keep the chosen engine whatever the budget is, or let it go again."""
        with self.boundary():
            key = self._sure().key
            if usage.is_pinned(key):
                usage.unpin(key)
            else:
                usage.pin(key, "in the engines panel")
        self.refresh()

    def ask_to_evict(self) -> None:
        """Ask whether the chosen engine shall really be removed."""
        with self.boundary():
            engine = self._sure()
            self.confirm_button.description = (
                f"Remove {engine.key[:12]} ({format_bytes(engine.bytes)}) for good"
            )
            self.confirm_button.layout.width = "auto"
            hidden(self._confirm, engine)

    def evict(self) -> None:
        """Remove the chosen engine, unless it is pinned or in use."""
        hidden(self._confirm, None)
        self.show_error("")
        with self.boundary():
            engine = self._sure()
            freed = eviction.evict(engine.key)
            self.table.selected = ""
            self._reading.say(f"Removed the engine {engine.key} ({format_bytes(freed)}).")
        self.refresh()

    def verify(self) -> None:
        """Read every byte of the chosen engine in a thread; one that is damaged is set aside."""
        self.show_error("")
        with self.boundary():
            engine = self._sure()
            self._verified, self.verify_button.disabled = engine.key, True
            self._reading.say("")
            self.in_background(self._verify, engine)

    def export_chosen(self) -> None:
        """Write the chosen engine into the file whose path is given, in a thread."""
        self.show_error("")
        with self.boundary():
            self._carry(self.transfer.write, self._sure(), self.transfer.file())

    def import_file(self) -> None:
        """Bring the engine of the file whose path is given into the store, in a thread."""
        self.show_error("")
        with self.boundary():
            self._carry(self.transfer.read, self.transfer.file())

    def _carry(self, work: Callable[..., None], *values: Any) -> None:
        def carry() -> None:
            try:
                work(*values)
            finally:
                self.transfer.set_busy(busy=False)
                self.refresh()

        self.transfer.set_busy(busy=True)
        self.in_background(carry)

    def plain(self) -> str:
        """Return the list and what the store holds as plain text."""
        return "\n".join([super().plain(), *self._summary()])

    def static(self) -> str:
        """Return the list and what the store holds as HTML without widgets."""
        return f"{super().static()}{self._held.value}{self._aside.value}"

    def record(self) -> dict[str, Any]:
        """Return what the store holds as plain values: a number of engines, and bytes."""
        engines = store.list_engines()
        held = eviction.store_usage(engines)
        return {
            "engines": len(engines),
            "engine_bytes": held.engines,
            "set_aside_bytes": held.damaged,
            "budget_bytes": held.budget,
        }

    def _rows(self, words: Sequence[str], count: int) -> tuple[list[Row], int]:
        engines = store.list_engines()
        found = [engine for engine in engines if contains(str(engine), words)]
        self.table.empty = (
            "No engine is like that." if engines else "The store holds no engine yet."
        )
        self._show_held(engines)
        now = time.time()
        return [_row(engine, now) for engine in found[:count]], len(found)

    def _choose(self, name: str) -> None:
        self._key = name
        self._reading.say("")
        hidden(self._confirm, None)
        self._show_chosen()

    def _show_chosen(self) -> None:
        """Show what the chosen engine is; one that is gone meanwhile is not shown any more."""
        engine = read_engine(store.folder() / self._key) if self._key else None
        hidden(self._details, engine)
        if engine:
            self._title.value = f"<h3>Engine {html.escape(str(engine))}</h3>"
            self._suspicion.value = html.escape(usage.suspicion(engine.key).strip())
            text = printable_json(engine.manifest) if self.manifest_button.value else ""
            self._manifest.value = f"<pre>{html.escape(text)}</pre>" if text else ""
            self.pin_button.description = "Unpin" if usage.is_pinned(engine.key) else "Pin"
            self.verify_button.disabled = bool(self._verified)
            self._reading.show_bar(shown=self._verified == engine.key)

    def _sure(self) -> Engine:
        """Return the chosen engine.

        Raises:
            StoreError: None is chosen, or it is gone.
        """
        if not self._key:
            raise StoreError("No engine is chosen.")
        return store.find_engine(self._key)

    def _verify(self, engine: Engine) -> None:
        try:
            self._reading.show_bar(shown=True)
            began = time.monotonic()
            why = engine.damage(thorough=True, progress=self._reading.counting("read"))
            seconds = format_seconds(time.monotonic() - began)
            if why:
                raise StoreError(f"{store.set_aside(engine, why)} Build it again.")
            self._reading.say(f"Every byte of {engine.key} is what was published ({seconds}).")
        finally:
            self._verified = ""
            self.refresh()

    def _show_held(self, engines: Sequence[Engine]) -> None:
        """Show how much the store holds, against its budget where there is one."""
        self._show_chosen()
        held = eviction.store_usage(engines)
        words = html.escape(f"The store holds {held}{'' if held.budget else ', without a budget'}.")
        self._held.value = f'<div role="status">{words}</div>{_bar(held)}'
        aside = [path.name for path in store.list_damaged()]
        names = "".join(
            f'<div class="quiet">{html.escape(printable(name))}</div>' for name in aside
        )
        told = "<div>Damaged, and set aside until their room is needed:</div>"
        self._aside.value = told + names if aside else ""

    def _summary(self) -> list[str]:
        aside = [f"{path.name}  was damaged and set aside" for path in store.list_damaged()]
        return [*aside, f"Together {eviction.store_usage()}"]


def _row(engine: Engine, now: float) -> Row:
    used = usage.last_used(engine.key)
    return [
        engine.key,
        engine.key[:12],
        "  ".join(filter(None, [engine.title, usage.crash(engine.key)])),
        format_bytes(engine.bytes),
        f"{age(now - engine.created)} ago",
        f"{age(now - used)} ago" if used else "never",
        eviction.why_kept(engine.key),
    ]


def _bar(held: Usage) -> str:
    """Draw what is held of the budget; the numbers stand beside it as text."""
    if not held.budget:
        return ""
    share = min(1.0, (held.engines + held.damaged) / held.budget)
    colour = "var(--jp-warn-color1, #f57c00)" if share >= 1 else "var(--jp-brand-color1, #1976d2)"
    inside = f'<div style="width:{share:.1%};background:{colour}"></div>'
    return f'<div class="bar">{inside}</div>'
