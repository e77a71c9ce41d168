"""Text from tokens: whole characters only, exact in sum, stop strings never shown."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

WORKER = Path(__file__).parents[1] / "workbench" / "worker"
sys.path.insert(0, str(WORKER))
from adapters.text import TextStream  # noqa: E402

sys.path.remove(str(WORKER))


def _byte_level() -> Tokenizer:
    """One token a byte: every multi-byte character is spread over tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _byte_fallback() -> Tokenizer:
    """As SentencePiece models have it: bytes as <0x..> tokens, spaces as a leading mark."""
    vocab = {f"<0x{n:02X}>": n for n in range(256)} | {"▁hello": 256, "▁world": 257, "▁": 258}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


TOKENIZERS = {"byte level": _byte_level(), "byte fallback": _byte_fallback()}


def _stream(name: str, ids: list[int], cuts: list[int], stop: tuple[str, ...] = ()) -> list[str]:
    stream = TextStream(TOKENIZERS[name], stop)
    deltas = []
    places = [0, *sorted({cut % (len(ids) + 1) for cut in cuts}), len(ids)]
    for begin, end in itertools.pairwise(places):
        deltas.append(stream.push(ids[begin:end]))
    return [*deltas, stream.end()]


CUTS = st.lists(st.integers(0, 60)) | st.just(list(range(61)))


@given(ids=st.lists(st.integers(0, 255), max_size=40), cuts=CUTS)
def test_the_deltas_are_the_whole_text_even_for_bytes_that_are_no_text(
    ids: list[int], cuts: list[int]
) -> None:
    assert "".join(_stream("byte level", ids, cuts)) == TOKENIZERS["byte level"].decode(ids)


PIECES = st.sampled_from([[256], [257], [258], *([*c.encode()] for c in "aé語🙂\n")])


@given(pieces=st.lists(PIECES, max_size=20), cuts=CUTS)
def test_the_deltas_are_the_whole_text_with_byte_fallback(
    pieces: list[list[int]], cuts: list[int]
) -> None:
    # A run of bytes that is no text as a whole is left out: there, what a finished decode gives
    # for the first bytes depends on the last, which no stream can know.
    ids = [number for piece in pieces for number in piece]
    assert "".join(_stream("byte fallback", ids, cuts)) == TOKENIZERS["byte fallback"].decode(ids)


@given(text=st.text(max_size=30), cuts=st.lists(st.integers(0, 200)) | st.just(list(range(200))))
def test_no_character_is_shown_broken(text: str, cuts: list[int]) -> None:
    text = text.replace("\ufffd", "").encode("utf-8", "ignore").decode()
    ids = TOKENIZERS["byte level"].encode(text).ids
    deltas = _stream("byte level", ids, cuts)
    assert "".join(deltas) == text
    assert not any("\ufffd" in delta for delta in deltas)


def test_leading_spaces_stay_where_they_are() -> None:
    assert _stream("byte fallback", [256, 257, 258, 256], [1, 2, 3]) == [
        "hello",
        " world",
        " ",
        " hello",
        "",
    ]


def test_a_text_goes_on_as_if_it_had_never_been_interrupted() -> None:
    tokenizer = TOKENIZERS["byte fallback"]
    ids = [256, 257, *"語".encode(), 258, 257, 256]
    for place in range(len(ids) + 1):
        before = TextStream(tokenizer)
        said = "".join(before.push([number]) for number in ids[:place])
        after = TextStream(tokenizer, said=ids[:place])
        went_on = "".join(after.push([number]) for number in ids[place:]) + after.end()
        assert said + went_on == tokenizer.decode(ids)


def test_a_token_is_called_what_it_would_add_at_its_place() -> None:
    first, later = (
        TextStream(TOKENIZERS["byte fallback"]),
        TextStream(TOKENIZERS["byte fallback"], said=[256]),
    )
    assert (first.name_of(257), later.name_of(257)) == ("world", " world")
    assert later.name_of("é".encode()[0]) == "\ufffd"
    assert later.push([257]) == " world"  # asking has changed nothing
    special = TextStream(_with_an_end())
    assert special.name_of(0) == "</s>"
    assert special.push([0]) == ""


def _with_an_end() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({"</s>": 0, "a": 1}, unk_token="a"))
    tokenizer.add_special_tokens(["</s>"])
    return tokenizer


@given(
    text=st.text("abc", max_size=30),
    stop=st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_nothing_of_a_stop_string_is_shown(text: str, stop: list[str]) -> None:
    ids = TOKENIZERS["byte level"].encode(text).ids
    places = [place for place in (text.find(s) for s in stop) if place >= 0]
    shown = "".join(_stream("byte level", ids, list(range(40)), tuple(stop)))
    # The earliest end decides when it stops, so the text before it may hold the beginning of
    # a stop string that would have ended later.
    first = (
        min((text.find(s) + len(s), text.find(s)) for s in stop if s in text)[1] if places else None
    )
    assert shown == (text if first is None else text[: _earliest(text, stop)])


def _earliest(text: str, stop: list[str]) -> int:
    """Where the text is cut when characters come one by one."""
    for end in range(1, len(text) + 1):
        found = [place for place in (text[:end].find(s) for s in stop) if place >= 0]
        if found:
            return min(found)
    return len(text)


def test_a_stop_string_across_tokens_ends_the_text() -> None:
    stream = TextStream(TOKENIZERS["byte level"], ("END",))
    ids = TOKENIZERS["byte level"].encode("one ENtwo END three").ids
    shown = "".join(stream.push([number]) for number in ids) + stream.end()
    assert shown == "one ENtwo "
    assert stream.stopped
