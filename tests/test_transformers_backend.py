"""The transformers backend: what generate() gives, streamed, stopped, and told."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import open_session
from tests.faults import until
from tests.test_parity import eager
from workbench.backends import get_backend, make_spec
from workbench.build import DEMO_MODEL, Plan
from workbench.engine import Engine
from workbench.errors import RequestError, SpecError
from workbench.session import Session

CHAT = [{"role": "user", "content": "write a haiku about latency"}]
VALUES = {"backend": "transformers", "dtype": "float32", "device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def recipe(build_engine: Callable[..., Engine]) -> Engine:
    return build_engine(**VALUES, max_input_len=64, max_output_len=1000)


@pytest.fixture(scope="module")
def plain(recipe: Engine) -> Iterator[Session]:
    with open_session(recipe) as session:
        yield session


def test_greedy_tokens_are_those_of_generate(plain: Session) -> None:
    prompts = [[5, 9, 40, 77], [3, 18, 300], [11] * 20]
    ours = [plain.generate(p, max_tokens=64, ignore_eos=True).wait().token_ids for p in prompts]
    assert ours == eager(DEMO_MODEL, prompts)


def test_it_is_the_baseline_of_the_compiled_engine(plain: Session, demo_session: Session) -> None:
    ours, compiled = (s.generate(CHAT, max_tokens=60).wait() for s in (plain, demo_session))
    assert (ours.text, ours.token_ids) == (compiled.text, compiled.token_ids)
    assert ours.finish_reason == compiled.finish_reason == "stop"
    assert ours.input_tokens == compiled.input_tokens


def test_a_seed_gives_a_text_again_and_another_seed_another(plain: Session) -> None:
    options = {"temperature": 1.5, "top_k": 50, "top_p": 0.95, "max_tokens": 30}
    first, again, other = (
        plain.generate(CHAT, seed=seed, ignore_eos=True, **options).wait().token_ids
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_top_k_of_one_is_greedy_at_any_temperature(plain: Session) -> None:
    greedy = plain.generate(CHAT, max_tokens=20).wait().token_ids
    narrow = plain.generate(CHAT, max_tokens=20, temperature=2.0, top_k=1).wait().token_ids
    assert narrow == greedy


@pytest.mark.parametrize(
    "penalty",
    [{"repetition_penalty": 1.3}, {"presence_penalty": 1.5}, {"frequency_penalty": 0.7}],
    ids=lambda penalty: next(iter(penalty)),
)
def test_penalties_mean_what_they_mean_to_the_compiled_engine(
    plain: Session, demo_session: Session, penalty: dict[str, float]
) -> None:
    options = {"max_tokens": 60, "ignore_eos": True, **penalty}
    ours, compiled = (s.generate([7, 7, 7], **options).wait() for s in (plain, demo_session))
    free = plain.generate([7, 7, 7], max_tokens=60, ignore_eos=True).wait()
    assert ours.token_ids == compiled.token_ids != free.token_ids


def test_a_stop_string_ends_the_text_before_it(plain: Session) -> None:
    whole = plain.generate(CHAT).wait().text
    stop = whole[10:14]
    stopped = plain.generate(CHAT, stop=stop).wait()
    assert stopped.text == whole[: whole.index(stop)]
    assert stopped.finish_reason == "stop"


def test_alternatives_are_ordered_and_hold_the_greedy_token(plain: Session) -> None:
    generation = plain.generate(CHAT, max_tokens=12, top_logprobs=5).wait()
    assert len(generation.alternatives) == len(generation.token_ids) == 12
    for token, logprob, place in zip(
        generation.token_ids, generation.logprobs, generation.alternatives, strict=True
    ):
        assert [len(place), place[0].id, place[0].logprob] == [5, token, logprob]
        assert [one.logprob for one in place] == sorted((o.logprob for o in place), reverse=True)
    assert "".join(place[0].text for place in generation.alternatives) == generation.text


def test_without_asking_there_are_no_probabilities(plain: Session) -> None:
    generation = plain.generate(CHAT, max_tokens=3).wait()
    assert (generation.logprobs, generation.alternatives) == ([], [])


def test_requests_wait_in_their_order_and_say_why(plain: Session) -> None:
    first = plain.generate("a", max_tokens=900, ignore_eos=True)
    until(lambda: len(first.token_ids) > 1)
    others = [plain.generate("b", max_tokens=2, ignore_eos=True) for _ in range(2)]
    until(lambda: [g.queue_place for g in others] == [1, 2])
    assert others[0].queue_reason == "transformers' generate() runs one request at a time"
    others[0].cancel()
    until(lambda: others[1].queue_place == 1)
    assert others[0].wait().phase == "stopped"
    began = time.monotonic()
    first.cancel()
    assert first.wait(5.0).phase == "stopped"
    assert time.monotonic() - began < 1.0
    assert len(others[1].wait(20.0).token_ids) == 2
    assert plain.active == 0


@pytest.mark.parametrize(
    ("prompt", "options", "sentence"),
    [
        ([5] * 65, {}, "The prompt has 65 tokens; this engine accepts 64"),
        ([99_999], {}, "The prompt has the token id 99999"),
        ([5], {"max_tokens": 1001}, "generates at most 1000 (max_output_len)"),
        ([5], {"regex": "a+"}, "regex: transformers' generate() has no structured output"),
    ],
)
def test_what_it_cannot_do_is_refused(
    plain: Session, prompt: list[int], options: dict, sentence: str
) -> None:
    with pytest.raises(RequestError) as caught:
        plain.generate(prompt, **options).wait()
    assert sentence in str(caught.value)


def test_it_tells_where_and_how_it_computes(plain: Session) -> None:
    facts = plain.facts
    assert (facts["device"], facts["dtype"], facts["chat_template"]) == ("cpu", "float32", True)
    assert plain.limits["max_batch_size"] == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_it_computes_in_short_floats_too(recipe: Engine, dtype: str) -> None:
    with open_session(recipe, dtype=dtype) as session:
        assert session.facts["dtype"] == dtype
        assert len(session.generate(CHAT, max_tokens=4).wait().token_ids) == 4


def test_limits_do_not_make_another_engine(recipe: Engine) -> None:
    keys = {
        json.dumps(make_spec({**VALUES, **values}).canonical())
        for values in ({}, {"dtype": "bfloat16"}, {"max_output_len": 7}, {"device": "auto"})
    }
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("values", "level", "field", "words"),
    [
        ({"max_input_len": 600, "max_seq_len": 600}, "refuse", "max_input_len", "leaves no room"),
        ({"max_output_len": 4000}, "refuse", "max_seq_len", "beyond the model's context of 2048"),
        ({"device": "cuda"}, "refuse", "device", "no NVIDIA GPU was found"),
        ({"revision": "main"}, "ignored", "revision", "no revisions"),
        ({"device": "cuda", "threads": 2}, "ignored", "threads", "the GPU computes"),
    ],
)
def test_rules(values: dict, level: str, field: str, words: str) -> None:
    plan = Plan.make(make_spec({"backend": "transformers", **values}))
    assert [f for f in plan.findings if (f.level, f.field) == (level, field) and words in str(f)]


def test_the_estimate_holds_what_a_session_takes(recipe: Engine) -> None:
    spec = make_spec({**VALUES, "max_input_len": 1000, "max_output_len": 1000})
    plan = Plan.make(spec)
    assert plan.fit is not None
    with open_session(recipe, **get_backend("transformers").limits(spec)) as session:
        session.generate([5] * 1000, max_tokens=5, ignore_eos=True).wait()
        memory = session.memory()
    assert memory is not None
    assert plan.fit.total_low <= memory <= plan.fit.total_high


def test_the_command_runs_and_gives_the_same_text(tmp_path: Path) -> None:
    spec = make_spec({**VALUES, "max_output_len": 8, "model": str(DEMO_MODEL)})
    (command,) = get_backend("transformers").commands(spec, None)
    text = command.text.replace("PROMPT", "write a haiku").replace(
        "python -", sys.executable + " -"
    )
    answer = subprocess.run(
        ["bash", "-c", text], capture_output=True, text=True, check=True, timeout=200
    )
    assert answer.stdout.startswith("write a haiku\n")


def test_an_unknown_parameter_is_refused() -> None:
    with pytest.raises(SpecError, match="'quantization' is not a known parameter"):
        make_spec(backend="transformers", quantization="int8")
