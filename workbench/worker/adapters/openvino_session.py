"""Run an engine with OpenVINO GenAI: in-flight batching, admission, streaming, cancel.

One thread does everything: between two steps of the engine it reads what was asked, admits what
fits, and sends one message with the new tokens of all requests. A step holds Python's lock, so a
second thread would gain nothing.
"""

from __future__ import annotations

import json
import time
from collections import deque
from pathlib import Path
from typing import Any

from .channel import Channel, Refusal
from .openvino_request import Request
from .openvino_score import Scorer, scoring_bytes
from .prompts import check_ids
from .quiet import switch_telemetry_off

# How long an idle engine waits for company, in seconds. Requests that a loop starts together then
# share their first step; else the first would have one to itself, the others would wait for it,
# and the batch would need one step more. Sending one takes some 50 microseconds, a step of even
# a small model ten milliseconds.
COMPANY = 0.001

USAGE = 0.25
"""Seconds between two looks at the KV cache while tokens come."""

PRECISION = {"float32": "f32", "bfloat16": "bf16", "float16": "f16", "int8": "u8"}


def run(order: dict[str, Any], channel: Channel) -> None:
    """Load `order["engine"]` (a directory) under `order["limits"]` and serve until closed.

    Raises:
        Refusal: OpenVINO cannot load the engine.
    """
    switch_telemetry_off()
    started = time.monotonic()
    channel.send(event="stage", name="import")
    import openvino_genai  # noqa: F401 - here, so that it has a stage of its own

    channel.send(event="stage", name="load")
    server = Server(Path(order["engine"]), order["limits"], channel)
    channel.send(event="ready", seconds=time.monotonic() - started, **server.facts())
    server.serve()


class Server:
    """A loaded engine with its requests: waiting (in order) and running (by id)."""

    def __init__(self, engine: Path, limits: dict[str, Any], channel: Channel) -> None:
        from .text import load_tokenizer

        self._channel = channel
        self._limits = limits
        self._engine = engine
        self._scorer: Any = None
        self._forms: set[str] = set()
        self._told = 0.0
        """When the use of the KV cache was told last."""
        self._waiting: deque[Request] = deque()
        self._running: dict[int, Request] = {}
        self._tokenizer = load_tokenizer(engine)
        self._vocabulary = _vocabulary(engine)
        self._pipeline = _load(engine, limits)
        self._chat = self._pipeline.get_tokenizer()

    def facts(self) -> dict[str, Any]:
        """Return what was found while loading."""
        return {
            "kv_cache_tokens": self._limits["kv_blocks"] * self._limits["block_tokens"],
            "chat_template": bool(self._chat.chat_template),
            "scoring_bytes": scoring_bytes(self._engine),
        }

    def serve(self) -> None:
        """Work until the other side closes."""
        while True:
            idle = not self._running and not self._waiting
            for message in self._channel.pending(wait=idle, company=COMPANY):
                self._take(message)
            if self._channel.closed:
                return
            self._admit()
            if self._pipeline.has_non_finished_requests():
                # Also after a cancel: the step is what frees the blocks.
                self._step()
                self._send_tokens()

    def _step(self) -> None:
        """Let the engine make one step.

        A form of output is only read in the first step of its request. If it cannot be read, the
        step fails, and whatever else is in it is lost; so a new form has that step for itself.

        Raises:
            RuntimeError: It fails for another reason.
        """
        try:
            self._pipeline.step()
        except RuntimeError as error:
            request = self._newcomer()
            if request is None:
                raise
            request.handle.cancel()
            # Also alone in the step that drops it: in one with others it would be read again.
            self._pipeline.step()
            del self._running[request.number]
            words = str(error).strip().rpartition("\n")[2].rpartition("cc:")[2]
            self._channel.send(
                event="refused",
                id=request.number,
                message=f"OpenVINO GenAI cannot read the json_schema or regex ({words}).",
            )

    def _newcomer(self) -> Request | None:
        """Return the running request whose form has not been read yet, if there is one."""
        new = (r for r in self._running.values() if r.form and r.form not in self._forms)
        return next(new, None)

    def _score(self, message: dict[str, Any]) -> None:
        """Answer a request for scores; what runs waits meanwhile."""
        from .scoring import check

        try:
            check(message, self._vocabulary, self._limits["max_seq_len"])
            if self._scorer is None:
                self._scorer = Scorer(self._engine, _options(self._limits))
            found = self._scorer.score(message, self._tokenizer)
        except (Refusal, TypeError, ValueError, RuntimeError) as error:
            self._channel.send(event="refused", id=message["id"], message=str(error))
            return
        self._channel.send(event="scored", id=message["id"], positions=found)

    def _take(self, message: dict[str, Any]) -> None:
        if message["op"] == "generate":
            try:
                request = Request.prepare(
                    message, self._limits, self._tokenizer, self._chat, self._fresh_config()
                )
                check_ids(request.ids, self._vocabulary)
            except (Refusal, TypeError, ValueError, RuntimeError) as error:
                # What one request is made of must not end the others.
                self._channel.send(event="refused", id=message["id"], message=str(error))
                return
            self._waiting.append(request)
        elif message["op"] == "cancel":
            self._cancel(message["id"])
        elif message["op"] == "score":
            self._score(message)

    def _fresh_config(self) -> Any:
        """Return a configuration that knows the model's end tokens, and nothing else of it.

        The checkpoint's generation_config.json may also ask for beams, penalties or a top_k;
        what a request says, and only that, decides how it is sampled.
        """
        import openvino_genai

        own = self._pipeline.get_config()
        config = openvino_genai.GenerationConfig()
        config.eos_token_id = own.eos_token_id
        config.stop_token_ids = own.stop_token_ids
        return config

    def _cancel(self, number: int) -> None:
        request = self._running.get(number)
        if request is not None:
            request.handle.cancel()
            self._end(request, "cancelled")
            return
        for request in self._waiting:
            if request.number == number:
                self._waiting.remove(request)
                self._send_end(request, "cancelled")
                return

    def _admit(self) -> None:
        """Start waiting requests in their order, as far as batch and KV cache allow.

        A request is admitted only when the KV cache can hold it to its very end beside those
        that run (TensorRT-LLM calls this policy GUARANTEED_NO_EVICT), so that none is dropped
        in the middle. OpenVINO's max_num_seqs is no limit with dynamic_split_fuse, so the batch
        is limited here too.
        """
        while self._waiting:
            reason = self._obstacle(self._waiting[0])
            if reason:
                break
            request = self._waiting.popleft()
            request.handle = self._pipeline.add_request(
                request.number, request.tensor(), request.config
            )
            self._running[request.number] = request
            self._channel.send(
                event="started",
                id=request.number,
                input_tokens=len(request.ids),
                ids=list(request.ids),
                time=time.monotonic(),
            )
        for place, request in enumerate(self._waiting, start=1):
            if request.told != place:
                request.told = place
                self._channel.send(event="queued", id=request.number, place=place, reason=reason)

    def _obstacle(self, request: Request) -> str:
        """Say why a request has to wait, or nothing."""
        alone = request.form and request.form not in self._forms
        if (alone and self._running) or self._newcomer():
            return "a new json_schema or regex is read while nothing else runs"
        if len(self._running) >= self._limits["max_batch_size"]:
            return f"max_batch_size {self._limits['max_batch_size']} is reached"
        used = sum(other.blocks for other in self._running.values())
        if used + request.blocks > self._limits["kv_blocks"]:
            return f"the KV cache of {self._limits['kv_blocks']} blocks is taken"
        return ""

    def _send_tokens(self) -> None:
        """Send the new tokens of all requests in one message; end those that are finished."""
        now = time.monotonic()
        batch = []
        ended: list[tuple[Request, str]] = []
        for request in self._running.values():
            new = request.read()
            if new.ids:
                if request.form:
                    self._forms.add(request.form)
                batch.append([request.number, new.ids, new.text, new.logprobs])
            if new.reason:
                ended.append((request, new.reason))
        if batch:
            self._channel.send(event="tokens", time=now, batch=batch, **self._usage(now))
        for request, reason in ended:
            self._end(request, reason)

    def _usage(self, now: float) -> dict[str, float]:
        """Return the share of the KV cache that is taken, in percent, a few times a second."""
        if now < self._told + USAGE:
            return {}
        self._told = now
        return {"cache_usage": self._pipeline.get_metrics().cache_usage}

    def _end(self, request: Request, reason: str) -> None:
        del self._running[request.number]
        self._send_end(request, reason)

    def _send_end(self, request: Request, reason: str) -> None:
        self._channel.send(
            event="end",
            id=request.number,
            reason=reason,
            text=request.text.end(),
            cache_usage=self._pipeline.get_metrics().cache_usage,
            time=time.monotonic(),
        )


def _vocabulary(engine: Path) -> int:
    """Return the number of tokens that the model knows."""
    config = json.loads((engine / "config.json").read_text(encoding="utf-8"))
    return int(config.get("text_config", config)["vocab_size"])


def _load(engine: Path, limits: dict[str, Any]) -> Any:
    import openvino_genai

    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = 0
    scheduler.num_kv_blocks = limits["kv_blocks"]
    scheduler.max_num_batched_tokens = limits["max_num_tokens"]
    scheduler.max_num_seqs = limits["max_batch_size"]
    scheduler.enable_prefix_caching = limits["enable_prefix_caching"]
    scheduler.dynamic_split_fuse = limits["enable_chunked_prefill"]
    options = _options(limits)
    try:
        return openvino_genai.ContinuousBatchingPipeline(str(engine), scheduler, "CPU", options)
    except RuntimeError as error:
        raise Refusal(f"OpenVINO cannot load this engine: {error}") from error


def _options(limits: dict[str, Any]) -> dict[str, Any]:
    """Return how OpenVINO computes."""
    options: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": PRECISION[limits["dtype"]],
        "KV_CACHE_PRECISION": PRECISION[limits["kv_cache_dtype"]],
    }
    if limits["threads"]:
        options["INFERENCE_NUM_THREADS"] = limits["threads"]
    return options
