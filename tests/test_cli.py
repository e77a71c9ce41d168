"""The command line as its user types it: right, wrong, interrupted."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import Fault, Faulty, fault
from workbench import jobs
from workbench.build import DEMO_MODEL
from workbench.cli import VERBS, main
from workbench.engine import Engine
from workbench.units import printable

REPOSITORY = Path(__file__).parents[1]


def _flags(engine: Engine) -> list[str]:
    """The command line of an engine's spec."""
    words = []
    for name, value in engine.manifest["identity"]["spec"].items():
        if isinstance(value, bool):
            words.append(f"--{'' if value else 'no-'}{name.replace('_', '-')}")
        else:
            words.append(f"--{name.replace('_', '-')}={value}")
    return words


def _start(*words: str, **options: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "workbench.cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        **options,
    )


def test_the_demo_streams_an_answer_and_its_timings(
    stocked: Engine, capsys: pytest.CaptureFixture
) -> None:
    assert main(["demo", *_flags(stocked), "--max-tokens", "60"]) == 0
    shown = capsys.readouterr().out
    assert f"The engine {stocked.key} was built" in shown
    assert "> write a haiku about latency" in shown
    assert re.search(r"TTFT [\d.]+ ms +ITL p50 [\d.]+ ms, p90 .* p99 .* tokens/s", shown)


def test_a_first_demo_shows_plan_stages_and_engine(home: Path) -> None:
    answer = _start("demo", "--quantization", "int8", "--max-tokens", "20")
    shown, errors = answer.communicate(timeout=120)
    assert answer.returncode == 0, errors
    for words in ("LlamaForCausalLM", "Memory", "trace layers", "4/4 layers", "compress weights",
                  "tensors", "load and generate", "Engine ", "TTFT"):  # fmt: skip
        assert words in shown
    # The output of a pipe has no terminal's control characters.
    assert "\r" not in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["demo", "--max-bach-size", "8"], "'--max-bach-size' is not understood. Did you mean '--"),
        (["demo", "--max-batch-size", "many"], "max_batch_size must be a whole number from 1 to"),
        (["demo", "--quantization", "int3"], "quantization must be one of none, fp16, int8, int4"),
        (["demo", "--backend", "onnx"], "There is no backend 'onnx'"),
        (["demo", "--model", "/nowhere"], "/nowhere"),
        (["demo", "--max-input-len", "4000"], "beyond the model's context of 2048"),
        (["stream", "abc", "hello"], "no engine whose key begins with 'abc'"),
        (["jobs", "cancel", "abc"], "no job whose id begins with 'abc'"),
        (["jobs", "cancel", ""], "Say which job: its id was empty."),
        (["engines", "evict", ""], "Say which engine: its key was empty."),
        (["engines", "budget", "200"], "must be a size with its unit, such as 200GiB; got '200'"),
        (["engines", "budget", "0GiB"], "must be a size with its unit"),
        (["engines", "evict", ".damaged-abc"], "Nothing was set aside as .damaged-abc."),
        (["run", "nowhere.ipynb"], "There is no notebook nowhere.ipynb"),
        (["lab", "--notebook", "x.ipynb"], "There is no notebook x.ipynb in"),
        (["lab", "x.ipynb", "--", "--ip=::"], "There is no notebook x.ipynb in"),
        (["biuld"], "'biuld' is no command. Did you mean 'build'? There is: demo, build,"),
        (["stream", "abc"], "are required: prompt. See: workbench stream --help"),
        (["jobs", "lits"], "invalid choice: 'lits'"),
    ],
)
def test_wrong_input_is_one_sentence(
    words: list[str], sentence: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(words) in (1, 2)
    errors = capsys.readouterr().err
    assert sentence in errors
    assert "Traceback" not in errors
    assert "usage:" not in errors


def test_a_run_that_is_refused_announces_no_output(capsys: pytest.CaptureFixture) -> None:
    notebook = REPOSITORY / "notebooks" / "00_tour.ipynb"
    assert main(["run", str(notebook), "-p", "modle", "demo"]) == 2
    assert capsys.readouterr().err == (
        "workbench: 'modle' is not a known parameter. Did you mean 'model'?\n"
    )


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([verb, "--help"])
    assert stopped.value.code == 0
    assert "usage: workbench" in capsys.readouterr().out


def test_engines_and_jobs_are_listed(stocked: Engine, capsys: pytest.CaptureFixture) -> None:
    assert main(["engines"]) == 0
    assert stocked.key in capsys.readouterr().out
    assert main(["engines", "show", stocked.key[:6]]) == 0
    assert json.loads(capsys.readouterr().out)["key"] == stocked.key
    assert main(["jobs"]) == 0


def test_stream_reads_standard_input(
    stocked: Engine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("write a haiku about caches"))
    assert main(["stream", stocked.key, "-", "--max-tokens", "8"]) == 0
    assert "8 tokens" in capsys.readouterr().out


def _build_of(faulty: Faulty, *faults: Fault) -> list[str]:
    """The command line of a build of the played backend."""
    words = ["build", "--backend=fault", "--no-smoke", f"--model={faulty.model}"]
    return [*words, f"--fault={json.dumps(faults)}"]


def test_ctrl_c_leaves_the_build_running_and_says_how_to_come_back(faulty: Faulty) -> None:
    gate = faulty.gate()
    terminal = _start(*_build_of(faulty, fault("compile", "stall", until=gate)))
    gate.wait_reached()
    terminal.send_signal(signal.SIGINT)
    _, errors = terminal.communicate(timeout=10)
    assert terminal.returncode == 130
    job = jobs.list_jobs()[0]
    assert f"workbench jobs attach {job.id}" in errors
    assert job.state() == "running"
    attached = _start("jobs", "attach", job.id)
    gate.open()
    shown, errors = attached.communicate(timeout=120)
    assert attached.returncode == 0, errors
    assert "Engine " in shown
    assert job.state() == "done"


def test_a_relative_home_is_the_same_folder_for_everybody(faulty: Faulty, tmp_path: Path) -> None:
    paths = os.pathsep.join([str(REPOSITORY), os.environ["PYTHONPATH"]])
    answer = subprocess.run(
        [sys.executable, "-m", "workbench.cli", *_build_of(faulty)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"WORKBENCH_HOME": "mine", "PYTHONPATH": paths},
        check=False,
        timeout=120,
    )
    assert answer.returncode == 0, answer.stderr
    assert len(list((tmp_path / "mine" / "engines").iterdir())) == 1


def test_a_reader_that_leaves_early_is_no_error(stocked: Engine) -> None:
    command = f'"{sys.executable}" -m workbench.cli engines show {stocked.key} | head -c 1'
    answer = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=REPOSITORY, check=True
    )
    assert answer.stderr == ""


def test_a_home_that_is_no_folder_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "engines").write_text("")
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "taken"))
    assert main(["engines"]) == 1
    assert "cannot be used" in capsys.readouterr().err


def test_what_a_checkpoint_is_called_cannot_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    shutil.copytree(DEMO_MODEL, tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    config["architectures"] = ["\x1b]0;owned\x07LlamaForCausalLM"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    main(["build", "--model", str(tmp_path / "model"), "--max-input-len", "4000"])
    shown = capsys.readouterr()
    assert "owned" in shown.out + shown.err
    assert "\x1b" not in shown.out + shown.err


def test_options_after_two_dashes_go_to_jupyterlab() -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "workbench.cli", "lab", "--no-browser", "--", "--version"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        check=True,
        timeout=60,
    )
    assert re.fullmatch(r"\d+\.\d+\.\S+\s*", answer.stdout)


def test_the_command_is_installed_as_a_script() -> None:
    script = Path(sys.executable).parent / "workbench"
    answer = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    for verb in VERBS:
        assert verb in answer.stdout


def test_what_a_model_says_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b[31mb\x07\n\tc\x9b") == "a\ufffd[31mb\ufffd\n\tc\ufffd"
