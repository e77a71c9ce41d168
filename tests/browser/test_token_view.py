from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page

import workbench.widgets
from tests.browser.lab import Lab, LabPage
from workbench.widgets.tokens import Message

pytestmark = pytest.mark.browser

Write = Callable[[str], str]
Open = Callable[[str], LabPage]

STATIC = Path(workbench.widgets.__file__).parent / "static"
LOG = ".wb-tokens-log"
PHASE = ".wb-tokens-phase"
AT_END = "log => log.scrollHeight - log.clientHeight - log.scrollTop <= 1"

CREATE = """
import threading, time
from workbench.widgets.tokens import TokenView
view = TokenView("demo engine")
view
"""
# Streams in a thread, as a session does, and lets the cell return.
STREAM = """
def stream(count, pause):
    words = ["alpha ", "beta, ", "gamma\\n", "\\N{GRINNING FACE} ", "<b>d</b> "]
    for number in range(count):
        view.append(words[number % 5])
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
AWKWARD = (
    "<script>window.ran = true</script><img src=x onerror='window.ran = true'> &amp; &lt;\n"
    "\x1b[31mred\x1b[0m \x00 \r\n\ttab  two spaces   \n\n\n"
    "e\u0301 \U0001f469\u200d\U0001f469\u200d\U0001f467 \u05e9\u05dc\u05d5\u05dd, 42! $x^2$ "
    + "long"
    * 200
)


def wait_for_phase(page: Page, phase: str, nth: int = 0) -> None:
    page.locator(PHASE).nth(nth).get_by_text(phase, exact=True).wait_for()


def shown(page: Page, nth: int = 0) -> str:
    return page.locator(LOG).nth(nth).text_content() or ""


@pytest.fixture
def notebook(lab: Lab, request: pytest.FixtureRequest) -> Write:
    """Return a function that writes a notebook with a view and one more cell."""

    def write(cell: str) -> str:
        return lab.write_notebook(f"{request.node.name}.ipynb", CREATE, STREAM, cell)

    return write


@pytest.mark.parametrize(("count", "pause"), [(600, 0.005), (10_000, 0)])
def test_the_text_is_exact(notebook: Write, open_notebook: Open, count: int, pause: float) -> None:
    lab_page = open_notebook(notebook(f"start({count}, {pause})"))
    lab_page.run_all()
    wait_for_phase(lab_page.page, "finished")
    text = shown(lab_page.page)
    assert text == lab_page.value("view.text")
    assert text.count("alpha ") == count / 5


def test_markup_and_odd_characters_are_shown_as_text(notebook: Write, open_notebook: Open) -> None:
    cell = f"view.append({AWKWARD!r})\nview.finish('finished', note='<b>x</b>')"
    lab_page = open_notebook(notebook(cell))
    lab_page.run_all()
    wait_for_phase(lab_page.page, "finished")
    assert shown(lab_page.page) == AWKWARD
    assert lab_page.page.locator(".wb-tokens-value").text_content() == "<b>x</b>"
    assert lab_page.page.evaluate("window.ran") is None
    log = lab_page.page.locator(LOG)
    assert log.evaluate("e => e.scrollWidth <= e.clientWidth"), "a long word is wrapped"


def test_a_reload_in_mid_stream_shows_what_came_before_and_after(
    notebook: Write, open_notebook: Open
) -> None:
    lab_page = open_notebook(notebook("go = threading.Event()"))
    lab_page.run_all()
    lab_page.execute("view.append('before the reload, ')")
    lab_page.page.get_by_text("before the reload").wait_for()
    lab_page.save()
    lab_page.reload()
    lab_page.page.get_by_text("before the reload").wait_for()
    lab_page.execute("view.append('after it'); view.finish('finished')")
    wait_for_phase(lab_page.page, "finished")
    assert shown(lab_page.page) == "before the reload, after it"


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
    second = open_notebook(path)
    second.page.locator(LOG).wait_for()

    first.execute("stream(200, 0.005)")
    for page, nth in ((first.page, 0), (first.page, 1), (second.page, 0)):
        wait_for_phase(page, "finished", nth)
        assert shown(page, nth) == first.value("view.text")


def test_messages_that_the_server_drops_are_asked_for_again(
    lab: Lab, notebook: Write, open_notebook: Open
) -> None:
    # The server forwards 1000 messages a second at most, counted over 3 seconds, and drops the
    # rest. A neighbour uses that up, so that what follows is lost with the end of the stream.
    lab_page = open_notebook(notebook("noise = TokenView()"))
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


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_everything_is_readable_in_both_themes(
    notebook: Write, open_notebook: Open, theme: Literal["Light", "Dark"]
) -> None:
    lab_page = open_notebook(notebook("view.append('text'); view.finish('finished', tokens=1)"))
    lab_page.run_all()
    lab_page.set_theme(theme)
    wait_for_phase(lab_page.page, "finished")
    for selector in (LOG, PHASE, ".wb-tokens-title", ".wb-tokens-fact", ".wb-tokens-value"):
        ratio = lab_page.page.locator(selector).first.evaluate(CONTRAST)
        assert ratio >= 4.5, f"{selector} has contrast {ratio:.1f}"  # WCAG 2.1, 1.4.3


CONTRAST = """(element) => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d');
  const luminance = (paints) => {  // of translucent colours painted one on another
    for (const paint of paints) { canvas.fillStyle = paint; canvas.fillRect(0, 0, 1, 1); }
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = getComputedStyle(element.closest('.wb-tokens')).backgroundColor;
  const pair = [luminance([paper]), luminance([paper, getComputedStyle(element).color])];
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}"""


# The module alone in an empty page, with a model that records what is asked of the kernel.
MOUNT = """async ([source, saved]) => {
  const url = URL.createObjectURL(new Blob([source], { type: 'text/javascript' }));
  const widget = (await import(url)).default();
  const handlers = {};
  window.asked = [];
  const model = {
    get: () => saved,
    on: (name, handler) => { handlers[name] = handler; },
    off: (name) => { delete handlers[name]; },
    send: (request) => { window.asked.push([request.epoch, request.have]); },
  };
  const close = widget.initialize({ model });
  const remove = widget.render({ model, el: document.body });
  window.deliver = (message) => handlers['msg:custom'](message);
  window.unmount = () => { remove(); close(); return Object.keys(handlers); };
}"""


def message(
    text: str = "",
    offset: int = 0,
    epoch: int = 1,
    total: int | None = None,
    phase: str = "decode",
) -> Message:
    return {
        "epoch": epoch,
        "offset": offset,
        "text": text,
        "total": total,
        "phase": phase,
        "facts": [],
    }


class Bare:
    """The browser's half of the view without a JupyterLab around it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        page.clock.install()
        page.set_content(f"<style>{(STATIC / 'tokens.css').read_text()}</style>")
        source = (STATIC / "tokens.js").read_text()
        page.evaluate(MOUNT, [source, message(epoch=0, total=0, phase="waiting")])
        assert self.asked() == [[0, 0]]  # on mount

    def deliver(self, *args: Any, **kwargs: Any) -> None:
        self.page.evaluate("m => window.deliver(m)", message(*args, **kwargs))

    def asked(self) -> Any:
        """What was asked of the kernel since the last call: pairs of epoch and length."""
        return self.page.evaluate("window.asked.splice(0)")


@pytest.fixture
def bare(chromium: Browser) -> Iterator[Bare]:
    context = chromium.new_context(viewport={"width": 800, "height": 600})
    yield Bare(context.new_page())
    context.close()


def test_a_gap_is_asked_for_once_and_the_overlap_of_an_answer_is_cut(bare: Bare) -> None:
    bare.deliver("a\N{GRINNING FACE}")
    bare.deliver("late", offset=5)
    bare.deliver("later", offset=9)
    assert bare.asked() == [[1, 2]]
    bare.deliver("\N{GRINNING FACE}bcdlatelater", offset=1)  # for another tab that had less
    bare.deliver("later", offset=9)
    assert shown(bare.page) == "a\N{GRINNING FACE}bcdlatelater"
    assert bare.asked() == []


def test_messages_of_an_older_stream_are_ignored_and_a_newer_one_starts_afresh(bare: Bare) -> None:
    bare.deliver("first")
    bare.deliver("second", epoch=2)
    bare.deliver(" tail of the first", offset=5, epoch=1)
    assert shown(bare.page) == "second"
    bare.deliver("middle of the third", offset=7, epoch=3)
    assert shown(bare.page) == ""
    assert bare.asked() == [[3, 0]]


def test_a_lost_end_is_found_by_looking_and_looking_stops_when_all_is_there(bare: Bare) -> None:
    bare.deliver("almost ")
    bare.page.clock.run_for(1_100)
    assert bare.asked() == [[1, 7]]
    bare.deliver("all", offset=7, total=10, phase="finished")
    bare.page.clock.run_for(60_000)
    assert bare.asked() == []
    assert shown(bare.page) == "almost all"


def test_looking_slows_down_and_the_panel_says_that_nothing_is_heard(bare: Bare) -> None:
    bare.deliver("text")
    silence = bare.page.locator(".wb-tokens-silence")
    bare.page.clock.run_for(8_000)
    assert not silence.is_visible()
    bare.page.clock.run_for(52_000)
    assert 5 <= len(bare.asked()) <= 10
    assert "Nothing heard from the kernel for" in (silence.text_content() or "")
    bare.deliver(" more", offset=4)
    assert not silence.is_visible()


def test_a_panel_that_never_gets_an_answer_says_so(bare: Bare) -> None:
    bare.page.clock.run_for(60_000)
    silence = bare.page.locator(".wb-tokens-silence")
    assert "Nothing heard from the kernel for" in (silence.text_content() or "")
    bare.deliver(epoch=0, phase="waiting")
    assert not silence.is_visible()
    bare.asked()
    bare.page.clock.run_for(60_000)
    assert bare.asked() == []


def test_an_end_without_all_the_text_is_not_taken_for_complete(bare: Bare) -> None:
    bare.deliver("some")
    bare.deliver("the end", offset=20, total=27, phase="finished")
    assert bare.asked() == [[1, 4]]
    bare.page.clock.run_for(1_100)
    assert bare.asked() == [[1, 4]]


def test_scrolling_up_lets_go_and_the_button_takes_hold_again(bare: Bare) -> None:
    page, log = bare.page, bare.page.locator(LOG)
    lines = "".join(f"line {number}\n" for number in range(200))
    bare.deliver(lines)
    page.clock.run_for(50)
    assert log.evaluate(AT_END)

    log.focus()
    page.keyboard.press("PageUp")
    button = page.get_by_role("button", name="Follow the end")
    button.wait_for()
    page.wait_for_function("""() => {
      const log = document.querySelector('.wb-tokens-log');
      const before = window.top_; window.top_ = log.scrollTop; return before === window.top_;
    }""")
    top = log.evaluate("e => e.scrollTop")
    bare.deliver(lines, offset=len(lines))
    page.clock.run_for(50)
    assert log.evaluate("e => e.scrollTop") == top

    button.click()
    page.clock.run_for(50)
    assert log.evaluate(AT_END)
    assert not button.is_visible()


def test_text_that_arrives_before_the_scroll_event_does_not_let_go(bare: Bare) -> None:
    lines = "".join(f"line {number}\n" for number in range(100))
    first, second = message(lines), message(lines, offset=len(lines))
    bare.page.evaluate(
        """async ([first, second]) => {
          const log = document.querySelector('.wb-tokens-log');
          const scrolled = new Promise((resolve) => log.addEventListener('scroll', resolve));
          window.deliver(first);
          log.scrollTop = log.scrollHeight;
          window.deliver(second);
          await scrolled;
        }""",
        [first, second],
    )
    bare.page.clock.run_for(50)
    assert bare.page.locator(LOG).evaluate(AT_END)


def test_the_page_gets_one_text_node_a_batch(bare: Bare) -> None:
    for number in range(100):
        bare.deliver("12345", offset=5 * number)
    nodes = bare.page.locator(LOG).evaluate(
        "e => [...e.children].reduce((sum, block) => sum + block.childNodes.length, 0)"
    )
    assert nodes == 100
    assert shown(bare.page) == "12345" * 100


def test_the_panel_speaks_to_screen_readers(bare: Bare) -> None:
    bare.deliver("text", phase="prefill")
    assert bare.page.get_by_role("log").get_attribute("aria-live") == "polite"
    assert bare.page.get_by_role("status").text_content() == "prefill"
    bare.page.keyboard.press("Tab")
    assert bare.page.evaluate("document.activeElement.getAttribute('role')") == "log"
    assert bare.page.locator(LOG).evaluate("e => getComputedStyle(e).outlineStyle") == "solid"


def test_unmounting_leaves_nothing_behind(bare: Bare) -> None:
    bare.deliver("text")
    assert bare.page.evaluate("window.unmount()") == []
    bare.page.clock.run_for(60_000)
    assert bare.asked() == []
    assert bare.page.locator(".wb-tokens").count() == 0
