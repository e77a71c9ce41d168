"""TensorRT-LLM's engine backend: convert a checkpoint, compile it with trtllm-build, run it.

tensorrt_llm 1.0 to 1.2.1, in a toolchain of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from workbench.backends import trtllm_command, trtllm_rules
from workbench.backends.base import Backend, Command, first_gpus
from workbench.backends.trtllm_conversion import conversion
from workbench.backends.trtllm_log import STAGES, LogTracker
from workbench.backends.trtllm_spec import TensorRtLlmSpec
from workbench.fit import BuildNeed, Correct, Fit, as_predicted
from workbench.gpus import list_gpus
from workbench.hardware import Device
from workbench.model import Model
from workbench.releases import INSTALL, LAST_STABLE, engines_gone
from workbench.rules import Finding
from workbench.spec import BuildSpec
from workbench.trtllm_memory import trtllm_fit
from workbench.trtllm_need import trtllm_build_need

if TYPE_CHECKING:
    from workbench.gpus import Gpu


def _mine(spec: BuildSpec) -> TensorRtLlmSpec:
    assert isinstance(spec, TensorRtLlmSpec)  # noqa: S101 - the registry pairs them
    return spec


def limits(spec: BuildSpec) -> dict[str, Any]:
    """Return what is given to the runtime; the shapes come from the engine's own config.json."""
    spec = _mine(spec)
    return {
        "runtime": spec.runtime,
        "kv_cache_free_gpu_memory_fraction": spec.kv_cache_free_gpu_memory_fraction,
        "kv_cache_tokens": spec.kv_cache_tokens,
        "enable_block_reuse": spec.enable_block_reuse,
        "enable_chunked_context": spec.enable_chunked_context,
        "gpu_weights_percent": spec.gpu_weights_percent,
        "guided_decoding_backend": spec.guided_decoding_backend,
        "gather_generation_logits": spec.gather_generation_logits or spec.gather_all_token_logits,
    }


def sequence_limit(spec: TensorRtLlmSpec, model: Model) -> int:
    """Return the longest prompt plus output of one request, in tokens.

    Where nothing says it, trtllm-build takes the model's context, or 2048 (tensorrt_llm
    builder.py, _init_max_seq_len).
    """
    return spec.sequence_limit or model.context_length or 2048


def shapes(spec: BuildSpec, model: Model) -> dict[str, int | None]:
    """Return what an engine must serve at least, by the names of its limits.

    max_output_len only counts towards max_seq_len, and max_input_len is a limit of its own where
    prompts are padded (tensorrt_llm builder.py).
    """
    spec = _mine(spec)
    packed = "disable" not in (spec.remove_input_padding, spec.context_fmha)
    return {
        "max_batch_size": spec.max_batch_size,
        "max_input_len": None if packed else spec.max_input_len,
        "max_output_len": None,
        "max_seq_len": sequence_limit(spec, model),
        "max_num_tokens": spec.max_num_tokens,
        "max_beam_width": spec.max_beam_width,
    }


def fit(spec: BuildSpec, model: Model, device: Device) -> Fit:
    """Estimate the memory of a session on its GPUs; see `workbench.trtllm_memory`."""
    return corrected_fit(spec, model, device, as_predicted)


def corrected_fit(spec: BuildSpec, model: Model, device: Device, correct: Correct) -> Fit:
    """Estimate the same, with weights and activations corrected by what was measured."""
    spec = _mine(spec)
    return trtllm_fit(
        model,
        dtype=spec.dtype,
        quantization=spec.quantization,
        kv_cache_dtype=spec.kv_cache_dtype,
        tp_size=spec.tp_size,
        pp_size=spec.pp_size,
        max_batch_size=spec.max_batch_size,
        max_seq_len=sequence_limit(spec, model),
        max_num_tokens=spec.max_num_tokens,
        max_beam_width=spec.max_beam_width,
        kv_cache_free_gpu_memory_fraction=spec.kv_cache_free_gpu_memory_fraction,
        kv_cache_tokens=spec.kv_cache_tokens,
        device=device,
        correct=correct,
    )


def need(spec: BuildSpec, model: Model) -> BuildNeed:
    """Estimate what a build takes of host and GPUs; see `workbench.trtllm_need`."""
    spec = _mine(spec)
    return trtllm_build_need(
        model,
        dtype=spec.dtype,
        quantization=spec.quantization,
        tp_size=spec.tp_size,
        pp_size=spec.pp_size,
        workers=spec.workers,
        strip_plan=spec.strip_plan,
    )


def order(spec: BuildSpec, model: Model, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return the recipe of the conversion and the arguments of trtllm-build."""
    spec = _mine(spec)
    checkpoint = f"{told['between']}/checkpoint"
    recipe = conversion(spec, told["model"], model)
    return {
        "conversion": recipe,
        # More processes than GPUs are not started (tensorrt_llm commands/build.py).
        "workers": min(spec.workers, len(list_gpus()) or 1),
        "online": ["convert"] if recipe["calibration"] else [],
        "arguments": trtllm_command.build_arguments(spec, checkpoint, told["output"], None),
    }


def tracker(step: str, order: Mapping[str, Any]) -> LogTracker:
    """Return the reader of what a step prints; a session only needs its known failures."""
    if step == "session":
        return LogTracker("build")
    recipe = order["conversion"]
    ranks = recipe["mapping"]["world_size"]
    return LogTracker(step, ranks=ranks, workers=order["workers"], batches=_batches(recipe))


def _batches(recipe: Mapping[str, Any]) -> int | None:
    """Return how many batches a calibration takes, where there is one.

    AWQ takes at most 32 texts (tensorrt_llm quantization/quantize_by_modelopt.py).
    """
    calibration = recipe["calibration"]
    if not calibration:
        return None
    awq = "AWQ" in (recipe["quantization"]["quant_algo"] or "")
    texts = min(32, calibration["calib_batches"]) if awq else calibration["calib_batches"]
    return -(-int(texts) // int(calibration["calib_batch_size"]))


def commands(spec: BuildSpec, model: Model | None) -> list[Command]:
    """Return the shell commands that convert, build and serve elsewhere."""
    name = str(model.path) if model and model.path else spec.model
    pairs = trtllm_command.shell_commands(_mine(spec), name, known=model)
    return [Command(title, text) for title, text in pairs]


def obstacle(versions: Mapping[str, str | None]) -> str:
    """Say why a toolchain with these versions has no engines, or nothing."""
    version = versions.get("tensorrt-llm")
    if version is None or not engines_gone(version):
        return ""
    return (
        f"tensorrt_llm {version} builds and runs no engines: the last stable release that does is "
        f"{LAST_STABLE}. Use the backend tensorrt_llm_torch with this toolchain, or install "
        f"tensorrt-llm=={LAST_STABLE} in another one."
    )


def not_runnable(spec: BuildSpec, gpus: Sequence[Gpu]) -> str:
    """Say why an engine of this spec cannot be loaded on these GPUs, or nothing."""
    spec = _mine(spec)
    if spec.strip_plan:
        return "strip_plan leaves the weights out until trtllm-refit puts them in."
    if spec.kv_cache_type == "disabled":
        return "an engine without a KV cache cannot generate."
    if spec.world_size > len(gpus):
        return f"it needs {spec.world_size} GPUs, and {len(gpus)} can be used here."
    return ""


def _findings(spec: BuildSpec, model: Model | None, gpus: Sequence[Gpu]) -> list[Finding]:
    return trtllm_rules.findings(_mine(spec), model, gpus)


BACKEND = Backend(
    name="tensorrt_llm",
    title="TensorRT-LLM engines on NVIDIA GPUs",
    about="The checkpoint is converted, and trtllm-build compiles it for this very kind of GPU, "
    "with these shapes; other shapes are another engine.",
    spec_class=TensorRtLlmSpec,
    packages=("tensorrt-llm", "tensorrt"),
    install=f'{INSTALL} && export WORKBENCH_TOOLCHAIN_TENSORRT_LLM="$PWD/trtllm/bin/python"',
    obstacle=obstacle,
    stages=STAGES | {"tokenizer": "write the tokenizer"},
    findings=_findings,
    fit=fit,
    corrected_fit=corrected_fit,
    need=need,
    limits=limits,
    shapes=shapes,
    commands=commands,
    steps=("convert", "build"),
    order=order,
    tracker=tracker,
    uses_gpu=True,
    takes=first_gpus,
    compiles_for_gpu=True,
    not_runnable=not_runnable,
    bound=("tensorrt-llm", "tensorrt"),
)
