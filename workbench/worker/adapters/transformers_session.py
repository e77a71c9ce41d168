"""Run a checkpoint with transformers' own generate(): one request at a time, streamed.

One thread does everything: generate() asks after each token whether to stop, and there the token
is sent, and what arrived meanwhile is read. generate() takes up nothing while it runs, so other
requests wait in their order.
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .channel import Channel, Refusal
from .prompts import check_ids, input_ids, output_length
from .recipe_build import RECIPE
from .scoring import PIECE, check, positions
from .text import TextStream, load_tokenizer
from .transformers_sampling import generation_config, processors
from .trtllm_chat import TOKENIZER, ChatTemplate, end_tokens

REASON = "transformers' generate() runs one request at a time"


def run(order: dict[str, Any], channel: Channel) -> None:
    """Load the checkpoint of `order["engine"]`'s recipe and serve until closed.

    Raises:
        Refusal: The checkpoint is not where it was, or cannot be loaded.
    """
    engine, limits = Path(order["engine"]), order["limits"]
    started = time.monotonic()
    with channel.exits_when_gone():
        recipe = json.loads((engine / RECIPE).read_text(encoding="utf-8"))
        model = load(Path(limits.get("checkpoint") or recipe["model"]), limits, channel)
    server = Server(model, engine / TOKENIZER, limits, channel)
    channel.send(event="ready", seconds=time.monotonic() - started, **server.facts())
    server.serve()


def load(checkpoint: Path, limits: dict[str, Any], channel: Channel) -> Any:
    """Return the model, ready to generate on its device; say what it does meanwhile.

    Raises:
        Refusal: Says what is missing.
    """
    if limits["trust_remote_code"]:
        # Before the import, which reads it. Otherwise copies of the code would stay in the user's
        # cache.
        modules = tempfile.mkdtemp(prefix="modules-")
        atexit.register(shutil.rmtree, modules, ignore_errors=True)
        os.environ["HF_MODULES_CACHE"] = modules
    channel.send(event="stage", name="import")
    import torch
    import transformers

    channel.send(event="stage", name="load")
    transformers.utils.logging.disable_progress_bar()
    if not checkpoint.is_dir():
        raise Refusal(
            f"The checkpoint {checkpoint} is gone; this backend copies no weights. Bring it back, "
            "or build again from where it is now."
        )
    if limits["threads"]:
        torch.set_num_threads(limits["threads"])
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            str(checkpoint),
            dtype=limits["dtype"] if limits["dtype"] == "auto" else getattr(torch, limits["dtype"]),
            trust_remote_code=bool(limits["trust_remote_code"]),
            use_safetensors=True,
        )
        model = model.to(_device(limits["device"])).eval()
    except (ValueError, OSError, KeyError, RuntimeError, ImportError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise Refusal(f"transformers cannot load this model: {line}") from error
    # What a request says, and only that, decides how it is sampled.
    model.generation_config = transformers.GenerationConfig()
    return model


def _device(name: str) -> str:
    import torch

    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise Refusal(
            "torch sees no NVIDIA GPU. Use device cpu, or install a torch with CUDA in this "
            "toolchain."
        )
    return ("cuda" if available else "cpu") if name == "auto" else name


def forward(model: Any) -> Callable[[list[int], int], Any]:
    """Return what gives the logits of a text piece by piece, see `scoring.positions`."""
    import torch

    cache: Any = None

    def logits(ids: list[int], begin: int) -> Any:
        nonlocal cache
        piece = torch.tensor([ids[begin : begin + PIECE]], device=model.device)
        with torch.inference_mode():
            output = model(piece, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        return output.logits[0].float().cpu().numpy()

    return logits


class Request:
    """A request that was found acceptable; `said` are those of its ids that begin the answer."""

    def __init__(
        self,
        number: int,
        ids: list[int],
        length: int,
        sampling: dict[str, Any],
        said: list[int],
    ) -> None:
        self.number, self.ids, self.length, self.sampling = number, ids, length, sampling
        self.said = said
        self.told = 0
        self.reason = ""


class Server:
    """A loaded model with its requests: one that runs, the others waiting in order."""

    def __init__(
        self, model: Any, tokenizer: Path, limits: dict[str, Any], channel: Channel
    ) -> None:
        self._model, self._limits, self._channel = model, limits, channel
        self._tokenizer = load_tokenizer(tokenizer)
        self._chat = ChatTemplate(tokenizer)
        self._ends = set(end_tokens(tokenizer))
        self._waiting: deque[Request] = deque()
        self._running: Request | None = None

    def facts(self) -> dict[str, Any]:
        """Return what was found while loading."""
        return {
            "kv_cache_tokens": None,
            "chat_template": bool(self._chat.chat_template),
            "device": str(self._model.device),
            "dtype": str(self._model.dtype).removeprefix("torch."),
        }

    def serve(self) -> None:
        """Work until the other side closes."""
        while not self._channel.closed:
            self._read(wait=not self._waiting)
            if self._waiting and not self._channel.closed:
                self._run(self._waiting.popleft())

    def _read(self, *, wait: bool) -> None:
        for message in self._channel.pending(wait=wait):
            if message["op"] == "generate":
                self._take(message)
            elif message["op"] == "cancel":
                self._cancel(message["id"])
            elif message["op"] == "score":
                self._score(message)
        first = 1 if self._running else 0
        for place, request in enumerate(self._waiting, start=first):
            if request.told != place:
                request.told = place
                self._channel.send(event="queued", id=request.number, place=place, reason=REASON)

    def _take(self, message: dict[str, Any]) -> None:
        sampling = message["sampling"]
        try:
            ids = input_ids(message, self._tokenizer, self._chat)
            check_ids(ids, self._model.config.get_text_config().vocab_size)
            prompt = len(ids) - message["said"]
            length = output_length(prompt, sampling["max_tokens"], self._limits, message["said"])
        except (Refusal, TypeError, ValueError) as error:
            self._channel.send(event="refused", id=message["id"], message=str(error))
            return
        self._waiting.append(Request(message["id"], ids, length, sampling, ids[prompt:]))

    def _score(self, message: dict[str, Any]) -> None:
        """Answer a request for scores; what runs waits meanwhile."""
        vocabulary = self._model.config.get_text_config().vocab_size
        try:
            check(message, vocabulary, self._limits["max_seq_len"])
            found = positions(forward(self._model), message, self._tokenizer)
        except (Refusal, TypeError, ValueError, RuntimeError) as error:
            self._channel.send(event="refused", id=message["id"], message=str(error))
            return
        self._channel.send(event="scored", id=message["id"], positions=found)

    def _cancel(self, number: int) -> None:
        if self._running and self._running.number == number:
            self._running.reason = "cancelled"
            return
        for request in self._waiting:
            if request.number == number:
                self._waiting.remove(request)
                self._end(request, "cancelled", "")
                return

    def _run(self, request: Request) -> None:
        """Generate to the end of one request, whatever ends it."""
        import torch

        self._running = request
        self._channel.send(
            event="started",
            id=request.number,
            input_tokens=len(request.ids),
            ids=list(request.ids),
            time=time.monotonic(),
        )
        text = TextStream(self._tokenizer, tuple(request.sampling["stop"]), request.said)
        steps = processors(request.sampling, len(request.ids) - len(request.said))
        ids = torch.tensor([request.ids], device=self._model.device)
        torch.manual_seed(request.sampling["seed"])

        def after_token(all_ids: Any, _scores: Any, **_: Any) -> Any:
            self._send_token(request, text, int(all_ids[0, -1]), steps.probabilities)
            self._read(wait=False)
            count = all_ids.shape[1] - len(request.ids)
            if self._channel.closed:
                request.reason = "cancelled"
            elif not request.reason and count == request.length:
                request.reason = "length"
            return torch.tensor([bool(request.reason)], device=all_ids.device)

        try:
            with torch.inference_mode():
                self._model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    generation_config=generation_config(request.sampling, request.length),
                    logits_processor=steps.chain,
                    stopping_criteria=[after_token],
                )
        except (RuntimeError, ValueError) as error:
            # Such as memory that is too small for this one; others may fit.
            self._running = None
            line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            self._channel.send(
                event="refused", id=request.number, message=f"transformers failed: {line}"
            )
            return
        self._running = None
        self._end(request, request.reason, text.end())

    def _send_token(self, request: Request, text: TextStream, token: int, seen: Any) -> None:
        """Send one token, with its probability where it was asked for."""
        count = request.sampling["top_logprobs"] if seen is not None else 0
        others = seen.top(count, text.name_of) if count else []
        entry: list[Any] = [request.number, [token], text.push([token]), []]
        if seen is not None:
            entry[3] = [seen.of(token)]
        if others:
            entry.append([others])
        self._channel.send(event="tokens", time=time.monotonic(), batch=[entry])
        if request.reason:
            return
        ended = token in self._ends and not request.sampling["ignore_eos"]
        if ended or text.stopped:
            request.reason = "stop"

    def _end(self, request: Request, reason: str, text: str) -> None:
        self._channel.send(
            event="end",
            id=request.number,
            reason=reason,
            text=text,
            cache_usage=None,
            time=time.monotonic(),
        )
