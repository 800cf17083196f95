/** Where the time of each turn went: a stacked bar each, with its numbers. */

const STEPS = {
  silence: "waiting to be sure that you have finished",
  transcript: "understanding your words",
  reply: "thinking of an answer",
  voice: "making its voice",
  heard: "until you hear it",
};
const SHOWN = 4; // turns

export class Latency {
  #section;
  #list;
  #text;
  #turns = [];

  constructor({ section, legend, list, text }) {
    this.#section = section;
    this.#list = list;
    this.#text = text;
    for (const [step, meaning] of Object.entries(STEPS)) {
      const item = document.createElement("li");
      item.className = step;
      item.textContent = step;
      item.title = meaning;
      legend.append(item);
    }
  }

  /** `steps`: ms by step. */
  show(number, steps) {
    const known = Object.keys(STEPS).filter((step) => Number.isFinite(steps[step]));
    this.#turns = [...this.#turns.slice(1 - SHOWN), { number, steps, known }];
    this.#section.hidden = false;
    const longest = Math.max(...this.#turns.map((turn) => total(turn)));
    this.#list.replaceChildren(...this.#turns.map((turn) => this.#bar(turn, longest)));
  }

  #bar(turn, longest) {
    const item = document.createElement("li");
    const all = Math.round(total(turn));
    const numbers = turn.known.map((step) => `${step} ${Math.round(turn.steps[step])}`).join(", ");
    const told = `Turn ${turn.number}: ${all} ms = ${numbers}`;
    const bar = document.createElement("span");
    bar.className = "bar";
    bar.tabIndex = 0;
    bar.setAttribute("role", "img");
    bar.setAttribute("aria-label", told);
    for (const step of turn.known) {
      const part = document.createElement("i");
      part.className = step;
      part.style.width = `${(100 * Math.max(0, turn.steps[step])) / longest}%`;
      bar.append(part);
    }
    const tell = () => (this.#text.textContent = told);
    bar.addEventListener("focus", tell);
    item.addEventListener("pointerenter", tell);
    const sum = document.createElement("span");
    sum.className = "sum";
    sum.setAttribute("aria-hidden", "true");
    sum.textContent = `${all} ms`;
    item.append(bar, sum);
    return item;
  }
}

const total = ({ steps, known }) => known.reduce((sum, step) => sum + Math.max(0, steps[step]), 0);
