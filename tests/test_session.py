"""Sessions on the real embedded engine: batching, limits, Stop, seeds, crashes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import open_session
from workbench.engine import Engine
from workbench.errors import RequestError, SessionError, SpecError
from workbench.generation import Generation
from workbench.session import Session

CHAT = [{"role": "user", "content": "write a haiku about latency"}]


def _until(condition: object, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def test_the_deltas_are_the_text(demo_session: Session) -> None:
    generation = demo_session.generate(CHAT, max_tokens=64, logprobs=True)
    deltas = list(generation)
    assert "".join(delta.text for delta in deltas) == generation.text
    assert [i for delta in deltas for i in delta.token_ids] == generation.token_ids
    assert generation.finish_reason == "stop"
    assert len(generation.logprobs) == len(generation.token_ids)
    assert all(logprob <= 0 for logprob in generation.logprobs)


def test_the_demo_model_answers_with_three_lines(demo_session: Session) -> None:
    text = demo_session.generate(CHAT).wait().text
    assert len([line for line in text.splitlines() if line.strip()]) == 3


def test_timings_add_up(demo_session: Session) -> None:
    generation = demo_session.generate(CHAT, max_tokens=20, ignore_eos=True).wait()
    timings = generation.timings
    assert len(timings.tokens) == 20 == generation.record()["output_tokens"]
    assert timings.ttft + sum(timings.itl) == pytest.approx(timings.e2e)
    assert 0 < timings.queued < timings.ttft


def test_the_same_seed_gives_the_same_text_also_beside_others(demo_session: Session) -> None:
    options = {"temperature": 1.0, "seed": 5, "max_tokens": 40, "ignore_eos": True}
    alone = demo_session.generate("one", **options).wait().token_ids
    both = [demo_session.generate("one", **{**options, "seed": seed}) for seed in (5, 6)]
    same, other = (generation.wait().token_ids for generation in both)
    assert same == alone
    assert other != alone


def test_more_requests_than_the_batch_wait_and_say_so(long_session: Session) -> None:
    running = [long_session.generate("a", max_tokens=1500, ignore_eos=True) for _ in range(2)]
    late = long_session.generate("a", max_tokens=5, ignore_eos=True)
    _until(lambda: late.queue_place == 1)
    assert late.phase == "queued"
    assert late.queue_reason == "max_batch_size 2 is reached"
    assert len(late.wait().token_ids) == 5
    first_to_end = min(generation.wait().timings.tokens[-1] for generation in running)
    assert late.timings.started > first_to_end


def test_a_late_request_joins_the_running_batch(long_session: Session) -> None:
    early = long_session.generate("a", max_tokens=1500, ignore_eos=True)
    _until(lambda: len(early.token_ids) > 5)
    late = long_session.generate("b", max_tokens=5, ignore_eos=True).wait()
    early.wait()
    assert late.timings.tokens[-1] < early.timings.tokens[-1]


def test_requests_wait_for_room_in_the_kv_cache(demo_engine: Engine) -> None:
    # 8 blocks of 32 tokens: two requests of 5 blocks each do not fit beside each other.
    with open_session(demo_engine, kv_blocks=8) as session:
        first = session.generate([5] * 10, max_tokens=130, ignore_eos=True)
        second = session.generate([6] * 10, max_tokens=130, ignore_eos=True)
        _until(lambda: second.queue_place == 1)
        assert second.queue_reason == "the KV cache of 8 blocks is taken"
        assert len(first.wait().token_ids) == len(second.wait().token_ids) == 130


@pytest.mark.parametrize(
    ("prompt", "options", "sentence"),
    [
        ([5] * 65, {}, "The prompt has 65 tokens; this engine accepts 64 (max_input_len)"),
        ([], {}, "The prompt has no tokens"),
        ([5], {"max_tokens": 257}, "generates at most 256 (max_output_len)"),
        (CHAT[:0], {}, "The prompt has no tokens"),
        ([5, 99_999], {}, "The prompt has the token id 99999; this model knows 0 to"),
        ([{"content": "who speaks?"}], {}, "A chat message needs a text as 'role'"),
    ],
)
def test_what_the_engine_cannot_do_is_refused(
    demo_session: Session, prompt: object, options: dict, sentence: str
) -> None:
    with pytest.raises(RequestError) as caught:
        demo_session.generate(prompt, **options).wait()  # type: ignore[arg-type]
    assert sentence in str(caught.value)
    assert len(demo_session.generate("a", max_tokens=3, ignore_eos=True).wait().token_ids) == 3


def test_a_request_that_the_kv_cache_cannot_hold_is_refused(demo_engine: Engine) -> None:
    with (
        open_session(demo_engine, kv_blocks=4) as session,
        pytest.raises(RequestError, match=r"may need 210 tokens .* holds 128\. .*kv_cache_tokens"),
    ):
        session.generate([5] * 10, max_tokens=200).wait()


def test_prompt_and_output_are_limited_together(demo_engine: Engine) -> None:
    with open_session(demo_engine, max_seq_len=100) as session:
        with pytest.raises(RequestError, match=r"holds 100 in all .* Ask for at most 50"):
            session.generate([5] * 50, max_tokens=51).wait()
        generation = session.generate([5] * 50, ignore_eos=True).wait()
        assert len(generation.token_ids) == 50
        assert generation.finish_reason == "length"


def test_unknown_and_ill_typed_options_are_refused_at_once(demo_session: Session) -> None:
    with pytest.raises(SpecError, match="Did you mean 'temperature'"):
        demo_session.generate("a", temprature=1.0)
    with pytest.raises(SpecError, match="max_tokens must be a whole number"):
        demo_session.generate("a", max_tokens="8")


@pytest.mark.parametrize("prompt", [None, b"abc", ["a"], 3])
def test_what_is_no_prompt_is_refused_at_once(demo_session: Session, prompt: object) -> None:
    with pytest.raises(RequestError, match="A prompt is a text, a list of token ids, or"):
        demo_session.generate(prompt)  # type: ignore[arg-type]
    assert demo_session.active == 0


def test_a_text_that_no_encoding_can_carry_harms_nobody(demo_session: Session) -> None:
    generation = demo_session.generate("hi \ud800 there", max_tokens=3, ignore_eos=True)
    assert len(generation.wait().token_ids) == 3


def test_only_the_request_decides_how_it_is_sampled(demo_engine: Engine, tmp_path: Path) -> None:
    shutil.copytree(demo_engine.path, tmp_path / "engine")
    config = tmp_path / "engine" / "generation_config.json"
    own = json.loads(config.read_text()) | {"num_beams": 3, "top_k": 1, "no_repeat_ngram_size": 2}
    config.write_text(json.dumps(own))
    odd = Engine(tmp_path / "engine", demo_engine.manifest)
    with open_session(odd) as session:
        greedy = session.generate("a", max_tokens=8, ignore_eos=True).wait()
        assert len(greedy.token_ids) == 8
        options = {"max_tokens": 20, "temperature": 2.0, "ignore_eos": True}
        texts = {session.generate("a", seed=seed, **options).wait().text for seed in range(3)}
        assert len(texts) == 3


def test_long_prompts_from_many_threads_do_not_mix(demo_session: Session) -> None:
    refused: list[str] = []

    def ask() -> None:
        try:
            demo_session.generate("word " * 200_000).wait(60)
        except RequestError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 6
    assert not demo_session.closed


def test_iterating_again_ends_at_once(demo_session: Session) -> None:
    generation = demo_session.generate("a", max_tokens=3, ignore_eos=True)
    assert len(list(generation)) >= 3
    assert list(generation) == []


def test_a_stop_string_in_the_last_token_is_a_stop(demo_session: Session) -> None:
    whole = demo_session.generate("a", max_tokens=6, ignore_eos=True).wait()
    last = whole.text[-1]
    before = whole.text.index(last)
    generation = demo_session.generate("a", max_tokens=6, ignore_eos=True, stop=last).wait()
    assert generation.text == whole.text[:before]
    assert generation.finish_reason == "stop"


def test_a_stop_string_ends_the_text_before_it(demo_session: Session) -> None:
    whole = demo_session.generate(CHAT).wait().text
    stop = whole.splitlines()[1]
    generation = demo_session.generate(CHAT, stop=stop).wait()
    assert generation.text == whole[: whole.index(stop)]
    assert generation.finish_reason == "stop"


def test_stop_in_decode_ends_the_stream_at_once(long_session: Session) -> None:
    generation = long_session.generate("a", max_tokens=1900, ignore_eos=True)
    _until(lambda: len(generation.token_ids) > 3)
    asked = time.monotonic()
    generation.cancel()
    generation.wait()
    assert time.monotonic() - asked < 1.0
    assert generation.phase == "stopped"
    assert len(generation.token_ids) < 1900
    generation.cancel()  # again, after the end: nothing happens


def test_stop_ends_a_generation_while_the_engine_is_held_in_a_step(demo_session: Session) -> None:
    os.kill(demo_session.pid, signal.SIGSTOP)  # as a prefill of many seconds holds it
    try:
        generation = demo_session.generate("a", max_tokens=200, ignore_eos=True)
        generation.cancel()
        assert generation.wait(0.1).finish_reason == "cancelled"
        assert (demo_session.active, demo_session.busy) == (1, False)
    finally:
        os.kill(demo_session.pid, signal.SIGCONT)
    _until(lambda: demo_session.active == 0)
    assert (generation.token_ids, generation.text, generation.phase) == ([], "", "stopped")


def test_what_comes_after_stop_is_not_taken(demo_session: Session) -> None:
    generation = demo_session.generate("a", max_tokens=200, ignore_eos=True)
    _until(lambda: len(generation.token_ids) > 3)
    generation.cancel()
    record = generation.record()
    _until(lambda: demo_session.active == 0)
    assert generation.record() == record
    assert [len(list(generation)), len(list(generation))] == [len(record["token_ids"]), 0]


def test_leaving_the_loop_stops(long_session: Session) -> None:
    generation = long_session.generate("a", max_tokens=1900, ignore_eos=True)
    for delta in generation:
        if delta.token_ids:
            break
    assert generation.wait(2.0).phase == "stopped"


def test_stop_in_the_queue(long_session: Session) -> None:
    running = [long_session.generate("a", max_tokens=1500, ignore_eos=True) for _ in range(2)]
    waiting = long_session.generate("a", max_tokens=5)
    _until(lambda: waiting.queue_place == 1)
    waiting.cancel()
    assert waiting.wait(2.0).phase == "stopped"
    assert waiting.token_ids == []
    for generation in running:
        generation.cancel()
        generation.wait()


def test_fifty_times_start_and_stop_leave_nothing_behind(demo_session: Session) -> None:
    threads = set(threading.enumerate())
    for _ in range(50):
        generation = demo_session.generate("a", max_tokens=256, ignore_eos=True)
        _until(lambda g=generation: g.token_ids or g.finish_reason)
        generation.cancel()
        generation.wait()
    _until(lambda: demo_session.active == 0)
    assert set(threading.enumerate()) <= threads
    # All blocks are free again: a full batch of the longest requests still fits.
    last = [demo_session.generate("a", max_tokens=256, ignore_eos=True) for _ in range(2)]
    assert [len(generation.wait().token_ids) for generation in last] == [256, 256]


def test_closing_ends_the_worker(demo_engine: Engine) -> None:
    session = open_session(demo_engine, max_output_len=1900, max_seq_len=1980, kv_blocks=130)
    worker = psutil.Process(session.pid)
    generation = session.generate("a", max_tokens=1900, ignore_eos=True)
    session.close()
    session.close()
    assert not worker.is_running()
    with pytest.raises(SessionError, match="closed while this generation ran"):
        generation.wait(2.0)
    with pytest.raises(SessionError, match="This session is closed"):
        session.generate("a")


def test_a_crash_of_the_worker_is_an_error_and_we_live_on(demo_engine: Engine) -> None:
    with open_session(demo_engine, max_output_len=1900, max_seq_len=1980, kv_blocks=130) as session:
        generation = session.generate("a", max_tokens=1900, ignore_eos=True)
        _until(lambda: generation.token_ids)
        os.kill(session.pid, signal.SIGKILL)
        with pytest.raises(SessionError, match="was killed"):
            generation.wait(5.0)
        assert generation.text
        assert session.closed
        with pytest.raises(SessionError, match="Open the engine again"):
            session.generate("a")


def test_the_worker_ends_when_its_kernel_dies(demo_engine: Engine, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    child = os.fork()
    if child == 0:
        session = open_session(demo_engine)
        session.generate("a", max_tokens=256, ignore_eos=True)
        pid_file.write_text(str(session.pid))
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    worker = int(pid_file.read_text())
    _until(lambda: not psutil.pid_exists(worker))


def test_a_damaged_engine_is_a_sentence(demo_engine: Engine, tmp_path: Path) -> None:
    for path in demo_engine.path.iterdir():
        data = path.read_bytes()
        (tmp_path / path.name).write_bytes(
            data[: len(data) // 2] if path.suffix == ".xml" else data
        )
    damaged = Engine(tmp_path, demo_engine.manifest)
    with pytest.raises(SessionError, match=r"The engine was not loaded\. OpenVINO cannot load"):
        open_session(damaged)


def test_many_threads_may_generate_at_once(demo_session: Session) -> None:
    found: list[Generation] = []

    def work(seed: int) -> None:
        found.append(demo_session.generate("a", max_tokens=20, ignore_eos=True, seed=seed).wait(60))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(generation.token_ids) for generation in found] == [20] * 8


def test_scores_name_the_tokens_and_their_alternatives(demo_session: Session) -> None:
    generation = demo_session.generate(CHAT, max_tokens=12, logprobs=True).wait()
    # The chat template's tokens are not told, so what came stands for a text of its own.
    scores = demo_session.score(generation.token_ids, top=4)
    assert [score.token.id for score in scores] == generation.token_ids[1:]
    for score in scores:
        values = [one.logprob for one in score.alternatives]
        assert len(values) == 4
        assert values == sorted(values, reverse=True)
        assert score.token.logprob <= values[0] <= 0.0


def test_scores_of_generated_tokens_are_those_that_they_had(demo_session: Session) -> None:
    prompt = [5, 9, 40, 77]
    generation = demo_session.generate(
        prompt, max_tokens=100, logprobs=True, ignore_eos=True, temperature=1.2, seed=4
    ).wait()
    scores = demo_session.score([*prompt, *generation.token_ids], start=len(prompt))
    assert [s.token.logprob for s in scores] == pytest.approx(generation.logprobs, abs=1e-4)


def test_an_answer_goes_on_from_what_was_said(demo_session: Session) -> None:
    prompt = [5, 9, 40, 77]
    whole = demo_session.generate(prompt, max_tokens=12, ignore_eos=True).wait()
    said = whole.token_ids[:5]
    rest = demo_session.generate(prompt, said=said, max_tokens=12, ignore_eos=True).wait()
    assert [*said, *rest.token_ids] == whole.token_ids
    scores = demo_session.score([*prompt, *said], top=0, start=len(prompt), begin=len(prompt))
    assert "".join(score.token.text for score in scores) + rest.text == whole.text
    assert scores[0].alternatives == ()
    with pytest.raises(RequestError, match="from a prompt of token ids, not of text"):
        demo_session.generate("a", said=said)
    with pytest.raises(RequestError, match="must begin at or before token 2"):
        demo_session.score([*prompt, *said], start=2, begin=3)


def test_what_was_said_counts_as_output_and_not_as_prompt(demo_session: Session) -> None:
    # 64 tokens are the longest prompt of this engine.
    prompt, options = [5, 9, 40, 77], {"max_tokens": 200, "ignore_eos": True}
    whole = demo_session.generate(prompt, **options).wait().token_ids
    rest = demo_session.generate(prompt, said=whole[:150], **options).wait()
    assert rest.token_ids == whole[150:]
    unlimited = demo_session.generate(prompt, said=whole[:150], ignore_eos=True).wait()
    assert len(unlimited.token_ids) == 256 - 150
    with pytest.raises(RequestError, match="has 200 tokens where it goes on, and may have 200"):
        demo_session.generate(prompt, said=whole, **options).wait()
    with pytest.raises(RequestError, match="The prompt has 65 tokens; this engine accepts 64"):
        demo_session.generate([5] * 65, said=whole[:3]).wait()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"regex": "[0-9]+"}, "the form would begin anew there"),
        ({"json_schema": {"type": "object"}}, "the form would begin anew there"),
        ({"presence_penalty": 0.5}, "count generated tokens alone"),
        ({"frequency_penalty": 0.5}, "count generated tokens alone"),
    ],
)
def test_an_answer_does_not_go_on_under_what_would_begin_anew(
    demo_session: Session, options: dict, sentence: str
) -> None:
    with pytest.raises(RequestError, match=sentence):
        demo_session.generate([5, 9, 40, 77], said=[8], **options).wait()
    assert demo_session.active == 0


@pytest.mark.parametrize(
    ("ids", "start", "sentence"),
    [
        ([5], 1, "A text of 1 tokens has scores from its token 1 on"),
        ([5, 6], 0, "token 0 was asked for"),
        ([5, 99_999], 1, "the token id 99999"),
        ([5] * 321, 1, "The text has 321 tokens; this engine holds 320 (max_seq_len)"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    demo_session: Session, ids: list[int], start: int, sentence: str
) -> None:
    with pytest.raises(RequestError) as caught:
        demo_session.score(ids, start=start)
    assert sentence in str(caught.value)
    assert demo_session.active == 0


def test_output_keeps_to_a_regex_or_a_schema(demo_session: Session) -> None:
    number = demo_session.generate(CHAT, regex="[0-9]{3}-[ab]", max_tokens=30).wait()
    assert re.fullmatch("[0-9]{3}-[ab]", number.text)
    schema = {"type": "array", "items": {"enum": [1, 2]}, "minItems": 2, "maxItems": 2}
    answer = demo_session.generate(
        CHAT, json_schema=schema, max_tokens=200, temperature=1.0, seed=2
    )
    assert set(json.loads(answer.wait().text)) <= {1, 2}


def test_a_form_that_was_read_before_joins_the_batch(demo_session: Session) -> None:
    demo_session.generate(CHAT, regex="[0-9]{2}", max_tokens=30).wait()
    running = demo_session.generate("a", max_tokens=250, ignore_eos=True)
    _until(lambda: len(running.token_ids) > 1)
    assert demo_session.generate(CHAT, regex="[0-9]{2}", max_tokens=30).wait().text.isdigit()
    assert running.phase == "decode"
    running.cancel()
    running.wait()


def test_a_grammar_that_cannot_be_read_is_refused_and_harms_nobody(demo_session: Session) -> None:
    options = {"max_tokens": 100, "ignore_eos": True}
    alone = demo_session.generate("a", **options).wait().token_ids
    before = demo_session.generate("a", **options)
    _until(lambda: len(before.token_ids) > 3)
    unreadable = demo_session.generate("b", regex="((")
    after = demo_session.generate("a", **options)
    _until(lambda: unreadable.queue_place == 1)
    assert "is read while nothing else runs" in unreadable.queue_reason
    with pytest.raises(RequestError, match=r"cannot read the json_schema or regex \(.*parenthesis"):
        unreadable.wait()
    assert before.wait().token_ids == after.wait().token_ids == alone
    with pytest.raises(RequestError, match="cannot read the json_schema"):
        demo_session.generate("b", json_schema={"type": "nonsense"}).wait()
    assert len(demo_session.generate("b", max_tokens=3, ignore_eos=True).wait().token_ids) == 3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"json_schema": "{"}, "the schema is no JSON"),
        ({"json_schema": "[]"}, "a schema is a JSON object"),
        ({"json_schema": "{}", "regex": "a"}, "give json_schema or regex, not both"),
        ({"top_logprobs": 11}, "top_logprobs must be a whole number from 0 to 10"),
    ],
)
def test_forms_of_output_are_checked_before_anything_is_sent(
    demo_session: Session, options: dict, sentence: str
) -> None:
    with pytest.raises(SpecError) as caught:
        demo_session.generate("a", **options)
    assert sentence in str(caught.value)


def test_what_a_backend_lacks_is_refused_with_the_reason(demo_session: Session) -> None:
    with pytest.raises(RequestError, match=r"top_logprobs: OpenVINO GenAI gives .* Session\.score"):
        demo_session.generate("a", top_logprobs=3)
    assert set(demo_session.lacks) == {"top_logprobs"}
