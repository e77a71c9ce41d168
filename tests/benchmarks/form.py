"""How long the build form takes to answer a change; a change shall take at most 50 ms.

    python -m tests.benchmarks.form [--rounds N]

For each backend a model of many gigabytes (its weights are holes in files) is chosen, for GPUs of
the table and for those of this machine (played by `tests/standin_nvml`), with the What-if curves
closed and open; then every field is changed and reset, and every preset is applied. The time is
what the kernel needs from the change of a control to the last message for the browser; on a busy
machine the processor's time tells what is ours. Now and then Python looks through all objects of
the process for garbage: how long it was about that is told beside the time of its change, and does
not count against the limit, since it falls on whatever runs then.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import statistics
import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tests.standin_nvml import compile_library, load

LIMIT = 0.050
"""Seconds."""

LAYERS, HIDDEN, INNER, VOCABULARY = 80, 8192, 28672, 128256
"""Of a model with 70 billion parameters."""

SHARDS = 30


def make_large_model(directory: Path) -> Path:
    """Write the headers of a Llama of 70 billion parameters; its 141 GB are holes."""
    directory.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": HIDDEN,
        "intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 131072,
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": False,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
    }
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "tokenizer.json").write_text("{}")
    tensors = list(_tensors())
    weight_map = {}
    for number in range(SHARDS):
        name = f"model-{number + 1:05}-of-{SHARDS:05}.safetensors"
        mine = tensors[number::SHARDS]
        _write_shard(directory / name, mine)
        weight_map |= {tensor: name for tensor, _ in mine}
    index = {"metadata": {}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    return directory


def _tensors() -> list[tuple[str, list[int]]]:
    found = [("model.embed_tokens.weight", [VOCABULARY, HIDDEN]), ("model.norm.weight", [HIDDEN])]
    found.append(("lm_head.weight", [VOCABULARY, HIDDEN]))
    parts = {
        "self_attn.q_proj": [HIDDEN, HIDDEN],
        "self_attn.k_proj": [1024, HIDDEN],
        "self_attn.v_proj": [1024, HIDDEN],
        "self_attn.o_proj": [HIDDEN, HIDDEN],
        "mlp.gate_proj": [INNER, HIDDEN],
        "mlp.up_proj": [INNER, HIDDEN],
        "mlp.down_proj": [HIDDEN, INNER],
        "input_layernorm": [HIDDEN],
        "post_attention_layernorm": [HIDDEN],
    }
    for layer in range(LAYERS):
        found += [(f"model.layers.{layer}.{name}.weight", s) for name, s in parts.items()]
    return found


def _write_shard(path: Path, tensors: list[tuple[str, list[int]]]) -> None:
    header, end = {}, 0
    for name, shape in tensors:
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def another(parameter: Any) -> Any:
    """Return a value of a parameter that is not its default."""
    if parameter.kind == "choice":
        return next(choice for choice in parameter.choices if choice != parameter.default)
    if parameter.kind == "switch":
        return not parameter.default
    if parameter.kind == "text":
        return "main"
    value = (parameter.default or parameter.minimum or 0.4) * 2
    if parameter.maximum is not None and value > parameter.maximum:
        value = parameter.maximum / 2
    return int(value) if parameter.kind == "integer" else value / 3


class Change(NamedTuple):
    """A change and the seconds until it was answered, by the clock and by the processor.

    `collecting` are the seconds of the first in which Python looked through all its objects.
    """

    wall: float
    processor: float
    collecting: float
    what: str


def _timed(what: str, change: Callable[[], None]) -> Change:
    began, collecting = 0.0, 0.0

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal began, collecting
        if info["generation"] == 2:
            if phase == "start":
                began = time.perf_counter()
            else:
                collecting += time.perf_counter() - began

    gc.callbacks.append(note)
    try:
        wall, processor = time.perf_counter(), time.process_time()
        change()
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
    finally:
        gc.callbacks.remove(note)
    return Change(wall, processor, collecting, what)


def measure(spec: Any, device: str, rounds: int, *, what_if: bool) -> list[Change]:
    """Make every change of a form."""
    from workbench.presets import presets_of
    from workbench.widgets.choosers import HERE
    from workbench.widgets.form import BuildForm

    form = BuildForm(spec, device=device, gpu_count=1 if device == HERE else 4)
    form._fit.what_if.value = what_if
    changes = []
    for _ in range(rounds):
        for name, field in form._fields.items():
            if name == "model":
                continue
            value = another(field.parameter)
            changes.append(_timed(name, lambda f=field, v=value: setattr(f, "value", v)))
            changes.append(_timed(f"{name} back", field.reset))
        changes += [
            _timed(f"preset {preset.name}", lambda p=preset: form.apply(p))
            for preset in presets_of(spec.backend)
        ]
        changes.append(_timed("reset all", form.reset))
    return sorted(changes)


FOUR_GPUS = ";".join(["NVIDIA H200,9.0,150754820096,150000000000"] * 4)


def devices_of(backend: str, here: bool) -> list[str]:
    """Return what is planned for: a row of the table and, with a stand-in for NVML, this machine.

    Args:
        backend: Its name.
        here: Whether this machine has GPUs, real or played.
    """
    from workbench.backends import get_backend

    planned = ["H200 SXM 141GB"] if get_backend(backend).can_use_gpus else []
    return [*planned, *(["this machine"] if here or not planned else [])]


def play_gpus(folder: Path) -> bool:
    """Give this process four GPUs that a library plays; return whether a compiler was found."""
    library = compile_library(folder)
    if library is None:
        print("Without a C compiler nothing plays the GPUs of this machine.")
        return False
    load(library)
    os.environ["STANDIN_GPUS"] = FOUR_GPUS
    return True


def main() -> None:
    """Measure, print, and fail where a change took longer than the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    slow = False
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["WORKBENCH_HOME"] = str(Path(scratch) / "home")
        here = play_gpus(Path(scratch))

        from workbench.backends import NAMES, make_spec

        model = make_large_model(Path(scratch) / "llama-70b")
        for backend in NAMES:
            spec = make_spec({"backend": backend, "model": str(model)})
            for device, what_if in itertools.product(devices_of(backend, here), (False, True)):
                changes = measure(spec, device, rounds, what_if=what_if)
                curves = ", What if open" if what_if else ""
                print(f"{backend} on {device}{curves}: {summary(changes)}", flush=True)
                slow |= any(change.wall - change.collecting > LIMIT for change in changes)
    if slow:
        raise SystemExit(f"A change took longer than {1000 * LIMIT:.0f} ms.")


def summary(changes: list[Change]) -> str:
    """Return what changes took in one line, given the slowest last."""
    worst = changes[-1]
    garbage = 1000 * worst.collecting
    collecting = f", {garbage:.1f} ms of it looking for garbage" if garbage else ""
    return (
        f"{len(changes)} changes, "
        f"median {1000 * statistics.median(c.wall for c in changes):.1f} ms, "
        f"p99 {1000 * changes[int(0.99 * (len(changes) - 1))].wall:.1f} ms, "
        f"worst {1000 * worst.wall:.1f} ms ({worst.what}{collecting}); by the processor median "
        f"{1000 * statistics.median(c.processor for c in changes):.1f} ms, "
        f"worst {1000 * max(c.processor for c in changes):.1f} ms"
    )


if __name__ == "__main__":
    main()
