from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.browser.bare import AT_END, LOG, Bare, message

pytestmark = pytest.mark.browser


@pytest.fixture
def bare(chromium: Browser) -> Iterator[Bare]:
    context = chromium.new_context(viewport={"width": 800, "height": 600})
    view = Bare(context.new_page())
    view.mount()
    assert view.asked() == [[0, 0]]
    yield view
    context.close()


def test_a_gap_is_asked_for_once_and_the_overlap_of_an_answer_is_cut(bare: Bare) -> None:
    bare.deliver("a\N{GRINNING FACE}")
    bare.deliver("late", offset=5)
    bare.deliver("later", offset=9)
    assert bare.asked() == [[1, 2]]
    bare.deliver("\N{GRINNING FACE}bcdlatelater", offset=1)  # for another tab that had less
    bare.deliver("later", offset=9)
    assert bare.shown() == "a\N{GRINNING FACE}bcdlatelater"
    assert bare.asked() == []


def test_messages_of_an_older_stream_are_ignored_and_a_newer_one_starts_afresh(bare: Bare) -> None:
    bare.deliver("first")
    bare.deliver("second", epoch=2)
    bare.deliver(" tail of the first", offset=5, epoch=1)
    assert bare.shown() == "second"
    bare.deliver("middle of the third", offset=7, epoch=3)
    assert bare.shown() == ""
    assert bare.asked() == [[3, 0]]


def test_a_lost_end_is_found_by_looking_and_looking_stops_when_all_is_there(bare: Bare) -> None:
    bare.deliver("almost ")
    bare.page.clock.run_for(1_100)
    assert bare.asked() == [[1, 7]]
    bare.deliver("all", offset=7, total=10, phase="finished")
    bare.page.clock.run_for(60_000)
    assert bare.asked() == []
    assert bare.shown() == "almost all"


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
        "e => [...e.querySelectorAll('span')].reduce((sum, s) => sum + s.childNodes.length, 0)"
    )
    assert nodes == 100
    assert bare.shown() == "12345" * 100


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
