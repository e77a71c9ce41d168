"""Write the recipe of a model for backends that load the checkpoint: nothing is compiled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .channel import Channel
from .trtllm_chat import save_tokenizer

RECIPE = "recipe.json"


def run(order: dict[str, Any], channel: Channel) -> None:
    """Write tokenizer and recipe for the checkpoint `order["model"]` into `order["output"]`.

    Raises:
        Refusal: The tokenizer cannot be loaded.
    """
    channel.exit_when_closed()
    output, model = Path(order["output"]), Path(order["model"])
    channel.send(event="stage", name="recipe")
    save_tokenizer(model, output, trust_remote_code=order["spec"]["trust_remote_code"])
    recipe = {"model": str(model)}
    (output / RECIPE).write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")
    channel.send(event="done", facts={"checkpoint": str(model)})
