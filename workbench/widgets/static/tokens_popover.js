// What is known of one token, and what could have stood in its place.

const STAY = 150; // ms that a person stays at a token until the kernel is asked about it
const PATIENCE = 5_000; // ms until the popover says that the kernel has not answered
const LONGEST = 60; // code points of a token's text that are shown
const UNSEEN = /[\p{C}\p{Z}\u034f\u115f\u1160\u3164\ufe00-\ufe0f\uffa0]/gu;
const SHOWN_AS = { " ": "\u2423", "\n": "\u21b5", "\t": "\u21e5" };

// The questions about tokens of one stream and their answers, shared by all views of a page.
class Questions {
  constructor(model, tell) {
    this.model = model;
    this.tell = tell;
    this.begin(0);
  }

  begin(epoch) {
    this.close();
    this.next = null; // what is about to be asked
    this.epoch = epoch;
    this.answers = new Map();
    this.going = null; // what became of the wish to continue
  }

  can(kind) {
    return this.model.get("_answers").includes(kind);
  }

  about(index) {
    if (!this.can("alternatives")) return {};
    const known = this.answers.get(index);
    if (known) return known;
    const asked = { wait: "Asking for alternatives ..." };
    this.answers.set(index, asked);
    if (this.answers.size > 200) this.answers.delete(this.answers.keys().next().value);
    this.next = { index, timer: setTimeout(() => this.askAbout(index, asked), STAY) };
    return asked;
  }

  // Whoever has gone on before the kernel was asked wants no answer.
  leave() {
    if (!this.next) return;
    clearTimeout(this.next.timer);
    this.answers.delete(this.next.index);
    this.next = null;
  }

  askAbout(index, asked) {
    if (this.next?.index === index) this.next = null;
    this.ask({ kind: "alternatives", index });
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      asked.wait = "The kernel has not answered yet: it is busy or gone.";
      this.tell();
    }, PATIENCE);
  }

  continueFrom(index, token) {
    this.going = { index, wait: "Going on from here ..." };
    this.ask({ kind: "continue", index, token_id: token });
    this.tell();
  }

  ask(question) {
    this.model.send({ epoch: this.epoch, ...question });
  }

  take({ kind, epoch, index, choices, error }) {
    if (epoch !== this.epoch) return;
    if (kind === "alternatives") this.answers.set(index, { choices, error });
    else this.going = error === undefined ? null : { index, error };
    this.tell();
  }

  // An error is worth another try when the token is looked at again.
  retry() {
    for (const [index, { error }] of this.answers) {
      if (error !== undefined) this.answers.delete(index);
    }
  }

  close() {
    clearTimeout(this.timer);
    clearTimeout(this.next?.timer);
  }
}

class Popover {
  constructor(questions) {
    this.questions = questions;
    this.text = element("bdi", "wb-token-text");
    this.facts = element("p", "wb-token-facts");
    this.shared = element("p", "wb-token-shared");
    this.heading = element("p", "wb-token-heading");
    this.choices = element("ol", "wb-token-choices");
    this.news = element("p", "wb-token-news", { role: "status" });
    this.root = element("div", "wb-token", { popover: "manual", role: "group" });
    this.root.append(this.text, this.facts, this.shared, this.heading, this.choices, this.news);
    this.token = -1;
  }

  get open() {
    return this.token >= 0;
  }

  // `token` counts from 0; `place` is that of its span.
  show(stream, token, place) {
    if (token !== this.token) {
      this.questions.leave();
      this.questions.retry();
    }
    this.token = token;
    const { spans } = stream;
    const [from, to] = spans.bounds(place);
    const [first, end] = spans.tokensOf(place);
    this.said = visible(stream.text.slice(from, to));
    const position = `token ${(token + 1).toLocaleString("en")}`;
    const logprob = spans.logprobs[token];
    setText(this.text, this.said);
    setText(this.facts, `${percent(logprob)} \u00b7 ln ${logprob.toFixed(3)} \u00b7 ${position}`);
    const several = `This text came with the tokens ${first + 1} to ${end}.`;
    setText(this.shared, end - first > 1 ? several : "");
    this.root.setAttribute("aria-label", `About ${position}`);
    this.root.showPopover();
    this.drawAnswer();
  }

  // In words, for who cannot see where in the text the token stands.
  get summary() {
    return `${this.said}, ${this.facts.textContent}`;
  }

  drawAnswer() {
    if (!this.open) return;
    const { choices = [], wait, error } = this.questions.about(this.token);
    const going = this.questions.going?.index === this.token ? this.questions.going : {};
    setText(this.news, going.error ?? going.wait ?? error ?? wait ?? "");
    const able = this.questions.can("continue") && choices.some(([id]) => id !== null);
    const heading = able ? "Continue from here with:" : "The likeliest tokens here:";
    setText(this.heading, choices.length ? heading : "");
    const shown = JSON.stringify([this.token, choices, able]);
    if (shown === this.shownChoices) return;
    this.shownChoices = shown;
    this.choices.replaceChildren(...choices.map((choice) => this.choice(choice, able)));
  }

  // A server may not tell a token's id; such a choice is only shown.
  choice([token, text, logprob], goesOn) {
    const able = goesOn && token !== null;
    const item = element("li", "wb-token-item");
    const line = element(able ? "button" : "span", "wb-token-choice");
    const name = element("bdi", "wb-token-name");
    const share = element("span", "wb-token-share");
    name.textContent = visible(text);
    share.textContent = percent(logprob);
    line.style.setProperty("--share", `${100 * Math.exp(logprob)}%`);
    line.append(name, " ", share);
    if (able) {
      line.type = "button";
      const index = this.token;
      line.addEventListener("click", () => this.questions.continueFrom(index, token));
    }
    item.append(line);
    return item;
  }

  // Under the token or, where there is no room, above it.
  place({ left, top, bottom }) {
    const { offsetWidth, offsetHeight } = this.root;
    const below = bottom + 4;
    const fits = below + offsetHeight <= window.innerHeight;
    const x = Math.max(4, Math.min(left, window.innerWidth - offsetWidth - 4));
    this.root.style.left = `${x}px`;
    this.root.style.top = `${fits ? below : Math.max(4, top - 4 - offsetHeight)}px`;
  }

  hide() {
    if (!this.open) return;
    this.token = -1;
    this.questions.leave();
    this.shownChoices = undefined;
    this.root.hidePopover();
  }
}

function percent(logprob) {
  const share = 100 * Math.exp(logprob);
  if (share > 0 && share < 0.01) return "< 0.01 %";
  return `${share.toFixed(share < 1 ? 2 : 1)} %`;
}

// A token's text with what cannot be seen, or would turn the order of others, made visible.
function visible(text) {
  const points = [...text];
  const shown = points.slice(0, LONGEST).join("").replace(UNSEEN, (unseen) => {
    const code = unseen.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
    return SHOWN_AS[unseen] ?? `\u27e8${code}\u27e9`;
  });
  return points.length > LONGEST ? `${shown}\u2026` : shown;
}
