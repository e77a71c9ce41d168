"""The transformers backend: what generate() gives, streamed, stopped, and told."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import open_session
from tests.faults import until
from tests.test_parity import eager
from workbench.backends import get_backend, make_spec
from workbench.build import DEMO_MODEL, Plan
from workbench.divergence import Token
from workbench.engine import Engine
from workbench.errors import RequestError, SpecError
from workbench.session import Session
from workbench.steering import Trail, alternatives_at

Ids = list[int]

CHAT = [{"role": "user", "content": "write a haiku about latency"}]
VALUES = {"backend": "transformers", "dtype": "float32", "device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def recipe(build_engine: Callable[..., Engine]) -> Engine:
    return build_engine(**VALUES, max_input_len=64, max_output_len=1000)


@pytest.fixture(scope="module")
def plain(recipe: Engine) -> Iterator[Session]:
    with open_session(recipe) as session:
        yield session


def test_greedy_tokens_are_those_of_generate(plain: Session, demo_session: Session) -> None:
    prompts = [[5, 9, 40, 77], [3, 18, 300], [11] * 20]
    ours = [plain.generate(p, max_tokens=64, ignore_eos=True).wait().token_ids for p in prompts]
    # Each answer again, from its token 6 on, with the second most probable one in its place.
    steered = [_steered(demo_session, prompt, 6) for prompt in prompts]
    asked = [*prompts, *([*prompt, *said] for prompt, said, _ in steered)]
    expected = eager({DEMO_MODEL: asked})[DEMO_MODEL]
    assert ours == expected[:3]
    for (_, said, rest), tokens in zip(steered, expected[3:], strict=True):
        assert rest == tokens[: len(rest)]
        assert len(said) + len(rest) == 64


def _steered(session: Session, prompt: Ids, index: int) -> tuple[Ids, Ids, Ids]:
    """Return a prompt, what was said up to the token that was chosen, and how it goes on."""
    options = {"max_tokens": 64, "ignore_eos": True}
    answer = session.generate(prompt, **options).wait()
    trail = Trail(tuple(prompt), tuple(Token(one, "") for one in answer.token_ids))
    chosen = alternatives_at(session, trail, index)[1]
    said = trail.instead(index, chosen).said
    assert said[:index] == answer.token_ids[:index]
    assert said[index] != answer.token_ids[index]
    return prompt, said, session.generate(prompt, said=said, **options).wait().token_ids


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


def test_repetition_penalty_means_what_it_means_to_the_compiled_engine(
    plain: Session, demo_session: Session
) -> None:
    options = {"max_tokens": 60, "ignore_eos": True}
    free = plain.generate([7, 7, 7], **options).wait().token_ids
    ours, compiled = (
        session.generate([7, 7, 7], repetition_penalty=3.0, **options).wait().token_ids
        for session in (plain, demo_session)
    )
    assert ours == compiled != free


def test_presence_and_frequency_penalties_count_what_was_generated(plain: Session) -> None:
    options = {"max_tokens": 60, "ignore_eos": True, "top_logprobs": 10}
    generation = plain.generate(
        [7, 7, 7], presence_penalty=0.5, frequency_penalty=2.0, **options
    ).wait()
    counts: Counter[int] = Counter()
    changed = 0
    for token, place in zip(generation.token_ids, generation.alternatives, strict=True):
        values = {
            one.id: one.logprob - 2.0 * counts[one.id] - 0.5 * (counts[one.id] > 0) for one in place
        }
        assert token == max(values, key=values.__getitem__)
        changed += token != place[0].id
        counts[token] += 1
    assert changed


def test_penalties_and_limits_count_what_was_said_as_generated(plain: Session) -> None:
    # The longest prompt of this engine is shorter than what was said.
    prompt, options = [5, 9, 40, 77], {"max_tokens": 100, "ignore_eos": True}
    penalties = {"presence_penalty": 0.5, "frequency_penalty": 0.5}
    free = plain.generate(prompt, **options).wait().token_ids
    whole = plain.generate(prompt, **options, **penalties).wait().token_ids
    rest = plain.generate(prompt, said=whole[:80], **options, **penalties).wait().token_ids
    assert [*whole[:80], *rest] == whole != free


def test_scores_of_what_was_generated_are_those_that_it_had(plain: Session) -> None:
    prompt = [5, 9, 40, 77]
    generation = plain.generate(prompt, max_tokens=80, ignore_eos=True, top_logprobs=3).wait()
    scores = plain.score([*prompt, *generation.token_ids], top=3, start=len(prompt))
    assert [s.token.id for s in scores] == generation.token_ids
    assert [s.token.logprob for s in scores] == pytest.approx(generation.logprobs, abs=1e-4)
    for score, place in zip(scores, generation.alternatives, strict=True):
        assert [one.text for one in score.alternatives] == [one.text for one in place]


def test_scores_of_the_compiled_engine_are_those_of_transformers(
    plain: Session, demo_session: Session
) -> None:
    ids = [5, 9, 40, 77, *demo_session.generate([5, 9, 40, 77], max_tokens=90).wait().token_ids]
    ours, theirs = (session.score(ids) for session in (demo_session, plain))
    assert len(ours) == len(theirs) == len(ids) - 1
    for one, other in zip(ours, theirs, strict=True):
        assert one.token.id == other.token.id
        assert math.exp(one.token.logprob) == pytest.approx(math.exp(other.token.logprob), abs=1e-4)
        assert [a.logprob for a in one.alternatives] == pytest.approx(
            [a.logprob for a in other.alternatives], abs=1e-4
        )


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


def test_it_computes_in_the_precision_of_the_model(recipe: Engine) -> None:
    with open_session(recipe, dtype="auto") as session:
        assert session.facts["dtype"] == "bfloat16"
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
