"""The comparison in a real browser: a point of the chart is chosen where it lies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.lab import REPOSITORY, Lab, LabPage
from tests.test_compare import Page
from workbench import files, results
from workbench.compare_report import write_report
from workbench.comparison import Comparison

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator
    from playwright.sync_api import Page as BrowserPage

    from workbench.trial import Trial

pytestmark = pytest.mark.browser


@pytest.fixture
def measured(measured_trials: list[Trial], home: Path) -> list[Trial]:
    """Two real trials in the test's own store."""
    for trial in measured_trials:
        files.write_json(results.folder() / f"{trial.id}.json", trial.record)
    return measured_trials


@pytest.fixture
def page(measured: list[Trial], chromium: Browser, tmp_path: Path) -> Iterator[LabPage]:
    folder, home = tmp_path / "notebooks", tmp_path / "lab"
    folder.mkdir()
    home.mkdir()
    paths = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(REPOSITORY)]))
    environment = {"WORKBENCH_HOME": os.environ["WORKBENCH_HOME"], "PYTHONPATH": paths}
    with Lab(folder, home, environment) as lab:
        lab.write_notebook(
            "compare.ipynb", "import workbench as wb\npanel = wb.ComparePanel()\npanel"
        )
        with LabPage(chromium, lab, "compare.ipynb") as page:
            page.page.set_viewport_size({"width": 1100, "height": 1600})
            yield page


def _click(page: BrowserPage, plot: Locator, number: int) -> None:
    """Click where a point lies: what plotly hears clicks with lies above all points."""
    plot.locator(".scatterlayer .points .point").nth(number - 1).wait_for()
    box = plot.locator(".scatterlayer .points .point").nth(number - 1).bounding_box()
    assert box
    place = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.move(*place)
    # plotly takes a click for one on what it shows a label of.
    plot.locator(".hoverlayer .hovertext").wait_for()
    page.mouse.click(*place)


def test_a_click_on_a_point_shows_what_it_is(page: LabPage) -> None:
    page.run_all()
    panel = page.page.locator(".workbench-panel")
    candidates = Comparison.make().candidates
    for number in (2, 1):
        _click(page.page, panel.locator(".js-plotly-plot"), number)
        panel.get_by_role("heading", name=f"Point {number}", exact=True).wait_for()
        chosen = panel.locator(f'.wb-list tr[data-id="{candidates[number - 1].newest.id}"]')
        assert "chosen" in (chosen.get_attribute("class") or "")
        panel.get_by_text(candidates[number - 1].command).wait_for()


def test_a_click_in_a_report_opens_where_its_figures_come_from(
    measured: list[Trial], chromium: Browser, tmp_path: Path
) -> None:
    path = write_report(Comparison.make(), tmp_path / "report.html")
    assert [tag for tag, _ in Page(path.read_text()).elements].count("details") == 2
    with chromium.new_context() as context:
        page = context.new_page()
        page.goto(path.as_uri())
        _click(page, page.locator("#figure-0"), 2)
        page.locator("details[open] summary", has_text="2: ").wait_for()
        assert page.locator("details[open]").count() == 1
