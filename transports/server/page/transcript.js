/** The conversation in words: what is being understood, what was said, and how much of an answer was heard. */

const LONGEST = 400; // entries; the oldest go

const words = (text) => text.split(/\s+/).filter(Boolean);

export class Transcript {
  #list;
  #scroll;
  #empty;
  #log;
  #announces;
  #user = null; // the entry that what the user says goes on in
  #bot = null; // the entry of the newest answer
  #older = []; // of those before, which may still be spoken
  #follows = true;

  /** `log`: what screen readers are told; `announces`: whether they are. */
  constructor({ list, scroll, empty, log, announces }) {
    this.#list = list;
    this.#scroll = scroll;
    this.#empty = empty;
    this.#log = log;
    this.#announces = announces;
  }

  /** What the user says, as far as it is understood; `final`: it will not change. */
  heard(text, final) {
    if (!text && !final) return;
    this.#user ??= { ...this.#entry("you", "You"), final: "" };
    const entry = this.#user;
    const all = [entry.final, text].filter(Boolean).join(" ");
    if (final) entry.final = all;
    entry.body.replaceChildren(entry.final);
    if (!final) entry.body.append(entry.final && " ", span("interim", text));
    if (final && !all) this.#drop(entry);
    if (final && text) this.#tell(`You: ${text}`);
    this.#follow();
  }

  /** What was being understood came to nothing: a cough. */
  unheard() {
    if (!this.#user) return;
    this.#user.body.replaceChildren(this.#user.final);
    if (!this.#user.final) this.#drop(this.#user);
  }

  /** What the user typed. */
  typed(text) {
    this.#user = { ...this.#entry("you", "You"), final: text };
    this.#user.who.append(" ", span("mark", "typed"));
    this.#user.body.textContent = text;
    this.#follow();
  }

  /** A piece of an answer, and how much of it was spoken so far; `done`: all of it. */
  answer(id, text, spoken, done = false) {
    let entry = [this.#bot, ...this.#older].find((one) => one?.pieces.has(id));
    if (!entry) {
      if (this.#user) this.#step(); // somebody spoke in between
      this.#user = null;
      entry = this.#bot ??= { ...this.#entry("bot", "Bot"), pieces: new Map() };
    }
    const before = entry.pieces.get(id);
    const count = done ? words(text).length : Math.max(before?.count ?? 0, words(spoken).length);
    entry.pieces.set(id, { words: words(text), count, done: done || before?.done });
    if (done && !before?.done) this.#tell(`Bot: ${text}`);
    this.#draw(entry);
  }

  /** What is not spoken by now will not be. */
  cut() {
    for (const entry of [this.#bot, ...this.#older]) if (entry) this.#draw(entry, true);
    this.#bot = null;
    this.#older = [];
  }

  /** A line between two conversations, or about what happened. */
  note(text) {
    if (!this.#list.children.length) return;
    this.#user = null;
    this.#step();
    const item = document.createElement("li");
    item.className = "note";
    item.textContent = text;
    this.#add(item);
  }

  /** What comes is a new answer; the one before may still be spoken. */
  #step() {
    if (this.#bot) this.#older = [this.#bot, ...this.#older.slice(0, 2)];
    this.#bot = null;
  }

  #draw(entry, cut = false) {
    const pieces = [...entry.pieces.values()];
    const reached = pieces.findLastIndex(({ count }) => count > 0);
    const said = [];
    const rest = [];
    pieces.forEach(({ words: all, count }, number) => {
      const heard = number < reached ? all.length : count;
      said.push(...all.slice(0, heard));
      rest.push(...all.slice(heard));
    });
    entry.body.replaceChildren(said.join(" "));
    if (rest.length) {
      const unheard = span("unspoken", rest.join(" "), cut ? "del" : "span");
      if (cut) {
        unheard.prepend(span("hidden", "not heard: "));
        entry.who.append(" ", span("mark cut", "cut off"));
        this.#tell(said.length ? `Bot, cut off after: ${said.join(" ")}` : "Bot, cut off before a word");
      }
      entry.body.append(said.length ? " " : "", unheard);
    }
    this.#follow();
  }

  #entry(side, name) {
    const item = document.createElement("li");
    item.className = side;
    const who = span("who", name);
    const body = document.createElement("p");
    item.append(who, body);
    this.#add(item);
    return { item, who, body };
  }

  #add(item) {
    this.#empty.hidden = true;
    const { scrollTop, scrollHeight, clientHeight } = this.#scroll;
    this.#follows = scrollHeight - scrollTop - clientHeight < 80;
    this.#list.append(item);
    if (this.#list.children.length > LONGEST) this.#list.firstElementChild.remove();
    this.#follow();
  }

  #drop(entry) {
    entry.item.remove();
    this.#user = null;
  }

  /** Keep the newest in sight, unless the user has scrolled up. */
  #follow() {
    if (this.#follows) this.#scroll.scrollTop = this.#scroll.scrollHeight;
  }

  #tell(text) {
    if (!this.#announces()) return;
    const line = document.createElement("p");
    line.textContent = text;
    this.#log.append(line);
    if (this.#log.children.length > 10) this.#log.firstElementChild.remove();
  }
}

function span(className, text, name = "span") {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = text;
  return element;
}
