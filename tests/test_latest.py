"""What is kept of a model's results is told by the model itself, not by its place in memory."""

from __future__ import annotations

from collections.abc import Callable

from workbench.latest import KEPT, keep_latest


class Subject:
    """Something without a hash, as a model is."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, number: int) -> None:
        self.number = number


def _counted() -> tuple[list[int], Callable[..., int]]:
    calls: list[int] = []

    @keep_latest
    def work(subject: Subject, factor: int, *, more: int = 0) -> int:
        calls.append(subject.number)
        return subject.number * factor + more

    return calls, work


def test_the_same_question_is_answered_once() -> None:
    calls, work = _counted()
    subject = Subject(3)
    assert [work(subject, 2), work(subject, 2)] == [6, 6]
    assert calls == [3]


def test_other_values_and_other_subjects_are_other_questions() -> None:
    _, work = _counted()
    assert work(Subject(3), 2) == 6
    assert work(Subject(4), 2) == 8
    assert work(Subject(4), 5) == 20
    assert work(Subject(4), 5, more=1) == 21


def test_a_subject_that_is_gone_is_not_taken_for_a_new_one() -> None:
    _, work = _counted()
    # A new object may get the place of one that is gone, and with it its id.
    assert [work(Subject(n), 1) for n in range(20 * KEPT)] == list(range(20 * KEPT))
