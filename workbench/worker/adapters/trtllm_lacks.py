"""What a session of TensorRT-LLM cannot be asked for: options of sampling, each with the reason.

Alternatives and forms of output were read in the library (sampling_params.py, executor/result.py,
its pull requests 3388, 6097 and 7756) and tried against the stand-in of tests/contract; on a GPU,
with the library itself, they were not run.
"""

from __future__ import annotations

import re
from typing import Any

PROBABILITIES = ("logprobs", "top_logprobs")
FORMS = ("json_schema", "regex")

TOP_LOGPROBS_SINCE = (1, 2)
"""Release whose PyTorch backend tells of more than one token a step (its pull request 7756)."""


def runner_lacks() -> dict[str, str]:
    """Return what ModelRunnerCpp cannot do: its streams are of token ids alone."""
    why = "ModelRunnerCpp streams token ids alone. Open the engine with runtime='llm_api'."
    return dict.fromkeys((*PROBABILITIES, *FORMS), why)


def engine_lacks(limits: dict[str, Any]) -> dict[str, str]:
    """Return what the LLM API cannot do with an engine under these limits.

    It computes log-probabilities from the generation logits (tensorrt_llm executor/result.py).
    """
    lacks = _without_guide(limits)
    if not limits["gather_generation_logits"]:
        why = (
            "this engine was opened without the logits of generated tokens "
            "(gather_generation_logits)."
        )
        lacks.update(dict.fromkeys(PROBABILITIES, why))
    return lacks


def torch_lacks(limits: dict[str, Any], version: str) -> dict[str, str]:
    """Return what the PyTorch backend of a release cannot do under these limits."""
    lacks = _without_guide(limits)
    release = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if release < TOP_LOGPROBS_SINCE:
        lacks["top_logprobs"] = (
            f"the PyTorch backend of TensorRT-LLM {version} tells the probability of one token a "
            "step alone; later ones than 1.1 tell more."
        )
    return lacks


def _without_guide(limits: dict[str, Any]) -> dict[str, str]:
    # Engines of earlier versions do not say; nothing guided then.
    if limits.get("guided_decoding_backend", "none") != "none":
        return {}
    why = (
        "this session was opened without guided decoding. Set guided_decoding_backend to xgrammar "
        "and open it again."
    )
    return dict.fromkeys(FORMS, why)
