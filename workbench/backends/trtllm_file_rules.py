"""Rules on files beside the model: none of them may bring code that runs unseen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from workbench.backends.trtllm_spec import TensorRtLlmSpec
from workbench.rules import Finding


def file_rules(spec: TensorRtLlmSpec) -> Iterator[Finding]:
    """Look into the directories of adapters and calibration texts that a build reads."""
    paths = spec.local_paths()
    for path in paths.get("lora_dir", ()):
        yield from _adapter_rules(spec, path)
    for path in paths.get("calib_dataset", ()):
        scripts = sorted(found.name for found in path.glob("*.py"))
        if scripts:
            yield Finding(
                "refuse",
                "calib_dataset",
                f"the calibration would run the Python code in it ({scripts[0]}).",
                "Give a directory with texts alone, such as files of JSON lines or Parquet.",
                (),
                "tensorrt_llm models/convert_utils.py load_calib_dataset",
            )


def _adapter_rules(spec: TensorRtLlmSpec, path: Path) -> Iterator[Finding]:
    source = "tensorrt_llm lora_manager.py"
    if spec.lora_ckpt_source == "nemo":
        yield Finding(
            "warn",
            "lora_dir",
            "an archive of NeMo holds its weights as a pickle, which can run code when it is read.",
            "Give only archives that you trust, or adapters with safetensors.",
            (),
            source,
        )
    elif (path / "adapter_model.bin").is_file() and not any(path.glob("*.safetensors")):
        yield Finding(
            "refuse",
            "lora_dir",
            f"the adapter in {path} has its weights only as adapter_model.bin, a pickle, which can "
            "run code when it is read.",
            "Convert it where you trust it: load it with peft and save it again with "
            "save_pretrained, which writes safetensors.",
            (),
            source,
        )
