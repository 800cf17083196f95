// The published client, as its documentation has it used: every event is noted, and a test looks at the notes.
import { PipecatClient, RTVIEvent } from "@pipecat-ai/client-js";
import { SmallWebRTCTransport, WavMediaManager } from "@pipecat-ai/small-webrtc-transport";

window.notes = []; // [name of the event, what came with it]

function plain(value) {
  try {
    return JSON.parse(JSON.stringify(value ?? null));
  } catch {
    return null;
  }
}

window.start = (transportParams, options = {}) => {
  const client = new PipecatClient({
    transport: new SmallWebRTCTransport({ mediaManager: new WavMediaManager(), ...transportParams }),
    enableMic: true,
    enableCam: false,
    ...options,
  });
  for (const name of Object.values(RTVIEvent)) {
    client.on(name, (data) => window.notes.push([name, plain(data)]));
  }
  // Sound is only decoded, and can only be measured, where an element plays it.
  client.on(RTVIEvent.TrackStarted, (track, participant) => {
    if (participant?.local || track.kind !== "audio") return;
    const stream = new MediaStream([track]);
    const audio = new Audio();
    audio.srcObject = stream;
    audio.play();
    const context = new AudioContext();
    const analyser = context.createAnalyser();
    context.createMediaStreamSource(stream).connect(analyser);
    window.loudness = () => {
      const wave = new Float32Array(analyser.fftSize);
      analyser.getFloatTimeDomainData(wave);
      return Math.sqrt(wave.reduce((sum, x) => sum + x * x, 0) / wave.length);
    };
  });
  window.client = client;
  return client;
};

window.came = (name, wanted = () => true) => window.notes.filter(([one, data]) => one === name && wanted(data));
