"""Where answers part: laws that hold for any two, and the cases that people will see."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.divergence import (
    LONGEST,
    Answer,
    Token,
    agreement,
    aligned,
    answer_of,
    common_prefix,
    part,
)
from workbench.generation import Alternative, Delta

IDS = st.lists(st.integers(0, 3), max_size=12)
TEXTS = st.text("ab \n", max_size=40)


def answer(ids: list[int]) -> Answer:
    """An answer whose tokens are letters."""
    return Answer("".join(map(_letter, ids)), tuple(Token(n, _letter(n)) for n in ids))


def _letter(number: int) -> str:
    return "abcd"[number]


@given(IDS, IDS)
def test_what_comes_before_the_parting_is_the_same_and_what_stands_there_is_not(
    left: list[int], right: list[int]
) -> None:
    parting = part(answer(left), answer(right), same_vocabulary=True)
    if parting is None:
        assert left == right
        return
    assert left[: parting.at] == right[: parting.at]
    assert left[parting.at : parting.at + 1] != right[parting.at : parting.at + 1]
    assert parting.first == (answer(left).tokens[parting.at] if parting.at < len(left) else None)


@given(IDS, IDS)
def test_letters_and_their_ids_part_at_the_same_place(left: list[int], right: list[int]) -> None:
    by_id = part(answer(left), answer(right), same_vocabulary=True)
    by_text = part(answer(left), answer(right), same_vocabulary=False)
    assert (by_id is None) == (by_text is None)
    if by_id and by_text:
        assert by_id.at == by_text.at == by_text.text_at


@given(IDS, IDS)
def test_the_order_of_the_two_does_not_matter(left: list[int], right: list[int]) -> None:
    one = part(answer(left), answer(right), same_vocabulary=True)
    other = part(answer(right), answer(left), same_vocabulary=True)
    assert (one and (one.at, one.first, one.second)) == (
        other and (other.at, other.second, other.first)
    )


@given(st.lists(st.tuples(IDS, IDS), min_size=1, max_size=6))
def test_agreement_counts_equal_answers_and_stays_a_share(
    pairs: list[tuple[list[int], list[int]]],
) -> None:
    found = agreement([(answer(a), answer(b)) for a, b in pairs], same_vocabulary=True)
    assert found.same == sum(a == b for a, b in pairs)
    assert found.rate <= found.shared + 1e-9 <= 1 + 1e-6
    swapped = agreement([(answer(b), answer(a)) for a, b in pairs], same_vocabulary=True)
    assert swapped == found


@given(TEXTS, TEXTS)
def test_aligned_pieces_are_the_two_texts(left: str, right: str) -> None:
    pieces = aligned(left, right)
    assert "".join(a for _, a, _ in pieces) == left
    assert "".join(b for *_, b in pieces) == right
    assert all(same == (a == b) for same, a, b in pieces)


def test_a_text_with_itself_is_one_piece() -> None:
    assert aligned("two words", "two words") == [(True, "two words", "two words")]


def test_beyond_the_limit_only_the_beginning_is_compared() -> None:
    left, right = "a " * (LONGEST + 1), "a " * LONGEST + "b a"
    assert [same for same, *_ in aligned(left, right)] == [True, False]


def test_both_probabilities_of_both_tokens_are_told_where_they_are_known() -> None:
    def told(chosen: int, share: float, other: int, rest: float) -> Answer:
        logprobs = (math.log(share),)
        given = (Alternative(chosen, "x", math.log(share)), Alternative(other, "y", math.log(rest)))
        return answer_of("x", [Delta("x", (chosen,), logprobs, (given,))])

    parting = part(told(1, 0.6, 2, 0.3), told(2, 0.5, 1, 0.4), same_vocabulary=True)
    assert parting is not None
    assert parting.first is not None
    assert parting.second is not None
    assert parting.first.probability == pytest.approx(0.6)
    assert parting.second.probability == pytest.approx(0.5)
    assert parting.first_of_second == pytest.approx(0.3)
    assert parting.second_of_first == pytest.approx(0.4)


def test_what_comes_in_one_piece_belongs_to_its_last_token() -> None:
    found = answer_of("é!", [Delta("", (1,), (-1.0,)), Delta("é!", (2, 3), (-1.0, -2.0))])
    assert [token.text for token in found.tokens] == ["", "", "é!"]
    assert found.tokens[2].probability == pytest.approx(math.exp(-2.0))


def test_texts_of_different_vocabularies_name_the_tokens_that_hold_the_difference() -> None:
    one = answer_of("the cat", [Delta("the", (1,), (-0.1,)), Delta(" cat", (2,), (-0.2,))])
    other = answer_of("the cow", [Delta("the c", (7,), (-0.3,)), Delta("ow", (8,), (-0.4,))])
    parting = part(one, other, same_vocabulary=False)
    assert parting is not None
    assert (parting.by, parting.at) == ("text", 5)
    assert parting.first is not None
    assert parting.second is not None
    assert (parting.first.text, parting.second.text) == (" cat", "ow")


def test_without_ids_texts_are_compared() -> None:
    parting = part(Answer("ab"), Answer("ac"), same_vocabulary=True)
    assert parting is not None
    assert (parting.by, parting.at, parting.first) == ("text", 1, None)


def test_no_answers_have_no_agreement() -> None:
    with pytest.raises(ValueError, match="agreement of no answers"):
        agreement([], same_vocabulary=True)


@given(st.lists(st.integers()), st.lists(st.integers()))
def test_the_common_prefix_is_the_longest_one(left: list[int], right: list[int]) -> None:
    at = common_prefix(left, right)
    assert left[:at] == right[:at]
    assert at == len(left) or at == len(right) or left[at] != right[at]
