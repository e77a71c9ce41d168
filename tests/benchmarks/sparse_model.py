"""A checkpoint of any size that takes no time to write: its weights are a hole in a file."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

from workbench.build import DEMO_MODEL


def make_sparse_model(directory: Path, size: int) -> Path:
    """Write the demo model's files with an embedding of about `size` bytes, all zero."""
    shutil.copytree(DEMO_MODEL, directory, ignore=shutil.ignore_patterns("*.safetensors"))
    config = json.loads((directory / "config.json").read_text())
    hidden = config["hidden_size"]
    config["vocab_size"] = rows = size // (2 * hidden)
    (directory / "config.json").write_text(json.dumps(config))
    end = rows * hidden * 2
    header = json.dumps(
        {
            "model.embed_tokens.weight": {
                "dtype": "BF16",
                "shape": [rows, hidden],
                "data_offsets": [0, end],
            }
        }
    ).encode()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + end)
    return directory
