"""The build form as a person uses it: mouse, keyboard alone, narrow and dark."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Error, expect

from tests.browser.lab import Lab, LabPage

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Locator

pytestmark = pytest.mark.browser

CUT = """(panel) => [...panel.querySelectorAll("label, button, span, select, .finding, .quiet")]
  .filter((e) => e.clientWidth > 0 && e.scrollWidth > e.clientWidth + 1
    && getComputedStyle(e).overflowX !== "visible")
  .map((e) => e.textContent)"""
"""The texts that are cut off at their right."""

WIDTHS = {"Light": ((1400, 900), (700, 584), (1400, 900), (900, 720)), "Dark": ((900, 720),)}
"""Of the page, and of the form in it; a theme changes no width, so one goes through them all."""

WIDTH = "() => document.querySelector('.workbench-panel.workbench-form').offsetWidth"
OUTSIDE = """() => {
  const right = (e) => e.getBoundingClientRect().right;
  const page = right(document.querySelector(".jp-WindowedPanel-outer"));
  return [...document.querySelectorAll(".workbench-panel")].flatMap((panel) =>
    [panel, ...panel.querySelectorAll("input, select, textarea, button, label, .main-svg")]
      .filter((e) => e.clientWidth > 0 && right(e) > Math.min(right(panel), page) + 1)
      .map((e) => `${panel.querySelector("h3").textContent}: ${e.tagName} ${e.textContent}`));
}"""
"""What reaches beyond the right edge of its panel or of the page."""

PANELS = """import workbench as wb
from IPython.display import display
spec = wb.make_spec()
build = wb.BuildPanel(spec)
server = wb.Server(("python", "-m", "http.server", "--with=" + 200 * "x"), "http://127.0.0.1:9")
sweep = wb.SweepPanel({"spec": spec.model_dump(), "points": [{}]})
panels = [build, wb.StreamPanel(build), wb.PlaygroundPanel(build), wb.ManyPanel(build),
          wb.SideBySidePanel([build, build]), sweep, wb.ComparePanel(), wb.JobsPanel(),
          wb.StorePanel(), wb.ServePanel(server)]
display(*panels)"""
"""All other panels, before anything is done in them."""


@pytest.fixture(scope="module")
def form_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder, home = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("lab")
    store = tmp_path_factory.mktemp("store")
    with Lab(folder, home, {"WORKBENCH_HOME": str(store)}) as lab:
        yield lab


def _open(lab: Lab, chromium: Browser, name: str, made: str, *more: str) -> LabPage:
    lab.write_notebook(name, f"import workbench as wb\nform = {made}\nform", *more)
    page = LabPage(chromium, lab, name)
    page.page.set_viewport_size({"width": 1000, "height": 2600})
    page.command("application:toggle-left-area")
    page.run_all()
    return page


def _field(page: LabPage, name: str) -> Locator:
    return page.page.locator(".workbench-field", has=page.page.get_by_label(name))


def _enter(page: LabPage, name: str, text: str) -> None:
    control = page.page.get_by_label(name)
    control.fill(text)
    control.press("Tab")


def test_change_mend_reset_and_paste(form_lab: Lab, chromium: Browser, tmp_path: Path) -> None:
    page = _open(form_lab, chromium, "form.ipynb", "wb.BuildForm()")
    panel = page.page.locator(".workbench-panel")
    head = panel.locator(".workbench-head")
    fits = head.get_by_text(re.compile("Fits: .* the KV cache holds 4,096 tokens"))
    fits.wait_for()
    # What a change means stays in view, however far down the field is.
    panel.get_by_text("last updated").scroll_into_view_if_needed()
    panel.get_by_label("threads").scroll_into_view_if_needed()
    expect(head).to_be_in_viewport(ratio=0.99)
    places = panel.get_by_label("threads").bounding_box()

    # A finding and the fit follow a change; what stands below stays where it is.
    _enter(page, "max_input_len", "4000")
    refused = _field(page, "max_seq_len")
    refused.get_by_text("beyond the model's context of 2048").first.wait_for()
    fits.wait_for(state="detached")
    expect(panel.get_by_text("1 field needs attention: max_seq_len")).to_be_visible()
    assert panel.get_by_label("threads").bounding_box() == places
    refused.get_by_role("button", name="Fix").click()
    expect(panel.get_by_label("max_seq_len")).to_have_value("2048")
    refused.get_by_text("beyond the model's context").first.wait_for(state="detached")

    # What is too long for its place opens over what stands below.
    places = panel.get_by_label("threads").bounding_box()
    _enter(page, "model", "/no/such/folder/" + "x" * 200)
    more = _field(page, "model").get_by_text("show all of it")
    expect(more).to_be_visible()
    end = _field(page, "model").get_by_text("id of the form owner/name.").last
    expect(end).to_be_hidden()
    _field(page, "model").locator("summary").focus()
    page.page.keyboard.press("Enter")
    expect(end).to_be_in_viewport(ratio=0.99)
    assert panel.get_by_label("threads").bounding_box() == places
    _enter(page, "model", "demo")
    expect(more).to_be_hidden()

    # Back to the default of one, then of all.
    _field(page, "max_input_len").get_by_role("button", name="↺").click()
    expect(panel.get_by_label("max_input_len")).to_have_value("512")
    panel.get_by_role("button", name="Reset all").click()
    expect(panel.get_by_label("max_seq_len")).to_have_value("")
    fits.wait_for()

    # A wrong value is said beside its field, as everywhere.
    _enter(page, "max_batch_size", "many")
    alert = _field(page, "max_batch_size").get_by_role("alert")
    expect(alert).to_have_text("max_batch_size must be a whole number from 1 to 256; got 'many'.")

    # A pasted spec is shown; a wrong one is a sentence, and changes nothing.
    panel.get_by_text("Copy, paste, save").click()
    panel.get_by_label("paste").fill('max_batch_size = 3\nquantization = "int4"')
    panel.get_by_role("button", name="Use it").click()
    expect(panel.get_by_label("max_batch_size")).to_have_value("3")
    expect(panel.get_by_label("spec", exact=True)).to_have_value(re.compile("max_batch_size = 3"))
    panel.get_by_label("paste").fill("max_bach_size = 4")
    panel.get_by_role("button", name="Use it").click()
    panel.get_by_text("Did you mean 'max_batch_size'?").wait_for()
    assert page.value("form.spec.max_batch_size") == 3
    page.shut_down_kernel()
    page.close()


def test_the_keyboard_alone_reaches_everything_and_leaves_again(
    form_lab: Lab, chromium: Browser
) -> None:
    page = _open(form_lab, chromium, "keys.ipynb", "wb.BuildForm()")
    panel = page.page.locator(".workbench-panel")
    panel.get_by_label("backend", exact=True).focus()
    seen = []
    for _ in range(60):
        page.page.keyboard.press("Tab")
        inside, name = page.page.evaluate(
            """() => { const e = document.activeElement;
              return [Boolean(e.closest(".workbench-panel")), e.labels?.[0]?.textContent.trim()
                ?? e.textContent.trim()]; }"""
        )
        if not inside:
            break
        seen.append(name)
        if name.startswith("max_batch_size"):
            page.page.keyboard.press("Control+a")
            page.page.keyboard.type("7")
    assert not inside, "the keyboard is trapped"
    names = page.value("[f.control.description for f in form._fields.values()]")
    shown = panel.locator(".workbench-field label:visible:not(:empty)").all_inner_texts()
    assert set(names) <= set(seen)
    assert [name for name in seen if name in names] == [n.strip() for n in shown if n.strip()]
    assert {"throughput", "latency", "long context", "smallest memory", "Reset all"} <= set(seen)
    # The way back of what was changed stands right after it.
    assert page.value("form.spec.max_batch_size") == 7
    panel.get_by_label("max_batch_size").focus()
    page.page.keyboard.press("Tab")
    page.page.keyboard.press("Enter")
    expect(panel.get_by_label("max_batch_size")).to_have_value("4")
    page.shut_down_kernel()
    page.close()


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_nothing_is_cut_at_900_pixels(form_lab: Lab, chromium: Browser, theme: str) -> None:
    made = (
        "wb.BuildForm(wb.make_spec(backend='tensorrt_llm', max_output_len=512, "
        "max_num_tokens=20000), device='H200 SXM 141GB', gpu_count=2)"
    )
    page = _open(form_lab, chromium, f"{theme}.ipynb", made, PANELS)
    page.set_theme(theme)
    page.execute("form._fit.what_if.value = True")
    panel = page.page.locator(".workbench-panel.workbench-form")
    panel.locator(".workbench-head").get_by_text(re.compile("Fits: ")).wait_for()
    # What is drawn follows the page: first as wide as a panel gets, then narrow, and back.
    for width, drawn in WIDTHS[theme]:
        page.page.set_viewport_size({"width": width, "height": 9000})
        panel.locator(".main-svg").nth(-1).wait_for()
        with contextlib.suppress(Error):  # too late, and the assertions say more
            page.page.wait_for_function(f"w => Math.abs(({WIDTH})() - w) <= 30", arg=drawn)
            page.page.wait_for_function(f"() => !({OUTSIDE})().length")
        assert page.page.evaluate(WIDTH) == pytest.approx(drawn, abs=30)
        assert page.page.evaluate(OUTSIDE) == []
    # Folded groups open with the keyboard.
    folded = panel.get_by_role("button", name="Advanced")
    folded.focus()
    page.page.keyboard.press("Enter")
    panel.get_by_label("disable_weight_only_quant_plugin").wait_for()
    assert panel.evaluate(CUT) == []
    # Whatever can be chosen or typed has a name.
    nameless = panel.evaluate(
        """(panel) => [...panel.querySelectorAll("input, select, textarea")]
          .filter((e) => !e.labels?.length || !e.labels[0].textContent.trim()).length"""
    )
    assert nameless == 0
    assert json.dumps(page.value("form.faults")) == "{}"
    page.shut_down_kernel()
    page.close()


LOST = """(lost) => getComputedStyle(document.querySelector(".workbench-panel"), "::before")
  .content.includes("lost its kernel") === lost"""


def test_a_panel_that_lost_its_kernel_says_so(form_lab: Lab, chromium: Browser) -> None:
    page = _open(form_lab, chromium, "lost.ipynb", "wb.BuildForm()")
    page.page.wait_for_function(LOST, arg=False)
    page.restart_kernel()
    page.page.wait_for_function(LOST, arg=True)
    page.run_all()
    page.page.wait_for_function(LOST, arg=False)
    page.shut_down_kernel()
    page.close()
