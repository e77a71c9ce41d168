"""Fixtures of the browser tests; `lab.py` beside it says what can be done with them."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack

import pytest
from playwright.sync_api import Browser, Error

from tests.browser.lab import Lab, LabPage, open_chromium


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say in the report of a failed test what its pages showed: it may fail elsewhere only."""
    report = yield
    if report.when == "call" and report.failed:
        for page in LabPage.opened:
            try:
                report.sections.append(("page", page.description()))
            except Error as error:
                report.sections.append(("page", f"{page.path}: {error}"))
    return report


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One JupyterLab for the whole run, over an empty folder."""
    folder, home = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("home")
    with Lab(folder, home) as server:
        yield server


# Not for the session: while a browser is open no other test could call asyncio.run.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser for the tests of one module."""
    with open_chromium() as browser:
        yield browser


@pytest.fixture
def open_notebook(lab: Lab, chromium: Browser) -> Iterator[Callable[..., LabPage]]:
    """Open a notebook by its path; afterwards its page is closed and its kernel shut down."""
    with ExitStack() as stack:

        def open_one(path: str, script: str = "") -> LabPage:
            page = stack.enter_context(LabPage(chromium, lab, path, script))
            stack.callback(page.shut_down_kernel)
            return page

        yield open_one
