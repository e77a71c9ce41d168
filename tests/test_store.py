"""What stands in the store is what was published, or a miss with its reason."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import stock
from tests.faults import Faulty, job_of, until
from tests.stock import make
from workbench import digests, files, store
from workbench.backends import make_spec
from workbench.build import start_build
from workbench.engine import Engine, Identity, key_of, read_engine
from workbench.errors import StoreError
from workbench.explanations import covering as covering_among
from workbench.explanations import covers_sentence
from workbench.offers import covering
from workbench.opening import open_engine


def flip(path: Path) -> None:
    """Change one byte, and nothing that a listing shows."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size


def settle(engine: Engine) -> None:
    """Let so much time pass that a change of the files shows in their times."""
    until(lambda: not _is_fresh(engine))
    assert engine.damage() == ""


def _is_fresh(engine: Engine) -> bool:
    paths = [engine.path / name for name in engine.manifest["files"]]
    return any(digests.FileIdentity.of(path).is_fresh() for path in paths)


# --- damage


def test_one_byte_is_found_before_the_engine_is_loaded_and_it_is_built_once_more(
    faulty: Faulty,
) -> None:
    engine = stock.stock(faulty)
    settle(engine)
    flip(engine.path / "engine.bin")
    words = "content of engine.bin is not what was published. It was set aside as .* Build it again"
    with pytest.raises(StoreError, match=words):
        open_engine(engine)
    assert faulty.processes() == []
    assert store.list_engines() == []
    (aside,) = store.list_damaged()
    assert read_engine(aside, any_name=True).manifest == engine.manifest  # type: ignore[union-attr]
    build = faulty.start()
    assert job_of(build)
    assert build.wait().damage(thorough=True) == ""
    assert faulty.start().hit
    assert store.list_damaged() == [aside]


def _truncate(path: Path) -> None:
    os.truncate(path, 10)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (flip, "the content of engine.bin is not"),
        (_truncate, "engine.bin has 10 bytes instead of 4096"),
        (_empty, "engine.bin has 0 bytes"),
        (Path.unlink, "engine.bin is missing"),
        (_folder, "engine.bin is no file"),
        (_fifo, "engine.bin is no file"),
    ],
)
def test_damage_is_a_miss_with_its_reason(
    home: Path, harm: Callable[[Path], None], words: str
) -> None:
    engine = make()
    settle(engine)
    harm(engine.path / "engine.bin")
    assert words in engine.damage()
    found, why = store.look_up(_identity(engine))
    assert found is None
    assert words in why
    # A build of it takes its place.
    assert make().damage(thorough=True) == ""
    assert len(store.list_damaged()) == 1


def _identity(engine: Engine) -> Identity:
    record = engine.manifest["identity"]
    return Identity(record["spec"], record["weights"], record["toolchain"], record["device"])


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"format": 1}', '{"format": 99}', "\x00\xff", "[" * 100_000],
    ids=["empty", "torn", "list", "bare", "later", "binary", "deep"],
)
def test_a_manifest_that_is_none_is_a_miss_with_its_reason(home: Path, text: str) -> None:
    engine = make()
    (engine.path / "manifest.json").write_text(text)
    found, why = store.look_up(_identity(engine))
    assert found is None
    assert "its manifest.json cannot be read" in why
    assert make().damage() == ""
    assert len(store.list_damaged()) == 1


@pytest.mark.parametrize("name", ["created", "limits", "model", "files", "identity"])
def test_a_manifest_without_one_of_its_parts_is_none(home: Path, name: str) -> None:
    engine = make()
    for value in (None, 3.5 if name != "created" else "today", [1]):
        damaged = {**engine.manifest, name: value}
        (engine.path / "manifest.json").write_text(json.dumps(damaged))
        assert store.list_engines() == []


def test_what_the_manifest_says_of_the_engine_is_sound_too(home: Path) -> None:
    engine = make()
    text = (engine.path / "manifest.json").read_text()
    (engine.path / "manifest.json").write_text(text.replace('"name": "made"', '"name": "mado"'))
    (found,) = store.list_engines()
    assert found.damage() == "the content of manifest.json is not what was published"
    # An engine of a version that kept no checksum of the manifest is taken as it is.
    old = {name: value for name, value in engine.manifest.items() if name != "checksum"}
    files.write_json(engine.path / "manifest.json", old)
    assert store.sound_engine(engine.key).damage(thorough=True) == ""


def test_swapped_engines_are_no_engines(home: Path, tmp_path: Path) -> None:
    first, second = make(1), make(2)
    first.path.rename(tmp_path / "between")
    second.path.rename(first.path)
    (tmp_path / "between").rename(second.path)
    assert store.list_engines() == []
    found, why = store.look_up(_identity(first))
    assert found is None
    assert "that of another engine" in why
    with pytest.raises(StoreError, match="There is no engine"):
        store.sound_engine(first.key)


def test_swapped_files_are_found(home: Path, tmp_path: Path) -> None:
    first, second = make(1), make(2)
    settle(first)
    settle(second)
    one, other = first.path / "engine.bin", second.path / "engine.bin"
    one.rename(tmp_path / "between")
    other.rename(one)
    (tmp_path / "between").rename(other)
    assert (
        first.damage() == second.damage() == "the content of engine.bin is not what was published"
    )


def test_the_key_is_the_hash_of_the_identity(home: Path) -> None:
    engine = make()
    assert engine.key == _identity(engine).key == key_of(engine.manifest["identity"])


# --- reading


class Reads:
    """Counts the files whose content is hashed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        original = digests._hash_file

        def counted(path: Path, *rest: object) -> str:
            self.names.append(path.name)
            return original(path, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(digests, "_hash_file", counted)


def test_a_file_that_is_known_is_not_read_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make()
    reads = Reads(monkeypatch)
    assert engine.damage() == ""
    assert reads.names == []
    assert engine.damage(thorough=True) == ""
    assert sorted(reads.names) == ["engine.bin", "words.json"]
    reads.names.clear()
    settle(engine)
    (engine.path / "words.json").touch()
    until(lambda: not _is_fresh(engine))
    assert engine.damage() == ""
    assert reads.names == ["words.json"]
    assert engine.damage() == ""
    assert reads.names == ["words.json"]


def test_thorough_finds_what_a_disk_lost_by_itself(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make()
    settle(engine)
    flip(engine.path / "engine.bin")
    # No program touched it: as far as the system knows it is the file that it was.
    digests.remember(engine.path, digests.cache_folder(), _digests(engine))
    assert engine.damage() == ""
    seen: list[tuple[int, int]] = []
    words = "the content of engine.bin is not what was published"
    assert engine.damage(thorough=True, progress=lambda *now: seen.append(now)) == words
    assert seen[-1] == (engine.bytes, engine.bytes)
    # And from then on it is known.
    assert engine.damage() == words


def _digests(engine: Engine) -> dict[str, str]:
    return {name: entry["sha256"] for name, entry in engine.manifest["files"].items()}


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE])
def test_what_the_system_cannot_read_just_now_is_not_damaged(
    home: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    engine = make()

    def refuse(*_: object) -> str:
        raise OSError(number, os.strerror(number), "engine.bin")

    monkeypatch.setattr(digests, "_hash_file", refuse)
    with monkeypatch.context() as patch:
        patch.setattr(digests, "_known", lambda *_: {})
        with pytest.raises(StoreError, match=r"cannot be read just now \(engine\.bin: "):
            store.sound_engine(engine.key)
    assert store.sound_engine(engine.key).key == engine.key
    assert store.list_damaged() == []


def test_a_medium_that_fails_is_damage(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make()

    def refuse(*_: object) -> str:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(digests, "_hash_file", refuse)
    assert engine.damage(thorough=True) == "a file cannot be read: Input/output error"


# --- set aside and publish, by two at once


def test_two_who_set_the_same_engine_aside_do_it_once(home: Path) -> None:
    engine = make()
    flip(engine.path / "engine.bin")
    assert "It was set aside as" in store.set_aside(engine, "played")
    assert store.set_aside(engine, "played") == f"The engine {engine.key} is damaged: played."
    assert len(store.list_damaged()) == 1


def test_who_sets_aside_too_late_puts_the_new_engine_back(home: Path) -> None:
    stale = make()
    flip(stale.path / "engine.bin")
    assert store.set_aside(stale, "played")
    again = make()
    told = f"The engine {stale.key} is damaged: played. It was built again meanwhile."
    assert store.set_aside(stale, "played") == told
    assert store.sound_engine(again.key).manifest == again.manifest
    assert len(store.list_damaged()) == 1


def test_the_second_to_publish_gets_the_first_ones_engine(home: Path) -> None:
    first = make()
    second = make()
    assert second.manifest == first.manifest
    assert [path.name for path in store.folder().iterdir()] == [first.key]


@pytest.mark.parametrize("what", ["file", "dangling link", "folder"])
def test_what_is_in_the_way_is_moved_aside_when_an_engine_is_published(
    home: Path, tmp_path: Path, what: str
) -> None:
    engine = make()
    shutil.rmtree(engine.path)
    if what == "file":
        engine.path.write_text("mine")
    elif what == "folder":
        engine.path.mkdir()
        (engine.path / "mine").touch()
    else:
        engine.path.symlink_to(tmp_path / "nowhere")
    assert make().damage(thorough=True) == ""
    assert len(list(store.folder().iterdir())) == 2


def test_a_manifest_of_the_workers_own_is_none(home: Path) -> None:
    temporary = files.temporary_name(store.folder(), "made")
    stock.write_files(temporary, 0, 100)
    (temporary / "manifest.json").write_text("{}")
    identity = Identity({"backend": "fault"}, "weights", {})
    engine = store.publish(temporary, identity, {"model": {"name": "m"}, "limits": {}})
    assert set(engine.manifest["files"]) == {"engine.bin", "words.json"}


# --- what covers what is asked

SHAPES = {
    "max_batch_size": 8, "max_input_len": None, "max_output_len": None, "max_seq_len": 1024,
    "max_num_tokens": 2048, "max_beam_width": 1,
}  # fmt: skip


def _like_tensorrt_llm(key: str = "", **values: object) -> Engine:
    """An engine as TensorRT-LLM has it: its shapes are in its identity and in its limits."""
    spec = {"backend": "tensorrt_llm", "dtype": "bfloat16", **SHAPES, **values}
    weights = str(spec.pop("weights", "w"))
    toolchain = {"tensorrt_llm": str(spec.pop("version", "1.2.1"))}
    device = {"name": str(spec.pop("gpu", "H100"))}
    limits = {name: spec[name] for name in SHAPES if spec[name] is not None}
    identity = Identity(spec, weights, toolchain, device)
    manifest = {"identity": identity.record(), "limits": limits, "files": {}, "created": 0.0}
    return Engine(Path(key or identity.key), manifest)


def _offered(*engines: Engine, **asked: object) -> list[Engine]:
    identity = _identity(_like_tensorrt_llm(**asked))
    return covering_among(identity, {**SHAPES, **asked}, engines)  # type: ignore[dict-item]


@pytest.mark.parametrize(
    "larger",
    [
        {"max_batch_size": 9},
        {"max_seq_len": 8192},
        {"max_batch_size": 64, "max_seq_len": 8192, "max_num_tokens": 8192, "max_beam_width": 4},
        {"max_input_len": 7},
        {"max_output_len": 1},
    ],
)
def test_equal_and_larger_shapes_cover(larger: dict) -> None:
    engine = _like_tensorrt_llm(**larger)
    assert _offered(engine) == [engine]


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"max_batch_size": 7},
        {"max_batch_size": 64, "max_num_tokens": 2047},
        {"max_batch_size": 64, "dtype": "float16"},
        {"max_batch_size": 64, "weights": "others"},
        {"max_batch_size": 64, "version": "1.2.0"},
        {"max_batch_size": 64, "gpu": "A100"},
        {"max_batch_size": 64, "new_option": True},
        {"max_batch_size": None},
    ],
)
def test_a_smaller_shape_or_any_other_difference_does_not_cover(other: dict) -> None:
    # The same engine (no difference) is a hit, and needs no offer.
    assert _offered(_like_tensorrt_llm(**other)) == []


def test_the_smallest_that_covers_comes_first() -> None:
    engines = [
        _like_tensorrt_llm(max_batch_size=64),
        _like_tensorrt_llm(max_batch_size=16, max_seq_len=4096),
        _like_tensorrt_llm(max_batch_size=16, max_seq_len=2048),
        _like_tensorrt_llm(max_batch_size=4),
    ]
    assert _offered(*engines) == [engines[2], engines[1], engines[0]]


def test_the_sentence_says_what_is_larger() -> None:
    engine = _like_tensorrt_llm("k", max_batch_size=64, max_seq_len=8192)
    assert covers_sentence(engine, SHAPES) == (
        "The engine k was built for max_batch_size 64, max_seq_len 8192: it covers your 8, 1024."
    )
    engine = _like_tensorrt_llm("k", max_output_len=1)
    assert covers_sentence(engine, SHAPES) == ("The engine k has the very limits that you ask for.")


def test_an_engine_that_covers_is_offered_taken_and_opened(
    gpu_machine: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in gpu_machine.items():
        monkeypatch.setenv(name, value)
    spec = {
        "backend": "tensorrt_llm", "max_batch_size": 8, "max_seq_len": 512, "max_num_tokens": 2048,
    }  # fmt: skip
    large = start_build(spec).wait()
    asked = {**spec, "max_batch_size": 4, "kv_cache_free_gpu_memory_fraction": 0.5}
    ((offer, sentence),) = covering(make_spec(asked))
    assert offer.key == large.key
    assert sentence.endswith("was built for max_batch_size 8: it covers your 4.")
    assert covering(make_spec({**spec, "max_batch_size": 9})) == []
    assert covering(make_spec(spec)) == []  # the engine itself is there
    build = start_build(asked, accept_covering=True)
    assert build.hit is not None
    assert build.explanation == sentence
    assert build.wait().limits["max_batch_size"] == 8
    # What only counts when it is loaded is as asked.
    assert build.wait().limits["kv_cache_free_gpu_memory_fraction"] == 0.5
    with open_engine(build) as session:
        assert session.generate([5], max_tokens=2, ignore_eos=True).wait().token_ids
    # One that is damaged is not taken.
    os.truncate(next(large.path.glob("rank*.engine")), 1)
    build = start_build(asked, accept_covering=True)
    assert build.hit is None
    build.cancel()
