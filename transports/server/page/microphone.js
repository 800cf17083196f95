/** The microphone: which one, how it is treated, and what to do when there is none. */

const SETTINGS = ["echoCancellation", "noiseSuppression", "autoGainControl"];
const NONE = "none";

/** Why there is no microphone: `name` is that of the browser's error, or "Insecure". */
export class NoMicrophone extends Error {
  constructor(name) {
    super(name);
    this.name = name;
  }
}

/** Events: "track" (detail: the new track or null), "gone" (the device was unplugged). */
export class Microphone extends EventTarget {
  stream = null;
  inCall = false; // only then is a change of the settings heard at once
  #select;
  #boxes;
  #muted = false;
  #turn = 0;

  constructor(select, boxes) {
    super();
    this.#select = select;
    this.#boxes = boxes;
    for (const name of SETTINGS) boxes[name].checked = recall(name) !== "off";
    const saved = recall("device");
    if (saved === NONE) select.value = NONE;
    select.addEventListener("change", () => {
      remember("device", select.value);
      this.#changed();
    });
    for (const name of SETTINGS) {
      boxes[name].addEventListener("change", () => {
        remember(name, boxes[name].checked ? "on" : "off");
        this.#changed();
      });
    }
    navigator.mediaDevices?.addEventListener("devicechange", () => this.list());
    this.list();
  }

  /** Whether the user wants one. */
  get wanted() {
    return this.#select.value !== NONE;
  }

  get track() {
    return this.stream?.getAudioTracks()[0] ?? null;
  }

  set muted(muted) {
    this.#muted = muted;
    if (this.track) this.track.enabled = !muted;
  }

  /** Its track, or null where the user wants none. Throws `NoMicrophone`. */
  async open() {
    this.close();
    const mine = ++this.#turn;
    if (!this.wanted) return null;
    if (!navigator.mediaDevices) throw new NoMicrophone(isSecureContext ? "NotSupportedError" : "Insecure");
    let stream;
    try {
      stream = await this.#get(this.#select.value);
    } catch (error) {
      throw new NoMicrophone(error.name);
    }
    if (mine !== this.#turn) {
      for (const track of stream.getTracks()) track.stop();
      return this.track; // it was closed or opened anew while the browser asked the user
    }
    this.stream = stream;
    const { track } = this;
    track.enabled = !this.#muted;
    track.onended = () => {
      this.close();
      this.#tell("gone");
    };
    this.list();
    return track;
  }

  close() {
    this.#turn++;
    for (const track of this.stream?.getTracks() ?? []) {
      track.onended = null;
      track.stop();
    }
    this.stream = null;
  }

  /** Name the devices; the browser tells their labels once it has allowed one. */
  async list() {
    const all = (await navigator.mediaDevices?.enumerateDevices().catch(() => [])) ?? [];
    const wanted = this.#select.value || recall("device") || "";
    for (const option of [...this.#select.options]) if (option.value && option.value !== NONE) option.remove();
    const last = this.#select.options[this.#select.options.length - 1];
    for (const { kind, deviceId, label } of all) {
      if (kind !== "audioinput" || !label || ["default", "communications"].includes(deviceId)) continue;
      this.#select.add(new Option(label, deviceId), last);
    }
    this.#select.value = wanted;
    if (this.#select.selectedIndex < 0) this.#select.value = "";
  }

  async #get(deviceId) {
    const audio = Object.fromEntries(SETTINGS.map((name) => [name, this.#boxes[name].checked]));
    audio.channelCount = 1;
    if (deviceId) audio.deviceId = { exact: deviceId };
    try {
      return await navigator.mediaDevices.getUserMedia({ audio });
    } catch (error) {
      if (error.name !== "OverconstrainedError" || !deviceId) throw error;
      return this.#get(""); // the remembered one is not plugged in
    }
  }

  async #changed() {
    if (!this.inCall) return;
    try {
      this.#tell("track", await this.open());
    } catch (error) {
      this.#tell("track", null);
      this.#tell("failed", error);
    }
  }

  #tell(type, detail = null) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

function recall(key) {
  try {
    return localStorage.getItem(`voxline.${key}`);
  } catch {
    return null; // storage is switched off
  }
}

function remember(key, value) {
  try {
    localStorage.setItem(`voxline.${key}`, value);
  } catch {
    // then it is not remembered
  }
}
