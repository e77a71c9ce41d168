"""Play a session: one token a step for each request, with a batch limit, a queue and cancel."""

from __future__ import annotations

import json
import time
from pathlib import Path

from actions import Script, sender

from .channel import Channel, Refusal


def run(order: dict, channel: Channel) -> None:
    """Serve the engine in `order["engine"]` until the channel closes."""
    script = Script(order["limits"]["fault"], {"send": sender(channel.fileno())})
    script.at("open")
    try:
        words = json.loads((Path(order["engine"]) / "words.json").read_text())
    except (OSError, ValueError) as error:
        raise Refusal(f"The played runtime cannot read its engine: {error}") from error
    channel.send(event="ready", seconds=0.0, kv_cache_tokens=1024, chat_template=False)
    Server(words["seed"], order["limits"], channel, script).serve()


class Server:
    """Requests that wait and run; their tokens name the engine that they come from."""

    def __init__(self, seed: int, limits: dict, channel: Channel, script: Script) -> None:
        self._seed, self._limits, self._channel, self._script = seed, limits, channel, script
        self._waiting: list[dict] = []
        self._running: dict[int, list[int]] = {}

    def serve(self) -> None:
        """Work until the other side closes."""
        while True:
            idle = not self._running and not self._waiting
            for message in self._channel.pending(wait=idle):
                self._take(message)
            if self._channel.closed:
                return
            self._admit()
            if self._running:
                self._step()

    def _take(self, message: dict) -> None:
        if message["op"] == "generate":
            self._waiting.append(message)
        elif message["op"] == "cancel":
            known = {*self._running, *(waiting["id"] for waiting in self._waiting)}
            self._waiting = [m for m in self._waiting if m["id"] != message["id"]]
            self._running.pop(message["id"], None)
            if message["id"] in known:
                self._end(message["id"], "cancelled")

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._limits["max_batch_size"]:
            message = self._waiting.pop(0)
            self._script.at("prefill")
            wanted = message["sampling"]["max_tokens"] or self._limits["max_output_len"]
            self._running[message["id"]] = [0, min(wanted, self._limits["max_output_len"])]
            self._channel.send(
                event="started", id=message["id"], input_tokens=1, time=time.monotonic()
            )
        for place, message in enumerate(self._waiting, start=1):
            if message.get("place") != place:
                message["place"] = place
                self._channel.send(
                    event="queued", id=message["id"], place=place, reason="the batch is full"
                )

    def _step(self) -> None:
        self._script.at("decode")
        time.sleep(self._limits["pace"])
        batch = []
        for number, request in self._running.items():
            batch.append([number, [request[0]], f"{self._seed}:{request[0]} ", []])
            request[0] += 1
        self._channel.send(event="tokens", time=time.monotonic(), batch=batch)
        for number, (made, wanted) in list(self._running.items()):
            if made >= wanted:
                del self._running[number]
                self._end(number, "length")

    def _end(self, number: int, reason: str) -> None:
        self._channel.send(
            event="end", id=number, reason=reason, text="", cache_usage=0.0, time=time.monotonic()
        )
