/** What is heard: the bot's voice in its audio element, and the two level meters. */

const FADE_MS = 20;
const FLOOR_DB = -60;

/** The bot's voice. */
export class Voice {
  #element;
  #wake = 0;
  #fading = 0;

  constructor(element) {
    this.#element = element;
  }

  /** Play it; false where the browser wants a click first. */
  async play(stream) {
    if (stream) this.#element.srcObject = stream;
    try {
      await this.#element.play();
      return true;
    } catch (error) {
      return error.name !== "NotAllowedError";
    }
  }

  /** Silence for `ms`, or until `speakUp`: what the server cuts is still on its way, and in the browser's buffer. */
  hush(ms) {
    this.speakUp();
    this.#wake = setTimeout(() => this.speakUp(), ms);
    const begun = performance.now();
    this.#fading = setInterval(() => {
      this.#element.volume = Math.max(0, 1 - (performance.now() - begun) / FADE_MS);
      if (!this.#element.volume) clearInterval(this.#fading);
    }, 5);
  }

  /** At once, so that nothing of an answer's beginning is lost. */
  speakUp() {
    clearTimeout(this.#wake);
    clearInterval(this.#fading);
    this.#element.volume = 1;
  }
}

/** Draws how loud some streams are, all in one go. */
export class Meters {
  #context = null;
  #meters = new Map();
  #calm = matchMedia("(prefers-reduced-motion: reduce)");
  #drawnAt = 0;
  #toldAt = 0;

  /** In a click: browsers let audio begin there only. */
  wake() {
    this.#context ??= new AudioContext();
    this.#context.resume().catch(() => {});
  }

  /** Show `stream` in `element`, or nothing where it is null. */
  show(element, stream) {
    this.#meters.get(element)?.source.disconnect();
    this.#meters.delete(element);
    this.#draw(element, 0, true);
    if (!stream || !this.#context) return;
    const source = this.#context.createMediaStreamSource(stream);
    const analyser = this.#context.createAnalyser();
    analyser.fftSize = 1024;
    source.connect(analyser);
    this.#meters.set(element, { source, analyser, wave: new Float32Array(analyser.fftSize) });
    if (this.#meters.size === 1) requestAnimationFrame((now) => this.#tick(now));
  }

  #tick(now) {
    if (!this.#meters.size) return;
    requestAnimationFrame((then) => this.#tick(then));
    if (now - this.#drawnAt < (this.#calm.matches ? 250 : 30)) return;
    this.#drawnAt = now;
    const tell = now - this.#toldAt > 1000;
    if (tell) this.#toldAt = now;
    for (const [element, { analyser, wave }] of this.#meters) {
      analyser.getFloatTimeDomainData(wave);
      let sum = 0;
      for (const sample of wave) sum += sample * sample;
      const db = 10 * Math.log10(sum / wave.length + 1e-10);
      this.#draw(element, Math.min(1, Math.max(0, 1 - db / FLOOR_DB)), tell);
    }
  }

  #draw(element, level, tell) {
    element.firstElementChild.style.transform = `scaleX(${level.toFixed(3)})`;
    if (tell) element.setAttribute("aria-valuenow", Math.round(100 * level));
  }
}
