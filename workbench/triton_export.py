"""What serves a TensorRT-LLM engine with Triton: NVIDIA's templates filled in its container.

    values.json   what fills them          fill.py     fills and checks, inside the container
    compose.yaml  fill, triton, openai     client.py   generate and generate_stream
    start.sh      tritonserver             openai.sh   Triton's OpenAI frontend

Neither Triton nor NVIDIA's container runs where these texts are tested: flags and paths are those
of their sources (tensorrtllm_backend r26.03 README.md and dockerfile, TensorRT-LLM triton_backend/
scripts/launch_triton_server.py, triton-inference-server/server r26.06 python/openai and build.py).
The README of an export says how to check it on a machine with the GPU.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from workbench import shipped, triton_values, trtllm_export
from workbench.engine import Engine
from workbench.errors import StoreError

VALUES, FILL, CLIENT = "values.json", "fill.py", "client.py"


def texts(engine: Engine) -> Mapping[str, str]:
    """Return the files beside an engine, by name.

    Raises:
        StoreError: It cannot be served this way, or no container of NVIDIA's has its versions.
    """
    if engine.backend != "tensorrt_llm":
        raise StoreError(
            f"The engine {engine.key} is of the backend {engine.backend}, and Triton's layout "
            "inflight_batcher_llm serves engines of tensorrt_llm only."
        )
    trtllm_export.check(engine)
    if mode := engine.manifest["identity"]["spec"].get("speculative_decoding_mode"):
        raise StoreError(
            f"The engine {engine.key} decodes speculatively ({mode}), which Triton must be told "
            "in parameters that its manifest does not have. It was not exported for Triton."
        )
    device = engine.manifest["identity"].get("device", {})
    known = {
        "key": engine.key,
        "name": engine.model_name,
        "image": triton_values.image(engine),
        "version": engine.manifest["identity"]["toolchain"]["tensorrt-llm"],
        "gpu": f"{device.get('name')}, compute capability {device.get('compute capability')}",
        "ranks": int(engine.limits.get("world_size") or 1),
    }
    filled = {"format": 1, "image": known["image"], **triton_values.values(engine)}
    return {
        VALUES: json.dumps(filled, indent=1, sort_keys=True) + "\n",
        FILL: _script("triton_fill.py"),
        CLIENT: _script("triton_client.py"),
        "start.sh": _start(known["ranks"]),
        "openai.sh": _OPENAI,
        "compose.yaml": _COMPOSE.format(**known),
        "README.md": _README.format(**known),
    }


def _script(name: str) -> str:
    return Path(shipped.__file__).with_name(name).read_text(encoding="utf-8")


def _start(ranks: int) -> str:
    """Return the script that starts tritonserver, once for each rank.

    The first serves; the others load the engine alone and never come to serve (leader mode).
    """
    lines = []
    for rank in range(ranks):
        words = [
            "-n 1 tritonserver --model-repository=repository --disable-auto-complete-config",
            f"--backend-config=python,shm-region-prefix-name=prefix{rank}_",
        ]
        if rank:
            words.append("--model-control-mode=explicit --load-model=tensorrt_llm")
        lines.append(" \\\n    ".join(words))
    command = " : \\\n  ".join(lines)
    return _START.format(command=command)


_START = """\
#!/bin/sh
cd "$(dirname "$0")" || exit
python3 fill.py --check || exit
exec mpirun --allow-run-as-root \\
  {command}
"""

_OPENAI = """\
#!/bin/sh
cd "$(dirname "$0")" || exit
python3 fill.py --check || exit
# The frontend runs in the server's process: TensorRT-LLM's ranks have processes of their own.
export TRTLLM_ORCHESTRATOR=1
exec python3 /opt/tritonserver/python/openai/openai_frontend/main.py \\
  --model-repository repository --tokenizer engine/tokenizer --openai-port 9000
"""

_COMPOSE = """\
x-triton: &triton
  image: {image}
  volumes: [".:/app/export:ro"]
  environment: {{HF_HUB_OFFLINE: "1"}}
  shm_size: 2gb
  ulimits: {{memlock: -1, stack: 67108864}}
  deploy:
    resources:
      reservations:
        devices: [{{driver: nvidia, count: {ranks}, capabilities: [gpu]}}]

services:
  fill:
    <<: *triton
    profiles: [fill]
    volumes: [".:/app/export"]
    command: [python3, /app/export/fill.py]
  triton:
    <<: *triton
    command: [sh, /app/export/start.sh]
    ports: ["127.0.0.1:8000:8000", "127.0.0.1:8001:8001", "127.0.0.1:8002:8002"]
    restart: on-failure:3
    healthcheck:
      test: [CMD, curl, --fail, --silent, "http://127.0.0.1:8000/v2/health/ready"]
      start_period: 600s
  openai:
    <<: *triton
    profiles: [openai]
    command: [sh, /app/export/openai.sh]
    ports: ["127.0.0.1:9000:9000"]
    restart: on-failure:3
    healthcheck:
      test: [CMD, curl, --fail, --silent, "http://127.0.0.1:9000/health/ready"]
      start_period: 600s
"""

_README = """\
# {name}, engine {key}, for Triton

Built by TensorRT-LLM {version} for this kind of GPU: {gpu}
It runs in {image}, which has that version and its TensorRT.

    docker compose run --rm --user "$(id -u):$(id -g)" fill    # writes repository/, and checks
    workbench validate .                                       # where the workbench is
    docker compose up triton                                   # http://127.0.0.1:8000

`fill.py` copies NVIDIA's templates out of the container and fills them with `values.json`; it
refuses another version or GPU, a placeholder without a value and a value without a placeholder.
`workbench validate` (pip install 'trtllm-workbench[triton]') parses what came out against Triton's
model configuration and compares it with the engine. Nothing listens outside this machine.

## Ask it

    python3 client.py "write a haiku about latency"            # generate_stream: piece by piece
    python3 client.py --whole "write a haiku about latency"    # generate
    curl http://127.0.0.1:8000/v2/models/ensemble/generate -d \\
      '{{"text_input": "Latency is", "max_tokens": 32, "bad_words": "", "stop_words": ""}}'
    curl --no-buffer http://127.0.0.1:8000/v2/models/ensemble/generate_stream -d \\
      '{{"text_input": "Latency is", "max_tokens": 32, "bad_words": "", "stop_words": "",
        "stream": true}}'

`tensorrt_llm_bls` takes the same in place of `ensemble`. Both complete text as it is; special
tokens are added by `preprocessing` only where the model has no chat template. Each piece is
decoded for itself: with a tokenizer that marks words by a leading space, set `accumulate_tokens`
to "true" in values.json and fill again; pieces of `tensorrt_llm_bls` are then the whole text so
far. NVIDIA's `preprocessing` lets the tokenizer run Python code that lies in its folder.

## OpenAI's API

    docker compose --profile openai up openai                  # http://127.0.0.1:9000/v1
    curl http://127.0.0.1:9000/v1/chat/completions -H 'Content-Type: application/json' -d \\
      '{{"model": "ensemble", "max_tokens": 32,
        "messages": [{{"role": "user", "content": "write a haiku about latency"}}]}}'

It applies the model's chat template. Not beside `triton`: both want the GPU. Measure it:

    workbench trial --url http://127.0.0.1:9000/v1 --served-model ensemble \\
      --tokenizer engine/tokenizer --no-ignore-eos

It takes no token ids, so the workbench sends the prompts as text; and where its release does not
tell how many tokens came, the workbench counts them. Both need the package tokenizers (pip install
'trtllm-workbench[trials]'), and the trial says so. It hands no `ignore_eos` on: an answer ends
where the model ends it.

## Not tried

These files were checked against the sources of Triton and TensorRT-LLM, `fill.py` and `client.py`
against stand-ins; neither the container nor Triton was run where they were made. To check them on
a machine with the GPU: the three commands at the top must end without an error, `curl --fail
http://127.0.0.1:8000/v2/health/ready` must succeed, and client.py must print several pieces.
"""
