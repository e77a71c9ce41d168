"""The forecast of a plan: how fast it would be, as NVIDIA's performance database predicts it."""

from __future__ import annotations

import html
import threading

import ipywidgets as widgets

from workbench.build import Plan
from workbench.errors import WorkbenchError
from workbench.forecast import Load, forecast
from workbench.units import printable


class ForecastView(widgets.VBox):  # type: ignore[misc]
    """Three numbers that say what is asked of an engine, a button, and what is predicted.

    The prediction takes its time (10 to 30 s), so it is made in a thread when it is asked for, and
    goes when the plan changes.
    """

    def __init__(self) -> None:
        """Show the numbers of a usual load."""
        usual = Load()
        self.fields = {
            name: widgets.Text(
                value=str(getattr(usual, name)),
                description=label,
                tooltip=help_text,
                layout=widgets.Layout(width="250px"),
                style={"description_width": "150px"},
            )
            for name, label, help_text in (
                ("input_tokens", "ISL (tokens)", "Input sequence length of each request."),
                ("output_tokens", "OSL (tokens)", "Output sequence length of each request."),
                ("concurrency", "concurrency", "Requests that run at all times."),
            )
        }
        self.button = widgets.Button(
            description="Forecast", tooltip="Predict the speed from NVIDIA's performance database"
        )
        self.answer = widgets.HTML()
        self.lines: list[str] = []
        self._plan: Plan | None = None
        row = widgets.Box(
            [*self.fields.values(), self.button], layout=widgets.Layout(flex_flow="row wrap")
        )
        super().__init__([row, self.answer])
        self.button.on_click(lambda _: self.ask())
        self.show(None)

    def show(self, plan: Plan | None) -> None:
        """Take another plan; what was predicted for the one before goes."""
        self._plan = plan
        self.layout.display = "" if plan and plan.backend.uses_gpu else "none"
        self._tell([])

    @property
    def load(self) -> Load:
        """What the fields say.

        Raises:
            InputError: One is no whole number.
        """
        return Load.parse({name: field.value for name, field in self.fields.items()})

    def ask(self) -> None:
        """Make the prediction in a thread; the button waits for it."""
        plan = self._plan
        if plan is not None:
            self.button.disabled = True
            self._tell(["The database is being asked; it takes some 10 to 30 s."])
            threading.Thread(target=self._answer, args=(plan,), daemon=True).start()

    def _answer(self, plan: Plan) -> None:
        try:
            lines = forecast(plan, self.load).lines
        except WorkbenchError as error:
            lines = [f"No forecast: {error}"]
        finally:
            self.button.disabled = False
        # Whoever changed the plan meanwhile would take it for the new one's.
        if plan is self._plan:
            self._tell(lines)

    def _tell(self, lines: list[str]) -> None:
        self.lines = lines
        shown = "".join(f"<div>{html.escape(printable(line))}</div>" for line in lines)
        self.answer.value = f'<div role="status">{shown}</div>'

    def plain(self) -> list[str]:
        """Return what is shown as lines of plain text."""
        return list(self.lines)
