"""The engines panel: what is held, what may go, what is still sound."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import stock
from tests.faults import Faulty, make_model, until
from workbench import eviction, store, usage
from workbench.engine import Engine
from workbench.widgets.store import StorePanel

SCRIPT = "<script>alert(1)</script>"


def _engines(faulty: Faulty, count: int = 2) -> list[Engine]:
    return [faulty.start(seed=seed).wait() for seed in range(count)]


def _chosen(engine: Engine) -> StorePanel:
    panel = StorePanel()
    panel.choose(engine.key)
    return panel


def _keys(panel: StorePanel) -> list[str]:
    return [row[0] for row in panel.table.rows]


def test_an_empty_store_is_a_sentence() -> None:
    panel = StorePanel()
    assert panel.plain() == "The store holds no engine yet.\nTogether 0 bytes"
    assert "The store holds 0 bytes, without a budget." in panel.static()
    assert panel._details.layout.display == "none"


def test_it_lists_what_each_engine_is_and_who_keeps_it(faulty: Faulty) -> None:
    old, new = _engines(faulty)
    usage.pin(old.key, "")
    claim = usage.claim(new.key)
    panel = StorePanel()
    assert _keys(panel) == [new.key, old.key]
    _, key, what, size, built, used, kept = panel.table.rows[0]
    assert new.key.startswith(key)
    assert "batch_size 4" in what
    assert size.endswith("KiB")
    assert (built, used) == ("moments ago", "moments ago")
    assert kept.startswith("process ")
    assert panel.table.rows[1][6] == "it is pinned"
    claim.release()
    panel.refresh()
    assert panel.table.rows[0][6] == ""
    panel.filter.value = old.key
    assert _keys(panel) == [old.key]


def test_what_comes_from_elsewhere_is_text(faulty: Faulty, tmp_path: Path) -> None:
    model = make_model(tmp_path / SCRIPT.partition("/")[0])
    engine = faulty.start(model=str(model)).wait()
    panel = _chosen(engine)
    assert "<script>" in panel.table.rows[0][2]
    assert "<script>" not in panel.static() + panel._title.value
    assert "&lt;script&gt;" in panel.static()
    assert "&lt;script&gt;" in panel._title.value


def test_a_sound_engine_is_said_to_be_sound_after_all_bytes_were_read(faulty: Faulty) -> None:
    engine = faulty.start(size=9_000_000).wait()
    panel = _chosen(engine)
    panel.verify_button.click()
    until(lambda: "is what was published" in panel._reading.said)
    assert panel._reading._bar.value == 1.0
    until(lambda: not panel.verify_button.disabled)
    assert panel._error_text == ""
    assert _keys(panel) == [engine.key]


def test_a_damaged_engine_is_set_aside_and_shown_there(faulty: Faulty) -> None:
    engine, other = _engines(faulty)
    file = engine.path / "engine.bin"
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    panel = _chosen(engine)
    panel.verify_button.click()
    until(lambda: "the content of engine.bin is not what was published" in panel._error_text)
    until(lambda: _keys(panel) == [other.key])
    assert store.list_damaged()[0].name in panel._aside.value
    assert "was damaged and set aside" in panel.plain()
    assert panel._details.layout.display == "none"


def test_evict_asks_first_and_then_removes(faulty: Faulty) -> None:
    engine, other = _engines(faulty)
    panel = _chosen(engine)
    assert panel._confirm.layout.display == "none"
    panel.evict_button.click()
    assert panel._confirm.layout.display == ""
    assert "for good" in panel.confirm_button.description
    panel.keep_button.click()
    assert panel._confirm.layout.display == "none"
    assert engine.path.is_dir()
    panel.evict_button.click()
    panel.confirm_button.click()
    assert not engine.path.exists()
    assert _keys(panel) == [other.key]
    assert panel._details.layout.display == "none"


def test_only_a_line_that_is_there_can_be_chosen_in_a_browser(faulty: Faulty) -> None:
    (engine,) = _engines(faulty, 1)
    panel = StorePanel()
    panel.table._hear(None, {"kind": "choose", "id": "../../elsewhere"}, [])
    assert panel.table.selected == ""
    panel.table._hear(None, {"kind": "choose", "id": engine.key}, [])
    assert panel.table.selected == engine.key


def test_choosing_another_engine_takes_the_question_back(faulty: Faulty) -> None:
    engine, other = _engines(faulty)
    panel = _chosen(engine)
    panel.evict_button.click()
    panel.choose(other.key)
    assert panel._confirm.layout.display == "none"


def test_what_is_pinned_or_used_is_not_removed_and_the_reason_is_said(faulty: Faulty) -> None:
    (engine,) = _engines(faulty, 1)
    panel = _chosen(engine)
    panel.pin_button.click()
    assert panel.table.rows[0][6] == "it is pinned (in the engines panel)"
    assert panel.pin_button.description == "Unpin"
    panel.evict_button.click()
    panel.confirm_button.click()
    kept = "it is pinned (in the engines panel)"
    assert panel._error_text == f"The engine {engine.key} was not removed: {kept}."
    panel.pin_button.click()
    assert panel.pin_button.description == "Pin"
    claim = usage.claim(engine.key)
    panel.evict_button.click()
    panel.confirm_button.click()
    assert "was not removed: process" in panel._error_text
    assert engine.path.is_dir()
    claim.release()


def test_the_budget_is_shown_set_and_refused(faulty: Faulty) -> None:
    _engines(faulty, 1)
    panel = StorePanel()
    panel.budget.value = "1MiB"
    panel.budget_button.click()
    assert eviction.budget() == 1 << 20
    assert "of a budget of 1.00 MiB" in panel._held.value
    assert 'class="bar"' in panel._held.value
    panel.budget.value = "much"
    panel.budget_button.click()
    assert "The budget must be a size such as 200GiB or 50GB; got 'much'." in panel._error_text
    assert eviction.budget() == 1 << 20
    panel.budget.value = "none"
    panel.budget_button.click()
    assert panel._error_text == ""
    assert eviction.budget() is None


def test_an_engine_that_is_removed_elsewhere_is_a_sentence(faulty: Faulty) -> None:
    (engine,) = _engines(faulty, 1)
    panel = _chosen(engine)
    eviction.evict(engine.key)
    panel.use_button.click()
    assert f"There is no engine whose key begins with '{engine.key}'" in panel._error_text
    panel.refresh()
    assert _keys(panel) == []
    assert panel._details.layout.display == "none"


def test_the_manifest_is_folded_until_it_is_asked_for(faulty: Faulty, tmp_path: Path) -> None:
    model = make_model(tmp_path / SCRIPT.partition("/")[0])
    panel = _chosen(faulty.start(model=str(model)).wait())
    assert panel._manifest.value == ""
    panel.manifest_button.value = True
    assert "&quot;identity&quot;" in panel._manifest.value
    assert "<script>" not in panel._manifest.value
    panel.manifest_button.value = False
    assert panel._manifest.value == ""


def test_an_engine_goes_into_a_file_and_comes_back(home: Path, tmp_path: Path) -> None:
    engine = stock.make()
    panel = StorePanel()
    panel.transfer.export_button.click()
    assert panel._error_text == "No engine is chosen."
    panel.choose(engine.key)
    panel.transfer.export_button.click()
    assert panel._error_text.startswith("Say where: ")
    panel.transfer.path.value = str(tmp_path / "engine.tar")
    panel.transfer.export_button.click()
    until(lambda: not panel.transfer.export_button.disabled)
    assert f"The engine {engine.key} is in {tmp_path / 'engine.tar'} (" in panel.transfer.said
    panel.transfer.export_button.click()
    until(lambda: "exists, and it was not overwritten" in panel._error_text)
    until(lambda: not panel.transfer.import_button.disabled)
    eviction.evict(engine.key)
    panel.transfer.import_button.click()
    until(lambda: _keys(panel) == [engine.key])
    until(lambda: not panel.transfer.import_button.disabled)
    assert f"Imported {engine.key}" in panel.transfer.said
    assert panel._error_text == ""
    assert home.is_dir()


def test_a_file_that_is_no_archive_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("x" * 2000)
    panel = StorePanel()
    panel.transfer.path.value = str(tmp_path / "notes")
    panel.transfer.import_button.click()
    until(lambda: "is no archive that can be imported" in panel._error_text)
    until(lambda: not panel.transfer.import_button.disabled)


def test_the_chosen_engine_is_handed_to_those_who_follow(faulty: Faulty) -> None:
    engine, _ = _engines(faulty)
    panel = StorePanel()
    heard: list[Engine] = []
    panel.on_engine(heard.append)
    panel.use_button.click()
    assert panel._error_text == "No engine is chosen."
    panel.choose(engine.key)
    panel.use_button.click()
    assert heard == [engine]


@pytest.mark.parametrize("variable", ["lots"])
def test_a_budget_that_is_none_is_a_sentence(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(eviction.VARIABLE, variable)
    assert "must be a size such as 200GiB" in StorePanel()._error_text
