"""Prompts and lengths: what a request may ask of an engine, checked before the engine sees it."""

from __future__ import annotations

from typing import Any, Protocol

from .channel import Refusal


class Chat(Protocol):
    """What turns chat messages into text; `chat_template` is empty where a model has none."""

    @property
    def chat_template(self) -> str | None:
        """The template."""
        ...

    def apply_chat_template(self, messages: Any, add_generation_prompt: bool) -> str:
        """Return the text that the model was trained on for these messages."""
        ...


def input_ids(message: dict[str, Any], tokenizer: Any, chat: Chat) -> list[int]:
    """Return the token ids of the prompt in a "generate" message.

    Raises:
        Refusal: Messages were given and the model has no chat template, or it refuses them.
    """
    if message.get("ids") is not None:
        return list(message["ids"])
    if message.get("messages") is None:
        return list(tokenizer.encode(message["prompt"]).ids)
    if not chat.chat_template:
        raise Refusal("This model has no chat template. Give a plain prompt instead of messages.")
    try:
        text = chat.apply_chat_template(message["messages"], add_generation_prompt=True)
    except (RuntimeError, ValueError, TypeError) as error:
        raise Refusal(f"The model's chat template refuses these messages: {error}") from error
    # The template has written the special tokens itself.
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def output_length(prompt: int, asked: int | None, limits: dict[str, Any], said: int = 0) -> int:
    """Return how many tokens a request may generate.

    Args:
        prompt: Its tokens, without those that were said.
        asked: How many its answer may have; None means as many as the limits allow.
        limits: "max_input_len", "max_output_len" and "max_seq_len", in tokens.
        said: Tokens that the answer has already, where it goes on from them.

    Raises:
        Refusal: With what was asked, what the limit is and what to do.
    """
    whole = _answer_length(prompt, asked, limits)
    if said >= whole:
        raise Refusal(
            f"The answer has {said} tokens where it goes on, and may have {whole} in all "
            "(max_tokens, within max_output_len and max_seq_len). Go on from an earlier token, or "
            "ask again with a larger max_tokens."
        )
    return whole - said


def _answer_length(prompt: int, asked: int | None, limits: dict[str, Any]) -> int:
    """Return how many tokens the whole answer to a prompt may have.

    Raises:
        Refusal: With what was asked, what the limit is and what to do.
    """
    if prompt == 0:
        raise Refusal("The prompt has no tokens. Write something to start from.")
    if prompt > limits["max_input_len"]:
        raise Refusal(
            f"The prompt has {prompt} tokens; this engine accepts {limits['max_input_len']} "
            "(max_input_len). Shorten it, or build with a larger max_input_len."
        )
    room = int(limits["max_seq_len"]) - prompt
    if room < 1:
        raise Refusal(
            f"The prompt has {prompt} tokens, which leaves no room for output within "
            f"{limits['max_seq_len']} (max_seq_len). Shorten it, or build with a larger "
            "max_seq_len."
        )
    most = min(room, int(limits["max_output_len"]))
    if asked is None:
        return most
    if asked > limits["max_output_len"]:
        raise Refusal(
            f"{asked} tokens were asked for; this engine generates at most "
            f"{limits['max_output_len']} (max_output_len). Ask for fewer, or build with a larger "
            "max_output_len."
        )
    if asked > room:
        raise Refusal(
            f"{asked} tokens were asked for after a prompt of {prompt}; this engine holds "
            f"{limits['max_seq_len']} in all (max_seq_len). Ask for at most {room}, or build with "
            "a larger max_seq_len."
        )
    return asked


def check_ids(ids: list[int], vocabulary: int) -> None:
    """Refuse ids that the embedding has no row for: an engine would read beyond its end.

    Raises:
        Refusal: Names the first one.
    """
    for number in ids:
        if not 0 <= number < vocabulary:
            raise Refusal(
                f"The prompt has the token id {number}; this model knows 0 to {vocabulary - 1}. "
                "Encode the prompt with the model's own tokenizer."
            )
