"""Builds for real: published, found again, explained, attached to, cancelled, killed, damaged."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults import Faulty, fault
from tests.faults.disks import on_small_disk
from tests.tiny_models import make_tiny_model
from workbench import files, jobs, store
from workbench.backends import make_spec
from workbench.build import DEMO_MODEL, Build, start_build, wanted_by, with_absolute_paths
from workbench.engine import Engine, Identity
from workbench.errors import InputError, JobError, ModelError, SpecError, ToolchainError
from workbench.eviction import sweep
from workbench.jobs import Job
from workbench.journal import Journal
from workbench.model import Model
from workbench.opening import open_engine
from workbench.owner import Owner


def _until(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def _job(build: Build) -> Job:
    assert build.job is not None
    return build.job


def _running_stage(job: Job) -> str:
    stages = [stage.name for stage in job.view().stages.values() if stage.ended is None]
    return stages[-1] if stages else ""


def _session(owner: Owner) -> list[int]:
    """Living processes of a job."""
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getsid(process.pid) == owner.pid and process.info["status"] != "zombie":
                found.append(process.pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def _temporaries(home: Path) -> list[str]:
    return [path.name for path in (home / "engines").glob(".tmp-*")]


def _values(engine: Engine) -> dict:
    return {**engine.manifest["identity"]["spec"], "model": "demo"}


def test_a_build_publishes_an_engine_with_its_story(demo_engine: Engine) -> None:
    manifest = demo_engine.manifest
    names = [stage["name"] for stage in manifest["build"]["stages"]]
    assert names == [
        "fingerprint", "import", "load", "trace", "convert", "tokenizer", "smoke"
    ]  # fmt: skip
    assert manifest["build"]["smoke"]["tokens"] == 8
    assert manifest["build"]["peak_memory_bytes"] > demo_engine.bytes
    assert manifest["model"]["architecture"] == "LlamaForCausalLM"
    assert set(manifest["identity"]["toolchain"]) >= {"openvino-genai", "torch", "nncf"}
    assert demo_engine.damage(thorough=True) == ""
    assert {"openvino_model.bin", "openvino_model.xml", "tokenizer.json"} <= set(manifest["files"])


def test_the_same_spec_is_found_and_explained(stocked: Engine) -> None:
    build = start_build(make_spec(_values(stocked)))
    assert build.job is None
    assert build.wait().key == stocked.key
    assert "the same weights (by content) and the same versions" in build.explanation


def test_the_same_weights_elsewhere_are_the_same_engine(stocked: Engine, tmp_path: Path) -> None:
    shutil.copytree(DEMO_MODEL, tmp_path / "copy")
    build = start_build(make_spec({**_values(stocked), "model": str(tmp_path / "copy")}))
    engine = build.wait()
    assert engine.key == stocked.key
    assert build.job is None or _job(build).view().end["reused"]  # type: ignore[index]


def test_other_limits_are_the_same_engine_loaded_otherwise(stocked: Engine) -> None:
    build = start_build(make_spec({"quantization": "none", "max_batch_size": 3, "threads": 1}))
    assert build.job is None
    assert "max_batch_size 3" in build.explanation
    engine = build.wait()
    assert engine.key == stocked.key
    assert (engine.limits["max_batch_size"], stocked.limits["max_batch_size"]) == (3, 2)
    with open_engine(build) as session:
        assert session.limits["max_batch_size"] == 3
        assert session.facts["kv_cache_tokens"] == 3 * 1024


def test_who_wants_other_limits_attaches_to_the_same_build(faulty: Faulty) -> None:
    gate = faulty.gate()
    first = faulty.start(fault("compile", "stall", until=gate))
    second = faulty.start(max_output_len=32)
    assert _job(second).id == _job(first).id
    gate.open()
    assert first.wait().limits["max_output_len"] == 64
    assert second.wait().limits["max_output_len"] == 32
    assert [engine.key for engine in store.list_engines()] == [second.wait().key]


def test_a_miss_names_the_nearest_engine_and_what_differs(stocked: Engine) -> None:
    identity = Identity(
        {**stocked.manifest["identity"]["spec"], "quantization": "int4", "group_size": 32},
        stocked.manifest["identity"]["weights"],
        stocked.manifest["identity"]["toolchain"],
    )
    engine, why = store.look_up(identity)
    assert engine is None
    assert why == (
        f"No engine was the same; the nearest, {stocked.key}, differed in group_size (64 "
        "there, 32 here), quantization (none there, int4 here)."
    )


def test_a_damaged_engine_is_a_miss_and_is_built_again(stocked: Engine) -> None:
    graph = stocked.path / "openvino_model.bin"
    graph.write_bytes(graph.read_bytes()[:-1])
    build = start_build(make_spec(_values(stocked)))
    engine = build.wait()
    assert any("openvino_model.bin has" in note for note in _job(build).view().notes)
    assert engine.key == stocked.key
    assert engine.damage(thorough=True) == ""


def test_who_asks_twice_attaches_and_cancel_leaves_nothing(home: Path) -> None:
    spec = make_spec({"quantization": "int8", "max_batch_size": 3})
    first, second = start_build(spec), start_build(spec)
    job = _job(first)
    assert _job(second).id == job.id
    assert second.explanation == "This very build runs already."

    _until(lambda: _running_stage(job) == "load" or "load" in job.view().stages)
    owner = job.view().owner
    assert owner is not None
    assert len(_session(owner)) >= 2
    assert job.cancel() == "cancelled"
    assert _session(owner) == []
    assert _temporaries(home) == []
    assert store.list_engines() == []
    assert job.cancel() == "cancelled"
    with pytest.raises(JobError, match="Cancelled"):
        first.wait()


def test_a_killed_runner_is_told_as_killed_and_its_worker_ends(faulty: Faulty) -> None:
    stall = fault("compile", "stall", until=faulty.gate())
    job = _job(faulty.start(stall))
    _until(lambda: "compile" in job.view().stages)
    owner = job.view().owner
    assert owner is not None
    os.kill(owner.pid, signal.SIGKILL)
    _until(lambda: job.state() == "killed")
    _until(lambda: not _session(owner))
    # Asking again starts a new attempt, and the old temporary is in nobody's way.
    again = _job(faulty.start(stall))
    assert again.id != job.id
    again.cancel()


def test_what_killed_builds_left_is_swept_and_nothing_else(home: Path) -> None:
    dead = jobs.folder() / "abc-001"
    dead.mkdir()
    files.write_json(dead / "spec.json", {})
    Journal(dead).end("failed", text="")
    ours = store.folder() / ".tmp-abc-001-0123456789ab"
    strangers = [store.folder() / name for name in (".tmp-unknown", "lost+found", ".nfs0001")]
    for path in (ours, *strangers):
        path.mkdir()
    sweep()
    assert not ours.exists()
    assert all(path.exists() for path in strangers)


def test_a_killed_worker_ends_the_build_with_a_sentence(home: Path) -> None:
    build = start_build(make_spec({"max_batch_size": 6}))
    job = _job(build)
    _until(lambda: "import" in job.view().stages)
    owner = job.view().owner
    assert owner is not None
    _until(lambda: len(_session(owner)) >= 2)
    for pid in _session(owner):
        if pid != owner.pid:
            os.kill(pid, signal.SIGKILL)
    with pytest.raises(JobError, match=r"was killed .*out of memory is a usual cause"):
        build.wait()
    assert _temporaries(home) == []


def test_rules_refuse_before_anything_is_spent(home: Path) -> None:
    with pytest.raises(SpecError, match=r"beyond the model's context of 2048") as caught:
        start_build(make_spec({"max_input_len": 4000, "max_output_len": 96}))
    assert "max_seq_len: 4096 tokens" in str(caught.value)
    assert not (home / "jobs").exists()


def test_a_toolchain_without_the_packages_says_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    python = tmp_path / "bare" / "bin" / "python"
    monkeypatch.setenv("WORKBENCH_TOOLCHAIN_OPENVINO", str(python))
    with pytest.raises(ToolchainError, match=r"openvino-genai.* are not installed for .*\[cpu\]"):
        start_build(make_spec({}))
    monkeypatch.setenv("WORKBENCH_TOOLCHAIN_OPENVINO", str(tmp_path))
    with pytest.raises(ToolchainError, match="not an executable file"):
        start_build(make_spec({}))


def test_a_model_without_a_fast_tokenizer_is_refused_before_it_is_built(tmp_path: Path) -> None:
    shutil.copytree(DEMO_MODEL, tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").unlink()
    with pytest.raises(SpecError, match=r"model: it has no tokenizer\.json\. Make one"):
        start_build({"model": str(tmp_path / "model")})


def test_what_is_no_engine_is_not_opened() -> None:
    with pytest.raises(InputError, match="Give an engine, a build or a key to open, not dict"):
        open_engine({})  # type: ignore[arg-type]


def test_a_build_can_be_opened_and_cancelled_as_it_is(stocked: Engine) -> None:
    build = start_build(_values(stocked))
    with open_engine(build) as session:
        assert session.generate("a", max_tokens=2, ignore_eos=True).wait().token_ids
    build.cancel()


def test_no_model_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        start_build(make_spec({"model": str(tmp_path)}))


def _with_config(tmp_path: Path, **changes: object) -> Path:
    """A copy of the demo model with another configuration."""
    model = tmp_path / "model"
    shutil.copytree(DEMO_MODEL, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, **changes}))
    return model


def test_an_architecture_that_nobody_knows_is_a_sentence(tmp_path: Path) -> None:
    model = _with_config(tmp_path, model_type="unheard_of", architectures=["UnheardOfForCausalLM"])
    with pytest.raises((JobError, ModelError), match=r"unheard_of|UnheardOfForCausalLM") as caught:
        start_build(make_spec({"model": str(model)})).wait()
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_groups_that_do_not_divide_are_refused_by_the_rule(tmp_path: Path) -> None:
    model = make_tiny_model("llama", tmp_path / "model", intermediate_size=352)
    with pytest.raises(SpecError, match=r"group_size: groups of 64 do not divide .*352"):
        start_build(make_spec({"model": str(model), "quantization": "int4", "max_seq_len": 512}))


FULL_DISK = """
    import sys, time
    from workbench.backends import make_spec
    from workbench.build import start_build
    from workbench.errors import WorkbenchError
    from workbench.hardware import free_disk
    from pathlib import Path
    root, free_from_then_on = Path(sys.argv[1]), int(sys.argv[2])
    try:
        build = start_build(make_spec({"quantization": "none"}))
        while "import" not in build.job.view().stages:
            time.sleep(0.01)
        (root / "filler").write_bytes(bytes(free_disk(root) - free_from_then_on))
        build.wait()
    except WorkbenchError as error:
        print(error)
    print(*root.glob("home/engines/*"))
"""


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_full_disk_is_a_sentence_with_numbers(tmp_path: Path, when: str) -> None:
    size = "4m" if when == "before" else "40m"
    printed = on_small_disk(tmp_path / "small", size, FULL_DISK, "2000000")
    assert re.search(r"MiB are free (on the disk of|in) ", printed), printed
    assert "set WORKBENCH_HOME to a folder on a larger disk" in printed
    assert ".tmp-" not in printed


def test_jobs_are_found_by_the_beginning_of_their_id(home: Path) -> None:
    with pytest.raises(JobError, match="There is no job whose id begins with 'abc'"):
        jobs.find_job("abc")


def test_a_build_of_the_hub_is_the_same_before_and_after_its_download() -> None:
    described = replace(Model.read(DEMO_MODEL), source="owner/name", commit="c0ffee", path=None)
    spec = make_spec({"model": "owner/name"})

    def wanted(model: Model) -> dict[str, Any]:
        return wanted_by(model, with_absolute_paths(spec, model.path), {}, {}, {})

    assert wanted(described) == wanted(replace(described, path=DEMO_MODEL))
    assert wanted(described) != wanted(replace(described, commit="decade"))
