/** Puts the page together: the call, its buttons and keys, and who is told of what. */

import { Meters, Voice } from "./audio.js";
import { Connection, Refused } from "./connection.js";
import { Latency } from "./latency.js";
import { RoverMap } from "./map.js";
import { Microphone } from "./microphone.js";
import { Notices, explain } from "./notices.js";
import { Transcript } from "./transcript.js";

const $ = (id) => document.getElementById(id);
const boxes = Object.fromEntries(["echoCancellation", "noiseSuppression", "autoGainControl"].map((id) => [id, $(id)]));
const CUT_MS = 400; // by then a bot that was told to stop is silent
const TRANSCRIPT_MS = 3000; // so long after speech, words are final or were none
const STATES = {
  idle: "Not connected",
  asking: "Waiting for your microphone: allow it",
  connecting: "Connecting",
  listening: "Listening",
  hearing: "Hearing you",
  thinking: "Thinking",
  speaking: "Speaking",
  reconnecting: "Reconnecting",
  ended: "Ended",
};

const voice = new Voice($("voice"));
const meters = new Meters();
const microphone = new Microphone($("device"), boxes);
const notices = new Notices($("notices"), act);
const map = new RoverMap({ section: $("map"), picture: $("map-picture"), text: $("map-text"), way: $("map-way") });
const latency = new Latency({ section: $("latency"), legend: $("legend"), list: $("turns"), text: $("turn-text") });
const transcript = new Transcript({
  list: $("transcript"),
  scroll: $("scroll"),
  empty: $("empty"),
  log: $("said"),
  announces: () => $("announce").checked,
});

let call = null;
let token = takeToken();
let speaking = false;
let unheard = 0; // the timer of words that may not come

// --- the call -------------------------------------------------------------------------------------------------

async function connect() {
  if (call) return;
  call = new Connection({ address: new URL("api/offer", document.baseURI), token });
  const mine = call;
  for (const kind of ["call", "microphone", "sound"]) notices.clear(kind);
  meters.wake();
  show("connecting");
  buttons();
  const { token: guarded, ice_servers: iceServers = [] } = await settings();
  if (call !== mine) return;
  if (guarded && !token) return ended({ why: "failed", error: new Refused(401, "") });
  if (microphone.wanted) show("asking");
  const track = await listen();
  if (call !== mine) return;
  show("connecting");
  mine.addEventListener("state", ({ detail }) => follow(mine, detail));
  mine.addEventListener("message", ({ detail }) => take(detail));
  mine.addEventListener("stream", ({ detail }) => hear(detail));
  mine.open(track, iceServers);
}

function hangUp() {
  const mine = call;
  if (mine?.state === "idle") ended({ why: "you" });
  else mine?.hangUp();
}

/** The track of the microphone; null, and a notice, where there is none. */
async function listen() {
  let track = null;
  microphone.inCall = Boolean(call);
  notices.clear("microphone");
  try {
    track = await microphone.open();
  } catch (error) {
    notices.show(explain(error));
  }
  meters.show($("you-level"), microphone.stream);
  if (!call) microphone.close();
  return track;
}

async function hear(stream) {
  meters.show($("bot-level"), stream);
  if (await voice.play(stream)) return;
  const text = "Your browser plays no sound before you press something.";
  notices.show({ kind: "sound", title: "The bot is silent", text, retry: "sound", tone: "plain" });
}

function follow(mine, detail) {
  if (mine !== call) return;
  if (detail.state === "connected") {
    notices.clear("call");
    if (detail.again) transcript.note("Connected again");
    show("listening");
  } else if (detail.state === "reconnecting") reconnecting(detail);
  else if (detail.state === "ended") ended(detail);
  buttons();
}

function reconnecting({ inS }) {
  show("reconnecting");
  const text = inS ? "It is tried again in a moment." : "It is being taken up again.";
  const retry = inS ? "now" : null;
  notices.show({ kind: "call", title: "The connection was lost", text, retry, waitS: inS, tone: "plain" });
}

function ended({ why, error }) {
  call = null;
  speaking = false;
  microphone.inCall = false;
  microphone.close();
  for (const id of ["you-level", "bot-level"]) meters.show($(id), null);
  notices.clear("call");
  show("ended", why === "failed" ? STATES.idle : undefined);
  transcript.cut();
  const plain = { kind: "call", tone: "plain" };
  const text = "Connect to begin a new one.";
  if (why === "bot") notices.show({ ...plain, title: "The bot ended the conversation", text });
  else if (why === "lost") {
    const lost = "Several attempts to take it up again came to nothing. Check your network.";
    notices.show({ kind: "call", title: "The connection is lost", text: lost, retry: "call" });
  } else if (error) notices.show(explain(error, Boolean(token)));
  transcript.note("End of the conversation");
  buttons();
}

async function settings() {
  try {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const config = await (await fetch("config.json", { headers })).json();
    if (config.name) $("name").textContent = document.title = config.name;
    return config;
  } catch {
    return {}; // the offer will tell what is wrong
  }
}

// --- what the bot tells ---------------------------------------------------------------------------------------

function take({ type, data }) {
  switch (type) {
    case "user-started-speaking":
      return transcript.unheard();
    case "user-stopped-speaking":
      clearTimeout(unheard);
      unheard = setTimeout(() => transcript.unheard(), TRANSCRIPT_MS);
      return;
    case "user-transcription":
      return transcript.heard(data.text, data.final);
    case "bot-output": {
      const { segment_id: id, text, spoken_status: status, spoken_progress: progress } = data;
      return transcript.answer(id, text, progress?.accumulated_text ?? "", status === "completed");
    }
    case "bot-started-speaking":
      speaking = true;
      voice.speakUp();
      return show("speaking");
    case "bot-stopped-speaking":
      speaking = false;
      return show("listening");
    case "server-message":
      return tell(data);
    case "error":
      return notices.show({ kind: "bot", title: "The bot reports an error", text: data.error, tone: "plain" });
  }
}

function tell(data) {
  switch (data?.type) {
    case "rover":
      return map.show(data);
    case "voxline.state":
      return show(data.state);
    case "voxline.cut":
      return transcript.cut();
    case "voxline.turn":
      return latency.show(data.number, data.steps);
  }
}

function show(state, text = STATES[state]) {
  $("state").dataset.state = state;
  $("state").textContent = text ?? state;
  // Listening, thinking and speaking are heard; told to screen readers is what is not.
  const heard = ["listening", "hearing", "thinking", "speaking"].includes(state);
  const told = heard ? "Connected" : (text ?? state);
  if ($("status").textContent !== told) $("status").textContent = told;
}

// --- buttons and keys -----------------------------------------------------------------------------------------

function buttons() {
  const there = call?.state === "connected";
  $("connect").textContent = call ? "Hang up" : "Connect";
  $("connect").classList.toggle("primary", !call);
  $("stop").disabled = $("send").disabled = $("text").disabled = !there;
  $("mute").disabled = !call || !microphone.track;
}

function stop() {
  if (call?.state !== "connected") return;
  call.send("client-message", { t: "interrupt", d: {} });
  if (speaking) voice.hush(CUT_MS);
}

function mute() {
  const muted = $("mute").getAttribute("aria-pressed") !== "true";
  $("mute").setAttribute("aria-pressed", muted);
  $("mute").textContent = muted ? "Unmute" : "Mute";
  microphone.muted = muted;
}

async function act(what, value) {
  if (what === "now") call?.retryNow();
  else if (what === "sound") (await voice.play()) && notices.clear("sound");
  else if (what === "microphone") {
    await call?.speak(await listen());
    buttons();
  } else {
    if (what === "token") token = value;
    connect();
  }
}

/** A token in the address's fragment, which no server sees; it does not stay there. */
function takeToken() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) history.replaceState(null, "", location.pathname + location.search);
  return given ?? "";
}

$("connect").addEventListener("click", () => (call ? hangUp() : connect()));
$("stop").addEventListener("click", stop);
$("mute").addEventListener("click", mute);
$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const content = $("text").value.trim();
  const options = { run_immediately: true, audio_response: true };
  if (!content || !call?.send("send-text", { content, options })) return;
  transcript.typed(content);
  $("text").value = "";
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
  else if (event.key === " " && event.target === document.body && !$("mute").disabled) {
    event.preventDefault();
    mute();
  }
});
microphone.addEventListener("track", ({ detail }) => {
  meters.show($("you-level"), microphone.stream);
  call?.speak(detail);
  notices.clear("microphone");
  buttons();
});
microphone.addEventListener("failed", ({ detail }) => notices.show(explain(detail)));
microphone.addEventListener("gone", () => act("microphone"));
addEventListener("online", () => call?.retryNow());
addEventListener("pagehide", () => call?.hangUp());
settings();
