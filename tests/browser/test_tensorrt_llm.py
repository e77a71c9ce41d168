"""The TensorRT-LLM notebook in a real browser, on a machine that stand-ins play."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.browser.lab import Lab, LabPage

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

pytestmark = pytest.mark.browser

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "10_tensorrt_llm.ipynb"
SECOND = 1000  # ms


@pytest.fixture
def gpu_lab(gpu_machine: dict[str, str], tmp_path: Path) -> Iterator[Lab]:
    """A JupyterLab on that machine, with an empty store."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    shutil.copy(NOTEBOOK, folder)
    variables = {**gpu_machine, "WORKBENCH_HOME": str(tmp_path / "workbench")}
    with Lab(folder, tmp_path / "lab", variables) as lab:
        yield lab


def _panel(page: LabPage, title: str) -> Locator:
    return page.page.locator(".workbench-panel", has=page.page.get_by_role("heading", name=title))


def _until(condition: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)


def test_run_all_change_a_folded_flag_build_again_switch_the_backend(
    gpu_lab: Lab, chromium: Browser
) -> None:
    page = LabPage(chromium, gpu_lab, NOTEBOOK.name)
    page.page.set_viewport_size({"width": 1000, "height": 3600})
    page.run_all()
    form, build = _panel(page, "Build parameters"), page.page.locator(".workbench-panel").nth(1)
    stream = _panel(page, "Stream")
    stream.get_by_text("finished").wait_for(timeout=90 * SECOND)
    build.get_by_text(re.compile("done in")).wait_for()
    form.get_by_text("max_seq_len = 512 + 512 = 1024 is used").first.wait_for()
    first = page.value("build.engine.key")

    # A flag that few people need: folded, and there when it is asked for.
    assert not form.get_by_label("logits_dtype").is_visible()
    form.get_by_text("Advanced", exact=True).click()
    form.get_by_label("logits_dtype").select_option("float32")
    form.get_by_text("Show commands").click()
    form.get_by_text("--logits_dtype float32").wait_for()
    build.get_by_role("button", name="Build").click()
    _until(lambda: page.value("build.engine.key") != first)

    # The other backend has another form; what both know is kept.
    form.get_by_label("backend", exact=True).select_option(label="OpenVINO GenAI on CPU")
    form.get_by_label("enable_prefix_caching").wait_for()
    assert form.get_by_label("max_batch_size").input_value() == "8"
    assert form.get_by_text("logits_dtype").count() == 0
    page.shut_down_kernel()
    page.close()
