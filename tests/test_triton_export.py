"""Exports for Triton: values from the manifest, the script that fills, the check, the client.

The container, its GPU and Triton are played: templates are our own (tests/triton_templates.py),
versions are empty packages, nvidia-smi is a script. What is checked with the real thing is Triton's
schema of model configurations (tritonclient).
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from tests.servers.scripted import scripted
from tests.servers.triton_frontend import frontend
from tests.triton_templates import VERSIONS, write_templates
from workbench import files
from workbench.build import DEMO_MODEL
from workbench.cli import main
from workbench.engine import Engine, sealed
from workbench.errors import StoreError, ToolchainError
from workbench.export import export_to_run
from workbench.triton_check import check_triton

KEY = "ea3da5ef7e1a40b43840"
H100, L4 = "NVIDIA H100 80GB HBM3, 9.0", "NVIDIA L4, 8.9"
LIMITS = {"max_batch_size": 8, "max_num_tokens": 2048, "max_beam_width": 2, "max_seq_len": 512}


def _engine(folder: Path, tokenizer: str = "{}", **changes: Any) -> Engine:
    """An engine as a build of tensorrt_llm leaves it, without what compiles it."""
    texts = {
        "config.json": json.dumps({"version": "1.2.1", "build_config": LIMITS}),
        "rank0.engine": "plan",
        "tokenizer/tokenizer_config.json": tokenizer,
    }
    root = folder / KEY
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    manifest = {
        "format": 1,
        "key": KEY,
        "identity": {
            "spec": {"backend": "tensorrt_llm", "logits_dtype": None},
            "weights": "w",
            "toolchain": {"tensorrt-llm": "1.2.1", "tensorrt": "10.14.1"},
            "device": {"name": "NVIDIA H100 80GB HBM3", "compute capability": "9.0"},
        },
        "created": 0.0,
        "model": {"name": "demo", "source": str(folder / "checkpoint")},
        "facts": {"dtype": "bfloat16"},
        "files": {
            name: {"bytes": len(text), "sha256": files.checksum(root / name)}
            for name, text in texts.items()
        },
        "limits": {
            **LIMITS,
            "kv_cache_free_gpu_memory_fraction": 0.8,
            "kv_cache_tokens": None,
            "enable_block_reuse": True,
            "enable_chunked_context": False,
            "gpu_weights_percent": 1.0,
            "world_size": 1,
        },
    }
    return Engine(root, sealed({**manifest, **changes}))


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return _engine(tmp_path / "store")


@pytest.fixture
def exported(engine: Engine, tmp_path: Path) -> Path:
    return export_to_run(engine, tmp_path / "out", triton=True)


@pytest.fixture(params=VERSIONS)
def templates(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_templates(tmp_path / "templates", request.param)


def _fill(
    folder: Path,
    *words: str | Path,
    gpus: tuple[str, ...] = (H100,),
    trtllm: str = "1.2.1",
    tensorrt: str = "10.14.1.48",
) -> subprocess.CompletedProcess[str]:
    """Run fill.py in a played container: no package but what says the versions."""
    machine = folder.parent / "machine"
    shutil.rmtree(machine, ignore_errors=True)
    for name, version in {"tensorrt_llm": trtllm, "tensorrt": tensorrt}.items():
        if version:
            about = machine / f"{name}-{version}.dist-info"
            about.mkdir(parents=True)
            (about / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            )
    script = machine / "nvidia-smi"
    script.write_text("#!/bin/sh\n" + "".join(f"echo '{gpu}'\n" for gpu in gpus))
    script.chmod(0o755)
    return subprocess.run(
        [sys.executable, "-S", folder / "fill.py", *words],
        env={"PATH": str(machine), "PYTHONPATH": str(machine)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def _fill_for_12(folder: Path) -> Path:
    templates = write_templates(folder.parent / "of-1.2", "1.2.0rc8")
    answer = _fill(folder, "--templates", templates)
    assert answer.returncode == 0, answer.stderr
    return folder


@pytest.fixture
def in_place(exported: Path) -> Path:
    """An export whose repository was filled."""
    return _fill_for_12(exported)


@pytest.fixture(scope="module")
def filled_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("filled")
    engine = _engine(folder / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME", str(folder / "home"))
        return _fill_for_12(export_to_run(engine, folder / "out", triton=True))


@pytest.fixture
def filled(filled_once: Path, tmp_path: Path) -> Path:
    """A copy of one, which knows where it was filled."""
    return shutil.copytree(filled_once, tmp_path / "copy")


def _config(folder: Path, model: str) -> Any:
    text = (folder / "repository" / model / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_all_values_come_from_the_manifest_and_it_streams(exported: Path, templates: Path) -> None:
    answer = _fill(exported, "--templates", templates)
    assert answer.returncode == 0, answer.stderr
    models = ("ensemble", "preprocessing", "tensorrt_llm", "postprocessing", "tensorrt_llm_bls")
    configs = {model: _config(exported, model) for model in models}
    assert {config.max_batch_size for config in configs.values()} == {8}
    for model in ("tensorrt_llm", "tensorrt_llm_bls"):
        assert configs[model].model_transaction_policy.decoupled
    core = configs["tensorrt_llm"]
    assert core.backend == "tensorrtllm"
    known = {name: value.string_value for name, value in core.parameters.items()}
    assert {
        "gpt_model_path": str(exported / "engine"),
        "gpt_model_type": "inflight_fused_batching",
        "max_beam_width": "2",
        "kv_cache_free_gpu_mem_fraction": "0.8",
        "max_tokens_in_paged_kv_cache": "",
        "enable_kv_cache_reuse": "true",
        "enable_chunked_context": "false",
        "lora_prefetch_dir": "",
    }.items() <= known.items()
    for model in ("preprocessing", "postprocessing"):
        tokenizer = configs[model].parameters["tokenizer_dir"].string_value
        assert tokenizer == str(exported / "engine" / "tokenizer")
    assert "5 models parse" in "\n".join(check_triton(exported))


def test_what_the_session_is_asked_for_reaches_triton(engine: Engine, tmp_path: Path) -> None:
    asked = {"kv_cache_tokens": 4096, "enable_block_reuse": False, "max_batch_size": 2}
    folder = export_to_run(engine.under(asked), tmp_path / "out", triton=True)
    values = json.loads((folder / "values.json").read_text())["must"]
    assert values["tensorrt_llm"]["max_tokens_in_paged_kv_cache"] == "4096"
    assert values["tensorrt_llm"]["enable_kv_cache_reuse"] == "false"
    assert {model["triton_max_batch_size"] for model in values.values()} == {"2"}
    assert values["tensorrt_llm_bls"]["bls_instance_count"] == "2"


@pytest.mark.parametrize(
    ("tokenizer", "word"), [("{}", "true"), ('{"chat_template": "{{ messages }}"}', "false")]
)
def test_special_tokens_are_added_where_no_chat_template_writes_them(
    tmp_path: Path, tokenizer: str, word: str
) -> None:
    folder = export_to_run(_engine(tmp_path, tokenizer), tmp_path / "out", triton=True)
    values = json.loads((folder / "values.json").read_text())["must"]
    assert values["preprocessing"]["add_special_tokens"] == word


def test_the_same_engine_gives_the_same_bytes_without_a_place(tmp_path: Path) -> None:
    first, second = (
        export_to_run(_engine(tmp_path / name), tmp_path / f"{name}-out", triton=True)
        for name in ("a", "b")
    )
    names = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert {"fill.py", "client.py", "values.json", "compose.yaml", "start.sh", "openai.sh"} <= {
        str(name) for name in names
    }
    for name in names:
        data = (first / name).read_bytes()
        assert data == (second / name).read_bytes()
        assert not [
            p for p in (tmp_path, sys.prefix, os.uname().nodename) if str(p).encode() in data
        ]
    with pytest.raises(StoreError, match="was not overwritten"):
        export_to_run(_engine(tmp_path / "c"), first, triton=True)


def test_the_container_is_the_one_that_has_the_engines_versions(
    exported: Path, engine: Engine, tmp_path: Path
) -> None:
    services = yaml.safe_load((exported / "compose.yaml").read_text())["services"]
    assert {service["image"] for service in services.values()} == {
        "nvcr.io/nvidia/tritonserver:26.06-trtllm-python-py3"
    }
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert len(ports) == 4
    assert all(port.startswith("127.0.0.1:") for port in ports)
    identity = engine.manifest["identity"]
    for versions, words in (
        ({"tensorrt-llm": "1.0.9", "tensorrt": "10.14.1"}, "no Triton container .* is known"),
        ({"tensorrt-llm": "1.2.1", "tensorrt": "10.14.2"}, "TensorRT 10.14.2, .* cannot load it"),
        ({"tensorrt-llm": "1.2.1", "tensorrt": "10.14.12"}, "TensorRT 10.14.12, .* cannot load"),
    ):
        other = _engine(tmp_path / "other", identity={**identity, "toolchain": versions})
        with pytest.raises(StoreError, match=f"{other.key} was built .*{words}"):
            export_to_run(other, tmp_path / "none", triton=True)


def test_every_rank_is_started_and_one_serves(tmp_path: Path) -> None:
    base = _engine(tmp_path)
    engine = base.under({"world_size": 2})
    folder = export_to_run(engine, tmp_path / "out", triton=True)
    played = tmp_path / "bin"
    played.mkdir()
    for name, text in {"python3": "exit 0", "mpirun": 'printf "%s\\n" "$@"'}.items():
        (played / name).write_text(f"#!/bin/sh\n{text}\n")
        (played / name).chmod(0o755)
    answer = subprocess.run(
        [folder / "start.sh"],
        env={"PATH": f"{played}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    first, _, second = answer.stdout.partition("\n:\n")
    assert "tritonserver\n--model-repository=repository" in first
    assert "--load-model" not in first
    assert "--model-control-mode=explicit\n--load-model=tensorrt_llm" in second
    assert "prefix0_" in first
    assert "prefix1_" in second


def test_nothing_starts_on_a_machine_that_does_not_fit(exported: Path, tmp_path: Path) -> None:
    played = tmp_path / "bin"
    played.mkdir()
    (played / "python3").write_text("#!/bin/sh\necho no >&2\nexit 1\n")
    (played / "mpirun").write_text("#!/bin/sh\necho started\n")
    for name in ("python3", "mpirun"):
        (played / name).chmod(0o755)
    for script in ("start.sh", "openai.sh"):
        answer = subprocess.run(
            [exported / script],
            env={"PATH": f"{played}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (answer.returncode, answer.stdout, answer.stderr) == (1, "", "no\n")


def test_the_trial_that_the_readme_names_is_a_valid_one(
    exported: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (exported / "README.md").read_text().replace("\\\n", "")
    (line,) = (line for line in text.splitlines() if "workbench trial" in line)
    # The model ends before the output length, which Triton cannot be asked to ignore.
    with scripted(frontend(10), models=["ensemble", "preprocessing"]) as server:
        told = {"http://127.0.0.1:9000/v1": server.url, "engine/tokenizer": str(DEMO_MODEL)}
        words = [told.get(word, word) for word in shlex.split(line)]
        assert main([*words[1:], "--requests=2"]) == 0
    assert "they were counted here" in capsys.readouterr().out


def _change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_placeholder_without_a_value_is_refused(exported: Path, templates: Path) -> None:
    path = templates / "preprocessing" / "config.pbtxt"
    path.write_text(
        path.read_text() + '\nparameters: { key: "x" value: { string_value: "${new}" } }'
    )
    answer = _fill(exported, "--templates", templates)
    assert answer.returncode == 1
    assert "no value for new of preprocessing/config.pbtxt" in answer.stderr
    assert not (exported / "repository").exists()
    assert not (exported / "repository.json").exists()
    assert not list(exported.glob(".tmp*"))


def test_a_value_without_a_placeholder_is_refused(exported: Path, templates: Path) -> None:
    _change(templates / "tensorrt_llm" / "config.pbtxt", "${max_beam_width}", "1")
    answer = _fill(exported, "--templates", templates)
    assert answer.returncode == 1
    assert "no placeholder for max_beam_width of values.json" in answer.stderr


def test_a_template_that_is_not_there_is_refused(exported: Path, templates: Path) -> None:
    shutil.rmtree(templates / "tensorrt_llm_bls")
    answer = _fill(exported, "--templates", templates)
    assert answer.returncode == 1
    assert "no template of tensorrt_llm_bls" in answer.stderr


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ({"trtllm": "1.1.0"}, "built with tensorrt-llm 1.2.1, and here is 1.1.0"),
        ({"trtllm": ""}, "built with tensorrt-llm 1.2.1, and here is none"),
        ({"tensorrt": "10.13.3.9"}, "built with tensorrt 10.14.1, and here is 10.13.3.9"),
        ({"gpus": (L4,)}, "built for compute capability 9.0 .* and here is 8.9 (NVIDIA L4)"),
        ({"gpus": (H100, L4)}, "and here is 8.9"),
        ({"gpus": ()}, "needs 1 GPU(s), and nvidia-smi shows 0"),
    ],
)
def test_another_version_or_gpu_is_refused(
    exported: Path, tmp_path: Path, machine: dict[str, Any], words: str
) -> None:
    folder = write_templates(tmp_path / "of-1.2", "1.2.0rc8")
    answer = _fill(exported, "--templates", folder, **machine)
    assert answer.returncode == 1
    for part in words.split(" .* "):
        assert part in answer.stderr
    assert not (exported / "repository").exists()


@pytest.mark.parametrize("harm", ["missing", "shorter", "another"])
def test_a_half_or_wrong_engine_is_not_filled_for(
    exported: Path, tmp_path: Path, harm: str
) -> None:
    plan, config = exported / "engine" / "rank0.engine", exported / "engine" / "config.json"
    if harm == "missing":
        plan.unlink()
    elif harm == "shorter":
        plan.write_text("pl")
    else:
        _change(config, '"max_batch_size": 8', '"max_batch_size": 4')
    answer = _fill(exported, "--templates", write_templates(tmp_path / "of-1.2", "1.2.0rc8"))
    assert answer.returncode == 1
    assert ("different engines" if harm == "another" else "rank0.engine of") in answer.stderr


def test_a_repository_is_replaced_only_when_asked(in_place: Path, tmp_path: Path) -> None:
    words = ("--templates", tmp_path / "of-1.2")
    mine = in_place / "repository" / "mine.txt"
    mine.write_text("mine")
    answer = _fill(in_place, *words)
    assert answer.returncode == 1
    assert "Say --overwrite" in answer.stderr
    assert mine.exists()
    assert _fill(in_place, *words, "--overwrite").returncode == 0
    assert not mine.exists()
    # Never what the script did not write.
    (in_place / "repository.json").unlink()
    assert _fill(in_place, *words, "--overwrite").returncode == 1


def test_filling_that_was_ended_half_way_can_be_repeated(in_place: Path, tmp_path: Path) -> None:
    words = ("--templates", tmp_path / "of-1.2")
    # Between its record and its move: the record is there, the repository is not yet.
    (in_place / "repository").rename(tmp_path / "gone")
    answer = _fill(in_place, "--check")
    assert answer.returncode == 1
    assert "Fill it again with --overwrite" in answer.stderr
    assert _fill(in_place, *words).returncode == 0
    assert _fill(in_place, "--check").returncode == 0


def test_a_damaged_record_is_a_sentence(in_place: Path) -> None:
    (in_place / "repository.json").write_text('{"key": 3}')
    answer = _fill(in_place, "--check")
    assert answer.returncode == 1
    assert "was filled for the engine 3 in None. Fill it again" in answer.stderr
    assert "Traceback" not in answer.stderr


def test_what_was_filled_is_known_again_at_each_start(in_place: Path) -> None:
    assert _fill(in_place, "--check").returncode == 0
    answer = _fill(in_place, "--check", gpus=(L4,))
    assert answer.returncode == 1
    _change(
        in_place / "repository" / "ensemble" / "config.pbtxt",
        "max_batch_size: 8",
        "max_batch_size: 9",
    )
    answer = _fill(in_place, "--check")
    assert answer.returncode == 1
    assert "ensemble/config.pbtxt is not what was filled" in answer.stderr
    moved = in_place.rename(in_place.with_name("moved"))
    answer = _fill(moved, "--check")
    assert answer.returncode == 1
    assert "was filled for the engine" in answer.stderr


def test_a_folder_with_quotes_stays_one_value(engine: Engine, tmp_path: Path) -> None:
    folder = export_to_run(engine, tmp_path / 'a "b" \\c', triton=True)
    answer = _fill(folder, "--templates", write_templates(tmp_path / "of-1.2", "1.2.0rc8"))
    assert answer.returncode == 0, answer.stderr
    assert check_triton(folder)


Harm = tuple[str, str, str]
CORE, BLS = "repository/tensorrt_llm/config.pbtxt", "repository/tensorrt_llm_bls/config.pbtxt"
ENSEMBLE, BEFORE, AFTER = (
    f"repository/{name}/config.pbtxt" for name in ("ensemble", "preprocessing", "postprocessing")
)
STREAMS = ("decoupled: true", "decoupled: false")
OTHER_LIMIT = ('"max_batch_size": 8', '"max_batch_size": 16')


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        ((ENSEMBLE, "platform:", "platfrom:"), "ensemble/.* no model configuration .*platfrom"),
        ((CORE, "max_batch_size: 8", "max_batch_size: x"), "tensorrt_llm/.* no model config"),
        ((CORE, "TYPE_FP32", "TYPE_FP12"), "no model configuration .*TYPE_FP12"),
        ((AFTER, '"true"', '"${it}"'), r"postprocessing/.* not filled: \$\{it\}"),
        ((ENSEMBLE, 'name: "ensemble"', 'name: "other"'), "ensemble calls itself 'other'"),
        ((ENSEMBLE, 'platform: "ensemble"', ""), "ensemble has the platform ''"),
        ((ENSEMBLE, '"postprocessing"', '"other"'), "does not call postprocessing"),
        ((CORE, '"tensorrtllm"', '"python"'), "tensorrt_llm has the backend 'python'"),
        ((BLS, "max_batch_size: 8", "max_batch_size: 9"), "bls has max_batch_size 9, .* engine 8"),
        ((CORE, *STREAMS), "tensorrt_llm is not decoupled"),
        ((BLS, *STREAMS), "tensorrt_llm_bls is not decoupled"),
        ((CORE, 'string_value: "2"', 'string_value: "4"'), "max_beam_width '4'"),
        ((CORE, '"0.8"', '"0.99"'), "kv_cache_free_gpu_mem_fraction '0.99'"),
        ((BEFORE, "/engine/tokenizer", "/other"), "preprocessing has tokenizer_dir"),
        (("repository.json", '-llm": "1.2.1"', '-llm": "1.1.0"'), "with tensorrt-llm 1.1.0"),
        (("repository.json", "10.14.1.48", "10.14.12"), r"tensorrt 10\.14\.12, .* of 10\.14\.1\."),
        (("repository.json", '"9.0"', '"8.9"'), r"beside NVIDIA H100 80GB HBM3 \(8\.9\)"),
        (("repository.json", KEY, "0000"), "filled for the engine 0000"),
        (("engine/rank0.engine", "plan", "nalp"), "rank0.engine of .* changed"),
        (("engine.json", *OTHER_LIMIT), "max_batch_size is 16, above the engine's 8"),
        (("engine/config.json", "1.2.1", "1.2.0"), "of version 1.2.0, not"),
    ],
)
def test_a_repository_that_does_not_fit_is_refused(filled: Path, harm: Harm, words: str) -> None:
    assert check_triton(filled)
    name, old, new = harm
    _change(filled / name, old, new)
    with pytest.raises(StoreError, match=words):
        check_triton(filled)


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("repository/preprocessing", "preprocessing/.* is missing"),
        ("repository/preprocessing/1/model.py", "preprocessing has no 1/model.py"),
        ("repository/ensemble/1", "ensemble has no folder 1"),
        ("engine/rank0.engine", "rank0.engine of the engine .* is missing"),
    ],
)
def test_a_half_repository_is_refused(filled: Path, gone: str, words: str) -> None:
    path = filled / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(StoreError, match=words):
        check_triton(filled)


def test_a_folder_that_was_not_filled_says_what_to_do(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"no repository\.json .* run fill\.py in the container"):
        check_triton(exported)
    answer = _fill(exported, "--check")
    assert answer.returncode == 1
    assert "repository.json cannot be read" in answer.stderr
    assert "Fill it first" in answer.stderr
    with pytest.raises(StoreError, match=r"no engine\.json .* --triton"):
        check_triton(tmp_path)
    _change(exported / "engine.json", '"backend": "tensorrt_llm"', '"backend": "openvino"')
    with pytest.raises(StoreError, match=r"no engine of tensorrt_llm.* --triton"):
        check_triton(exported)


def test_a_missing_schema_is_one_sentence(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    with pytest.raises(ToolchainError, match=r"install 'trtllm-workbench\[triton\]'"):
        check_triton(filled)


def test_the_command_line_validates(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(filled)]) == 0
    assert "5 models parse" in capsys.readouterr().out
    _change(filled / CORE, *STREAMS)
    assert main(["validate", str(filled)]) == 1
    assert "tensorrt_llm is not decoupled" in capsys.readouterr().err


def test_an_embedded_engine_is_refused_by_name(
    stocked: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", stocked.key, str(tmp_path / "out"), "--triton"]) == 1
    assert f"{stocked.key} is of the backend openvino, and Triton's" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_what_needs_more_than_its_manifest_says_is_refused(tmp_path: Path) -> None:
    base = _engine(tmp_path)
    spec = {"backend": "tensorrt_llm", "speculative_decoding_mode": "medusa"}
    engine = _engine(tmp_path, identity={**base.manifest["identity"], "spec": spec})
    with pytest.raises(StoreError, match=rf"{KEY} decodes speculatively \(medusa\)"):
        export_to_run(engine, tmp_path / "out", triton=True)


ASKED: list[tuple[str, dict[str, Any]]] = []


class _Triton(BaseHTTPRequestHandler):
    """Triton's generate extension, played (server docs/protocol/extension_generate.md)."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ASKED.append((self.path, body))
        streams = self.path.endswith("_stream")
        answers: list[dict[str, str]] = [{"text_output": "one "}, {"text_output": "two"}]
        if body["text_input"] == "break":
            answers = [{"text_output": "one "}, {"error": "out of blocks"}]
        status = 400 if body["text_input"] == "refuse" else 200
        if status == 400:
            data = json.dumps({"error": "unexpected input"}).encode()
        elif streams:
            data = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in answers)
        else:
            data = json.dumps({"text_output": "one two"}).encode()
        self.send_response(status)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def triton() -> Iterator[str]:
    ASKED.clear()
    with HTTPServer(("127.0.0.1", 0), _Triton) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _client(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", folder / "client.py", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_the_client_streams_and_asks_for_the_whole(exported: Path, triton: str) -> None:
    answer = _client(exported, "hi", "--url", triton)
    assert (answer.stdout, answer.stderr) == ("one two\n", "")
    answer = _client(exported, "hi", "--url", triton, "--whole", "--model", "tensorrt_llm_bls")
    assert (answer.stdout, answer.stderr) == ("one two\n", "")
    (streamed, first), (whole, second) = ASKED
    assert streamed == "/v2/models/ensemble/generate_stream"
    assert first["stream"] is True
    assert whole == "/v2/models/tensorrt_llm_bls/generate"
    assert second["stream"] is False


def test_the_client_tells_what_went_wrong(exported: Path, triton: str) -> None:
    answer = _client(exported, "refuse", "--url", triton)
    assert answer.returncode == 1
    assert "unexpected input" in answer.stderr
    answer = _client(exported, "break", "--url", triton)
    assert (answer.returncode, answer.stdout) == (1, "one ")
    assert "out of blocks" in answer.stderr
    answer = _client(exported, "hi", "--url", "http://127.0.0.1:9")
    assert answer.returncode == 1
    assert "refused" in answer.stderr
