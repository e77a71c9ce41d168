"""One generation inside the OpenVINO worker: checked against the limits, then read as it grows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .channel import Refusal
from .prompts import input_ids, output_length
from .text import TextStream


@dataclass
class New:
    """What a request produced in one step; `reason` is set when it is finished."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    text: str = ""
    reason: str = ""


@dataclass
class Request:
    """A request that was found acceptable; `handle` is set once it runs.

    `form` is the JSON schema or the regular expression of its output, or empty.
    """

    number: int
    ids: list[int]
    config: Any
    text: TextStream
    blocks: int
    form: str = ""
    handle: Any = None
    told: int = 0

    @classmethod
    def prepare(
        cls,
        message: dict[str, Any],
        limits: dict[str, Any],
        tokenizer: Any,
        chat: Any,
        config: Any,
    ) -> Request:
        """Check a message against the limits.

        Raises:
            Refusal: With what was asked, what the limit is and what to do.
        """
        ids = input_ids(message, tokenizer, chat)
        sampling = message["sampling"]
        prompt = len(ids) - message["said"]
        length = output_length(prompt, sampling["max_tokens"], limits, message["said"])
        # Measured with OpenVINO GenAI 2026.4.1 and both penalties at 2: where the most probable
        # token stood in the prompt and led by less than that, it came all the same, at seven
        # places of seven. A repetition_penalty, which counts the prompt too, replaced it there.
        if message["said"] and (sampling["presence_penalty"] or sampling["frequency_penalty"]):
            raise Refusal(
                "OpenVINO GenAI takes the tokens that an answer goes on from for the prompt, and "
                "its presence_penalty and frequency_penalty count generated tokens alone. Ask "
                "again with both at 0 to go on from a token."
            )
        _configure(config, sampling, length)
        blocks = -(-(len(ids) + length) // limits["block_tokens"])
        if blocks > limits["kv_blocks"]:
            capacity = limits["kv_blocks"] * limits["block_tokens"]
            raise Refusal(
                f"This request may need {len(ids) + length} tokens ({len(ids)} prompt + {length} "
                f"output), but the KV cache holds {capacity}. Shorten it, lower max_tokens, or "
                "build with a larger kv_cache_tokens."
            )
        stream = TextStream(tokenizer, tuple(sampling["stop"]), ids[prompt:])
        form = f"{sampling.get('json_schema') or ''}{sampling.get('regex') or ''}"
        return cls(message["id"], ids, config, stream, blocks, form)

    def tensor(self) -> Any:
        """Return the prompt as OpenVINO takes it: int64 of shape (1, tokens)."""
        import numpy as np
        import openvino

        return openvino.Tensor(np.array([self.ids], dtype=np.int64))

    def read(self) -> New:
        """Return what came since the last call."""
        import openvino_genai

        new = New()
        while self.handle.can_read():
            for output in self.handle.read().values():
                new.ids += output.generated_ids
                if self.config.logprobs:
                    new.logprobs += output.generated_log_probs
                if output.finish_reason != openvino_genai.GenerationFinishReason.NONE:
                    new.reason = output.finish_reason.name.lower()
        if new.ids:
            new.text = self.text.push(new.ids)
            if self.text.stopped:
                if not new.reason:
                    self.handle.cancel()
                new.reason = "stop"
        elif not new.reason:
            # OpenVINO raises nothing when a request finds no room: it is just over.
            status = self.handle.get_status()
            if status == openvino_genai.GenerationStatus.IGNORED:
                new.reason = "ignored"
        return new


def _configure(config: Any, sampling: dict[str, Any], length: int) -> None:
    """Write the sampling options into a GenerationConfig that has the model's own end tokens."""
    config.max_new_tokens = length
    config.ignore_eos = sampling["ignore_eos"]
    config.logprobs = int(sampling["logprobs"])
    config.do_sample = sampling["temperature"] > 0
    config.repetition_penalty = sampling["repetition_penalty"]
    config.presence_penalty = sampling["presence_penalty"]
    config.frequency_penalty = sampling["frequency_penalty"]
    if config.do_sample:
        config.temperature = sampling["temperature"]
        config.top_p = sampling["top_p"]
        config.min_p = sampling["min_p"]
        config.rng_seed = sampling["seed"]
        if sampling["top_k"]:
            config.top_k = sampling["top_k"]
    form = {name: sampling[name] for name in ("json_schema", "regex") if sampling.get(name)}
    if form:
        import openvino_genai

        config.structured_output_config = openvino_genai.StructuredOutputConfig(**form)
    try:
        config.validate()
    except RuntimeError as error:
        raise Refusal(f"OpenVINO GenAI refuses these sampling options: {error}") from error
