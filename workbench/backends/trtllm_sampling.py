"""What sessions of TensorRT-LLM cannot be asked for."""

from __future__ import annotations

_LATER = "the workbench does not pass it on to TensorRT-LLM yet."

LACKS = {
    "top_logprobs": f"TensorRT-LLM has it (SamplingParams.logprobs), but {_LATER}",
    "json_schema": f"TensorRT-LLM has it (guided_decoding_backend), but {_LATER}",
    "regex": f"TensorRT-LLM has it (guided_decoding_backend), but {_LATER}",
}
"""Fields of `Sampling`, each with the reason."""
