"""Yardsticks: what a quality was measured with. Only figures of one yardstick can be compared.

Two token matches mean the same where both were counted against the same answers to the same
prompts, two KL divergences where they are over the same texts, two perplexities where the same
tokens were read in the same windows. Records have a digest of each; early ones have the names of
the reference and the files instead, which are compared among themselves: nobody can tell any more
whether those are the same answers and texts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

from workbench.trial import Trial

QUALITIES = {
    "quality.token_match": "another reference, other prompts or other lengths",
    "quality.mean_kl": "another reference, other prompts or other lengths",
    "quality.perplexity": "another text, tokenizer or window",
}
"""Figures that depend on a yardstick, and in what two of those may differ."""


DIGESTS = {
    "quality.token_match": "answers_digest",
    "quality.mean_kl": "texts_digest",
    "quality.perplexity": "text_digest",
}
"""Names of the digests in a record; those of early versions have none."""


def is_early(trial: Trial, name: str) -> bool:
    """Say whether the yardstick of a figure is known by names only, as early versions wrote it.

    Args:
        trial: One that has the figure.
        name: Of the figure's axis, one of `QUALITIES`.
    """
    return not (trial.record.get("quality") or {}).get(DIGESTS[name])


def yardstick_of(trial: Trial, name: str) -> str:
    """Return what a figure of a trial was measured with; empty where it depends on nothing.

    Args:
        trial: A valid one.
        name: Of the figure's axis.
    """
    if name not in QUALITIES:
        return ""
    found = trial.record.get("quality") or {}
    asked = trial.record.get("quality_asked") or {}
    early = [found.get("reference"), asked.get("quality_prompts"), asked.get("quality_len")]
    digest = found.get(DIGESTS[name])
    parts = {
        "quality.token_match": [digest or early],
        "quality.mean_kl": [digest or early],
        "quality.perplexity": [
            digest or [found.get("text"), trial.spec.get("model")],
            found.get("window"),
        ],
    }
    return json.dumps(parts[name])


def most_shared(yardsticks: Iterable[str]) -> str:
    """Return the yardstick that most have, of several the first; empty where there is none."""
    return next((name for name, _ in Counter(yardsticks).most_common(1)), "")
