"""Prompts as text, for servers that take no token ids, and what a trial says of that."""

from __future__ import annotations

import time
from collections.abc import Sequence

from workbench.endpoint import EndpointSession
from workbench.errors import RequestError
from workbench.measuring import Measured, Spell
from workbench.prompts import Prompt
from workbench.tokenizer import Tokenizer


def speller_for(
    session: EndpointSession,
    vocabulary: Sequence[int],
    tokenizer: Tokenizer | None,
    deadline: float | None,
) -> Spell | None:
    """Return what makes texts of prompts where a server takes no token ids; None where it does.

    Triton's OpenAI frontend takes one text alone (triton-inference-server/server python/openai,
    engine/triton_engine.py, _validate_completion_request).

    Raises:
        RequestError: It refuses a text, too, or none can be made here.
        SessionError: It does not answer.
        TimeoutError: The deadline has passed.
    """
    middle = len(vocabulary) // 2  # of a vocabulary: whole words rather than single bytes
    ids = list(vocabulary[middle : middle + 8])

    def ask(prompt: Prompt) -> None:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        session.generate(prompt, max_tokens=1).wait(left)

    try:
        ask(ids)
    except RequestError as refusal:
        if tokenizer is None:
            raise RequestError(
                f"{refusal} If it is token ids that it refuses: texts are sent where the package "
                "tokenizers is installed (pip install 'trtllm-workbench[trials]')."
            ) from refusal
        ask(tokenizer.spell(ids))
        return tokenizer.spell
    return None


def spelling_notes(measured: Measured, *, spelled: bool) -> list[str]:
    """Say so where prompts were sent as text, or their tokens counted here."""
    sent = [request for requests in measured.repetitions for request in requests]
    found = []
    if spelled:
        found.append(
            "The server takes no token ids: prompts were sent as text, and may have a few tokens "
            "more or fewer than input_len."
        )
    if any(request["counted"] == "here" for request in sent):
        found.append(
            "The server does not tell how many tokens it generated: they were counted here, by "
            "encoding its text, which may give a few more or fewer."
        )
    return found
