"""One line of the build form: a parameter's control, what is said about it, ways back."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ipywidgets as widgets

from workbench.flags import typed
from workbench.rules import Finding
from workbench.spec import Parameter
from workbench.summaries import MARKS
from workbench.units import printable

ROOM = 140
"""Characters of a finding that fit into four lines beside a field, which is what there is."""

SHORT = 12
"""Characters that fit into a control: what None stands for is said beside it where it is longer."""

STYLE = """<style>
.workbench-field { display: grid; grid-template-columns: 388px 40px minmax(0, 1fr);
  grid-template-rows: 1fr 1fr; grid-auto-flow: column; gap: 1px 8px; align-items: center;
  min-height: 66px; overflow: visible; }
.workbench-field > * { margin: 0; }
.workbench-field > .jupyter-widgets.widget-inline-hbox, .workbench-field > .workbench-message {
  grid-row: 1 / 3; }
/* Room for the longest of the table, so that nothing moves when another GPU is chosen. */
.workbench-form .gpu { height: 48px; overflow: auto; font-size: 12px; line-height: 16px;
  overflow-wrap: anywhere; }
.workbench-panel .model { white-space: pre-line; min-height: 3em; overflow-wrap: anywhere; }
/* What a change means stays in view while one scrolls through the fields. */
.workbench-form .workbench-head { position: sticky; top: 0; z-index: 2; padding: 4px 0;
  align-items: flex-start; min-height: 72px; height: auto; overflow: visible;
  border-bottom: 1px solid var(--jp-border-color2, light-dark(#e0e0e0, #424242));
  background: var(--jp-layout-color0, light-dark(#fff, #111)); }
.workbench-form, .jp-OutputArea-child:has(.workbench-form),
.jp-OutputArea-output:has(.workbench-form), .jp-OutputArea:has(.workbench-form),
.jp-Cell:has(.workbench-form) { overflow: visible !important; }
.workbench-group { margin-top: 6px; }
.workbench-field .widget-label, .workbench-field .widget-checkbox span { width: 250px;
  flex: none; text-align: right; white-space: normal; line-height: 1.2; height: auto;
  overflow-wrap: anywhere; padding-right: 8px; align-self: center; }
.workbench-field .widget-checkbox > .widget-label { display: none; }
.workbench-field .widget-checkbox label { display: flex; flex-direction: row-reverse;
  justify-content: flex-end; align-items: center; width: 100%; height: auto; white-space: normal; }
.workbench-field .widget-text, .workbench-field .widget-dropdown,
.workbench-field .widget-checkbox { height: auto; width: 388px; }
.workbench-field .widget-dropdown > select { height: var(--jp-widgets-inline-height, 28px); }
.workbench-field.changed .widget-label, .workbench-field.changed .widget-checkbox span {
  font-weight: 600; }
.workbench-field.changed .widget-label::before,
.workbench-field.changed .widget-checkbox span::before { content: "\\25CF\\00A0"; }
.workbench-field:not(.changed) > .workbench-reset,
.workbench-field:not(.remedied) > .workbench-remedy { visibility: hidden; }
.workbench-field > button.jupyter-button { width: 100%; height: 24px; line-height: 24px; padding: 0;
  grid-column: 2; }
.workbench-field > .workbench-message { grid-column: 3; }
.workbench-field .widget-checkbox input { margin: 0; flex: none; width: auto; }
/* A finding takes the place of the help, so that nothing moves when it appears. */
.workbench-field .message { position: relative; min-height: 64px; display: flex;
  align-items: center; font-size: 12px; line-height: 16px; overflow-wrap: anywhere; }
.workbench-field .message > .said { position: absolute; inset: 0; overflow: auto;
  scrollbar-width: thin; display: flex; flex-direction: column; justify-content: safe center; }
.workbench-field .message > .said + .quiet { visibility: hidden; }
/* What is longer than its place opens over what stands below, so that nothing moves then either. */
.workbench-field .message > details.said { inset: 0 0 auto 0; display: block; overflow: visible;
  min-height: 64px; }
.workbench-field .said > summary { list-style: none; cursor: pointer; border-radius: 2px; }
.workbench-field .said > summary::-webkit-details-marker { display: none; }
.workbench-field .said > summary .first { display: -webkit-box; -webkit-box-orient: vertical;
  -webkit-line-clamp: 3; overflow: hidden; }
.workbench-field .said .cue { display: block; padding-left: 10px; text-decoration: underline;
  color: var(--jp-content-link-color, light-dark(#0b57d0, #8ab4f8)); }
.workbench-field .said .less, .workbench-field .said[open] .more { display: none; }
.workbench-field .said[open] .less { display: inline; }
.workbench-field .said[open] > summary .first { display: none; }
.workbench-field .message > details.said[open] { z-index: 1; padding-bottom: 6px;
  background: var(--jp-layout-color0, light-dark(#fff, #111)); border-radius: 2px;
  box-shadow: 0 2px 6px rgb(0 0 0 / 35%), 0 0 0 1px var(--jp-border-color2, #9e9e9e); }
.workbench-field .said .finding + .finding { margin-top: 6px; }
.workbench-field .widget-html-content { line-height: inherit; }
.workbench-field .message .finding, .workbench-field .message .error { margin: 0; padding: 0 6px;
  line-height: 16px; }
.workbench-field.invalid input, .workbench-field.invalid select {
  border: 2px solid var(--jp-error-color1, #d32f2f); }
.workbench-fields { container-type: inline-size; width: 100%; }
@container (max-width: 660px) {
  .workbench-field { grid-template-columns: minmax(0, 388px) 40px 40px;
    grid-template-rows: auto auto; min-height: 84px; }
  .workbench-field > .jupyter-widgets.widget-inline-hbox { grid-row: 1; }
  .workbench-field > button.workbench-remedy.jupyter-button { grid-column: 3; grid-row: 1; }
  .workbench-field > .workbench-message.widget-inline-hbox { grid-row: 2; grid-column: 1 / -1;
    padding-left: 12px; }
}
</style>"""


class Look:
    """Layouts and styles that the fields of a form share.

    Each of its own would be a kilobyte in a saved notebook, and a form has hundreds.
    """

    def __init__(self) -> None:
        self.layout = widgets.Layout()
        self.html = widgets.HTML().style
        self.button = widgets.Button().style
        self.controls = {
            kind: kind(style={"description_width": "250px"}).style
            for kind in (widgets.Text, widgets.Dropdown, widgets.Checkbox)
        }


class Field(widgets.Box):  # type: ignore[misc]
    """A parameter's control, its help or what is found about it, a reset and a remedy.

    Attributes:
        parameter: What is chosen here.
        control: Where it is chosen.
        refused: Whether its value cannot work.
        told: Whether there is anything else to say about it.
    """

    refused = told = False

    def __init__(self, parameter: Parameter, look: Look, on_change: Callable[[], None]) -> None:
        """Show a parameter with its default.

        Args:
            parameter: What is chosen here.
            look: What it shares with the other fields.
            on_change: Called after a person or a program changed the value.
        """
        self.parameter = parameter
        self.control = _control(parameter, look)
        self._message = widgets.HTML(layout=look.layout, style=look.html)
        self._message.add_class("workbench-message")
        default = _shown(parameter, parameter.default)
        words = html.escape(f"{parameter.help} Default: {default}.")
        self._help = f'<div class="quiet">{words}</div>'
        self._reset = _button(look, "↺", "workbench-reset", f"{parameter.name}: back to {default}")
        self._remedy = _button(look, "Fix", "workbench-remedy", "")
        self._changes: dict[str, Any] = {}
        self._classes: set[str] = set()
        super().__init__(
            [self.control, self._reset, self._message, self._remedy], layout=look.layout
        )
        self.add_class("workbench-field")
        self.control.observe(lambda _: on_change(), names="value")
        self._reset.on_click(lambda _: self.reset())
        self.say("", ())

    def on_remedy(self, listener: Callable[[dict[str, Any]], None]) -> None:
        """Call `listener` with the changes of a remedy when a person asks for it."""
        self._remedy.on_click(lambda _: listener(self._changes))

    @property
    def value(self) -> Any:
        """What is chosen, of the declared type where it can be read as such."""
        return typed(self.control.value, self.parameter)

    @value.setter
    def value(self, value: Any) -> None:
        text = isinstance(self.control, widgets.Text)
        # A list whose value is None shows nothing at all.
        self.control.value = "" if value is None else str(value) if text else value

    @property
    def changed(self) -> bool:
        """Whether the value is not the default."""
        return bool(self.value != self.parameter.default)

    @property
    def row(self) -> tuple[str, str, str, str]:
        """Name, value with its unit, whether it is the default, and its worst finding, in words."""
        parameter, value = self.parameter, self.value
        unit = f" {parameter.unit}" if parameter.unit else ""
        words = f"({parameter.none_means})" if value is None else f"{value}{unit}"
        default = "none" if parameter.default is None else parameter.default
        chosen = f"changed, default: {default}" if self.changed else "default"
        return parameter.name, words, chosen, self._verdict

    def reset(self) -> None:
        """Go back to the default."""
        self.value = self.parameter.default

    def say(self, fault: str, findings: Sequence[Finding]) -> None:
        """Show what is wrong with the value, else what the rules say, else the help.

        Args:
            fault: The sentence that refuses the value; empty where it is of its type.
            findings: Of this field.
        """
        by_level = sorted(findings, key=lambda finding: list(MARKS).index(finding.level))
        # The worst first: what mends a note would leave the refusal that stands above it.
        self._changes = next((dict(f.changes) for f in by_level if f.changes and not fault), {})
        self._remedy.tooltip = ", ".join(
            f"Set {name} to {'nothing' if value is None else value}"
            for name, value in self._changes.items()
        )
        over = _said([Said("error", "", fault)] if fault else list(map(_of, by_level)))
        self._message.value = f'<div class="message">{over}{self._help}</div>'
        worst = "refuse" if fault else by_level[0].level if by_level else None
        self._verdict = MARKS[worst] if worst else ""
        self.refused = bool(fault) or any(finding.level == "refuse" for finding in findings)
        self.told = bool(findings) and not self.refused
        self._mark("invalid", self.refused)
        self._mark("remedied", bool(self._changes))
        self._mark("changed", self.changed)

    def _mark(self, name: str, on: bool) -> None:
        if on == (name in self._classes):
            return
        (self._classes.add if on else self._classes.remove)(name)
        (self.add_class if on else self.remove_class)(name)


def _button(look: Look, text: str, name: str, tooltip: str) -> widgets.Button:
    button = widgets.Button(
        description=text, tooltip=tooltip, layout=look.layout, style=look.button
    )
    button.add_class(name)
    return button


class Said(NamedTuple):
    """Something that is said beside a field; `look` is the class of its style."""

    look: str
    mark: str
    text: str

    @property
    def inner(self) -> str:
        """It as HTML; all text is escaped."""
        mark = f"<b>{html.escape(self.mark)}</b>: " if self.mark else ""
        return f"{mark}{html.escape(printable(self.text))}"


def _of(finding: Finding) -> Said:
    words = f"{finding.reason} {finding.remedy}".strip()
    return Said(f"finding {finding.level}", MARKS[finding.level], words)


def _said(things: Sequence[Said]) -> str:
    """Return what takes the place of the help: all of it, or what fits and a way to the rest."""
    if not things:
        return ""
    whole = "".join(f'<div class="{one.look}">{one.inner}</div>' for one in things)
    role = ' role="alert"' if things[0].look == "error" else ""
    if sum(len(one.mark) + len(one.text) for one in things) <= ROOM and len(things) < 3:
        return f'<div class="said"{role}>{whole}</div>'
    more = "show all of it" if len(things) == 1 else f"show all {len(things)} findings"
    return (
        f'<details class="said"><summary><span class="{things[0].look} first"{role}>'
        f'<span>{things[0].inner}</span></span><span class="cue"><span class="more">{more}</span>'
        f'<span class="less">show less</span></span></summary>{whole}</details>'
    )


def _shown(parameter: Parameter, value: Any) -> str:
    """Return a value in words."""
    if value is None:
        return f"empty, which means {parameter.none_means}"
    return str(value).lower() if isinstance(value, bool) else f"{value}"


def _control(parameter: Parameter, look: Look) -> widgets.Widget:
    """Return the control that suits a parameter, with its default."""
    unit = f" ({parameter.unit})" if parameter.unit else ""
    common: dict[str, Any] = {
        "description": parameter.name + unit,
        "tooltip": parameter.help,
        "layout": look.layout,
    }
    none = parameter.none_means if len(parameter.none_means) <= SHORT else "empty"
    if parameter.kind == "choice":
        options: list[tuple[str, Any]] = [(str(choice), choice) for choice in parameter.choices]
        if parameter.optional:
            options.insert(0, (f"({none})", ""))
        default = "" if parameter.default is None else parameter.default
        return widgets.Dropdown(
            options=options, value=default, style=look.controls[widgets.Dropdown], **common
        )
    if parameter.kind == "switch":
        return widgets.Checkbox(
            value=parameter.default, style=look.controls[widgets.Checkbox], **common
        )
    # A number is a text too: the number fields of ipywidgets turn 1.5 into 15 and 0 into 1, where
    # a person should be told.
    text = "" if parameter.default is None else str(parameter.default)
    # Only when it is finished: each letter of a path would be looked up otherwise.
    return widgets.Text(
        value=text,
        placeholder=none if parameter.optional else "",
        continuous_update=False,
        style=look.controls[widgets.Text],
        **common,
    )
