"""The controls for sampling, derived from the declaration; what a backend lacks says why."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import Any

import ipywidgets as widgets

from workbench.flags import typed
from workbench.sampling import Sampling
from workbench.spec import Declared, Parameter, parameter, parameters_of
from workbench.units import printable

SHOWN = ("max_tokens", "temperature", "top_k", "top_p", "seed", "ignore_eos")
"""Options that are always in view; the others are folded."""

MOST_SAMPLES = 8
"""Samples of one prompt: each is a view on the page."""


class Count(Declared):
    """How many samples of one prompt are wanted; named as OpenAI's API and vLLM have it."""

    n: int = parameter(
        1,
        ge=1,
        le=MOST_SAMPLES,
        help="Samples of the same prompt. They are generations of their own, in flight at once as "
        "far as the batch has room, with the seeds seed, seed + 1 and so on. At temperature 0 they "
        "are all the same.",
    )


STOP_HELP = r"Texts that end the answer, one a line; \n stands for a line break."

_OPTION = widgets.Layout(width="210px")
_WIDE = widgets.Layout(width="270px")
_STYLE = {"description_width": "90px"}
_WIDE_STYLE = {"description_width": "130px"}


class SamplingForm(widgets.VBox):  # type: ignore[misc]
    """One control for each field of `Sampling`; `value` is what they say."""

    def __init__(self, sampling: Sampling, count: Count | None = None) -> None:
        """Show the controls with the values of `sampling`.

        Args:
            sampling: Options.
            count: Also ask how many samples are wanted, and begin with these; None does not ask.
        """
        self._counter = None if count is None else _control(parameters_of(Count)["n"], count.n)
        declared = parameters_of(Sampling)
        self._sampling = sampling
        self.controls: dict[str, widgets.Widget] = {
            name: _control(parameter, getattr(sampling, name))
            for name, parameter in declared.items()
        }
        self.controls["stop"] = widgets.Textarea(
            value="\n".join(_escaped(text) for text in sampling.stop),
            description="stop",
            tooltip=STOP_HELP,
            layout=widgets.Layout(width="270px", height="48px"),
            style=_WIDE_STYLE,
        )
        self._unset = {
            name: parameter.default if parameter.kind == "switch" else _text(parameter.default)
            for name, parameter in declared.items()
        } | {"stop": ""}
        self.reasons: dict[str, str] = {}
        self._why = widgets.HTML()
        folded = [control for name, control in self.controls.items() if name not in SHOWN]
        more = widgets.Accordion(
            [_grid(folded)],
            titles=("More sampling options",),
            selected_index=None,
        )
        first = [self.controls[name] for name in SHOWN]
        counter = [self._counter] if self._counter else []
        # Below what folds: a reason must be in view wherever a grey option is.
        super().__init__([_grid([*first, *counter]), more, self._why])

    @property
    def explanations(self) -> dict[str, str]:
        """Help by the text of the label."""
        helps = {name: parameter.help for name, parameter in parameters_of(Sampling).items()}
        counter = {"n": parameters_of(Count)["n"].help} if self._counter else {}
        return {**helps, **counter, "stop": STOP_HELP}

    @property
    def count(self) -> int:
        """How many samples are wanted.

        Raises:
            SpecError: The control says no number of them.
        """
        if self._counter is None:
            return 1
        return Count.parse({"n": typed(self._counter.value, parameters_of(Count)["n"])}).n

    @property
    def value(self) -> Sampling:
        """The options that the controls say.

        Raises:
            SpecError: A value is not what its option takes.
        """
        declared = parameters_of(Sampling)
        values = {
            name: typed(self.controls[name].value, parameter)
            for name, parameter in declared.items()
        }
        values["stop"] = [
            text.replace("\\n", "\n") for text in self.controls["stop"].value.splitlines() if text
        ]
        return self._sampling.replace(**values)

    def disable(self, reasons: Mapping[str, str]) -> None:
        """Grey what a backend lacks, and say why; everything else can be set again.

        What was set and cannot be had stays as it is, so that it can be taken back: sending says
        that it is refused, and nothing is left out silently.
        """
        self.reasons = {name: why for name, why in reasons.items() if name in self.controls}
        for name, control in self.controls.items():
            control.disabled = name in self.reasons and control.value == self._unset[name]
            known = self.explanations[name]
            control.tooltip = self.reasons.get(name, known)
        self._why.value = "".join(
            f'<div class="finding ignored">{html.escape(printable(f"{name}: {why}"))}</div>'
            for name, why in self.reasons.items()
        )


def _grid(controls: list[widgets.Widget]) -> widgets.Box:
    layout = widgets.Layout(flex_flow="row wrap", grid_gap="4px 16px")
    return widgets.Box(controls, layout=layout)


def _escaped(text: str) -> str:
    return text.replace("\n", "\\n")


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _control(parameter: Parameter, value: Any) -> widgets.Widget:
    wide = parameter.name not in (*SHOWN, "n")
    shared = {
        "description": parameter.name,
        "tooltip": parameter.help,
        "layout": _WIDE if wide else _OPTION,
        "style": _WIDE_STYLE if wide else _STYLE,
    }
    if parameter.kind == "switch":
        return widgets.Checkbox(value=value, indent=True, **shared)
    return widgets.Text(value=_text(value), placeholder=parameter.none_means, **shared)
