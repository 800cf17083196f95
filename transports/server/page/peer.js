/**
 * One RTCPeerConnection with its data channel: makes offers, takes answers, and says when it hears nothing more.
 *
 * Events, and their details: "message" (a text), "stream" (a MediaStream), "candidates" (a list), "lost" (why).
 */

const PING_MS = 1000;
const GATHER_MS = 250; // host candidates take a few ms; those of a STUN server may follow later
const SILENT_MS = 4000; // the server sends audio or silence each 20 ms

export class Peer extends EventTarget {
  #pc;
  #channel;
  #sender;
  #timer = 0;
  #late = null; // candidates found after the offer went out; null while it has not
  #packets = -1;
  #heardAt = 0;
  #up = false;
  #fingerprint = "";

  constructor(iceServers, track) {
    super();
    this.#pc = new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle" });
    this.#sender = this.#pc.addTransceiver(track ?? "audio", { direction: "sendrecv" }).sender;
    this.#channel = this.#pc.createDataChannel("chat", { ordered: true });
    this.#pc.ontrack = ({ track: heard, streams }) => this.#tell("stream", streams[0] ?? new MediaStream([heard]));
    this.#pc.onicecandidate = ({ candidate }) => this.#found(candidate);
    this.#pc.onconnectionstatechange = () => {
      if (this.#pc.connectionState === "failed" && this.#up) this.#lose("no way to the server is left");
    };
    this.#channel.onmessage = ({ data }) => {
      if (typeof data === "string") this.#tell("message", data);
    };
    this.#channel.onclose = () => this.#lose("the server closed the connection");
  }

  /** The SDP of an offer, with the candidates that were found at once. */
  async offer({ restart = false } = {}) {
    this.#late = null;
    await this.#pc.setLocalDescription(await this.#pc.createOffer({ iceRestart: restart }));
    await new Promise((done) => {
      const look = () => this.#pc.iceGatheringState === "complete" && done();
      this.#pc.addEventListener("icegatheringstatechange", look);
      setTimeout(done, GATHER_MS);
      look();
    });
    const { sdp } = this.#pc.localDescription;
    this.#late = [];
    return sdp;
  }

  /** Throws where the answer is of another peer than before: its channel is not ours. */
  async answer(sdp) {
    const fingerprint = /^a=fingerprint:.*/m.exec(sdp)?.[0];
    if (this.#fingerprint && fingerprint !== this.#fingerprint) throw new Error("the server has a new peer");
    this.#fingerprint = fingerprint;
    await this.#pc.setRemoteDescription({ type: "answer", sdp });
  }

  /** Until audio and messages can go both ways; throws when they cannot within `ms`. `again`: after an ICE restart. */
  async connected(ms, { again = false } = {}) {
    const before = await this.#received();
    const end = performance.now() + ms;
    while (performance.now() < end) {
      const state = this.#pc.connectionState;
      if (state === "closed" || (state === "failed" && !again)) throw new Error(`the connection ${state}`);
      // After a restart the browser may say "connected" of what was before: then only what arrives is proof.
      const open = state === "connected" && this.#channel.readyState === "open";
      if (open && (!again || (await this.#received()) > before)) return this.#watch();
      await new Promise((done) => setTimeout(done, 20));
    }
    throw new Error("no connection in time");
  }

  /** Whether an ICE restart has a channel to save. */
  get usable() {
    return this.#channel.readyState === "open" && this.#pc.connectionState !== "closed";
  }

  send(text) {
    if (this.#channel.readyState !== "open") return false;
    this.#channel.send(text);
    return true;
  }

  async speak(track) {
    await this.#sender.replaceTrack(track);
  }

  close() {
    clearInterval(this.#timer);
    this.#channel.onclose = this.#channel.onmessage = null;
    this.#pc.onconnectionstatechange = this.#pc.ontrack = this.#pc.onicecandidate = null;
    this.#pc.close();
  }

  #found(candidate) {
    if (this.#late === null || !candidate?.candidate) return;
    const { sdpMid, sdpMLineIndex } = candidate;
    this.#tell("candidates", [{ candidate: candidate.candidate, sdp_mid: sdpMid, sdp_mline_index: sdpMLineIndex }]);
  }

  #watch() {
    this.#up = true;
    this.#packets = -1;
    this.#heardAt = performance.now();
    clearInterval(this.#timer);
    this.#timer = setInterval(() => this.#look(), PING_MS);
  }

  async #look() {
    this.send(`ping: ${Math.round(performance.now())}`);
    const packets = await this.#received();
    const now = performance.now();
    if (packets !== this.#packets) this.#heardAt = now;
    else if (now - this.#heardAt > SILENT_MS) this.#lose("nothing comes from the server");
    this.#packets = packets;
  }

  async #received() {
    const reports = [...(await this.#pc.getStats()).values()];
    return reports.find((report) => report.type === "inbound-rtp")?.packetsReceived ?? 0;
  }

  #lose(why) {
    clearInterval(this.#timer);
    if (this.#up) this.#tell("lost", why);
    this.#up = false;
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
