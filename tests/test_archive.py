"""Archives: an engine travels in one file, and a file from anybody can do no harm."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import open_session
from workbench import archive, eviction, files, store
from workbench.archive import export_engine, import_engine
from workbench.engine import Engine, Identity
from workbench.errors import StoreError
from workbench.eviction import evict
from workbench.sampling import Sampling

CONTENTS = {"model.bin": bytes(range(256)) * 7, "empty": b"", "tokenizer/tokenizer.json": b"{}"}


def publish(contents: dict[str, bytes] = CONTENTS, **spec: Any) -> Engine:
    """Publish an engine of a few bytes."""
    temporary = files.temporary_name(store.folder(), "made")
    for name, content in contents.items():
        (temporary / name).parent.mkdir(parents=True, exist_ok=True)
        (temporary / name).write_bytes(content)
    identity = Identity({"backend": "openvino", **spec}, "weights", {"openvino": "1"})
    details = {
        "model": {"name": "made", "parameters": 1000},
        "limits": {},
        "facts": {},
        "build": {"stages": [{"name": "trace", "seconds": 1.5}], "smoke": {"ran": False}},
    }
    return store.publish(temporary, identity, details)


@pytest.fixture
def exported(tmp_path: Path, home: Path) -> Path:
    """The archive of an engine that is not in the store any more."""
    engine = publish()
    path = tmp_path / "engine.tar"
    export_engine(engine, path)
    shutil.rmtree(engine.path)
    return path


def entries(path: Path) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(path) as tar:
        return [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]


def write(path: Path, members: list[tuple[tarfile.TarInfo, bytes]], **options: Any) -> None:
    with tarfile.open(path, "w", **options) as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))


def with_manifest(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Write an archive again, with another manifest, and no checksum over that."""
    members = entries(path)
    manifest = json.loads(members[0][1])
    change(manifest)
    manifest.pop("checksum", None)
    data = json.dumps(manifest).encode()
    members[0][0].size = len(data)
    write(path, [(members[0][0], data), *members[1:]])


def refuses(path: Path, *words: str) -> None:
    """Import refuses an archive, and nothing of it is left or visible."""
    with pytest.raises(StoreError) as caught:
        import_engine(path)
    for word in words:
        assert word in str(caught.value)
    assert list(store.folder().iterdir()) == []


def test_an_engine_travels_and_runs_as_before(
    demo_engine: Engine, home: Path, tmp_path: Path
) -> None:
    path = tmp_path / "engine.tar"
    export_engine(demo_engine, path)
    engine, new = import_engine(path)
    assert new
    assert engine.path.is_relative_to(home)
    assert engine.manifest == demo_engine.manifest
    texts = []
    for one in (demo_engine, engine):
        with open_session(one) as session:
            texts.append(session.generate("the", Sampling(max_tokens=8)).wait().text)
    assert texts[0] == texts[1] != ""


def test_the_same_engine_gives_the_same_bytes_here_and_after_a_journey(
    exported: Path, tmp_path: Path
) -> None:
    engine, _ = import_engine(exported)
    os.utime(engine.path / "model.bin", (1, 1))
    export_engine(engine, tmp_path / "again.tar")
    assert (tmp_path / "again.tar").read_bytes() == exported.read_bytes()


def test_other_tools_read_an_archive(exported: Path) -> None:
    listing = subprocess.run(
        ["tar", "--list", "--verbose", "--numeric-owner", "--utc", "--file", str(exported)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert listing.stderr == ""
    assert [line.split()[-1].partition("/")[2] for line in listing.stdout.splitlines()] == [
        "manifest.json",
        *sorted(CONTENTS),
    ]
    assert all(
        "-rw------- 0/0" in line and "1970-01-01" in line for line in listing.stdout.splitlines()
    )


def test_an_engine_that_is_being_exported_is_not_removed(tmp_path: Path) -> None:
    engine = publish()
    refused = []

    def progress(_done: int, _total: int) -> None:
        with pytest.raises(StoreError, match="uses it") as caught:
            evict(engine.key)
        refused.append(caught)

    export_engine(engine, tmp_path / "engine.tar", progress=progress)
    assert refused
    assert evict(engine.key) == engine.bytes


def test_an_engine_that_was_removed_before_is_not_called_damaged(tmp_path: Path) -> None:
    engine = publish()
    evict(engine.key)
    with pytest.raises(StoreError, match="was removed by somebody else"):
        export_engine(engine, tmp_path / "engine.tar")
    assert not (tmp_path / "engine.tar").exists()


def test_an_import_keeps_the_store_in_its_budget(exported: Path) -> None:
    old = publish({"model.bin": b"older"}, seed=1)
    size = old.bytes + sum(len(content) for content in CONTENTS.values()) - 1
    eviction.set_budget(size)
    told: list[str] = []
    engine, _ = import_engine(exported, tell=told.append)
    assert [found.key for found in store.list_engines()] == [engine.key]
    assert len(told) == 1
    assert told[0].startswith(f"Removed the engine {old.key}")


def test_an_import_that_is_larger_than_the_budget_removes_nothing(exported: Path) -> None:
    old = publish({"model.bin": b"older"}, seed=1)
    eviction.set_budget(10)
    told: list[str] = []
    engine, _ = import_engine(exported, tell=told.append)
    assert {found.key for found in store.list_engines()} == {old.key, engine.key}
    assert "nothing was removed for it" in told[0]


def test_a_file_is_not_overwritten_unless_asked(tmp_path: Path) -> None:
    engine = publish()
    path = tmp_path / "engine.tar"
    path.write_text("mine")
    with pytest.raises(StoreError, match="exists"):
        export_engine(engine, path)
    assert path.read_text() == "mine"
    export_engine(engine, path, overwrite=True)
    assert path.read_bytes().startswith(engine.key.encode())
    assert {entry.name for entry in tmp_path.iterdir()} == {"home", "engine.tar"}


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    engine = publish()
    path = tmp_path / "engine.tar"
    with pytest.raises(StoreError, match="exists"):
        export_engine(engine, path, progress=lambda *_: path.write_text("mine") and None)
    assert path.read_text() == "mine"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (flip, "the content of model.bin is not what was published"),
        (Path.unlink, "model.bin is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "model.bin ends 1 bytes too early"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "content of model.bin"),
        (lambda path: (path.parent / "manifest.json").write_text("{"), "not valid JSON"),
    ],
    ids=["flipped", "missing", "short", "long", "manifest"],
)
def test_a_damaged_engine_is_not_exported(
    tmp_path: Path, damage: Callable[[Path], object], words: str
) -> None:
    engine = publish()
    damage(engine.path / "model.bin")
    with pytest.raises(StoreError, match=words):
        export_engine(engine, tmp_path / "engine.tar")
    assert [entry.name for entry in tmp_path.iterdir()] == ["home"]


def test_an_export_that_the_disk_refuses_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"not exported to .*: No such file or directory"):
        export_engine(publish(), tmp_path / "nowhere" / "engine.tar")


def test_importing_what_is_there_changes_nothing(exported: Path) -> None:
    engine, new = import_engine(exported)
    assert new
    before = {path: path.stat().st_mtime_ns for path in engine.path.rglob("*")}
    again, new = import_engine(exported)
    assert not new
    assert again.key == engine.key
    assert {path: path.stat().st_mtime_ns for path in engine.path.rglob("*")} == before


def test_an_import_takes_the_place_of_a_damaged_engine(exported: Path) -> None:
    engine, _ = import_engine(exported)
    flip(engine.path / "model.bin")
    again, new = import_engine(exported)
    assert new
    assert again.damage(thorough=True) == ""
    assert [found.key for found in store.list_engines()] == [engine.key]
    assert [path.name.split("-")[1] for path in store.list_damaged()] == [engine.key]


def test_progress_is_told_in_bytes(exported: Path, tmp_path: Path) -> None:
    total = sum(map(len, CONTENTS.values()))
    told: list[tuple[int, int]] = []
    engine, _ = import_engine(exported, progress=lambda *pair: told.append(pair))
    assert told[-1] == (total, total)
    told.clear()
    export_engine(engine, tmp_path / "b.tar", progress=lambda *pair: told.append(pair))
    assert told[-1] == (total, total)


def test_nothing_is_visible_until_all_of_it_is_there(exported: Path) -> None:
    seen: list[int] = []
    import_engine(exported, progress=lambda *_: seen.append(len(store.list_engines())))
    assert seen
    assert set(seen) == {0}


def test_an_import_is_private_whatever_the_umask(exported: Path) -> None:
    before = os.umask(0)
    try:
        engine, _ = import_engine(exported)
    finally:
        os.umask(before)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in [engine.path, *engine.path.rglob("*")]}
    assert modes == {0o700, 0o600}
    assert stat.S_IMODE(exported.stat().st_mode) == 0o600


def test_an_archive_may_end_nowhere_but_at_its_end(exported: Path) -> None:
    whole = exported.read_bytes()
    for length in (0, 1, 511, 512, 700, *range(1024, len(whole), 512), len(whole) - 1):
        exported.write_bytes(whole[:length])
        refuses(exported, "Nothing was imported")


def test_a_flipped_byte_is_found_wherever_it_is(exported: Path) -> None:
    whole = exported.read_bytes()
    # Headers, manifest, contents, padding and the end.
    for place in range(0, len(whole), 29):
        exported.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            engine, _ = import_engine(exported)
        except StoreError:
            assert list(store.folder().iterdir()) == []
            continue
        # The very word "checksum": a manifest without one is taken as one of an early version.
        assert engine.damage(thorough=True) == ""
        shutil.rmtree(engine.path)


def member(name: str, data: bytes = b"evil", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


HOSTILE = {
    "absolute": member("/tmp/workbench-evil"),
    "parent": member("../evil"),
    "parent inside": member("KEY/../../evil"),
    "not in the manifest": member("KEY/run.py"),
    "elsewhere": member("other/model.bin"),
    "duplicate": member("KEY/tokenizer/tokenizer.json", b"[]"),
    "symbolic link": member("KEY/empty", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "hard link": member("KEY/empty", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd"),
    "device": member("KEY/empty", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
    "fifo": member("KEY/empty", b"", type=tarfile.FIFOTYPE),
    "folder": member("KEY/empty", b"", type=tarfile.DIRTYPE),
    "sparse": member("KEY/empty", b"", type=tarfile.GNUTYPE_SPARSE),
    "long name": member("KEY/" + "n" * 200),
    "larger": member("KEY/model.bin", b"x" * 5000),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("layout", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_member_that_does_not_belong_is_refused(exported: Path, name: str, layout: int) -> None:
    members = entries(exported)
    key = members[0][0].name.partition("/")[0]
    info, data = HOSTILE[name]
    evil = info.replace(name=info.name.replace("KEY", key))
    for place in (0, 1, 2, len(members)):
        write(exported, [*members[:place], (evil, data), *members[place:]], format=layout)
        refuses(exported, "Nothing was imported")
    # In place of the one of that name.
    others = [(one, content) for one, content in members if one.name != evil.name]
    write(exported, [*others[:1], (evil, data), *others[1:]], format=layout)
    refuses(exported, "Nothing was imported")
    assert not Path("/tmp/workbench-evil").exists()


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/../../x",
        "/x",
        "a//b",
        "./x",
        "x/",
        "a\0b",
        "a\nb",
        "manifest.json",
    ],
)
def test_a_manifest_cannot_name_a_place_outside(exported: Path, name: str) -> None:
    data = b"evil"
    entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    with_manifest(exported, lambda manifest: manifest["files"].update({name: entry}))
    refuses(exported, "no file inside an engine")


@pytest.mark.parametrize(
    "entry",
    [
        {"bytes": -1, "sha256": "0" * 64},
        {"bytes": "4", "sha256": "0" * 64},
        {"bytes": 4, "sha256": "../" * 20},
        {"bytes": 4},
        [],
        None,
    ],
)
def test_a_manifest_without_sizes_and_checksums_is_refused(exported: Path, entry: object) -> None:
    with_manifest(exported, lambda manifest: manifest["files"].update({"model.bin": entry}))
    refuses(exported, "no size and checksum for model.bin")


def test_a_file_and_a_folder_of_one_name_are_refused(exported: Path) -> None:
    entry = {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}
    with_manifest(exported, lambda manifest: manifest["files"].update({"empty/x": entry}))
    members = entries(exported)
    key = members[0][0].name.partition("/")[0]
    inside = member(f"{key}/empty/x", b"")
    place = [info.name for info, _ in members].index(f"{key}/empty") + 1
    write(exported, [*members[:place], inside, *members[place:]], format=tarfile.GNU_FORMAT)
    refuses(exported, "was not imported")


def test_the_key_must_be_the_hash_of_the_identity(exported: Path) -> None:
    with_manifest(exported, lambda manifest: manifest["identity"].update(weights="others"))
    refuses(exported, "the key is a hash over it")


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest.pop("limits"),
        lambda manifest: manifest.update(format=99),
        lambda manifest: manifest.update(model="made"),
        lambda manifest: manifest["model"].pop("parameters"),
        lambda manifest: manifest["build"].update(stages=[{"name": "trace"}]),
        lambda manifest: manifest.update(created="now"),
        lambda manifest: manifest.update(created=1e300),
        lambda manifest: manifest["identity"].pop("weights"),
        lambda manifest: manifest["identity"].update(extra=1),
        lambda manifest: manifest.clear(),
    ],
)
def test_a_manifest_of_another_shape_is_refused(
    exported: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    with_manifest(exported, change)
    refuses(exported, "its manifest.json")


def test_a_manifest_that_is_too_large_is_not_even_read(exported: Path) -> None:
    members = entries(exported)
    members[0][0].size = archive.MANIFEST_LIMIT + 1
    exported.write_bytes(members[0][0].tobuf(tarfile.GNU_FORMAT))
    refuses(exported, f"has {archive.MANIFEST_LIMIT + 1:,} bytes")


def test_deep_json_is_refused(exported: Path) -> None:
    members = entries(exported)
    data = b"[" * 200_000
    members[0][0].size = len(data)
    write(exported, [(members[0][0], data), *members[1:]])
    refuses(exported, "not valid JSON")


def test_room_is_looked_for_before_anything_is_written(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "free_disk", lambda _: 100)
    refuses(exported, "1.75 KiB", "100 bytes are free")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for name in ("nothing", "fifo", "."):
        refuses(tmp_path / name, "There is no file")


def test_an_engine_that_runs_code_is_taken_only_when_asked(tmp_path: Path) -> None:
    engine = publish(trust_remote_code=True)
    path = tmp_path / "engine.tar"
    export_engine(engine, path)
    shutil.rmtree(engine.path)
    refuses(path, "trust_remote_code", "with your rights")
    assert import_engine(path, trust_remote_code=True)[0].key == engine.key


def test_limits_cannot_bring_what_the_spec_does_not_say(exported: Path) -> None:
    with_manifest(exported, lambda manifest: manifest["limits"].update(trust_remote_code=True))
    refuses(exported, "trust_remote_code")
