"""The build form: one control a parameter, derived from the spec; findings and fit beside it."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as widgets

from workbench.backends import DEFAULT, NAMES, get_backend, make_spec
from workbench.build import Plan
from workbench.errors import InputError, SpecError, WorkbenchError
from workbench.flags import typed
from workbench.model import Model
from workbench.spec import BuildSpec, Parameter, parameters_of
from workbench.summaries import MARKS, finding_lines, model_line
from workbench.units import printable
from workbench.widgets.fit import FitView
from workbench.widgets.panel import Panel

FOLDED = ("Parallelism", "Speculative decoding", "LoRA", "Diagnostics", "Advanced")
"""Groups of parameters that are shown when somebody asks for them."""

_CONTROL = widgets.Layout(width="390px")
_STYLE = {"description_width": "205px"}


class BuildForm(Panel):
    """Choose a model and build parameters; `spec` is what is chosen now.

    Every change is answered at once with what is known about it: the model, findings and the
    memory estimate.
    """

    def __init__(self, spec: BuildSpec | None = None) -> None:
        """Show a form with the values of `spec` (by default, those of the default backend)."""
        self._choice = widgets.Dropdown(
            options=[(get_backend(name).title, name) for name in NAMES],
            description="backend",
            layout=widgets.Layout(width="520px"),
            style=_STYLE,
        )
        self._about = widgets.HTML()
        self._groups = widgets.VBox()
        self._facts = widgets.HTML()
        self._fit = FitView()
        self._commands = widgets.HTML()
        commands = widgets.Accordion(
            [self._commands], titles=("Show commands",), selected_index=None
        )
        self._listeners: list[Callable[[BuildSpec], None]] = []
        self._plan: Plan | None = None
        self._commands_text = ""
        super().__init__(
            "Build parameters",
            [self._choice, self._about, self._groups, self._facts, self._fit, commands],
        )
        self._show(spec or make_spec({"backend": DEFAULT}))
        self._choice.observe(self._on_backend, names="value")
        self._refresh()

    def _show(self, spec: BuildSpec) -> None:
        """Show the controls of a spec's backend with its values."""
        self._backend = get_backend(spec.backend)
        self._parameters = parameters_of(self._backend.spec_class)
        values = spec.model_dump()
        self._controls = {
            name: _control(parameter, values[name]) for name, parameter in self._parameters.items()
        }
        self.explain({self._controls[n].description: p.help for n, p in self._parameters.items()})
        self._choice.value = spec.backend
        self._about.value = f'<div class="quiet">{html.escape(self._backend.about)}</div>'
        self._groups.children = self._boxes()
        for control in self._controls.values():
            control.observe(self._on_change, names="value")

    def _on_backend(self, change: Mapping[str, Any]) -> None:
        """Show another backend; what was chosen by hand and exists there too is kept."""
        with self.boundary():
            parameters = parameters_of(get_backend(change["new"]).spec_class)
            spec = make_spec({"backend": change["new"]})
            for name, value in self.values.items():
                if name in parameters and value != self._parameters[name].default:
                    # Not everything that one backend takes is known to the other.
                    with contextlib.suppress(SpecError):
                        spec = spec.replace(**{name: value})
            self._show(spec)
            self._refresh()

    @property
    def spec(self) -> BuildSpec:
        """The chosen spec.

        Raises:
            SpecError: A value is not what its parameter takes.
        """
        return make_spec({"backend": self._backend.name, **self.values})

    @property
    def values(self) -> dict[str, Any]:
        """The values of the controls by parameter."""
        return {
            name: typed(control.value, self._parameters[name])
            for name, control in self._controls.items()
        }

    @property
    def plan(self) -> Plan:
        """What is known about the chosen build.

        Raises:
            SpecError: A value is not what its parameter takes.
            ModelError: The model cannot be used.
        """
        return Plan.make(self.spec)

    def set(self, **values: Any) -> None:
        """Change controls by parameter name.

        Raises:
            InputError: There is no such parameter.
            SpecError: The value is not what the parameter takes.
        """
        for name, value in values.items():
            if name not in self._controls:
                raise InputError(f"The form has no parameter '{name}'.")
            make_spec({"backend": self._backend.name, name: value})
            control = self._controls[name]
            text = isinstance(control, widgets.Text)
            control.value = ("" if value is None else str(value)) if text else value

    def on_spec(self, listener: Callable[[BuildSpec], None]) -> None:
        """Call `listener` with the spec after every change that gives a valid one."""
        self._listeners.append(listener)

    def plain(self) -> str:
        """Return the parameters and what is known about them as plain text."""
        lines = [f"{name} = {value}" for name, value in self.values.items()]
        if self._plan:
            lines += ["", model_line(self._plan.model), *finding_lines(self._plan.findings)]
            lines += self._fit.plain(self._plan)
        return "\n".join([*lines, "", self._commands_text])

    def _boxes(self) -> list[widgets.Widget]:
        """Return a box of rows for each group of parameters, in the order of declaration.

        Groups that few people need are folded.
        """
        groups: dict[str, list[widgets.Widget]] = {}
        for name, parameter in self._parameters.items():
            groups.setdefault(parameter.group, []).append(self._controls[name])
        boxes: list[widgets.Widget] = []
        folded = {title: rows for title, rows in groups.items() if title in FOLDED}
        for title, rows in groups.items():
            if title in folded:
                continue
            heading = widgets.HTML(f'<b class="quiet">{html.escape(title)}</b>')
            grid = widgets.Box(rows, layout=widgets.Layout(flex_flow="row wrap"))
            boxes.append(widgets.VBox([heading, grid]))
        if folded:
            grids = [
                widgets.Box(rows, layout=widgets.Layout(flex_flow="row wrap"))
                for rows in folded.values()
            ]
            boxes.append(widgets.Accordion(grids, titles=tuple(folded), selected_index=None))
        return boxes

    def _on_change(self, _: Mapping[str, Any]) -> None:
        self._refresh()

    def _refresh(self) -> None:
        self._plan = None
        self.show_error("")
        self._commands_text = ""
        try:
            spec = self.spec
            # Also where the model is out of reach.
            self._commands_text = _commands_text(spec, None)
            self._plan = Plan.make(spec)
            self._commands_text = _commands_text(spec, self._plan.model)
        except WorkbenchError as error:
            self.show_error(str(error))
        self._facts.value = _facts_html(self._plan) if self._plan else ""
        self._fit.show(self._plan)
        self._commands.value = f"<pre>{html.escape(self._commands_text)}</pre>"
        self.touch()
        if self._plan:
            for listener in self._listeners:
                listener(self._plan.spec)

    def check(self) -> BuildSpec:
        """Return the chosen spec if a build of it can work.

        Raises:
            SpecError: A value is ill-typed, or a rule refuses the spec.
            ModelError: The model cannot be used.
        """
        plan = self.plan
        plan.check_rules()
        return plan.spec


def _control(parameter: Parameter, value: Any) -> widgets.Widget:
    """Return the control that suits a parameter."""
    unit = f" ({parameter.unit})" if parameter.unit else ""
    common: dict[str, Any] = {
        "description": parameter.name + unit,
        "tooltip": parameter.help,
        "layout": _CONTROL,
        "style": _STYLE,
    }
    if parameter.kind == "choice":
        options: list[tuple[str, Any]] = [(str(choice), choice) for choice in parameter.choices]
        if parameter.optional:
            options.insert(0, (f"({parameter.none_means})", None))
        return widgets.Dropdown(options=options, value=value, **common)
    if parameter.kind == "switch":
        return widgets.Checkbox(value=value, **common)
    # A number is a text too: the number fields of ipywidgets turn 1.5 into 15 and 0 into 1, where
    # a person should be told.
    text = "" if value is None else str(value)
    # Only when it is finished: each letter of a path would be looked up otherwise.
    return widgets.Text(
        value=text, placeholder=parameter.none_means, continuous_update=False, **common
    )


def _facts_html(plan: Plan) -> str:
    """Return the model, findings and memory estimate as HTML; all text is escaped."""
    findings = "".join(
        f'<div class="finding {finding.level}"><b>{MARKS[finding.level]}</b>: '
        f"{html.escape(str(finding))}</div>"
        for finding in plan.findings
    )
    return f'<div class="quiet">{html.escape(model_line(plan.model))}</div>{findings}'


def _commands_text(spec: BuildSpec, model: Model | None) -> str:
    """Return the shell commands that do the same elsewhere, each under its title."""
    found = get_backend(spec.backend).commands(spec, model)
    return printable("\n\n".join(f"# {command.title}\n{command.text}" for command in found))
