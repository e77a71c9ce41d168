// Looking at single tokens of a view: with the pointer, or with the keys of a slider. The slider
// is the one stop of the Tab key; behind it come the buttons of the popover.

const REST = 200; // ms that the pointer rests on a token until it is looked at
const GRACE = 300; // ms to move the pointer from the token into the popover

class Inspector {
  // `letGo` is called when the text is scrolled away from its end.
  constructor(stream, log, places, letGo) {
    this.stream = stream;
    this.letGo = letGo;
    this.log = log;
    this.places = places;
    this.pinned = false;
    this.popover = new Popover(stream.questions);
    this.slider = element("input", "wb-tokens-slider", { type: "range", min: "1", value: "1" });
    this.slider.setAttribute("aria-label", "Token");
    this.count = element("output", "wb-tokens-count");
    const caption = element("span", "wb-tokens-caption");
    caption.textContent = "Token";
    this.root = element("span", "wb-tokens-inspector");
    this.root.append(caption, this.slider, this.popover.root, this.count);
    this.listen();
  }

  listen() {
    const passive = { passive: true };
    this.log.addEventListener("pointermove", (event) => this.onMove(event), passive);
    this.log.addEventListener("pointerleave", () => this.hideSoon(), passive);
    this.log.addEventListener("click", (event) => this.onClick(event));
    this.popover.root.addEventListener("pointerenter", () => clearTimeout(this.timer));
    this.popover.root.addEventListener("pointerleave", () => this.hideSoon());
    this.slider.addEventListener("input", () => this.step());
    this.slider.addEventListener("focus", () => this.step());
    this.root.addEventListener("focusout", (event) => this.onFocusOut(event));
    this.root.addEventListener("keydown", (event) => this.onKey(event));
    this.onScroll = () => this.place();
    this.onOutside = (event) => {
      if (!this.root.contains(event.target) && !this.log.contains(event.target)) this.hide();
    };
  }

  get on() {
    return this.stream.heat && this.stream.spans.tokens > 0;
  }

  onMove({ clientX, clientY, buttons }) {
    if (!this.on || this.pinned || buttons) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      const token = this.under(clientX, clientY);
      if (token < 0) this.hide();
      else if (token !== this.popover.token) this.show(token);
    }, REST);
  }

  onClick({ clientX, clientY }) {
    if (!this.on || !getSelection().isCollapsed) return;
    clearTimeout(this.timer);
    const token = this.under(clientX, clientY);
    this.hide();
    if (token < 0) return;
    this.pinned = true;
    this.show(token);
  }

  under(x, y) {
    const unit = this.places.under(x, y);
    return unit < 0 ? -1 : this.stream.spans.leastOf(this.stream.spans.at(unit));
  }

  step() {
    if (!this.on) return;
    this.pinned = true;
    const token = Number(this.slider.value) - 1;
    this.bringIntoSight(token);
    this.show(token);
  }

  onFocusOut({ relatedTarget }) {
    // A button that is redrawn loses the focus to nothing; that is not the user going away.
    if (relatedTarget && !this.root.contains(relatedTarget)) this.hide();
  }

  onKey(event) {
    if (event.key !== "Escape" || !this.popover.open) return;
    event.stopPropagation();
    if (this.popover.root.contains(document.activeElement)) this.slider.focus();
    this.hide();
  }

  show(token) {
    const { spans } = this.stream;
    const place = spans.of(token);
    const wasOpen = this.popover.open;
    this.popover.show(this.stream, token, place);
    this.slider.value = String(token + 1);
    this.slider.setAttribute("aria-valuetext", this.popover.summary);
    this.drawCount();
    this.mark(this.places.range(StaticRange, ...spans.bounds(place)));
    this.place();
    if (wasOpen) return;
    document.addEventListener("scroll", this.onScroll, { capture: true, passive: true });
    document.addEventListener("pointerdown", this.onOutside);
  }

  mark(range) {
    if (this.here) highlight(HERE).delete(this.here);
    if (range) highlight(HERE).add(range);
    this.here = range;
  }

  bringIntoSight(token) {
    const { top, bottom } = this.rect(token) ?? {};
    const frame = this.log.getBoundingClientRect();
    if (top < frame.top) {
      this.letGo();
      this.log.scrollTop -= frame.top - top + 8;
    } else if (bottom > frame.bottom) {
      this.log.scrollTop += bottom - frame.bottom + 8;
    }
  }

  // The popover stands in the window, so it follows the text when anything is scrolled.
  place() {
    if (!this.popover.open) return;
    const rect = this.rect(this.popover.token);
    const frame = this.log.getBoundingClientRect();
    const gone = !rect || rect.bottom < frame.top || rect.top > frame.bottom;
    if (gone && !this.root.contains(document.activeElement)) this.hide();
    else if (rect) this.popover.place(rect);
  }

  // Of the first line of the token's text; none if nothing of it is drawn.
  rect(token) {
    const { spans } = this.stream;
    return this.places.range(Range, ...spans.bounds(spans.of(token))).getClientRects()[0];
  }

  drawAnswer() {
    this.popover.drawAnswer();
    this.place();
  }

  drawCount() {
    const { tokens } = this.stream.spans;
    this.slider.max = String(Math.max(1, tokens));
    const [at, of] = [Number(this.slider.value), tokens].map((n) => n.toLocaleString("en"));
    setText(this.count, `${at} of ${of}`);
  }

  // The text goes away, and what was looked at with it.
  clear() {
    if (this.root.contains(document.activeElement)) this.log.focus();
    this.hide();
  }

  hideSoon() {
    clearTimeout(this.timer);
    if (!this.pinned) this.timer = setTimeout(() => this.hide(), GRACE);
  }

  hide() {
    clearTimeout(this.timer);
    this.pinned = false;
    this.popover.hide();
    this.mark(null);
    document.removeEventListener("scroll", this.onScroll, { capture: true });
    document.removeEventListener("pointerdown", this.onOutside);
  }
}
