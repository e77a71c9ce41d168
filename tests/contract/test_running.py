"""Engines of the stand-in load and stream as the contract says."""

from __future__ import annotations

import itertools
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract import rule, wording
from tests.contract.driver import Outcome, Toolchain
from tests.contract.toolchain import make_toolchain
from workbench.build import DEMO_MODEL

LOAD = """
import json, sys
from tensorrt_llm import SamplingParams
from tensorrt_llm._tensorrt_engine import LLM
from tensorrt_llm.llmapi import KvCacheConfig
"""


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toolchain(tmp_path_factory.mktemp("toolchain") / "env")


@pytest.fixture
def toolchain(environment: Path, tmp_path: Path) -> Toolchain:
    return Toolchain(environment, tmp_path)


@pytest.fixture(scope="session")
def engine(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    toolchain = Toolchain(environment, tmp_path_factory.mktemp("engine"))
    done = toolchain.build(toolchain.convert(), "--max_batch_size", 2, "--max_seq_len", 256)
    assert done.returncode == 0, done.stdout + done.stderr
    return toolchain.folder / "engine"


def _answer(toolchain: Toolchain, engine: Path, body: str, **settings: str) -> Outcome:
    script = LOAD + f"engine, model = {str(engine)!r}, {str(DEMO_MODEL)!r}\n" + body
    return toolchain.script(script, **settings)


def _told(done: Outcome) -> list[object]:
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line[5:] for line in done.stdout.splitlines() if line.startswith("JSON ")]
    return [json.loads(line) for line in lines]


def _expected(ids: list[int], count: int, seed: int = 0) -> Iterator[int]:
    history = list(ids)
    for _ in range(count):
        token = rule.next_token(history, 1280, seed)
        if token == 2:
            return
        history.append(token)
        yield token


STREAM = """
llm = LLM(model=engine, tokenizer=model, gather_generation_logits=True)
settings = SamplingParams(max_tokens=12, end_id=2, logprobs=1, return_perf_metrics=True)
seen = set()
for output in llm.generate_async([5, 6, 7], settings, streaming=True):
    one = output.outputs[0]
    seen.add(id(one))
    print("JSON", json.dumps([one.token_ids, one.token_ids_diff, one.text, one.text_diff,
          one.finish_reason, len(one.logprobs_diff)]))
assert len(seen) == 1 and output.finished and output.prompt_token_ids == [5, 6, 7]
timing = one.request_perf_metrics.timing_metrics
assert timing.arrival_time <= timing.first_token_time <= timing.last_token_time
assert llm.get_stats()[0]["inflightBatchingStats"]["numContextRequests"] == 1
llm.shutdown()
"""


def test_a_stream_has_the_real_shapes(toolchain: Toolchain, engine: Path) -> None:
    steps = _told(_answer(toolchain, engine, STREAM))
    expected = list(_expected([5, 6, 7], 12))
    ids: list[int] = []
    text = ""
    for row in steps:
        assert isinstance(row, list)
        ids += row[1]
        text += row[3]
        assert (row[0], row[2]) == (ids, text)
        assert row[5] == len(row[1])
    assert ids == expected
    assert text
    assert [row[4] for row in steps if isinstance(row, list)] == [None] * (len(steps) - 1) + [
        "length" if len(expected) == 12 else "stop"
    ]


def test_a_stream_can_be_read_in_an_event_loop(toolchain: Toolchain, engine: Path) -> None:
    body = """
import asyncio
async def main():
    llm = LLM(model=engine, tokenizer=model)
    async def one(first):
        output = llm.generate_async([first], SamplingParams(max_tokens=40, ignore_eos=True),
                                    streaming=True)
        async for step in output:
            if first == 9 and step.outputs[0].length == 3:
                output.abort()
        return [output.outputs[0].length, output.outputs[0].finish_reason, output.aborted()]
    print("JSON", json.dumps(await asyncio.gather(one(5), one(9), one(7))))
    batch = [row["inflightBatchingStats"]["numScheduledRequests"] for row in llm.get_stats()]
    print("JSON", max(batch))
    llm.shutdown()
asyncio.run(main())
"""
    ends, batch = _told(_answer(toolchain, engine, body))
    assert isinstance(ends, list)
    assert ends[0] == ends[2] == [40, "length", False]
    assert ends[1][1:] == ["cancelled", True]
    assert 3 <= ends[1][0] < 40
    assert batch == 2  # three requests, but the engine takes two at once


def test_sampling_is_honoured(toolchain: Toolchain, engine: Path) -> None:
    body = """
llm = LLM(model=engine, tokenizer=model)
def ids(**named):
    named.setdefault("end_id", 2)
    one = llm.generate([8, 9], SamplingParams(max_tokens=20, **named)).outputs[0]
    print("JSON", json.dumps([one.token_ids, one.finish_reason, one.stop_reason]))
    return one.token_ids
first = ids(ignore_eos=True)
ids(ignore_eos=True, temperature=0.8, seed=1)
ids(ignore_eos=True, temperature=0.8, seed=2)
ids(ignore_eos=True, stop_token_ids=[first[4]])
text = llm.generate("Once", SamplingParams(max_tokens=20, ignore_eos=True)).outputs[0].text
stop = text[6:9]
cut = llm.generate("Once", SamplingParams(max_tokens=20, ignore_eos=True, stop=stop)).outputs[0]
print("JSON", json.dumps([text, stop, cut.text, cut.finish_reason, cut.stop_reason]))
llm.shutdown()
"""
    greedy, one, two, stopped, texts = _told(_answer(toolchain, engine, body))
    assert isinstance(greedy, list)
    assert isinstance(one, list)
    assert isinstance(two, list)
    assert isinstance(texts, list)
    assert len(greedy[0]) == 20
    assert greedy[0] != one[0] != two[0] != greedy[0]
    assert stopped == [greedy[0][:4], "stop", greedy[0][4]]
    text, stop, cut, *reasons = texts
    assert text.startswith(cut)
    assert stop not in cut
    assert reasons == ["stop", stop]


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("LLM(model=engine, max_batch_size=3)", wording.ERRORS["worker"]),
        ("LLM(model=engine, max_beam_width=2)", wording.ERRORS["worker"]),
        ("LLM(model=engine, max_batch=3)", "LLM got invalid argument: max_batch"),
        ("LLM(model=engine, tensor_parallel_size=2)", "consistent with the engine's tp_size 1"),
        ("LLM(model=engine, kv_cache_config=KvCacheConfig(dtype='fp8'))",
         wording.ERRORS["kv_dtype"]),
        ("KvCacheConfig(fraction=0.5)", "fraction"),
        ("from tensorrt_llm import LLM\nLLM(model=engine, fast_build=True)", "to TensorRT"),
        ("from tensorrt_llm import LLM\nLLM(model=engine)", "AssertionError"),
        ("LLM(model=engine).generate([4] * 200, SamplingParams(end_id=2, max_tokens=57))",
         wording.ERRORS["too_long"].format(prompt=200.0, tokens=57, limit=256)),
        ("LLM(model=engine).generate([4])", wording.ERRORS["no_end_id"]),
        ("LLM(model=engine, max_num_tokens=8).generate([4] * 9, SamplingParams(end_id=2))",
         wording.ERRORS["prompt"].format(value=9, limit=8)),
        ("LLM(model=engine).generate([4], SamplingParams(end_id=2, logprobs=1))",
         "requires `gather_generation_logits=True`"),
        ("SamplingParams(n=2)", "Greedy decoding in the LLM API does not allow multiple returns"),
    ],
)  # fmt: skip
def test_the_llm_refuses(toolchain: Toolchain, engine: Path, body: str, complaint: str) -> None:
    done = _answer(toolchain, engine, body)
    assert done.returncode == 1
    assert complaint in done.stderr


def test_the_executor_takes_8192_tokens_unless_it_is_told(toolchain: Toolchain) -> None:
    flags = ("--max_num_tokens", 16384, "--max_batch_size", 8)
    assert toolchain.build(toolchain.convert(), *flags, pace="0.01").returncode == 0
    engine = toolchain.folder / "engine"
    trap = _answer(toolchain, engine, "LLM(model=engine)")
    told = _answer(toolchain, engine, "LLM(model=engine, max_num_tokens=16384)")
    more = _answer(toolchain, engine, "LLM(model=engine, max_num_tokens=20000)")
    assert "TRTGptModel maxNumTokens: 8192" in trap.stdout
    assert "TRTGptModel maxNumTokens: 16384" in told.stdout
    assert "TRTGptModel maxNumTokens: 16384" in more.stdout
    assert "(20000) is larger than model max num tokens (16384)" in more.stdout


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"fail": "load_version_mismatch"}, "expecting library version 9.2.0.5 got 9.3.0.1"),
        ({"fail": "load_wrong_gpu"}, "expecting compute 9.0 got compute 8.9"),
        ({"tensorrt": "10.15.1"}, "expecting library version 10.15.1 got 10.14.1.48"),
        ({"gpu": "NVIDIA L4,8.9,1,22"}, "expecting compute 8.9 got compute 9.0, please rebuild."),
    ],
)
def test_an_engine_loads_only_where_it_belongs(
    toolchain: Toolchain, engine: Path, settings: dict[str, str], sentence: str
) -> None:
    done = _answer(toolchain, engine, "LLM(model=engine)", **settings)
    assert done.returncode == 1
    assert sentence in done.stdout
    assert "Failed to deserialize cuda engine." in done.stdout
    assert "RuntimeError: Executor worker returned error" in done.stderr


def test_a_stream_can_crash(toolchain: Toolchain, engine: Path) -> None:
    body = """
llm = LLM(model=engine)
for step in llm.generate_async([4], SamplingParams(end_id=2, ignore_eos=True), streaming=True):
    print("JSON", step.outputs[0].length, flush=True)
"""
    done = _answer(toolchain, engine, body, fail="stream_crash")
    assert done.returncode == -signal.SIGSEGV
    assert "JSON 6" not in done.stdout


RUNNER = """
import torch
from tensorrt_llm.runtime import ModelRunnerCpp
runner = ModelRunnerCpp.from_dir(engine, max_input_len=16, max_output_len=10, max_batch_size=2)
batch = [torch.tensor([5, 6, 7], dtype=torch.int32), torch.tensor([9], dtype=torch.int32)]
for step in runner.generate(batch, max_new_tokens=8, end_id=2, pad_id=2, streaming=True,
                            return_dict=True, output_sequence_lengths=True):
    ids, lengths = step["output_ids"], step["sequence_lengths"]
    assert ids.shape == (2, 1, 26) and ids.dtype == lengths.dtype == torch.int32
    assert lengths.shape == (2, 1)
    print("JSON", json.dumps([ids[:, 0].tolist(), lengths[:, 0].tolist()]))
whole = runner.generate(batch[:1], max_new_tokens=8, end_id=2)
print("JSON", json.dumps(whole[0, 0].tolist()))
try:
    runner.generate(batch, max_new_tokens=24, end_id=2)
except RuntimeError as error:
    print("JSON", json.dumps(str(error)))
"""


def test_the_runner_gives_tensors_of_everything_so_far(toolchain: Toolchain, engine: Path) -> None:
    *steps, whole, refusal = _told(_answer(toolchain, engine, RUNNER))
    assert isinstance(steps[-1], list)
    rows, lengths = steps[-1]
    for prompt, row, length in zip(([5, 6, 7], [9]), rows, lengths, strict=True):
        expected = [*prompt, *_expected(prompt, 8)]
        assert row[:length] == expected
        assert set(row[length:]) == {2}
    assert whole == rows[0]
    assert "Maximum input length (3) + maximum new tokens (24) exceeds" in str(refusal)
    grown = [row[1] for row in steps if isinstance(row, list)]
    assert all(later >= sooner for sooner, later in itertools.pairwise(grown))
