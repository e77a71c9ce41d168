"""What runs an OpenVINO engine elsewhere: pinned requirements, a script, a container.

There is no server among it. OpenVINO Model Server serves such engines with OpenAI's API, but comes
as a container image and binaries that cannot be pinned to the engine's wheels; transformers serve
and vLLM load checkpoints, not engines. A kept-up Python package that does was looked for and not
found.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.engine import Engine

PACKAGES = ("openvino", "openvino-genai", "openvino-tokenizers")
"""What runs an engine; what compiled it (torch, transformers and so on) is not needed."""

_PRECISION = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "int8": "u8"}


def settings(engine: Engine) -> dict[str, Any]:
    """Return what the runtime is given, under the runtime's own names; nothing for other backends.

    The same as a session gives it: OpenVINO GenAI SchedulerConfig, and properties of OpenVINO.
    """
    if engine.backend != "openvino":
        return {}
    limits = engine.limits
    properties = {
        "INFERENCE_PRECISION_HINT": _PRECISION[limits["dtype"]],
        "KV_CACHE_PRECISION": _PRECISION[limits["kv_cache_dtype"]],
    }
    if limits["threads"]:
        properties["INFERENCE_NUM_THREADS"] = limits["threads"]
    return {
        "scheduler": {
            "cache_size": 0,
            "num_kv_blocks": limits["kv_blocks"],
            "max_num_batched_tokens": limits["max_num_tokens"],
            "max_num_seqs": limits["max_batch_size"],
            "enable_prefix_caching": limits["enable_prefix_caching"],
            "dynamic_split_fuse": limits["enable_chunked_prefill"],
        },
        "properties": properties,
    }


def texts(engine: Engine) -> Mapping[str, str]:
    """Return the files beside an engine, by name."""
    versions = engine.manifest["identity"]["toolchain"]
    pins = [f"{name}=={versions[name]}" for name in PACKAGES if name in versions]
    return {
        "requirements.txt": "\n".join(pins) + "\n",
        "stream.py": _STREAM,
        "Containerfile": _CONTAINER,
        "README.md": _README.format(key=engine.key, name=engine.model_name),
    }


_STREAM = '''"""Stream the answer to a prompt, greedily: python stream.py PROMPT."""

import json
import sys
from pathlib import Path

import openvino_genai as genai

here = Path(__file__).resolve().parent
about = json.loads((here / "engine.json").read_text(encoding="utf-8"))
scheduler = genai.SchedulerConfig()
for name, value in about["scheduler"].items():
    setattr(scheduler, name, value)
options = {"scheduler_config": scheduler, **about["properties"]}
engine = genai.LLMPipeline(here / "engine", "CPU", **options)
tokenizer, text = engine.get_tokenizer(), sys.argv[1]
chat = bool(tokenizer.chat_template)
if chat:
    text = tokenizer.apply_chat_template([{"role": "user", "content": text}], True)
prompt = tokenizer.encode(text, add_special_tokens=not chat)
limits, length = about["limits"], prompt.input_ids.shape[1]
if not 0 < length <= min(limits["max_input_len"], limits["max_seq_len"] - 1):
    sys.exit(f"The prompt has {length} tokens; this engine accepts 1 to {limits['max_input_len']}.")
own, config = engine.get_generation_config(), genai.GenerationConfig()
config.eos_token_id, config.stop_token_ids = own.eos_token_id, own.stop_token_ids
config.max_new_tokens = min(limits["max_output_len"], limits["max_seq_len"] - length)
engine.generate(prompt, config, lambda piece: print(piece, end="", flush=True))
print()
'''

_CONTAINER = """\
# podman build -t engine . && podman run --rm engine "write a haiku about latency"
FROM docker.io/library/python:3.12-slim
WORKDIR /app
COPY requirements.txt .
RUN pip install --no-cache-dir --requirement requirements.txt
COPY . .
USER nobody
ENTRYPOINT ["python", "stream.py"]
"""

_README = """\
# {name}, engine {key}

    python3 -m venv venv && venv/bin/pip install --requirement requirements.txt
    venv/bin/python stream.py "write a haiku about latency"

`requirements.txt` pins the versions that the engine was compiled with; `engine.json` says what it
is, and has the limits that the script gives to the runtime.

The Containerfile does the same in an image; building it was not tried.

This is no server. OpenVINO Model Server (a container) can serve the folder `engine` with OpenAI's
API; that was not tried here.
"""
