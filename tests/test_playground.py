"""The playground in-process: open, chat, steer, stop, and leave nothing behind."""

from __future__ import annotations

import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import psutil
import pytest

from tests.conftest import close_all
from tests.faults import until
from tests.servers.scripted import DONE, Connection, delta, event, nowhere, scripted
from workbench import scores, shared
from workbench.endpoint import Endpoint
from workbench.engine import Engine
from workbench.errors import InputError, RequestError, SpecError
from workbench.generation import Generation
from workbench.sampling import Sampling
from workbench.session import LOADING, Session
from workbench.spec import parameters_of
from workbench.widgets import cells, live
from workbench.widgets.chat import SHOWN
from workbench.widgets.live import BARS, sparkline
from workbench.widgets.playground import PlaygroundPanel
from workbench.widgets.sampling import SamplingForm
from workbench.widgets.stream import StreamPanel
from workbench.widgets.tokens import TokenView

pytestmark = pytest.mark.usefixtures("clicking", "closed_at_the_end")


@pytest.fixture
def nothing_open() -> None:
    close_all()


def ready(panel: StreamPanel) -> StreamPanel:
    until(lambda: not panel._send_button.disabled and not panel._close_button.disabled)
    return panel


def playground(engine: Engine, **values: object) -> PlaygroundPanel:
    panel = PlaygroundPanel(engine, **{"max_tokens": 12, "seed": 1, **values})
    ready(panel)
    return panel


def say(panel: StreamPanel, prompt: str) -> str:
    panel.send(prompt)
    assert panel._error_text == ""
    return str(panel.wait(20)["text"])


def echo(connection: Connection) -> None:
    """Answer with the roles of the messages that came."""
    roles = " ".join(message["role"] for message in connection.body["messages"])
    connection.stream(
        delta(roles), delta(reason="stop"), event({"choices": [], "usage": USAGE}), DONE
    )


USAGE = {"prompt_tokens": 3, "completion_tokens": 5}


def test_a_conversation_is_told_whole_and_each_turn_keeps_its_record() -> None:
    with scripted(echo) as server:
        panel = PlaygroundPanel(Endpoint(server.url), system_prompt="be short")
        ready(panel)
        assert say(panel, "one") == "system user"
        assert say(panel, "two") == "system user assistant user"
        assert [turn.record["text"] for turn in panel.conversation.turns] == [
            "system user",
            "system user assistant user",
        ]
        panel._system.value = ""
        assert say(panel, "three").startswith("user assistant")
        assert len(panel.records) == 3
        assert "> two" in panel.plain()
        panel.unload()
        assert server.errors == []


def test_edit_brings_a_turn_back_and_regenerate_asks_it_again(stocked: Engine) -> None:
    panel = playground(stocked)
    first = say(panel, "write a haiku about latency")
    second = say(panel, "another one")
    panel.regenerate()
    assert panel.wait(20)["text"] == second  # the same seed, the same text
    assert [turn.asked for turn in panel.conversation.turns] == [
        "write a haiku about latency",
        "another one",
    ]
    panel.edit(0)
    assert panel._prompt.value == "write a haiku about latency"
    assert panel.conversation.turns == []
    panel._send_button.click()
    assert panel.wait(20)["text"] == first
    panel.edit(7)
    assert "There is no turn 8" in panel._error_text
    panel.clear()
    assert panel.conversation.turns == []
    assert panel._history.children == ()


def test_completion_sends_the_text_as_it_stands(stocked: Engine) -> None:
    panel = playground(stocked, mode="completion")
    completed = say(panel, "a b c")
    assert panel._sent == "a b c"
    assert panel.conversation.turns == []
    assert completed in panel.export("markdown")
    panel._mode.value = "chat"
    say(panel, "a b c")
    assert panel.record is not None
    assert panel.record["input_tokens"] > 3  # the template's own tokens
    with pytest.raises(InputError, match="mode is one of chat, completion"):
        PlaygroundPanel(mode="chatty")  # type: ignore[arg-type]


def test_a_model_without_a_template_says_so_in_chat() -> None:
    with scripted(echo) as server:
        panel = PlaygroundPanel(Endpoint(server.url, chat=False))
        ready(panel)
        panel.send("hi")
        assert "no chat template" in panel._error_text
        panel.unload()


def test_what_was_said_is_text(stocked: Engine) -> None:
    panel = playground(stocked)
    say(panel, "<script>alert(1)</script>")
    say(panel, "x")
    shown = "".join(row.children[0].value for row in panel._history.children)
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown


def test_an_answer_goes_on_from_another_token_as_the_engine_would(stocked: Engine) -> None:
    panel = playground(stocked)
    first = say(panel, "write a haiku about latency")
    session, generation = panel._session, panel._generation
    assert isinstance(session, Session)
    assert generation is not None
    choices = panel._choices_at(3)
    assert choices[0].token_id == generation.token_ids[3]
    assert choices[0].logprob == pytest.approx(generation.logprobs[3], abs=1e-4)
    other = choices[1]
    panel.continue_from(3, other.token_id)
    text = panel.wait(20)["text"]
    ids = [*generation.prompt_ids, *generation.token_ids[:3], other.token_id]
    went_on = session.generate(ids, max_tokens=12 - 4).wait().text
    assert text.endswith(other.text + went_on)
    assert text == panel._view.text != first
    assert [(turn.asked, turn.answered) for turn in panel.conversation.turns] == [
        ("write a haiku about latency", text)
    ]
    assert str(other.token_id) in panel.export("python")
    # Back on the way that it took at first, from a token that it has now.
    panel.continue_from(3, choices[0].token_id)
    assert panel.wait(20)["text"].startswith(first[:20])
    with pytest.raises(RequestError, match="is none of the most probable ones"):
        panel.continue_from(3, -1)


def test_a_server_tells_no_alternatives_and_says_so() -> None:
    with scripted(echo) as server:
        panel = PlaygroundPanel(Endpoint(server.url))
        ready(panel)
        with pytest.raises(RequestError, match="is not loaded"):
            panel._choices_at(0)
        say(panel, "hi")
        with pytest.raises(RequestError, match="This server sent no alternatives"):
            panel._choices_at(0)
        assert panel._view._answers == []
        panel.unload()


def test_alternatives_that_a_server_sent_are_shown_and_are_no_way_to_go_on() -> None:
    tops = [{"token": " hi", "logprob": -0.1}, {"token": " ho", "logprob": -2.5}]
    token = {"token": " hi", "logprob": -0.1, "top_logprobs": tops}

    def answer(connection: Connection) -> None:
        assert connection.body["top_logprobs"] == 2
        choice = {"index": 0, "delta": {"content": " hi"}, "logprobs": {"content": [token]}}
        connection.stream(event({"choices": [choice]}), delta(reason="stop"), DONE)

    with scripted(answer) as server:
        panel = PlaygroundPanel(Endpoint(server.url), logprobs=True, top_logprobs=2)
        ready(panel)
        say(panel, "hi")
        assert [(one.token_id, one.text, one.logprob) for one in panel._choices_at(0)] == [
            (None, " hi", -0.1),
            (None, " ho", -2.5),
        ]
        assert panel._view._answers == ["alternatives"]
        panel.unload()


def test_an_answer_that_has_ended_is_scored_once_for_all_looks(
    stocked: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = playground(stocked)
    say(panel, "write a haiku about latency")
    session, generation = panel._session, panel._generation
    assert isinstance(session, Session)
    assert generation is not None
    scored, score = [], session.score
    monkeypatch.setattr(session, "score", lambda *a, **o: scored.append(o) or score(*a, **o))
    looks = [panel._choices_at(index) for index in range(len(generation.token_ids))]
    assert len(scored) == 1
    for token, logprob, choices in zip(
        generation.token_ids, generation.logprobs, looks, strict=True
    ):
        assert choices[0].token_id == token
        assert choices[0].logprob == pytest.approx(logprob, abs=1e-4)
    say(panel, "and another one")
    panel._choices_at(0)
    assert len(scored) == 2


def test_a_token_can_be_looked_at_while_the_answer_goes_on(stocked: Engine) -> None:
    panel = playground(stocked, max_tokens=200, ignore_eos=True, mode="completion")
    say(panel, "a")
    panel.send("write a haiku")
    generation = panel._generation
    assert generation is not None
    until(lambda: len(panel._came) > 20)
    choices = panel._choices_at(9)
    assert not panel._idle.is_set()
    assert choices[0].token_id == generation.token_ids[9]
    panel.stop()
    panel.wait(10)


def test_a_look_is_refused_where_the_weights_have_no_room_again(
    stocked: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    close_all()
    panel = playground(stocked)
    say(panel, "a")
    session = panel._session
    assert isinstance(session, Session)
    weights = (stocked.path / "openvino_model.bin").stat().st_size
    assert session.facts["scoring_bytes"] == weights
    monkeypatch.setattr(scores, "memory", lambda: (10 * weights, weights - 1))
    with pytest.raises(RequestError, match=r"a second time: \S+ \S+, and \S+ \S+ are free"):
        panel._choices_at(0)
    monkeypatch.setattr(scores, "memory", lambda: (10 * weights, weights))
    assert panel._choices_at(0)
    monkeypatch.setattr(scores, "memory", lambda: (10 * weights, 0))
    assert panel._choices_at(1), "what is loaded needs no room"


def test_a_long_conversation_shows_its_end(stocked: Engine) -> None:
    panel = playground(stocked)
    for number in range(SHOWN + 2):
        panel.conversation.add(f"q{number}", {**RECORD, "text": "a"})
    panel._history.show(panel.conversation)
    rows = panel._history.children
    assert len(rows) == SHOWN + 1
    assert "2 earlier turns" in rows[0].value
    kept = rows[-3]
    panel.conversation.add("more", {**RECORD, "text": "a"})
    panel._history.show(panel.conversation)
    assert kept in panel._history.children  # and was not made again


RECORD = {"output_tokens": 1, "ttft": None, "itl": None, "tokens_per_second": None}


def test_an_engine_can_be_chosen_and_a_server_by_its_address(
    stocked: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = PlaygroundPanel()
    assert panel._chooser.engines.value == stocked.key
    panel._chooser.open_button.click()
    ready(panel)
    until(lambda: "memory" in panel._title.value and "loading" not in panel._title.value)
    with scripted(echo) as server:
        panel._chooser.url.value = server.url
        panel._chooser.key_env.value = "sk-secret"
        panel._chooser.connect_button.click()
        until(lambda: "Never type the key itself" in panel._error_text)
        assert "sk-secret" not in panel._error_text
        monkeypatch.setenv("PLAY_KEY", "sk-other")
        panel._chooser.key_env.value = "PLAY_KEY"
        panel._chooser.connect_button.click()
        until(lambda: "endpoint" in panel._title.value)
        assert say(panel, "hi") == "user"
        assert server.asked[0].headers["authorization"] == "bearer sk-other"
        assert "curl" in panel.export("curl")
        panel.unload()


def test_what_cannot_be_opened_is_a_sentence() -> None:
    panel = PlaygroundPanel()
    assert panel._chooser.open_button.disabled
    panel._chooser.url.value = "ftp://x"
    panel._chooser.connect_button.click()
    until(lambda: "is no URL of http" in panel._error_text)
    panel.send("hi")
    assert "No engine is loaded" in panel._error_text


def test_a_server_that_does_not_answer_leaves_open_what_is_open(stocked: Engine) -> None:
    panel = playground(stocked)
    session, opened = panel._session, f"engine {stocked.key} on openvino"
    chooser = panel._chooser
    with nowhere() as free:
        for url, words in (("ftp://x", "is no URL of http"), (free, "Nothing listens at")):
            chooser.url.value = url
            chooser.connect_button.click()
            until(lambda words=words: words in panel._error_text)
            until(lambda: opened in panel._title.value)
    assert panel._session is session
    assert not panel._close_button.disabled
    assert say(panel, "a")


def test_what_is_sent_while_a_server_is_connected_waits_for_it(
    stocked: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = playground(stocked)
    acquire, go = shared.acquire, threading.Event()
    monkeypatch.setattr(
        shared, "acquire", lambda *args, **more: go.wait(30.0) and acquire(*args, **more)
    )
    with scripted(echo) as server:
        panel.load(Endpoint(server.url))
        until(lambda: "loading endpoint" in panel._title.value)
        panel.send("hi")
        go.set()
        assert panel.wait(20)["text"] == "user"
        panel.unload()


def test_the_title_does_not_look_for_what_is_no_url() -> None:
    panel = PlaygroundPanel()
    panel._chooser.url.value = "ftp://x"
    panel._chooser.connect_button.click()
    until(lambda: "is no URL of http" in panel._error_text)
    until(lambda: "looking for" not in panel._title.value)


def test_exports_say_when_there_is_nothing_yet(stocked: Engine) -> None:
    panel = playground(stocked)
    with pytest.raises(RequestError, match="Nothing was generated yet"):
        panel.export("markdown")
    panel._exports.buttons["json"].click()
    assert "Nothing was generated yet" in panel._error_text
    say(panel, "a")
    for form, words in (("markdown", "# Transcript"), ("json", '"itl_seconds"')):
        panel._exports.buttons[form].click()
        assert words in panel._exports.text.value
    assert panel._error_text == ""
    with pytest.raises(InputError, match="Exports are markdown, json, python, curl"):
        panel.export("html")  # type: ignore[arg-type]


def test_every_sampling_option_has_a_control_and_comes_back() -> None:
    sampling = Sampling(
        temperature=0.5, top_k=3, min_p=0.1, seed=4, stop=("a\nb", "c"), regex="a+", logprobs=True
    )
    form = SamplingForm(sampling)
    assert set(form.controls) == {*parameters_of(Sampling), "stop"} == set(Sampling.model_fields)
    assert set(form.explanations) == set(form.controls)
    assert form.value == sampling


def test_what_a_backend_lacks_is_grey_with_the_reason_until_it_has_it() -> None:
    form = SamplingForm(Sampling(top_k=3))
    form.disable({"regex": "there is <none>.", "top_k": "it has none."})
    assert form.controls["regex"].disabled
    assert form.controls["regex"].tooltip == "there is <none>."
    assert "there is &lt;none&gt;" in form._why.value
    assert form._why in form.children  # in view also while the other options are folded
    # What was set can be taken back, and is not left out silently.
    assert not form.controls["top_k"].disabled
    assert form.value.top_k == 3
    form.disable({})
    assert not form.controls["regex"].disabled
    assert form._why.value == ""


def test_samples_of_one_prompt_have_seeds_in_a_row_and_all_are_kept(stocked: Engine) -> None:
    panel = playground(stocked, n=3, temperature=1.5, seed=7)
    text = say(panel, "write a haiku about latency")
    assert panel.record is not None
    records = [panel.record, *panel.record["samples"]]
    assert [one["sampling"]["seed"] for one in records] == [7, 8, 9]
    session = panel._session
    assert session is not None
    for one in records:
        alone = session.generate(panel._sent, Sampling.parse(one["sampling"])).wait().text
        assert one["text"] == alone
    assert len({one["text"] for one in records}) > 1
    assert [view.text for view, _ in panel._samples._rows] == [one["text"] for one in records[1:]]
    (turn,) = panel.conversation.turns
    assert turn.answered == text
    for form in ("markdown", "json"):
        exported = panel.export(form)  # type: ignore[arg-type]
        assert all(json.dumps(one["text"])[1:-1].split("\\n")[0] in exported for one in records)
    assert "for seed in [7, 8, 9]" in panel.export("python")
    assert panel.plain().count("another sample, seed") == 2
    # The next prompt has samples of its own, or none.
    panel._sampling._counter.value = "1"
    say(panel, "another one")
    assert "samples" not in panel.record
    assert not panel._samples.children


def test_another_sample_can_be_taken_as_the_answer(stocked: Engine) -> None:
    panel = playground(stocked, n=3, temperature=1.5, seed=7)
    first = say(panel, "write a haiku about latency")
    assert panel.record is not None
    third = panel.record["samples"][1]["text"]
    assert third != first
    panel._samples._rows[1][1].click()
    assert panel._error_text == ""
    assert panel._view.text == panel.record["text"] == third
    assert panel.records[-1] is panel.record
    assert [one["text"] for one in panel.record["samples"]][1] == first
    assert panel._samples._rows[1][0].text == first
    assert [turn.answered for turn in panel.conversation.turns] == [third]
    assert panel._choices_at(2)[0].logprob <= 0.0  # of the answer's own tokens
    panel.take_sample(2)
    assert "There is no sample 4" in panel._error_text


def test_stop_ends_all_samples(stocked: Engine) -> None:
    panel = playground(stocked, n=4, max_tokens=256, ignore_eos=True)
    panel.send("a")
    panel._stop_button.click()
    assert panel.wait(10)["finish_reason"] == "cancelled"
    assert panel.record is not None
    assert [one["finish_reason"] for one in panel.record["samples"]] == ["cancelled"] * 3
    until(lambda: panel._session.active == 0)  # type: ignore[union-attr]


def test_a_number_of_samples_that_is_none_is_refused(stocked: Engine) -> None:
    panel = playground(stocked)
    panel._sampling._counter.value = "9"
    panel.send("a")
    assert "n must be a whole number" in panel._error_text
    with pytest.raises(SpecError, match="n must be"):
        PlaygroundPanel(n=0)


def test_a_server_gives_samples_too() -> None:
    with scripted(echo) as server:
        panel = PlaygroundPanel(Endpoint(server.url), n=2, seed=3)
        ready(panel)
        say(panel, "hi")
        assert sorted(connection.body["seed"] for connection in server.asked) == [3, 4]
        assert panel.export("curl").count("curl ") == 2
        panel.unload()


def test_an_opened_engine_greys_what_it_lacks(stocked: Engine) -> None:
    panel = playground(stocked)
    assert panel._options["top_logprobs"].disabled
    assert "OpenVINO GenAI" in panel._options["top_logprobs"].tooltip
    assert not panel._options["min_p"].disabled


@pytest.mark.parametrize("hold", [True, False], ids=["before the first token", "in decode"])
def test_stop_answers_within_a_tenth_of_a_second(stocked: Engine, hold: bool) -> None:
    """Held, the worker hears nothing; the stop counts all the same."""
    panel = playground(stocked, max_tokens=256, ignore_eos=True, mode="completion")
    say(panel, "warm")
    session = panel._session
    assert session is not None
    took = []
    for _ in range(5):
        if hold:
            os.kill(session.pid, signal.SIGSTOP)  # type: ignore[attr-defined]
        panel.send("a")
        if not hold:
            until(lambda: len(panel._generation.token_ids) > 2)  # type: ignore[union-attr]
        began = time.monotonic()
        panel._stop_button.click()
        assert panel.wait(10)["finish_reason"] == "cancelled"
        took.append(time.monotonic() - began)
        if hold:
            os.kill(session.pid, signal.SIGCONT)  # type: ignore[attr-defined]
        until(lambda: session.active == 0)
    # The median: other processes may have the processor for a moment.
    assert sorted(took)[2] < 0.1


def test_stop_in_the_queue_frees_the_place(stocked: Engine) -> None:
    panel = playground(stocked, max_tokens=256, ignore_eos=True)
    session = panel._session
    assert session is not None
    os.kill(session.pid, signal.SIGSTOP)  # type: ignore[attr-defined]
    others = [session.generate("a", max_tokens=200, ignore_eos=True) for _ in range(2)]
    panel.send("b")
    os.kill(session.pid, signal.SIGCONT)  # type: ignore[attr-defined]
    assert panel._generation is not None
    until(lambda: panel._generation.queue_place == 1 or others[0].finished.is_set())
    panel.stop()
    assert panel.wait(10)["finish_reason"] == "cancelled"
    for other in others:
        other.cancel()
        other.wait(10)
    until(lambda: session.active == 0)


def test_fifty_starts_and_stops_leave_nothing_behind(stocked: Engine) -> None:
    panel = playground(stocked, max_tokens=256, ignore_eos=True, mode="completion")

    def cycle() -> None:
        panel.send("a")
        panel.stop()
        panel.wait(10)

    for _ in range(3):
        cycle()
    me = psutil.Process()
    counts: list[Callable[[], int]] = [
        me.num_fds,
        lambda: len(me.children(recursive=True)),
        lambda: panel._session.active,  # type: ignore[union-attr]
    ]
    until(lambda: not any(t.name == "token-view" for t in threading.enumerate()))
    until(lambda: counts[-1]() == 0)
    threads, before = set(threading.enumerate()), [count() for count in counts]
    for _ in range(50):
        cycle()
    until(lambda: set(threading.enumerate()) <= threads)
    until(lambda: [count() for count in counts] == before)
    assert len(panel.records) == 53


@pytest.mark.usefixtures("nothing_open")
def test_unloading_frees_the_process_and_its_threads(stocked: Engine) -> None:
    before = set(threading.enumerate())
    panel = playground(stocked)
    pid = panel._session.pid  # type: ignore[union-attr]
    panel._close_button.click()
    until(lambda: not psutil.pid_exists(pid))
    until(lambda: set(threading.enumerate()) <= before)
    until(lambda: not panel._load_button.disabled)
    panel._load_button.click()
    until(lambda: panel._session is not None)
    assert say(panel, "a")


def test_a_worker_that_dies_while_nobody_asks_is_told(stocked: Engine) -> None:
    panel = playground(stocked)
    panel._session._worker.kill()  # type: ignore[union-attr]
    until(lambda: "was killed" in panel._error_text)
    until(lambda: not panel._load_button.disabled)
    assert say(panel, "a")
    assert panel._load_button.disabled


@pytest.mark.usefixtures("nothing_open")
def test_an_idle_engine_is_unloaded_when_that_is_wanted(stocked: Engine) -> None:
    panel = playground(stocked, idle_minutes=0.5 / 60)
    until(lambda: "idle minutes" in panel._title.value)
    assert shared.opened() == []
    assert say(panel, "a")
    panel.unload()


@pytest.mark.usefixtures("nothing_open")
def test_an_idle_engine_stays_while_another_panel_shows_it(stocked: Engine) -> None:
    other = playground(stocked)
    panel = playground(stocked)
    panel._idle_minutes = 1.0
    panel._unload_idle()
    assert len(shared.opened()) == 1
    assert panel._session is not None
    # Whoever uses it shows it again.
    say(panel, "a")
    other._unload_idle()
    assert len(shared.opened()) == 1
    panel._unload_idle()
    assert shared.opened() == []
    assert "after 1 idle minutes" in panel._title.value
    until(lambda: "is not loaded" in other._title.value)


@pytest.mark.usefixtures("nothing_open")
def test_opening_another_engine_leaves_what_another_panel_shows(stocked: Engine) -> None:
    other, panel = playground(stocked), playground(stocked)
    small = stocked.under({**stocked.limits, "max_output_len": 100})
    panel.load(small)
    until(lambda: "up to 100 tokens" in panel._title.value)
    assert len(shared.opened()) == 2
    assert say(other, "a")
    panel.load(stocked)
    until(lambda: "up to 256 tokens" in panel._title.value)
    assert [source for source, _ in shared.opened()] == [stocked]


@pytest.mark.usefixtures("nothing_open")
def test_a_cell_that_runs_again_replaces_its_panel_and_keeps_the_engine(
    stocked: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = iter(["1", "1", "2"])
    monkeypatch.setattr(cells, "running_cell", lambda: ("cell", next(runs)))
    first, beside = playground(stocked), playground(stocked)
    session = first._session
    assert beside._session is session
    again = playground(stocked)
    assert first._session is beside._session is None
    assert again._session is session
    until(lambda: sum(t.name == "session-watch" for t in threading.enumerate()) <= 1)
    # What the last run left in a variable still answers.
    assert say(first, "a") == say(again, "a")


@pytest.mark.usefixtures("nothing_open")
def test_a_panel_that_was_closed_lets_go_of_its_engine(stocked: Engine) -> None:
    panel = playground(stocked)
    session = panel._session
    panel.close()
    assert shared.let_go(stocked, panel)
    assert session is not None
    assert not session.closed


@pytest.mark.usefixtures("nothing_open")
def test_unloading_does_not_block_the_kernel(
    stocked: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    panel = playground(stocked)
    release, go = shared.release, threading.Event()
    monkeypatch.setattr(shared, "release", lambda source: go.wait(30.0) and release(source))
    panel._close_button.click()  # returns
    assert "unloading" in panel._title.value
    assert panel._close_button.disabled
    go.set()
    until(lambda: "is not loaded" in panel._title.value)
    assert shared.opened() == []


@pytest.mark.usefixtures("nothing_open")
def test_two_engines_are_open_at_once(stocked: Engine) -> None:
    first = playground(stocked)
    second = playground(stocked.under({**stocked.limits, "max_output_len": 100}))
    assert len(shared.opened()) == 2
    assert say(first, "a") == say(second, "a")


def test_a_panel_whose_engine_another_one_unloads_says_so(stocked: Engine) -> None:
    first, second = playground(stocked), playground(stocked)
    second.unload()
    until(lambda: "is not loaded" in first._title.value)
    assert first._error_text == ""
    assert say(first, "a")


@pytest.mark.usefixtures("nothing_open")
def test_what_does_not_fit_is_refused_before_it_is_loaded(
    stocked: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "memory", lambda: (1 << 30, 1 << 20))
    panel = PlaygroundPanel(stocked)
    until(lambda: "It needs at least" in panel._error_text)
    assert "1.00 MiB of memory are free" in panel._error_text
    assert "is not loaded" in panel._title.value
    assert shared.opened() == []


def test_a_stream_that_runs_says_that_it_does_and_what_the_kv_cache_holds(
    stocked: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_BEAT", 0.0)
    panel = playground(stocked, max_tokens=250, ignore_eos=True, mode="completion")
    touched, seen = threading.Event(), []
    monkeypatch.setattr(panel, "touch", touched.set)
    status = panel._view.status
    monkeypatch.setattr(
        panel._view,
        "status",
        lambda phase, **told: (seen.append((phase, told)), status(phase, **told)),
    )
    panel.send("a")
    assert touched.wait(10)
    panel.wait(20)
    assert [told for phase, told in seen if phase == "decode" and "KV cache" in told]
    assert panel._generation is not None
    assert panel._generation.cache_usage is not None


@pytest.mark.usefixtures("nothing_open")
def test_the_title_tells_the_stages_of_loading(stocked: Engine) -> None:
    titles: list[str] = []

    class Told(PlaygroundPanel):
        def _show_title(self, text: str) -> None:
            titles.append(text)
            super()._show_title(text)

    panel = Told(stocked)
    ready(panel)
    for words in LOADING.values():
        assert any(f"loading engine {stocked.key} ... {words}" in title for title in titles)
    panel.unload()


def test_figures_name_the_context_and_the_percentiles(stocked: Engine) -> None:
    panel = playground(stocked)
    say(panel, "a")
    names = [name for name, _ in panel._view._stream.facts]
    assert names == [
        "tokens",
        "TTFT",
        "tokens/s",
        "context",
        "ended by",
        "ITL p50",
        "ITL p90",
        "ITL p99",
        "KV cache",
    ]


def test_figures_of_a_stream_are_told_four_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    generation, view, ticks = Generation(Sampling(), lambda: None), TokenView(), itertools.count()
    generation.take({"event": "started", "input_tokens": 1, "time": 0.0})
    for number in range(100):
        generation.take_tokens([number], "a ", [], number / 32)
    generation.take({"event": "end", "text": "", "cache_usage": 0.0, "reason": "length"})
    told: list[str] = []
    monkeypatch.setattr(view, "status", lambda phase, **_: told.append(phase))
    # A look at the clock takes as long as a token, and there is one for each of them.
    clock = SimpleNamespace(monotonic=lambda: next(ticks) / 32)
    monkeypatch.setattr(live, "time", clock)
    live.follow(generation, view, {}, pytest.fail)
    assert 10 <= len(told) <= 14, "100 tokens take some 3 s"
    assert view.text == "a " * 100


def test_a_sparkline_rises_with_its_values() -> None:
    assert sparkline([]) is None
    assert sparkline([0.0, 0.0]) == BARS[0] * 2
    assert sparkline([0.0, 7.0, 3.5]) == BARS[0] + BARS[7] + BARS[4]
