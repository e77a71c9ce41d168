"""Python code of a model's repository runs when the spec says so, and never otherwise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tiny_models import make_tiny_model
from workbench import store
from workbench.backends import NAMES, get_backend, make_spec
from workbench.build import DEMO_MODEL, start_build
from workbench.engine import Engine, Identity
from workbench.errors import JobError, SpecError
from workbench.model import Model
from workbench.opening import open_engine
from workbench.rules import Finding
from workbench.sampling import Sampling

CODE = """
import pathlib
pathlib.Path({mark!r}).touch()
"""
CLASSES = """
from transformers import LlamaConfig, LlamaForCausalLM

class OwnConfig(LlamaConfig):
    export_model_type = "llama"  # what optimum-intel takes it for

class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""
POINTERS = {
    "AutoConfig": "modeling_own.OwnConfig",
    "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
}


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    """What the code of `own` leaves behind when it runs."""
    return tmp_path / "the code ran"


@pytest.fixture
def own(tmp_path: Path, mark: Path) -> Path:
    """A tiny Llama whose repository has code for a model type that nobody else knows."""
    directory = make_tiny_model("llama", tmp_path / "own")
    (directory / "modeling_own.py").write_text(CODE.format(mark=str(mark)) + CLASSES)
    change(directory / "config.json", model_type="own", auto_map=POINTERS)
    return directory


@pytest.fixture
def gpu(gpu_machine: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with one H100 and the stand-in of TensorRT-LLM."""
    for name, value in gpu_machine.items():
        monkeypatch.setenv(name, value)


OPENVINO = {"quantization": "none", "max_input_len": 64, "max_output_len": 64}


def build(model: Path, *, trusted: bool, **values: Any) -> Engine:
    spec = {"model": str(model), "trust_remote_code": trusted, **values}
    return start_build(make_spec({"backend": "openvino", **spec})).wait()


# --- OpenVINO, with the real libraries


def test_openvino_runs_no_code_unless_the_spec_says_so(own: Path, mark: Path) -> None:
    with pytest.raises(JobError) as caught:
        build(own, trusted=False, **OPENVINO)
    assert "without the Python code of its repository" in str(caught.value)
    assert "switch trust_remote_code on if you trust it" in str(caught.value)
    assert not mark.exists()
    assert store.list_engines() == []


def test_openvino_runs_code_that_the_spec_allows_and_its_engine_works(
    own: Path, mark: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    engine = build(own, trusted=True, **OPENVINO)
    assert mark.exists()
    assert engine.manifest["identity"]["spec"]["trust_remote_code"] is True
    assert not list((tmp_path / "cache").rglob("modeling_own.py"))
    mark.unlink()
    with open_engine(engine) as session:
        generation = session.generate("the harbour", Sampling(max_tokens=4, ignore_eos=True)).wait()
    assert len(generation.token_ids) == 4
    assert not mark.exists()  # a session has no use for it


def test_code_that_is_not_needed_does_not_run_either(own: Path, mark: Path) -> None:
    change(own / "config.json", model_type="llama")
    assert build(own, trusted=False, **OPENVINO).damage(thorough=True) == ""
    assert not mark.exists()


# --- TensorRT-LLM, with the stand-in, which trusts everything by default as the library does


@pytest.mark.parametrize(
    ("trusted", "quantization"),
    # Calibration has the library's own switch on, which must not reach the model.
    [(False, "none"), (True, "none"), (False, "fp8")],
)
@pytest.mark.usefixtures("gpu")
def test_tensorrt_llm_runs_only_what_is_allowed(
    own: Path, mark: Path, tmp_path: Path, trusted: bool, quantization: str
) -> None:
    change(own / "config.json", model_type="llama")
    texts = tmp_path / "texts"
    texts.mkdir()
    (texts / "texts.jsonl").write_text('{"text": "The harbour was quiet."}\n')
    sizes = {"max_seq_len": 256, "max_num_tokens": 256, "max_batch_size": 1}
    values = {"quantization": quantization, "calib_dataset": str(texts)}
    engine = build(own, trusted=trusted, backend="tensorrt_llm", **sizes, **values)
    assert mark.exists() is trusted
    assert_no_code(engine)
    mark.unlink(missing_ok=True)
    with open_engine(engine) as session:
        chat = [{"role": "user", "content": "hello"}]
        session.generate(chat, Sampling(max_tokens=2)).wait()
    assert not mark.exists()


def test_tensorrt_llm_says_what_keeps_it_from_converting(own: Path, mark: Path, gpu: None) -> None:
    change(own / "config.json", architectures=["LlamaForCausalLM"])
    with pytest.raises(JobError, match="without the Python code of its repository, and none"):
        build(own, trusted=False, backend="tensorrt_llm", max_seq_len=256)
    assert not mark.exists()


@pytest.mark.parametrize("trusted", [False, True])
def test_the_pytorch_backend_runs_only_what_is_allowed(
    own: Path, mark: Path, gpu: None, trusted: bool
) -> None:
    change(own / "config.json", model_type="llama")
    limits = {"max_input_len": 64, "max_output_len": 64, "max_num_tokens": 256}
    engine = build(own, trusted=trusted, backend="tensorrt_llm_torch", **limits)
    assert_no_code(engine)
    mark.unlink(missing_ok=True)
    with open_engine(engine) as session:
        session.generate("hello", Sampling(max_tokens=2)).wait()
    assert mark.exists() is trusted


def test_a_model_type_cannot_lead_out_of_a_folder(
    own: Path, gpu: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "for" / "temporaries").mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "for" / "temporaries"))
    change(own / "config.json", model_type="../../escaped", architectures=["LlamaForCausalLM"])
    with pytest.raises(JobError):
        build(own, trusted=False, backend="tensorrt_llm", max_seq_len=256)
    assert not list(tmp_path.rglob("escaped"))


def assert_no_code(engine: Engine) -> None:
    """Nothing in an engine's directory is code, or points to some."""
    assert not list(engine.path.rglob("*.py"))
    for path in engine.path.rglob("*config.json"):
        assert "auto_map" not in path.read_text()


# --- what is said, and the key

LLAMA = Model.read(DEMO_MODEL)


def found(backend: str, model: Model | None, **values: Any) -> list[Finding]:
    spec = make_spec({"backend": backend, **values})
    findings = get_backend(backend).findings(spec, model, ())
    return [finding for finding in findings if finding.field == "trust_remote_code"]


@pytest.mark.parametrize("backend", NAMES)
def test_what_is_said_about_code(backend: str) -> None:
    coded = replace(LLAMA, code=("modeling_own.py", "tokenization_own.py"))
    elsewhere = replace(LLAMA, code=("somebody/else--modeling_own.py",))

    assert found(backend, LLAMA) == []
    assert found(backend, None) == []
    (off,) = found(backend, coded)
    assert off.level == "warn"
    assert "modeling_own.py, tokenization_own.py" in off.reason
    assert "does not run" in off.reason
    assert off.changes == ()  # a click must not allow it
    (unseen,) = found(backend, None, trust_remote_code=True)
    assert unseen.level == "warn"
    assert "will run with your rights" in unseen.reason
    on, missing = found(backend, coded, trust_remote_code=True)
    assert (on.level, missing.level) == ("warn", "refuse")
    assert "modeling_own.py, tokenization_own.py) will run with your rights" in on.reason
    assert "is not in the model's directory" in missing.reason
    assert found(backend, elsewhere, trust_remote_code=True)[1].level == "refuse"
    (useless,) = found(backend, LLAMA, trust_remote_code=True)
    assert useless.level == "ignored"


def test_code_of_another_repository_is_refused_before_a_build(own: Path) -> None:
    change(own / "config.json", auto_map={"AutoConfig": "somebody/else--modeling_own.OwnConfig"})
    with pytest.raises(SpecError, match="belongs to another repository"):
        start_build(make_spec({"model": str(own), "trust_remote_code": True}))


def test_code_is_found_in_both_configurations(own: Path) -> None:
    change(own / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "tokens_own.Fast"]})
    assert Model.read(own).code == ("modeling_own.py", "tokens_own.py")


@pytest.mark.parametrize("pointers", [None, [], "x", {"AutoConfig": 1}, {"AutoConfig": [None]}])
def test_pointers_of_another_shape_point_to_nothing(own: Path, pointers: object) -> None:
    change(own / "config.json", auto_map=pointers)
    assert Model.read(own).code == ()


@pytest.mark.parametrize("backend", NAMES)
def test_the_key_has_it_when_it_is_on_and_is_that_of_earlier_versions_when_off(
    backend: str,
) -> None:
    off = make_spec({"backend": backend}).canonical()
    on = make_spec({"backend": backend, "trust_remote_code": True}).canonical()
    assert "trust_remote_code" not in off
    assert on == {**off, "trust_remote_code": True}


def test_a_key_of_an_earlier_version_is_the_same_now() -> None:
    """Written down before the parameter was there."""
    spec = make_spec({"backend": "openvino"}).canonical()
    assert Identity(spec, "w", {"openvino": "1"}).key == "8e75e6fd6b548a386f0a"


def test_a_change_of_the_code_is_another_engine(own: Path) -> None:
    from workbench.fingerprint import fingerprint

    before = fingerprint(own, None)
    with (own / "modeling_own.py").open("a") as file:
        file.write("# changed\n")
    assert fingerprint(own, None) != before
