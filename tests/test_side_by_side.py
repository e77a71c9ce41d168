"""Side by side: same prompt, same seed, and where the answers part."""

from __future__ import annotations

import ast
import html
import json
import math
from collections.abc import Iterator
from typing import Any

import pytest

from tests.faults import until
from tests.servers.scripted import DONE, Connection, delta, scripted
from workbench import shared
from workbench.divergence import Parting, Token
from workbench.endpoint import Endpoint
from workbench.engine import Engine
from workbench.errors import InputError, RequestError
from workbench.opened import Opened
from workbench.sampling import Sampling
from workbench.session import Session
from workbench.sides import Side, comparison_record, partings
from workbench.sources import Source, baseline_of, same_vocabulary, source_label, spec_of
from workbench.units import format_bytes
from workbench.widgets.partings import parting_line
from workbench.widgets.side_by_side import SideBySidePanel


@pytest.fixture(autouse=True)
def closed_at_the_end() -> Iterator[None]:
    yield
    for source, _ in shared.opened():
        until(lambda source=source: shared.release(source))


def liar(connection: Connection) -> None:
    """Begin as the demo model does, and go on otherwise."""
    connection.stream(delta("Latency is"), delta(" <b>kind</b>"), delta(reason="stop"), DONE)


def test_an_engine_agrees_with_itself(stocked: Engine) -> None:
    small = stocked.under({**stocked.limits, "max_output_len": 100})
    panel = SideBySidePanel(
        [stocked, small], prompts=["a", "write a haiku about latency"], start=True, max_tokens=12
    )
    assert panel.record is not None
    assert panel.record["agreement"] == [{"rate": 1.0, "shared": 1.0}]
    assert [len(side["texts"]) for side in panel.record["sides"]] == [2, 2]
    assert all(side["memory_bytes"] > 0 for side in panel.record["sides"])
    assert "2 of 2 answers are the same (100%)" in panel.plain()
    # Both are in memory together.
    assert len(shared.opened()) == 2
    assert panel.generations[0]["sampling"]["seed"] == 1
    assert len(panel.generations[0]["logprobs"]) == panel.generations[0]["output_tokens"]


def test_where_tokens_part_each_engine_says_what_it_thinks_of_the_other_token(
    stocked: Engine,
) -> None:
    session = shared.acquire(stocked)
    assert isinstance(session, Session)
    greedy, varied = (Side(stocked, session, [], []) for _ in range(2))
    greedy.ask("write a haiku about latency", Sampling(seed=1, max_tokens=20))
    varied.ask(
        "write a haiku about latency", Sampling(seed=3, max_tokens=20, temperature=2.0, top_k=3)
    )
    (parting,) = partings(greedy, varied)
    assert parting is not None
    assert parting.first is not None
    assert parting.second is not None
    ids = [*greedy.prompts[0], *(t.id for t in greedy.answers[0].tokens[: parting.at + 1])]
    (score,) = session.score(ids, top=8, start=len(ids) - 1)
    shares = {one.id: math.exp(one.logprob) for one in score.alternatives}
    assert parting.first_of_second == pytest.approx(shares[parting.second.id], abs=1e-6)
    assert parting.second_of_first == pytest.approx(shares[parting.first.id], abs=1e-6)
    plain = comparison_record([greedy, varied], ["write a haiku about latency"], [[parting]])
    assert json.loads(json.dumps(plain))["partings"][0][0]["at"] == parting.at


def test_the_partings_of_all_prompts_are_told_and_any_pair_can_be_shown(stocked: Engine) -> None:
    words = iter(["Latency is", "Something"])

    def answer(connection: Connection) -> None:
        connection.stream(delta(next(words)), delta(" else"), delta(reason="stop"), DONE)

    with scripted(answer) as server:
        panel = SideBySidePanel(
            [stocked, Endpoint(server.url)],
            prompts=["write a haiku about latency", "again"],
            start=True,
            max_tokens=8,
        )
    assert panel.record is not None
    ((first, second),) = panel.record["partings"]
    assert first["text_at"] > second["text_at"]
    for number, one in enumerate((first, second), 1):
        assert f"Prompt {number}: the answers part at character {one['at'] + 1}:" in panel.plain()
        assert f"<td>{number}</td><td>character {one['at'] + 1}</td>" in panel.static()
    assert "Something" in panel._pair.value
    assert [label for label, _ in panel._chooser.options] == [
        "1: write a haiku about latency",
        "2: again",
    ]
    panel._chooser.value = 0
    assert "Something" not in panel._pair.value
    assert "Latency is" in html.unescape(panel._pair.value).replace("<mark><u>", "")


def test_a_server_is_compared_by_its_text_which_stays_text(stocked: Engine) -> None:
    with scripted(liar) as server:
        endpoint = Endpoint(server.url)
        panel = SideBySidePanel(
            [stocked, endpoint],
            prompts=["write a haiku about latency"],
            start=True,
            max_tokens=8,
        )
    assert panel.record is not None
    (agreed,) = panel.record["agreement"]
    assert agreed["rate"] == 0
    assert 0 < agreed["shared"] < 1
    assert "part at character" in panel.plain()
    assert "<b>" not in panel.static().replace("<mark>", "")
    assert html.escape("<b>kind</b>") in panel._pair.value
    assert "<mark><u>" in panel.static()


def test_a_source_that_fails_is_named_by_its_sentence(stocked: Engine) -> None:
    with pytest.raises(RequestError, match="max_input_len"):
        SideBySidePanel([stocked, stocked], prompts=["word " * 200], start=True)


def test_one_source_is_nothing_to_compare(stocked: Engine) -> None:
    with pytest.raises(InputError, match="between 2 and 6 sources; got 1"):
        SideBySidePanel([stocked])


def test_stop_ends_a_comparison_at_once(stocked: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HEADLESS", "0")
    panel = SideBySidePanel([stocked, stocked], max_tokens=256, ignore_eos=True)
    assert panel.plain() == "Nothing was compared yet."
    panel._send_button.click()
    panel._stop_button.click()
    until(panel._idle.is_set)
    assert panel._error_text == ""
    assert not panel._send_button.disabled
    panel._prompts.value = " "
    panel.send()
    assert "There is no prompt to send" in panel._error_text


def test_stop_while_engines_load_leaves_the_others_unopened(
    stocked: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_HEADLESS", "0")
    panel = SideBySidePanel([stocked, stocked.under({"max_output_len": 100})])
    opened: list[Source] = []
    acquire = shared.acquire

    def stopped_meanwhile(source: Source, **options: Any) -> Opened:
        opened.append(source)
        panel._stop_button.click()
        return acquire(source, **options)

    monkeypatch.setattr(shared, "acquire", stopped_meanwhile)
    panel.send()
    assert panel.wait(60) == {}
    assert opened == [stocked]
    assert "stopped" in panel.static()
    assert not panel._send_button.disabled


def test_what_one_of_the_sources_lacks_is_grey_and_the_reason_names_it(stocked: Engine) -> None:
    with scripted(liar) as server:
        endpoint = Endpoint(server.url)
        panel = SideBySidePanel([stocked, endpoint], start=True, max_tokens=8)
    form = panel._sampling
    ours, theirs = (side.session.lacks for side in panel._sides)
    assert set(form.reasons) == {*ours, *theirs}
    assert set(theirs) - set(ours)
    for name in set(theirs) - set(ours):
        assert form.controls[name].disabled
        assert form.reasons[name] == f"{source_label(endpoint)}: {theirs[name]}"


def test_a_comparison_exports_what_all_answered_and_what_asks_each_of_them_the_same(
    stocked: Engine,
) -> None:
    prompts = ["write a haiku about latency", "again"]
    with scripted(liar) as server:
        endpoint = Endpoint(server.url, model="m")
        panel = SideBySidePanel([stocked, endpoint], prompts=prompts, max_tokens=8)
        panel._exports.buttons["json"].click()
        assert "Nothing was compared yet" in panel._error_text
        panel.send()
        panel.wait(60)
    panel._exports.buttons["json"].click()
    assert panel._error_text == ""
    assert json.loads(panel._exports.text.value) == json.loads(json.dumps(panel.record))
    assert panel.record is not None
    measured = panel.record["sides"][0]["memory_bytes"]
    until(lambda: shared.release(stocked))
    text = panel.export("markdown")
    assert f"memory {format_bytes(measured)}" in text  # as it was, also when it is unloaded
    for words in (*prompts, "Latency is <b>kind</b>", "part at character", "TTFT", "seed=1"):
        assert words in text
    assert text.count("**Where they part**") == len(prompts)
    python = panel.export("python")
    ast.parse(python)
    assert f"wb.open_engine({stocked.key!r})" in python
    assert f"wb.Endpoint({endpoint.url!r}, model='m').open()" in python
    assert all(python.count(prompt) == len(panel._sides) for prompt in prompts)
    curl = panel.export("curl")
    assert curl.count("no address to ask") == 1
    assert curl.count(f"{endpoint.url}/chat/completions") == len(prompts)
    with pytest.raises(InputError, match="Exports are markdown, json, python, curl"):
        panel.export("html")  # type: ignore[arg-type]


def test_the_sentence_has_both_probabilities_of_both_tokens() -> None:
    parting = Parting("token", 4, 20, Token(1, " a", 0.5), Token(2, " b", 0.6), 0.25, 0.125)
    assert parting_line(parting, "mine", "theirs") == (
        "the answers part at token 5: mine has ' a' with probability 0.5 (0.125 for theirs), "
        "theirs has ' b' with probability 0.6 (0.25 for mine)."
    )
    ended = Parting("token", 4, 20, None, Token(2, " b"))
    assert "mine has ended" in parting_line(ended, "mine", "theirs")
    assert parting_line(None, "mine", "theirs") == "the answers are the same."


def test_engines_of_one_checkpoint_have_one_vocabulary(stocked: Engine) -> None:
    assert same_vocabulary(stocked, stocked)
    assert not same_vocabulary(stocked, Endpoint("http://127.0.0.1:1/v1"))
    assert not same_vocabulary(*[Endpoint("http://127.0.0.1:1/v1")] * 2)


def test_the_spec_of_an_engine_and_of_its_baseline_are_those_of_its_build(stocked: Engine) -> None:
    spec = spec_of(stocked).model_dump()
    assert (spec["quantization"], spec["max_batch_size"], spec["kv_cache_tokens"]) == (
        "none",
        2,
        None,
    )
    baseline = baseline_of(stocked).model_dump()
    assert baseline["backend"] == "transformers"
    assert (baseline["model"], baseline["dtype"]) == (spec["model"], "float32")
    assert (baseline["max_input_len"], baseline["max_output_len"]) == (64, 256)
