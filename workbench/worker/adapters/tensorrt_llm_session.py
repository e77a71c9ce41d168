"""Run a model with TensorRT-LLM: many requests at once, streaming, cancel.

TensorRT-LLM batches in flight by itself, in processes and threads of its own. This one has an
event loop: it reads what was asked, admits what the engine's batch holds, and passes on what
comes, the tokens of all requests that came together in one message.
"""

from __future__ import annotations

import asyncio
import json
import time
import traceback
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .channel import Channel, Refusal
from .prompts import check_ids, input_ids, output_length
from .text import TextStream, load_tokenizer
from .trtllm_chat import TOKENIZER, ChatTemplate, end_tokens


@dataclass
class Step:
    """What the runtime added to a request; `reason` is set when it is over.

    `others` has for each token the most probable ones at its place, best first: id and logarithm
    of the probability.
    """

    ids: list[int]
    logprobs: list[float] = field(default_factory=list)
    others: list[list[tuple[int, float]]] = field(default_factory=list)
    reason: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)


class Runtime(Protocol):
    """One of TensorRT-LLM's ways to run a model.

    `concurrent` is how many requests it takes, `lacks` which options of sampling it cannot do, and
    why.
    """

    concurrent: int
    lacks: dict[str, str]

    def generate(
        self, ids: list[int], length: int, sampling: dict[str, Any]
    ) -> AsyncIterator[Step]:
        """Generate after the tokens `ids`; closing the iterator stops it."""
        ...

    def broken(self) -> bool:
        """Whether it can generate nothing any more."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...


def load_and_serve(load: Callable[[], Runtime], order: dict[str, Any], channel: Channel) -> None:
    """Load a model, answer requests until the other side closes, then free everything.

    Nobody waits for a model that loads for nobody: the process ends when the other side has gone.
    """
    started = time.monotonic()
    with channel.exits_when_gone():
        channel.send(event="stage", name="import")
        import tensorrt_llm  # noqa: F401 - here, so that it has a stage of its own

        channel.send(event="stage", name="load")
        runtime = load()
    serve(runtime, order, channel, {"seconds": time.monotonic() - started})


def serve(runtime: Runtime, order: dict[str, Any], channel: Channel, facts: dict[str, Any]) -> None:
    """Answer requests until the other side closes, then free everything."""
    server = Server(runtime, Path(order["engine"]), order["limits"], channel)
    channel.send(
        event="ready", chat_template=server.has_chat_template, lacks=runtime.lacks, **facts
    )
    try:
        asyncio.run(server.serve())
    finally:
        runtime.close()


@dataclass
class Request:
    """A request that was found acceptable; `task` is set once it runs."""

    number: int
    ids: list[int]
    length: int
    sampling: dict[str, Any]
    text: TextStream
    task: asyncio.Task[None] | None = None
    told: int = 0


class Server:
    """A loaded model with its requests: waiting (in order) and running (by id)."""

    def __init__(
        self, runtime: Runtime, engine: Path, limits: dict[str, Any], channel: Channel
    ) -> None:
        self._runtime = runtime
        self._limits = limits
        self._channel = channel
        self._tokenizer = load_tokenizer(engine / TOKENIZER)
        self._chat = ChatTemplate(engine / TOKENIZER)
        self._vocabulary = _vocabulary(engine / TOKENIZER)
        self._waiting: deque[Request] = deque()
        self._running: dict[int, Request] = {}
        self._batch: list[list[Any]] = []
        self._closed = asyncio.Event()
        self._broken: Exception | None = None

    @property
    def has_chat_template(self) -> bool:
        """Whether messages can be given instead of a prompt."""
        return bool(self._chat.chat_template)

    async def serve(self) -> None:
        """Work until the other side closes.

        Raises:
            Exception: What broke the runtime, so that nothing more can be generated.
        """
        closed = self._closed
        loop = asyncio.get_running_loop()

        def arrived() -> None:
            for message in self._channel.pending(wait=False):
                self._take(message)
            if self._channel.closed:
                loop.remove_reader(self._channel.fileno())
                closed.set()
            self._admit()

        loop.add_reader(self._channel.fileno(), arrived)
        arrived()  # what came together with the order to open
        await closed.wait()
        tasks = [request.task for request in self._running.values() if request.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._broken:
            raise self._broken

    def _take(self, message: dict[str, Any]) -> None:
        if message["op"] == "generate":
            try:
                self._waiting.append(self._prepare(message))
            except (Refusal, TypeError, ValueError) as error:
                # What one request is made of must not end the others.
                self._channel.send(event="refused", id=message["id"], message=str(error))
        elif message["op"] == "cancel":
            self._cancel(message["id"])

    def _prepare(self, message: dict[str, Any]) -> Request:
        ids = input_ids(message, self._tokenizer, self._chat)
        check_ids(ids, self._vocabulary)
        self._check_step(len(ids))
        sampling = message["sampling"]
        prompt = len(ids) - message["said"]
        length = output_length(prompt, sampling["max_tokens"], self._limits, message["said"])
        stream = TextStream(self._tokenizer, tuple(sampling["stop"]), ids[prompt:])
        return Request(message["id"], ids, length, sampling, stream)

    def _check_step(self, prompt: int) -> None:
        """Refuse a prompt that one step cannot take, where it cannot be split."""
        chunked = self._limits.get("enable_chunked_context") or self._limits.get(
            "enable_chunked_prefill"
        )
        most = self._limits["max_num_tokens"]
        if prompt > most and not chunked:
            raise Refusal(
                f"The prompt has {prompt} tokens; without chunked prefill this engine takes {most} "
                "in one step (max_num_tokens). Shorten it, or switch chunked prefill on."
            )

    def _cancel(self, number: int) -> None:
        if request := self._running.get(number):
            assert request.task is not None  # noqa: S101 - a running request has one
            request.task.cancel()
            return
        for request in self._waiting:
            if request.number == number:
                self._waiting.remove(request)
                self._end(request, "cancelled", {})
                return

    def _admit(self) -> None:
        """Start waiting requests in their order, as far as the batch allows.

        Whether the KV cache has room is TensorRT-LLM's own affair: it lets a request wait.
        """
        most = min(self._limits["max_batch_size"], self._runtime.concurrent)
        while self._waiting and len(self._running) < most:
            request = self._waiting.popleft()
            self._running[request.number] = request
            self._channel.send(
                event="started",
                id=request.number,
                input_tokens=len(request.ids),
                ids=list(request.ids),
                time=time.monotonic(),
            )
            request.task = asyncio.create_task(self._run(request))
        for place, request in enumerate(self._waiting, start=1):
            if request.told != place:
                request.told = place
                self._channel.send(
                    event="queued", id=request.number, place=place, reason=self._obstacle(most)
                )

    def _obstacle(self, most: int) -> str:
        if most < self._limits["max_batch_size"]:
            return f"this runtime takes {most} request at a time"
        return f"max_batch_size {most} is reached"

    async def _run(self, request: Request) -> None:
        """Pass on what one request generates, to its end."""
        reason = "cancelled"
        metrics: dict[str, Any] = {}
        steps = self._runtime.generate(request.ids, request.length, request.sampling)
        try:
            async for step in steps:
                metrics = step.metrics or metrics
                self._queue(request, step)
                if request.text.stopped or step.reason:
                    reason = "stop" if request.text.stopped else step.reason
                    break
        except asyncio.CancelledError:
            pass  # asked for, or the session closes
        except Exception as error:  # noqa: BLE001 - the boundary of one request
            # Whatever it is: a request without an end would be waited for for ever.
            traceback.print_exc()
            del self._running[request.number]
            self._flush()
            self._channel.send(event="refused", id=request.number, message=_first_line(error))
            if self._runtime.broken():
                self._broken = error
                self._closed.set()
            self._admit()
            return
        finally:
            await steps.aclose()  # type: ignore[attr-defined]
        del self._running[request.number]
        self._flush()
        self._end(request, reason, metrics)
        self._admit()

    def _queue(self, request: Request, step: Step) -> None:
        """Keep new tokens until everything that arrived together is there, then send it."""
        if not step.ids:
            return
        if not self._batch:
            asyncio.get_running_loop().call_soon(self._flush)
        text = ""
        others: list[Any] = []
        for place, token in enumerate(step.ids):
            if step.others:
                # Before the token is there: the texts are what each one would add.
                best = step.others[place]
                others.append([[n, request.text.name_of(n), value] for n, value in best])
            text += request.text.push([token])
        entry: list[Any] = [request.number, step.ids, text, step.logprobs]
        self._batch.append([*entry, others] if others else entry)

    def _flush(self) -> None:
        if self._batch:
            self._channel.send(event="tokens", time=time.monotonic(), batch=self._batch)
            self._batch = []

    def _end(self, request: Request, reason: str, metrics: dict[str, Any]) -> None:
        self._channel.send(
            event="end",
            id=request.number,
            reason=reason,
            text=request.text.end(),
            cache_usage=None,
            metrics=metrics,
            time=time.monotonic(),
        )


def _vocabulary(tokenizer: Path) -> int:
    config = json.loads((tokenizer / "config.json").read_text(encoding="utf-8"))
    return int(config.get("text_config", config)["vocab_size"])


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    words = lines[0] if lines else "no reason given"
    kind = "" if isinstance(error, (RuntimeError, ValueError)) else f"{type(error).__name__}: "
    return f"TensorRT-LLM refused the request: {kind}{words}"


def end_ids(order: dict[str, Any]) -> list[int]:
    """Return the ids that end a text of the model in `order`, the first one first."""
    return end_tokens(Path(order["engine"]) / TOKENIZER)
