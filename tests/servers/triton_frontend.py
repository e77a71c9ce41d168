"""Plays Triton's OpenAI frontend before TensorRT-LLM: a prompt is one text, and nothing is counted.

As in triton-inference-server/server python/openai: engine/triton_engine.py
(`_validate_completion_request`, `_streaming_completion_iterator`; without counts where the release
or the model has none) and frontend/fastapi/routers/completions.py. `ignore_eos` is a known field
that no engine is told.
"""

from __future__ import annotations

from tests.servers.scripted import DONE, Connection, Script, event


def frontend(most: int = 1 << 20, *, deaf: bool = False) -> Script:
    """Return what answers completions, a token a chunk.

    Args:
        most: Tokens after which the model ends.
        deaf: Give that many, whatever max_tokens says.
    """

    def script(connection: Connection) -> None:
        if not isinstance(connection.body["prompt"], str):
            words = b'{"detail": "only single string input is supported"}'
            connection.answer("400 Bad Request", words)
            return
        count = most if deaf else min(most, connection.body["max_tokens"])
        connection.stream(*[_text(" when")] * count, _text("", "stop"), DONE)

    return script


def _text(text: str, reason: str | None = None) -> bytes:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
    return event({"object": "text_completion", "choices": [choice]})
