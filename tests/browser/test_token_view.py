from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.bare import CONTRAST, LOG, PAINTED
from tests.browser.lab import Lab, LabPage

pytestmark = pytest.mark.browser

Write = Callable[[str], str]
Open = Callable[..., LabPage]

PHASE = ".wb-tokens-phase"

CREATE = """
import threading, time
from workbench.widgets.tokens import TokenView
view = TokenView("demo engine", heat=True)
view
"""
# Streams in a thread, as a session does, and lets the cell return.
STREAM = """
def stream(count, pause):
    words = ["alpha ", "beta, ", "gamma\\n", "\\N{GRINNING FACE} ", "<b>d</b> "]
    for number in range(count):
        view.append(words[number % 5], [-0.4 * (number % 7)])
        view.status("decode", tokens=number + 1)
        if pause:
            time.sleep(pause)
    view.finish("finished", tokens=count)

def start(count, pause):
    view.reset("demo engine")
    thread = threading.Thread(target=stream, args=(count, pause))
    thread.start()
    return thread
"""


def wait_for_phase(page: Page, phase: str, nth: int = 0) -> None:
    page.locator(PHASE).nth(nth).get_by_text(phase, exact=True).wait_for()


def wait_for_colour(page: Page, level: int, pieces: list[str]) -> None:
    """Colours follow the text by a frame or two."""
    page.wait_for_function(
        f"([name, pieces]) => JSON.stringify(({PAINTED})(name)) === JSON.stringify(pieces)",
        arg=[f"wb-heat-{level}", pieces],
    )


def shown(page: Page, nth: int = 0) -> str:
    return page.locator(LOG).nth(nth).text_content() or ""


@pytest.fixture
def notebook(lab: Lab, request: pytest.FixtureRequest) -> Write:
    """Return a function that writes a notebook with a view and one more cell."""

    def write(cell: str) -> str:
        return lab.write_notebook(f"{request.node.name}.ipynb", CREATE, STREAM, cell)

    return write


def test_the_text_is_exact(notebook: Write, open_notebook: Open) -> None:
    lab_page = open_notebook(notebook("thread = start(600, 0.005)"))
    lab_page.run_all()
    for count in (600, 10_000):
        lab_page.page.get_by_text(f"tokens {count:,}").wait_for()
        wait_for_phase(lab_page.page, "finished")
        text = shown(lab_page.page)
        assert text == lab_page.value("view.text")
        assert text.count("alpha ") == count / 5
        lab_page.execute("thread.join(); start(10_000, 0)")


def test_a_reload_in_mid_stream_shows_what_came_before_and_after(
    notebook: Write, open_notebook: Open
) -> None:
    lab_page = open_notebook(notebook("go = threading.Event()"))
    lab_page.run_all()
    lab_page.execute("view.append('before ', [-0.5]); view.append('the reload, ', [-5])")
    lab_page.page.get_by_text("before the reload").wait_for()
    lab_page.save()
    lab_page.reload()
    lab_page.page.get_by_text("before the reload").wait_for()
    lab_page.execute("view.append('after ', [-0.5]); view.append('it', [-9, -5])")
    lab_page.execute("view.finish('finished')")
    wait_for_phase(lab_page.page, "finished")
    assert shown(lab_page.page) == "before the reload, after it"
    wait_for_colour(lab_page.page, 1, ["before ", "after "])
    wait_for_colour(lab_page.page, 4, ["the reload, ", "it"])


# As in a page that was busy for 2 s just then: anywidget waits for a module no longer.
BUSY = """
const timeout = AbortSignal.timeout;
const over = { addEventListener: (_, late) => { window.late = true; late(); } };
AbortSignal.timeout = (ms) => ms === 2000 ? over : timeout.call(AbortSignal, ms);
"""


def test_two_views_in_a_page_and_a_second_tab_show_the_same(
    notebook: Write, open_notebook: Open
) -> None:
    path = notebook("view.append('shared so far, ')")
    first = open_notebook(path)
    first.run_all()
    first.page.locator(".jp-CodeCell").first.click()
    first.command("notebook:create-output-view")
    first.page.locator(LOG).nth(1).wait_for()
    first.save()
    second = open_notebook(path, BUSY)
    second.page.locator(LOG).wait_for()
    wait_for_phase(second.page, "decode")
    assert second.page.evaluate("window.late"), "anywidget waited otherwise than it did"

    first.execute("stream(200, 0.005)")
    for page, nth in ((first.page, 0), (first.page, 1), (second.page, 0)):
        wait_for_phase(page, "finished", nth)
        assert shown(page, nth) == first.value("view.text")


LIMIT = "--ZMQChannelsWebsocketConnection.iopub_msg_rate_limit=200"


def test_messages_that_the_server_drops_are_asked_for_again(
    tmp_path: Path, chromium: Browser
) -> None:
    # The server forwards so many messages a second, counted over 3 seconds, and drops the rest. A
    # neighbour uses that up, so that what follows is lost with the end of the stream. By default
    # the limit is 1000, which a busy machine does not reach.
    folder, home = tmp_path / "notebooks", tmp_path / "lab"
    folder.mkdir()
    home.mkdir()
    with Lab(folder, home, options=[LIMIT]) as lab:
        lab.write_notebook("dropped.ipynb", CREATE, STREAM, "noise = TokenView()")
        with LabPage(chromium, lab, "dropped.ipynb") as lab_page:
            _lose_and_recover(lab, lab_page)
            lab_page.shut_down_kernel()


def _lose_and_recover(lab: Lab, lab_page: LabPage) -> None:
    lab_page.run_all()
    lab_page.execute("view.reset('demo engine'); view.append('before, ')")
    lab_page.page.get_by_text("before, ").wait_for()
    dropped = lab.log().count("IOPub message rate exceeded")
    lab_page.execute("""
for _ in range(5000):
    noise.send({"kind": "noise"})
stream(50, 0.002)
""")
    wait_for_phase(lab_page.page, "finished")
    assert lab.log().count("IOPub message rate exceeded") > dropped, "nothing was lost to recover"
    assert shown(lab_page.page) == lab_page.value("view.text")


def test_a_notebook_that_ran_headless_shows_text_and_status(lab: Lab, open_notebook: Open) -> None:
    cell = "thread = threading.Thread(target=stream, args=(50, 0)); thread.start(); thread.join()"
    lab.write_notebook("source.ipynb", CREATE, STREAM, cell, "view")
    lab.run("-m", "papermill", "source.ipynb", "ran.ipynb", "--no-progress-bar")
    text = "alpha beta, gamma\n\N{GRINNING FACE} <b>d</b> " * 10
    [output] = lab.read_notebook("ran.ipynb").cells[3].outputs
    assert output.data["text/plain"] == f"demo engine · finished · tokens 50\n{text}"

    lab.trust("ran.ipynb")
    lab_page = open_notebook("ran.ipynb")  # with a kernel that never saw the view
    wait_for_phase(lab_page.page, "finished")
    assert shown(lab_page.page) == text
    assert lab_page.page.locator(".wb-tokens-value").first.text_content() == "50"


def test_everything_is_readable_in_both_themes(notebook: Write, open_notebook: Open) -> None:
    cell = "view.append('text', [-1]); view.finish('finished', tokens=1)"
    lab_page = open_notebook(notebook(cell))
    lab_page.run_all()
    wait_for_phase(lab_page.page, "finished")
    for theme in ("Light", "Dark"):
        lab_page.set_theme(theme)
        for selector in (LOG, PHASE, ".wb-tokens-title", ".wb-tokens-fact", ".wb-tokens-value"):
            ratio = lab_page.page.locator(selector).first.evaluate(CONTRAST)
            assert ratio >= 4.5, f"{selector} has contrast {ratio:.1f}"  # WCAG 2.1, 1.4.3
        for level in (1, 2, 3, 4):
            sample = lab_page.page.locator(f".wb-heat-{level}")
            ratio = sample.evaluate(CONTRAST)
            assert ratio >= 4.5, f"bucket {level} has contrast {ratio:.1f}"
