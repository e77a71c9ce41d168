"""Plays trtllm-serve: its flags and defaults, the runtime's check of them, and two of its paths.

    python tests/servers/trtllm_serve.py ENGINE_DIRECTORY FLAGS

Flags and defaults are those of tensorrt_llm commands/serve.py, the refusals those of the runtime
(batch_manager/trtGptModel.h). It generates nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("model", type=Path)
    parser.add_argument("--backend", choices=["tensorrt", "pytorch"], default="pytorch")
    parser.add_argument("--tokenizer", type=Path)
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--max_batch_size", type=int, default=2048)
    parser.add_argument("--max_num_tokens", type=int, default=8192)
    parser.add_argument("--max_beam_width", type=int, default=1)
    parser.add_argument("--tp_size", type=int, default=1)
    parser.add_argument("--pp_size", type=int, default=1)
    parser.add_argument("--kv_cache_free_gpu_memory_fraction", type=float, default=0.9)
    parser.add_argument("--extra_llm_api_options", type=argparse.FileType())
    parser.add_argument("--trust_remote_code", action="store_true")
    parser.add_argument("--enable_chunked_prefill", action="store_true")
    given = parser.parse_args()
    if given.backend != "tensorrt":
        sys.exit("ValueError: the engine is no checkpoint")
    built = json.loads((given.model / "config.json").read_text())["build_config"]
    for words, name in (("batch size", "max_batch_size"), ("beam width", "max_beam_width")):
        if getattr(given, name) > built[name]:
            sys.exit(
                f"Runtime configured max {words} ({getattr(given, name)}) must not exceed engine "
                f"max {words} ({built[name]})"
            )
    if not (given.tokenizer / "tokenizer_config.json").is_file():
        sys.exit(f"OSError: there is no tokenizer in {given.tokenizer}")
    ThreadingHTTPServer((given.host, given.port), Handler).serve_forever()


class Handler(BaseHTTPRequestHandler):
    """Answers that it is healthy, and which model it has."""

    def do_GET(self) -> None:
        known = {"/health": None, "/v1/models": {"object": "list", "data": [{"id": "engine"}]}}
        self.send_response(200 if self.path in known else 404)
        self.end_headers()
        if body := known.get(self.path):
            self.wfile.write(json.dumps(body).encode())


if __name__ == "__main__":
    main()
