"""Quality: arithmetic by hand, and an int4 engine against the one that it was made from."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import take
from workbench.backends import make_spec
from workbench.bench import run_trial
from workbench.engine import Engine
from workbench.errors import InputError, RequestError, SpecError
from workbench.generation import Alternative
from workbench.quality import (
    PROMPTS,
    Quality,
    agreement,
    ask_reference,
    compare,
    encoder,
    perplexity,
    prompts_of,
)
from workbench.scores import Score
from workbench.trial import point_of
from workbench.trial_words import trial_lines
from workbench.workload import Workload

WORKLOAD = {"input_len": 4, "output_len": 4, "requests": 2, "warmup": 0}


def test_agreement_counts_places_answers_and_the_first_difference() -> None:
    found = agreement([[1, 2, 3, 4], [5, 6], [7]], [[1, 2, 9, 4], [5, 6], [7, 8, 9]])
    # 3 of 4, 2 of 2, and 1 of the 3 that the longer answer has.
    assert found["token_match"] == pytest.approx((3 + 2 + 1) / (4 + 2 + 3))
    assert found["exact"] == pytest.approx(1 / 3)
    assert found["first_difference"] == pytest.approx((2 + 2 + 1) / 3)
    assert agreement([[]], [[]])["token_match"] == 1.0


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("quantization=none", {"backend": "openvino", "quantization": "none", "group_size": 32}),
        ("quantization=fp16, threads=2", {"quantization": "fp16", "threads": 2}),
        ("threads=none", {"threads": None}),
        ("backend=transformers", {"backend": "transformers", "model": "demo"}),
    ],
)
def test_the_reference_is_the_spec_with_changes(reference: str, expected: dict[str, Any]) -> None:
    spec = make_spec(quantization="int4", group_size=32)
    values = Quality(reference=reference).reference_of(spec)
    assert expected.items() <= values.items()
    make_spec(values)
    assert ("group_size" in values) == (values["backend"] == "openvino")


def test_a_reference_that_is_none_is_a_sentence() -> None:
    spec = make_spec()
    with pytest.raises(SpecError, match="a change is NAME=VALUE"):
        Quality(reference="none").reference_of(spec)
    with pytest.raises(SpecError, match="Did you mean 'quantization'"):
        Quality(reference="quantisation=none").reference_of(spec)


class _Uniform:
    """Finds each of `size` tokens as probable as the others."""

    def __init__(self, size: int) -> None:
        self.limits = {"max_seq_len": 4}
        self.asked: list[tuple[int, ...]] = []
        self._size = size

    def score(self, ids: list[int], *, top: int, start: int = 1) -> list[Score]:
        assert top == 1
        self.asked.append(tuple(ids))
        return [Score(Alternative(i, "", -math.log(self._size)), ()) for i in ids[start:]]


def test_perplexity_of_even_chances_is_their_number_in_windows_that_fit() -> None:
    session = _Uniform(50)
    assert perplexity(session, list(range(9))) == pytest.approx(50)
    assert session.asked == [(0, 1, 2, 3), (4, 5, 6, 7)]
    with pytest.raises(InputError, match="less than two tokens"):
        perplexity(session, [1])


def test_prompts_are_texts_where_nobody_can_encode_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prompts_of(Quality(), None) == list(PROMPTS)
    assert prompts_of(Quality(), lambda text: [len(text)])[0] == [len(PROMPTS[0])]
    path = tmp_path / "own.txt"
    path.write_text("one\ntwo\n")
    assert prompts_of(Quality(quality_prompts=str(path)), None) == ["one", "two"]
    assert encoder([tmp_path]) is None
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert encoder([tmp_path]) is None


def test_an_engine_is_compared_with_its_reference(
    stocked: Engine, int4_engine: Engine, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("latency is the time between a question and its answer. " * 8)
    spec = {
        **stocked.manifest["identity"]["spec"],
        **{n: stocked.limits[n] for n in ("max_input_len", "max_output_len", "threads")},
    }
    wanted = {"reference": "quantization=none", "quality_text": str(text), "quality_len": 12}
    same = run_trial(spec, WORKLOAD, wanted).require().record["quality"]
    assert same["reference"] == stocked.key
    assert (same["token_match"], same["exact"], same["prompts"]) == (1.0, 1.0, len(PROMPTS))
    assert same["mean_kl"] == pytest.approx(0, abs=1e-3)
    assert 1 < same["perplexity"] < 1e5
    assert same["lacks"] == []
    int4 = {**spec, "quantization": "int4", "group_size": 64}
    key = take(int4_engine).key
    other = run_trial(int4, WORKLOAD, wanted).require()
    assert other.record["engine"]["key"] == key
    assert other.record["quality"]["token_match"] < 1
    assert other.record["quality"]["mean_kl"] > same["mean_kl"] + 1e-3
    # It is another point than the same workload without a reference.
    assert point_of(make_spec(int4), Workload.parse(WORKLOAD)) != other.point


def test_what_an_engine_cannot_score_is_told(
    stocked: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(*_: object, **__: object) -> None:
        raise RequestError("This backend cannot score a text.")

    monkeypatch.setattr("workbench.session.Session.score", cannot)
    spec = {**stocked.manifest["identity"]["spec"], "max_input_len": 64, "max_output_len": 64}
    trial = run_trial(
        spec, WORKLOAD, {"reference": "quantization=none", "quality_len": 4}
    ).require()
    assert trial.record["quality"]["mean_kl"] is None
    why = "no mean KL: the reference gave no scores: This backend cannot score a text."
    assert trial.record["quality"]["lacks"] == [why]
    assert trial.record["quality"]["token_match"] == 1.0
    assert f"Quality  {why}" in trial_lines(trial)


class _Played(_Uniform):
    """Answers with the same ids, and scores them unless it has a reason not to."""

    def __init__(self, *answer: int, refuses: str = "") -> None:
        super().__init__(50)
        self._answer, self._refuses = answer, refuses

    def generate(self, *_: Any) -> SimpleNamespace:
        return SimpleNamespace(wait=lambda: SimpleNamespace(token_ids=self._answer))

    def score(self, ids: list[int], *, top: int, start: int = 1) -> list[Score]:
        if self._refuses:
            raise RequestError(self._refuses)
        return super().score(ids, top=top, start=start)


IDS = [[1, 2], [3]]


@pytest.mark.parametrize(
    ("reference", "engine", "prompts", "why"),
    [
        (_Played(7), _Played(7, refuses="It is full."), IDS, "It is full."),
        (_Played(7, refuses="No."), _Played(7), IDS, "the reference gave no scores: No."),
        (_Played(7), _Played(7), ["text"], "the prompts are no token ids: that needs a backend"),
        (_Played(), _Played(7), IDS, "the reference answered with no token at all."),
    ],
)
def test_why_there_is_no_mean_kl_is_recorded(
    reference: _Played, engine: _Played, prompts: list[Any], why: str
) -> None:
    told = json.loads(json.dumps(ask_reference(reference, prompts, 1)))
    found = compare(engine, told, prompts, 1)
    assert found["mean_kl"] is None
    (lack,) = found["lacks"]
    assert lack.startswith(f"no mean KL: {why}")


def test_answers_that_an_earlier_version_kept_are_compared_all_the_same() -> None:
    found = compare(_Played(7), {"answers": [[7], [7]], "sampled": None}, IDS, 1)
    assert found["token_match"] == 1
    assert found["lacks"][0].startswith("no mean KL: that needs a backend")


def test_yardsticks_are_the_same_for_the_same_answers_texts_and_lengths() -> None:
    told = ask_reference(_Played(7), IDS, 1)
    first = compare(_Played(7), told, IDS, 1)
    assert first["lacks"] == []
    assert first["mean_kl"] == 0
    second = compare(_Played(9), told, IDS, 1)
    other = compare(_Played(9), ask_reference(_Played(8), IDS, 1), IDS, 1)
    for name in ("answers_digest", "texts_digest"):
        assert first[name] == second[name] != other[name]
    assert compare(_Played(7), told, IDS, 2)["answers_digest"] != first["answers_digest"]
