"""Side by side: the same prompt and seed on several sources, and where their answers part."""

from __future__ import annotations

import functools
import html
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import ipywidgets as widgets

from workbench import shared, store, transcript
from workbench.divergence import Parting
from workbench.errors import RequestError
from workbench.generation import Delta, Generation
from workbench.notebook import headless
from workbench.sampling import Sampling
from workbench.sides import Side, agreements, check_sources, comparison_record, lacks, partings
from workbench.sources import Source, exact_source, source_label
from workbench.summaries import timing_line
from workbench.units import format_bytes, printable
from workbench.widgets.exports import Exports, Form, check_form
from workbench.widgets.live import follow
from workbench.widgets.panel import Panel
from workbench.widgets.partings import pair_table, parting_line, parting_table
from workbench.widgets.sampling import SamplingForm
from workbench.widgets.source import EngineSource
from workbench.widgets.tokens import TokenView


class SideBySidePanel(Panel):
    """Asks several sources the same; `record` has answers, speeds, memory and agreement.

    They answer one after the other, so that none slows another down.
    """

    def __init__(
        self,
        sources: Sequence[EngineSource | Source | str],
        *,
        prompts: Sequence[str] = ("write a haiku about latency",),
        start: bool = False,
        **options: Any,
    ) -> None:
        """Show the panel.

        Args:
            sources: Two or more: panels from which engines come, engines, keys, or servers. The
                others are compared with the first.
            prompts: What to ask, one after the other.
            start: Ask at once. Headless, this returns when all have answered.
            options: Sampling options, fields of `Sampling`.

        Raises:
            WorkbenchError: An option is wrong; headless also what went wrong in the work.
        """
        check_sources(sources)
        self._given = list(sources)
        self._sides: list[Side] = []
        self._partings: list[list[Parting | None]] = []
        self._generation: Generation | None = None
        self._idle = threading.Event()
        self._idle.set()
        self._stopped = False
        self.record: dict[str, Any] | None = None
        self._views = [TokenView() for _ in sources]
        self._prompts = widgets.Textarea(
            value="\n".join(prompts),
            description="prompts",
            placeholder="One prompt a line",
            layout=widgets.Layout(width="100%", height="64px"),
            style={"description_width": "60px"},
        )
        self._sampling = SamplingForm(Sampling.parse({"seed": 1, **options}))
        self._send_button = widgets.Button(
            description="Compare", button_style="primary", tooltip="Ask all of them"
        )
        self._stop_button = widgets.Button(
            description="Stop", disabled=True, tooltip="Stop at once; what came so far is compared"
        )
        columns = widgets.GridBox(
            self._views,
            layout=widgets.Layout(
                grid_template_columns=f"repeat({len(sources)}, minmax(0, 1fr))", grid_gap="8px"
            ),
        )
        self._result, self._pair = widgets.HTML(), widgets.HTML()
        self._chooser = widgets.Dropdown(
            description="answers to",
            tooltip="The prompt whose answers are shown word by word",
            layout=widgets.Layout(width="100%", display="none"),
            style={"description_width": "80px"},
        )
        buttons = widgets.HBox([self._send_button, self._stop_button])
        rows = [self._prompts, self._sampling, buttons, columns]
        self._exports = Exports(self, self.export, _EXPORTS)
        rows += [self._result, self._chooser, self._pair, self._exports]
        super().__init__("Side by side", rows, self._sampling.explanations)
        self._chooser.observe(lambda _: self._show_pair(), "value")
        self._send_button.on_click(lambda _: self.send())
        self._stop_button.on_click(lambda _: self.stop())
        if start:
            self.send()
            if headless():
                self.wait()

    def send(self) -> None:
        """Ask all sources all prompts; returns at once."""
        self.show_error("")
        with self.boundary():
            if not self._idle.is_set():
                raise RequestError("A comparison is running. Press Stop, or wait for its end.")
            prompts = [line for line in self._prompts.value.splitlines() if line.strip()]
            if not prompts:
                raise RequestError("There is no prompt to send. Write one a line.")
            sampling = self._sampling.value.with_seed()
            self._idle.clear()
            self._stopped = False
            self.record = None
            self._send_button.disabled, self._stop_button.disabled = True, False
            threading.Thread(target=self._run, args=(prompts, sampling), daemon=True).start()

    def stop(self) -> None:
        """Stop; what came so far is compared."""
        self._stopped = True
        if self._generation:
            self._generation.cancel()

    def wait(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait for the end; return the record.

        Raises:
            RequestError: Something went wrong; with the sentence that the panel shows.
            TimeoutError: It goes on after `timeout` seconds.
        """
        if not self._idle.wait(timeout):
            raise TimeoutError(f"The comparison goes on after {timeout} s.")
        if self._error_text:
            raise RequestError(self._error_text)
        return self.record or {}

    @property
    def generations(self) -> list[dict[str, Any]]:
        """The record of the last generation of each source that has answered."""
        return [side.records[-1] for side in self._sides if side.records]

    def export(self, form: Form) -> str:
        """Return the comparison ("markdown"), `record` ("json"), or what asks each side the same.

        Raises:
            InputError: There is no such form.
            RequestError: Nothing was compared yet.
        """
        check_form(form)
        if self.record is None:
            raise RequestError("Nothing was compared yet. Press Compare first.")
        prompts = self.record["prompts"]
        if form == "markdown":
            agreed = [sentence for _, _, sentence, _ in self._compared()]
            parted = [self._parted_at(number) for number in range(len(prompts))]
            return transcript.comparison_markdown(self.record, self._sides, agreed, parted)
        if form == "json":
            return transcript.record_json(self.record)
        write = _program if form == "python" else _curl_lines
        return "\n\n".join(write(side, prompts) for side in self._sides if side.records)

    def plain(self) -> str:
        """Return the answers to the last prompt, and how those to all compare, as plain text."""
        if self.record is None:
            return "Nothing was compared yet."
        lines = []
        for side in self._sides:
            lines += [source_label(side.source)]
            if side.answers:
                lines += [side.answers[-1].text, _figures(side)]
            lines.append("")
        return "\n".join([*lines, *self._sentences()])

    def static(self) -> str:
        """Return the comparison as HTML without widgets."""
        return f"{self._result.value}{self._pair.value}"

    def _run(self, prompts: Sequence[str], sampling: Sampling) -> None:
        """Open what is compared, ask, compare (runs in a thread)."""
        try:
            with self.boundary():
                self._sides = self._open()
                if self._stopped:
                    self._show_stopped()
                    return
                self._sampling.disable(lacks(self._sides))
                for prompt in prompts:
                    for side, view in zip(self._sides, self._views, strict=True):
                        if not self._stopped:
                            view.reset(source_label(side.source))
                            side.ask(prompt, sampling, functools.partial(self._show, side, view))
                first, *others = self._sides
                self._partings = [partings(first, side) for side in others]
                self.record = comparison_record(self._sides, prompts, self._partings)
                self._result.value = self._html()
                self._offer_pairs(prompts)
        finally:
            shared.forget(self)
            self._send_button.disabled, self._stop_button.disabled = False, True
            self.touch()
            self._idle.set()

    def _open(self) -> list[Side]:
        """Open all sources, so that all are in memory together; no more of them after a Stop."""
        sources = [_source(given) for given in self._given]
        sides = []
        for source, view in zip(sources, self._views, strict=True):
            if self._stopped:
                break
            view.reset(f"opening {source_label(source)} ...")
            session = shared.acquire(source, holder=self, keep=sources)
            sides.append(Side(source, session, [], []))
            view.reset(source_label(source))
        return sides

    def _show_stopped(self) -> None:
        """Say that it was stopped before anything was asked; what was shown before is gone."""
        for view in self._views:
            view.reset("not asked")
            view.finish("stopped")
        self._result.value = '<div role="status">stopped before anything was asked</div>'
        self._offer_pairs(())

    def _show(self, side: Side, view: TokenView, generation: Generation) -> list[Delta]:
        self._generation = generation
        if self._stopped:
            generation.cancel()  # pressed while it started
        return follow(generation, view, side.session.limits, self.show_error, alive=self.touch)

    def _offer_pairs(self, prompts: Sequence[str]) -> None:
        """Let a person choose the prompt whose answers are shown; the last one at first."""
        answered = len(self._sides[0].answers) if self._sides else 0
        shown = [(f"{n}: {printable(prompts[n - 1])}", n - 1) for n in range(1, answered + 1)]
        self._chooser.options = shown
        self._chooser.value = answered - 1 if answered else None
        self._chooser.layout.display = "" if answered > 1 else "none"
        self._show_pair()

    def _show_pair(self) -> None:
        """Show the answers to the chosen prompt beside each other, for each side with the first."""
        number = self._chooser.value
        # A side of a comparison that runs may not have answered yet.
        answers = [dict(enumerate(side.answers)) for side in self._sides]
        self._pair.value = "".join(
            pair_table(answers[0][number], other[number])
            for other in answers[1:]
            if number in answers[0] and number in other
        )

    def _compared(self) -> Iterator[tuple[str, str, str, list[Parting | None]]]:
        """Yield for each side after the first: both names, the agreement, and the partings."""
        first, *names = [source_label(side.source) for side in self._sides]
        found = zip(names, agreements(self._sides), self._partings, strict=True)
        for name, agreed, parted in found:
            if agreed:
                yield first, name, f"{name} and {first}: {agreed}.", parted

    def _sentences(self) -> list[str]:
        """Return how each side agrees with the first one, and where the answers to each part."""
        lines = []
        for first, name, agreed, parted in self._compared():
            lines.append(agreed)
            for number, one in enumerate(parted, 1):
                lines.append(f"Prompt {number}: {parting_line(one, first, name)}")
        return lines

    def _parted_at(self, number: int) -> list[str]:
        """Return where the answers to a prompt part, for each side that has answered it."""
        return [
            f"{name} and {first}: {parting_line(parted[number], first, name)}"
            for first, name, _, parted in self._compared()
            if number < len(parted)
        ]

    def _html(self) -> str:
        heads = "".join(f"<th>{_escaped(source_label(side.source))}</th>" for side in self._sides)
        figures = "".join(
            f'<td class="quiet">{_escaped(_figures(side))}</td>' for side in self._sides
        )
        table = f"<table><tr>{heads}</tr><tr>{figures}</tr></table>"
        lines = "".join(
            f"<div>{_escaped(agreed)}</div>{parting_table(parted, first, name)}"
            for first, name, agreed, parted in self._compared()
        )
        return f'<div role="status">{table}{lines}</div>'


def _source(given: EngineSource | Source | str) -> Source:
    if isinstance(given, EngineSource):
        return given.wait()
    return store.find_engine(given) if isinstance(given, str) else given


_EXPORTS: dict[Form, str] = {
    "markdown": "The comparison",
    "json": "The record of the comparison",
    "python": "The programs that ask each side the same",
    "curl": "The shell lines that ask the servers among them the same",
}


def _program(side: Side, prompts: Sequence[str]) -> str:
    """Return the Python that asks a side all prompts."""
    source, sampling = _asked(side)
    given = [side.given(prompt) for prompt in prompts]
    return f"# {source_label(source)}\n{transcript.prompts_snippet(source, given, sampling)}"


def _curl_lines(side: Side, prompts: Sequence[str]) -> str:
    """Return a shell line for each prompt; of an engine, once, how it gets an address."""
    source, sampling = _asked(side)
    lines = [transcript.curl_line(source, side.given(prompt), sampling) for prompt in prompts]
    return "\n\n".join([f"# {source_label(source)}", *dict.fromkeys(lines)])


def _asked(side: Side) -> tuple[Source, Sampling]:
    """Return who was asked, with the model that was, and the options of all its answers."""
    source = exact_source(side.source, side.session) or side.source
    return source, Sampling.parse(side.records[0]["sampling"])


def _figures(side: Side) -> str:
    memory = side.session.memory()
    known = f"   memory {format_bytes(memory)}" if memory else ""
    return f"{timing_line(side.records[-1])}{known}" if side.records else "no answer"


def _escaped(text: str) -> str:
    return html.escape(printable(text))
