"""The token view's module alone in an empty page, with a stand-in for the widget's model."""

from __future__ import annotations

import time
from typing import Any, Literal

from playwright.sync_api import Page

from workbench.widgets.token_stream import Message
from workbench.widgets.tokens import TokenView

LOG = ".wb-tokens-log"
POPOVER = ".wb-token"
AT_END = "log => log.scrollHeight - log.clientHeight - log.scrollTop <= 1"

# A model keeps traits, tells who listens of their change, and records what the kernel is asked.
_MOUNT = """async ([source, traits]) => {
  const url = URL.createObjectURL(new Blob([source], { type: 'text/javascript' }));
  const widget = (await import(url)).default();
  const handlers = {};
  window.asked = [];
  window.saves = 0;
  const model = {
    get: (name) => traits[name],
    set: (name, value) => { traits[name] = value; handlers[`change:${name}`]?.(model); },
    save_changes: () => { window.saves += 1; },
    on: (name, handler) => { handlers[name] = handler; },
    off: (name) => { delete handlers[name]; },
    send: (request) => { window.asked.push(request); },
  };
  const close = widget.initialize({ model });
  const remove = widget.render({ model, el: document.querySelector('main') });
  window.model = model;
  window.deliver = (message) => handlers['msg:custom'](message);
  window.unmount = () => { remove(); close(); return Object.keys(handlers); };
  window.render = () => widget.render({ model, el: document.querySelector('main') });
}"""

# The text under each highlight of the page, as one string a range, in the order of the text.
PAINTED = """(name) => [...(CSS.highlights.get(name) ?? [])].map((range) => {
  const live = new Range();
  live.setStart(range.startContainer, range.startOffset);
  live.setEnd(range.endContainer, range.endOffset);
  return live;
}).sort((a, b) => a.compareBoundaryPoints(Range.START_TO_START, b)).map(String)"""

# Of an element's text on what it stands on, as WCAG 2.1 defines it.
CONTRAST = """(element) => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d');
  const luminance = (paints) => {  // of translucent colours painted one on another
    for (const paint of paints) { canvas.fillStyle = paint; canvas.fillRect(0, 0, 1, 1); }
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = getComputedStyle(element.closest('.wb-tokens')).backgroundColor;
  const own = [paper, getComputedStyle(element).backgroundColor];
  const pair = [luminance(own), luminance([...own, getComputedStyle(element).color])];
  return (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
}"""

_RECT_OF = """(text) => {
  const walker = document.createTreeWalker(document.querySelector('.wb-tokens-log'), 4);
  while (walker.nextNode()) {
    const at = walker.currentNode.data.indexOf(text);
    if (at < 0) continue;
    const range = new Range();
    range.setStart(walker.currentNode, at);
    range.setEnd(walker.currentNode, at + text.length);
    const { left, top, width, height } = range.getBoundingClientRect();
    return [left + width / 2, top + height / 2];
  }
}"""


class Bare:
    """The browser's half of the view without a JupyterLab around it."""

    def __init__(self, page: Page, scheme: Literal["light", "dark"] = "light") -> None:
        self.page = page
        page.clock.install()
        # Time passes only where a test lets it: the view asks and looks by its clock.
        page.clock.pause_at(time.time() + 60)
        page.emulate_media(color_scheme=scheme)
        page.set_content(
            f"<!doctype html><html lang=en><title>Token view</title><style>:root {{color-scheme:"
            f"{scheme}; background: Canvas}} {TokenView._css}</style><main></main>"
        )

    def mount(self, saved: Message | None = None, **traits: Any) -> None:
        """Run the module, with `saved` as the message to start from."""
        start = message(epoch=0, total=0, phase="waiting") if saved is None else saved
        known = {"heat": False, "_answers": [], "_saved": start} | traits
        self.page.evaluate(_MOUNT, [TokenView._esm, known])

    def deliver(self, *args: Any, **kwargs: Any) -> None:
        """Pass on what the kernel would send."""
        self.send(message(*args, **kwargs))

    def send(self, content: Message) -> None:
        """Pass on any message."""
        self.page.evaluate("m => window.deliver(m)", content)

    def asked(self) -> list[list[int]]:
        """What was missed, as asked since the last call: pairs of epoch and length."""
        return [[r["epoch"], r["have"]] for r in self._sent() if r["kind"] == "resync"]

    def requests(self) -> list[dict[str, Any]]:
        """What a person has asked of the kernel since the last call.

        It asks about a token only when the person stays there for a moment.
        """
        self.page.clock.run_for(200)
        return [request for request in self._sent() if request["kind"] != "resync"]

    def _sent(self) -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = self.page.evaluate("window.asked.splice(0)")
        return sent

    def shown(self) -> str:
        """The text in the view."""
        return self.page.locator(LOG).text_content() or ""

    def painted(self, level: int) -> list[str]:
        """The pieces of text that have the colour of a bucket."""
        self.wait_a_frame()
        pieces: list[str] = self.page.evaluate(PAINTED, f"wb-heat-{level}")
        return pieces

    def here(self) -> list[str]:
        """The piece of text that is looked at."""
        pieces: list[str] = self.page.evaluate(PAINTED, "wb-token-here")
        return pieces

    def wait_a_frame(self) -> None:
        """Wait until the browser has drawn, and told who is in sight.

        The page's clock stands still for its scripts, so the frames are asked of the browser.
        """
        self.page.screenshot()
        self.page.clock.run_for(50)
        self.page.screenshot()

    def point_at(self, text: str) -> None:
        """Move the pointer onto a text that the view shows."""
        self.page.mouse.move(*self.page.evaluate(_RECT_OF, text))

    def click_on(self, text: str) -> None:
        """Click on a text that the view shows."""
        self.page.mouse.click(*self.page.evaluate(_RECT_OF, text))


def message(
    text: str = "",
    offset: int = 0,
    epoch: int = 1,
    total: int | None = None,
    phase: str = "decode",
    **more: Any,
) -> Message:
    """Return a message as the kernel sends it."""
    return {
        "epoch": epoch,
        "offset": offset,
        "text": text,
        "total": total,
        "phase": phase,
        "facts": [],
        **more,
    }
