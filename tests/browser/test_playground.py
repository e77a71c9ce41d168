"""The panels that ask engines, in a real browser: what a page shows, loses and gets back.

The engine is the demo model's. Where a test has to come in the middle of a stream, a scripted
server holds the stream there, or the engine's worker is stopped: nothing here depends on time.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from axe_playwright_python.sync_playwright import Axe

from tests.browser.lab import Lab, LabPage
from tests.faults import until
from tests.servers.scripted import DONE, Connection, delta, event, nowhere, scripted
from workbench.engine import Engine

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator

pytestmark = pytest.mark.browser

CREATE = """
import os, signal, threading, time
import psutil
import workbench as wb
from workbench import store

engine, = store.list_engines()
longer = {"max_output_len": 1900, "max_seq_len": 1980, "kv_blocks": 130}

def hold(tokens):
    # Stops the worker when the answer has so many tokens. The engine is done in a second or two.
    before = panel._generation
    def run():
        while panel._generation is before or len(panel._generation.token_ids) < tokens:
            time.sleep(0.001)
        os.kill(panel._session.pid, signal.SIGSTOP)
    threading.Thread(target=run, daemon=True).start()
"""


@pytest.fixture(scope="module")
def play_lab(tmp_path_factory: pytest.TempPathFactory, demo_engine: Engine) -> Iterator[Lab]:
    """A JupyterLab whose store has one engine."""
    folder, home = tmp_path_factory.mktemp("notebooks"), tmp_path_factory.mktemp("lab")
    store = tmp_path_factory.mktemp("play")
    shutil.copytree(demo_engine.path, store / "engines" / demo_engine.key)
    with Lab(folder, home, {"WORKBENCH_HOME": str(store)}) as lab:
        yield lab


@pytest.fixture
def open_cells(
    play_lab: Lab, chromium: Browser, request: pytest.FixtureRequest
) -> Iterator[Callable[..., LabPage]]:
    """Write a notebook of cells, open it and run it; its kernel ends with the test."""
    pages = []

    def open_one(*cells: str) -> LabPage:
        path = play_lab.write_notebook(f"{request.node.name}.ipynb", *cells)
        page = LabPage(chromium, play_lab, path)
        pages.append(page)
        # Lab renders what is in view; a tall page keeps all panels there.
        page.page.set_viewport_size({"width": 1000, "height": 3000})
        page.run_all()
        return page

    yield open_one
    for page in pages:
        page.shut_down_kernel()
        page.close()


def panel_of(page: LabPage, title: str) -> Locator:
    heading = page.page.get_by_role("heading", name=title, exact=True, level=3)
    return page.page.locator(".workbench-panel", has=heading)


def text_of(log: Locator) -> str:
    return log.text_content() or ""


def check_accessible(page: LabPage, title: str) -> None:
    """Let axe look at a panel alone: what is around it is JupyterLab's."""
    panel_of(page, title).evaluate("panel => panel.setAttribute('data-checked', '')")
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
    results = Axe().run(page.page, context="[data-checked]", options=rules)
    assert results.response["violations"] == [], results.generate_report()
    panel_of(page, title).evaluate("panel => panel.removeAttribute('data-checked')")


def fill(panel: Locator, label: str, value: str) -> None:
    field = panel.get_by_label(label, exact=True)
    field.fill(value)
    field.press("Tab")


def stop_in_mid_stream(page: LabPage, panel: Locator) -> None:
    send, stop = (panel.get_by_role("button", name=n, exact=True) for n in ("Send", "Stop"))
    log = panel.get_by_role("log")
    before = text_of(log)
    page.execute("panel.load(engine.under({**engine.limits, **longer}))")
    panel.get_by_text("output up to 1900").wait_for()
    fill(panel, "max_tokens", "1900")
    panel.get_by_label("ignore_eos").check()
    page.execute("hold(20)")
    send.click()
    until(lambda: text_of(log) not in ("", before))
    until(lambda: page.value("psutil.Process(panel._session.pid).status()") == "stopped")
    stop.click()
    page.execute("os.kill(panel._session.pid, signal.SIGCONT)")
    panel.get_by_text("stopped", exact=True).wait_for()
    until(lambda: send.is_enabled() and not stop.is_enabled())
    assert page.value("panel.record['output_tokens']") < 1900
    until(lambda: text_of(log) == page.value("panel.record['text']"))
    until(lambda: page.value("panel._session.active") == 0)


def take_another_sample(page: LabPage, panel: Locator) -> None:
    """Ask once more, for two samples, and make the second one the answer."""
    fill(panel, "n", "2")
    fill(panel, "temperature", "1.5")
    log, count = panel.get_by_role("log"), page.value("len(panel.records)")
    panel.get_by_role("button", name="Send", exact=True).click()
    until(lambda: page.value("len(panel.records)") > count and page.value("panel._idle.is_set()"))
    texts = page.value("[one['text'] for one in (panel.record, *panel.record['samples'])]")
    assert len(set(texts)) == 2
    until(lambda: [text_of(one) for one in log.all()] == texts)
    panel.get_by_role("button", name="Take this one").click()
    until(lambda: [text_of(one) for one in log.all()] == texts[::-1])
    assert page.value("panel.conversation.turns[-1].answered") == texts[1]


def test_open_send_stop_edit_and_regenerate(
    open_cells: Callable[..., LabPage], demo_engine: Engine
) -> None:
    page = open_cells(CREATE, "panel = wb.PlaygroundPanel(max_tokens=24, seed=1)\npanel")
    panel = panel_of(page, "Playground")
    send = panel.get_by_role("button", name="Send", exact=True)
    log = panel.get_by_role("log")
    assert not send.is_enabled()
    opened = panel.get_by_text(re.compile(f"engine {demo_engine.key} .* memory"))
    panel.get_by_role("button", name="Open engine").click()
    opened.wait_for()

    send.click()
    panel.get_by_text("finished", exact=True).wait_for()
    until(lambda: text_of(log) == page.value("panel.record['text']"))
    first = text_of(log)
    assert first.startswith("Latency is kind")
    check_accessible(page, "Playground")

    stop_in_mid_stream(page, panel)

    # The first turn in other words; the second one goes with it.
    fill(panel, "max_tokens", "24")
    panel.get_by_role("button", name="Edit", exact=True).first.click()
    prompt = panel.get_by_placeholder("What to ask")
    until(lambda: prompt.input_value() == "write a haiku about latency")
    prompt.fill("tell me a joke")
    prompt.press("Tab")
    panel.get_by_label("ignore_eos").uncheck()
    send.click()
    until(
        lambda: (
            page.value("[turn.asked for turn in panel.conversation.turns]") == ["tell me a joke"]
        )
    )
    until(lambda: text_of(log) == page.value("panel.record['text']"))
    joke = text_of(log)
    panel.get_by_role("button", name="Regenerate").click()
    until(lambda: page.value("len(panel.records)") == 4)
    panel.get_by_text("finished", exact=True).wait_for()
    until(lambda: text_of(log) == joke)

    take_another_sample(page, panel)

    # The cell again: its old panel lets go, and the engine stays for whoever opens it next.
    page.execute("old, pid = panel, panel._session.pid")
    page.run_all()
    assert page.value("old._session") is None
    page.execute("panel.load(old._source)")
    opened.wait_for()
    assert page.value("panel._session.pid == pid")


def halves(connection: Connection) -> None:
    """Give half of an answer, and the rest when the test says so."""
    connection.stream(delta("half of an "), end=False)
    assert connection.until.wait(60)
    for piece in (delta("answer <b>\U0001f600</b>"), delta(reason="stop"), event(USAGE), DONE):
        connection.piece(piece)
    connection.send(b"0\r\n\r\n")


USAGE = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}
WHOLE = "half of an answer <b>\U0001f600</b>"


def test_a_wrong_address_a_reload_in_mid_stream_and_a_new_kernel(
    open_cells: Callable[..., LabPage],
) -> None:
    page = open_cells(CREATE, "panel = wb.PlaygroundPanel()\npanel")
    panel = panel_of(page, "Playground")
    log, alert = panel.get_by_role("log"), panel.get_by_role("alert")
    connect = panel.get_by_role("button", name="Connect")
    with scripted(halves) as server, nowhere() as free:
        for url, words in (("ftp://x", "is no URL of http"), (free, "Nothing listens at")):
            fill(panel, "endpoint", url)
            connect.click()
            alert.get_by_text(words).wait_for()
        assert panel.get_by_text("looking for").count() == 0
        fill(panel, "endpoint", server.url)
        connect.click()
        panel.get_by_text(f"endpoint {server.url}").wait_for()
        alert.wait_for(state="hidden")

        panel.get_by_role("button", name="Send", exact=True).click()
        until(lambda: text_of(log) == "half of an ")
        page.save()
        page.reload()
        page.page.set_viewport_size({"width": 1000, "height": 3000})
        until(lambda: log.count() == 1 and text_of(log) == "half of an ")
        server.until.set()
        panel.get_by_text("finished", exact=True).wait_for()
        until(lambda: text_of(log) == WHOLE)
        assert page.value("panel.record['text']") == WHOLE

        # A new kernel knows nothing of the panel, which says so until its cell runs again.
        page.restart_kernel()
        lost = "e => getComputedStyle(e, '::before').content"
        until(lambda: "has lost its kernel" in panel.evaluate(lost))
        page.run_all()
        until(lambda: panel.count() == 1 and "lost" not in panel.evaluate(lost))
        fill(panel, "endpoint", server.url)
        connect.click()
        panel.get_by_text(f"endpoint {server.url}").wait_for()
        # What it was answered before is on the disk.
        earlier = panel.get_by_label("earlier", exact=True)
        until(lambda: earlier.locator("option").count() == 2)
        earlier.select_option(index=1)
        panel.locator("pre", has_text=WHOLE).wait_for()
        panel.get_by_role("button", name="Send", exact=True).click()
        until(lambda: text_of(log) == WHOLE)


def test_many_streams_and_two_engines_side_by_side(open_cells: Callable[..., LabPage]) -> None:
    page = open_cells(
        CREATE,
        "many = wb.ManyPanel(engine, prompts=['a', 'b', 'c'], count=6, max_tokens=12)\nmany",
        "small = engine.under({**engine.limits, 'max_output_len': 100})\n"
        "sides = wb.SideBySidePanel([engine, small], max_tokens=12)\nsides",
    )
    many = panel_of(page, "Many at once")
    many.get_by_role("button", name="Send", exact=True).click()
    many.get_by_text(re.compile(r"6 streams · \d+ tokens · .* tokens/s together")).wait_for()
    many.get_by_role("button", name="Stop").and_(page.page.locator(":disabled")).wait_for()
    assert many.get_by_text("finished", exact=True).count() == 6
    assert page.value("many.records[0]['streams']") == 6
    check_accessible(page, "Many at once")

    sides = panel_of(page, "Side by side")
    sides.get_by_role("button", name="Compare").click()
    sides.get_by_text(re.compile(r"1 of 1 answers are the same \(100%\)")).wait_for()
    logs = sides.get_by_role("log")
    for number in range(2):
        until(lambda number=number: text_of(logs.nth(number)).startswith("Latency is kind"))
    check_accessible(page, "Side by side")
