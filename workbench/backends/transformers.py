"""Eager generation with Hugging Face transformers: the baseline that everybody knows.

Nothing is compiled and nothing is quantized: what is published is the recipe, that is the
checkpoint (by reference and content) and the tokenizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from workbench.backends.base import Backend, Command, Lister
from workbench.backends.code_rules import code_rules
from workbench.backends.request_limits import (
    longest_output,
    longest_prompt,
    longest_sequence,
    room_rules,
)
from workbench.eager_memory import eager_fit
from workbench.fit import BuildNeed, Fit, Part
from workbench.hardware import Device
from workbench.memory import FLOAT_BYTES
from workbench.model import Model
from workbench.rules import Finding
from workbench.spec import BuildSpec, parameter

if TYPE_CHECKING:
    from workbench.gpus import Gpu

_LOADING = "transformers AutoModelForCausalLM.from_pretrained"


class TransformersSpec(BuildSpec):
    """Build parameters of the `transformers` backend; all of them count when it is loaded."""

    backend: Literal["transformers"] = "transformers"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = parameter(
        "auto",
        help="Compute precision. auto takes the model's own.",
        group="Precision",
        source=_LOADING,
    )
    device: Literal["auto", "cpu", "cuda"] = parameter(
        "auto",
        help="Where it runs. auto takes the first NVIDIA GPU where torch sees one, else the "
        "processor.",
        group="Device",
        source="torch.cuda.is_available",
    )
    max_input_len: int = longest_prompt(512)
    max_output_len: int = longest_output(512)
    max_seq_len: int | None = longest_sequence()
    threads: int | None = parameter(
        None,
        ge=1,
        le=1024,
        help="Threads that compute on the processor.",
        group="Device",
        none_means="what torch chooses for this processor",
        source="torch.set_num_threads",
    )

    @property
    def sequence_limit(self) -> int:
        """Longest prompt plus output of one request, in tokens."""
        return self.max_seq_len or self.max_input_len + self.max_output_len


def _mine(spec: BuildSpec) -> TransformersSpec:
    assert isinstance(spec, TransformersSpec)  # noqa: S101 - the registry pairs them
    return spec


def limits(spec: BuildSpec) -> dict[str, Any]:
    """Return what the session gives to transformers and enforces."""
    spec = _mine(spec)
    names = (
        "dtype",
        "device",
        "max_input_len",
        "max_output_len",
        "threads",
        "trust_remote_code",
    )
    local = Path(spec.model)
    return {
        **{name: getattr(spec, name) for name in names},
        # generate() takes up no new request while it runs one.
        "max_batch_size": 1,
        "max_seq_len": spec.sequence_limit,
        # It may have moved since the recipe was written.
        "checkpoint": str(local.absolute()) if local.is_dir() else None,
    }


def fit(spec: BuildSpec, model: Model, device: Device) -> Fit:
    """Estimate the memory of a session; see `workbench.eager_memory`."""
    spec = _mine(spec)
    return eager_fit(
        model,
        dtype=_dtype(spec, model),
        max_input_len=spec.max_input_len,
        max_seq_len=spec.sequence_limit,
        device=_device(spec, device),
    )


def _dtype(spec: TransformersSpec, model: Model) -> str:
    """Return the compute precision with "auto" resolved; float32 where the model names none."""
    known = ("float32", "bfloat16", "float16")
    if spec.dtype != "auto":
        return spec.dtype
    return model.dtype if model.dtype in known else "float32"


def takes(spec: BuildSpec, here: Lister) -> Sequence[Gpu]:
    """Return the GPU that it runs on: the first one, if it may use one and there is one."""
    return () if _mine(spec).device == "cpu" else here()[:1]


def _device(spec: TransformersSpec, device: Device) -> Device:
    """Return what it runs on, given the first GPU, or the processor where it takes none."""
    if spec.device == "cuda" and device.kind == "cpu":
        return Device("no NVIDIA GPU", "gpu", 0, 0, 0, 0)
    return device


def need(spec: BuildSpec, model: Model) -> BuildNeed:
    """Estimate what a build takes: a few files, and the model once for the smoke stage."""
    size = sum(tensor.bytes for tensor in model.tensors)
    how = "the model is loaded once to try it"
    on_gpu = model.parameters * FLOAT_BYTES[_dtype(_mine(spec), model)]
    return BuildNeed(
        Part("memory", 0, size, exact=False, how=how),
        Part("disk", 0, 64 << 20, exact=False, how="tokenizer and recipe; no weights are copied"),
        Part("GPU memory", on_gpu, on_gpu + (1 << 30), exact=False, how=how),
        devices=0,
    )


def commands(spec: BuildSpec, model: Model | None) -> list[Command]:
    """Return a Python program that does the same elsewhere, as a shell command."""
    spec = _mine(spec)
    source = str(model.path) if model and model.path else spec.model
    place = '"cuda" if torch.cuda.is_available() else "cpu"'
    threads = [f"torch.set_num_threads({spec.threads})"] if spec.threads else []
    revision = f", revision={spec.revision!r}" if spec.revision else ""
    trust = ", trust_remote_code=True" if spec.trust_remote_code else ""
    precision, length = f'dtype="{spec.dtype}"', spec.max_output_len
    lines = [
        "import torch",
        "from transformers import AutoModelForCausalLM, AutoTokenizer, TextStreamer",
        *threads,
        f"device = {place if spec.device == 'auto' else repr(spec.device)}",
        f"source = {source!r}",
        f"tokenizer = AutoTokenizer.from_pretrained(source{revision}{trust})",
        f"model = AutoModelForCausalLM.from_pretrained(source, {precision}{revision}{trust})",
        "model = model.to(device)",
        'inputs = tokenizer("PROMPT", return_tensors="pt").to(device)',
        "shown = TextStreamer(tokenizer)",
        f"model.generate(**inputs, do_sample=False, max_new_tokens={length}, streamer=shown)",
    ]
    text = "\n".join(lines)
    return [Command("Generate with transformers", f"python - <<'PROGRAM'\n{text}\nPROGRAM")]


def _findings(spec: BuildSpec, model: Model | None, gpus: Sequence[Gpu]) -> list[Finding]:
    spec = _mine(spec)
    found = [*code_rules(spec, model), *room_rules(spec)]
    if spec.device == "cuda" and not gpus:
        found.append(
            Finding(
                "refuse",
                "device",
                "no NVIDIA GPU was found here.",
                "Use cpu, or auto, which takes a GPU where there is one.",
                (("device", "auto"),),
            )
        )
    if spec.device == "cuda" and spec.threads:
        found.append(
            Finding(
                "ignored",
                "threads",
                "the GPU computes.",
                "Leave it empty.",
                (("threads", None),),
            )
        )
    return found + (_model_rules(spec, model) if model else [])


def _model_rules(spec: TransformersSpec, model: Model) -> list[Finding]:
    found = []
    limit = spec.sequence_limit
    if model.context_length and limit > model.context_length:
        found.append(
            Finding(
                "refuse",
                "max_seq_len",
                f"{limit} tokens are beyond the model's context of {model.context_length}.",
                "Lower max_input_len, max_output_len or max_seq_len, so that a request has at "
                f"most {model.context_length}.",
                (("max_seq_len", model.context_length),),
            )
        )
    if spec.revision and (spec.model == "demo" or Path(spec.model).is_dir()):
        found.append(
            Finding(
                "ignored",
                "revision",
                "a local directory has no revisions.",
                "Leave it empty.",
                (("revision", None),),
            )
        )
    return found


_FREE_TEXT = "transformers' generate() has no structured output of its own."

BACKEND = Backend(
    name="transformers",
    title="Eager generation with transformers",
    about="Nothing is compiled: the checkpoint is loaded as it is, and generate() runs one "
    "request at a time; others wait. What is published is the recipe. The baseline that "
    "everybody knows.",
    spec_class=TransformersSpec,
    packages=("transformers", "torch"),
    install="pip install 'trtllm-workbench[cpu]'",
    stages={"recipe": "write the recipe and the tokenizer"},
    findings=_findings,
    fit=fit,
    need=need,
    limits=limits,
    commands=commands,
    scores=True,
    takes=takes,
    lacks={"json_schema": _FREE_TEXT, "regex": _FREE_TEXT},
)
