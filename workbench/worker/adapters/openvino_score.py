"""Scores of a text: the engine's graph once more, as it is, with logits of every position.

The pipeline of OpenVINO GenAI gives the probability of the chosen token alone. This takes the
engine's weights a second time while it is loaded, so it is loaded when it is asked for, and stays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .scoring import PIECE, positions


def scoring_bytes(engine: Path) -> int:
    """Return the bytes of memory that a `Scorer` takes at least: those of the engine's weights."""
    return (engine / "openvino_model.bin").stat().st_size


class Scorer:
    """The graph of an engine, compiled for one text at a time."""

    def __init__(self, engine: Path, options: dict[str, Any]) -> None:
        import openvino

        graph = openvino.Core().compile_model(engine / "openvino_model.xml", "CPU", options)
        self._inputs = {name for port in graph.inputs for name in port.get_names()}
        self._request = graph.create_infer_request()

    def score(self, message: dict[str, Any], tokenizer: Any) -> list[Any]:
        """Return the scores that a message asks for; see `scoring.positions`."""
        self._request.reset_state()
        return positions(self._logits, message, tokenizer)

    def _logits(self, ids: list[int], begin: int) -> Any:
        """Return float32 logits of shape (tokens, vocabulary) for a piece of at most `PIECE`."""
        import numpy as np

        piece = ids[begin : begin + PIECE]
        end = begin + len(piece)
        feed = {
            "input_ids": np.array([piece], dtype=np.int64),
            "attention_mask": np.ones((1, end), dtype=np.int64),
            "position_ids": np.arange(begin, end, dtype=np.int64)[None],
            "beam_idx": np.zeros(1, dtype=np.int32),
        }
        self._request.infer({name: value for name, value in feed.items() if name in self._inputs})
        return self._request.get_output_tensor(0).data[0].astype(np.float32)
