"""The verb of the command line that plans: findings, memory and forecast, and nothing is spent."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable

from workbench import backends
from workbench.build import Plan
from workbench.console import print_plan
from workbench.errors import InputError, WorkbenchError
from workbench.flags import add_flags, given
from workbench.forecast import Load, forecast
from workbench.gpu_table import COUNTS, check_count, find
from workbench.gpus import Gpu
from workbench.guard import weightless
from workbench.offers import already_built, missing
from workbench.spec import BuildSpec
from workbench.summaries import gpus_line, need_lines
from workbench.units import printable
from workbench.whatif import curve_line, what_if_curves

Action = Callable[[argparse.Namespace], int]

FITS, FITS_NOT, NOT_SURE = 0, 1, 3
"""Exit statuses; 2 is that of a value which no parameter takes."""


_LOAD = {
    "input_tokens": ("--isl", "Input sequence length of the forecast, in tokens."),
    "output_tokens": ("--osl", "Output sequence length of the forecast, in tokens."),
    "concurrency": ("--concurrency", "Requests that run at all times, in the forecast."),
}
"""The flag of each field of `Load`, and its help."""


def add_spec_flags(parser: argparse.ArgumentParser, words: list[str]) -> type[BuildSpec]:
    """Add the flags of the backend that the words name; return its parameters."""
    chooser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    chooser.add_argument("--backend", default=backends.DEFAULT)
    name = chooser.parse_known_args(words)[0].backend
    spec_class = backends.get_backend(name).spec_class
    parser.add_argument(
        "--backend",
        default=backends.DEFAULT,
        metavar="NAME",
        help=f"What compiles and runs the engine: {', '.join(backends.NAMES)}.",
    )
    add_flags(parser, spec_class, f"build parameters of {name}")
    parser.set_defaults(gone=spec_class.gone_names())
    return spec_class


def declare_fit(parser: argparse.ArgumentParser, words: list[str]) -> Action:
    """Declare `workbench fit`: what the build form says, without a build."""
    spec_class = add_spec_flags(parser, words)
    parser.epilog = (
        f"The exit status is {FITS} where it fits, {FITS_NOT} where it does not fit or a rule "
        f"refuses it, and {NOT_SURE} where it is tight or nobody knows."
    )
    parser.add_argument(
        "--gpu",
        metavar="NAME",
        help="The GPU to plan for: a name of the table, such as 'H200', or its beginning. Default: "
        "those of this machine.",
    )
    parser.add_argument(
        "--gpus",
        metavar="N",
        default="1",
        help=f"How many of them: {', '.join(map(str, COUNTS))}. Default: 1.",
    )
    parser.add_argument(
        "--forecast",
        action="store_true",
        help="Predict the speed from NVIDIA's performance database; takes some 10 to 30 s.",
    )
    usual = Load()
    for name, (flag, text) in _LOAD.items():
        default = str(getattr(usual, name))
        parser.add_argument(
            flag, dest=name, metavar="N", default=default, help=f"{text} Default: {default}."
        )

    def run(parsed: argparse.Namespace) -> int:
        spec = spec_class.parse({"backend": parsed.backend, **given(parsed, spec_class)})
        typed = {name: getattr(parsed, name) for name in _LOAD}
        load = Load.parse(typed, {name: flag for name, (flag, _) in _LOAD.items()})
        plan = Plan.make(spec, gpus=_gpus(parsed))
        if parsed.gpu and not plan.gpus:
            raise InputError(
                f"With --device {getattr(spec, 'device', 'cpu')} this runs on the processor of "
                "this machine, so there is no --gpu to plan for. Leave one of them out."
            )
        print_plan(plan)
        if plan.gpus:
            _print("GPUs", [gpus_line(plan.gpus)])
        if plan.expected_need:
            _print("Build", need_lines(plan.expected_need)[1:])
        _print("What if", map(curve_line, what_if_curves(plan)))
        if parsed.gpu is None:
            _print("Built", _built(plan))
        if parsed.forecast:
            _print("Forecast", _forecast(plan, load))
        return status_of(plan)

    return run


def status_of(plan: Plan) -> int:
    """Return the exit status that says whether a plan can work and fits.

    That only the configuration of a model is here says nothing about either.
    """
    passed_over = weightless(plan.model)
    # Fewer GPUs than ranks are a note only, since a build needs no more than one.
    missing = plan.gpus and plan.backend.not_runnable(plan.spec, plan.gpus)
    refused = any(f.level == "refuse" and f not in passed_over for f in plan.findings)
    verdict = plan.fit.verdict if plan.fit else "unknown"
    if refused or missing or verdict == "does not fit":
        return FITS_NOT
    return FITS if verdict == "fits" else NOT_SURE


def _gpus(parsed: argparse.Namespace) -> tuple[Gpu, ...] | None:
    """Return the GPUs to plan for; None for those of this machine.

    Raises:
        InputError: There are none such, or the backend uses none.
    """
    count = int(parsed.gpus) if parsed.gpus.isdecimal() else parsed.gpus
    check_count(count, "--gpus")
    if parsed.gpu is None and count == 1:
        return None
    if parsed.gpu is None:
        raise InputError("--gpus needs the name of the GPU: --gpu 'H200 SXM 141GB', for example.")
    if not backends.get_backend(parsed.backend).can_use_gpus:
        raise InputError(
            f"The backend {parsed.backend} runs on the processor of this machine, so there is no "
            "--gpu to plan for. Leave it out, or name a --backend that runs on GPUs."
        )
    model = find(parsed.gpu)
    return tuple(model.as_gpu(index) for index in range(count))


def _built(plan: Plan) -> list[str]:
    """Return the sentences of the engines that are there, or why none can be opened here."""
    try:
        found = [sentence for _, sentence in already_built(plan.spec)]
        return found or ["no engine like this yet.", *missing(plan.spec)]
    except WorkbenchError as error:
        return [f"nothing can be built here: {error}"]


def _forecast(plan: Plan, load: Load) -> list[str]:
    """Return the forecast, or why there is none: whether it fits is another question."""
    try:
        return forecast(plan, load).lines
    except WorkbenchError as error:
        return [f"No forecast: {error}"]


def _print(title: str, lines: Iterable[str]) -> None:
    """Print lines beside a title, as `print_plan` does."""
    for number, line in enumerate(lines):
        print(printable(f"{'' if number else title:<8} {line}"), flush=True)
