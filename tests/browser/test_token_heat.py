from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from tests.browser.bare import LOG, POPOVER, Bare, message
from workbench.widgets.token_stream import Message, Stream

pytestmark = pytest.mark.browser

Open = Callable[..., Bare]
Scheme = Literal["light", "dark"]

AWKWARD = [
    "<script>window.ran = true</script><img src=x onerror='window.ran = true'> &amp; &lt;\n",
    "\x1b[31mred\x1b[0m \x00 \r\n\ttab  two spaces   \n\n\n",
    "e",
    "\u0301 ",  # combines with the letter of the token before
    "\U0001f469\u200d",  # a family, split over three tokens
    "\U0001f469\u200d",
    "\U0001f467",
    " \u05e9\u05dc\u05d5\u05dd, 42! $x^2$ ",
    "\u202eturned\u202c \u200b\ufeff",
    "long" * 200,
]
WORDS = ["The ", "moon ", "is ", "slow"]
PROBABILITIES = [0.95, 0.6, 0.002, 0.003]


@pytest.fixture
def open_view(chromium: Browser) -> Iterator[Open]:
    """Return a function that mounts a view in a page of its own, with heat on."""
    context = chromium.new_context(viewport={"width": 800, "height": 600})

    def mount(scheme: Scheme = "light", *, heat: bool = True, offers: str = "") -> Bare:
        view = Bare(context.new_page(), scheme)
        view.mount(heat=heat, _answers=offers.split())
        view.requests()
        return view

    yield mount
    context.close()


@pytest.fixture
def view(open_view: Open) -> Bare:
    return open_view(offers="alternatives continue")


def steps(words: list[str], probabilities: list[float], offset: int = 0) -> Message:
    """Return a message as the kernel makes it, from one token a word."""
    stream = Stream(1, "engine")
    stream.add("x" * offset, [])
    for word, probability in zip(words, probabilities, strict=True):
        stream.add(word, [math.log(probability)])
    stream.enter("decode", [])
    return stream.message(offset)


def choices(index: int, epoch: int = 1) -> Message:
    found = [[7, " sun", math.log(0.5)], [8, "<b>x</b>\n", math.log(0.00001)]]
    return {"kind": "alternatives", "epoch": epoch, "index": index, "choices": found}


def popover(view: Bare) -> str:
    return view.page.locator(POPOVER).inner_text()


def test_tokens_are_coloured_by_their_probability_without_new_elements(view: Bare) -> None:
    view.send(steps(WORDS, PROBABILITIES))
    assert view.painted(1) == ["moon "]
    assert view.painted(4) == ["is slow"], "neighbours of one bucket are one range"
    assert view.painted(2) == view.painted(3) == []
    assert view.page.locator(f"{LOG} *").count() == 2, "a block and its section"
    assert view.shown() == "The moon is slow"


@pytest.mark.parametrize(
    ("probability", "level"),
    [(1.0, 0), (0.91, 0), (0.89, 1), (0.51, 1), (0.49, 2), (0.09, 3), (0.011, 3), (0.009, 4)],
)
def test_the_bucket_of_a_probability(view: Bare, probability: float, level: int) -> None:
    view.send(steps(["x"], [probability]))
    assert [n for n in (1, 2, 3, 4) if view.painted(n)] == [level][: bool(level)]


def test_a_character_of_several_tokens_has_the_colour_of_the_least_probable(view: Bare) -> None:
    view.deliver("a\N{GRINNING FACE}b", spans="1:0 1:0,50000,20000 1:0")
    assert view.painted(4) == ["\N{GRINNING FACE}"]
    view.click_on("\N{GRINNING FACE}")
    assert "token 3" in popover(view)
    assert "came with the tokens 2 to 4" in popover(view)


def test_colours_are_exact_after_a_gap_and_an_overlap(view: Bare) -> None:
    view.send(steps(["\N{GRINNING FACE}a "], [0.6]))
    view.deliver("late", offset=9, spans="4:1")
    assert view.asked() == [[1, 3]]
    view.send(steps(["\N{GRINNING FACE}a ", "b ", "c ", "d "], [0.6, 0.95, 0.6, 0.001]))
    assert view.painted(1) == ["\N{GRINNING FACE}a ", "c "]
    assert view.painted(4) == ["d "]
    view.deliver("x y", offset=9, spans="3:20000")
    assert view.painted(2) == ["x y"]


def test_a_new_stream_takes_the_colours_of_the_old_one_away(view: Bare) -> None:
    view.send(steps(WORDS, PROBABILITIES))
    view.click_on("moon")
    view.deliver("text without tokens", epoch=2)
    assert view.painted(4) == view.here() == []
    assert not view.page.locator(POPOVER).is_visible()
    assert not view.page.get_by_text("Show probabilities").is_visible()


def test_heat_is_a_switch_that_the_kernel_remembers(open_view: Open) -> None:
    view = open_view(heat=False)
    view.send(steps(WORDS, PROBABILITIES))
    switch = view.page.get_by_role("checkbox", name="Show probabilities")
    assert view.painted(4) == []
    assert not view.page.get_by_role("slider").is_visible()
    switch.check()
    assert view.painted(4) == ["is slow"]
    assert view.page.evaluate("[window.model.get('heat'), window.saves]") == [True, 1]
    assert "rare < 1 %" in view.page.get_by_role("list", name="Probability").inner_text()
    switch.uncheck()
    assert view.painted(4) == []


def test_awkward_text_is_shown_as_text(view: Bare) -> None:
    view.send(steps(AWKWARD, [0.5] * len(AWKWARD)))
    for index, text in enumerate(AWKWARD):
        found = [[1, text, -1.0]]
        view.send({"kind": "alternatives", "epoch": 1, "index": index, "choices": found})
    view.page.get_by_role("slider").focus()
    said = []
    for _ in AWKWARD:
        said.append(view.page.get_by_role("slider").get_attribute("aria-valuetext"))
        assert view.page.locator(".wb-token-name").count() == 1
        view.page.keyboard.press("ArrowRight")
    view.wait_a_frame()
    assert view.shown() == "".join(AWKWARD)
    assert view.page.evaluate("window.ran") is None
    assert view.page.locator("script, img, b").count() == 0
    log = view.page.locator(LOG)
    assert log.evaluate("e => e.scrollWidth <= e.clientWidth"), "a long word is wrapped"
    assert said[0].startswith("<script>window.ran\u2423=\u2423true</script>")
    assert said[4].startswith("\U0001f469\u27e8200D\u27e9, 50.0 %")
    assert said[8].startswith(
        "\u27e8202E\u27e9turned\u27e8202C\u27e9\u2423\u27e8200B\u27e9\u27e8FEFF"
    )
    assert said[9].startswith("long" * 15 + "\u2026")


def test_a_line_of_a_megabyte_is_shown_and_coloured(view: Bare) -> None:
    stream = Stream(1, "")
    pieces = 0
    for number in range(1, 100_001):
        stream.add("\N{GRINNING FACE}long word ", [-0.5 if number % 2 else -3.0])
        if number % 10_000 == 0 and (piece := stream.take()):
            view.send(piece)
            pieces += 1
    stream.end("finished", [])
    view.send(stream.take() or {})
    view.page.screenshot(timeout=120_000)  # a layout of it takes seconds, coloured or not
    assert pieces == 10
    assert view.asked() == [], "nothing was taken for lost"
    assert view.shown() == stream.text_from(0)
    assert 0 < len(view.painted(3)) < 500, "only what is near is coloured"


def test_only_what_is_near_is_coloured(view: Bare) -> None:
    lines = [f"line {number}\n" for number in range(20_000)]
    view.send(steps(lines, [0.001 if number % 2 else 0.99 for number in range(20_000)]))
    painted = view.painted(4)
    assert len(painted) < 1_000
    assert painted[-1] == "line 19999\n"
    view.page.locator(LOG).evaluate("log => { log.scrollTop = 0; }")
    view.wait_a_frame()
    painted = view.painted(4)
    assert len(painted) < 1_000
    assert painted[0] == "line 1\n"


def test_pointing_shows_the_token_and_asks_once_for_alternatives(view: Bare) -> None:
    view.send(steps(WORDS, PROBABILITIES))
    view.requests()
    view.page.clock.pause_at(datetime.now(UTC) + timedelta(hours=1))
    view.requests()
    view.point_at("moon")
    view.page.clock.run_for(100)
    assert not view.page.locator(POPOVER).is_visible(), "a pointer in passing asks nothing"
    view.page.clock.run_for(150)
    assert view.here() == ["moon "]
    for words in ("moon\u2423", "60.0 %", "ln -0.511", "token 2", "Asking for alternatives"):
        assert words in popover(view)
    assert view.requests() == [{"kind": "alternatives", "epoch": 1, "index": 1}]
    view.send(choices(1))
    assert "Asking" not in popover(view)
    assert view.page.locator(".wb-token-choice").all_inner_texts() == [
        "\u2423sun\n50.0 %",
        "<b>x</b>\u21b5\n< 0.01 %",
    ]
    view.point_at("slow")
    view.page.clock.run_for(400)
    view.point_at("moon")
    view.page.clock.run_for(250)
    asked = [request["index"] for request in view.requests()]
    assert asked == [3], "the answer about the other one is kept"
    assert "\u2423sun" in popover(view)


def test_the_pointer_may_move_into_the_popover_and_away_from_both(view: Bare) -> None:
    view.send(steps(WORDS, PROBABILITIES))
    view.point_at("moon")
    view.page.clock.run_for(250)
    view.page.locator(POPOVER).hover()
    view.page.clock.run_for(1_000)
    assert view.page.locator(POPOVER).is_visible()
    view.page.mouse.move(700, 590)
    view.page.clock.run_for(1_000)
    assert not view.page.locator(POPOVER).is_visible()
    assert view.here() == []


def test_an_alternative_is_a_button_that_continues_from_there(view: Bare) -> None:
    view.send(steps(WORDS, PROBABILITIES))
    view.click_on("is ")
    view.send(choices(2))
    view.requests()
    view.page.get_by_role("button", name="sun").click()
    assert view.requests() == [{"kind": "continue", "epoch": 1, "index": 2, "token_id": 7}]
    assert "Going on from here" in popover(view)
    view.send({"kind": "continue", "epoch": 1, "index": 2, "error": "The engine is gone."})
    assert "The engine is gone." in popover(view)
    view.deliver("The moon sun", epoch=2, spans="12:1")
    assert not view.page.locator(POPOVER).is_visible()
    assert view.page.evaluate("document.activeElement.getAttribute('role')") == "log"


def test_an_error_is_said_and_asked_again_at_the_next_look(view: Bare) -> None:
    view.send(steps(WORDS, PROBABILITIES))
    view.click_on("moon")
    failed = {"kind": "alternatives", "epoch": 1, "index": 1, "error": "It is <b>busy</b>."}
    view.send(failed)
    assert "It is <b>busy</b>." in popover(view)
    view.requests()
    view.click_on("slow")
    view.page.clock.run_for(200)
    view.click_on("moon")
    assert [r["index"] for r in view.requests()] == [3, 1]


def test_a_slider_that_is_drawn_over_many_tokens_asks_about_the_last_one(view: Bare) -> None:
    view.send(steps(WORDS, PROBABILITIES))
    view.page.get_by_role("slider", name="Token").focus()
    for _ in range(3):
        view.page.keyboard.press("ArrowRight")
    assert [r["index"] for r in view.requests()] == [3]
    view.page.keyboard.press("ArrowLeft")
    view.page.keyboard.press("Escape")
    assert view.requests() == [], "gone before the kernel was asked"
    view.page.keyboard.press("ArrowLeft")
    assert [r["index"] for r in view.requests()] == [1]
    view.send(choices(1))
    assert "\u2423sun" in popover(view)


def test_a_choice_that_nobody_can_name_is_shown_and_no_button(view: Bare) -> None:
    view.send(steps(WORDS, PROBABILITIES))
    view.click_on("moon")
    found = [[None, " sun", -0.5], [8, " star", -1.0]]
    view.send({"kind": "alternatives", "epoch": 1, "index": 1, "choices": found})
    assert view.page.locator(".wb-token-choice").count() == 2
    assert view.page.locator(POPOVER).get_by_role("button").count() == 1
    view.send({"kind": "alternatives", "epoch": 1, "index": 1, "choices": found[:1]})
    assert view.page.locator(POPOVER).get_by_role("button").count() == 0
    assert "The likeliest tokens here" in popover(view)


def test_a_kernel_that_does_not_answer_is_named(view: Bare) -> None:
    view.send(steps(WORDS, PROBABILITIES))
    view.click_on("moon")
    view.page.clock.run_for(6_000)
    assert "The kernel has not answered yet" in popover(view)
    view.send(choices(1, epoch=0))
    assert "\u2423sun" not in popover(view), "the answer about an older text"


def test_what_the_kernel_does_not_offer_is_not_asked(open_view: Open) -> None:
    view = open_view()
    view.send(steps(WORDS, PROBABILITIES))
    view.click_on("moon")
    assert "60.0 %" in popover(view)
    assert view.requests() == []
    view = open_view(offers="alternatives")
    view.send(steps(WORDS, PROBABILITIES))
    view.click_on("moon")
    view.send(choices(1))
    assert view.page.locator(".wb-token-choice").count() == 2
    assert view.page.locator(POPOVER).get_by_role("button").count() == 0


def focused(page: Page) -> str:
    found: str = page.evaluate("document.activeElement.className")
    return found


def test_the_keyboard_reaches_tokens_through_one_stop(view: Bare) -> None:
    view.send(steps(WORDS, PROBABILITIES))
    page, press = view.page, view.page.keyboard.press
    order = []
    for _ in range(3):
        press("Tab")
        order.append(focused(page))
    assert order == ["wb-tokens-log", "wb-tokens-heat", "wb-tokens-slider"]
    press("ArrowRight")
    assert view.here() == ["moon "]
    slider = page.get_by_role("slider", name="Token")
    assert (
        slider.get_attribute("aria-valuetext")
        == "moon\u2423, 60.0 % \u00b7 ln -0.511 \u00b7 token 2"
    )
    press("End")
    assert view.here() == ["slow"]
    view.send(choices(3))
    press("Tab")
    assert focused(page) == "wb-token-choice"
    press("Escape")
    assert not page.locator(POPOVER).is_visible()
    assert focused(page) == "wb-tokens-slider"
    assert view.here() == []


def test_a_token_out_of_sight_is_scrolled_to_and_stays_while_text_arrives(view: Bare) -> None:
    lines = [f"line {number}\n" for number in range(200)]
    view.send(steps(lines, [0.5] * 200))
    view.wait_a_frame()
    view.page.get_by_role("slider").focus()
    view.send(steps(["more\n"] * 50, [0.5] * 50, offset=len("".join(lines))))
    view.wait_a_frame()
    assert view.page.locator(LOG).evaluate("e => e.scrollTop") < 20
    assert view.page.get_by_role("button", name="Follow the end").is_visible()


def test_the_pace_is_drawn(view: Bare) -> None:
    view.deliver("x", pace=[50.0])
    assert not view.page.locator(".wb-tokens-pace").is_visible()
    view.deliver("y", offset=1, pace=[50.0, 20.5, 100.0])
    chart = view.page.get_by_role("img")
    assert "from 0: 20.5 to 100 ms, at the end 100 ms" in (chart.get_attribute("aria-label") or "")
    points = view.page.locator("polyline").get_attribute("points")
    assert points == "0.0,8.0 45.0,12.1 90.0,1.0"


def test_unmounting_takes_colours_and_listeners_away(view: Bare) -> None:
    view.send(steps(WORDS, PROBABILITIES))
    view.click_on("moon")
    assert view.painted(4)
    assert view.page.evaluate("window.unmount()") == []
    assert view.painted(4) == view.here() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_and_all_buckets_differ(open_view: Open, scheme: Scheme) -> None:
    view = open_view(scheme, offers="alternatives continue")
    view.send(steps(WORDS, PROBABILITIES) | {"facts": [["tokens", "4"]], "pace": [1.0, 2.0]})
    view.click_on("moon")
    view.send(choices(1))
    view.page.clock.resume()
    rules = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}
    results = Axe().run(view.page, context="main", options=rules)
    assert results.response["violations"] == [], results.generate_report()
    styles = """(e) => { const s = getComputedStyle(e);
      return [s.backgroundColor, `${s.textDecorationStyle} ${s.textDecorationThickness}`]; }"""
    looks = [view.page.locator(f".wb-heat-{n}").evaluate(styles) for n in range(1, 5)]
    colours, underlines = zip(*looks, strict=True)
    assert len(set(colours)) == len(set(underlines)) == 4


def test_a_message_that_starts_a_page_has_the_colours(chromium: Browser) -> None:
    context = chromium.new_context()
    view = Bare(context.new_page())
    view.mount(steps(WORDS, PROBABILITIES) | {"total": 16, "phase": "finished"}, heat=True)
    assert view.painted(4) == ["is slow"]
    assert view.asked() == [[1, 16]]
    view.send(message("", offset=16, total=16, phase="finished"))
    assert view.shown() == "The moon is slow"
    context.close()
