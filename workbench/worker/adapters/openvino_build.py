"""Compile a Hugging Face checkpoint into an OpenVINO graph with compressed weights."""

from __future__ import annotations

import gc
import os
import sys
import time
from pathlib import Path
from typing import Any

from .channel import Channel, Refusal
from .quiet import leave_sklearn_out, switch_telemetry_off

GRAPH = "openvino_model"
COMPRESSED = ("int8", "int4")


def run(order: dict[str, Any], channel: Channel) -> None:
    """Build `order["model"]` (a directory) into `order["output"]` as `order["spec"]` says.

    Sends stages, counts and at the end {"event": "done"}.

    Raises:
        Refusal: The model or its parameters cannot be compiled.
    """
    channel.exit_when_closed()
    spec, source, output = order["spec"], Path(order["model"]), Path(order["output"])
    quantization = spec["quantization"]

    channel.send(event="stage", name="import")
    if spec["trust_remote_code"]:
        # Otherwise copies of the code would stay in the user's cache.
        os.environ["HF_MODULES_CACHE"] = str(Path(order["between"]) / "modules")
    _import_runtimes(compressing=quantization in COMPRESSED)
    channel.send(event="stage", name="load")
    model, tokenizer = _load(source, trust_remote_code=spec["trust_remote_code"])
    _export(model, tokenizer, output, half=quantization == "fp16", channel=channel)
    # The graph is on the disk; torch's modules refer to each other in circles.
    del model
    gc.collect()
    if quantization in COMPRESSED:
        channel.send(event="stage", name="compress")
        graph = _compress(output, spec, channel)
        channel.send(event="stage", name="save")
        _save(graph, output)
    channel.send(event="stage", name="tokenizer")
    _convert_tokenizer(tokenizer, output)
    channel.send(event="done")


def _import_runtimes(compressing: bool) -> None:
    """Import what the stages need, all at once.

    A million objects come and none goes: looking for garbage among them, now and with every
    collection that follows, takes a sixth of the time of a small model's build.
    """
    switch_telemetry_off()
    leave_sklearn_out()
    gc.disable()
    import optimum.exporters.openvino.convert  # noqa: F401
    import torch
    import transformers

    if compressing:
        import nncf  # noqa: F401
    gc.freeze()
    gc.enable()
    transformers.utils.logging.disable_progress_bar()

    torch.set_grad_enabled(False)


def _load(source: Path, *, trust_remote_code: bool) -> tuple[Any, Any]:
    """Load weights in float32 and the tokenizer, from a local directory.

    Raises:
        Refusal: transformers cannot, or not without the code that lies there.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=trust_remote_code)
        model = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=torch.float32,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
        )
    except (ValueError, OSError, KeyError, RuntimeError) as error:
        if not trust_remote_code and "trust_remote_code" in str(error):
            raise Refusal(
                "transformers cannot load this model without the Python code of its repository, "
                "and none of that was run, since trust_remote_code is off. Read the code in "
                f"{source}, and switch trust_remote_code on if you trust it."
            ) from error
        raise Refusal(f"transformers cannot load this model: {_first_line(error)}") from error
    return model.eval(), tokenizer


def _export(model: Any, tokenizer: Any, output: Path, half: bool, channel: Channel) -> None:
    """Trace the model and write the graph; layers are counted as they are traced."""
    from optimum.exporters.openvino.convert import export_from_model
    from optimum.intel.openvino.configuration import OVConfig

    hooks = _count_layers(model, channel)
    channel.send(event="stage", name="trace")
    try:
        export_from_model(
            model,
            output,
            task="text-generation-with-past",
            stateful=True,
            ov_config=OVConfig(dtype="fp16" if half else "fp32"),
            preprocessors=[tokenizer],
        )
    except (ValueError, NotImplementedError) as error:
        raise Refusal(f"optimum-intel cannot export this model: {_first_line(error)}") from error
    finally:
        for hook in hooks:
            hook.remove()


def _count_layers(model: Any, channel: Channel) -> list[Any]:
    """Report each decoder layer as the tracer enters it.

    After the last one the conversion runs in one stretch that reports nothing.
    """
    layers = _decoder_layers(model)
    total = len(layers)
    reached = 0

    def hook(index: int) -> Any:
        def enter(*_: Any) -> None:
            nonlocal reached
            if index < reached:
                return
            reached = index + 1
            channel.send(event="count", name="trace", done=reached, total=total, unit="layers")
            if reached == total:
                channel.send(event="stage", name="convert")

        return enter

    return [layer.register_forward_pre_hook(hook(i)) for i, layer in enumerate(layers)]


def _decoder_layers(model: Any) -> list[Any]:
    """Return the list of decoder layers, or nothing where the model keeps it elsewhere."""
    import torch

    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return list(module)
    return []


def _compress(output: Path, spec: dict[str, Any], channel: Channel) -> Any:
    """Compress the weights of the written graph with NNCF; tensors are counted."""
    import nncf
    import openvino

    _count_tensors(channel)
    graph = openvino.Core().read_model(output / f"{GRAPH}.xml")
    symmetric = spec["symmetric"]
    modes = nncf.CompressWeightsMode
    try:
        if spec["quantization"] == "int8":
            return nncf.compress_weights(
                graph, mode=modes.INT8_SYM if symmetric else modes.INT8_ASYM
            )
        return nncf.compress_weights(
            graph,
            mode=modes.INT4_SYM if symmetric else modes.INT4_ASYM,
            group_size=spec["group_size"],
            ratio=1.0,
        )
    except (nncf.ValidationError, nncf.InvalidGroupSizeError) as error:
        raise Refusal(f"NNCF cannot compress these weights: {_first_line(error)}") from error


def _count_tensors(channel: Channel) -> None:
    """Report each tensor that NNCF compresses.

    NNCF offers no callback; its progress bar walks the very list, so we put a counter around
    it. Where a later NNCF has none under that name, the stage simply shows no count.
    """
    from nncf.quantization.algorithms.weight_compression import algorithm

    bar = getattr(algorithm, "track", None)
    if bar is None:
        return

    def counted(sequence: Any, *args: Any, **options: Any) -> Any:
        items = list(sequence)
        last = 0.0
        for done, item in enumerate(bar(items, *args, **options), start=1):
            yield item
            now = time.monotonic()
            if now - last > 0.1 or done == len(items):
                last = now
                channel.send(
                    event="count", name="compress", done=done, total=len(items), unit="tensors"
                )

    algorithm.track = counted


def _save(graph: Any, output: Path) -> None:
    """Write the compressed graph in place of the first one."""
    import openvino

    openvino.save_model(graph, output / "compressed.xml", compress_to_fp16=False)
    # The weights file of the old graph is mapped into memory until the graph is gone.
    del graph
    for suffix in ("bin", "xml"):
        (output / f"compressed.{suffix}").replace(output / f"{GRAPH}.{suffix}")


def _convert_tokenizer(tokenizer: Any, output: Path) -> None:
    """Write the tokenizer as a graph too, so that the engine runs in OpenVINO GenAI alone."""
    from optimum.exporters.openvino.convert import export_tokenizer

    export_tokenizer(tokenizer, output, task="text-generation-with-past")
    if not (output / "tokenizer.json").exists():
        raise Refusal(
            "This model's tokenizer has no tokenizer.json and cannot be converted to one; save it "
            "with transformers as a fast tokenizer first."
        )
    sys.stdout.flush()


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
