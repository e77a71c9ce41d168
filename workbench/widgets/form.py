"""The build form: one field a parameter, derived from the spec; findings and fit beside it."""

from __future__ import annotations

import contextlib
import html
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ipywidgets as widgets

from workbench.backends import DEFAULT, NAMES, get_backend, make_spec
from workbench.backends.base import Backend
from workbench.build import Plan
from workbench.errors import InputError, ModelError, SpecError, WorkbenchError
from workbench.gpu_reader import GpuReader
from workbench.model_reader import ModelReader
from workbench.presets import Preset
from workbench.rules import Finding
from workbench.spec import BuildSpec, parameters_of
from workbench.summaries import MARKS, finding_lines, gpus_line, model_lines
from workbench.units import printable
from workbench.widgets import choosers, fields
from workbench.widgets.choosers import HERE, DeviceRow, PresetRow
from workbench.widgets.fields import Field
from workbench.widgets.fit import FitView
from workbench.widgets.forecast import ForecastView
from workbench.widgets.groups import Groups
from workbench.widgets.panel import Panel
from workbench.widgets.texts import SpecTexts

HEADER = ("parameter", "value", "chosen", "finding")
"""Columns of the parameters in plain text."""

WIDEST = 44
"""Characters of a column; the path of a model may be far longer."""


class BuildForm(Panel):
    """Choose a model and build parameters; `spec` is what is chosen now.

    Every change is answered at once with what is known about it: the model, findings and the
    memory estimate.
    """

    def __init__(
        self, spec: BuildSpec | None = None, *, device: str = HERE, gpu_count: int = 1
    ) -> None:
        """Show a form with the values of `spec` (by default, those of the default backend).

        Args:
            spec: What is chosen at first.
            device: What is planned for where the backend runs on GPUs: "this machine", or a name
                of `workbench.gpu_table`.
            gpu_count: How many of them; only with a name of the table.

        Raises:
            InputError: There is no such device, or a number of GPUs without one.
        """
        spec = spec or make_spec({"backend": DEFAULT})
        self._choice = widgets.Dropdown(
            options=[(get_backend(name).title, name) for name in NAMES],
            description="backend",
            layout=widgets.Layout(width="560px"),
            style=choosers.STYLE,
        )
        self._busy = False
        self._reader = ModelReader(self._say_asking)
        self._gpus = GpuReader()
        self._sets: dict[str, dict[str, Field]] = {}
        self._look = fields.Look()
        self._about, self._facts, self._others = (widgets.HTML() for _ in range(3))
        self._status = widgets.HTML()
        self._devices = DeviceRow(device, gpu_count, self._on_value)
        self._presets = PresetRow(self.apply)
        self._reset = widgets.Button(
            description="Reset all", tooltip="Back to the defaults of all but the model"
        )
        self._reset.on_click(lambda _: self.reset())
        self._groups = Groups()
        self._fit = FitView()
        self._forecast = ForecastView()
        self._texts = SpecTexts(self.show_spec, self.boundary)
        self._listeners: list[Callable[[BuildSpec], None]] = []
        self._plan: Plan | None = None
        self._faults: dict[str, str] = {}
        head = widgets.HBox([self._reset, self._status])
        head.add_class("workbench-head")
        top = [widgets.HTML(fields.STYLE), self._choice, self._devices, self._about, self._facts]
        below = [self._others, self._fit, self._forecast, self._texts]
        super().__init__("Build parameters", [*top, self._presets, head, self._groups, *below])
        self.add_class("workbench-form")
        self._show_backend(get_backend(spec.backend))
        self.show_spec(spec)
        self._choice.observe(self._on_backend, names="value")

    def show_spec(self, spec: BuildSpec) -> None:
        """Show the fields of a spec's backend with its values."""
        with self._one_change():
            if spec.backend != self._backend.name:
                self._show_backend(get_backend(spec.backend))
            for name, value in spec.model_dump().items():
                if name in self._fields:
                    self._fields[name].value = value

    def _show_backend(self, backend: Backend) -> None:
        """Show the fields of a backend."""
        self._backend = backend
        self._choice.value = backend.name
        self._fields = self._fields_of(backend)
        self._about.value = f'<div class="quiet">{html.escape(backend.about)}</div>'
        self._devices.suit(backend)
        self._presets.offer(backend.name)
        self._groups.arrange(self._fields)
        self.explain({f.control.description: f.parameter.help for f in self._fields.values()})

    def _fields_of(self, backend: Backend) -> dict[str, Field]:
        """Return the fields of a backend, made when they are first shown."""
        if backend.name not in self._sets:
            made = {
                name: Field(parameter, self._look, self._on_value)
                for name, parameter in parameters_of(backend.spec_class).items()
            }
            for field in made.values():
                field.on_remedy(self._mend)
            self._sets[backend.name] = made
        return self._sets[backend.name]

    @contextlib.contextmanager
    def _one_change(self) -> Iterator[None]:
        """Answer once, after all fields have their values."""
        outer, self._busy = self._busy, True
        try:
            yield
        finally:
            self._busy = outer
        self._refresh()

    def _on_backend(self, change: Mapping[str, Any]) -> None:
        """Show another backend; what was chosen by hand and exists there too is kept."""
        if self._busy:
            return
        with self.boundary():
            parameters = parameters_of(get_backend(change["new"]).spec_class)
            spec = make_spec({"backend": change["new"]})
            for name, field in self._fields.items():
                if name in parameters and field.changed:
                    # Not everything that one backend takes is known to the other.
                    with contextlib.suppress(SpecError):
                        spec = spec.replace(**{name: field.value})
            self.show_spec(spec)

    @property
    def spec(self) -> BuildSpec:
        """The chosen spec.

        Raises:
            SpecError: A value is not what its parameter takes.
        """
        return make_spec({"backend": self._backend.name, **self.values})

    @property
    def values(self) -> dict[str, Any]:
        """The values of the fields by parameter."""
        return {name: field.value for name, field in self._fields.items()}

    @property
    def faults(self) -> dict[str, str]:
        """The sentences that refuse values, by parameter; those that are shown at the fields."""
        return dict(self._faults)

    @property
    def plan(self) -> Plan:
        """What is known about the chosen build.

        Raises:
            SpecError: A value is not what its parameter takes.
            ModelError: The model cannot be used.
        """
        spec = self.spec
        model = self._reader.read(spec)
        return Plan.make(spec, gpus=self._devices.gpus, model=model, here=self._gpus.read)

    def set(self, **values: Any) -> None:
        """Change fields by parameter name.

        Raises:
            InputError: There is no such parameter.
            SpecError: The value is not what the parameter takes.
        """
        for name in values:
            if name not in self._fields:
                raise InputError(f"The form has no parameter '{name}'.")
        make_spec({"backend": self._backend.name, **values})
        with self._one_change():
            for name, value in values.items():
                self._fields[name].value = value

    def apply(self, preset: Preset) -> None:
        """Take the values of a preset; what cannot be read is said, and nothing is changed."""
        with self.boundary():
            plan = self.plan
            self.show_spec(preset.apply(plan.spec, plan.model))

    def reset(self) -> None:
        """Go back to the defaults; the model stays."""
        with self._one_change():
            for field in self._fields.values():
                if field.parameter.group != "Model":
                    field.reset()

    def _mend(self, changes: Mapping[str, Any]) -> None:
        """Take the values of a remedy."""
        with self.boundary():
            self.set(**changes)

    def on_spec(self, listener: Callable[[BuildSpec], None]) -> None:
        """Call `listener` with the spec after every change that gives a valid one."""
        self._listeners.append(listener)

    def check(self) -> BuildSpec:
        """Return the chosen spec if a build of it can work here.

        Raises:
            SpecError: A value is ill-typed, or a rule refuses the spec.
            ModelError: The model cannot be used.
            InputError: The plan is for a device that is not here.
        """
        plan = self.plan
        plan.check_rules()
        if any(gpu.is_planned for gpu in plan.gpus):
            raise InputError(
                f"The plan is for {self._devices.elsewhere}, and builds run on this machine. "
                f"Choose the device '{HERE}', or build there: Show commands has the commands."
            )
        return plan.spec

    def _on_value(self) -> None:
        """Answer what a person chose; Jupyter would show nothing of what goes wrong on the way."""
        with self.boundary():
            self._refresh()

    def _refresh(self) -> None:
        """Answer what is chosen now."""
        if self._busy:
            return
        self.show_error("")
        self._plan = None
        self._faults = self._backend.spec_class.faults(self.values)
        spec = None if self._faults else self.spec
        if spec:
            try:
                self._plan = self.plan
            except ModelError as error:
                self._faults["model"] = str(error)
            except WorkbenchError as error:
                self._faults[""] = str(error)
        self._show_answer(spec)
        self.touch()
        if self._plan:
            for listener in self._listeners:
                listener(self._plan.spec)

    def _say_asking(self, name: str) -> None:
        """Say that the hub is being asked: without a network it takes seconds to be told so."""
        words = html.escape(printable(f"Reading {name} …"))
        self._status.value = f'<div role="status">{words}</div>'

    def _show_answer(self, spec: BuildSpec | None) -> None:
        model = self._plan.model if self._plan else None
        findings = self._plan.findings if self._plan else ()
        by_field: dict[str, list[Finding]] = defaultdict(list)
        for finding in findings:
            by_field[finding.field if finding.field in self._fields else ""].append(finding)
        for name, field in self._fields.items():
            field.say(self._faults.get(name, ""), by_field[name])
        self.show_error(self._faults.get("", ""))
        self._groups.count(self._fields)
        if model or "model" in self._faults:
            # Where another value is wrong, what was known of the model still holds.
            told = "\n".join(model_lines(model)) if model else "The model is not known."
            self._facts.value = f'<div class="quiet model">{html.escape(told)}</div>'
        if self._plan:
            self._devices.tell(self._plan)
        self._others.value = "".join(map(_whole_finding, by_field[""]))
        lines = [self._status_line()]
        if self._plan and self._plan.fit:
            lines.append(self._plan.fit.summary)
        told = "".join(f"<div>{html.escape(printable(line))}</div>" for line in lines)
        self._status.value = f'<div role="status">{told}</div>'
        self._presets.mark(spec, model)
        self._fit.show(self._plan)
        self._forecast.show(self._plan)
        self._texts.show(spec, model)

    def _status_line(self) -> str:
        """Say how many fields need attention, and which."""
        wrong = [name for name, field in self._fields.items() if field.refused]
        changed = sum(field.changed for field in self._fields.values())
        words = [f"{changed} changed from the default" if changed else "all at their defaults"]
        if wrong:
            verb = "field needs" if len(wrong) == 1 else "fields need"
            words.insert(0, f"{len(wrong)} {verb} attention: {', '.join(wrong)}")
        return " · ".join(words)

    def plain(self) -> str:
        """Return the parameters and what is known about them as plain text."""
        lines = [f"backend = {self._backend.name}"]
        if self._devices.elsewhere:
            lines.append(f"device = {self._devices.elsewhere}")
        if self._plan and (told := gpus_line(self._plan.gpus)):
            lines.append(told)
        lines += _columns([HEADER, *(field.row for field in self._fields.values())])
        lines += ["", self._status_line(), *self._faults.values()]
        if self._plan:
            lines += ["", *model_lines(self._plan.model), *finding_lines(self._plan.findings)]
            lines += [*self._fit.plain(self._plan), *self._forecast.plain()]
        return "\n".join([*lines, "", self._texts.commands])


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of texts as aligned lines; what is wider than its column pushes the rest."""
    widths = [min(max(map(len, column)), WIDEST) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, map(printable, row), widths)).rstrip() for row in rows]


def _whole_finding(finding: Finding) -> str:
    """Return a finding that concerns no field of the form."""
    return (
        f'<div class="finding {finding.level}"><b>{MARKS[finding.level]}</b>: '
        f"{html.escape(str(finding))}</div>"
    )
