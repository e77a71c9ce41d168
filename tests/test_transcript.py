"""Conversations and what is exported from them."""

from __future__ import annotations

import ast
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults import until
from workbench.conversation import Conversation, Turn
from workbench.endpoint import Endpoint
from workbench.engine import Engine
from workbench.errors import RequestError
from workbench.opened import Opened
from workbench.sampling import Sampling
from workbench.sides import Side
from workbench.transcript import (
    comparison_markdown,
    curl_line,
    markdown,
    prompts_snippet,
    python_snippet,
    record_json,
)
from workbench.widgets.playground import PlaygroundPanel

SERVER = Endpoint("http://127.0.0.1:8000/v1", model="m", key_env="PLAY_KEY")


def record(text: str) -> dict[str, Any]:
    return {
        "text": text,
        "sampling": Sampling(seed=3, temperature=0.5).model_dump(mode="json"),
        "output_tokens": 2,
        "ttft": 0.01,
        "itl": None,
        "tokens_per_second": None,
    }


def test_messages_hold_the_system_prompt_and_all_turns_in_their_order() -> None:
    conversation = Conversation("be short")
    conversation.add("hi", record("hello"))
    assert conversation.messages("bye") == [
        {"role": "system", "content": "be short"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "bye"},
    ]
    assert conversation.turns[0].record["output_tokens"] == 2


def test_going_back_forgets_the_turn_and_all_after_it() -> None:
    conversation = Conversation()
    for word in ("one", "two", "three"):
        conversation.add(word, record(word.upper()))
    assert conversation.back_to(1) == "two"
    assert [turn.asked for turn in conversation.turns] == ["one"]
    for number in (1, -1):
        with pytest.raises(RequestError, match="this conversation has 1"):
            conversation.back_to(number)
    conversation.clear()
    assert conversation.messages("x") == [{"role": "user", "content": "x"}]


@given(st.text("`~ \n<a>#", max_size=60))
def test_nothing_in_a_text_ends_its_fence(text: str) -> None:
    lines = markdown([Turn(text, "")], SERVER).split("\n")
    opening = next(n for n, line in enumerate(lines) if line.endswith("`text"))
    fence = lines[opening].removesuffix("text")
    closing = next(n for n in range(opening + 1, len(lines)) if lines[n] == fence)
    assert "\n".join(lines[opening + 1 : closing]) == text
    inside = lines[opening + 1 : closing]
    assert not any(line.strip().startswith(fence) for line in inside)


def test_a_transcript_says_how_each_answer_was_made() -> None:
    text = markdown([Turn("hi", "hello", record("hello"))], SERVER, "be short")
    for words in ("System prompt", "be short", "temperature=0.5, seed=3", "2 tokens", "endpoint"):
        assert words in text


def test_records_are_json_that_comes_back() -> None:
    records = [record("é <b>")]
    assert json.loads(record_json(records)) == records


def test_the_snippet_is_python_with_the_same_prompt_and_options() -> None:
    prompt = [{"role": "user", "content": 'it\'s "quoted"\n' + "word " * 40}]
    tree = ast.parse(python_snippet(SERVER, prompt, Sampling(seed=3, stop=("\n",))))
    assigned = next(node for node in tree.body if isinstance(node, ast.Assign))
    assert ast.literal_eval(assigned.value) == prompt
    (call,) = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "generate"
    ]
    given = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    assert given == {"seed": 3, "stop": ("\n",)}


def test_the_snippet_and_the_curl_lines_of_samples_name_every_seed() -> None:
    snippet = python_snippet(SERVER, "hi", Sampling(seed=3, temperature=0.5, stop="seed"), [4, 5])
    ast.parse(snippet)
    assert "session.generate(prompt, temperature=0.5, stop=('seed',), seed=seed)" in snippet
    assert "for seed in [3, 4, 5]" in snippet
    first, second = curl_line(SERVER, "hi", Sampling(seed=3), [4]).split("\n\n")
    assert '"seed": 3' in first
    assert '"seed": 4' in second


def test_a_transcript_holds_all_samples() -> None:
    turn = Turn("hi", "hello", {**record("hello"), "samples": [record("hey"), record("hum")]})
    text = markdown([turn], SERVER)
    assert text.count("**Another sample**") == 2
    assert "hey" in text
    assert "hum" in text


def test_a_comparison_that_was_stopped_says_what_has_no_answer() -> None:
    side = Side(SERVER, cast("Opened", None), [], [record("hello")])
    compared = {"prompts": ["hi", "bye"], "sides": [{"source": "mine", "memory_bytes": None}]}
    text = comparison_markdown(compared, [side], [], [["they part."], []])
    answered, unanswered = text.split("## Prompt 2")
    assert "hello" in answered
    assert "they part." in answered
    assert "no answer" in unanswered
    assert "Where they part" not in unanswered


def test_the_snippet_of_several_prompts_gives_the_answer_to_each(stocked: Engine) -> None:
    prompt = [{"role": "user", "content": "write a haiku about latency"}]
    script = prompts_snippet(stocked, [prompt, prompt], Sampling(max_tokens=8, seed=1))
    assert _printed(script).count("Latency is kind") == 2


def test_the_snippet_runs_and_gives_the_same_text(stocked: Engine, tmp_path: Path) -> None:
    prompt = [{"role": "user", "content": "write a haiku about latency"}]
    script = python_snippet(stocked, prompt, Sampling(max_tokens=8, seed=1))
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    )
    assert run.stdout.startswith("Latency is kind")


def test_what_a_panel_exports_opens_the_engine_as_the_panel_did(
    stocked: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_HEADLESS", "0")
    engine = stocked.under({"max_output_len": 6, "threads": 1})
    panel = PlaygroundPanel(engine, seed=1, ignore_eos=True, mode="completion")
    until(lambda: not panel._send_button.disabled)
    panel.send("a")
    text = panel.wait(20)["text"]
    assert panel.record is not None
    assert panel.record["output_tokens"] == 6
    assert _printed(panel.export("python")) == text
    panel.continue_from(2, panel._choices_at(2)[1].token_id or 0)
    other = panel.wait(20)["text"]
    assert _printed(panel.export("python")) == other != text
    panel.unload()


def _printed(script: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120
    ).stdout


def test_the_curl_line_names_the_variable_and_not_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAY_KEY", "sk-secret")
    words = shlex.split(curl_line(SERVER, "once", Sampling(seed=3)))
    assert "Authorization: Bearer $PLAY_KEY" in words
    assert json.loads(words[words.index("--data") + 1])["seed"] == 3
    assert "sk-secret" not in python_snippet(SERVER, "once", Sampling())


def test_an_engine_has_no_curl_line_and_says_why(stocked: Engine) -> None:
    text = curl_line(stocked, "once", Sampling())
    assert all(line.startswith("# ") for line in text.splitlines())
    assert "no address to ask" in text
    assert "trtllm-serve" in text
