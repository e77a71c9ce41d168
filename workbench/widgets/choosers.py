"""What stands above the fields of the build form: presets, and the device that is planned for."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence

import ipywidgets as widgets

from workbench.backends.base import Backend
from workbench.build import Plan
from workbench.errors import InputError
from workbench.gpu_table import COUNTS, GPUS, check_count, find
from workbench.gpus import Gpu
from workbench.model import Model
from workbench.presets import Preset, presets_of
from workbench.spec import BuildSpec
from workbench.summaries import gpus_line
from workbench.units import printable

HERE = "this machine"
"""The device that is there, and no other to plan for."""

HOW_MANY = "How many of them there are."
ALL_HERE = (
    "Only for a device to plan for: this machine has the GPUs that it has, and the parameters "
    "(tp_size x pp_size) say how many of them are used."
)

STYLE = {"description_width": "250px"}


class PresetRow(widgets.VBox):  # type: ignore[misc]
    """A button for each preset of a backend, with what it does."""

    def __init__(self, on_choice: Callable[[Preset], None]) -> None:
        """Show no preset yet; call `on_choice` with the one that is pressed."""
        self._on_choice = on_choice
        self._buttons: dict[str, widgets.Button] = {}
        super().__init__()
        self.add_class("workbench-presets")

    def offer(self, backend: str) -> None:
        """Show the presets of a backend."""
        self._presets = presets_of(backend)
        self._buttons = {preset.name: self._button(preset) for preset in self._presets}
        rows = [
            widgets.HBox([self._buttons[preset.name], widgets.HTML(_about(preset))])
            for preset in self._presets
        ]
        self.children = [*rows, widgets.HTML(_sources(self._presets))]

    def _button(self, preset: Preset) -> widgets.Button:
        button = widgets.Button(
            description=preset.name, tooltip=preset.about, layout=widgets.Layout(width="150px")
        )
        button.on_click(lambda _: self._on_choice(preset))
        return button

    def mark(self, spec: BuildSpec | None, model: Model | None) -> None:
        """Mark the preset whose values are chosen, if there is one."""
        for preset in self._presets:
            same = spec is not None and model is not None and preset.apply(spec, model) == spec
            button = self._buttons[preset.name]
            button.description = f"✓ {preset.name}" if same else preset.name


def _about(preset: Preset) -> str:
    return (
        f'<div class="quiet" title="{html.escape(preset.source)}">{html.escape(preset.about)}</div>'
    )


def _sources(presets: Sequence[Preset]) -> str:
    """Return where the values come from, to be opened with mouse or keyboard."""
    rows = "".join(
        f"<tr><td>{html.escape(preset.name)}</td><td>{html.escape(preset.source)}</td></tr>"
        for preset in presets
    )
    return (
        '<details><summary class="quiet">Where the values of the presets come from</summary>'
        f"<table>{rows}</table></details>"
    )


class DeviceRow(widgets.VBox):  # type: ignore[misc]
    """The GPUs that a plan is for: those of this machine, or any of the table; with their facts."""

    def __init__(self, device: str, count: int, on_change: Callable[[], None]) -> None:
        """Choose a device.

        Raises:
            InputError: There is no such GPU in the table, or no host with so many; or a number
                without a GPU, which would change nothing.
        """
        names = [gpu.name for gpu in GPUS]
        device = device if device == HERE else find(device).name
        check_count(count)
        if device == HERE and count != 1:
            raise InputError(
                f"gpu_count {count} needs the name of the GPU: it counts those of a device to plan "
                f"for, such as device={names[-1]!r}. How many GPUs of this machine are used, the "
                "parameters say (tp_size x pp_size)."
            )
        self._name = widgets.Dropdown(
            options=[HERE, *names],
            value=device,
            description="device",
            tooltip="The GPUs that the plan is for; builds always run on this machine.",
            style=STYLE,
            layout=widgets.Layout(width="560px"),
        )
        self._count = widgets.Dropdown(
            options=list(COUNTS),
            value=count,
            description="GPUs",
            style={"description_width": "45px"},
            layout=widgets.Layout(width="120px"),
        )
        self._told = widgets.HTML()
        wrap = widgets.Layout(flex_flow="row wrap")  # or a narrow page would cut it
        super().__init__([widgets.HBox([self._name, self._count], layout=wrap), self._told])
        self._name.observe(lambda _: self._suit_count(), names="value")
        self._suit_count()
        for part in (self._name, self._count):
            part.observe(lambda _: on_change(), names="value")

    def _suit_count(self) -> None:
        """Let a number be chosen only where it changes something."""
        self._count.disabled = self._name.value == HERE
        self._count.tooltip = ALL_HERE if self._count.disabled else HOW_MANY

    def tell(self, plan: Plan) -> None:
        """Show what the GPUs of a plan have and do, or what computes in their place."""
        device = plan.fit.device if plan.fit else plan.device
        none = "No NVIDIA GPU was found here."
        if device.kind == "cpu":
            none = f"It runs on the processor of this machine, {device.name}."
        line = html.escape(printable(gpus_line(plan.gpus) or none))
        self._told.value = f'<div class="quiet gpu">{line}</div>'

    def suit(self, backend: Backend) -> None:
        """Show this only where a backend can run on GPUs."""
        self.layout.display = "" if backend.can_use_gpus else "none"
        self._offered = backend.can_use_gpus

    @property
    def elsewhere(self) -> str:
        """What is planned for, in words; empty for this machine."""
        if not self._offered or self._name.value == HERE:
            return ""
        return f"{self._count.value} x {self._name.value}"

    @property
    def gpus(self) -> Sequence[Gpu] | None:
        """The GPUs to plan for; None for those that this machine has."""
        if not self.elsewhere:
            return None
        model = find(self._name.value)
        return tuple(model.as_gpu(index) for index in range(self._count.value))
