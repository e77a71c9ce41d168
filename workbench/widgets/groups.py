"""The groups of the build form's fields: open those that everybody needs, folded the others."""

from __future__ import annotations

import html
from collections.abc import Mapping

import ipywidgets as widgets

from workbench.widgets.fields import Field

FOLDED = (
    "Plugins",
    "Parallelism",
    "Speculative decoding",
    "LoRA",
    "Diagnostics",
    "Advanced",
)
"""Groups that are shown when somebody asks for them."""


class Groups(widgets.VBox):  # type: ignore[misc]
    """Fields by group, in the order of declaration; a folded one says what is in it."""

    def __init__(self) -> None:
        super().__init__()
        self.add_class("workbench-fields")
        self._folded: list[str] = []
        self._accordion: widgets.Accordion | None = None

    def arrange(self, fields: Mapping[str, Field]) -> None:
        """Show these fields in their groups."""
        groups: dict[str, list[Field]] = {}
        for field in fields.values():
            groups.setdefault(field.parameter.group, []).append(field)
        boxes: list[widgets.Widget] = []
        for title, rows in groups.items():
            if title not in FOLDED:
                heading = widgets.HTML(f'<b class="quiet">{html.escape(title)}</b>')
                heading.add_class("workbench-group")
                boxes += [heading, *rows]
        self._folded = [title for title in groups if title in FOLDED]
        if self._folded:
            grids = [widgets.VBox(groups[title]) for title in self._folded]
            self._accordion = widgets.Accordion(grids, titles=self._folded, selected_index=None)
            boxes.append(self._accordion)
        self.children = boxes

    def count(self, fields: Mapping[str, Field]) -> None:
        """Say in the titles of folded groups how many fields were changed or need attention."""
        if not self._folded:
            return
        titles = []
        for title in self._folded:
            mine = [field for field in fields.values() if field.parameter.group == title]
            changed, wrong = sum(f.changed for f in mine), sum(f.refused for f in mine)
            told = sum(f.told for f in mine)
            words = [
                f"{changed} changed" if changed else "",
                f"{wrong} need attention" if wrong > 1 else "1 needs attention" if wrong else "",
                f"{told} with a note" if told else "",
            ]
            said = ", ".join(filter(None, words))
            titles.append(f"{title}: {said}" if said else title)
        assert self._accordion is not None  # noqa: S101 - made with the folded groups
        if list(self._accordion.titles) != titles:
            self._accordion.titles = titles
