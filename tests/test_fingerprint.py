"""Fingerprints: what they cover, what the cache knows, and files that change meanwhile."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import pytest

from workbench import digests as module
from workbench.digests import TICK
from workbench.errors import ModelError
from workbench.fingerprint import fingerprint, is_known

DECIDING = {
    "model.safetensors": b"weights" * 1000,
    "model.safetensors.index.json": b"{}",
    "config.json": b'{"a": 1}',
    "generation_config.json": b"{}",
    "tokenizer.json": b"{}",
    "tokenizer.model": b"pieces",
    "merges.txt": b"a b",
    "chat_template.jinja": b"{{ messages }}",
    "modeling_own.py": b"pass",
}
OTHERS = {
    "README.md": b"read me",
    ".gitattributes": b"*",
    "pytorch_model.bin": b"pickle",
    "consolidated.safetensors": b"a second copy",
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    for name, content in (DECIDING | OTHERS).items():
        (directory / name).write_bytes(content)
    (directory / "original").mkdir()
    return directory


@pytest.fixture
def settled(model: Path) -> Path:
    """The model, old enough to be remembered."""
    time.sleep(TICK * 1.2)
    return model


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_it_is_a_hash_of_the_content_and_of_nothing_else(model: Path, tmp_path: Path) -> None:
    first = fingerprint(model, None)
    assert len(first) == 64
    assert int(first, 16)
    model.rename(tmp_path / "elsewhere")
    for path in (tmp_path / "elsewhere").iterdir():
        os.utime(path, (1, 1))
    assert fingerprint(tmp_path / "elsewhere", None) == first


@pytest.mark.parametrize("name", DECIDING)
def test_every_deciding_file_counts(model: Path, name: str) -> None:
    first = fingerprint(model, None)
    (model / name).write_bytes(DECIDING[name] + b" ")
    changed = fingerprint(model, None)
    if name == "model.safetensors":
        (model / name).rename(model / "other.safetensors")
    else:
        (model / name).unlink()
    assert len({first, changed, fingerprint(model, None)}) == 3


@pytest.mark.parametrize("name", OTHERS)
def test_no_other_file_counts(model: Path, name: str) -> None:
    first = fingerprint(model, None)
    (model / name).write_bytes(b"changed")
    (model / "original" / "config.json").write_text("{}")
    assert fingerprint(model, None) == first


def test_content_moved_from_one_file_to_the_next_is_another_model(tmp_path: Path) -> None:
    for name, parts in {"a": (b"12", b"3"), "b": (b"1", b"23")}.items():
        (tmp_path / name).mkdir()
        for number, part in enumerate(parts):
            (tmp_path / name / f"{number}.safetensors").write_bytes(part)
    assert fingerprint(tmp_path / "a", None) != fingerprint(tmp_path / "b", None)


def test_links_as_in_the_cache_of_the_hub_are_their_targets(model: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in DECIDING:
        (linked / name).symlink_to(model / name)
    assert fingerprint(linked, None) == fingerprint(model, None)


def test_a_known_model_is_answered_without_reading(
    settled: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not is_known(settled, cache)
    first = fingerprint(settled, cache)
    assert is_known(settled, cache)
    monkeypatch.setattr(module, "_hash_file", None)
    assert fingerprint(settled, cache) == first


def test_only_what_changed_is_read_again(settled: Path, cache: Path) -> None:
    fingerprint(settled, cache)
    (settled / "config.json").write_bytes(b'{"a": 2}')
    assert not is_known(settled, cache)
    seen: list[tuple[int, int]] = []
    again = fingerprint(settled, cache, lambda done, total: seen.append((done, total)))
    assert seen == [(8, 8)]
    assert again == fingerprint(settled, None)


def test_same_size_and_restored_date_are_noticed(settled: Path, cache: Path) -> None:
    path = settled / "model.safetensors"
    before = path.stat()
    first = fingerprint(settled, cache)
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert fingerprint(settled, cache) != first


def test_a_file_that_has_just_changed_is_not_remembered(model: Path, cache: Path) -> None:
    """Within one tick of the file system's clock a second change would look like none."""
    time.sleep(TICK * 1.2)
    (model / "config.json").write_bytes(b"{}")
    fingerprint(model, cache)
    assert not is_known(model, cache)
    time.sleep(TICK * 1.2)
    fingerprint(model, cache)
    assert is_known(model, cache)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"config.json": 5}', "\x00\xff"])
def test_a_damaged_cache_is_a_miss(settled: Path, cache: Path, content: str) -> None:
    first = fingerprint(settled, cache)
    [record] = cache.iterdir()
    record.write_text(content, encoding="utf-8")
    assert not is_known(settled, cache)
    assert fingerprint(settled, cache) == first
    assert is_known(settled, cache)


def test_a_cache_that_cannot_be_written_costs_only_time(settled: Path, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no directory")
    assert fingerprint(settled, blocked / "cache") == fingerprint(settled, None)


def test_the_cache_holds_whole_records_under_concurrent_writers(settled: Path, cache: Path) -> None:
    found: set[str] = set()
    threads = [
        threading.Thread(target=lambda: found.add(fingerprint(settled, cache))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    [record] = cache.iterdir()
    assert set(json.loads(record.read_text())) == set(DECIDING)


def test_progress_counts_every_byte_once(model: Path) -> None:
    seen: list[tuple[int, int]] = []
    fingerprint(model, None, lambda done, total: seen.append((done, total)))
    size = sum(len(content) for content in DECIDING.values())
    assert seen[-1] == (size, size)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_file_that_changes_while_it_is_read_is_refused(model: Path, cache: Path) -> None:
    def meddle(_done: int, _total: int) -> None:
        with (model / "model.safetensors").open("ab") as file:
            file.write(b"more")
            file.flush()

    with pytest.raises(ModelError, match=r"model\.safetensors changed while it was read"):
        fingerprint(model, cache, meddle)
    assert not cache.exists()


def test_without_weights_there_is_nothing_to_fingerprint(model: Path) -> None:
    (model / "model.safetensors").unlink()
    (model / "consolidated.safetensors").unlink()
    for call in (fingerprint, is_known):
        with pytest.raises(ModelError, match="has no safetensors file"):
            call(model, None)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    for call in (fingerprint, is_known):
        with pytest.raises(ModelError, match="There is no directory"):
            call(tmp_path / "nothing", None)
