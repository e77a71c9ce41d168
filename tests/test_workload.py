"""Workloads: the same values make the same requests, of the lengths that were asked for."""

from __future__ import annotations

import itertools
import json
import statistics
from pathlib import Path

import pytest

from workbench.build import DEMO_MODEL
from workbench.errors import InputError, SpecError
from workbench.prompts import content, make_requests, read_prompts, vocabulary_of
from workbench.spec import parameters_of
from workbench.workload import WARMUP, Workload

VOCABULARY = range(10, 500)


def test_every_parameter_says_what_it_is() -> None:
    declared = parameters_of(Workload)
    assert set(declared) == set(Workload.model_fields)
    assert all(parameter.help.endswith(".") for parameter in declared.values())


def test_the_same_workload_makes_the_same_requests_and_another_seed_others() -> None:
    workload = Workload(input_len=30, input_stdev=9.0, output_len=20, output_stdev=5.0)
    again = Workload.parse(workload.model_dump())
    assert make_requests(workload, 0, VOCABULARY) == make_requests(again, 0, VOCABULARY)
    other = workload.replace(seed=1)
    assert make_requests(workload, 0, VOCABULARY) != make_requests(other, 0, VOCABULARY)


def test_no_two_prompts_are_alike_in_warm_up_and_repetitions() -> None:
    workload = Workload(input_len=12, requests=8, warmup=4, repetitions=3)
    prompts = [
        tuple(request.prompt)
        for repetition in (WARMUP, 0, 1, 2)
        for request in make_requests(workload, repetition, VOCABULARY)
    ]
    assert len(prompts) == 4 + 3 * 8
    assert len(set(prompts)) == len(prompts)


def test_fixed_lengths_are_exact_and_random_ones_keep_their_mean() -> None:
    fixed = make_requests(Workload(input_len=33, output_len=7), 0, VOCABULARY)
    assert {(request.input_len, request.output_len) for request in fixed} == {(33, 7)}
    spread = Workload(input_len=100, input_stdev=60.0, output_len=50, output_stdev=10.0)
    inputs, outputs = zip(*spread.lengths(0, 5000), strict=True)
    assert min(inputs) >= 1
    assert max(inputs) <= 199
    assert statistics.fmean(inputs) == pytest.approx(100, abs=2)
    assert statistics.fmean(outputs) == pytest.approx(50, abs=1)
    assert statistics.stdev(outputs) == pytest.approx(10, abs=1)


def test_the_longest_request_is_one_that_is_sent() -> None:
    workload = Workload(
        input_len=100, input_stdev=20.0, output_len=50, output_stdev=10.0,
        requests=6, warmup=4, repetitions=3,
    )  # fmt: skip
    sent = [
        (request.input_len or 0, request.output_len)
        for repetition in (WARMUP, 0, 1, 2)
        for request in make_requests(workload, repetition, VOCABULARY)
    ]
    inputs, outputs = zip(*sent, strict=True)
    longest = workload.longest()
    assert longest == (max(inputs), max(outputs), max(map(sum, sent)))
    # No request is the longest in both, and none comes near what could be drawn.
    assert longest.both < longest.input + longest.output
    assert longest.input < 199
    assert Workload(input_len=7, output_len=5).longest() == (7, 5, 12)
    only_warmup = workload.replace(requests=1, repetitions=1, warmup=40).longest()
    assert only_warmup.input > workload.replace(requests=1, repetitions=1, warmup=0).longest().input


def test_a_rate_spreads_requests_evenly_or_as_independent_users_do() -> None:
    even = Workload(request_rate=4.0, arrivals="constant", requests=5)
    assert even.schedule(0) == [0.0, 0.25, 0.5, 0.75, 1.0]
    random = Workload(request_rate=4.0, requests=4000)
    times = random.schedule(0)
    assert times is not None
    gaps = [b - a for a, b in itertools.pairwise(times)]
    # Of an exponential distribution mean and deviation are the same.
    assert statistics.fmean(gaps) == pytest.approx(0.25, rel=0.1)
    assert statistics.stdev(gaps) == pytest.approx(0.25, rel=0.1)
    assert random.schedule(1) != times
    assert Workload(concurrency=8).schedule(0) is None


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"conurrency": 4}, "'conurrency' is not a known parameter. Did you mean 'concurrency'"),
        ({"requests": 0}, "requests must be a whole number of at least 1"),
        ({"request_rate": 0.0}, "request_rate must be a number above 0"),
        ({"arrivals": "bursty"}, "arrivals must be one of poisson, constant"),
        ({"input_len": 4, "input_stdev": 4.0}, "input_stdev 4 must be below input_len 4"),
    ],
)
def test_what_no_workload_can_be_is_refused(values: dict, sentence: str) -> None:
    with pytest.raises(SpecError, match=sentence):
        Workload.parse(values)


def test_the_vocabulary_has_no_special_token() -> None:
    added = json.loads((DEMO_MODEL / "tokenizer.json").read_text())["added_tokens"]
    vocabulary = vocabulary_of(DEMO_MODEL)
    assert len(vocabulary) > 1000
    assert not {token["id"] for token in added} & set(vocabulary)


def test_a_vocabulary_ends_where_the_embedding_does(tmp_path: Path) -> None:
    tokenizer = {
        "model": {"vocab": [["a", 0.0], ["b", 0.0], ["c", 0.0]]},
        "added_tokens": [{"id": 0}],
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (tmp_path / "config.json").write_text('{"text_config": {"vocab_size": 2}}')
    assert vocabulary_of(tmp_path) == [1]
    (tmp_path / "tokenizer.json").unlink()
    assert vocabulary_of(tmp_path) == [0, 1]
    (tmp_path / "config.json").unlink()
    assert vocabulary_of(tmp_path) == []


def test_without_vocabulary_and_file_there_is_a_sentence() -> None:
    with pytest.raises(InputError, match="Give a file of prompts"):
        make_requests(Workload(), 0)


def test_prompts_come_from_a_text_file_and_repetitions_go_on_in_it(tmp_path: Path) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("one\n\ntwo\nthree\n")
    workload = Workload(prompts=str(path), requests=2, output_len=9)
    first, second = make_requests(workload, 0), make_requests(workload, 1)
    assert [request.prompt for request in first + second] == ["one", "two", "three", "one"]
    assert {request.output_len for request in first} == {9}
    assert first[0].input_len is None


def test_prompts_come_from_json_lines_as_trtllm_bench_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    lines = [
        {"task_id": 0, "prompt": "one", "output_tokens": 5},
        {"task_id": 1, "input_ids": [4, 5, 6], "output_tokens": 8},
        {"messages": [{"role": "user", "content": "two", "name": "x"}]},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    assert read_prompts(path) == [
        ("one", 5),
        ([4, 5, 6], 8),
        ([{"role": "user", "content": "two"}], None),
    ]


@pytest.mark.parametrize(
    "line", ["no json", "[]", '{"prompt": 3}', '{"input_ids": ["a"]}', '{"prompt": ""}',
             '{"prompt": "a", "output_tokens": 0}', '{"messages": [{"role": "user"}]}'],
)  # fmt: skip
def test_a_line_that_is_no_prompt_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text('{"prompt": "fine"}\n' + line)
    with pytest.raises(InputError, match=r"Line 2 of .*prompts.jsonl is no prompt"):
        read_prompts(path)


def test_a_file_that_is_missing_or_empty_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no file of prompts"):
        read_prompts(tmp_path / "none.txt")
    with pytest.raises(InputError, match="There is no file of prompts"):
        content(str(tmp_path / "none.txt"))
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(InputError, match="has no prompt in it"):
        read_prompts(tmp_path / "empty.txt")
