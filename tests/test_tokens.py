from __future__ import annotations

import itertools
import math
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import InputError, RequestError
from workbench.units import printable
from workbench.widgets.token_stream import Message
from workbench.widgets.tokens import _PERIOD, Alternative, TokenView

AWKWARD = (
    "<script>alert(1)</script> &amp; \x1b[31mred\x1b[0m \x00 \r\n\t|"
    "e\u0301 \U0001f469\u200d\U0001f469\u200d\U0001f467 \u05e9\u05dc\u05d5\u05dd"
)


class Channel:
    """What leaves a view, in order; it can lose messages as a busy server does."""

    def __init__(self, view: TokenView) -> None:
        self.messages: list[Message] = []
        self._arrived = threading.Condition()
        view.send = self._send

    def _send(self, content: Message) -> None:
        with self._arrived:
            self.messages.append(content)
            self._arrived.notify_all()

    def wait_for(self, count: int) -> None:
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self.messages) >= count, timeout=10)


def request(view: TokenView, epoch: int, have: int) -> None:
    """Ask as a browser does, through ipywidgets' own dispatch."""
    content = {"kind": "resync", "epoch": epoch, "have": have}
    view._handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})


def joined(messages: list[Message]) -> str:
    """The text of messages that leave no gap."""
    text = ""
    for message in messages:
        assert message["offset"] <= len(text)
        text = text[: message["offset"]] + message["text"]
    return text


@pytest.fixture
def view() -> Iterator[TokenView]:
    made = TokenView("engine")
    yield made
    made.close()


@pytest.fixture
def channel(view: TokenView) -> Channel:
    return Channel(view)


def test_the_first_text_leaves_at_once_and_the_rest_in_batches(
    view: TokenView, channel: Channel
) -> None:
    start = time.monotonic()
    for _ in range(2000):
        view.append("token ")
    view.finish("finished")
    elapsed = time.monotonic() - start
    assert joined(channel.messages) == "token " * 2000
    # One batch at once, one a period, one from finish().
    assert len(channel.messages) <= 2 + elapsed / _PERIOD


def test_a_pause_between_batches_is_kept_while_text_arrives(
    view: TokenView, channel: Channel
) -> None:
    times = []
    view.send = lambda _: times.append(time.monotonic())
    end = time.monotonic() + 5 * _PERIOD
    while time.monotonic() < end:
        view.append("x")
        time.sleep(0.001)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert gaps
    assert min(gaps) >= _PERIOD


@given(
    pieces=st.lists(st.text(st.characters(exclude_categories=["Cs"]))),
    lost=st.sets(st.integers(0, 30)),
)
def test_a_browser_that_loses_messages_ends_with_the_exact_text(
    pieces: list[str], lost: set[int]
) -> None:
    view = TokenView()
    channel = Channel(view)
    view.reset()
    for piece in pieces:
        view.append(piece)
        view._send_batch()
    view.finish("finished")
    kept = [m for i, m in enumerate(channel.messages) if i not in lost]

    have = ""
    for message in kept:
        if message["offset"] > len(have):
            channel.messages.clear()
            request(view, 1, len(have))
            message = channel.messages[0]  # noqa: PLW2901
        have = have[: message["offset"]] + message["text"]
    channel.messages.clear()
    request(view, 1, len(have))  # the watchdog's: a lost last message leaves no gap
    have += channel.messages[0]["text"]

    assert have == "".join(pieces) == view.text
    assert channel.messages[0]["total"] == len(have)
    view.close()


@pytest.mark.parametrize("cut", range(len(AWKWARD)))
def test_offsets_count_code_points(view: TokenView, channel: Channel, cut: int) -> None:
    view.append(AWKWARD)
    channel.wait_for(1)
    channel.messages.clear()
    request(view, 1, cut)
    [answer] = channel.messages
    assert (answer["offset"], answer["text"]) == (cut, AWKWARD[cut:])


def test_a_browser_that_shows_an_older_stream_gets_the_new_one_whole(
    view: TokenView, channel: Channel
) -> None:
    view.append("old text")
    view.reset("second")
    view.append("new")
    channel.wait_for(1)
    channel.messages.clear()
    request(view, 1, 8)
    [answer] = channel.messages
    assert (answer["epoch"], answer["offset"], answer["text"]) == (2, 0, "new")
    assert answer["title"] == "second"


def test_other_messages_from_a_browser_are_not_answered(view: TokenView, channel: Channel) -> None:
    content = {"kind": "something else"}
    view._handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})
    assert channel.messages == []


def test_the_text_is_synchronised_once_when_the_stream_ends(
    view: TokenView, channel: Channel
) -> None:
    states = []
    view.observe(lambda change: states.append(change["new"]), "_saved")
    view.reset("engine")
    for word in ("some ", "words"):
        view.append(word)
        view.status("decode", tokens=1)
        view._send_batch()
    assert [state["text"] for state in states] == [""]
    view.finish("stopped", tokens=2, TTFT="0.2 s", left_out=None)
    assert len(states) == 2
    saved = view.get_state()["_saved"]
    assert saved["text"] == "some words"
    assert saved["total"] == 10
    assert (saved["title"], saved["phase"]) == ("engine", "stopped")
    assert saved["facts"] == [["tokens", "2"], ["TTFT", "0.2 s"]]


def test_finish_may_be_called_again_with_more_facts(view: TokenView, channel: Channel) -> None:
    view.append("text")
    view.finish("finished")
    view.finish("finished", tokens=1)
    assert channel.messages[-1]["facts"] == [["tokens", "1"]]
    assert joined(channel.messages) == "text"


def test_a_phase_that_ends_may_also_come_through_status(view: TokenView, channel: Channel) -> None:
    view.append("text")
    view.status("failed", reason="the worker died")
    assert channel.messages[-1]["total"] == 4


def test_text_moves_a_waiting_stream_to_decode(view: TokenView, channel: Channel) -> None:
    view.status("prefill")
    view.append("")
    channel.wait_for(1)
    assert channel.messages[-1]["phase"] == "prefill"
    view.append("a")
    channel.wait_for(2)
    assert channel.messages[-1]["phase"] == "decode"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (2000, "2,000"),
        (0, "0"),
        (-3, "-3"),
        (38.2149, "38.2"),
        (0.21, "0.21"),
        (12345.6, "12,346"),
        ("as it is", "as it is"),
    ],
)
def test_facts_are_shown_short(
    view: TokenView, channel: Channel, value: str | float, shown: str
) -> None:
    view.finish("finished", a_b=value)
    assert channel.messages[-1]["facts"] == [["a b", shown]]


def test_the_flusher_ends_with_the_stream(view: TokenView, channel: Channel) -> None:
    view.append("a")
    flusher = view._flusher
    assert flusher is not None
    assert flusher.is_alive()
    view.finish("finished")
    flusher.join(5)
    assert not flusher.is_alive()
    assert view._flusher is None


def test_the_flusher_ends_in_a_long_pause_and_the_next_text_still_leaves(
    view: TokenView, channel: Channel
) -> None:
    view.append("a")
    flusher = view._flusher
    assert flusher is not None
    flusher.join(5)
    assert not flusher.is_alive()
    view.append("b")
    channel.wait_for(2)
    assert joined(channel.messages) == "ab"


def test_text_appended_by_many_threads_is_all_there(view: TokenView, channel: Channel) -> None:
    def write(letter: str) -> None:
        for _ in range(500):
            view.append(letter * 3)

    writers = [threading.Thread(target=write, args=(letter,)) for letter in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    view.finish("finished")
    text = joined(channel.messages)
    assert text == view.text
    assert {text.count(letter) for letter in "abcd"} == {1500}


def test_a_failed_send_does_not_silence_the_view(
    view: TokenView, channel: Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", failures.append)
    send = view.send

    def broken(_: object) -> None:
        raise OSError("the socket is closed")

    view.send = broken
    view.append("lost ")
    flusher = view._flusher
    assert flusher is not None
    flusher.join(5)
    assert [failure.exc_type for failure in failures] == [OSError]

    view.send = send
    view.append("found")
    channel.wait_for(1)
    assert channel.messages[0]["offset"] == len("lost ")  # a gap, so that the browser asks
    request(view, 1, 0)
    assert channel.messages[-1]["text"] == "lost found"


def test_unpaired_surrogates_become_replacement_characters(view: TokenView) -> None:
    view.append("a\ud83d")
    view.append("\ude00b")
    assert view.text == "a\ufffd\ufffdb"


def test_plain_text_stands_in_where_widgets_cannot_be_shown(view: TokenView) -> None:
    assert shown_as(view, "text/plain") == "engine · waiting\nNo text yet."
    view.append(AWKWARD)
    view.finish("finished", tokens=12)
    assert shown_as(view, "text/plain") == f"engine · finished · tokens 12\n{printable(AWKWARD)}"
    assert shown_as(view, "application/vnd.jupyter.widget-view+json")["model_id"] == view.model_id


def shown_as(view: TokenView, kind: str) -> Any:
    bundle = view._repr_mimebundle_()
    assert bundle is not None
    return bundle[0][kind]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v: v.append(b"bytes"), "got bytes as text.*decode"),
        (lambda v: v.append(None), "got NoneType as text"),
        (lambda v: v.reset(3), "got int as title"),
        (lambda v: v.status("running"), '"running" is no phase.*waiting, queued'),
        (lambda v: v.finish("decode"), '"decode" is no phase.*finished, stopped, failed'),
        (lambda v: v.status("decode", tokens=[1]), 'fact "tokens" is list'),
        (lambda v: v.status("decode", done=True), 'fact "done" is bool'),
        (lambda v: (v.finish("stopped"), v.append("x")), r"got text after.*\(stopped\).*reset"),
        (lambda v: (v.finish("stopped"), v.status("decode")), 'got the phase "decode" after'),
    ],
)
def test_misuse_gets_a_sentence(
    view: TokenView, call: Callable[[TokenView], object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        call(view)


class Callbacks:
    """What a panel answers about tokens, played."""

    def __init__(self) -> None:
        self.continued: list[tuple[int, int]] = []

    def alternatives(self, index: int) -> list[Alternative]:
        if index == 1:
            raise RequestError("The engine is not loaded. Load it again.")
        return [Alternative(7, "<b>\ud800", -0.5), Alternative(8, "", -math.inf)]

    def continue_from(self, index: int, token_id: int) -> None:
        self.continued.append((index, token_id))


@pytest.fixture
def callbacks() -> Callbacks:
    return Callbacks()


@pytest.fixture
def asked(callbacks: Callbacks) -> Iterator[TokenView]:
    made = TokenView(
        alternatives=callbacks.alternatives, continue_from=callbacks.continue_from, heat=True
    )
    yield made
    made.close()


def ask(view: TokenView, **content: Any) -> Message:
    """Send as a browser does; return the answer."""
    answers: queue.SimpleQueue[Message] = queue.SimpleQueue()
    view.send = lambda message: answers.put(message) if "kind" in message else None
    put(view, **content)
    return answers.get(timeout=10)


def put(view: TokenView, **content: Any) -> None:
    """Send as a browser does."""
    view._handle_msg({"content": {"data": {"method": "custom", "content": content}}, "buffers": []})


def test_batches_carry_the_tokens_of_their_text(view: TokenView, channel: Channel) -> None:
    view.append("", (-1.0,))
    view.append("\N{GRINNING FACE}", (-2.0,))
    view.append(" more", (-0.5,))
    view._send_batch()
    view.append(" end", (-0.25,))
    view.append(" held back")
    view.finish("finished")
    batches = [m for m in channel.messages if m["text"]]
    assert " ".join(m["spans"] for m in batches) == "1:10000,20000 5:5000 4:2500 10"
    assert view.get_state()["_saved"]["spans"] == "1:10000,20000 5:5000 4:2500 10"
    channel.messages.clear()
    request(view, 1, 6)
    assert channel.messages[0]["spans"] == "4:2500 10"


def test_text_without_tokens_costs_nothing_more(view: TokenView, channel: Channel) -> None:
    view.append("text")
    view.finish("finished")
    assert "spans" not in channel.messages[-1] | view.get_state()["_saved"]


def test_the_pace_is_sent_when_it_changes_and_at_the_end(view: TokenView) -> None:
    sent: list[Message] = []
    view.send = sent.append
    view._wake_flusher = lambda: None
    view.append("a", (-1.0,))
    view._send_batch()
    view.append("b", (-1.0,))
    view._send_batch()
    view.status("decode", tokens=2)
    view._send_batch()
    view.finish("finished")
    assert [len(m["pace"]) if "pace" in m else None for m in sent] == [None, 1, None, 1]


def test_alternatives_are_asked_of_the_callback(asked: TokenView) -> None:
    asked.append("text", (-1.0,))
    answer = ask(asked, kind="alternatives", epoch=1, index=0)
    assert answer == {
        "kind": "alternatives",
        "epoch": 1,
        "index": 0,
        "choices": [[7, "<b>\ufffd", -0.5], [8, "", -1000.0]],
    }


def test_only_the_newest_question_is_answered_while_one_is(
    asked: TokenView, callbacks: Callbacks, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: queue.SimpleQueue[Message] = queue.SimpleQueue()
    asked.append("words", [-1.0] * 9)
    asked.send = lambda message: answers.put(message) if "kind" in message else None
    begun, goes_on, looked = threading.Event(), threading.Event(), []

    def slow(index: int) -> list[Alternative]:
        looked.append(index)
        begun.set()
        assert goes_on.wait(10)
        return []

    monkeypatch.setattr(asked, "_alternatives", slow)
    for index in (2, 3, 4, 5):
        put(asked, kind="alternatives", epoch=1, index=index)
        assert begun.wait(10)
    put(asked, kind="continue", epoch=1, index=6, token_id=42)
    dropped = [answers.get(timeout=10) for _ in range(2)]
    assert [one["index"] for one in dropped] == [3, 4]
    assert {one["error"] for one in dropped} == {
        "Another token was looked at meanwhile. Look at this one again."
    }
    goes_on.set()
    last = [answers.get(timeout=10) for _ in range(3)]
    assert {(one["kind"], one["index"]) for one in last} == {
        ("alternatives", 2), ("alternatives", 5), ("continue", 6)
    }  # fmt: skip
    assert looked == [2, 5]
    assert callbacks.continued == [(6, 42)]


def test_a_callback_that_fails_says_why(asked: TokenView) -> None:
    asked.append("text", (-1.0, -2.0))
    answer = ask(asked, kind="alternatives", epoch=1, index=1)
    assert answer["error"] == "The engine is not loaded. Load it again."


def test_continuing_is_passed_on(asked: TokenView, callbacks: Callbacks) -> None:
    asked.append("text", (-1.0,))
    answer = ask(asked, kind="continue", epoch=1, index=0, token_id=42)
    assert answer == {"kind": "continue", "epoch": 1, "index": 0}
    assert callbacks.continued == [(0, 42)]


@pytest.mark.parametrize(("epoch", "index"), [(0, 0), (2, 0), (1, 1), (1, -1)])
def test_a_token_that_is_gone_is_not_asked_for(
    asked: TokenView, callbacks: Callbacks, epoch: int, index: int
) -> None:
    asked.append("text", (-1.0,))
    answer = ask(asked, kind="continue", epoch=epoch, index=index, token_id=42)
    assert answer["error"] == "This text has been replaced by a newer one. Choose a token of it."
    assert callbacks.continued == []


def test_what_no_callback_answers_is_not_offered(view: TokenView, asked: TokenView) -> None:
    assert view.get_state()["_answers"] == []
    assert asked.get_state()["_answers"] == ["alternatives", "continue"]
    asked.offer(alternatives=True, going_on=False)
    assert asked.get_state()["_answers"] == ["alternatives"]
    view.offer(alternatives=True, going_on=True)
    assert view.get_state()["_answers"] == []
    view.append("text", (-1.0,))
    assert "not available" in ask(view, kind="alternatives", epoch=1, index=0)["error"]
    assert "not available" in ask(view, kind="continue", epoch=1, index=0, token_id=1)["error"]
