"""Compile a TensorRT-LLM checkpoint into engines, as `trtllm-build` does, in this process.

Its own command is run, with its own arguments; being in the same process lets us hand TensorRT a
progress monitor, which is the only way to stop a build cleanly. What it logs is read by whoever
started us.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from .channel import Channel, Refusal
from .trtllm_chat import is_gone, save_tokenizer
from .trtllm_monitor import watch_builds


def run(order: dict[str, Any], channel: Channel) -> None:
    """Build the checkpoint in `order["between"]` into `order["output"]`.

    `order["arguments"]` are those of `trtllm-build`, but for its timing cache.

    Raises:
        Refusal: The toolchain has no engine builder, or the tokenizer cannot be written.
    """
    output, between = Path(order["output"]), Path(order["between"])
    channel.send(event="stage", name="start")
    builder = _import_builder(channel, workers=order["workers"])
    # Where a path is not given, it is written where we stand.
    os.chdir(between)
    cache = TimingCache(Path(order["cache"]), between, channel)
    sys.argv = [
        "trtllm-build",
        *order["arguments"],
        *cache.arguments(),
    ]
    try:
        builder.main()
    except SystemExit as error:
        if error.code:
            raise Refusal(
                f"trtllm-build ended with status {error.code}: it does not take these arguments. "
                "The log has its words."
            ) from error
    cache.keep()
    channel.send(event="stage", name="tokenizer")
    trusted = order["conversion"]["trust_remote_code"]
    save_tokenizer(Path(order["model"]), output, trust_remote_code=trusted)
    channel.send(event="done", **_describe(output))


def _import_builder(channel: Channel, workers: int) -> Any:
    """Import `trtllm-build`'s module, with a monitor in its way where that can be."""
    try:
        from tensorrt_llm.commands import build
    except ImportError as error:
        if not is_gone(error):
            raise  # something that it needs is missing
        raise Refusal(
            f"This tensorrt_llm cannot build engines ({error}). Versions up to 1.2.1 can; with a "
            "later one use the backend tensorrt_llm_torch."
        ) from error
    if workers == 1:
        watch_builds(channel)
    else:
        # The ranks are built in processes of their own, which no monitor of ours reaches.
        channel.exit_when_closed()
    return build


class TimingCache:
    """TensorRT's measurements of kernels, kept for the next build on the same GPU.

    Written beside the build and moved into place at its end, so that two builds at once cannot
    mix theirs; the last one wins.
    """

    def __init__(self, folder: Path, between: Path, channel: Channel) -> None:
        import tensorrt
        import torch

        gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "unknown"
        name = f"timing-{tensorrt.__version__}-{gpu}.cache".replace(" ", "_").replace("/", "_")
        self._kept = folder / name
        self._new = between / "timing.cache"
        if self._kept.is_file():
            shutil.copyfile(self._kept, between / "known.cache")
            channel.send(event="note", text="Timings of earlier builds on this GPU are reused.")

    def arguments(self) -> list[str]:
        """Return the arguments of `trtllm-build`; it ignores an input that is not there.

        They end up in the engine's config.json, where a path of this machine has no place: names
        alone, as `trtllm-build` runs in their folder.
        """
        return ["--input_timing_cache=known.cache", f"--output_timing_cache={self._new.name}"]

    def keep(self) -> None:
        """Put the new measurements in place of the old ones."""
        if self._new.is_file():
            beside = self._kept.with_name(f"{self._kept.name}.{os.getpid()}")
            shutil.copyfile(self._new, beside)
            beside.replace(self._kept)


def _describe(engine: Path) -> dict[str, Any]:
    """Return what the engine's own config.json says: facts for the manifest, and its limits."""
    import tensorrt

    config = json.loads((engine / "config.json").read_text(encoding="utf-8"))
    built, mapping = config["build_config"], config["pretrained_config"]["mapping"]
    plugins = built["plugin_config"]
    packed = plugins.get("remove_input_padding") and plugins.get("context_fmha")
    longest = int(built["max_seq_len"]) - 1
    return {
        "facts": {
            "tensorrt_llm": config["version"],
            "tensorrt": tensorrt.__version__,
            "quantization": config["pretrained_config"].get("quantization"),
            "dtype": config["pretrained_config"].get("dtype"),
            "ranks": mapping["world_size"],
        },
        "limits": {
            "max_batch_size": built["max_batch_size"],
            # Packed prompts are not padded to max_input_len, and so not limited by it.
            "max_input_len": longest if packed else min(longest, built["max_input_len"]),
            "max_output_len": longest,
            "max_seq_len": built["max_seq_len"],
            "max_num_tokens": built["max_num_tokens"],
            "max_beam_width": built["max_beam_width"],
            "world_size": mapping["world_size"],
        },
    }
