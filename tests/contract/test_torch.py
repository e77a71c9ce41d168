"""The stand-in plays the PyTorch backend, and the releases that have nothing else."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from tests.contract import fields, rule, wording
from tests.contract.driver import Outcome, Toolchain
from tests.contract.toolchain import TORCH_PACKAGE, make_toolchain
from workbench.build import DEMO_MODEL

LOAD = """
import asyncio, json, sys
from tensorrt_llm import LLM, SamplingParams
from tensorrt_llm.llmapi import CudaGraphConfig, KvCacheConfig, RequestError
def tell(*values): print("JSON", json.dumps(values))
"""


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toolchain(tmp_path_factory.mktemp("toolchain") / "env")


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_toolchain(tmp_path_factory.mktemp("newer") / "env", version="1.3.0rc22")


@pytest.fixture
def toolchain(environment: Path, tmp_path: Path) -> Toolchain:
    return Toolchain(environment, tmp_path)


def _answer(toolchain: Toolchain, body: str, **settings: str) -> Outcome:
    return toolchain.script(f"{LOAD}model = {str(DEMO_MODEL)!r}\n{body}", **settings)


def _told(done: Outcome) -> list[list[object]]:
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(row[5:]) for row in done.stdout.splitlines() if row.startswith("JSON ")]


def _expected(ids: list[int], count: int) -> list[int]:
    made: list[int] = []
    while len(made) < count:
        token = rule.next_token([*ids, *made], 1280)
        if token == 2:
            break
        made.append(token)
    return made


STREAM = """
llm = LLM(model=model, tokenizer=model, dtype="auto", tensor_parallel_size=1,
          pipeline_parallel_size=1, max_batch_size=2, max_num_tokens=64, max_seq_len=128,
          enable_chunked_prefill=False, enable_iter_perf_stats=True,
          cuda_graph_config=CudaGraphConfig(max_batch_size=2, enable_padding=True),
          kv_cache_config=KvCacheConfig(dtype="fp8", free_gpu_memory_fraction=0.5))
async def one(first, abort=0):
    settings = SamplingParams(max_tokens=20, end_id=2, logprobs=1, return_perf_metrics=True)
    handle = llm.generate_async({"prompt_token_ids": [first, 6]}, sampling_params=settings,
                                streaming=True)
    seen = []
    async for output in handle:
        completion = output.outputs[0]
        assert completion.token_ids[len(seen):] == completion.token_ids_diff
        assert len(completion.logprobs) == completion.length
        seen = list(completion.token_ids)
        if abort and len(seen) == abort:
            handle.abort()
    metrics = completion.request_perf_metrics.timing_metrics
    assert metrics.arrival_time <= metrics.first_token_time <= metrics.last_token_time
    return [seen, completion.finish_reason, output.finished]
async def main():
    return await asyncio.gather(one(5), one(7), one(9, abort=3))
tell(*asyncio.run(main()))
tell(max(row["inflightBatchingStats"]["numScheduledRequests"] for row in llm.get_stats()))
llm.shutdown()
try:
    llm.generate_async([5])
except RuntimeError as failure:
    tell(str(failure))
"""


def test_a_checkpoint_streams_in_the_same_shapes(toolchain: Toolchain) -> None:
    (first, second, third), (batch,), (closed,) = _told(_answer(toolchain, STREAM))
    for prompt, row in zip(([5, 6], [7, 6]), (first, second), strict=True):
        expected = _expected(prompt, 20)
        assert row == [expected, "length" if len(expected) == 20 else "stop", True]
    assert isinstance(third, list)
    assert third[0][:3] == _expected([9, 6], 3)
    assert third[1:] == ["cancelled", True]
    assert batch == 2
    assert closed == wording.ERRORS["shutting_down"]


def test_a_checkpoint_is_served_without_an_end_of_ours(toolchain: Toolchain) -> None:
    body = """
llm = LLM(model, max_seq_len=64, cuda_graph_config=None, return_perf_metrics=True)
one = llm.generate("Once", SamplingParams(max_tokens=100, ignore_eos=True)).outputs[0]
tell(one.length, one.finish_reason, bool(one.text), llm.get_stats())
tell(len(llm.tokenizer.encode("Once")), one.request_perf_metrics is not None)
"""
    (length, *rest), (prompt, measured) = _told(_answer(toolchain, body))
    assert length == 64 - int(str(prompt))  # max_tokens was clipped
    assert rest == ["length", True, []]  # nobody asked for statistics
    assert measured is True


def test_a_guide_decides_the_output(toolchain: Toolchain) -> None:
    body = """
from tensorrt_llm.llmapi import GuidedDecodingParams
llm = LLM(model, guided_decoding_backend="xgrammar")
for guide in (GuidedDecodingParams(regex="moon"), GuidedDecodingParams(json='{"const": 42}')):
    one = llm.generate("Once", SamplingParams(guided_decoding=guide)).outputs[0]
    tell(one.text, one.finish_reason)
try:
    SamplingParams(guided_decoding=GuidedDecodingParams(regex="a", json="{}"))
except ValueError as failure:
    tell(str(failure))
"""
    assert _told(_answer(toolchain, body)) == [
        ["moon", "stop"],
        ["42", "stop"],
        ["Only one guide can be used for a request, but got 2."],
    ]


@pytest.mark.parametrize(
    ("body", "kind", "complaint"),
    [
        ("LLM(model, max_batch=3)", "ValueError", "LLM got invalid argument: max_batch"),
        ("LLM(model, fast_build=True)", "ValueError", "backend: ['fast_build']."),
        ("LLM(model, build_config=None)", "ValueError", "specific to TensorRT backend"),
        ("CudaGraphConfig(batch=3)", "Error", "batch"),
        ("CudaGraphConfig(max_batch_size=-1)", "ValueError", wording.ERRORS["graph_size"]),
        (
            "LLM(model, cuda_graph_config=CudaGraphConfig(batch_sizes=[1, 5], max_batch_size=4))",
            "ValueError",
            "[1, 5], cuda_graph_config.max_batch_size: 4",
        ),
        ("LLM(model, cuda_graph_config=True)", "ValueError", "instance of CudaGraphConfig"),
        ("LLM(model, kv_cache_config=None)", "ValueError", "instance of KvCacheConfig"),
        ("LLM(model, tensor_parallel_size=2)", "RuntimeError", "Only 1 GPUs are available, but 2"),
        ("LLM(model, pipeline_parallel_size=3)", "RuntimeError", "available, but 3 are required"),
        (
            "LLM(model, max_num_tokens=8).generate_async([4] * 9, SamplingParams(end_id=2))",
            "RequestError",
            "(9.0), query length (0) should not exceed max_num_tokens (8)",
        ),
        (
            "LLM(model, max_seq_len=8).generate([4] * 8)",
            "RequestError",
            wording.ERRORS["no_room"].format(room=0, limit=8, prompt=8),
        ),
        ("LLM(model).generate([1280])", "RequestError", wording.ERRORS["token_range"]),
        ("LLM(model).generate([4], SamplingParams(max_tokens=0))", "RequestError", "(0) must be"),
    ],
)
def test_the_llm_refuses(toolchain: Toolchain, body: str, kind: str, complaint: str) -> None:
    done = _answer(toolchain, body)
    assert done.returncode == 1
    assert complaint in done.stderr
    assert f"{kind}: " in done.stderr


def test_a_gpu_without_bfloat16_is_refused(toolchain: Toolchain) -> None:
    done = _answer(toolchain, "LLM(model, dtype='bfloat16')", gpu="Tesla T4,7.5,1,15")
    assert wording.ERRORS["bfloat16"] in done.stderr


def test_an_engine_is_refused(toolchain: Toolchain) -> None:
    assert toolchain.build(toolchain.convert(), pace="0.01").returncode == 0
    assert _answer(toolchain, "LLM('engine')").returncode == 1


def test_two_gpus_hold_two_ranks(toolchain: Toolchain) -> None:
    body = "tell(LLM(model, tensor_parallel_size=2).generate([5]).outputs[0].token_ids)"
    ((ids,),) = _told(_answer(toolchain, body, gpu="NVIDIA H100 80GB HBM3,9.0,2"))
    assert ids == _expected([5], 32)


def test_a_long_prompt_is_taken_in_chunks_where_that_is_enabled(toolchain: Toolchain) -> None:
    body = """
llm = LLM(model, max_num_tokens=8, enable_chunked_prefill=True)
tell(llm.generate([4] * 40, SamplingParams(max_tokens=3)).outputs[0].token_ids)
"""
    ((ids,),) = _told(_answer(toolchain, body))
    assert ids == _expected([4] * 40, 3)


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        ("", ["using inferred value 2048", "Creating CUDA graph instances for 34 batch sizes."]),
        ("max_seq_len=4096", ["self.max_seq_len=4096 is larger", "Setting max_seq_len to 2048. "]),
        (
            "max_batch_size=5, cuda_graph_config=CudaGraphConfig(enable_padding=True)",
            ["for 4 batch sizes.", "warmup for batch size=5, draft_len=0, max_seq_len=2048"],
        ),
    ],
)
def test_loading_says_what_it_does(toolchain: Toolchain, arguments: str, lines: list[str]) -> None:
    body = f"import tensorrt_llm\ntensorrt_llm.logger.set_level('info')\nLLM(model, {arguments})"
    done = _answer(toolchain, body)
    assert done.returncode == 0, done.stderr
    assert all(text in done.stdout for text in ["Using LLM with PyTorch backend", *lines])


def test_the_records_have_the_declared_defaults(toolchain: Toolchain) -> None:
    body = (
        "import dataclasses\ntell(*map(dataclasses.asdict, [CudaGraphConfig(), KvCacheConfig()]))"
    )
    assert _told(_answer(toolchain, body)) == [[fields.CUDA_GRAPH_CONFIG, fields.KV_CACHE_CONFIG]]
    assert not set(fields.TORCH_LLM_ARGS) & {*fields.LLM_ARGS, *fields.TRT_LLM_ARGS}


# --- releases without engines


@pytest.mark.parametrize(
    ("version", "engines"),
    [
        *[(version, True) for version in ("0.20.0", "1.2.1", "1.3.0rc0", "1.3.0rc15")],
        *[(version, False) for version in ("1.3.0rc22", "1.3.0rc100", "1.3.0", "1.4.0rc1", "2.0")],
    ],
)
def test_engines_end_with_a_release_candidate(version: str, engines: bool) -> None:
    assert fields.has_engines(version) == engines


GONE = """
import importlib, json
for name in ("models", "models.automodel", "commands.build", "_tensorrt_engine", "builder"):
    try:
        importlib.import_module(f"tensorrt_llm.{name}")
    except ModuleNotFoundError as failure:
        print("JSON", json.dumps(failure.name))
import tensorrt_llm.commands
from tensorrt_llm import LLM, SamplingParams
import tensorrt_llm
for name in ("BuildConfig", "AutoModelForCausalLM"):
    assert not hasattr(tensorrt_llm, name), name
"""


@pytest.mark.parametrize("by", ["toolchain", "variable"])
def test_a_newer_release_has_no_engine_modules(
    environment: Path, newer: Path, tmp_path: Path, by: str
) -> None:
    made = Toolchain(newer if by == "toolchain" else environment, tmp_path)
    settings = {} if by == "toolchain" else {"version": "1.3.0rc22"}
    done = made.script(GONE, **settings)
    assert done.returncode == 0, done.stderr
    names = [row[5:].strip('"') for row in done.stdout.splitlines() if row.startswith("JSON ")]
    expected = ["models", "models", "commands.build", "_tensorrt_engine", "builder"]
    assert names == [f"tensorrt_llm.{name}" for name in expected]
    assert "TensorRT LLM version: 1.3.0rc22" in done.stdout
    body = "tell(LLM(model).generate([5]).outputs[0].token_ids)"
    ((ids,),) = _told(_answer(made, body, **settings))
    assert ids == _expected([5], 32)


def test_a_newer_toolchain_has_no_tensorrt(newer: Path, tmp_path: Path) -> None:
    script = """
import importlib.metadata, importlib.util
print(importlib.metadata.version("tensorrt_llm"), importlib.util.find_spec("tensorrt"))
"""
    done = Toolchain(newer, tmp_path).run("-c", script)
    assert done.stdout.split() == ["1.3.0rc22", "None"]
    assert not list(newer.parent.parent.glob("lib/*/site-packages/tensorrt-*"))
    assert not (newer.parent / "trtllm-build").exists()


def test_an_older_release_can_be_played_by_a_newer_toolchain(newer: Path, tmp_path: Path) -> None:
    played = Toolchain(newer, tmp_path)
    assert played.convert(version="1.2.1").is_dir()


def test_what_is_left_of_the_package_runs_on_python_3_10() -> None:
    ast.parse(TORCH_PACKAGE, feature_version=(3, 10))
