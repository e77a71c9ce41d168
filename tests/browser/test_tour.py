"""The tour as a person uses it, in a real browser on a real JupyterLab."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest

from tests.browser.lab import Lab, LabPage

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

pytestmark = pytest.mark.browser

REPOSITORY = Path(__file__).parents[2]
TOUR = REPOSITORY / "notebooks" / "00_tour.ipynb"
SECOND = 1000  # ms


@pytest.fixture(scope="module")
def tour_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tour") / "home"


@pytest.fixture(scope="module")
def tour_lab(tmp_path_factory: pytest.TempPathFactory, tour_home: Path) -> Iterator[Lab]:
    """A JupyterLab over a folder of its own, with an empty store."""
    folder, home = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("lab")
    with Lab(folder, home, {"WORKBENCH_HOME": str(tour_home)}) as lab:
        yield lab


@pytest.fixture
def open_tour(tour_lab: Lab, chromium: Browser) -> Iterator[Callable[..., LabPage]]:
    """Open a copy of the tour with some of its parameters changed."""
    pages = []

    def open_one(name: str, **parameters: object) -> LabPage:
        notebook = nbformat.read(TOUR, as_version=4)
        cell = next(c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
        cell.source += "".join(f"\n{key} = {value!r}" for key, value in parameters.items())
        nbformat.write(notebook, tour_lab.folder / name)
        page = LabPage(chromium, tour_lab, name)
        pages.append(page)
        # Lab renders what is in view; a tall page keeps all panels there.
        page.page.set_viewport_size({"width": 1000, "height": 3200})
        return page

    yield open_one
    for page in pages:
        if not page.page.is_closed():
            page.shut_down_kernel()
            page.close()


def _panel(page: LabPage, title: str) -> Locator:
    return page.page.locator(".workbench-panel", has=page.page.get_by_role("heading", name=title))


def _jobs(home: Path) -> list[Path]:
    return sorted((home / "jobs").glob("*/spec.json"))


def _until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def _journal(spec: Path) -> str:
    journal = spec.with_name("journal.jsonl")
    return journal.read_text() if journal.exists() else ""


def _give_wrong_input(page: LabPage, form: Locator, build: Locator) -> None:
    """Type wrong values and stray keys; each is answered, and nothing is lost."""
    # A wrong value is a sentence; the right one clears it.
    threads = form.get_by_label("threads")
    threads.fill("many")
    threads.press("Tab")
    form.get_by_role("alert").get_by_text("threads must be a whole number").wait_for()
    threads.fill("2")
    threads.press("Tab")
    form.get_by_role("alert").wait_for(state="hidden")

    # Keys pressed in a panel are not the notebook's: "d d" deletes a cell there, "b" adds one.
    caching = form.get_by_label("enable_prefix_caching")
    caching.focus()
    cells = page.page.locator(".jp-Cell").count()
    for keys in ("b", "dd"):
        for key in keys:
            page.page.keyboard.press(key)
        page.page.wait_for_timeout(300)
        assert page.page.locator(".jp-Cell").count() == cells
    assert "Keep the KV cache" in (form.get_by_text("enable_prefix_caching").get_attribute("title"))
    assert page.page.locator('.workbench-panel [title="null"]').count() == 0

    # A finding appears with the change that causes it, and building is refused with it.
    form.get_by_label("max_input_len (tokens)").fill("4000")
    form.get_by_label("max_input_len (tokens)").press("Tab")
    form.get_by_text("beyond the model's context of 2048").first.wait_for()
    build.get_by_role("button", name="Build").click()
    build.get_by_role("alert").get_by_text("beyond the model's context of 2048").wait_for()


def test_run_all_change_build_stream_stop_reload(
    open_tour: Callable[..., LabPage], tour_home: Path
) -> None:
    page = open_tour("tour.ipynb")
    page.run_all()
    form, build, stream = (_panel(page, t) for t in ("Build parameters", "Build", "Stream"))
    build = page.page.locator(".workbench-panel").nth(1)
    text = stream.locator("[role=log]")

    # The build runs, and its engine answers by itself.
    stream.get_by_text("finished").wait_for(timeout=90 * SECOND)
    assert len(text.inner_text().strip().splitlines()) == 3
    build.get_by_text(re.compile("done in")).wait_for()

    _give_wrong_input(page, form, build)

    # Change parameters and build again; the stream panel takes the new engine.
    form.get_by_label("max_input_len (tokens)").fill("64")
    form.get_by_label("max_output_len (tokens)").fill("1900")
    form.get_by_label("max_output_len (tokens)").press("Tab")
    form.get_by_label("quantization").select_option("int4")
    first = stream.get_by_text(re.compile("engine [0-9a-f]{20}")).inner_text()
    build.get_by_role("button", name="Build").click()
    build.get_by_text("load weights").wait_for(timeout=60 * SECOND)
    build.get_by_text(re.compile("done in")).wait_for(timeout=90 * SECOND)
    stream.get_by_text("output up to 1900").wait_for(timeout=60 * SECOND)
    assert first not in stream.inner_text()
    assert len(_jobs(tour_home)) == 2

    # Stream again and stop in the middle.
    stream.get_by_label("max_tokens").fill("1900")
    stream.get_by_label("ignore_eos").check()
    stream.get_by_role("textbox").first.press("Control+Enter")
    _until(lambda: len(text.inner_text()) > 100)
    # The demo model is done in a second or two: hold its process while we reach for the button.
    page.execute("import os, signal; os.kill(stream._session.pid, signal.SIGSTOP)")
    stream.get_by_role("button", name="Stop").click()
    page.execute("os.kill(stream._session.pid, signal.SIGCONT)")
    stream.get_by_text("stopped").wait_for(timeout=5 * SECOND)
    assert page.value("stream.record['output_tokens']") < 1900
    # The last words are painted in the next frame.
    _until(lambda: text.inner_text().strip() == page.value("stream.record['text']").strip(), 5)
    shown = text.inner_text()

    # After a reload the saved notebook shows the same.
    page.save()
    page.reload()
    page.scroll_to_end()
    text.wait_for()
    _until(lambda: text.inner_text() == shown)


def test_restart_the_kernel_in_mid_build_and_attach_again(
    open_tour: Callable[..., LabPage], tour_home: Path
) -> None:
    page = open_tour("attach.ipynb", symmetric=True)
    before = set(_jobs(tour_home))
    page.run_all()
    _until(lambda: set(_jobs(tour_home)) - before)
    (job,) = set(_jobs(tour_home)) - before
    assert json.loads(job.read_text())["spec"]["symmetric"]
    _until(lambda: '"import"' in _journal(job))
    page.restart_kernel()
    page.run_all()
    build = page.page.locator(".workbench-panel").nth(1)
    assert page.value("build.job_id") == job.parent.name
    build.get_by_text(re.compile("done in")).wait_for(timeout=90 * SECOND)
    assert set(_jobs(tour_home)) - before == {job}
    _panel(page, "Stream").get_by_text("finished").wait_for(timeout=60 * SECOND)


def test_cancel_in_the_browser_stops_everything(
    open_tour: Callable[..., LabPage], tour_home: Path
) -> None:
    page = open_tour("cancel.ipynb", quantization="fp16")
    before = set(_jobs(tour_home))
    page.run_all()
    build = page.page.locator(".workbench-panel").nth(1)
    build.get_by_text("load weights").wait_for(timeout=60 * SECOND)
    build.get_by_role("button", name="Cancel").click()
    build.get_by_text("cancelled").wait_for(timeout=10 * SECOND)
    (job,) = set(_jobs(tour_home)) - before
    assert '"cancelled"' in _journal(job)
    assert list((tour_home / "engines").glob(".tmp-*")) == []
    _until(build.get_by_role("button", name="Build").is_enabled, 10)


def test_closing_the_page_leaves_the_build_running(
    open_tour: Callable[..., LabPage], tour_home: Path
) -> None:
    page = open_tour("close.ipynb", quantization="none")
    before = set(_jobs(tour_home))
    page.run_all()
    _until(lambda: set(_jobs(tour_home)) - before)
    (job,) = set(_jobs(tour_home)) - before
    page.close()
    _until(lambda: '"done"' in _journal(job), 90)
