"""Many generations at once: what each row says, what they take together, and the panel."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.faults import until
from workbench import shared
from workbench.engine import Engine
from workbench.errors import InputError, RequestError
from workbench.many import MOST, Batch, requests
from workbench.metrics import Timings
from workbench.sampling import Sampling
from workbench.session import Session
from workbench.stream_plots import scaling_figure
from workbench.widgets.many import ManyPanel, chart


@pytest.fixture(autouse=True)
def closed_at_the_end() -> Iterator[None]:
    yield
    for source, _ in shared.opened():
        until(lambda source=source: shared.release(source))


def played(requested: float, *tokens: float, phase: str = "finished") -> Any:
    """A generation that has ended."""
    timings = Timings(requested, requested, tokens)
    return SimpleNamespace(
        timings=timings, phase=phase, text="a\nb", error=None, queue_place=0, finished=None
    )


def test_the_total_is_all_tokens_from_the_first_request_to_the_last_token() -> None:
    batch = Batch([played(1.0, 2.0, 3.0), played(1.5, 2.5, 3.5, 4.0, phase="stopped")])
    record = batch.record()
    assert record == {
        "streams": 2,
        "output_tokens": 5,
        "seconds": 3.0,
        "tokens_per_second": 5 / 3.0,
        "failed": 0,
        "stopped": 1,
        "ttft_p50": 1.0,
        "itl_p50": 1.0,
    }
    assert [row.last_words for row in batch.rows()] == ["a b", "a b"]


def test_without_a_token_there_is_no_speed() -> None:
    assert Batch([played(1.0, phase="failed")]).record()["tokens_per_second"] is None


def test_prompts_take_turns_and_each_has_a_seed_of_its_own() -> None:
    asked = requests(["a", "b"], Sampling(seed=2**31 - 1), 3)
    assert [(prompt, sampling.seed) for prompt, sampling in asked] == [
        ("a", 2**31 - 1),
        ("b", 0),
        ("a", 1),
    ]
    assert len(requests(["a", "b"], Sampling())) == 2
    with pytest.raises(InputError, match="There is no prompt"):
        requests([], Sampling())


def test_streams_run_together_and_are_what_they_are_alone(demo_session: Session) -> None:
    sampling = Sampling(seed=5, temperature=1.0, max_tokens=12)
    alone = [demo_session.generate(p, s).wait().text for p, s in requests(["a"], sampling, 3)]
    batch = Batch.start(demo_session, requests(["a"], sampling, 3))
    batch.wait(30)
    assert [one.text for one in batch.generations] == alone
    assert len(set(alone)) > 1
    assert batch.record()["output_tokens"] == sum(row.tokens for row in batch.rows())


def test_one_that_is_refused_stops_those_before_it(demo_session: Session) -> None:
    sampling = Sampling(max_tokens=200, ignore_eos=True)
    with pytest.raises(RequestError):
        Batch.start(demo_session, [("a", sampling), ({"no": "prompt"}, sampling)])  # type: ignore[list-item]
    until(lambda: demo_session.active == 0)
    with pytest.raises(InputError, match=f"between 1 and {MOST}"):
        Batch.start(demo_session, [])


def test_headless_the_panel_measures_and_prints(stocked: Engine) -> None:
    panel = ManyPanel(stocked, count=3, start=True, max_tokens=8, ignore_eos=True)
    assert [record["streams"] for record in panel.records] == [1, 2, 3]
    assert [record["output_tokens"] for record in panel.records] == [8, 16, 24]
    assert "3 streams · 24 tokens" in panel.plain()
    assert panel._table.rows[2][2] == "finished"
    assert "3 streams" in panel.static()
    figure = panel.figure()
    assert list(figure.data[0].x) == [1, 2, 3]
    # Two run at once, the third waits.
    assert figure.layout.annotations[0].text == "max_batch_size 2"


def test_send_and_stop_in_the_panel(stocked: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HEADLESS", "0")
    session = shared.acquire(stocked)
    assert isinstance(session, Session)
    panel = ManyPanel(stocked, count=4, max_tokens=256, ignore_eos=True)
    os.kill(session.pid, signal.SIGSTOP)
    panel._send_button.click()
    until(lambda: len(panel._table.rows) == 4)
    assert panel._send_button.disabled
    panel.send()
    assert "Streams are running" in panel._error_text
    panel._stop_button.click()
    os.kill(session.pid, signal.SIGCONT)
    until(panel._idle.is_set)
    assert panel.records[0]["stopped"] == 4
    until(lambda: session.active == 0)


def test_measuring_waits_until_nothing_else_is_generated(
    stocked: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_HEADLESS", "0")
    session = shared.acquire(stocked)
    assert isinstance(session, Session)
    os.kill(session.pid, signal.SIGSTOP)
    other = session.generate("a", max_tokens=200, ignore_eos=True)
    panel = ManyPanel(stocked, count=2, max_tokens=8, ignore_eos=True)
    panel._measure_button.click()
    until(lambda: "waiting for the end of 1 generation of this source" in panel._title.value)
    assert (panel._batch, session.active) == (None, 1)
    os.kill(session.pid, signal.SIGCONT)
    until(panel._idle.is_set)
    assert other.finished.is_set()
    assert [record["streams"] for record in panel.records] == [1, 2]
    assert "waiting" not in panel._title.value


@pytest.mark.parametrize(
    ("field", "value", "sentence"),
    [
        ("_count", "many", "streams must be a whole number from 1 to 256; got 'many'"),
        ("_count", "0", "streams must be"),
        ("_temperature", "hot", "temperature must be a number from 0 to 5"),
        ("_prompts", " \n", "There is no prompt to send"),
        ("_prompts", "word " * 200, "max_input_len"),
    ],
)
def test_what_cannot_be_sent_is_a_sentence(
    stocked: Engine, field: str, value: str, sentence: str
) -> None:
    panel = ManyPanel(stocked)
    getattr(panel, field).value = value
    panel.send()
    until(lambda: sentence in panel._error_text)
    with pytest.raises(RequestError):
        panel.wait(20)


def test_charts_say_when_nothing_was_measured() -> None:
    assert chart([]) == ""
    assert "Nothing was measured yet" in scaling_figure([]).layout.annotations[0].text


def test_the_figure_shows_its_title_as_text() -> None:
    record = {"streams": 2, "tokens_per_second": 10.0}
    figure = scaling_figure([record], max_batch_size=4, title="<b>x</b>")
    assert figure.layout.title.text == "&lt;b&gt;x&lt;/b&gt;"
    assert not figure.layout.shapes  # nothing had to wait
