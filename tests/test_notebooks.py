"""Every notebook through papermill: with parameters, with wrong ones, with results as data."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from click.testing import CliRunner
from papermill.cli import papermill

from tests.faults import Faulty, fault, job_of
from tests.servers.scripted import completing, scripted
from workbench import docs
from workbench.axes import THROUGHPUT
from workbench.backends import get_backend, make_spec
from workbench.build import DEMO_MODEL
from workbench.cli import main
from workbench.errors import InputError, SpecError
from workbench.notebook import read_results, run_notebook, spec_from, target_from
from workbench.notebook_parameters import _typed_like, check_parameters
from workbench.notebook_runs import run_file
from workbench.results import find_trial
from workbench.spec import parameters_of
from workbench.trial import Trial

REPOSITORY = Path(__file__).parents[1]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
TOUR = REPOSITORY / "notebooks" / "00_tour.ipynb"
BUILDS = REPOSITORY / "notebooks" / "07_builds.ipynb"
BUILD = REPOSITORY / "notebooks" / "01_build.ipynb"
STREAM = REPOSITORY / "notebooks" / "02_stream.ipynb"
SIDES = REPOSITORY / "notebooks" / "03_side_by_side.ipynb"
TRIAL = REPOSITORY / "notebooks" / "04_trial.ipynb"
COMPARE = REPOSITORY / "notebooks" / "05_compare.ipynb"
SERVE = REPOSITORY / "notebooks" / "06_serve.ipynb"
TESTED_BELOW = (BUILD, BUILDS, STREAM, SIDES, TRIAL, COMPARE, SERVE)
EMBEDDED = [
    path for path in NOTEBOOKS if "tensorrt_llm" not in path.stem and path not in TESTED_BELOW
]
"""Those that build an engine on any machine and stream; tests/test_tensorrt_llm.py runs others."""


LARGEST = 1 << 20
"""Bytes of the largest executed notebook: the tour with its figures has half of that."""


def _papermill(notebook: Path, output: Path, *words: str) -> str:
    """Run papermill's own command line in this process; return how it failed, or nothing.

    As a process of its own, which takes seconds to import, it runs in tests/test_tensorrt_llm.py.
    """
    words = (str(notebook), str(output), "--no-progress-bar", *words)
    with contextlib.chdir(REPOSITORY):
        run = CliRunner().invoke(papermill, words)
    if output.is_file():
        assert output.stat().st_size < LARGEST
    return f"{run.output}\n{run.exception}" if run.exit_code else ""


@pytest.fixture
def shared(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines of the whole test run, so that the same one is not built again and again."""
    monkeypatch.setenv("WORKBENCH_HOME", str(shared_home))


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("notebook", EMBEDDED, ids=lambda path: path.stem)
def test_plain_papermill_runs_it_and_results_come_back(notebook: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.ipynb"
    assert (
        _papermill(notebook, output, "-p", "quantization", "none", "-p", "max_tokens", "40") == ""
    )
    results = read_results(output)
    assert results["generation"]["output_tokens"] > 0
    assert results["build"]["smoke"]["ran"]
    # Widgets leave their state behind; it must not be their libraries.
    assert output.stat().st_size < 600_000


@pytest.mark.usefixtures("shared")
def test_the_streaming_notebook_records_every_stream_and_every_batch(tmp_path: Path) -> None:
    output = tmp_path / "out.ipynb"
    words = ("-p", "quantization", "none", "-p", "streams", "3", "-p", "max_tokens", "12")
    assert _papermill(STREAM, output, *words) == ""
    results = read_results(output)
    assert [len(results["generations"]), results["generations"][-1]] == [2, results["generation"]]
    assert [batch["streams"] for batch in results["batches"]] == [1, 2, 3]
    assert all(batch["tokens_per_second"] > 0 for batch in results["batches"])
    shown = output.read_text()
    for text in ("# Transcript", "> another one", "wb.open_engine(", "3 streams"):
        assert text in shown


@pytest.mark.usefixtures("shared")
def test_side_by_side_int4_parts_from_float32_somewhere(tmp_path: Path) -> None:
    output = tmp_path / "out.ipynb"
    assert _papermill(SIDES, output) == ""
    compared = read_results(output)["comparison"]
    assert len(compared["sides"]) == 2
    assert all(side["tokens_per_second"] > 0 for side in compared["sides"])
    assert all(side["memory_bytes"] > 0 for side in compared["sides"])
    (agreed,) = compared["agreement"]
    assert agreed["rate"] < agreed["shared"] < 1
    (partings,) = compared["partings"]
    assert len(partings) == len(compared["prompts"])
    for parting in filter(None, partings):
        assert parting["by"] == "token"
        # Greedy: each takes the token that it finds more probable than the other's.
        assert parting["first"]["probability"] >= parting["first_of_second"]
        assert parting["second"]["probability"] >= parting["second_of_first"]
    assert any(partings)


@pytest.mark.usefixtures("shared")
def test_what_it_shows_is_there_without_widgets_too(tmp_path: Path) -> None:
    output = tmp_path / "out.ipynb"
    assert _papermill(TOUR, output, "-p", "quantization", "none") == ""
    shown = "\n".join(
        out["data"].get("text/plain", "")
        for cell in nbformat.read(output, as_version=4).cells
        for out in cell.get("outputs", [])
        if "data" in out
    )
    assert re.search(r"\nquantization +none +changed", shown)
    for words in ("LlamaForCausalLM", "Engine ", "> write a haiku", "TTFT"):
        assert words in shown


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("max_bach_size", "8"),
            "'max_bach_size' is not a known parameter. Did you mean 'max_batch",
        ),
        (("max_batch_size", "many"), "max_batch_size must be a whole number"),
        (("prompt", "3"), "prompt must be text"),
        (("quantization", "int3"), "quantization must be one of none, fp16, int8, int4"),
        (("max_input_len", "4000"), "beyond the model's context of 2048"),
    ],
)
def test_plain_papermill_with_a_wrong_parameter_fails_before_any_work(
    home: Path, tmp_path: Path, words: tuple[str, str], sentence: str
) -> None:
    assert sentence in _papermill(TOUR, tmp_path / "out.ipynb", "-p", *words)
    assert not (home / "jobs").exists()


@pytest.mark.usefixtures("shared")
def test_workbench_run_reads_types_and_returns_results(tmp_path: Path) -> None:
    results = run_notebook(
        TOUR, tmp_path / "out.ipynb", {"quantization": "none", "max_tokens": "7", "seed": "3"}
    )
    assert results["generation"]["output_tokens"] <= 7
    assert results["generation"]["sampling"]["seed"] == 3
    json.dumps(results)


def test_workbench_run_refuses_before_it_starts_a_kernel(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="Did you mean 'max_tokens'"):
        run_notebook(TOUR, tmp_path / "out.ipynb", {"max_token": "7"})
    with pytest.raises(SpecError, match="max_tokens must be a whole number, such as 64; got 'x'"):
        run_notebook(TOUR, tmp_path / "out.ipynb", {"max_tokens": "x"})
    assert not (tmp_path / "out.ipynb").exists()
    with pytest.raises(InputError, match="There is no notebook"):
        run_notebook(tmp_path / "none.ipynb")


def test_a_failing_cell_is_named(home: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="beyond the model's context of 2048"):
        run_notebook(TOUR, tmp_path / "out.ipynb", {"max_input_len": 4000})


@pytest.mark.usefixtures("shared")
def test_the_build_notebook_builds_what_is_chosen(tmp_path: Path) -> None:
    output = tmp_path / "out.ipynb"
    # Neither is declared in the notebook's own cell.
    assert (
        _papermill(BUILD, output, "-p", "quantization", "none", "-p", "max_batch_size", "3") == ""
    )
    results = read_results(output)
    assert results["engine"]
    assert (results["spec"]["quantization"], results["spec"]["max_batch_size"]) == ("none", 3)
    assert results["fit"].startswith("Fits: ")
    shown = output.read_text()
    assert re.search(r"max_batch_size +3 requests +changed, default: 4", shown)


def test_the_build_notebook_plans_for_a_gpu_that_is_elsewhere(home: Path, tmp_path: Path) -> None:
    words = ("backend", "tensorrt_llm"), ("device", "H200 SXM 141GB"), ("gpu_count", "2")
    more = ("tp_size", "2"), ("max_output_len", "64"), ("build", "False")
    flags = [word for pair in words + more for word in ("-p", *pair)]
    output = tmp_path / "out.ipynb"
    assert _papermill(BUILD, output, *flags) == ""
    results = read_results(output)
    assert (results["device"], results["engine"]) == ("H200 SXM 141GB", None)
    assert results["fit"].startswith("Fits: ")
    assert any("max_output_len" in finding for finding in results["findings"])
    assert "trtllm-build" in output.read_text()
    assert not (home / "jobs").exists()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("device", "H2000", "The table has no GPU 'H2000'"),
        ("gpu_count", "3", "gpu_count must be one of 1, 2, 4, 8; got 3"),
        ("max_bach_size", "3", "Did you mean 'max_batch_size'"),
    ],
)
def test_the_build_notebook_refuses_wrong_parameters(
    tmp_path: Path, name: str, value: str, sentence: str
) -> None:
    values = {"backend": "tensorrt_llm", name: value}
    with pytest.raises(InputError, match=sentence):
        run_notebook(BUILD, tmp_path / "out.ipynb", values)


def test_the_builds_notebook_runs_on_an_empty_store(tmp_path: Path) -> None:
    output = tmp_path / "out.ipynb"
    assert _papermill(BUILDS, output) == ""
    results = read_results(output)
    assert (results["jobs"], results["engines"], results["engine_bytes"]) == ({}, 0, 0)
    shown = output.read_text()
    assert "There is no job yet." in shown
    assert "The store holds no engine yet. Run this cell again after a build." in shown


def test_the_builds_notebook_runs_on_a_store_with_builds(faulty: Faulty, tmp_path: Path) -> None:
    engine = faulty.start().wait()
    failed = job_of(faulty.start(fault("compile", "refuse", text="No such precision."), seed=1))
    failed.wait()
    gate = faulty.gate()
    running = job_of(faulty.start(fault("compile", "stall", until=gate), seed=2))
    gate.wait_reached()
    output = tmp_path / "out.ipynb"
    assert _papermill(BUILDS, output, "-p", "budget", "1GiB", "-p", "job", failed.id) == ""
    results = read_results(output)
    assert results["jobs"] == {"running": 1, "failed": 1, "done": 1}
    assert (results["engines"], results["engine_bytes"]) == (1, engine.bytes)
    assert results["budget_bytes"] == 1 << 30
    shown = output.read_text()
    for words in (running.id, engine.key, "No such precision.", "The stages of 1 build"):
        assert words in shown
    gate.open()
    running.wait()


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("state", "faild", "There is no state 'faild' of a job. Did you mean 'failed'"),
        ("budget", "much", "The budget must be a size such as 200GiB"),
        ("show", "many", "show must be a whole number, such as 20"),
        ("shwo", "3", "Did you mean 'show'"),
    ],
)
def test_the_builds_notebook_refuses_wrong_parameters(
    tmp_path: Path, name: str, value: str, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        run_notebook(BUILDS, tmp_path / "out.ipynb", {name: value})


@pytest.mark.parametrize(
    ("words", "sentence"),
    [(("shwo", "3"), "Did you mean 'show'"), (("show", "many"), "show must be a whole number")],
)
def test_plain_papermill_on_the_builds_notebook_refuses_them_too(
    tmp_path: Path, words: tuple[str, str], sentence: str
) -> None:
    assert sentence in _papermill(BUILDS, tmp_path / "out.ipynb", "-p", *words)


@pytest.mark.usefixtures("shared")
def test_the_trial_notebook_measures_and_publishes(tmp_path: Path) -> None:
    output = tmp_path / "out.ipynb"
    words = {"quantization": "none", "input_len": "8", "output_len": "6", "requests": "3",
             "concurrency": "2", "time_limit": "300"}  # fmt: skip
    assert (
        _papermill(TRIAL, output, *(w for name in words for w in ("-p", name, words[name]))) == ""
    )
    results = read_results(output)
    assert results["summary"]["output_tokens"] == 3 * 6
    assert results["summary"]["errors"] == 0
    shown = output.read_text()
    for words_ in (results["trial"], "measure, repetition 1 of 1", "TTFT     p50", "Engines  "):
        assert words_ in shown


@pytest.mark.usefixtures("shared")
def test_the_trial_notebook_measures_another_backend_by_its_own_defaults(tmp_path: Path) -> None:
    values = {"backend": "transformers", "max_output_len": "16", "input_len": "8",
              "output_len": "4", "requests": "2"}  # fmt: skip
    trial = find_trial(run_notebook(TRIAL, tmp_path / "out.ipynb", values)["trial"])
    # What the notebook declares for openvino would be float32 and 512.
    assert trial.spec == make_spec(backend="transformers", max_output_len=16).model_dump()


def test_the_trial_notebook_measures_a_server_with_the_workload_of_an_engine(
    tmp_path: Path,
) -> None:
    with scripted(completing()) as server:
        values = {"url": server.url, "tokenizer": str(DEMO_MODEL), "devices": "2",
                  "input_len": "5", "output_len": "4", "requests": "2"}  # fmt: skip
        words = [word for pair in values.items() for word in ("-p", *pair)]
        assert _papermill(TRIAL, tmp_path / "out.ipynb", *words) == ""
    trial = find_trial(read_results(tmp_path / "out.ipynb")["trial"])
    assert trial.spec["url"] == values["url"]
    assert (trial.workload["input_len"], trial.record["devices"]) == (5, 2)
    assert trial.summary["output_tokens"] == 2 * 4


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("max_batch_size", 2, "max_batch_size cannot be chosen with url"),
        ("backend", "transformers", "backend cannot be chosen with url"),
        ("reference", "quantization=none", "reference cannot be chosen with url"),
    ],
)
def test_the_trial_notebook_chooses_nothing_of_a_server(
    name: str, value: Any, sentence: str
) -> None:
    with pytest.raises(SpecError, match=sentence):
        target_from(_run(DECLARED, f"# Parameters\nurl = 'http://127.0.0.1:1'\n{name} = {value!r}"))


def test_the_trial_notebook_refuses_what_another_backend_does_not_know(tmp_path: Path) -> None:
    values = {"backend": "transformers", "quantization": "int8"}
    with pytest.raises(SpecError, match="'quantization' is not a known parameter"):
        run_notebook(TRIAL, tmp_path / "out.ipynb", values)
    words = [word for pair in values.items() for word in ("-p", *pair)]
    told = _papermill(TRIAL, tmp_path / "out.ipynb", *words)
    assert "'quantization' is not a known parameter" in told


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("conurrency", "4", "Did you mean 'concurrency'"),
        ("arrivals", "bursty", "arrivals must be one of poisson, constant"),
        ("max_input_len", "16", "needs max_input_len 128, and the engine has 16"),
    ],
)
def test_the_trial_notebook_refuses_wrong_parameters(
    home: Path, tmp_path: Path, name: str, value: str, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        run_notebook(TRIAL, tmp_path / "out.ipynb", {name: value})
    assert not (home / "jobs").exists()


def test_the_compare_notebook_runs_on_an_empty_store(home: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.ipynb"
    assert _papermill(COMPARE, output) == ""
    assert read_results(output)["points"] == []
    assert "There is no trial to compare yet." in output.read_text()


@pytest.mark.usefixtures("shared")
def test_the_compare_notebook_compares_and_reports(
    measured_trials: list[Trial], tmp_path: Path
) -> None:
    output, report = tmp_path / "out.ipynb", tmp_path / "report.html"
    slow, fast = sorted(measured_trials, key=lambda trial: trial.summary[THROUGHPUT])
    words = {"price": "2.5", "report": str(report), "baseline": slow.id, "text": fast.spec["model"]}
    assert (
        _papermill(COMPARE, output, *(w for name in words for w in ("-p", name, words[name]))) == ""
    )
    points = {tuple(point["trials"]): point["figures"] for point in read_results(output)["points"]}
    assert points[fast.id,]["cost"]["median"] > 0
    assert points[fast.id,][THROUGHPUT]["difference"] is not None
    assert points[slow.id,][THROUGHPUT]["difference"] is None
    assert fast.id in report.read_text()
    # The figures stand in it, plotly's library does not.
    assert output.stat().st_size < 600_000


def test_the_compare_notebook_measures_a_sweep_first(faulty: Faulty, tmp_path: Path) -> None:
    sweep = tmp_path / "small.toml"
    sweep.write_text(
        f'[spec]\nbackend = "fault"\nmodel = "{faulty.model}"\n[workload]\ninput_len = 1\n'
        "output_len = 3\nwarmup = 0\n[grid.workload]\nrequests = [2, 3]\n"
    )
    output = tmp_path / "out.ipynb"
    assert _papermill(COMPARE, output, "-p", "sweep", str(sweep)) == ""
    results = read_results(output)
    assert (results["sweep"]["points"], results["sweep"]["sound"]) == (2, 2)
    assert {point["label"] for point in results["points"]} == {"requests=2", "requests=3"}


def test_the_compare_notebook_refuses_what_it_does_not_know(home: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'baseline'"):
        run_notebook(COMPARE, tmp_path / "out.ipynb", {"basline": "3"})


def _small(path: Path) -> Path:
    """Write a notebook that needs nothing: it publishes its parameter, and fails at 3."""
    cells = [
        nbformat.v4.new_code_cell("value = 0", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell(
            "import workbench as wb\nassert value != 3\nwb.publish_result(value=value)"
        ),
    ]
    notebook = nbformat.read(TOUR, as_version=4)
    notebook.cells = cells
    nbformat.write(notebook, path)
    return path


def test_a_notebook_runs_once_for_each_line_of_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text("\n".join(json.dumps({"value": number}) for number in (1, 2, 3)))
    notebook = _small(tmp_path / "small.ipynb")
    words = ["run", str(notebook), str(tmp_path / "out"), "--parameters", str(lines), "--jobs=2"]
    assert main(words) == 1
    told = sorted(map(json.loads, capsys.readouterr().out.splitlines()), key=lambda t: t["line"])
    assert [one.get("results") for one in told] == [{"value": 1}, {"value": 2}, None]
    assert "AssertionError" in told[2]["error"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"small-{number:03d}.ipynb" for number in (1, 2, 3)
    ]


def test_a_kernel_or_a_process_that_dies_takes_no_other_notebook_along(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    notebook = _small(tmp_path / "small.ipynb")
    content = nbformat.read(notebook, as_version=4)
    # The parent of a kernel is the process that executes the notebook.
    victim = "import os, signal\nvictim = {1: os.getpid(), 2: os.getppid()}.get(value)\n"
    kill = f"{victim}if victim:\n    os.kill(victim, signal.SIGKILL)"
    content.cells.insert(1, nbformat.v4.new_code_cell(kill))
    nbformat.write(content, notebook)
    lines = tmp_path / "lines.jsonl"
    lines.write_text("\n".join(json.dumps({"value": number}) for number in (1, 2, 4, 5)))
    assert run_file(notebook, tmp_path / "out", lines, jobs=2) == 1
    told = sorted(map(json.loads, capsys.readouterr().out.splitlines()), key=lambda t: t["line"])
    assert "The kernel that ran the notebook is gone: Kernel died." in told[0]["error"]
    assert told[1]["error"].startswith("The process that ran the notebook is gone.")
    assert [one.get("results") for one in told[2:]] == [{"value": 4}, {"value": 5}]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ('{"valu": 1}', "Line 2 of .*: 'valu' is not a known parameter. Did you mean 'value'"),
        ('{"value": "x"}', "Line 2 of .*: value must be a whole number"),
        ("[]", "Line 2 of .* is no JSON object"),
    ],
)
def test_a_wrong_line_is_refused_before_any_notebook_runs(
    tmp_path: Path, line: str, sentence: str
) -> None:
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"value": 1}\n' + line)
    with pytest.raises(InputError, match=sentence):
        run_file(_small(tmp_path / "small.ipynb"), tmp_path / "out", lines)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "declared", "ok"),
    [
        ({"a": 1}, {"a": 2}, True),
        ({"a": 1}, {"a": 2.0}, True),
        ({"a": 1.5}, {"a": 2}, False),
        ({"a": True}, {"a": 2}, False),
        ({"a": "x"}, {"a": None}, True),
        ({"a": None}, {"a": 2}, True),
        ({"b": 1}, {"a": 2}, False),
    ],
)
def test_types_are_compared_with_the_declared_defaults(
    given: dict, declared: dict, ok: bool
) -> None:
    if ok:
        check_parameters(given, declared)
    else:
        with pytest.raises(SpecError):
            check_parameters(given, declared)


def test_a_cell_that_a_person_begins_like_papermill_is_none() -> None:
    cells = ["", "# Parameters\nquantization = 'int4'"]
    assert spec_from({"In": cells, "quantization": "int4"}).model_dump()["quantization"] == "int4"


DECLARED = (
    "backend = 'openvino'\nmodel = 'demo'\nquantization = 'int8'\nmax_output_len = 64\n"
    "url = None\nreference = None"
)


def _run(*cells: str) -> dict[str, Any]:
    """Return what the variables of a notebook are after some cells."""
    namespace: dict[str, Any] = {"In": ["", *cells]}
    for cell in cells:
        exec(cell, namespace)
    return namespace


def test_values_that_stand_beside_another_backend_are_nobodys_wish() -> None:
    passed = "# Parameters\nbackend = 'tensorrt_llm'\nmodel = 'owner/name'\ntp_size = 2"
    assert spec_from(_run(DECLARED, passed)) == make_spec(
        backend="tensorrt_llm", model="owner/name", tp_size=2
    )
    # The model is no matter of the backend.
    alone = "# Parameters\nbackend = 'transformers'"
    assert spec_from(_run(DECLARED, alone)) == make_spec(backend="transformers")
    same = "# Parameters\nbackend = 'openvino'\nmax_output_len = 32"
    assert spec_from(_run(DECLARED, same)) == make_spec(quantization="int8", max_output_len=32)


def test_what_only_the_declared_backend_knows_is_refused_with_another() -> None:
    passed = "# Parameters\nbackend = 'transformers'\nquantization = 'int4'"
    with pytest.raises(SpecError, match="'quantization' is not a known parameter"):
        spec_from(_run(DECLARED, passed))


def test_a_branch_that_looks_like_a_number_is_a_text() -> None:
    known = parameters_of(get_backend("openvino").spec_class)
    assert _typed_like("revision", "2024", None, known) == "2024"
    assert _typed_like("max_seq_len", "2024", None, known) == 2024
    assert _typed_like("enable_prefix_caching", "false", True, known) is False
    assert _typed_like("temperature", "0.5", 0.0, known) == 0.5


def test_what_is_no_notebook_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.ipynb").write_text("no json")
    with pytest.raises(InputError, match="is not a notebook that can be read"):
        run_notebook(tmp_path / "a.ipynb")


def test_a_kernel_that_is_not_installed_is_a_sentence(tmp_path: Path) -> None:
    notebook = nbformat.read(TOUR, as_version=4)
    notebook.metadata["kernelspec"] = {"name": "fortran", "display_name": "Fortran"}
    nbformat.write(notebook, tmp_path / "a.ipynb")
    with pytest.raises(InputError, match="kernel 'fortran', which is not installed"):
        run_notebook(tmp_path / "a.ipynb", tmp_path / "out.ipynb")


def test_derived_documentation_has_not_drifted() -> None:
    assert docs.drifted(write=False) == [], "run: python -m workbench.docs"


@pytest.mark.parametrize("name", docs.RECORDS)
def test_every_parameter_of_a_record_has_its_line_in_a_table(name: str) -> None:
    page = f"before\n<!-- record: {name} -->\nold\n<!-- end -->\nafter"
    written = docs._readme(page)
    assert "\nold\n" not in written
    for parameter in parameters_of(docs.RECORDS[name]).values():
        assert f"| `{parameter.name}`" in written
    assert docs._readme(written) == written


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_kept_without_outputs(notebook: Path) -> None:
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None
