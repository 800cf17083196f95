// A call, recorded in the page: what the microphone gives and what the bot says, on one clock.
const options = new URLSearchParams(location.search);
const chunks = [];
const clocks = []; // [performance.now(), frames of the audio context]
const stats = [];
let context, peer, firstFrame = null;

async function syncTime() {
  // The server's clock against this page's: of many questions the one that was answered the quickest.
  let best = null;
  for (let n = 0; n < 30; n++) {
    const asked = performance.now();
    const server = Number(await (await fetch("time")).text());
    const took = performance.now() - asked;
    if (best === null || took < best.took) best = { took, page: asked + took / 2, server };
  }
  return best;
}

window.start = async () => {
  context = new AudioContext({ sampleRate: 48000 });
  await context.resume();
  await context.audioWorklet.addModule("recorder.js");
  const recorder = new AudioWorkletNode(context, "recorder", { numberOfInputs: 2, numberOfOutputs: 1 });
  recorder.port.onmessage = ({ data }) => {
    if (firstFrame === null) firstFrame = data.until - data.samples.length / 2;
    chunks.push(data.samples);
  };
  recorder.connect(context.destination);

  const processing = options.get("processing") === "1";
  const microphone = await navigator.mediaDevices.getUserMedia({
    audio: { echoCancellation: processing, noiseSuppression: processing, autoGainControl: processing },
  });
  context.createMediaStreamSource(microphone).connect(recorder, 0, 0);

  peer = new RTCPeerConnection();
  for (const track of microphone.getTracks()) peer.addTrack(track, microphone);
  peer.ontrack = ({ track, receiver, streams }) => {
    if (options.has("target")) receiver.jitterBufferTarget = Number(options.get("target"));
    const stream = streams[0] ?? new MediaStream([track]);
    // Remote audio that only goes to WebAudio stays silent in Chromium: it has to be played by an element, too.
    const element = new Audio();
    element.srcObject = stream;
    element.play();
    window.element = element;
    context.createMediaStreamSource(stream).connect(recorder, 0, 1);
  };
  await peer.setLocalDescription(await peer.createOffer());
  await new Promise((done) => {
    if (peer.iceGatheringState === "complete") done();
    peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && done();
  });
  const answer = await fetch("offer", { method: "POST", body: peer.localDescription.sdp });
  await peer.setRemoteDescription({ type: "answer", sdp: await answer.text() });

  setInterval(() => clocks.push([performance.now(), context.currentTime * 48000]), 10);
  setInterval(async () => {
    for (const report of (await peer.getStats()).values()) {
      if (report.type === "inbound-rtp") stats.push({ at: performance.now(), ...report });
    }
  }, 1000);
};

window.connected = () => peer?.connectionState === "connected";

window.finish = async () => {
  const time = await syncTime();
  await fetch("recording", { method: "POST", body: new Blob(chunks) });
  peer.close();
  return JSON.stringify({ time, clocks, stats, firstFrame, baseLatency: context.baseLatency });
};
