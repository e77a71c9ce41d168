"""The report of an engine: complete, inert, without paths, and it leads back to the same engine."""

from __future__ import annotations

import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests import stock
from tests.faults import Faulty
from workbench import history, results
from workbench.backends import make_spec
from workbench.build import start_build
from workbench.cli import main
from workbench.engine import Engine
from workbench.engine_report import report_page, save_report, spec_of
from workbench.errors import StoreError
from workbench.journal import View
from workbench.trial import new_record


class _Page(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.blocks: list[str] = []
        self.words = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.tags.add(tag)
        if tag == "pre":
            self.blocks.append("")

    def handle_data(self, data: str) -> None:
        self.words += data
        if self.lasttag == "pre" and self.blocks:
            self.blocks[-1] += data


def test_it_says_what_the_engine_is_and_how_it_was_built(stocked: Engine) -> None:
    words = _Page(report_page(stocked)).words
    manifest = stocked.manifest
    expected = [stocked.key, manifest["identity"]["weights"], "LlamaForCausalLM", "2.69 M"]
    expected += [stage["title"] for stage in manifest["build"]["stages"]]
    expected += manifest["identity"]["toolchain"].values()
    for text in [*expected, "max_output_len256", "None was measured in this store."]:
        assert text in words, text


def test_what_it_says_to_do_gives_the_same_engine(stocked: Engine) -> None:
    blocks = _Page(report_page(stocked)).blocks
    assert blocks[0].startswith("workbench build --quantization=none")
    assert blocks[1].startswith("papermill notebooks/01_build.ipynb out.ipynb -r backend openvino")
    spec = make_spec(tomllib.loads(blocks[2]))
    hit = start_build(spec).hit
    assert hit
    assert hit.key == stocked.key
    assert hit.limits == stocked.limits


def test_its_trials_are_those_of_this_engine(stocked: Engine) -> None:
    for key, point in ((stocked.key, "a" * 16), ("other", "b" * 16)):
        record = new_record(point, {"backend": "openvino"}, {"input_len": 77, "concurrency": 3})
        record |= {"status": "done", "engine": {"key": key}}
        record["summary"] = {"output_tokens_per_second": 123.456, "ttft": {"p50": 0.0125}}
        results.save(record)
    page = report_page(stocked)
    (row,) = re.findall(r"<tr><td>[ab]{16}-.*?</tr>", page)
    for text in ("a" * 16, "done", "77", "123.5", "12.5 ms"):
        assert text in row


def test_it_names_the_processor_that_built_it_as_far_as_the_store_knows(stocked: Engine) -> None:
    assert "made forno certain GPUbuilt onnot known" in _Page(report_page(stocked)).words
    job = Path(stocked.manifest["build"]["job"])
    history.record(stocked, View(job), "AMD EPYC 9654")
    assert "made forno certain GPUbuilt onAMD EPYC 9654" in _Page(report_page(stocked)).words


def test_nothing_in_it_is_taken_for_html(stocked: Engine) -> None:
    model = {**stocked.manifest["model"], "name": "<script>alert(1)</script>"}
    page = report_page(Engine(stocked.path, {**stocked.manifest, "model": model}))
    assert "script" not in _Page(page).tags
    assert "<script>alert(1)</script>" in _Page(page).words


def test_it_names_no_place_of_this_machine_unless_asked(
    faulty: Faulty, stocked: Engine, home: Path, tmp_path: Path
) -> None:
    model = {**stocked.manifest["model"], "source": str(tmp_path / "models" / "mine")}
    engine = Engine(stocked.path, {**stocked.manifest, "model": model})
    page = report_page(engine)
    assert str(tmp_path) not in page
    assert str(home) not in page
    assert spec_of(engine).model == "mine"
    assert "rules that need it were not applied" in page
    assert str(tmp_path / "models" / "mine") in report_page(engine, paths=True)


def test_the_same_engine_gives_the_same_page(stocked: Engine) -> None:
    assert report_page(stocked) == report_page(stocked)


def test_the_command_line_writes_it_and_overwrites_nothing(
    stocked: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "page.html"
    target.write_text("mine")
    assert main(["report", stocked.key, str(target)]) == 1
    assert "was not overwritten" in capsys.readouterr().err
    assert target.read_text() == "mine"
    assert main(["report", stocked.key, str(target), "--overwrite"]) == 0
    assert target.read_text() == report_page(stocked)
    # A folder that is not there yet is made, as for an export.
    assert main(["report", stocked.key, str(tmp_path / "new" / "page.html")]) == 0
    assert (tmp_path / "new" / "page.html").is_file()


def test_a_half_engine_has_no_report(faulty: Faulty, tmp_path: Path) -> None:
    engine = stock.make()
    (engine.path / "words.json").unlink()
    with pytest.raises(StoreError, match=rf"{engine.key} is damaged: words\.json is missing"):
        save_report(engine, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
