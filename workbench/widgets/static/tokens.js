// The browser's half of workbench/widgets/tokens.py, where the messages are described.
//
// This file comes last of those that make up the module (see tokens.py).
//
// A `Stream` belongs to the model and keeps the text; any number of `View`s draw it. Model output
// is text: it reaches the page through text nodes alone, never as markup.

const FIRST_LOOK = 1_000; // ms without a message until the kernel is asked what was missed
const LAST_LOOK = 10_000; // ms; each look that brings nothing doubles the pause up to this
const DEAF = 2_500; // ms without an answer after which messages are taken from the comm itself
const SILENCE = 15_000; // ms without any message until the panel says so
const BLOCK = 2_000; // UTF-16 units after which a block of lines is closed
const SECTION = 1_000; // UTF-16 units that are coloured together, when they come into sight

export default () => {
  let stream;
  return {
    initialize({ model }) {
      stream = new Stream(model);
      return () => stream.close();
    },
    render({ el }) {
      const view = new View(stream, el);
      return () => view.close();
    },
  };
};

class Stream {
  constructor(model) {
    this.model = model;
    this.views = new Set();
    this.answered = false;
    this.questions = new Questions(model, () => {
      for (const view of this.views) view.inspector.drawAnswer();
    });
    this.begin(0);
    this.onMessage = (message) => {
      if (message.kind !== undefined) {
        this.questions.take(message);
        return;
      }
      this.answered = true;
      this.receive(message);
    };
    this.onHeat = () => {
      for (const view of this.views) view.drawHeat();
    };
    this.onSaved = () => this.receive(model.get("_saved"));
    model.on("msg:custom", this.onMessage);
    model.on("change:_saved", this.onSaved);
    model.on("change:heat", this.onHeat);
    this.onSaved();
    this.ask(); // what was sent before this page listened
    this.ear = setTimeout(() => this.listen(), DEAF);
  }

  // anywidget waits 2 s for a module to start, and hands a model whose page was too busy for that
  // no message ever again. Such a model takes them as it would without anywidget; it is the first
  // argument of its events, and what is undefined is not sent to the kernel.
  listen() {
    if (this.answered) return;
    const take = (model) => {
      if (!model.comm) return;
      const { _handle_comm_msg: handle } = Object.getPrototypeOf(model.constructor.prototype);
      model.comm.on_msg((message) => handle.call(model, message));
    };
    this.model.on("change:_ear", take);
    this.model.set("_ear", 1);
    this.model.off("change:_ear", take);
    this.model.set("_ear", undefined);
  }

  begin(epoch) {
    this.epoch = epoch;
    this.parts = [];
    this.spans = new Spans();
    this.pace = [];
    this.questions.begin(epoch);
    this.have = 0; // code points, as the kernel counts
    this.total = null;
    this.title = "";
    this.phase = "waiting";
    this.facts = [];
    this.asked = false;
    this.pause = FIRST_LOOK;
    this.heard = Date.now();
    for (const view of this.views) view.clear();
  }

  get text() {
    this.parts = [this.parts.join("")];
    return this.parts[0];
  }

  get heat() {
    return this.model.get("heat");
  }

  set heat(on) {
    this.model.set("heat", on);
    this.model.save_changes();
  }

  get complete() {
    return this.epoch === 0 || (this.total !== null && this.have >= this.total);
  }

  receive({ epoch, offset, text, total, phase, facts, title, spans, pace }) {
    if (epoch < this.epoch) return;
    if (epoch > this.epoch) this.begin(epoch);
    if (phase !== this.phase) this.pause = FIRST_LOOK;
    this.heard = Date.now();
    this.phase = phase;
    this.facts = facts;
    this.total = total;
    if (title !== undefined) this.title = title;
    if (pace !== undefined) this.pace = pace;
    if (offset > this.have) {
      if (!this.asked) this.ask();
    } else {
      this.asked = false;
      const known = this.have - offset;
      this.add(text.slice(unitsOf(text, 0, known)), spans, known);
    }
    for (const view of this.views) {
      view.drawStatus();
      view.drawHeat();
    }
    this.watch();
  }

  add(text, spans, known) {
    if (text === "") return;
    this.spans.add(text, spans, known);
    this.parts.push(text);
    this.have += codePoints(text);
    this.pause = FIRST_LOOK;
    for (const view of this.views) view.append(text);
  }

  ask() {
    this.asked = true;
    this.model.send({ kind: "resync", epoch: this.epoch, have: this.have });
  }

  // A dropped last message leaves no gap to see, so look after a while of silence. Look also
  // before the first stream until there is an answer, which a busy page may have missed.
  get waiting() {
    return !this.complete || (this.epoch === 0 && !this.answered);
  }

  watch() {
    clearTimeout(this.timer);
    if (this.waiting) this.timer = setTimeout(() => this.look(), this.pause);
  }

  look() {
    this.pause = Math.min(2 * this.pause, LAST_LOOK);
    this.ask();
    this.watch();
    for (const view of this.views) view.drawStatus();
  }

  // Whole seconds since the last message if that is worth saying, else 0.
  get silence() {
    const quiet = Date.now() - this.heard;
    return this.waiting && quiet >= SILENCE ? Math.round(quiet / 1000) : 0;
  }

  close() {
    clearTimeout(this.timer);
    clearTimeout(this.ear);
    this.model.off("msg:custom", this.onMessage);
    this.model.off("change:_saved", this.onSaved);
    this.model.off("change:heat", this.onHeat);
    this.questions.close();
  }
}

class View {
  constructor(stream, el) {
    this.stream = stream;
    this.build(el);
    this.clear();
    this.append(stream.text);
    this.drawStatus();
    this.drawHeat();
    stream.views.add(this);
  }

  build(el) {
    this.title = element("span", "wb-tokens-title");
    this.phase = element("span", "wb-tokens-phase", { role: "status" });
    this.facts = element("span", "wb-tokens-facts");
    this.silence = element("p", "wb-tokens-silence", { hidden: "" });
    this.log = element("div", "wb-tokens-log", {
      role: "log",
      "aria-live": "polite",
      tabindex: "0",
    });
    this.follow = element("button", "wb-tokens-follow", { type: "button", hidden: "" });
    this.follow.textContent = "Follow the end";

    const head = element("header", "wb-tokens-head");
    this.pace = new Pace();
    head.append(this.title, this.phase, this.facts, this.pace.root);
    const body = element("div", "wb-tokens-body");
    body.append(this.log, this.follow);
    this.root = element("section", "wb-tokens");
    this.places = new Places();
    const letGo = () => this.setFollowing(false);
    this.inspector = new Inspector(this.stream, this.log, this.places, letGo);
    this.root.append(head, body, this.buildTools(), this.silence);
    el.append(this.root);

    this.log.addEventListener("scroll", () => this.onScroll(), { passive: true });
    this.log.addEventListener("wheel", (event) => this.onWheel(event), { passive: true });
    this.follow.addEventListener("click", () => this.setFollowing(true));
  }

  buildTools() {
    this.heatBox = element("input", "wb-tokens-heat", { type: "checkbox" });
    this.heatBox.addEventListener("change", () => {
      this.stream.heat = this.heatBox.checked;
    });
    const label = element("label", "wb-tokens-switch");
    label.append(this.heatBox, "Show probabilities");
    this.legend = element("ul", "wb-tokens-legend", { "aria-label": "Probability of a token" });
    this.legend.append(...BUCKETS.map(swatch));
    this.tools = element("div", "wb-tokens-tools", { hidden: "" });
    this.tools.append(label, this.legend, this.inspector.root);
    return this.tools;
  }

  clear() {
    this.inspector.clear();
    this.heat?.close();
    this.heat = null;
    this.log.replaceChildren();
    this.places.clear();
    this.sections = [];
    this.end = 0; // UTF-16 units that are drawn
    this.block = null;
    this.lastTop = 0;
    this.setFollowing(true);
  }

  // Lines are gathered in blocks, because a browser lays out a whole block when its end changes;
  // so only a single line that is very long costs more with its length. A block ends behind a
  // line feed, where it changes neither the lines nor what is copied.
  append(text) {
    for (let from = 0; from < text.length; ) {
      if (this.block === null) {
        this.block = this.openBlock();
        this.room = BLOCK;
      }
      const feed = text.indexOf("\n", from + Math.max(0, this.room));
      const to = feed === -1 ? text.length : feed + 1;
      for (let at = from; at < to; ) {
        const next = Math.min(to, wholeCharacter(text, at + SECTION));
        this.write(text.slice(at, next));
        at = next;
      }
      this.room -= to - from;
      if (feed !== -1) this.block = null;
      from = to;
    }
    if (this.following) this.scrollSoon();
  }

  openBlock() {
    const block = element("div", "wb-tokens-block");
    this.log.append(block);
    this.section = null;
    return block;
  }

  // A line may be long, so a block is divided further, in a way that changes no line of it.
  openSection() {
    const section = { element: element("span", "wb-tokens-section"), from: this.end, to: this.end };
    this.sections.push(section);
    this.block.append(section.element);
    this.heat?.watch(section);
    return section;
  }

  write(text) {
    const full = !this.section || this.section.to - this.section.from >= SECTION;
    if (full) this.section = this.openSection();
    const node = document.createTextNode(text);
    this.section.element.append(node);
    this.places.add(node, this.end);
    const from = this.end;
    this.end += text.length;
    this.section.to = this.end;
    this.heat?.paint(this.section, from, this.end);
  }

  drawHeat() {
    const { heat, spans } = this.stream;
    const wanted = heat && spans.tokens > 0;
    this.tools.hidden = spans.tokens === 0;
    this.heatBox.checked = heat;
    this.legend.hidden = this.inspector.root.hidden = !wanted;
    if (wanted) this.inspector.drawCount();
    if (wanted === Boolean(this.heat)) return;
    this.heat?.close();
    this.heat = wanted ? new Heat(this.log, spans, this.places) : null;
    if (wanted) for (const section of this.sections) this.heat.watch(section);
    else this.inspector.hide();
  }

  drawStatus() {
    const { title, phase, facts } = this.stream;
    setText(this.title, title);
    setText(this.phase, phase);
    this.root.dataset.phase = phase;
    this.log.setAttribute("aria-label", title ? `Text of ${title}` : "Generated text");

    const shown = JSON.stringify(facts);
    if (shown !== this.shownFacts) {
      this.shownFacts = shown;
      this.facts.replaceChildren(...facts.map(fact));
    }
    this.pace.draw(this.stream.pace);
    const seconds = this.stream.silence;
    this.silence.hidden = seconds === 0;
    if (seconds) {
      const advice = "It is busy or gone; if it is neither, reload the page.";
      setText(this.silence, `Nothing heard from the kernel for ${seconds} s. ${advice}`);
    }
  }

  // Once a frame, because reading scrollHeight forces a layout.
  scrollSoon() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      if (this.following) this.log.scrollTop = this.log.scrollHeight;
    });
  }

  // Text that arrives moves the end away without any scrolling, so only a move upwards counts as
  // the user's; being clamped by a smaller content also moves upwards, but to the very end.
  onScroll() {
    const { scrollTop, scrollHeight, clientHeight } = this.log;
    const left = scrollHeight - clientHeight - scrollTop;
    if (left <= 1) this.setFollowing(true);
    else if (scrollTop < this.lastTop) this.setFollowing(false);
    this.lastTop = scrollTop;
  }

  // Ahead of the scroll event, or text that arrives meanwhile would cancel a smooth scroll.
  onWheel(event) {
    if (event.deltaY < 0 && this.log.scrollTop > 0) this.setFollowing(false);
  }

  setFollowing(following) {
    this.following = following;
    this.follow.hidden = following;
    if (following) this.scrollSoon();
  }

  close() {
    this.stream.views.delete(this);
    this.inspector.hide();
    this.heat?.close();
    cancelAnimationFrame(this.frame);
    this.root.remove();
  }
}

function element(tag, className, attributes = {}) {
  const node = document.createElement(tag);
  node.className = className;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function fact([name, value]) {
  const node = element("span", "wb-tokens-fact");
  const number = element("span", "wb-tokens-value");
  node.textContent = `${name} `;
  number.textContent = value;
  node.append(number);
  return node;
}

function swatch({ words, range }, level) {
  const item = element("li", "wb-tokens-step");
  const sample = element("span", `wb-tokens-sample wb-heat-${level}`);
  sample.textContent = words;
  item.append(sample, ` ${range}`);
  return item;
}

// Setting the same text again would make a screen reader repeat it.
function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// The offset itself, or the one before it if it would part a surrogate pair.
function wholeCharacter(text, at) {
  const unit = text.charCodeAt(at);
  return unit >= 0xdc00 && unit <= 0xdfff ? at - 1 : at;
}

function codePoints(text) {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}
