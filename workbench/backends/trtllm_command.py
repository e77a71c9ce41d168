"""The command lines of a spec: the arguments of trtllm-build, and shell text to do it by hand."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from workbench.backends.trtllm_conversion import conversion
from workbench.backends.trtllm_spec import BUILD_FLAGS, TensorRtLlmSpec
from workbench.model import HUB_ID, Model

ALWAYS = ("max_batch_size", "max_input_len", "max_seq_len", "max_num_tokens", "max_beam_width")
"""Shapes that are written out even where they are the defaults, which changed between releases."""

LISTS = ("lora_dir", "lora_target_modules")
"""Parameters with several values, separated by commas."""


def build_arguments(
    spec: TensorRtLlmSpec, checkpoint: str, output: str, timing_cache: str | None
) -> list[str]:
    """Return the arguments of trtllm-build.

    Args:
        spec: The parameters.
        checkpoint: The directory of the converted checkpoint.
        output: The directory for the engine.
        timing_cache: The file that is read, where it exists, and written; None leaves it to
            trtllm-build, which writes model.cache into the current directory.
    """
    words = ["--checkpoint_dir", checkpoint, "--output_dir", output]
    if timing_cache is not None:
        words += ["--input_timing_cache", timing_cache, "--output_timing_cache", timing_cache]
    for flag in _flags(spec):
        words += flag
    return words


def shell_commands(
    spec: TensorRtLlmSpec, model: str, engine: str = "engine", known: Model | None = None
) -> list[tuple[str, str]]:
    """Return what does the same by hand, as titles and texts for a shell.

    Args:
        spec: The parameters.
        model: The local directory or hub id of the Hugging Face checkpoint.
        engine: The directory for the engine.
        known: What is known of the model; tells whether its weights are quantized already.
    """
    checkpoint = f"{engine}-checkpoint"
    return [
        ("Convert the checkpoint", _convert(spec, model, checkpoint, known)),
        ("Build the engine", _build(spec, checkpoint, engine)),
        ("Serve the engine", _serve(spec, model, engine)),
    ]


def _flags(spec: TensorRtLlmSpec) -> list[list[str]]:
    """Return flag and values of everything that is not trtllm-build's default."""
    flags = []
    for name in BUILD_FLAGS:
        value = spec.sequence_limit if name == "max_seq_len" else getattr(spec, name)
        default = TensorRtLlmSpec.model_fields[name].default
        if value is None or (value == default and name not in ALWAYS):
            continue
        if value is True:
            flags.append([f"--{name}"])
        elif name in LISTS:
            flags.append([f"--{name}", *listed(str(value))])
        else:
            flags.append([f"--{name}", str(value)])
    return flags


def listed(text: str) -> list[str]:
    """Return the values of a text that holds several, separated by commas."""
    return [value for value in (part.strip() for part in text.split(",")) if value]


def _build(spec: TensorRtLlmSpec, checkpoint: str, engine: str) -> str:
    places = [["--checkpoint_dir", checkpoint], ["--output_dir", engine]]
    return shell_lines(["trtllm-build"], [*places, *_flags(spec)])


def shell_lines(command: list[str], flags: list[list[str]]) -> str:
    """Return a command for a shell, each flag with its values on a line of its own."""
    return " \\\n    ".join(shlex.join(words) for words in (command, *flags))


def shell_file(name: str, text: str) -> str:
    """Return what writes a file, as a here-document that no shell expands."""
    return f"cat > {shlex.quote(name)} <<'YAML'\n{text}\nYAML\n"


def _convert(spec: TensorRtLlmSpec, model: str, checkpoint: str, known: Model | None) -> str:
    """Return a Python script in a here-document that no shell expands."""
    recipe = conversion(spec, model, known)
    lines = [
        "import os",
        "",
        *(["from huggingface_hub import snapshot_download"] if on_hub(model) else []),
        "from tensorrt_llm import Mapping",
        "from tensorrt_llm.models import AutoModelForCausalLM",
        "from tensorrt_llm.models.modeling_utils import QuantConfig",
        "from tensorrt_llm.quantization import QuantAlgo",
        "",
        f"source = {_source(spec, model)}",
        f"checkpoint = {checkpoint!r}",
        f"quantization = QuantConfig({_quant_config(recipe)})",
        "os.makedirs(checkpoint, exist_ok=True)",
    ]
    make = _quantize if recipe["path"] == "quantize" else _from_hugging_face
    return "\n".join(["python3 - <<'PY'", *lines, *make(recipe), "PY"])


def _from_hugging_face(recipe: dict[str, Any]) -> list[str]:
    # Only the class of a model can be told to take it with its code.
    reader = _model_class(recipe) if recipe["trust_remote_code"] else "AutoModelForCausalLM"
    return [
        f"for rank in range({recipe['mapping']['world_size']}):",
        f"    model = {reader}.from_hugging_face(",
        "        source,",
        f"        dtype={recipe['dtype']!r},",
        f"        mapping=Mapping(rank=rank, {_keywords(recipe['mapping'])}),",
        "        quant_config=quantization,",
        *(f"        {name}={value!r}," for name, value in recipe["options"].items()),
        "    )",
        "    model.save_checkpoint(checkpoint, save_config=rank == 0)",
        "    del model",
    ]


def _quantize(recipe: dict[str, Any]) -> list[str]:
    """Return the one call that calibrates and writes the ranks of a checkpoint."""
    values = recipe["calibration"] | recipe["options"]
    return [
        f"{_model_class(recipe)}.quantize(",
        "    source,",
        "    checkpoint,",
        f"    dtype={recipe['dtype']!r},",
        f"    mapping=Mapping({_keywords(recipe['mapping'])}),",
        "    quant_config=quantization,",
        *(f"    {name}={value!r}," for name, value in values.items()),
        ")",
    ]


def _model_class(recipe: dict[str, Any]) -> str:
    trusted = ", trust_remote_code=True" if recipe["trust_remote_code"] else ""
    return f"AutoModelForCausalLM.get_trtllm_model_class(source{trusted})"


def _quant_config(recipe: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}=QuantAlgo.{value}" if name.endswith("quant_algo") else f"{name}={value!r}"
        for name, value in recipe["quantization"].items()
        if value is not None
    )


def _keywords(values: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


def on_hub(model: str) -> bool:
    """Say whether a name is a hub id: as models are read, what exists as a path is a path."""
    return HUB_ID.fullmatch(model) is not None and not Path(model).exists()


def _source(spec: TensorRtLlmSpec, model: str) -> str:
    """Return the Python expression for the model's directory; the API takes no hub ids."""
    if not on_hub(model):
        return repr(model)
    if spec.revision is None:
        return f"snapshot_download({model!r})"
    return f"snapshot_download({model!r}, revision={spec.revision!r}, local_dir={_folder(model)!r})"


def _folder(model: str) -> str:
    return model.rpartition("/")[2]


def _serve(spec: TensorRtLlmSpec, model: str, engine: str) -> str:
    """Return the command of an OpenAI-compatible server.

    Three values have to be repeated although the engine knows them: trtllm-serve gives the
    runtime its own defaults otherwise, and the runtime refuses a batch or beam above the
    engine's and works with the smaller number of tokens (tensorrt_llm commands/serve.py and
    batch_manager/trtGptModel.h). The tokenizer is not part of an engine that trtllm-build made.
    """
    # trtllm-serve has no flag for a tokenizer's revision; _source put that one into a folder.
    tokenizer = _folder(model) if spec.revision and on_hub(model) else model
    flags = [
        ["--backend", "tensorrt"],
        ["--tokenizer", tokenizer],
        ["--host", "127.0.0.1"],
        ["--port", "8000"],
        ["--max_batch_size", str(spec.max_batch_size)],
        ["--max_num_tokens", str(spec.max_num_tokens)],
        ["--max_beam_width", str(spec.max_beam_width)],
        ["--kv_cache_free_gpu_memory_fraction", str(spec.kv_cache_free_gpu_memory_fraction)],
    ]
    if spec.tp_size > 1:
        flags.append(["--tp_size", str(spec.tp_size)])
    if spec.pp_size > 1:
        flags.append(["--pp_size", str(spec.pp_size)])
    if spec.trust_remote_code:
        flags.append(["--trust_remote_code"])
    if spec.enable_chunked_context:
        flags.append(["--enable_chunked_prefill"])
    settings = _settings(spec)
    if settings:
        file = f"{engine}-serve.yaml"
        flags.append(["--extra_llm_api_options", file])
        settings = shell_file(file, settings)
    return settings + shell_lines(["trtllm-serve", engine], flags)


def _settings(spec: TensorRtLlmSpec) -> str:
    """Return the settings that trtllm-serve has no flags for, as YAML, or an empty string."""
    guide = spec.guided_decoding_backend
    settings = [_kv_cache_settings(spec)]
    settings += [f"guided_decoding_backend: {guide}"] if guide != "none" else []
    return "\n".join(filter(None, settings))


def _kv_cache_settings(spec: TensorRtLlmSpec) -> str:
    lines = []
    if spec.kv_cache_tokens is not None:
        lines.append(f"  max_tokens: {spec.kv_cache_tokens}")
    if not spec.enable_block_reuse:
        lines.append("  enable_block_reuse: false")
    if not lines:
        return ""
    # Older releases take this whole group from the file, so that the share stands here, too.
    share = f"  free_gpu_memory_fraction: {spec.kv_cache_free_gpu_memory_fraction}"
    return "\n".join(["kv_cache_config:", share, *lines])
