"""Rules on Python code that comes with a model: it runs only when the spec says so."""

from __future__ import annotations

from collections.abc import Iterator

from workbench.model import Model
from workbench.rules import Finding
from workbench.spec import BuildSpec

FIELD = "trust_remote_code"
_SOURCE = "transformers dynamic_module_utils.py: auto_map in config.json, tokenizer_config.json"


def code_rules(spec: BuildSpec, model: Model | None) -> Iterator[Finding]:
    """Say which code will run, or that there is some which will not."""
    if spec.trust_remote_code:
        yield from _allowed(model)
    elif model and model.code:
        yield Finding(
            "warn",
            FIELD,
            f"the model's repository brings Python code ({_listed(model)}), which does not run. "
            f"The toolchain uses its own class for the model type {model.model_type}, and refuses "
            "the model where it has none.",
            "Nothing is to be done where the build succeeds. Otherwise read that code, and switch "
            f"{FIELD} on if you trust it.",
            (),
            _SOURCE,
        )


def _allowed(model: Model | None) -> Iterator[Finding]:
    if model and not model.code:
        yield Finding(
            "ignored",
            FIELD,
            "the model's configuration points to no code.",
            "Switch it off.",
            ((FIELD, False),),
            _SOURCE,
        )
        return
    files = f" ({_listed(model)})" if model else ""
    yield Finding(
        "warn",
        FIELD,
        f"Python code of the model's repository{files} will run with your rights, when the engine "
        "is built and, with tensorrt_llm_torch and transformers, each time that it is loaded.",
        "Read it first; of a hub id, give the commit that you have read as revision.",
        ((FIELD, False),),
        _SOURCE,
    )
    yield from _unreachable(model) if model else ()


def _unreachable(model: Model) -> Iterator[Finding]:
    """Refuse code that is not beside the weights: no engine's key covers it."""
    elsewhere = [name for name in model.code if "--" in name]
    missing = [
        name
        for name in model.code
        if name not in elsewhere and model.path and not (model.path / name).is_file()
    ]
    if elsewhere or missing:
        what = "belongs to another repository" if elsewhere else "is not in the model's directory"
        yield Finding(
            "refuse",
            FIELD,
            f"the code that its configuration points to, {(elsewhere or missing)[0]}, {what}; "
            "workers are offline, and an engine's key covers only what lies beside the weights.",
            "Put the file beside the weights, and let auto_map name it.",
            ((FIELD, False),),
            _SOURCE,
        )


def _listed(model: Model) -> str:
    first = ", ".join(model.code[:4])
    return f"{first} and {len(model.code) - 4} more" if len(model.code) > 4 else first
