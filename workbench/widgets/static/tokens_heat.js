// Which tokens stand behind which characters, and how probable they were.
//
// Colours are painted with the CSS Custom Highlight API: the text stays in the few text nodes that
// it came in. So 50,000 tokens need no elements of their own, copying and line breaks are what
// they are without colours, and a screen reader hears nothing new.

// From the second on each has a colour and an underline of its own in tokens.css.
const BUCKETS = [
  { least: 0.9, words: "sure", range: "\u2265 90 %" },
  { least: 0.5, words: "likely", range: "50\u201390 %" },
  { least: 0.1, words: "open", range: "10\u201350 %" },
  { least: 0.01, words: "unlikely", range: "1\u201310 %" },
  { least: 0, words: "rare", range: "< 1 %" },
];
const HERE = "wb-token-here"; // the highlight of the token that is looked at

// Spans of text in the order of the stream; offsets count UTF-16 units, as the page does.
class Spans {
  constructor() {
    this.starts = []; // where each span begins
    this.firsts = []; // how many tokens came before each span
    this.logprobs = []; // of all tokens
    this.end = 0;
  }

  get tokens() {
    return this.logprobs.length;
  }

  // `written` is described in spans.py; its first `skip` code points are here already.
  add(text, written, skip) {
    if (written === undefined) {
      this.push(text.length, []);
      return;
    }
    let at = 0;
    let known = skip;
    for (const item of written.split(" ")) {
      const [length, marks] = item.split(":");
      const points = Number(length) - Math.min(known, Number(length));
      known -= Number(length) - points;
      if (points === 0) continue;
      const next = unitsOf(text, at, points);
      this.push(next - at, marks === undefined ? [] : marks.split(","));
      at = next;
    }
  }

  push(length, marks) {
    const last = this.starts.length - 1;
    const goesOn = marks.length === 0 && last >= 0 && this.firsts[last] === this.tokens;
    if (!goesOn) {
      this.starts.push(this.end);
      this.firsts.push(this.tokens);
    }
    for (const mark of marks) this.logprobs.push(Number(mark) / -10_000);
    this.end += length;
  }

  // The place among the spans of the one with this character, or of the one with this token.
  at(unit) {
    return lastUpTo(this.starts, unit);
  }

  of(token) {
    return lastUpTo(this.firsts, token);
  }

  bounds(place) {
    return [this.starts[place], this.starts[place + 1] ?? this.end];
  }

  tokensOf(place) {
    return [this.firsts[place], this.firsts[place + 1] ?? this.tokens];
  }

  // The token that a span's colour speaks of: its least probable. None (-1) if it has no token.
  leastOf(place) {
    const [first, end] = this.tokensOf(place);
    let least = first < end ? first : -1;
    for (let token = first + 1; token < end; token += 1) {
      if (this.logprobs[token] < this.logprobs[least]) least = token;
    }
    return least;
  }

  bucketOf(place) {
    const token = this.leastOf(place);
    return token < 0 ? 0 : bucket(Math.exp(this.logprobs[token]));
  }
}

// Where a view's characters are in the page: each of its text nodes with the offset it begins at.
class Places {
  constructor() {
    this.clear();
  }

  clear() {
    this.nodes = [];
    this.starts = [];
    this.startOf = new WeakMap();
  }

  add(node, start) {
    this.nodes.push(node);
    this.starts.push(start);
    this.startOf.set(node, start);
  }

  range(Kind, from, to) {
    const [first, last] = [lastUpTo(this.starts, from), lastUpTo(this.starts, to - 1)];
    const bounds = {
      startContainer: this.nodes[first],
      startOffset: from - this.starts[first],
      endContainer: this.nodes[last],
      endOffset: to - this.starts[last],
    };
    if (Kind === StaticRange) return new StaticRange(bounds);
    const range = new Range();
    range.setStart(bounds.startContainer, bounds.startOffset);
    range.setEnd(bounds.endContainer, bounds.endOffset);
    return range;
  }

  // The offset of the character under a point of the window, or -1. A caret stands between two
  // characters, so both are tried.
  under(x, y) {
    const caret = caretAt(x, y);
    const start = caret ? this.startOf.get(caret.node) : undefined;
    if (start === undefined) return -1;
    const unit = start + caret.offset;
    for (const at of [unit, unit - 1]) {
      if (at < start || at >= start + caret.node.length) continue;
      if (contains(this.range(Range, at, at + 1), x, y)) return at;
    }
    return -1;
  }
}

// Paints the sections of a view that are in sight or close to it.
class Heat {
  constructor(root, spans, places) {
    this.spans = spans;
    this.places = places;
    this.sections = new WeakMap(); // of their elements
    this.painted = new Map(); // section to its ranges, each with its bucket
    this.observer = new IntersectionObserver((entries) => this.see(entries), {
      root,
      rootMargin: "25% 0px",
    });
  }

  watch(section) {
    this.sections.set(section.element, section);
    this.observer.observe(section.element);
  }

  see(entries) {
    for (const { target, isIntersecting } of entries) {
      const section = this.sections.get(target);
      const known = this.painted.has(section);
      if (isIntersecting && !known) {
        this.painted.set(section, []);
        this.paint(section, section.from, section.to);
      } else if (!isIntersecting && known) {
        this.forget(section);
      }
    }
  }

  // Neighbours of one bucket share a range.
  paint(section, from, to) {
    const ranges = this.painted.get(section);
    if (!ranges || from >= to) return;
    const { spans } = this;
    let begin = from;
    for (let place = spans.at(from); begin < to; ) {
      const level = spans.bucketOf(place);
      let [, end] = spans.bounds(place);
      for (place += 1; end < to && spans.bucketOf(place) === level; place += 1) {
        [, end] = spans.bounds(place);
      }
      end = Math.min(end, to);
      if (level > 0) {
        const range = this.places.range(StaticRange, begin, end);
        highlight(`wb-heat-${level}`).add(range);
        ranges.push([level, range]);
      }
      begin = end;
    }
  }

  forget(section) {
    for (const [level, range] of this.painted.get(section)) {
      highlight(`wb-heat-${level}`).delete(range);
    }
    this.painted.delete(section);
  }

  close() {
    this.observer.disconnect();
    for (const section of [...this.painted.keys()]) this.forget(section);
  }
}

// All views of a page share its highlights, also those that another copy of this module made.
function highlight(name) {
  let found = CSS.highlights.get(name);
  if (found === undefined) {
    found = new Highlight();
    found.priority = name === HERE ? 1 : 0;
    CSS.highlights.set(name, found);
  }
  return found;
}

function bucket(probability) {
  return BUCKETS.findIndex(({ least }) => probability >= least);
}

// The index of the last number that is at most `limit`; the numbers ascend.
function lastUpTo(numbers, limit) {
  let low = 0;
  let high = numbers.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] <= limit) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function caretAt(x, y) {
  if (document.caretPositionFromPoint) {
    const caret = document.caretPositionFromPoint(x, y);
    return caret && { node: caret.offsetNode, offset: caret.offset };
  }
  const range = document.caretRangeFromPoint(x, y); // Safari
  return range && { node: range.startContainer, offset: range.startOffset };
}

function contains(range, x, y) {
  return [...range.getClientRects()].some(
    ({ left, right, top, bottom }) => x >= left && x <= right && y >= top && y <= bottom,
  );
}

function unitsOf(text, from, points) {
  let at = from;
  for (let left = points; left > 0 && at < text.length; left -= 1) {
    at += text.codePointAt(at) > 0xffff ? 2 : 1;
  }
  return at;
}
