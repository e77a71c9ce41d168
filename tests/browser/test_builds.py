"""The notebook of all builds and engines in a real browser, while builds stall where they are told.

The builds are started elsewhere: by this process, in the store that the Lab's kernels use too.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.lab import REPOSITORY, Lab, LabPage
from tests.faults import Faulty, fault, job_of, until
from workbench import eviction, jobs, usage
from workbench.jobs import Job

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

pytestmark = pytest.mark.browser

BUILDS = REPOSITORY / "notebooks" / "07_builds.ipynb"
SCRIPT = "<script>window.struck = 1</script><img src=x onerror='window.struck = 1'>"


@pytest.fixture
def builds_lab(faulty: Faulty, tmp_path: Path) -> Iterator[Lab]:
    """A JupyterLab with the notebook, whose kernels know this test's store and played backend."""
    folder, home = tmp_path / "notebooks", tmp_path / "lab"
    folder.mkdir()
    home.mkdir()
    shutil.copy(BUILDS, folder)
    names = ("WORKBENCH_HOME", "WORKBENCH_TOOLCHAIN_FAULT")
    paths = f"{os.environ['PYTHONPATH']}{os.pathsep}{REPOSITORY}"
    with Lab(
        folder, home, {name: os.environ[name] for name in names} | {"PYTHONPATH": paths}
    ) as lab:
        yield lab


@pytest.fixture
def page(builds_lab: Lab, chromium: Browser) -> Iterator[LabPage]:
    with LabPage(chromium, builds_lab, BUILDS.name) as page:
        # Lab renders what is in view; a tall page keeps all panels there.
        page.page.set_viewport_size({"width": 1100, "height": 2600})
        yield page


def _panel(page: LabPage, title: str) -> Locator:
    heading = page.page.get_by_role("heading", name=title, exact=True, level=3)
    return page.page.locator(".workbench-panel", has=heading)


def _line(panel: Locator, name: str) -> Locator:
    """Return the line of a job or an engine in the list."""
    return panel.locator(f'.wb-list tr[data-id="{name}"]')


def _press(panel: Locator, name: str) -> None:
    panel.get_by_role("button", name=name, exact=True).click()


def test_a_build_is_followed_over_a_reload_and_a_restart(faulty: Faulty, page: LabPage) -> None:
    compiling, writing = faulty.gate(), faulty.gate()
    job = job_of(
        faulty.start(
            fault("load", "print", text=f"loading {SCRIPT}"),
            fault("compile", "stall", until=compiling),
            fault("compile", "print", text="compiled"),
            fault("write", "stall", until=writing),
            fault("half", "print", text="half written"),
        )
    )
    compiling.wait_reached()
    page.run_all()
    builds = _panel(page, "Builds")
    log = builds.locator(".log")
    _line(builds, job.id).get_by_text("► running").wait_for()
    builds.get_by_text("compile layers").last.wait_for()
    log.get_by_text(f"loading {SCRIPT}").wait_for()

    # The log and the stages move on while we look.
    compiling.open()
    log.get_by_text("compiled").wait_for()
    builds.locator("td", has_text="write engine").first.wait_for()
    writing.wait_reached()

    # The same job in a page that was loaded again, and in a kernel that knows nothing of it.
    page.reload()
    page.run_all()
    _line(builds, job.id).get_by_text("► running").wait_for()
    page.restart_kernel()
    page.run_all()
    assert page.value("builds.job_id") == job.id
    _line(builds, job.id).get_by_text("► running").wait_for()
    writing.open()
    log.get_by_text("half written").wait_for()
    builds.get_by_text(re.compile("done in .*: engine")).wait_for()
    _line(builds, job.id).get_by_text("✓ done").wait_for()
    _line(builds, job.id).get_by_text(faulty.identity().key).wait_for()
    assert [found.id for found in jobs.list_jobs()] == [job.id]
    assert page.page.evaluate("window.struck") is None


def test_wait_cancel_retry_and_leave(faulty: Faulty, builds_lab: Lab, page: LabPage) -> None:
    gate = faulty.gate()
    first = job_of(faulty.start(fault("compile", "stall", until=gate), seed=1))
    gate.wait_reached()
    refused = fault("compile", "refuse", text=f"No {SCRIPT} precision.")
    second = job_of(faulty.start(refused, seed=2))
    until(lambda: second.state() == "waiting")
    page.run_all()
    builds = _panel(page, "Builds")

    # With the keyboard: the newest has the focus first, and the arrow goes to the one before.
    _line(builds, second.id).get_by_role("button").focus()
    page.page.keyboard.press("Enter")
    place = f"place 1 in the queue for the processor, behind the job {first.id}"
    builds.get_by_text(f"waiting: {place}").wait_for()
    page.page.keyboard.press("ArrowDown")
    page.page.keyboard.press("Enter")
    builds.get_by_role("heading", name=f"Job {first.id}").wait_for()

    # Cancel ends it, and the one that waited goes on; its error shows as characters.
    _press(builds, "Cancel")
    _line(builds, first.id).get_by_text("■ cancelled").wait_for()
    assert first.state() == "cancelled"
    _line(builds, second.id).get_by_text("✗ failed").wait_for()
    _line(builds, second.id).click()
    builds.locator(".error").get_by_text(f"No {SCRIPT} precision.").wait_for()
    assert page.page.evaluate("window.struck") is None

    # Retry starts the next attempt, which outlives page, kernel and JupyterLab.
    _line(builds, first.id).click()
    _press(builds, "Retry")
    again = Job.named(f"{first.id.rpartition('-')[0]}-002")
    _line(builds, again.id).get_by_text("► running").wait_for()
    builds.get_by_role("heading", name=f"Job {again.id}").wait_for()
    builds_lab.end_server()
    assert again.state() == "running"
    gate.open()
    assert again.wait(30).state() == "done"


def test_engines_are_verified_pinned_and_removed(faulty: Faulty, page: LabPage) -> None:
    kept, damaged = (faulty.start(seed=seed).wait() for seed in range(2))
    page.run_all()
    engines = _panel(page, "Engines")
    _line(engines, kept.key).click()
    _press(engines, "Verify")
    engines.get_by_text(f"Every byte of {kept.key} is what was published").wait_for()
    _press(engines, "Pin")
    _line(engines, kept.key).get_by_text("it is pinned").wait_for()
    assert usage.is_pinned(kept.key)
    _press(engines, "Evict")
    engines.get_by_role("button", name=re.compile("Remove .* for good")).click()
    engines.get_by_role("alert").get_by_text("was not removed: it is pinned").wait_for()
    _press(engines, "Unpin")
    _press(engines, "Evict")
    engines.get_by_role("button", name=re.compile("Remove .* for good")).click()
    _line(engines, kept.key).wait_for(state="detached")
    assert not kept.path.exists()

    file = damaged.path / "engine.bin"
    file.write_bytes(bytes(file.stat().st_size))
    # Two clicks at once: the button means the line that was chosen before it.
    _line(engines, damaged.key).click()
    _press(engines, "Verify")
    engines.get_by_role("alert").get_by_text("engine.bin is not what was published").wait_for()
    engines.get_by_text(re.compile(r"^\.damaged-")).wait_for()
    budget = engines.get_by_label("budget")
    budget.fill("1 GiB")
    budget.press("Tab")
    _press(engines, "Set budget")
    engines.get_by_text("of a budget of 1.00 GiB").wait_for()
    assert eviction.budget() == 1 << 30


def test_a_panel_out_of_sight_does_nothing(faulty: Faulty, page: LabPage) -> None:
    page.run_all()
    _panel(page, "Builds").get_by_text("There is no job yet.").wait_for()
    until(lambda: page.value("builds.table.shown"))
    page.command("notebook:hide-all-cell-outputs")
    until(lambda: not page.value("builds.table.shown"))
    job = job_of(faulty.start())
    job.wait()
    assert page.value("builds.table.rows") == []
    page.command("notebook:show-all-cell-outputs")
    _line(_panel(page, "Builds"), job.id).get_by_text("✓ done").wait_for()
