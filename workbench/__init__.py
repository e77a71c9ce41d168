"""TensorRT-LLM workbench: choose, compile, stream and compare engines from Jupyter.

The public names are loaded when they are first used, so that `import workbench` is quick and
works on a machine with nothing but Jupyter.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.backends import get_backend, make_spec
    from workbench.bench import run_trial
    from workbench.build import Plan, start_build
    from workbench.compare_plots import engines_figure, trade_off_figure
    from workbench.compare_report import write_report
    from workbench.comparison import Comparison
    from workbench.endpoint import Endpoint
    from workbench.engine_report import save_report
    from workbench.errors import WorkbenchError
    from workbench.export import export_to_run
    from workbench.foreign import import_trials
    from workbench.freshness import Demand
    from workbench.generation import Generation
    from workbench.jobs import find_job, list_jobs
    from workbench.measuring import measure
    from workbench.model import Model
    from workbench.notebook import (
        check_injected,
        headless,
        publish_result,
        run_notebook,
        spec_from,
        target_from,
    )
    from workbench.offers import covering
    from workbench.opening import open_engine
    from workbench.plots import latency_figure, show, stages_figure
    from workbench.quality import Quality
    from workbench.results import find_trial, frame, list_trials, rows
    from workbench.sampling import Sampling
    from workbench.served import run_endpoint_trial, run_server_trial
    from workbench.server_spec import ServerSpec
    from workbench.serving import Server, await_server, engine_server, start_server
    from workbench.session import Session
    from workbench.sources import baseline_of
    from workbench.store import find_engine, list_engines
    from workbench.stream_plots import scaling_figure
    from workbench.sweep import Sweep, run_sweep
    from workbench.sweep_job import start_sweep
    from workbench.sweep_plan import SweepPlan
    from workbench.toolchain import find_toolchain
    from workbench.trial import Trial
    from workbench.trial_words import trial_lines
    from workbench.triton_check import check_triton
    from workbench.widgets.build import BuildPanel
    from workbench.widgets.compare import ComparePanel
    from workbench.widgets.form import BuildForm
    from workbench.widgets.jobs import JobsPanel
    from workbench.widgets.many import ManyPanel
    from workbench.widgets.playground import PlaygroundPanel
    from workbench.widgets.serve import ServePanel
    from workbench.widgets.side_by_side import SideBySidePanel
    from workbench.widgets.store import StorePanel
    from workbench.widgets.stream import StreamPanel
    from workbench.widgets.sweep import SweepPanel
    from workbench.workload import Workload

__version__ = "0.1.0"

_HOMES = {
    "workbench.backends": ("get_backend", "make_spec"),
    "workbench.bench": ("run_trial",),
    "workbench.build": ("Plan", "start_build"),
    "workbench.compare_plots": ("engines_figure", "trade_off_figure"),
    "workbench.compare_report": ("write_report",),
    "workbench.comparison": ("Comparison",),
    "workbench.offers": ("covering",),
    "workbench.opening": ("open_engine",),
    "workbench.endpoint": ("Endpoint",),
    "workbench.engine_report": ("save_report",),
    "workbench.errors": ("WorkbenchError",),
    "workbench.export": ("export_to_run",),
    "workbench.foreign": ("import_trials",),
    "workbench.freshness": ("Demand",),
    "workbench.generation": ("Generation",),
    "workbench.jobs": ("find_job", "list_jobs"),
    "workbench.measuring": ("measure",),
    "workbench.model": ("Model",),
    "workbench.notebook": (
        "check_injected",
        "headless",
        "publish_result",
        "run_notebook",
        "spec_from",
        "target_from",
    ),
    "workbench.plots": ("latency_figure", "show", "stages_figure"),
    "workbench.quality": ("Quality",),
    "workbench.results": ("find_trial", "frame", "list_trials", "rows"),
    "workbench.sampling": ("Sampling",),
    "workbench.served": ("run_endpoint_trial", "run_server_trial"),
    "workbench.server_spec": ("ServerSpec",),
    "workbench.serving": ("Server", "await_server", "engine_server", "start_server"),
    "workbench.session": ("Session",),
    "workbench.sources": ("baseline_of",),
    "workbench.store": ("find_engine", "list_engines"),
    "workbench.sweep": ("Sweep", "run_sweep"),
    "workbench.sweep_job": ("start_sweep",),
    "workbench.sweep_plan": ("SweepPlan",),
    "workbench.toolchain": ("find_toolchain",),
    "workbench.trial": ("Trial",),
    "workbench.trial_words": ("trial_lines",),
    "workbench.triton_check": ("check_triton",),
    "workbench.widgets.build": ("BuildPanel",),
    "workbench.widgets.compare": ("ComparePanel",),
    "workbench.widgets.form": ("BuildForm",),
    "workbench.widgets.jobs": ("JobsPanel",),
    "workbench.stream_plots": ("scaling_figure",),
    "workbench.widgets.many": ("ManyPanel",),
    "workbench.widgets.playground": ("PlaygroundPanel",),
    "workbench.widgets.side_by_side": ("SideBySidePanel",),
    "workbench.widgets.serve": ("ServePanel",),
    "workbench.widgets.store": ("StorePanel",),
    "workbench.widgets.stream": ("StreamPanel",),
    "workbench.widgets.sweep": ("SweepPanel",),
    "workbench.workload": ("Workload",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [  # noqa: PLE0604, RUF100 - spelled out, since type checkers do not follow _HOMES
    "BuildForm",
    "BuildPanel",
    "ComparePanel",
    "Comparison",
    "Demand",
    "Endpoint",
    "Generation",
    "JobsPanel",
    "ManyPanel",
    "Model",
    "Plan",
    "PlaygroundPanel",
    "Quality",
    "Sampling",
    "ServePanel",
    "Server",
    "ServerSpec",
    "Session",
    "SideBySidePanel",
    "StorePanel",
    "StreamPanel",
    "Sweep",
    "SweepPanel",
    "SweepPlan",
    "Trial",
    "WorkbenchError",
    "Workload",
    "__version__",
    "await_server",
    "baseline_of",
    "check_injected",
    "check_triton",
    "covering",
    "engine_server",
    "engines_figure",
    "export_to_run",
    "find_engine",
    "find_job",
    "find_toolchain",
    "find_trial",
    "frame",
    "get_backend",
    "headless",
    "import_trials",
    "latency_figure",
    "list_engines",
    "list_jobs",
    "list_trials",
    "make_spec",
    "measure",
    "open_engine",
    "publish_result",
    "rows",
    "run_endpoint_trial",
    "run_notebook",
    "run_server_trial",
    "run_sweep",
    "run_trial",
    "save_report",
    "scaling_figure",
    "show",
    "spec_from",
    "stages_figure",
    "start_build",
    "start_server",
    "start_sweep",
    "target_from",
    "trade_off_figure",
    "trial_lines",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module, or one of the modules themselves."""
    if name not in _HOME:
        module = f"{__name__}.{name}"
        try:
            # What `from workbench import files` comes to; nothing else has to be loaded for it.
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name != module:
                raise
        from workbench.spec import nearest  # noqa: PLC0415 - only to help

        raise AttributeError(f"workbench has no '{name}'.{nearest(name, __all__)}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
