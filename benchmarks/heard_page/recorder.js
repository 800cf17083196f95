// Two inputs, the microphone and the bot, as two channels of one recording: frame n of both is the same moment.
const FRAMES = 9600;

class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.chunk = new Int16Array(2 * FRAMES);
    this.filled = 0;
  }

  process(inputs) {
    const frames = 128;
    for (let n = 0; n < frames; n++) {
      for (let side = 0; side < 2; side++) {
        const channels = inputs[side];
        let value = 0;
        for (const channel of channels) value += channel[n];
        if (channels.length > 1) value /= channels.length;
        this.chunk[2 * this.filled + side] = Math.max(-32768, Math.min(32767, Math.round(value * 32767)));
      }
      this.filled++;
    }
    if (this.filled === FRAMES) {
      this.port.postMessage({ until: currentFrame + frames, samples: this.chunk }, [this.chunk.buffer]);
      this.chunk = new Int16Array(2 * FRAMES);
      this.filled = 0;
    }
    return true;
  }
}

registerProcessor("recorder", Recorder);
