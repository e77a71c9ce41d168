"""The texts of scored tokens, with a tokenizer for which the place of a token matters."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models

WORKER = Path(__file__).parents[1] / "workbench" / "worker"
sys.path.insert(0, str(WORKER))
from adapters.scoring import positions  # noqa: E402

sys.path.remove(str(WORKER))

HELLO, WORLD, END = range(3)


@pytest.fixture
def tokenizer() -> Tokenizer:
    """As Llama 2 has it: spaces are marks before words, and the first one of a text goes."""
    vocab = {"▁hello": HELLO, "▁world": WORLD}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["</s>"])
    assert tokenizer.token_to_id("</s>") == END
    return tokenizer


def logits(ids: list[int], begin: int) -> Any:
    """Prefer "hello" to "world" to the end, anywhere."""
    return np.tile([2.0, 1.0, 0.0], (len(ids) - begin, 1))


def test_a_token_has_the_text_that_it_has_in_the_answer(tokenizer: Tokenizer) -> None:
    prompt, answer = [WORLD, HELLO], [HELLO, WORLD, HELLO, END]
    message = {"ids": [*prompt, *answer], "start": 2, "top": 3, "begin": 2}
    found = positions(logits, message, tokenizer)
    assert [token[:2] for token, _ in found] == [
        [HELLO, "hello"],
        [WORLD, " world"],
        [HELLO, " hello"],
        [END, ""],
    ]
    assert "".join(token[1] for token, _ in found) == tokenizer.decode(answer)
    names = [[other[1] for other in others] for _, others in found]
    assert names[0] == ["hello", "world", "</s>"]
    assert names[1] == names[2] == [" hello", " world", "</s>"]


def test_one_place_is_told_as_in_the_whole_answer(tokenizer: Tokenizer) -> None:
    message = {"ids": [WORLD, HELLO, WORLD], "start": 2, "top": 1, "begin": 1}
    [(token, [other])] = positions(logits, message, tokenizer)
    assert (token[1], other[1]) == (" world", " hello")
    [(token, _)] = positions(logits, message | {"begin": 2}, tokenizer)
    assert token[1] == "world"
