"""Ask a model of Triton through its generate extension: python3 client.py PROMPT.

The answer streams (generate_stream); with --whole it comes at once (generate). It needs nothing
but Python. The prompt is completed as it is: no chat template is applied.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from collections.abc import Iterator
from urllib.parse import urlsplit


def main(words: list[str]) -> int:
    """Print the answer; return the exit status."""
    parser = argparse.ArgumentParser(description="Complete a prompt, greedily.")
    parser.add_argument("prompt")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", default="ensemble", help="Or tensorrt_llm_bls.")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--whole", action="store_true", help="Print the answer when it is whole.")
    asked = parser.parse_args(words)
    try:
        for piece in pieces(asked.url, asked.model, asked.prompt, asked.max_tokens, asked.whole):
            print(piece, end="", flush=True)
    except (OSError, http.client.HTTPException, ValueError) as error:
        print(f"\nclient.py: {asked.url} failed: {error}", file=sys.stderr)
        return 1
    print()
    return 0


def pieces(url: str, model: str, prompt: str, max_tokens: int, whole: bool) -> Iterator[str]:
    """Yield the answer piece by piece, or as one.

    Raises:
        ValueError: The server refused, or failed on the way; it may do so after status 200.
        OSError: It cannot be reached.
    """
    body = {"text_input": prompt, "max_tokens": max_tokens, "top_k": 1, "stream": not whole}
    # Older ensembles demand these two.
    body |= {"bad_words": "", "stop_words": ""}
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=600)
    path = f"/v2/models/{model}/{'generate' if whole else 'generate_stream'}"
    try:
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        if whole or answer.status != http.client.OK:
            yield text_of(answer.read())
            return
        for line in answer:
            if line.startswith(b"data:"):
                yield text_of(line.removeprefix(b"data:"))
    finally:
        connection.close()


def text_of(data: bytes) -> str:
    """Return the text of one answer.

    Raises:
        ValueError: It is an error, or no answer.
    """
    record = json.loads(data)
    if "text_output" not in record:
        raise ValueError(record.get("error", "an answer without text_output"))
    return str(record["text_output"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
