"""The whole TensorRT-LLM path against the stand-in toolchain: form, job, engine, session, panel.

What the stand-in plays is stated in tests/contract; TensorRT-LLM itself does not run here.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from tokenizers import Tokenizer

from tests.conftest import H100
from tests.contract import interface, rule
from tests.contract.toolchain import make_toolchain
from tests.tiny_models import make_tiny_model
from workbench import files, store
from workbench.backends import make_spec
from workbench.backends.trtllm_command import build_arguments
from workbench.backends.trtllm_spec import BUILD_FLAGS, TensorRtLlmSpec
from workbench.bench import run_trial
from workbench.build import DEMO_MODEL, Plan, start_build
from workbench.cli import main
from workbench.engine import Engine
from workbench.errors import (
    JobError,
    RequestError,
    SessionError,
    SpecError,
    StoreError,
    ToolchainError,
)
from workbench.model import Model
from workbench.notebook import read_results, run_notebook
from workbench.opening import open_engine
from workbench.results import find_trial
from workbench.sampling import Sampling
from workbench.session import Session
from workbench.spec import Parameter, parameters_of
from workbench.widgets.build import BuildPanel
from workbench.widgets.form import BuildForm
from workbench.widgets.playground import PlaygroundPanel
from workbench.widgets.stream import StreamPanel

SMALL = {"backend": "tensorrt_llm", "max_batch_size": 4, "max_seq_len": 512, "max_num_tokens": 2048}
VOCABULARY = 1280
NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "10_tensorrt_llm.ipynb"


@pytest.fixture
def gpu(gpu_machine: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with one H100 and both backends' toolchain; more can be set on it."""
    for name, value in gpu_machine.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture(scope="session")
def built(gpu_machine: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with an engine of the demo model, built through the whole path."""
    home = tmp_path_factory.mktemp("trtllm") / "home"
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**gpu_machine, "WORKBENCH_HOME": str(home)}.items():
            patch.setenv(name, value)
        start_build(SMALL).wait()
    return home


@pytest.fixture
def engine(gpu: pytest.MonkeyPatch, built: Path, home: Path) -> Engine:
    """That engine in the test's own home."""
    shutil.copytree(built, home)
    (engine,) = store.list_engines()
    return engine


@pytest.fixture
def session(engine: Engine) -> Iterator[Session]:
    with open_engine(engine) as opened:
        yield opened


def _expected(ids: list[int], length: int, seed: int = 0) -> list[int]:
    """Return what the stand-in's rule generates, without its end token."""
    end = Model.read(DEMO_MODEL).config["eos_token_id"]
    out: list[int] = []
    while len(out) < length:
        token = rule.next_token([*ids, *out], VOCABULARY, seed, end)
        if token == end:
            break
        out.append(token)
    return out


def _until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


# --- trials


@pytest.mark.parametrize("backend", ["tensorrt_llm", "tensorrt_llm_torch"])
def test_a_trial_measures_it_on_its_gpu(
    gpu: pytest.MonkeyPatch, engine: Engine, backend: str
) -> None:
    # Steps long enough to be read one by one on a busy machine: two in one piece are no trial.
    gpu.setenv("WORKBENCH_STANDIN_STEP", "0.1")
    workload = {"input_len": 16, "output_len": 8, "requests": 4, "concurrency": 2}
    more = {} if backend == "tensorrt_llm" else {"max_input_len": 256}
    trial = run_trial({**SMALL, **more, "backend": backend}, workload).require()
    record = trial.record
    assert (record["engine"]["key"] == engine.key) == (backend == "tensorrt_llm")
    assert record["environment"]["device"] == "NVIDIA H100 80GB HBM3"
    assert record["environment"]["toolchain"]["tensorrt-llm"]
    assert record["devices"] == 1
    assert record["memory"]["gpu_bytes"] > 0
    for request in record["repetitions"][0]:
        assert (request["input_tokens"], request["output_tokens"]) == (16, 8)


# --- the command line of a spec


def _random_value(parameter: Parameter, chance: random.Random) -> object:
    if parameter.optional and chance.random() < 0.2:
        return None
    if parameter.kind == "choice":
        return chance.choice(parameter.choices)
    if parameter.kind == "switch":
        return chance.random() < 0.5
    if parameter.kind == "integer":
        low = int(parameter.minimum or 0)
        return chance.randint(low, int(parameter.maximum or low + 100_000))
    if parameter.name == "lora_target_modules":
        return ",".join(chance.sample(interface.LORA_MODULES, 2))
    return chance.choice(["a", "some dir/with space", "a,b"])


def test_any_spec_makes_arguments_that_parse_back_to_it() -> None:
    parser = interface.parser()
    parameters = parameters_of(TensorRtLlmSpec)
    chance = random.Random(0)
    for _ in range(300):
        names = chance.sample(BUILD_FLAGS, chance.randint(0, len(BUILD_FLAGS)))
        chosen = {name: _random_value(parameters[name], chance) for name in names}
        spec = TensorRtLlmSpec.parse({"backend": "tensorrt_llm", **chosen})
        parsed = vars(parser.parse_args(build_arguments(spec, "in", "out", "cache")))
        for name in BUILD_FLAGS:
            value = getattr(spec, name)
            if name == "max_seq_len":
                value = spec.sequence_limit
            if name in ("lora_dir", "lora_target_modules") and value is not None:
                value = value.split(",")
            found = parsed.get(name, parameters[name].default)
            assert found == value, name


def test_the_declared_defaults_are_those_of_the_parser() -> None:
    defaults = vars(interface.parser().parse_args([]))
    parameters = parameters_of(TensorRtLlmSpec)
    for name in BUILD_FLAGS:
        assert defaults.get(name, parameters[name].default) == parameters[name].default, name


# --- building


def test_an_engine_says_what_it_is_and_for_what(engine: Engine) -> None:
    manifest = engine.manifest
    assert manifest["identity"]["device"] == {
        "name": "NVIDIA H100 80GB HBM3",
        "compute capability": "9.0",
    }
    assert manifest["identity"]["toolchain"] == {"tensorrt-llm": "1.2.1", "tensorrt": "10.14.1"}
    assert manifest["facts"]["tensorrt_llm"] == "1.2.1"
    assert {"rank0.engine", "config.json", "tokenizer/tokenizer.json"} <= set(manifest["files"])
    assert not any("checkpoint" in name or "cache" in name for name in manifest["files"])
    assert engine.limits["max_seq_len"] == 512
    assert engine.limits["max_num_tokens"] == 2048
    stages = [stage["name"] for stage in manifest["build"]["stages"]]
    assert stages == [
        *("fingerprint", "import", "convert", "start", "read", "network", "compile", "write"),
        *("tokenizer", "smoke"),
    ]


def test_other_limits_at_load_time_are_a_hit_and_other_shapes_are_not(engine: Engine) -> None:
    build = start_build({**SMALL, "kv_cache_free_gpu_memory_fraction": 0.5, "workers": 2})
    assert build.job is None
    assert build.wait().limits["kv_cache_free_gpu_memory_fraction"] == 0.5
    other = start_build({**SMALL, "max_batch_size": 8}, smoke=False)
    assert other.job is not None
    assert other.wait().key != engine.key
    notes = " ".join(other.job.view().notes)
    assert "max_batch_size (4 there, 8 here)" in notes
    assert "Timings of earlier builds on this GPU are reused." in notes


def test_facts_of_the_log_reach_the_journal(engine: Engine) -> None:
    from workbench.jobs import find_job

    facts = find_job(engine.manifest["build"]["job"]).view().facts
    assert facts["activation_bytes"] > 0
    assert facts["weights_bytes"] > 0
    assert facts["tensorrt_llm"] == "1.2.1"
    lines = [
        line
        for path in (files.home() / "history").glob("tensorrt_llm-*-engines.jsonl")
        for line in files.read_lines(path)[0]
    ]
    (line,) = [line for line in lines if line["engine"] == engine.key]
    assert line["measured"] == {
        "weights": facts["weights_bytes"],
        "activations": facts["activation_bytes"],
    }
    assert line["device"] == "NVIDIA H100 80GB HBM3"


def test_the_old_name_becomes_max_seq_len_and_says_so(gpu: pytest.MonkeyPatch) -> None:
    values = {"max_batch_size": 32, "max_input_len": 300, "max_output_len": 200}
    spec = make_spec({"backend": "tensorrt_llm", "gemm_plugin": "auto", **values})
    (finding,) = [f for f in Plan.make(spec).findings if f.field == "max_output_len"]
    assert "max_seq_len = 300 + 200 = 500" in str(finding)
    assert start_build(spec, smoke=False).wait().limits["max_seq_len"] == 500


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("gpu_oom", "The GPU's memory is not enough"),
        ("host_killed", "most likely because the host's memory ran out"),
        ("unsupported_architecture", "is not supported in TRT-LLM yet"),
        ("assertion", "TensorRT built no engine"),
        ("segfault", "crashed"),
        ("disk_full", "The disk is full"),
        ("import_error", "Open MPI is missing"),
        ("load_version_mismatch", "another version of TensorRT"),
        ("load_wrong_gpu", "another kind of GPU"),
    ],
)
def test_a_failure_is_one_sentence_and_leaves_nothing(
    gpu: pytest.MonkeyPatch, home: Path, how: str, sentence: str
) -> None:
    gpu.setenv("WORKBENCH_STANDIN_FAIL", how)
    build = start_build(SMALL)
    with pytest.raises(JobError, match=sentence) as caught:
        build.wait()
    assert "Traceback" not in str(caught.value)
    assert list((home / "engines").iterdir()) == []


def test_cancel_in_the_middle_of_tensorrt_leaves_nothing(
    gpu: pytest.MonkeyPatch, home: Path
) -> None:
    gpu.setenv("WORKBENCH_STANDIN_FAIL", "hang")
    build = start_build(SMALL)
    assert build.job is not None
    _until(lambda: build.job is not None and "compile" in build.job.view().stages)
    build.cancel()
    with pytest.raises(JobError, match="Cancelled"):
        build.wait()
    assert list((home / "engines").iterdir()) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_two_ranks(gpu: pytest.MonkeyPatch, workers: int) -> None:
    gpu.setenv("STANDIN_GPUS", f"{H100};{H100}")
    gpu.setenv("WORKBENCH_STANDIN_GPU", "NVIDIA H100 80GB HBM3,9.0,2")
    values = {**SMALL, "tp_size": 2, "workers": workers}
    engine = start_build(values).wait()
    assert {"rank0.engine", "rank1.engine"} <= set(engine.manifest["files"])
    assert engine.limits["world_size"] == 2
    stages = [stage["name"] for stage in engine.manifest["build"]["stages"]]
    assert ("compile.1" in stages) == (workers == 1)
    with open_engine(engine) as session:
        assert session.generate([5, 6], max_tokens=8).wait().token_ids == _expected([5, 6], 8)


def test_quantization_that_calibrates(gpu: pytest.MonkeyPatch) -> None:
    engine = start_build({**SMALL, "quantization": "fp8", "calib_size": 8}, smoke=False).wait()
    assert engine.manifest["facts"]["quantization"]["quant_algo"] == "FP8"
    assert "load" in [stage["name"] for stage in engine.manifest["build"]["stages"]]


def test_what_cannot_run_here_is_published_unrun(gpu: pytest.MonkeyPatch) -> None:
    build = start_build({**SMALL, "tp_size": 2})
    engine = build.wait()
    smoke = engine.manifest["build"]["smoke"]
    assert not smoke["ran"]
    assert "GPU" in smoke["why"]
    assert build.job is not None
    assert any("without having been run" in note for note in build.job.view().notes)


def test_another_gpu_is_another_build(gpu: pytest.MonkeyPatch) -> None:
    gpu.setenv("WORKBENCH_STANDIN_FAIL", "hang")
    first = start_build(SMALL)
    gpu.setenv("STANDIN_GPUS", "NVIDIA L40S,8.9,48305799168,47000000000")
    second = start_build(SMALL)
    assert first.job is not None
    assert second.job is not None
    assert first.job.id != second.job.id
    first.cancel()
    second.cancel()


def test_an_adapter_counts_by_its_content_and_may_be_given_relative(
    gpu: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    gpu.chdir(tmp_path)
    values = {**SMALL, "lora_plugin": "auto", "lora_dir": "adapter"}
    engine = start_build(values, smoke=False).wait()
    assert start_build(values, smoke=False).job is None
    (adapter / "adapter_config.json").write_text('{"r": 8}')
    other = start_build(values, smoke=False)
    assert other.job is not None
    assert other.wait().key != engine.key


# --- refusals before anything is spent


def test_a_model_of_another_architecture_is_refused(
    gpu: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = make_tiny_model("qwen2", tmp_path / "model", 0)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(
        json.dumps({**config, "architectures": ["UnheardForCausalLM"]})
    )
    with pytest.raises(SpecError, match="UnheardForCausalLM"):
        start_build({**SMALL, "model": str(model)})


def test_a_missing_tokenizer_is_refused(gpu: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = make_tiny_model("qwen2", tmp_path / "model", 0)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model / name).unlink(missing_ok=True)
    with pytest.raises(SpecError, match="it has no tokenizer"):
        start_build({**SMALL, "model": str(model)})


def test_too_many_gpus_are_told(gpu: pytest.MonkeyPatch) -> None:
    findings = Plan.make(make_spec({**SMALL, "tp_size": 2})).findings
    assert any("tp_size" in f.field and "GPU" in str(f) for f in findings)


def test_an_engine_of_another_version_or_gpu_is_not_opened(
    engine: Engine, gpu: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    older = make_toolchain(tmp_path / "older", version="1.0.0")
    with gpu.context() as patch:
        patch.setenv("WORKBENCH_TOOLCHAIN_TENSORRT_LLM", str(older))
        with pytest.raises(StoreError, match=r"built for tensorrt-llm 1\.2\.1, and this is .*1\.0"):
            open_engine(engine)
    gpu.setenv("STANDIN_GPUS", "NVIDIA L40S,8.9,48305799168,47000000000")
    with pytest.raises(StoreError, match=r"compute capability 9\.0, and this is .*8\.9"):
        open_engine(engine)


def test_without_a_gpu_everything_opens_and_says_what_is_missing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_HEADLESS", "0")
    monkeypatch.delenv("STANDIN_GPUS", raising=False)
    form = BuildForm(make_spec({"backend": "tensorrt_llm", "max_batch_size": 4}))
    assert "trtllm-build" in form._texts.commands
    assert "no NVIDIA GPU" in form.plain()
    panel = BuildPanel(form, start=True)
    _until(lambda: panel._error_text)
    assert (
        "pip install tensorrt-llm==1.2.1 && export WORKBENCH_TOOLCHAIN_TENSORRT_LLM="
        in panel._error_text
    )
    stream = StreamPanel(panel)
    assert stream.plain()


def test_a_toolchain_without_a_gpu_is_refused_with_the_way_out(
    gpu: pytest.MonkeyPatch,
) -> None:
    gpu.delenv("STANDIN_GPUS")
    with pytest.raises(ToolchainError, match="none was found here"):
        start_build(SMALL)


# --- sessions


@pytest.mark.parametrize("runtime", ["llm_api", "model_runner_cpp"])
def test_a_session_streams_the_very_tokens(engine: Engine, runtime: str) -> None:
    decoder = Tokenizer.from_file(str(DEMO_MODEL / "tokenizer.json"))
    engine = engine.under({"runtime": runtime})
    with open_engine(engine) as session:
        for prompt in ([5, 6, 7], [900], list(range(3, 300))):
            generation = session.generate(prompt, max_tokens=40)
            deltas = list(generation)
            assert generation.token_ids == _expected(prompt, 40)
            assert "".join(delta.text for delta in deltas) == decoder.decode(generation.token_ids)
            assert sum(len(delta.token_ids) for delta in deltas) == len(generation.token_ids)
        whole = session.generate([5, 6, 7], max_tokens=40).wait()
        assert whole.finish_reason == ("length" if len(whole.token_ids) == 40 else "stop")


@pytest.mark.parametrize("runtime", ["llm_api", "model_runner_cpp"])
def test_several_at_once_and_cancel_of_one(
    engine: Engine, gpu: pytest.MonkeyPatch, runtime: str
) -> None:
    gpu.setenv("WORKBENCH_STANDIN_STEP", "0.02")
    with open_engine(engine.under({"runtime": runtime})) as session:
        long = session.generate([11], max_tokens=300, ignore_eos=True)
        others = [session.generate([n], max_tokens=10, ignore_eos=True) for n in (20, 21)]
        _until(lambda: len(long.token_ids) > 3)
        long.cancel()
        assert long.wait(10).finish_reason == "cancelled"
        assert len(long.token_ids) < 300
        for number, other in zip((20, 21), others, strict=True):
            assert len(other.wait(20).token_ids) == 10, number
        assert session.active == 0
        if runtime == "model_runner_cpp":
            assert others[0].timings.queued is not None


def test_more_than_the_batch_wait_and_say_so(engine: Engine, gpu: pytest.MonkeyPatch) -> None:
    gpu.setenv("WORKBENCH_STANDIN_STEP", "0.02")
    with open_engine(engine) as session:
        running = [session.generate([n], max_tokens=60, ignore_eos=True) for n in range(30, 35)]
        _until(lambda: running[4].queue_place == 1)
        assert running[4].queue_reason == "max_batch_size 4 is reached"
        for generation in running:
            assert len(generation.wait(30).token_ids) == 60


def test_sampling_seed_stop_and_metrics(session: Session) -> None:
    options = {"temperature": 0.8, "max_tokens": 30, "ignore_eos": True}
    first = session.generate([7, 8], seed=3, **options).wait()
    again = session.generate([7, 8], seed=3, **options).wait()
    other = session.generate([7, 8], seed=4, **options).wait()
    assert first.token_ids == again.token_ids != other.token_ids
    metrics = first.record()["engine_metrics"]
    assert 0 <= metrics["ttft_seconds"] <= metrics["e2e_seconds"]
    stop = first.text[8:11]
    stopped = session.generate([7, 8], Sampling(seed=3, stop=stop, **options)).wait()
    assert stopped.finish_reason == "stop"
    assert stopped.text == first.text[: first.text.index(stop)]


def test_alternatives_and_forms_of_output_are_passed_on(engine: Engine) -> None:
    asked = {"gather_generation_logits": True, "guided_decoding_backend": "xgrammar"}
    with open_engine(engine.under(asked)) as session:
        assert session.lacks == {}
        generation = session.generate([5, 6, 7], max_tokens=12, top_logprobs=3).wait()
        assert generation.token_ids == _expected([5, 6, 7], 12)
        for token, logprob, place in zip(
            generation.token_ids, generation.logprobs, generation.alternatives, strict=True
        ):
            assert [len(place), place[0].id, place[0].logprob] == [3, token, logprob]
            assert [o.logprob for o in place] == sorted((o.logprob for o in place), reverse=True)
            assert all(one.text for one in place)
        plain = session.generate([5, 6, 7], max_tokens=12, logprobs=True).wait()
        assert (plain.logprobs, plain.alternatives) == (generation.logprobs, [])
        assert session.generate("a", json_schema={"const": "moon"}).wait().text == '"moon"'
        assert session.generate("a", regex="moon-42").wait().text == "moon-42"


@pytest.mark.parametrize(
    ("limits", "lacking", "words"),
    [
        ({}, {"json_schema", "regex"}, "Set guided_decoding_backend to xgrammar"),
        ({}, {"logprobs", "top_logprobs"}, "gather_generation_logits"),
        (
            {"runtime": "model_runner_cpp", "gather_generation_logits": True},
            {"logprobs", "top_logprobs", "json_schema", "regex"},
            "Open the engine with runtime='llm_api'",
        ),
    ],
)
def test_what_a_session_was_not_opened_for_is_refused_with_the_reason(
    engine: Engine, limits: dict[str, object], lacking: set[str], words: str
) -> None:
    values = {"logprobs": True, "top_logprobs": 2, "json_schema": {"const": 1}, "regex": "a"}
    with open_engine(engine.under(limits)) as session:
        assert {name for name, why in session.lacks.items() if words in why} == lacking
        for name in lacking:
            with pytest.raises(RequestError, match=f"{name}: .*{words}"):
                session.generate([5], **{name: values[name]})


def test_the_playground_offers_what_the_session_can_do(
    engine: Engine, gpu: pytest.MonkeyPatch
) -> None:
    gpu.setenv("WORKBENCH_HEADLESS", "0")
    options = {"mode": "completion", "max_tokens": 8, "ignore_eos": True}
    panel = PlaygroundPanel(engine.under({"gather_generation_logits": True}), **options)
    _until(lambda: not panel._send_button.disabled)
    panel.send("hello")
    panel.wait(20)
    assert panel._view._answers == ["alternatives", "continue"]
    assert panel._generation is not None
    ids = panel._generation.token_ids
    first, other, *_ = panel._choices_at(2)
    assert first.token_id == ids[2]
    panel.continue_from(2, other.token_id or 0)
    text = panel.wait(20)["text"]
    went_on = panel._generation
    assert went_on.prompt_ids[-3:] == [*ids[:2], other.token_id]
    assert len(went_on.token_ids) == 8 - 3
    assert text.endswith(other.text + went_on.text)
    assert panel._choices_at(3)[0].token_id == went_on.token_ids[0]
    with pytest.raises(RequestError, match="this token was there before"):
        panel._choices_at(0)
    panel.unload()
    panel = PlaygroundPanel(engine, **options)
    _until(lambda: not panel._send_button.disabled)
    panel.send("hello")
    panel.wait(20)
    assert panel._view._answers == []
    panel.unload()


def test_what_does_not_fit_is_refused_before_the_runtime_sees_it(session: Session) -> None:
    for prompt, options, words in (
        (list(range(3, 600)), {}, "max_input_len"),
        ([5], {"max_tokens": 600}, "max_output_len"),
        ([VOCABULARY], {}, "knows 0 to 1279"),
        ([], {}, "no tokens"),
        ([5], {"logprobs": True}, "gather_generation_logits"),
    ):
        with pytest.raises(RequestError, match=words):
            session.generate(prompt, **options).wait()
    assert session.generate([5], max_tokens=4).wait().token_ids


def test_chat_goes_through_the_models_own_template(session: Session) -> None:
    assert session.facts["chat_template"]
    asked = session.generate([{"role": "user", "content": "hello"}], max_tokens=5).wait()
    assert asked.input_tokens is not None
    assert asked.input_tokens > 3


def test_the_real_mpi_spawns_processes_from_our_worker(
    engine: Engine, gpu: pytest.MonkeyPatch
) -> None:
    # TensorRT-LLM does so for each LLM, also on one GPU; they import our main module anew.
    gpu.setenv("WORKBENCH_STANDIN_MPI", "1")
    # Open MPI is that of this environment, not of the toolchain's.
    gpu.setenv("MPI4PY_LIBMPI", f"{sys.prefix}/lib/libmpi.so.40")
    gpu.setenv("OPAL_PREFIX", sys.prefix)
    gpu.setenv("PATH", f"{sys.prefix}/bin", prepend=os.pathsep)
    with open_engine(engine) as session:
        assert session.generate([5], max_tokens=4).wait(30).token_ids
        pid = session.pid
    assert not psutil.pid_exists(pid)


def test_a_crash_of_the_runtime_is_an_error_and_we_live(
    engine: Engine, gpu: pytest.MonkeyPatch
) -> None:
    gpu.setenv("WORKBENCH_STANDIN_FAIL", "stream_crash")
    with open_engine(engine) as session:
        with pytest.raises(SessionError):
            session.generate([5], max_tokens=60, ignore_eos=True).wait(30)
        assert session.closed


# --- from the user's side


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--use_gpt_attention_plugin", "float16"], "use gpt_attention_plugin"),
        (["--world-size", "2"], "it follows from tp_size and pp_size"),
        (["--use_weight_only"], "use quantization='int8_wo'"),
        (["--output_dir=x"], "is set by the workbench"),
    ],
)
def test_flags_of_old_articles_are_answered_on_the_command_line(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(["build", "--backend", "tensorrt_llm", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_the_demo_ends_with_a_report(
    gpu: pytest.MonkeyPatch, home: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["demo", "--backend", "tensorrt_llm", "--max-seq-len", "512"]) == 0
    printed = capsys.readouterr().out
    assert "Versions   workbench" in printed
    assert "tensorrt-llm 1.2.1" in printed
    assert "NVIDIA H100 80GB HBM3, 9.0" in printed
    (account,) = (home / "accounts").iterdir()
    assert json.loads(account.read_text())["build"]["smoke"]["tokens"] == 8


def test_a_demo_that_fails_leaves_its_account_too(
    gpu: pytest.MonkeyPatch, home: Path, capsys: pytest.CaptureFixture
) -> None:
    gpu.setenv("WORKBENCH_STANDIN_FAIL", "gpu_oom")
    assert main(["demo", "--backend", "tensorrt_llm", "--max-seq-len", "512"]) == 1
    (account,) = (home / "accounts").iterdir()
    assert str(account) in capsys.readouterr().err
    told = json.loads(account.read_text())
    assert "memory is not enough" in told["error"]
    assert told["toolchain"]["tensorrt-llm"] == "1.2.1"
    assert told["driver"] == ["580.65.06", "13.0"]
    assert any("OutOfMemory" in line or "out of memory" in line for line in told["log"])


def test_the_notebook_runs_the_well_known_first_example(
    gpu: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # As articles have it, but for the lengths, which the demo model's context does not hold.
    given = {
        "dtype": "bfloat16",
        "gemm_plugin": "auto",
        "max_batch_size": "32",
        "max_input_len": "1024",
        "max_output_len": "256",
        "context_fmha": "enable",
    }
    results = run_notebook(NOTEBOOK, tmp_path / "out.ipynb", given)
    assert store.find_engine(results["engine"]).limits["max_seq_len"] == 1280
    assert results["facts"]["dtype"] == "bfloat16"
    assert results["generation"]["output_tokens"] > 0


def test_the_trial_notebook_takes_no_value_that_is_meant_for_another_backend(
    gpu: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpu.setenv("WORKBENCH_STANDIN_STEP", "0.1")
    given = {**SMALL, "input_len": 8, "output_len": 4, "requests": 2, "warmup": 0}
    results = run_notebook(NOTEBOOK.with_name("04_trial.ipynb"), tmp_path / "out.ipynb", given)
    # The notebook declares int8, float32 and limits of its own for openvino.
    assert find_trial(results["trial"]).spec == make_spec(SMALL).model_dump()


@pytest.mark.usefixtures("gpu")
def test_plain_papermill_runs_the_notebook(tmp_path: Path) -> None:
    output = tmp_path / "out.ipynb"
    command = [sys.executable, "-m", "papermill", str(NOTEBOOK), str(output), "--no-progress-bar"]
    run = subprocess.run(
        [*command, "-p", "max_batch_size", "3", "-p", "kv_cache_free_gpu_memory_fraction", "0.5"],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    results = read_results(output)
    assert results["build"]["smoke"]["ran"]
    assert store.find_engine(results["engine"]).limits["max_batch_size"] == 3


def test_the_panels_build_and_stream(gpu: pytest.MonkeyPatch, home: Path) -> None:
    gpu.setenv("WORKBENCH_HEADLESS", "0")
    form = BuildForm(make_spec(SMALL))
    panel = BuildPanel(form, start=True, smoke=False)
    _until(lambda: panel.engine)
    stream = StreamPanel(panel, prompt="hello", start=True, max_tokens=12, ignore_eos=True)
    _until(lambda: stream.record)
    assert stream.record is not None
    assert stream.record["output_tokens"] == 12
    stream.unload()


def test_switching_the_backend_keeps_what_both_know(gpu: pytest.MonkeyPatch) -> None:
    form = BuildForm(make_spec({"max_batch_size": 7, "kv_cache_tokens": 2048, "group_size": 32}))
    form._choice.value = "tensorrt_llm"
    assert form.spec.backend == "tensorrt_llm"
    assert form.values["max_batch_size"] == 7
    assert form.values["kv_cache_tokens"] == 2048
    assert "trtllm-build" in form._texts.commands
    form._choice.value = "openvino"
    assert form.values["max_batch_size"] == 7
    assert "workbench build" in form._texts.commands


# --- the PyTorch backend


def test_the_pytorch_backend_needs_no_engine(gpu: pytest.MonkeyPatch, home: Path) -> None:
    spec = make_spec({"backend": "tensorrt_llm_torch", "max_input_len": 256, "max_output_len": 256})
    engine = start_build(spec).wait()
    assert engine.manifest["facts"]["checkpoint"] == str(DEMO_MODEL)
    assert engine.bytes < 1 << 20
    with open_engine(engine) as session:
        assert session.generate([5, 6], max_tokens=8).wait().token_ids == _expected([5, 6], 8)
    assert start_build(spec.replace(max_batch_size=3)).wait().key == engine.key


def test_the_pytorch_backend_tells_alternatives_where_its_release_does(
    gpu: pytest.MonkeyPatch, home: Path
) -> None:
    spec = {"backend": "tensorrt_llm_torch", "guided_decoding_backend": "xgrammar"}
    engine = start_build(make_spec(spec), smoke=False).wait()
    with open_engine(engine) as session:
        assert session.lacks == {}
        generation = session.generate([5, 6], max_tokens=8, top_logprobs=2).wait()
        assert [place[0].id for place in generation.alternatives] == generation.token_ids
        assert session.generate("a", regex="moon-42").wait().text == "moon-42"
    gpu.setenv("WORKBENCH_STANDIN_VERSION", "1.1.0")
    with open_engine(engine) as session:
        assert set(session.lacks) == {"top_logprobs"}
        assert session.generate([5, 6], max_tokens=8, logprobs=True).wait().logprobs


def test_a_checkpoint_that_moved_is_found_again(gpu: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(DEMO_MODEL, model)
    values = {"backend": "tensorrt_llm_torch", "max_input_len": 256}
    engine = start_build({**values, "model": str(model)}, smoke=False).wait()
    model.rename(tmp_path / "moved")
    with pytest.raises(StoreError, match="is gone"):
        open_engine(engine)
    build = start_build({**values, "model": str(tmp_path / "moved")}, smoke=False)
    assert build.wait().key == engine.key
    with open_engine(build) as session:
        assert session.generate([5, 6], max_tokens=8).wait().token_ids == _expected([5, 6], 8)


def test_a_checkpoint_that_changed_is_not_opened(gpu: pytest.MonkeyPatch, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(DEMO_MODEL, model)
    values = {"backend": "tensorrt_llm_torch", "model": str(model), "max_input_len": 256}
    engine = start_build(values, smoke=False).wait()
    tokenizer = model / "tokenizer_config.json"
    tokenizer.write_text(tokenizer.read_text() + " ")
    os.utime(tokenizer, ns=(1, 1))
    with pytest.raises(StoreError, match="has changed"):
        open_engine(engine)


def test_a_toolchain_without_the_engine_api_offers_the_other_backend(
    gpu: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    newer = make_toolchain(tmp_path / "newer", version="1.3.0rc22")
    gpu.setenv("WORKBENCH_TOOLCHAIN_TENSORRT_LLM", str(newer))
    with pytest.raises(ToolchainError, match="Use the backend tensorrt_llm_torch"):
        start_build(SMALL)
