"""Claims on engines: who uses one, whoever dies, and who may not know."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from tests import stock
from tests.faults import Faulty, until
from workbench import files, usage
from workbench.errors import StoreError
from workbench.owner import Owner

ROOT = Path(__file__).parents[1]
KEY = "0" * 20
NEIGHBOUR = replace(Owner.current(), namespace="pid:[1]")
ELSEWHERE = replace(Owner.current(), host="gone-pod", boot="another")


def write(suffix: str, owner: Owner | None, name: str = "a") -> Path:
    """A claim or mark of somebody else."""
    path = usage.folder(KEY) / f"{name}{suffix}"
    files.write_json(path, {"owner": owner.record() if owner else None})
    return path


def dead() -> Owner:
    """Another process that had our pid."""
    return replace(Owner.current(), started=1.0)


def test_who_claims_uses_until_the_release(home: Path) -> None:
    claims = [usage.claim(KEY), usage.claim(KEY)]
    assert usage.users(KEY) == [Owner.current(), Owner.current()]
    claims[0].release()
    claims[0].release()
    assert usage.users(KEY) == [Owner.current()]
    claims[1].release()
    assert usage.users(KEY) == []


def test_a_claim_of_the_dead_is_none_and_removed(home: Path) -> None:
    path = write(usage.USING, dead())
    assert usage.users(KEY) == []
    assert not path.exists()


def test_a_claim_of_another_host_counts_and_stays(home: Path) -> None:
    path = write(usage.USING, ELSEWHERE)
    assert usage.users(KEY) == [ELSEWHERE]
    assert path.exists()


@pytest.mark.parametrize("suffix", [usage.USING, usage.EVICTING])
def test_a_claim_of_another_container_counts_until_the_kernel_lets_go_of_its_lock(
    home: Path, suffix: str
) -> None:
    """The kernel keeps the lock as long as its process lives, in whatever container."""
    path = write(suffix, NEIGHBOUR)
    files.write_json(path, files.read_json(path) | {"locked": True})
    os.utime(path, (1.0, 1.0))
    with path.open("rb") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        assert usage._living(KEY, suffix) == [(path, NEIGHBOUR)]
    assert usage._living(KEY, suffix) == []
    assert not path.exists()


def test_a_claim_of_another_container_that_was_just_written_or_never_locked_counts(
    home: Path,
) -> None:
    path = write(usage.USING, NEIGHBOUR)
    os.utime(path, (1.0, 1.0))
    assert usage.claims(KEY) == [(path, NEIGHBOUR)]
    files.write_json(path, files.read_json(path) | {"locked": True})
    assert usage.claims(KEY) == [(path, NEIGHBOUR)]


def test_a_claim_is_locked_until_its_release(home: Path) -> None:
    claim = usage.claim(KEY)
    with claim.path.open("rb") as other:
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        claim.release()
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_claim_that_nobody_keeps_counts_and_stays_locked(home: Path) -> None:
    with usage.claim(KEY).path.open("rb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    [(path, _)] = usage.claims(KEY)
    usage.Claim(path).release()
    assert path not in usage._LOCKS


def test_a_claim_that_cannot_be_locked_is_none(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_path = os.open

    def refuse(path: Path, *values: int) -> int:
        if str(path).endswith(usage.USING):
            raise OSError(errno.EMFILE, "Too many open files", str(path))
        return open_path(path, *values)

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", refuse)
        with pytest.raises(StoreError, match="removed meanwhile: Too many open files"):
            usage.claim(KEY)
    assert usage.users(KEY) == []


def test_what_is_no_claim_is_nobody(home: Path) -> None:
    write(usage.USING, None)
    (usage.folder(KEY) / f"torn{usage.USING}").write_text('{"own')
    (usage.folder(KEY) / f"folder{usage.USING}").mkdir()
    os.mkfifo(usage.folder(KEY) / f"fifo{usage.USING}")
    assert usage.users(KEY) == []
    assert len(list(usage.folder(KEY).iterdir())) == 4


def test_a_use_waits_until_the_evictor_has_looked(home: Path) -> None:
    claims: list[usage.Claim] = []
    waiter = threading.Thread(target=lambda: claims.append(usage.claim(KEY)))
    with usage.removing(KEY):
        waiter.start()
        until(lambda: usage.users(KEY))  # it is seen, so the evictor gives way
        assert claims == []
    waiter.join(10)
    assert usage.users(KEY) == [Owner.current()]
    claims[0].release()


def test_an_evictor_that_died_keeps_nobody_waiting(home: Path) -> None:
    mark = write(usage.EVICTING, dead())
    usage.claim(KEY).release()
    assert not mark.exists()


def test_an_evictor_of_another_host_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "PATIENCE", 0.0)
    mark = write(usage.EVICTING, ELSEWHERE)
    with pytest.raises(StoreError, match=r"process \d+ on gone-pod.*\*\.evicting") as caught:
        usage.claim(KEY)
    assert str(mark.parent) in str(caught.value)
    assert mark.exists()
    assert usage.users(KEY) == []
    # What is built must not be lost for it.
    assert usage.claim_if_possible(KEY) == usage.NOBODY


def test_forgetting_leaves_the_claims_of_others(home: Path) -> None:
    claim = usage.claim(KEY)
    usage.forget(KEY)
    assert usage.users(KEY) == [Owner.current()]
    claim.release()
    usage.forget(KEY)
    assert not (home / "usage" / KEY).exists()
    usage.forget(KEY)


def test_a_claim_is_written_though_the_folder_is_taken_away(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json = files.write_json

    def write_later(path: Path, value: object) -> None:
        monkeypatch.setattr(files, "write_json", write_json)
        usage.forget(KEY)
        write_json(path, value)

    monkeypatch.setattr(files, "write_json", write_later)
    claim = usage.claim(KEY)
    assert usage.users(KEY) == [Owner.current()]
    claim.release()


def test_what_cannot_be_claimed_is_not_used(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, value: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(files, "write_json", refuse)
    with pytest.raises(StoreError, match="in use, so it could be removed meanwhile: No space left"):
        usage.claim(KEY)


READ_ONLY = """
import sys
from workbench.opening import open_engine
with open_engine(sys.argv[1]) as session:
    print(session.generate("a", max_tokens=2).wait().text)
"""


def test_a_store_that_can_only_be_read_opens_engines(faulty: Faulty) -> None:
    engine = stock.stock(faulty)
    # A mount namespace of our own, so that no privilege is needed and nothing is left mounted.
    command = (
        'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && ! touch "$1/x" 2> /dev/null '
        '&& exec "$2" -c "$3" "$4"'
    )
    words = [str(files.home()), sys.executable, READ_ONLY, engine.key]
    answer = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "bash", "-c", command, "bash", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=ROOT,
    )
    assert answer.stdout.strip() == "0:0 0:1", answer.stderr
    assert usage.users(engine.key) == []


def test_pins_stay_until_they_are_taken_back(home: Path) -> None:
    assert not usage.is_pinned(KEY)
    usage.unpin(KEY)
    usage.pin(KEY, "the reference")
    assert usage.is_pinned(KEY)
    assert usage.users(KEY) == []
    usage.forget(KEY)
    assert usage.is_pinned(KEY)
    usage.unpin(KEY)
    assert not usage.is_pinned(KEY)


def test_a_pin_waits_for_the_evictor_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usage, "PATIENCE", 0.0)
    with usage.removing(KEY), pytest.raises(StoreError, match="is being removed"):
        usage.pin(KEY)
    assert not usage.is_pinned(KEY)


def test_the_last_use_is_known(home: Path) -> None:
    assert usage.last_used(KEY) == 0.0
    usage.claim(KEY).release()
    os.utime(usage.folder(KEY) / "used", (5.0, 5.0))
    assert usage.last_used(KEY) == 5.0
    usage.touch(KEY)
    assert usage.last_used(KEY) > 5.0
