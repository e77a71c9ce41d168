"""Play the compilation of a model: stages, counts and files, in milliseconds."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from actions import Script, sender

from .channel import Channel, Refusal

LAYERS = 4


def run(order: dict, channel: Channel) -> None:
    """Build `order["output"]` and strike what the spec asks for on the way."""
    spec, output = order["spec"], Path(order["output"])
    script = Script(spec["fault"], _own_actions(channel, output))
    if not script.has("deaf"):
        channel.exit_when_closed()
    script.at("start")
    channel.send(event="stage", name="load")
    script.at("load")
    channel.send(event="stage", name="compile")
    for layer in range(LAYERS):
        channel.send(event="count", name="compile", done=layer + 1, total=LAYERS, unit="layers")
        if layer == LAYERS // 2:
            script.at("compile")
    channel.send(event="stage", name="write")
    script.at("write")
    _write(order, output, script)
    script.at("end")
    channel.send(event="done")


def _write(order: dict, output: Path, script: Script) -> None:
    """Write files whose content the spec decides; "half" is a point in the middle of them."""
    spec = order["spec"]
    content = hashlib.shake_256(str(spec["seed"]).encode()).digest(spec["size"])
    with (output / "engine.bin").open("wb") as file:
        file.write(content[: spec["size"] // 2])
        file.flush()
        script.at("half")
        file.write(content[spec["size"] // 2 :])
    (output / "words.json").write_text(json.dumps({"seed": spec["seed"]}))
    tokenizer = Path(order["model"]) / "tokenizer.json"
    (output / tokenizer.name).write_bytes(tokenizer.read_bytes())


def _own_actions(channel: Channel, output: Path) -> dict:
    def lie_done() -> None:
        """Say that all is done, and end well, without having done it."""
        channel.send(event="done")
        os._exit(0)

    def refuse(text: str) -> None:
        """Refuse with a sentence, as an adapter does."""
        raise Refusal(text)

    def overflow() -> None:
        """Write until the file system is full."""
        with (output / "filler").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))

    return {
        "send": sender(channel.fileno()),
        "done": lie_done,
        "refuse": refuse,
        "overflow": overflow,
    }
