"""What transformers does with a configuration; importing it takes seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

KNOWN_TYPES = ("llama", "mistral", "mixtral", "qwen2", "qwen3", "phi3", "gemma3_text", "gpt2")


def read_config(directory: str | Path, *, trust_remote_code: bool) -> dict[str, Any]:
    """Return config.json as transformers does, which runs the code that it points to if trusted.

    Raises:
        ValueError: Without that code nobody knows the model's type.
    """
    config: dict[str, Any] = json.loads((Path(directory) / "config.json").read_text("utf-8"))
    pointer = config.get("auto_map", {}).get("AutoConfig")
    known = config.get("model_type") in KNOWN_TYPES
    if pointer and trust_remote_code:
        code = Path(directory) / f"{pointer.rpartition('.')[0]}.py"
        exec(compile(code.read_text("utf-8"), str(code), "exec"), {"__name__": code.stem})
    elif not known:
        raise ValueError(
            f"The checkpoint you are trying to load has model type `{config.get('model_type')}` "
            "but Transformers does not recognize this architecture."
        )
    return config
