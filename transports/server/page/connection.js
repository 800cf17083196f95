/**
 * A session with the bot: it is offered over HTTP, lives in a Peer, and is taken up again when the network was gone.
 *
 * Events: "state" (detail: {state, ...}), "message" (detail: an RTVI message), "stream" (detail: MediaStream).
 * States: connecting, connected {again}, reconnecting {inS}, ended {why, error}.
 */

import { Peer } from "./peer.js";

const CONNECT_MS = 10_000;
const RESTART_MS = 4_000;
const ANSWER_MS = 10_000;
const BACKOFF_S = [0, 1, 1, 2, 2, 4, 4, 8, 8];
const FINAL = new Set([400, 401, 403, 404, 410, 413, 415, 422]);

/** The server answered, and the answer was no. */
export class Refused extends Error {
  constructor(status, message, retryAfterS) {
    super(message);
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

/** The server did not answer. */
export class Unreachable extends Error {}

/** The server answered, and no audio found its way. */
export class NoPath extends Error {}

export class Connection extends EventTarget {
  #address;
  #token;
  #iceServers = [];
  #track = null;
  #id = null;
  #peer = null;
  #state = "idle";
  #hurry = null; // ends a wait
  #found = []; // candidates that wait for the offer to be answered; null once it is

  constructor({ address, token = "" }) {
    super();
    this.#address = address;
    this.#token = token;
  }

  get state() {
    return this.#state;
  }

  /** Connect; `track`: of the microphone, or null. What goes wrong ends it: {why: "failed", error}. */
  async open(track, iceServers) {
    this.#track = track;
    this.#iceServers = iceServers;
    this.#enter("connecting");
    try {
      await this.#connect(CONNECT_MS);
    } catch (error) {
      this.#end("failed", error);
    }
  }

  /** Say good bye to the server, and close. */
  hangUp(why = "you") {
    this.send("disconnect-bot", {});
    this.#end(why, null, 150);
  }

  send(type, data, id = crypto.randomUUID?.() ?? String(Math.random()).slice(2)) {
    return this.#peer?.send(JSON.stringify({ label: "rtvi-ai", type, id, data })) ?? false;
  }

  async speak(track) {
    this.#track = track;
    await this.#peer?.speak(track);
  }

  /** Do not wait for the next attempt. */
  retryNow() {
    this.#hurry?.();
  }

  // --- one way up, two ways back ------------------------------------------------------------------------------

  async #connect(ms, { restart = false } = {}) {
    const before = this.#peer;
    const peer = (this.#peer = this.#listen(new Peer(this.#iceServers, this.#track)));
    try {
      await this.#exchange(peer, await peer.offer(), restart);
      await this.#reach(peer, ms);
    } finally {
      before?.close(); // not sooner: to the server, its end would be the user's going away
    }
    this.send("client-ready", { version: "2.1.0", about: { library: "voxline-page", library_version: "0.1.0" } });
    this.#enter("connected", { again: restart });
  }

  /** Restart ICE: the same peer, on another way. True where the server was asked and it brought nothing. */
  async #restart() {
    const peer = this.#peer;
    try {
      await this.#exchange(peer, await peer.offer({ restart: true }), false);
      await this.#reach(peer, RESTART_MS, { again: true });
    } catch (error) {
      if (error instanceof Unreachable || error instanceof Refused) throw error;
      return true;
    }
    this.#enter("connected", { again: true });
    return false;
  }

  async #reach(peer, ms, options) {
    try {
      await peer.connected(ms, options);
    } catch (error) {
      throw new NoPath(error.message);
    }
    if (this.#state === "ended") throw new NoPath("hung up meanwhile");
  }

  async #comeBack(why) {
    if (this.#state !== "connected") return;
    let restarts = true; // of ICE; where one was answered and brought nothing, only a new peer helps
    for (const seconds of BACKOFF_S) {
      this.#enter("reconnecting", { inS: seconds });
      await this.#wait(seconds);
      if (this.#state === "ended") return;
      try {
        if (restarts && this.#peer.usable) restarts = !(await this.#restart());
        if (this.#state === "reconnecting") await this.#connect(CONNECT_MS, { restart: true });
        return;
      } catch (error) {
        if (this.#state === "ended") return;
        if (error instanceof Refused && FINAL.has(error.status)) {
          this.#end(error.status === 404 || error.status === 410 ? "expired" : "failed", error);
          return;
        }
      }
    }
    this.#end("lost", new NoPath(why));
  }

  async #wait(seconds) {
    if (!seconds) return;
    await new Promise((done) => {
      const timer = setTimeout(done, 1000 * seconds);
      this.#hurry = () => {
        clearTimeout(timer);
        done();
      };
    });
    this.#hurry = null;
    if (this.#state !== "ended") this.#enter("reconnecting", { inS: 0 });
  }

  // --- HTTP -----------------------------------------------------------------------------------------------------

  async #exchange(peer, sdp, restart) {
    if (this.#state === "ended") throw new NoPath("hung up meanwhile");
    const found = (this.#found = []);
    const body = { sdp, type: "offer", pc_id: this.#id, restart_pc: restart };
    const answer = await (await this.#ask("POST", body)).json();
    this.#id = answer.pc_id;
    await peer.answer(answer.sdp);
    this.#found = null;
    this.#trickle(found);
  }

  #trickle(candidates) {
    if (this.#found) this.#found.push(...candidates);
    else if (candidates.length) this.#ask("PATCH", { pc_id: this.#id, candidates }).catch(() => {});
  }

  async #ask(method, body) {
    const headers = { "Content-Type": "application/json" };
    if (this.#token) headers.Authorization = `Bearer ${this.#token}`;
    let response;
    try {
      const signal = AbortSignal.timeout(ANSWER_MS);
      response = await fetch(this.#address, { method, headers, signal, body: JSON.stringify(body) });
    } catch (error) {
      throw new Unreachable(error.message);
    }
    if (response.ok) return response;
    const told = await response.json().catch(() => ({}));
    throw new Refused(response.status, told.error ?? "", Number(response.headers.get("Retry-After")) || 0);
  }

  // --- what comes -------------------------------------------------------------------------------------------------

  #listen(peer) {
    const mine = (act) => (event) => peer === this.#peer && this.#state !== "ended" && act(event.detail);
    peer.addEventListener("message", mine((text) => this.#take(text)));
    peer.addEventListener("stream", mine((stream) => this.#tell("stream", stream)));
    peer.addEventListener("lost", mine((why) => this.#comeBack(why)));
    peer.addEventListener("candidates", mine((candidates) => this.#trickle(candidates)));
    return peer;
  }

  #take(text) {
    let message;
    try {
      message = JSON.parse(text);
    } catch {
      return; // an answer to a ping
    }
    if (message.type === "signalling") {
      if (message.message?.type === "peerLeft") this.#end("bot");
    } else if (message.label === "rtvi-ai") this.#tell("message", message);
  }

  #end(why, error = null, afterMs = 0) {
    if (this.#state === "ended") return;
    const peer = this.#peer;
    this.#enter("ended", { why, error });
    this.#hurry?.();
    if (peer) setTimeout(() => peer.close(), afterMs);
  }

  #enter(state, more = {}) {
    this.#state = state;
    this.#tell("state", { state, ...more });
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
