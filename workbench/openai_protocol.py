"""OpenAI's protocol for completions: what a request says, and what a chunk of the answer means.

https://platform.openai.com/docs/api-reference, as vLLM, SGLang, trtllm-serve, Triton and
llama.cpp speak it, each with some freedom.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from workbench.generation import Alternative
from workbench.sampling import Sampling

PATHS = {"messages": "chat/completions", "prompt": "completions", "ids": "completions"}
"""Where a request goes, by the field of the prompt (`generation.prompt_fields`)."""

LACKS = {
    "regex": "OpenAI's protocol has no field for it, and each server its own; give that one to "
    "Endpoint(extra=...).",
}
"""Fields of `Sampling` that a server cannot be asked for."""

NOT_STANDARD = ("top_k", "min_p", "repetition_penalty", "ignore_eos")
"""Fields that OpenAI's protocol does not have. vLLM, SGLang and trtllm-serve take them; others
ignore or refuse them. They are sent only where they differ from their defaults."""


class Chunk(NamedTuple):
    """What one event of a stream says.

    Attributes:
        text: New text.
        logprobs: Of its tokens, where the server gives them.
        token_ids: Of its tokens, where the server gives them (llama.cpp does).
        alternatives: For each of its tokens.
        finish_reason: Why the generation ended, or None while it goes on.
        usage: "prompt_tokens" and "completion_tokens", or None.
    """

    text: str = ""
    logprobs: tuple[float, ...] = ()
    token_ids: tuple[int, ...] = ()
    alternatives: tuple[tuple[Alternative, ...], ...] = ()
    finish_reason: str | None = None
    usage: Mapping[str, Any] | None = None


def request_body(
    fields: Mapping[str, Any], model: str, sampling: Sampling, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the JSON body that asks for a stream.

    Args:
        fields: The prompt, as `generation.prompt_fields` gives it.
        model: Its name on the server.
        sampling: Options.
        extra: Fields of the server's own; they come last, so they win.
    """
    chat = "messages" in fields
    body: dict[str, Any] = {"model": model}
    body |= {"messages": fields["messages"]} if chat else {"prompt": _prompt(fields)}
    body |= {"stream": True, "stream_options": {"include_usage": True}}
    body |= {name: getattr(sampling, name) for name in ("temperature", "top_p", "seed")}
    for name in ("max_tokens", "presence_penalty", "frequency_penalty", *NOT_STANDARD):
        if getattr(sampling, name) != Sampling.model_fields[name].default:
            body[name] = getattr(sampling, name)
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.logprobs or sampling.top_logprobs:
        body |= _logprobs(sampling.top_logprobs, chat=chat)
    if sampling.json_schema is not None:
        schema = {"name": "answer", "schema": json.loads(sampling.json_schema), "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return body | dict(extra)


def _prompt(fields: Mapping[str, Any]) -> Any:
    return fields["ids"] if "ids" in fields else fields["prompt"]


def _logprobs(top: int, *, chat: bool) -> dict[str, Any]:
    if chat:
        return {"logprobs": True, "top_logprobs": top}
    return {"logprobs": max(top, 1)}


def read_chunk(data: str) -> Chunk:
    """Return what the data of one event means.

    Raises:
        ValueError: It is no JSON object, or not of the protocol.
        StreamError: It is an error that the server reports.
    """
    value = json.loads(data)
    if not isinstance(value, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 - what json.loads raises, too
    if value.get("error") or value.get("object") == "error":
        raise StreamError(error_text(value))
    usage = value.get("usage")
    usage = usage if isinstance(usage, dict) else None
    choices = value.get("choices") or []
    first = [c for c in choices if isinstance(c, dict) and c.get("index", 0) == 0]
    if not first:
        return Chunk(usage=usage)
    choice = first[0]
    reason = choice.get("finish_reason")
    tokens = _tokens(choice.get("logprobs"))
    return Chunk(
        text=_text(choice),
        logprobs=tuple(token.logprob for token, _ in tokens),
        token_ids=tuple(token.id for token, _ in tokens if token.id is not None),
        alternatives=tuple(others for _, others in tokens),
        finish_reason=None if reason is None else str(reason),
        usage=usage,
    )


class StreamError(Exception):
    """The server reports an error inside the stream; the message is the server's."""


def _text(choice: Mapping[str, Any]) -> str:
    """Return the new text; what a model thinks aloud is text too, in its place."""
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return _string(choice.get("text"))
    thought = delta.get("reasoning_content") or delta.get("reasoning")
    return _string(thought) + _string(delta.get("content"))


def _string(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError("a text that is none")  # noqa: TRY004 - one kind of error for callers
    return value


def _tokens(logprobs: Any) -> list[tuple[Alternative, tuple[Alternative, ...]]]:
    """Return each token of a chunk with its alternatives, in either of the two notations."""
    if not isinstance(logprobs, dict):
        return []
    if isinstance(logprobs.get("content"), list):
        return [
            (_alternative(token), tuple(map(_alternative, token.get("top_logprobs") or [])))
            for token in logprobs["content"]
        ]
    texts = logprobs.get("tokens") or []
    values = logprobs.get("token_logprobs") or []
    tops = logprobs.get("top_logprobs") or [None] * len(texts)
    return [
        (Alternative(None, text, float(value)), _old_alternatives(top))
        for text, value, top in zip(texts, values, tops, strict=True)
        if value is not None
    ]


def _alternative(token: Mapping[str, Any]) -> Alternative:
    number = token.get("id")
    known = isinstance(number, int)
    return Alternative(number if known else None, str(token["token"]), float(token["logprob"]))


def _old_alternatives(top: Any) -> tuple[Alternative, ...]:
    """Return alternatives of the older notation, the most probable one first."""
    found = [Alternative(None, text, float(value)) for text, value in (top or {}).items()]
    return tuple(sorted(found, key=lambda one: -one.logprob))


def error_text(value: Any) -> str:
    """Return the words of an error: OpenAI's {"error": {"message": ...}}, or what is like it."""
    while isinstance(value, dict):
        inner = [value[key] for key in ("error", "message", "detail") if value.get(key)]
        if not inner:
            break
        value = inner[0]
    return value if isinstance(value, str) else json.dumps(value)
