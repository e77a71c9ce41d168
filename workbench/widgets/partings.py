"""Where two answers part: as a sentence, as a table, and word by word."""

from __future__ import annotations

import html
from collections.abc import Sequence

from workbench.divergence import Answer, Parting, Token, aligned
from workbench.units import printable


def parting_line(parting: Parting | None, first: str, second: str) -> str:
    """Return a sentence on where two answers part, with what probabilities are known."""
    if parting is None:
        return "the answers are the same."
    one = _chosen(parting.first, parting.second_of_first, second)
    other = _chosen(parting.second, parting.first_of_second, first)
    return f"the answers part at {_place(parting)}: {first} has {one}, {second} has {other}."


def parting_table(parted: Sequence[Parting | None], first: str, second: str) -> str:
    """Return a row for each prompt: where two answers part, and the token of each there."""
    rows = [("prompt", "answers part at", first, second)]
    for number, one in enumerate(parted, 1):
        cells = ("nowhere: they are the same", "", "")
        if one is not None:
            token = _chosen(one.first, one.second_of_first, second)
            other = _chosen(one.second, one.first_of_second, first)
            cells = (_place(one), token, other)
        rows.append((str(number), *cells))
    head, *lines = ["".join(f"<td>{_escaped(cell)}</td>" for cell in row) for row in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f"<table><tr>{head.replace('td>', 'th>')}</tr>{body}</table>"


def pair_table(first: Answer, second: Answer) -> str:
    """Return two answers beside each other, what differs marked and underlined."""
    sides = ["", ""]
    for same, left, right in aligned(first.text, second.text):
        for place, text in enumerate((left, right)):
            shown = _escaped(text)
            sides[place] += shown if same or not text else f"<mark><u>{shown}</u></mark>"
    cells = "".join(f'<td style="width:50%"><pre>{side}</pre></td>' for side in sides)
    return f'<table style="width:100%;table-layout:fixed"><tr>{cells}</tr></table>'


def _place(parting: Parting) -> str:
    return f"{'token' if parting.by == 'token' else 'character'} {parting.at + 1}"


def _chosen(token: Token | None, by_other: float | None, other: str) -> str:
    if token is None:
        return "ended or not told its tokens"
    words = [repr(token.text)]
    if token.probability is not None:
        words.append(f"with probability {token.probability:.3g}")
    if by_other is not None:
        words.append(f"({by_other:.3g} for {other})")
    return " ".join(words)


def _escaped(text: str) -> str:
    return html.escape(printable(text))
