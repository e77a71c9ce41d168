"""Who may import whom: downward only, no runtime on the notebook side, quick to import."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import workbench

PACKAGE = Path(workbench.__file__).parent
WORKER = PACKAGE / "worker"

RUNTIMES = {
    "tensorrt_llm",
    "torch",
    "transformers",
    "openvino",
    "openvino_genai",
    "optimum",
    "nncf",
}

# From the ground up; a module imports from its own layer (if it must) or from below.
LAYERS = [
    {"errors", "units", "releases", "tarball", "latest", "sse", "pareto", "shipped"},
    {"files", "owner", "locks", "strays", "spec", "hardware", "metrics", "gpus", "gpu_table"},
    {"fit", "digests", "grid", "records"},
    {"configuration", "shapes"},
    {"llama_shapes", "expert_shapes", "gpt_shapes"},
    {
        "hub",
        "stored_quantization",
        "model_card",
        "tensors",
        "checkpoint",
        "sizes",
        "fingerprint",
        "rules",
        "sampling",
        "flags",
    },
    {"architectures"},
    {"model"},
    {"weights", "trtllm_weights"},
    {"memory", "trtllm_memory"},
    {"eager_memory", "trtllm_need"},
    {"containers", "environments"},
    {"toolchain", "backends"},
    {"process", "server_process"},
    {"engine"},
    {"devices", "explanations", "usage", "presets", "spec_text"},
    {"store", "journal", "processes"},
    {"jobs", "guard", "heartbeat", "history", "correction", "leash"},
    {"silence"},
    {"embedded_export", "trtllm_export", "triton_values"},
    {"triton_export", "triton_check"},
    {"export"},
    {"queues", "eviction", "listing", "engine_history"},
    {"archive"},
    {"generation"},
    {"opened", "openai_protocol", "scores"},
    {"session_peak", "session_log"},
    {
        "endpoint",
        "endpoint_calls",
        "endpoint_clock",
        "endpoint_connection",
        "endpoint_route",
        "endpoint_stream",
        "session",
    },
    {"server_spec", "addresses"},
    {"session_history"},
    {"build", "compilation"},
    {"opening", "recipe", "model_reader", "gpu_reader", "offers", "conversation"},
    {"sources", "serving"},
    {"shared", "divergence", "many", "answers"},
    {"steering"},
    {"sides"},
    {"forecast"},
    {"workload", "prompts", "tokenizer", "load", "deadline", "surroundings", "measurement"},
    {"checks", "quality", "predictions"},
    {"trial", "measuring"},
    {"results", "yardsticks"},
    {"freshness"},
    {"spelling"},
    {"bench", "references", "foreign", "served"},
    {"sweep", "sweep_job", "sweep_plan", "trial_words", "axes"},
    {"candidates", "cluster"},
    {"comparison"},
    {
        "runner",
        "summaries",
        "notebook",
        "notebook_parameters",
        "notebook_runs",
        "plots",
        "account",
        "whatif",
        "transcript",
    },
    {"fit_plots", "stream_plots", "compare_plots"},
    {"report", "compare_report", "engine_report"},
    {"doctor"},
    {"widgets", "lab", "console", "docs", "verbs"},
    {
        "fit_commands",
        "job_commands",
        "store_commands",
        "trial_commands",
        "compare_commands",
        "serve_commands",
    },
    {"commands"},
    {"cli"},
]


def _modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if WORKER not in path.parents)


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module is not None
            yield node.module
            if node.module == "workbench":
                yield from (f"workbench.{alias.name}" for alias in node.names)


def _layer(name: str) -> int:
    first = name.split(".", maxsplit=1)[0]
    return next(number for number, names in enumerate(LAYERS) if first in names)


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_notebook_side_imports_no_runtime(path: Path) -> None:
    assert not {name.split(".")[0] for name in _imports(path)} & RUNTIMES


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downward(path: Path) -> None:
    name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    if name == "__init__":
        return
    # runner.py starts what its job asks for, so it stands beside the layers it calls.
    for imported in _imports(path):
        inside = imported.removeprefix("workbench.")
        if imported.startswith("workbench.") and inside != "__version__":
            assert _layer(inside) <= _layer(name), f"{name} imports {inside}"


@pytest.mark.parametrize("path", sorted(WORKER.rglob("*.py")), ids=lambda path: path.name)
def test_the_worker_imports_nothing_of_ours(path: Path) -> None:
    assert not any(name.split(".")[0] == "workbench" for name in _imports(path))


def test_no_module_is_long() -> None:
    lengths = {
        str(path.relative_to(PACKAGE)): len(path.read_text().splitlines())
        for path in PACKAGE.rglob("*.py")
    }
    assert {name: lines for name, lines in lengths.items() if lines > 400} == {}


def test_all_public_names_load_and_no_other() -> None:
    for name in workbench.__all__:
        assert getattr(workbench, name) is not None
    assert sorted(workbench._HOME) == sorted(set(workbench.__all__) - {"__version__"})
    with pytest.raises(AttributeError, match="Did you mean 'BuildForm'"):
        workbench.BuildFrom  # noqa: B018


@pytest.mark.parametrize(
    "what",
    [
        "import workbench",
        "import workbench.cli",
        # All that is there before a job is detached, and whoever starts it goes on.
        "from workbench import runner; import os",
        "from workbench import jobs; import os",
    ],
)
def test_importing_brings_nothing_heavy(what: str) -> None:
    heavy = RUNTIMES | {"pandas", "plotly", "numpy", "papermill", "IPython", "pydantic", "dask"}
    script = f"{what}, sys; print(*sorted({heavy!r} & set(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == ""


def test_no_shell_is_ever_used() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.keyword) and node.arg == "shell":
                pytest.fail(f"{path.name} uses a shell")
            if isinstance(node, ast.Attribute) and node.attr in ("system", "popen"):
                pytest.fail(f"{path.name} uses os.{node.attr}")
