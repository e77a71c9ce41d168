"""`workbench fit`: what the form says, on the command line, and a status that scripts read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import DEMO
from tests.known_models import KNOWN
from workbench import forecast as forecasts
from workbench.backends import make_spec
from workbench.cli import main
from workbench.engine import Engine
from workbench.errors import InputError
from workbench.flags import words
from workbench.widgets.form import BuildForm

FITS, FITS_NOT, BAD, NOT_SURE = 0, 1, 2, 3


@pytest.fixture
def llama(tmp_path: Path) -> str:
    """Llama-2-7B as a directory that holds its config.json alone."""
    known = next(known for known in KNOWN if known.name == "meta-llama/Llama-2-7b-hf")
    (tmp_path / "llama").mkdir()
    config = {
        "architectures": [known.architecture],
        "max_position_embeddings": 4096,
        "dtype": "float16",
        **known.config,
    }
    (tmp_path / "llama" / "config.json").write_text(json.dumps(config))
    return str(tmp_path / "llama")


def _words(llama: str, *more: str) -> list[str]:
    return ["fit", "--backend", "tensorrt_llm", "--model", llama, *more]


@pytest.mark.parametrize(
    ("more", "status", "sentence"),
    [
        (["--gpu", "H200"], FITS, "Fits: "),
        (["--gpu", "H200", "--gpus", "2", "--tp-size", "2"], FITS, "Fits: "),
        (["--gpu", "RTX 4070"], FITS_NOT, "Does not fit: at least "),
        (
            ["--gpu", "H200", "--tp-size", "2"],
            FITS_NOT,
            "the engine needs 2 GPUs to run, and the plan has 1",
        ),
        ([], NOT_SURE, "Unknown: "),
        (["--gpu", "T4"], FITS_NOT, "before Ampere (sm75), which TensorRT-LLM does not support"),
        (["--gpu", "L4", "--max-batch-size", "8192"], NOT_SURE, "Tight: "),
    ],
)
def test_the_exit_status_says_whether_it_fits(
    llama: str, more: list[str], status: int, sentence: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(_words(llama, *more)) == status
    assert sentence in capsys.readouterr().out


def test_it_says_what_the_form_says(llama: str, capsys: pytest.CaptureFixture) -> None:
    assert main(_words(llama, "--gpu", "H200", "--gpus", "2", "--tp-size", "2")) == FITS
    shown = capsys.readouterr().out
    spec = make_spec({"backend": "tensorrt_llm", "model": llama, "tp_size": 2})
    form = BuildForm(spec, device="H200 SXM 141GB", gpu_count=2)
    assert form.plan.expected_need is not None
    told = form.plain().partition("needs attention")[2].partition("# ")[0].splitlines()[1:]
    lines = [line for line in told if line and line != "The build needs:"]
    assert len(lines) > 10
    for line in lines:
        assert line in shown
    assert "weights      6.40 GiB (exact, by config.json)" in shown
    (about,) = [line for line in form.plain().splitlines() if line.startswith("2 x H200 SXM")]
    assert f"GPUs     {about}" in shown


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--gpu", "H100"], "There are several GPUs H100: H100 PCIe 80GB, H100 SXM 80GB"),
        (["--gpu", "H201"], "The table has no GPU 'H201'. It knows V100"),
        (["--gpu", "H200", "--gpus", "3"], "--gpus must be one of 1, 2, 4, 8; got 3."),
        (["--gpu", "H200", "--gpus", "two"], "--gpus must be one of 1, 2, 4, 8; got 'two'."),
        (["--gpus", "2"], "--gpus needs the name of the GPU"),
        (["--isl", "many"], "--isl must be a whole number below a billion; got 'many'."),
        (["--osl", "1" * 10], "--osl must be a whole number below a billion; got '1111111111'."),
        (["--max-batch-size", "0"], "max_batch_size must be a whole number of at least 1"),
    ],
)
def test_wrong_input_is_one_sentence(
    llama: str, more: list[str], sentence: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(_words(llama, *more)) == BAD
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.out == ""


def test_a_gpu_means_nothing_to_a_backend_for_processors(capsys: pytest.CaptureFixture) -> None:
    assert main(["fit", "--gpu", "H200"]) == BAD
    assert "runs on the processor of this machine" in capsys.readouterr().err


def test_the_baseline_is_planned_for_a_gpu_where_it_may_take_one(
    capsys: pytest.CaptureFixture,
) -> None:
    eager = ["fit", "--backend", "transformers", "--gpu", "H200"]
    assert main(eager) == FITS
    assert "GPUs     1 x H200 SXM 141GB: 140 GiB" in capsys.readouterr().out
    assert main([*eager, "--device", "cpu"]) == BAD
    assert "With --device cpu this runs on the processor" in capsys.readouterr().err


def test_what_is_built_already_is_named(stocked: Engine, capsys: pytest.CaptureFixture) -> None:
    assert main(["fit", *words(make_spec(DEMO))]) == FITS
    assert f"The engine {stocked.key} is the one that you ask for." in capsys.readouterr().out
    assert main(["fit", "--quantization", "int4"]) == FITS
    assert "Built    no engine like this yet." in capsys.readouterr().out


def test_without_a_toolchain_it_is_still_a_plan(llama: str, capsys: pytest.CaptureFixture) -> None:
    main(_words(llama))
    assert "Built    nothing can be built here: " in capsys.readouterr().out


def test_a_forecast_is_made_when_it_is_asked_for(
    llama: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[forecasts.Load] = []

    def refuse(_: object, load: forecasts.Load) -> None:
        asked.append(load)
        raise InputError("The database does not know it.")

    monkeypatch.setattr("workbench.fit_commands.forecast", refuse)
    assert main(_words(llama, "--gpu", "H200")) == FITS
    assert asked == []
    load = ["--isl", "200", "--osl", "100", "--concurrency", "4"]
    assert main(_words(llama, "--gpu", "H200", "--forecast", *load)) == FITS
    assert asked == [forecasts.Load(200, 100, 4)]
    shown = capsys.readouterr().out
    assert "Forecast No forecast: The database does not know it." in shown
