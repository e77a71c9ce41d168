"""Convert a Hugging Face checkpoint into one of TensorRT-LLM, as `order["conversion"]` says.

The wheel has no convert_checkpoint.py; the same calls are made here. TensorRT-LLM holds a model
until its process ends, so that this step has a process of its own.
"""

from __future__ import annotations

import atexit
import gc
import json
import re
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from .channel import Channel, Refusal
from .own_code import hide_code
from .trtllm_chat import is_gone


def run(order: dict[str, Any], channel: Channel) -> None:
    """Convert `order["model"]` into the folder `checkpoint` in `order["between"]`.

    Raises:
        Refusal: The engine backend does not know the model's architecture, or this tensorrt_llm
            has no engine backend.
    """
    channel.exit_when_closed()
    recipe = order["conversion"]
    output = Path(order["between"]) / "checkpoint"
    output.mkdir(parents=True)
    channel.send(event="stage", name="import")
    # By default the library logs errors only; batches of a calibration are counted at "debug".
    _import(channel).logger.set_level("debug" if recipe["path"] == "quantize" else "info")
    hidden = _take_under_neutral_name(recipe)
    try:
        if recipe["path"] == "quantize":
            _quantize(recipe, output, channel)
        else:
            _convert(recipe, output, channel)
    except NotImplementedError as error:
        raise Refusal(
            f"TensorRT-LLM cannot convert this model: {_first_line(error)}. Its PyTorch backend "
            "may know it: backend tensorrt_llm_torch."
        ) from error
    except ValueError as error:
        if not hidden:
            raise
        raise Refusal(
            "TensorRT-LLM cannot convert this model without the Python code of its repository, "
            f"and none of that was run, since trust_remote_code is off: {_first_line(error)}. "
            "Read the code, and switch trust_remote_code on if you trust it."
        ) from error
    channel.send(event="done")


def _take_under_neutral_name(recipe: dict[str, Any]) -> bool:
    """Give a recipe another path of its checkpoint, which says no more than its model type.

    Unless the recipe allows it, code of the checkpoint is out of reach there; returns whether
    there was any.

    TensorRT-LLM reads a checkpoint in another way when its path contains "mpt", "vila", "llava"
    or "exaone", and /data/prompts contains the first (models/llama/model.py,
    quantization/quantize_by_modelopt.py).
    """
    model = Path(recipe["model"])
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    # Whoever wrote the checkpoint chose it: it must not lead elsewhere.
    kind = re.sub(r"\W", "_", str(config.get("model_type", "model")))
    while True:
        folder = Path(tempfile.mkdtemp(prefix="checkpoint-"))
        if not any(word in str(folder) for word in ("mpt", "vila", "llava", "exaone")):
            break
        folder.rmdir()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    recipe["model"] = str(folder / kind)
    if not recipe["trust_remote_code"]:
        return hide_code(model, folder / kind)
    (folder / kind).symlink_to(model.resolve(), target_is_directory=True)
    return False


def _import(channel: Channel) -> Any:
    try:
        import tensorrt_llm
        from tensorrt_llm.models import AutoModelForCausalLM  # noqa: F401
    except ImportError as error:
        if not is_gone(error):
            raise  # something that it needs is missing
        raise Refusal(
            f"This tensorrt_llm has no engine backend ({error}). Versions up to 1.2.1 have it; "
            "with a later one use the backend tensorrt_llm_torch."
        ) from error
    channel.send(event="fact", values={"tensorrt_llm": tensorrt_llm.__version__})
    return tensorrt_llm


def _convert(recipe: dict[str, Any], output: Path, channel: Channel) -> None:
    """Convert rank by rank; only one rank's weights are in memory at a time."""
    from tensorrt_llm import Mapping
    from tensorrt_llm.models import AutoModelForCausalLM

    # Only the class of a model can be told to take it with its code.
    reader = _model_class(recipe) if recipe["trust_remote_code"] else AutoModelForCausalLM
    ranks = recipe["mapping"]["world_size"]
    channel.send(event="stage", name="convert")
    for rank in range(ranks):
        model = reader.from_hugging_face(
            recipe["model"],
            dtype=recipe["dtype"],
            mapping=Mapping(rank=rank, **recipe["mapping"]),
            quant_config=_quant_config(recipe),
            **recipe["options"],
        )
        model.save_checkpoint(str(output), save_config=rank == 0)
        del model
        gc.collect()
        channel.send(event="count", name="convert", done=rank + 1, total=ranks, unit="ranks")


def _quantize(recipe: dict[str, Any], output: Path, channel: Channel) -> None:
    """Calibrate and convert in one call, for all ranks; its log tells how far it is."""
    from tensorrt_llm import Mapping

    channel.send(event="stage", name="load")
    started = time.monotonic()
    _model_class(recipe).quantize(
        recipe["model"],
        str(output),
        dtype=recipe["dtype"],
        mapping=Mapping(rank=0, **recipe["mapping"]),
        quant_config=_quant_config(recipe),
        **recipe["calibration"],
        **recipe["options"],
    )
    channel.send(event="fact", values={"calibration_seconds": time.monotonic() - started})


def _model_class(recipe: dict[str, Any]) -> Any:
    from tensorrt_llm.models import AutoModelForCausalLM

    return AutoModelForCausalLM.get_trtllm_model_class(
        recipe["model"], trust_remote_code=recipe["trust_remote_code"]
    )


def _quant_config(recipe: dict[str, Any]) -> Any:
    """Return the QuantConfig of a recipe; its algorithms are given by the names of QuantAlgo."""
    from tensorrt_llm.models.modeling_utils import QuantConfig
    from tensorrt_llm.quantization import QuantAlgo

    values = dict(recipe["quantization"])
    for name in ("quant_algo", "kv_cache_quant_algo"):
        if values.get(name):
            values[name] = QuantAlgo[values[name]]
    return QuantConfig(**values)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().rstrip(".").splitlines()
    return lines[0] if lines else type(error).__name__
