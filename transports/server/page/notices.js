/** What goes wrong, and what to do about it, in a sentence or two each. */

import { NoPath, Refused, Unreachable } from "./connection.js";
import { NoMicrophone } from "./microphone.js";

const MICROPHONE = {
  Insecure: [
    "This page gets no microphone",
    "Browsers give it to secure pages only: open this one by https://, or at http://localhost.",
  ],
  NotAllowedError: [
    "The microphone was refused",
    "Allow it for this page in the browser's address bar, or in the settings of your system.",
  ],
  NotFoundError: ["No microphone was found", "Plug one in, or switch it on."],
  NotReadableError: [
    "The microphone cannot be used",
    "Another program may hold it: close that, or choose another microphone.",
  ],
  other: ["The microphone does not work", "Choose another one."],
};

const AGAIN = { retry: "call" };
const REFUSED = {
  401: ["This server asks for a token", "Enter the one that you were given.", { token: true }],
  wrongToken: ["The token was not accepted", "It may be mistyped, used up or out of date.", { token: true }],
  403: ["The server refused this page", `It takes no calls from ${location.origin}. Whoever runs it can allow that.`],
  404: ["The conversation is over", "The server does not know it any more. Begin a new one.", AGAIN],
  429: ["Too many calls from your network", "The server asks you to wait a moment.", { ...AGAIN, waitS: 5 }],
  503: ["All lines are taken", "The server is full, or about to be restarted.", { ...AGAIN, waitS: 5 }],
  other: ["The server did not take the call", "If it happens again, tell whoever runs it.", AGAIN],
};

const UNREACHABLE = ["The server cannot be reached", "Check your network, and that the server runs.", AGAIN];
const NO_PATH = [
  "No way for the audio",
  "The server answered, but sound does not get through: a firewall may block UDP. Try another network, or ask " +
    "whoever runs the server for a TURN server.",
  AGAIN,
];
const NO_WEBRTC = ["This browser cannot call", "It has no WebRTC, or that is switched off. Use another browser."];
const BUG = ["Something went wrong in this page", "Reload it and try again.", AGAIN];

/** {kind, title, text, detail, retry, waitS, token} for an error. `tokenGiven`: one was sent. */
export function explain(error, tokenGiven = false) {
  if (error instanceof NoMicrophone) {
    const [title, text] = MICROPHONE[error.name] ?? MICROPHONE.other;
    const retry = error.name === "Insecure" ? null : "microphone";
    return { kind: "microphone", title, text: `${text} You can type and listen meanwhile.`, retry };
  }
  const [title, text, more] = explainCall(error, tokenGiven);
  const known = error instanceof Unreachable || error instanceof NoPath;
  const detail = error instanceof Refused ? error.message : known ? "" : String(error);
  const waitS = more?.waitS && (error.retryAfterS || more.waitS);
  return { kind: "call", title, text, detail, ...more, waitS };
}

function explainCall(error, tokenGiven) {
  if (error instanceof Refused) {
    if (error.status === 401 && tokenGiven) return REFUSED.wrongToken;
    return REFUSED[error.status === 410 ? 404 : error.status] ?? REFUSED.other;
  }
  if (error instanceof Unreachable) return UNREACHABLE;
  if (error instanceof NoPath) return NO_PATH;
  return typeof RTCPeerConnection === "undefined" ? NO_WEBRTC : BUG;
}

/** Shows notices, one of each kind. `act`: what a button's press calls: (what, value). */
export class Notices {
  #place;
  #act;
  #shown = new Map();

  constructor(place, act) {
    this.#place = place;
    this.#act = act;
  }

  /** Show it in place of the one of its kind. */
  show({ kind, title, text, detail = "", retry = null, waitS = 0, token = false, tone = "wrong" }) {
    this.clear(kind);
    const card = element("div", `notice ${tone}`);
    const words = element("p");
    words.setAttribute("role", tone === "wrong" ? "alert" : "status");
    words.append(element("strong", "", title), ". ", text);
    card.append(words);
    if (detail) card.append(element("p", "detail", detail));
    const timers = [];
    if (token) card.append(this.#tokenForm());
    if (retry) card.append(this.#button(retry, waitS, timers));
    this.#shown.set(kind, { card, timers });
    this.#place.append(card);
  }

  clear(kind) {
    const shown = this.#shown.get(kind);
    shown?.timers.forEach(clearInterval);
    shown?.card.remove();
    this.#shown.delete(kind);
  }

  #button(what, waitS, timers) {
    const names = { call: "Try again", microphone: "Try the microphone again", sound: "Play sound", now: "Try now" };
    const button = element("button", "", names[what]);
    button.type = "button";
    button.addEventListener("click", () => this.#act(what));
    let left = waitS;
    const show = () => {
      button.disabled = left > 0 && what !== "now";
      button.textContent = left > 0 ? `${names[what]} (${left} s)` : names[what];
    };
    show();
    if (left) {
      timers.push(
        setInterval(() => {
          left -= left > 0;
          show();
        }, 1000),
      );
    }
    return button;
  }

  #tokenForm() {
    const form = element("form", "token");
    const label = element("label", "", "Token");
    const field = element("input");
    field.type = "password";
    field.autocomplete = "off";
    field.required = true;
    label.append(field);
    form.append(label, element("button", "", "Connect"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#act("token", field.value.trim());
    });
    queueMicrotask(() => field.focus());
    return form;
  }
}

function element(name, className = "", text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}
