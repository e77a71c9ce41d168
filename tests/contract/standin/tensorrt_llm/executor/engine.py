"""The loop: one step a token for every running request, as many at once as the batch allows."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tensorrt_llm._settings import FAIL, STEP, die, error, gpu, line, rule
from tensorrt_llm.logger import runtime_line

NOT_FINISHED, END_ID, STOP_WORDS, LENGTH, CANCELLED = "", "end", "stop_words", "length", "cancelled"


@dataclass
class Response:
    """What one step gives to one request."""

    request_id: int
    tokens: list[int]
    logprobs: list[float]
    reason: str = NOT_FINISHED
    error: str = ""
    perf: Any = None

    @property
    def final(self) -> bool:
        """Whether the request is done."""
        return bool(self.reason or self.error)


@dataclass
class Request:
    """A request as the executor knows it; `queue` gets its responses."""

    ids: list[int]
    max_tokens: int
    end_id: int | None
    queue: Any
    seed: int = 0
    ignore_eos: bool = False
    min_tokens: int = 1
    stops: list[list[int]] = field(default_factory=list)
    streaming: bool = True
    guide: list[int] | None = None
    number: int = 0
    made: list[int] = field(default_factory=list)
    pending: Response | None = None
    times: dict[str, float] = field(default_factory=dict)
    cancelled: bool = False

    def step(self, vocabulary: int) -> Response:
        """Make one token; the end token itself is never given out."""
        history = self.ids + self.made
        end = self.end_id if self.end_id is not None else 2
        token = rule.next_token(history, vocabulary, self.seed, end)
        if self.guide is not None:
            token = [*self.guide, end][len(self.made)]
        elif token == end and (self.ignore_eos or len(self.made) + 1 < self.min_tokens):
            token = 3
        if token == end:
            return Response(self.number, [], [], END_ID)
        self.made.append(token)
        reason = NOT_FINISHED
        if any(self.made[-len(stop) :] == stop for stop in self.stops if stop):
            reason = STOP_WORDS
        elif len(self.made) >= self.max_tokens:
            reason = LENGTH
        return Response(self.number, [token], [rule.logprob(history, self.seed)], reason)


@dataclass(frozen=True)
class Limits:
    """What the executor runs with; None takes the engine's."""

    max_batch_size: int | None = None
    max_num_tokens: int | None = None
    max_beam_width: int = 1
    kv_fraction: float | None = 0.9
    kv_tokens: int | None = None
    chunked_context: bool = False
    max_seq_len: int | None = None  # of the PyTorch backend only; an engine has its own


class Executor:
    """An engine that is loaded, with its loop in a thread.

    Raises:
        RuntimeError: The engine does not load here, or not with these limits.
    """

    def __init__(self, engine_dir: Path, limits: Limits) -> None:
        from tensorrt_llm import _engine_file  # a release without engines has none

        self.config = json.loads((engine_dir / "config.json").read_text(encoding="utf-8"))
        self.build = self.config["build_config"]
        runtime_line(line("engine_version", version=self.config["version"]))
        self._check(limits)
        for rank in range(self.config["pretrained_config"]["mapping"]["world_size"]):
            _engine_file.load(engine_dir / f"rank{rank}.engine")
        self.vocabulary = self.config["pretrained_config"]["vocab_size"]
        self._allocate(limits)
        self._begin()

    def _begin(self) -> None:
        """Start the loop, with the limits and the cache that were set."""
        self._waiting: deque[Request] = deque()
        self._running: list[Request] = []
        self._wake = threading.Condition()
        self._closed = False
        self._count = self._tokens = self._iterations = 0
        self.stats: deque[dict[str, Any]] = deque(maxlen=1000)
        self._thread = threading.Thread(target=self._loop, daemon=True)
        self._thread.start()

    def _check(self, limits: Limits) -> None:
        build = self.build
        if limits.max_beam_width > build["max_beam_width"]:
            values = {"value": limits.max_beam_width, "limit": build["max_beam_width"]}
            raise RuntimeError(error("beam", **values))
        self.batch = limits.max_batch_size or build["max_batch_size"]
        if self.batch > build["max_batch_size"]:
            values = {"value": self.batch, "limit": build["max_batch_size"]}
            raise RuntimeError(error("batch", **values))
        self.tokens = build["max_num_tokens"]
        wanted = limits.max_num_tokens
        if wanted is not None and wanted > self.tokens:
            text = line("fewer_tokens", value=wanted, limit=self.tokens)
            runtime_line(text, "WARNING")
        elif wanted is not None:
            self.tokens = wanted
        self.max_input = build["max_seq_len"] - 1
        if not limits.chunked_context:
            self.max_input = min(self.max_input, self.tokens)
        shown = {
            "maxNumSequences": self.batch,
            "maxBatchSize": self.batch,
            "maxBeamWidth": limits.max_beam_width,
            "maxSequenceLen": build["max_seq_len"],
            "maxDraftLen": build["max_draft_len"],
            "enableTrtOverlap": 0,
            "maxNumTokens": self.tokens,
        }
        for name, value in shown.items():
            runtime_line(line("runtime", name=name, value=value))
        runtime_line(line("max_input", value=self.max_input))

    def _allocate(self, limits: Limits) -> None:
        model, block = self.config["pretrained_config"], self.build["plugin_config"]
        kv_bytes = 2 * model["num_hidden_layers"] * model["num_key_value_heads"]
        kv_bytes *= model["head_size"] * (1 if model["quantization"]["kv_cache_quant_algo"] else 2)
        total = gpu().gib
        free = total - 1.5
        tokens = self._share(kv_bytes, limits, block["tokens_per_block"])
        runtime_line(line("context_memory", mib=model["hidden_size"] * self.tokens * 20 / 2**20))
        runtime_line(line("kv_memory", total=total, free=free))
        runtime_line(line("kv_blocks", blocks=self.blocks))
        runtime_line(line("kv_allocated", gib=tokens * kv_bytes / 2**30, tokens=tokens))

    def _share(self, kv_bytes: int, limits: Limits, block: int) -> int:
        """Set how many blocks the cache has, by the bytes of a token; return its tokens."""
        share = (gpu().gib - 1.5) * (limits.kv_fraction if limits.kv_fraction is not None else 0.9)
        blocks = int(share * 2**30 / kv_bytes) // block
        if limits.kv_tokens is not None:
            blocks = min(blocks, -(-limits.kv_tokens // block))
        self.blocks, self.block = blocks, block
        return blocks * block

    def submit(self, request: Request) -> int:
        """Queue a request and return its number; a prompt that is too long answers at once."""
        with self._wake:
            if self._closed:
                raise RuntimeError(error("shutting_down"))
            self._count += 1
            request.number = self._count
            request.times["arrival_time"] = time.monotonic()
            refusal = self._refusal(request)
            if refusal:
                request.queue.put(Response(request.number, [], [], error=refusal))
                return request.number
            self._waiting.append(request)
            self._wake.notify_all()
        return request.number

    def _refusal(self, request: Request) -> str:
        """Say why a request cannot run, or nothing."""
        if len(request.ids) > self.max_input:
            return error("prompt", value=len(request.ids), limit=self.max_input)
        return ""

    def abort(self, number: int) -> None:
        """Let a request end at the next step, as cancelled."""
        with self._wake:
            for request in (*self._waiting, *self._running):
                if request.number == number:
                    request.cancelled = True

    def close(self) -> None:
        """End the loop."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        self._thread.join(timeout=5)

    def _loop(self) -> None:
        while True:
            with self._wake:
                while not (self._waiting or self._running or self._closed):
                    self._wake.wait()
                if self._closed:
                    return
                fresh = 0
                while self._waiting and len(self._running) < self.batch:
                    request = self._waiting.popleft()
                    request.times["first_scheduled_time"] = time.monotonic()
                    self._running.append(request)
                    fresh += 1
                running = list(self._running)
            time.sleep(STEP)
            self._step(running, fresh)

    def _step(self, running: list[Request], fresh: int) -> None:
        done = []
        for request in running:
            if request.cancelled:
                response = Response(request.number, [], [], CANCELLED)
            else:
                response = request.step(self.vocabulary)
            now = time.monotonic()
            request.times.setdefault("first_token_time", now)
            request.times["last_token_time"] = now
            self._tokens += len(response.tokens)
            if FAIL == "stream_crash" and self._tokens > 5:
                die(signal.SIGSEGV)
            if response.final:
                done.append(request)
                response.perf = _perf(request)
            self._give(request, response)
        with self._wake:
            for request in done:
                self._running.remove(request)
            self._note(len(running), fresh)

    def _give(self, request: Request, response: Response) -> None:
        if not request.streaming:
            held = request.pending or Response(request.number, [], [])
            held.tokens += response.tokens
            held.logprobs += response.logprobs
            held.reason, held.perf = response.reason, response.perf
            request.pending = response = held
            if not response.final:
                return
        request.queue.put(response)

    def _note(self, running: int, fresh: int) -> None:
        self._iterations += 1
        used = sum(-(-(len(r.ids) + len(r.made)) // self.block) for r in self._running)
        kv = {"maxNumBlocks": self.blocks, "freeNumBlocks": self.blocks - used}
        kv |= {"usedNumBlocks": used, "tokensPerBlock": self.block}
        batching = {"numScheduledRequests": running, "numContextRequests": fresh}
        batching |= {"numGenRequests": running - fresh, "numPausedRequests": 0}
        self.stats.append(
            {
                "timestamp": time.strftime("%m-%d-%Y %H:%M:%S"),
                "iter": self._iterations,
                "iterLatencyMS": STEP * 1000,
                "numActiveRequests": running,
                "numQueuedRequests": len(self._waiting),
                "maxNumActiveRequests": self.batch,
                "gpuMemUsage": int(gpu().gib * 2**30 * 0.9),
                "kvCacheStats": kv,
                "inflightBatchingStats": batching,
            }
        )


def _perf(request: Request) -> SimpleNamespace:
    """Return the metrics of a request; its times are since the start of the clock."""
    times = {name: timedelta(seconds=value) for name, value in request.times.items()}
    blocks = -(-len(request.ids) // 32)
    cache: dict[str, float] = {
        "num_total_allocated_blocks": blocks,
        "num_new_allocated_blocks": blocks,
    }
    cache |= {"num_reused_blocks": 0, "num_missed_blocks": blocks, "kv_cache_hit_rate": 0.0}
    return SimpleNamespace(
        timing_metrics=SimpleNamespace(**times),
        kv_cache_metrics=SimpleNamespace(**cache),
        first_iter=0,
        last_iter=len(request.made),
    )
