"""Many at once: N prompts, N streams that advance in one view, and what they give together."""

from __future__ import annotations

import html
import threading
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as widgets

from workbench import shared, store
from workbench.errors import InputError, RequestError
from workbench.flags import typed
from workbench.many import MOST, Batch, Row, requests
from workbench.notebook import headless
from workbench.opened import Opened, Prompt
from workbench.sampling import Sampling
from workbench.sources import Source, opened_line, source_label
from workbench.spec import parameters_of
from workbench.stream_plots import scaling_figure
from workbench.units import printable
from workbench.widgets.panel import Panel
from workbench.widgets.source import EngineSource
from workbench.widgets.table import Table

COUNTS = (1, 2, 4, 8)
"""Numbers of streams that "Measure" tries."""

_LOOK = 0.2
"""Seconds between two looks at the streams."""

_COLUMNS = [["#", "number"], ["phase", ""], ["tokens", "number"], ["tokens/s", "number"]]
_COLUMNS += [["last words", "wide"]]


class ManyPanel(Panel):
    """Sends many prompts at once; `records` has what each batch took together."""

    def __init__(
        self,
        source: EngineSource | Source | str,
        *,
        prompts: Sequence[str] = ("write a haiku about latency",),
        count: int = 4,
        start: bool = False,
        **options: Any,
    ) -> None:
        """Show the panel.

        Args:
            source: A panel from which an engine comes, an engine, a key, or a server.
            prompts: What to ask, in turns.
            count: Streams at once.
            start: Measure 1, 2, 4 ... streams up to `count`. Headless, this returns when all
                have ended.
            options: Sampling options, fields of `Sampling`.

        Raises:
            WorkbenchError: An option is wrong; headless also what went wrong in the work.
        """
        self._given = source
        self._sampling = Sampling.parse(options)
        self._batch: Batch | None = None
        self._idle = threading.Event()
        self._idle.set()
        self._stopped = False
        self._limit: int | None = None
        self.records: list[dict[str, Any]] = []
        self._title = widgets.HTML()
        self._prompts = widgets.Textarea(
            value="\n".join(prompts),
            description="prompts",
            placeholder="One prompt a line; they take turns",
            layout=widgets.Layout(width="100%", height="80px"),
            style={"description_width": "60px"},
        )
        self._count = _field("streams", str(count))
        tokens = self._sampling.max_tokens
        self._max_tokens = _field("max_tokens", "" if tokens is None else str(tokens))
        self._temperature = _field("temperature", str(self._sampling.temperature))
        self._send_button = _button("Send", "Start all at once", primary=True)
        self._measure_button = _button("Measure", "One after the other: 1, 2, 4 ... streams")
        self._stop_button = _button("Stop", "Stop all of them at once")
        self._stop_button.disabled = True
        self._table = Table(
            label="Streams", columns=_COLUMNS, empty="Nothing was sent yet.", rows=[]
        )
        self._total = widgets.HTML()
        self._chart = widgets.HTML()
        fields = widgets.HBox([self._count, self._max_tokens, self._temperature])
        buttons = widgets.HBox([self._send_button, self._measure_button, self._stop_button])
        rows = [self._title, self._prompts, fields, buttons, self._table, self._total, self._chart]
        super().__init__("Many at once", rows)
        self._send_button.on_click(lambda _: self.send())
        self._measure_button.on_click(lambda _: self.measure())
        self._stop_button.on_click(lambda _: self.stop())
        if start:
            self.measure()
            if headless():
                self.wait()

    def send(self) -> None:
        """Start as many streams as the field says; returns at once."""
        self._begin(lambda count: [count], warm=False)

    def measure(self) -> None:
        """Measure 1, 2, 4 ... streams up to what the field says; returns at once.

        What else is generated with the source is waited for, and one stream that does not count
        goes ahead: what is computed for the first time takes longer.
        """
        self._begin(lambda count: sorted({*(n for n in COUNTS if n < count), count}), warm=True)

    def stop(self) -> None:
        """Stop all streams; what they gave so far is kept."""
        self._stopped = True
        if self._batch:
            self._batch.cancel()

    def wait(self, timeout: float | None = None) -> list[dict[str, Any]]:
        """Wait for the end; return the records of all batches.

        Raises:
            RequestError: Something went wrong; with the sentence that the panel shows.
            TimeoutError: It goes on after `timeout` seconds.
        """
        if not self._idle.wait(timeout):
            raise TimeoutError(f"The streams go on after {timeout} s.")
        if self._error_text:
            raise RequestError(self._error_text)
        return self.records

    def plain(self) -> str:
        """Return the streams and the totals as plain text."""
        rows = ["  ".join(cells) for _, *cells in self._table.rows]
        return "\n".join([*rows, *map(total_line, self.records)] or [self._table.empty])

    def static(self) -> str:
        """Return the streams and the chart as HTML without widgets."""
        return f"{self._table.html()}{self._total.value}{self._chart.value}"

    def _begin(self, counts: Callable[[int], list[int]], *, warm: bool) -> None:
        self.show_error("")
        with self.boundary():
            if not self._idle.is_set():
                raise RequestError("Streams are running. Press Stop, or wait for their end.")
            asked = [line for line in self._prompts.value.splitlines() if line.strip()]
            planned = counts(self._number())
            sampling = self._chosen()
            self._idle.clear()
            self._stopped = False
            self._send_button.disabled = self._measure_button.disabled = True
            self._stop_button.disabled = False
            arguments = (planned, asked, sampling, warm)
            threading.Thread(target=self._run, args=arguments, daemon=True).start()

    def _number(self) -> int:
        """Return the number of streams that the field says.

        Raises:
            InputError: It says none.
        """
        text = self._count.value.strip()
        if not text.isdecimal() or not 1 <= int(text) <= MOST:
            raise InputError(f"streams must be a whole number from 1 to {MOST}; got {text!r}.")
        return int(text)

    def _chosen(self) -> Sampling:
        declared = parameters_of(Sampling)
        fields = {"max_tokens": self._max_tokens, "temperature": self._temperature}
        values = {name: typed(field.value, declared[name]) for name, field in fields.items()}
        return self._sampling.replace(**values)

    def _run(
        self, counts: Sequence[int], asked: Sequence[str], sampling: Sampling, warm: bool
    ) -> None:
        """Send batch after batch (runs in a thread)."""
        try:
            with self.boundary():
                source = self._source()
                self._say(self._title, f"opening {source_label(source)} ...")
                session = shared.acquire(source, holder=self)
                self._say(self._title, opened_line(source, session))
                prompts = _prompts(asked, session)
                if warm:
                    self._await_silence(source, session)
                    self._run_one(session, requests(prompts, sampling, 1))
                for count in counts:
                    if warm:
                        # Again: a panel that opened the source together with this one asks now.
                        self._await_silence(source, session)
                    if not self._stopped:
                        batch = self._run_one(session, requests(prompts, sampling, count))
                        self.records.append(batch.record())
                self._limit = session.limits.get("max_batch_size")
                self._chart.value = chart(self.records)
        finally:
            shared.forget(self)
            self._send_button.disabled = self._measure_button.disabled = False
            self._stop_button.disabled = True
            self.touch()
            self._idle.set()

    def _await_silence(self, source: Source, session: Opened) -> None:
        """Wait until nothing else is generated with the source: it would be measured too."""
        looks = threading.Event()
        while session.active and not self._stopped:
            others = f"{session.active} generation{'s' if session.active > 1 else ''}"
            self._say(self._title, f"waiting for the end of {others} of this source ...")
            self.touch()
            looks.wait(_LOOK)
        self._say(self._title, opened_line(source, session))

    def _source(self) -> Source:
        if isinstance(self._given, EngineSource):
            return self._given.wait()
        return store.find_engine(self._given) if isinstance(self._given, str) else self._given

    def _run_one(self, session: Opened, asked: Sequence[tuple[Prompt, Sampling]]) -> Batch:
        batch = self._batch = Batch.start(session, asked)
        if self._stopped:
            batch.cancel()  # pressed while it started
        looks = threading.Event()
        while not batch.ended:
            self._show(batch)
            looks.wait(_LOOK)
        self._show(batch)
        errors = [one.error for one in batch.generations if one.error]
        if errors:
            raise errors[0]
        return batch

    def _show(self, batch: Batch) -> None:
        self._table.rows = [_cells(row) for row in batch.rows()]
        self._say(self._total, total_line(batch.totals()))
        self.touch()

    def figure(self) -> Any:
        """Return the total tokens/s against the number of streams, as a plotly figure."""
        return scaling_figure(self.records, self._limit)

    def _say(self, where: widgets.HTML, text: str) -> None:
        where.value = f'<span class="quiet" role="status">{html.escape(printable(text))}</span>'


def _prompts(asked: Sequence[str], session: Opened) -> list[Prompt]:
    if not session.facts["chat_template"]:
        return list(asked)
    return [[{"role": "user", "content": text}] for text in asked]


def _cells(row: Row) -> list[str]:
    speed = "" if row.tokens_per_second is None else f"{row.tokens_per_second:.1f}"
    number = str(row.number)
    return [number, number, row.phase, str(row.tokens), speed, printable(row.last_words)]


def total_line(record: dict[str, Any]) -> str:
    """Return one line on what a batch took together."""
    speed = record["tokens_per_second"]
    words = [f"{record['streams']} streams", f"{record['output_tokens']} tokens"]
    words += [f"{speed:.1f} tokens/s together"] if speed else []
    words += [f"{record[name]} {name}" for name in ("stopped", "failed") if record[name]]
    return " · ".join(words)


def chart(records: Sequence[dict[str, Any]]) -> str:
    """Return measured totals as bars, an SVG picture with its numbers as text."""
    measured = [r for r in records if r["tokens_per_second"]]
    if not measured:
        return ""
    top = max(r["tokens_per_second"] for r in measured)
    parts = []
    for place, record in enumerate(sorted(measured, key=lambda r: int(r["streams"]))):
        width = 300 * record["tokens_per_second"] / top
        y = 20 * place
        streams = f"{record['streams']} stream{'s' if record['streams'] > 1 else ''}"
        parts.append(
            f'<text x="0" y="{y + 13}" fill="currentColor">{streams}</text>'
            f'<rect x="80" y="{y + 2}" width="{width:.1f}" height="14" '
            'fill="var(--jp-brand-color1, #1976d2)"/>'
            f'<text x="{86 + width:.1f}" y="{y + 13}" fill="currentColor">'
            f"{record['tokens_per_second']:.1f} tokens/s</text>"
        )
    label = "; ".join(map(total_line, measured))
    return (
        f'<svg role="img" aria-label="{html.escape(label)}" width="520" '
        f'height="{20 * len(measured)}" font-size="12" font-family="sans-serif">'
        f"{''.join(parts)}</svg>"
    )


def _field(description: str, value: str) -> widgets.Text:
    return widgets.Text(
        value=value,
        description=description,
        layout=widgets.Layout(width="190px"),
        style={"description_width": "85px"},
    )


def _button(description: str, tooltip: str, *, primary: bool = False) -> widgets.Button:
    return widgets.Button(
        description=description, tooltip=tooltip, button_style="primary" if primary else ""
    )
