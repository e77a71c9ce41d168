"""Who a record names, and when its process is known to be gone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from workbench import owner
from workbench.owner import Owner


@pytest.fixture(autouse=True)
def _a_machine_with_an_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "machine", lambda: "0123456789abcdef")


def test_what_ran_here_before_this_boot_is_gone() -> None:
    assert replace(Owner.current(), boot="another").presence() == "gone"


def test_another_machine_of_the_same_host_name_is_elsewhere() -> None:
    there = replace(Owner.current(), boot="another", machine="fedcba9876543210")
    assert there.presence() == "elsewhere"


def test_another_host_name_is_elsewhere_whatever_the_machine_says() -> None:
    # An image may carry the identity of the machine that it was made from.
    assert replace(Owner.current(), boot="another", host="other").presence() == "elsewhere"


def test_where_neither_has_an_identity_nobody_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, "machine", lambda: "")
    assert replace(Owner.current(), boot="another").presence() == "elsewhere"


def test_a_record_without_a_machine_opens_and_is_elsewhere_after_a_boot() -> None:
    record = replace(Owner.current(), boot="another").record()
    del record["machine"]
    found = Owner.from_record(record)
    assert found is not None
    assert found.machine == ""
    assert found.presence() == "elsewhere"


def test_a_record_without_a_machine_of_this_boot_is_alive() -> None:
    record = Owner.current().record()
    del record["machine"]
    found = Owner.from_record(record)
    assert found is not None
    assert found.presence() == "alive"


def test_a_record_gives_the_same_owner_back() -> None:
    assert Owner.from_record(Owner.current().record()) == Owner.current()
