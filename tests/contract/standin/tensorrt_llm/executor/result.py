"""What a generation gives: one object, which grows at every step."""

from __future__ import annotations

import asyncio
import dataclasses
import queue
import time
from collections import deque
from collections.abc import Generator
from typing import Any

from tensorrt_llm._settings import error

from .engine import CANCELLED, END_ID, LENGTH, STOP_WORDS, Executor, Request, Response


class RequestError(RuntimeError):
    """The executor refused a request."""


@dataclasses.dataclass(slots=True)
class Logprob:
    """The log-probability of a token and its place among all."""

    logprob: float
    rank: int | None = None


@dataclasses.dataclass(slots=True)
class CompletionOutput:
    """One sequence; the properties ending in `diff` tell what the last step added."""

    index: int
    text: str = ""
    token_ids: list[int] = dataclasses.field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: list[dict[int, Logprob]] = dataclasses.field(default_factory=list)
    prompt_logprobs: list[dict[int, Logprob]] = dataclasses.field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    generation_logits: Any = None
    request_perf_metrics: Any = None
    _last_text_len: int = dataclasses.field(default=0, repr=False)
    _last_token_ids_len: int = dataclasses.field(default=0, repr=False)
    _last_logprobs_len: int = dataclasses.field(default=0, repr=False)

    @property
    def length(self) -> int:
        """How many tokens there are."""
        return len(self.token_ids)

    @property
    def text_diff(self) -> str:
        """The new text."""
        return self.text[self._last_text_len :]

    @property
    def token_ids_diff(self) -> list[int]:
        """The new tokens."""
        return self.token_ids[self._last_token_ids_len :]

    @property
    def logprobs_diff(self) -> list[dict[int, Logprob]]:
        """The log-probabilities of the new tokens."""
        return self.logprobs[self._last_logprobs_len :]


class _LoopQueue:
    """A queue for one event loop, that can also be polled without it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._items, self._event = loop, deque[Any](), asyncio.Event()

    def put(self, item: Any) -> None:
        """Put from any thread."""
        self._items.append(item)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)

    def get(self) -> Any:
        """Wait in this thread."""
        while not self._items:
            time.sleep(0.01)
        return self._items.popleft()

    async def aget(self) -> Any:
        """Wait in the loop."""
        while not self._items:
            self._event.clear()
            await self._event.wait()
        return self._items.popleft()


def new_queue() -> Any:
    """Return a queue that fits where the request is made: inside an event loop, or not."""
    try:
        return _LoopQueue(asyncio.get_running_loop())
    except RuntimeError:
        return queue.Queue()


class RequestOutput:
    """Iterate over it, in either way: every step gives the same object again."""

    def __init__(
        self,
        executor: Executor,
        request: Request,
        sampling: Any,
        prompt: str | None,
        tokenizer: Any,
    ) -> None:
        self.sampling_params, self.tokenizer, self.prompt = sampling, tokenizer, prompt
        self._executor, self._request = executor, request
        self._outputs = [CompletionOutput(0)]
        self._done = self._aborted = False
        self.context_logits = None
        self.metrics_dict: dict[str, float] = {}

    @property
    def request_id(self) -> int:
        """The number of the request."""
        return self._request.number

    @property
    def prompt_token_ids(self) -> list[int]:
        """The prompt's tokens."""
        return self._request.ids

    @property
    def outputs(self) -> list[CompletionOutput]:
        """The sequences."""
        return self._outputs

    @property
    def finished(self) -> bool:
        """Whether the request is done."""
        return self._done

    def abort(self) -> None:
        """Ask the executor to stop."""
        self._executor.abort(self.request_id)
        self._aborted = True

    def aborted(self) -> bool:
        """Whether `abort` was called."""
        return self._aborted

    def _take(self, response: Response) -> None:
        if response.error:
            self._done = True
            raise RequestError(response.error)
        self._done = response.final
        output = self._outputs[0]
        output._last_token_ids_len = len(output.token_ids)
        output._last_logprobs_len = len(output.logprobs)
        output.token_ids.extend(response.tokens)
        self._take_logprobs(output, response)
        if response.perf is not None and self.sampling_params.return_perf_metrics:
            output.request_perf_metrics = response.perf
        reasons = {END_ID: "stop", STOP_WORDS: "stop", LENGTH: "length", CANCELLED: "cancelled"}
        output.finish_reason = reasons.get(response.reason)
        if response.reason == STOP_WORDS:
            self._cut(output)
        self._detokenize(output)

    def _take_logprobs(self, output: CompletionOutput, response: Response) -> None:
        wanted = self.sampling_params.logprobs
        if wanted is None:
            return
        output.cumulative_logprob = (output.cumulative_logprob or 0.0) + sum(response.logprobs)
        for token, value in zip(response.tokens, response.logprobs, strict=True):
            others = (number for number in range(3, 4 + wanted) if number != token)
            row = {token: Logprob(value, 1)}
            for rank, other in enumerate(others, start=2):
                if rank <= wanted:
                    row[other] = Logprob(value - rank, rank)
            output.logprobs.append(row)

    def _cut(self, output: CompletionOutput) -> None:
        for reason, ids in self.sampling_params.stops():
            if ids and output.token_ids[-len(ids) :] == ids:
                output.stop_reason = reason
                if not self.sampling_params.include_stop_str_in_output:
                    del output.token_ids[-len(ids) :]
                return

    def _detokenize(self, output: CompletionOutput) -> None:
        if not self.sampling_params.detokenize or self.tokenizer is None:
            return
        output._last_text_len = len(output.text)
        skip = self.sampling_params.skip_special_tokens
        text = self.tokenizer.decode(output.token_ids, skip_special_tokens=skip)
        if self._done or not text.endswith("\ufffd"):  # half a character waits for its rest
            output.text = text
        if self._done and output.finish_reason == "cancelled":
            return
        for reason, _ in self.sampling_params.stops():
            if isinstance(reason, str) and reason in output.text:
                end = output.text.find(reason)
                end += len(reason) if self.sampling_params.include_stop_str_in_output else 0
                output.text = output.text[:end]
                output.finish_reason, output.stop_reason = "stop", reason
                self._done = True
                return

    def result(self, timeout: float | None = None) -> RequestOutput:  # noqa: ARG002
        """Wait for the end; the library does not heed `timeout` either."""
        while not self._done:
            self._take(self._request.queue.get())
        return self

    async def aresult(self) -> RequestOutput:
        """Wait for the end in the event loop."""
        while not self._done:
            await self._astep()
        return self

    def __await__(self) -> Generator[Any, None, RequestOutput]:
        return self.aresult().__await__()

    def __iter__(self) -> RequestOutput:
        return self

    def __next__(self) -> RequestOutput:
        if self._done:
            raise StopIteration
        self._take(self._request.queue.get())
        return self

    def __aiter__(self) -> RequestOutput:
        return self

    async def __anext__(self) -> RequestOutput:
        if self._done:
            raise StopAsyncIteration
        await self._astep()
        return self

    async def _astep(self) -> None:
        assert isinstance(self._request.queue, _LoopQueue), error("no_loop")
        self._take(await self._request.queue.aget())
