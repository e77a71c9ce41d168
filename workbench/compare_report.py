"""A comparison as one HTML file that needs nothing else: figures, table, where it all comes from.

Plotly's library is written into it, 4.6 MiB: a report that is opened in years, or without a
network, shows its figures all the same. Tables and provenance are plain HTML.
"""

from __future__ import annotations

import html
import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from workbench import __version__
from workbench.axes import THROUGHPUT, find_axis
from workbench.candidates import Candidate
from workbench.compare_plots import engines_record, trade_off_record
from workbench.comparison import COLUMNS, Comparison
from workbench.errors import InputError
from workbench.trial_words import trial_lines
from workbench.units import format_bytes, printable

STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d9dce1, #3a4149); }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em;
  color: light-dark(#1f2328, #e6e6e6); background: light-dark(#ffffff, #16191d); }
table { border-collapse: collapse; font-size: 0.92em; display: block; overflow-x: auto; }
td, th { padding: 3px 12px 3px 0; text-align: left; border-bottom: 1px solid var(--line);
  vertical-align: top; }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 0.88em; margin: 4px 0; }
.quiet { color: light-dark(#59606a, #a8b0ba); }
"""

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
"""What the page may do: nothing that leaves it."""

OPEN = """
document.getElementById("figure-0").on?.("plotly_click", (event) => {
  const where = document.getElementById(`trial-${event.points[0].id}`);
  if (!where) return;
  where.open = true;
  where.scrollIntoView({ block: "nearest" });
});
"""
"""Shows where the figures of a point come from when that is clicked."""

MEANING = (
    "Figures are medians over repetitions. Times are those of the requests' own tokens: TTFT to "
    "the first, ITL between two, TPOT the mean ITL of a request, E2E to the last."
)


def write_report(
    comparison: Comparison,
    path: Path | str,
    *,
    x: str = "e2e.p50",
    y: str = THROUGHPUT,
    overwrite: bool = False,
) -> Path:
    """Write a comparison into a file.

    Args:
        comparison: What is compared.
        path: An HTML file.
        x: Name of the axis across.
        y: Name of the axis upwards.
        overwrite: Replace a file of that name.

    Raises:
        InputError: There is no such axis, the file is there already, or it cannot be written.
    """
    path = Path(path).expanduser().absolute()
    text = report_html(comparison, x=x, y=y)
    try:
        with path.open("w" if overwrite else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(
            f"{path} is there already and was not overwritten. Give another name, or ask for it "
            "with overwrite."
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}.") from None
    return path


def report_html(comparison: Comparison, *, x: str = "e2e.p50", y: str = THROUGHPUT) -> str:
    """Return a comparison as an HTML page; all that comes from elsewhere is text in it.

    Raises:
        InputError: There is no such axis.
    """
    find_axis(x), find_axis(y)
    figures = [trade_off_record(comparison, x, y), engines_record(comparison)]
    made = time.strftime("%Y-%m-%d %H:%M:%S %z")
    price = "" if comparison.price is None else f", at ${comparison.price:g} a device and hour"
    notes = "".join(f"<p>{_text(note)}</p>" for note in comparison.notes())
    made_by = (
        f"Made by the TensorRT-LLM workbench {__version__}, {made}: {len(comparison.candidates)} "
        f"of {comparison.total} points{price}."
    )
    body = [
        "<h1>Comparison of engines</h1>",
        f'<p class="quiet">{_text(made_by)}</p>',
        '<div id="figure-0"></div>',
        _table(comparison),
        notes,
        '<div id="figure-1"></div>',
        "<h2>Where the figures come from</h2>",
        f"<p>{_text(MEANING)}</p>",
        *(_provenance(candidate) for candidate in comparison.candidates),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Comparison of engines</title><style>{STYLE}</style></head><body>"
        f"{''.join(body)}<script>{get_plotlyjs()}</script>"
        f"<script>{_script(figures)}</script></body></html>\n"
    )


def _script(figures: Iterable[Mapping[str, Any]]) -> str:
    """Return the calls that draw the figures, and what happens on a click."""
    calls = [
        f'Plotly.newPlot("figure-{number}", {_json(figure["data"])}, {_json(figure["layout"])}, '
        "{responsive: true, displaylogo: false});"
        for number, figure in enumerate(figures)
    ]
    return "\n".join([*calls, OPEN])


def _json(value: object) -> str:
    """Return JSON that can stand in a script: nothing in it can end that, or begin a comment."""
    return json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _table(comparison: Comparison) -> str:
    wanted = comparison.axes(COLUMNS)
    head = "".join(f"<th>{_text(name)}</th>" for name in ("", "what", *(a.title for a in wanted)))
    rows = "".join(
        f"<tr><td>{_text(comparison.name(c))}</td><td>{_text(c.label)}</td>"
        + "".join(f'<td class="number">{_text(comparison.cell(c, axis))}</td>' for axis in wanted)
        + "</tr>"
        for c in comparison.candidates
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""


def _provenance(candidate: Candidate) -> str:
    """Return what one candidate is: what was found, by which command, on what, with what."""
    trial = candidate.newest
    environment = trial.record.get("environment") or {}
    parts = {
        "Command": candidate.command,
        "Trials": ", ".join(trial.id for trial in candidate.trials),
        "Measured": time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(trial.created)),
        "By": str(trial.record.get("source") or ""),
        "Device": candidate.device,
        "Host": _host(environment),
        "Versions": _pairs(_versions(environment)),
        "Spec": _pairs(trial.spec),
        "Workload": _pairs(trial.workload),
    }
    rows = "".join(
        f"<tr><th>{name}</th><td><pre>{_text(value)}</pre></td></tr>"
        for name, value in parts.items()
        if value
    )
    found = _text("\n".join(trial_lines(trial)))
    return (
        f'<details id="trial-{_text(trial.id)}">'
        f"<summary>{candidate.number}: {_text(candidate.label)}</summary>"
        f"<pre>{found}</pre><table><tbody>{rows}</tbody></table></details>"
    )


def _host(environment: Mapping[str, Any]) -> str:
    words = [str(environment[name]) for name in ("processor", "platform") if environment.get(name)]
    memory, busy = environment.get("memory_bytes"), environment.get("busy_before")
    words += [f"{format_bytes(memory)} of memory"] if isinstance(memory, int | float) else []
    words += [f"{busy:.0%} busy before"] if isinstance(busy, int | float) else []
    return ", ".join(words)


def _versions(environment: Mapping[str, Any]) -> dict[str, Any]:
    own = {name: environment.get(name) for name in ("workbench", "python", "driver")}
    toolchain = environment.get("toolchain")
    return own | (dict(toolchain) if isinstance(toolchain, Mapping) else {})


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items() if value is not None)


def _text(text: object) -> str:
    return html.escape(printable(str(text)))
