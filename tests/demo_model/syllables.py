"""Counts the syllables of an English line, well enough for the vocabulary of the demo model."""

from __future__ import annotations

import re

# Words that the rules below miscount.
EXCEPTIONS = {
    "billion": 2,
    "bravely": 2,
    "cyan": 2,
    "doubled": 2,
    "every": 2,
    "everybody": 4,
    "everyone": 3,
    "everything": 3,
    "everywhere": 3,
    "gradient": 3,
    "hundred": 2,
    "layer": 2,
    "lovely": 2,
    "maybe": 2,
    "nineteen": 2,
    "ninety": 2,
    "notebook": 2,
    "outliers": 3,
    "period": 3,
    "pipeline": 2,
    "poem": 2,
    "poetry": 3,
    "quiet": 2,
    "saying": 2,
    "somebody": 3,
    "somehow": 2,
    "someone": 2,
    "something": 2,
    "sometime": 2,
    "somewhere": 2,
    "statement": 2,
    "syllables": 3,
    "triangles": 3,
    "untitled": 3,
    "yaml": 2,
}
# Spelled out letter by letter.
LETTERS = {"gpu": 3, "gpus": 3, "cpu": 3, "dns": 3, "kv": 2, "api": 3, "ci": 2, "ok": 2}

WORD = re.compile(r"[a-z]+(?:'[a-z]+)?")
VOWELS = re.compile(r"[aeiouy]+")
SILENT = re.compile(
    r"""
      (?<=[^aeiouyl])e$         # time, but not free or table
    | (?<=[aeiouy]l)e$          # while
    | (?<=[^aeiouytd])ed$       # launched, but not needed or waited
    | (?<=[^aeiouysczxhg])es$   # lines, but not caches or pages
    """,
    re.VERBOSE,
)


def syllables(line: str) -> int:
    """Counts the syllables of a line.

    Args:
        line: plain English text; digits and marks count nothing.

    Returns:
        The number of syllables, at least one for each word.
    """
    return sum(_of_word(word) for word in WORD.findall(line.lower()))


def _of_word(word: str) -> int:
    known = LETTERS.get(word) or EXCEPTIONS.get(word)
    if known:
        return known
    return max(1, len(VOWELS.findall(SILENT.sub("", word))))
