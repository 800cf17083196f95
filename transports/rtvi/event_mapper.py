"""`EventMapper`: turns events of a pipeline into messages for the client. The tap in `rtvi.py` feeds it frames."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ...pipeline.clock import NS_PER_MS
from ...pipeline.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    ErrorFrame,
    Frame,
    InputAudioFrame,
    InputTextFrame,
    InterimTranscriptionFrame,
    LLMRequestFrame,
    OutputAudioFrame,
    ResponseCommittedFrame,
    ResponseCutFrame,
    ResponseEndFrame,
    ResponsePlayedFrame,
    ServiceMetricsFrame,
    TextFrame,
    ToolCallFrame,
    ToolResultFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from .channel import Channel
from .replies import Reply, ReplyReporter, TurnLatency
from .requests import ClientTransport

REPLIES = 16
"""Bound on unfinished responses; beyond it the oldest is forgotten."""
CALLS = 64
"""Bound on running tools, whose names are kept for their results."""
UNNUMBERED_TEXTS = 32
"""Bound on texts of a response without a number yet; beyond it the oldest is forgotten."""
SEEN = 32
"""Frames remembered as seen: a frame is reported at each processor that names its class."""
LEVELS_NS = 100 * NS_PER_MS

Source = tuple[str, str]
"""Sender and receiver of a frame; the receiver is empty for a frame taken from the inbox."""


class Observation(NamedTuple):
    """Place where a frame is observed: the inbox, a processor, or (``source`` is None) an end of the pipeline."""

    t_ns: int
    response: int
    source: Source | None
    at_tail: bool = False


Handler = Callable[[Observation, Any], None]


class EventMapper:
    """Reports each event to the client once, and in order."""

    def __init__(
        self, channel: Channel, transport: ClientTransport, *, tools: str, levels: bool, wall_s: Callable[[], float]
    ) -> None:
        self._channel = channel
        self._transport = transport
        self._tools = tools
        self._levels_ns = 0
        self._wall_s = wall_s
        self._reporter = ReplyReporter(channel.tell, lambda: channel.major)
        self._waiting = TurnLatency()
        self._replies: dict[int, Reply] = {}
        self._unnumbered: deque[str] = deque(maxlen=UNNUMBERED_TEXTS)
        """Texts on their way to a voice, whose response has no number yet."""
        self._unnumbered_source: Source | None = None
        self._playing: Reply | None = None
        self._played_ns = 0
        """Time up to which playback has been counted."""
        self._speaking = 0
        """Number of the response being heard; 0: none."""
        self._user_speaks = False
        self._cut = 0
        self._state = ""
        self._transcriber = ""
        """Name of the recogniser. Transcripts changed by later processors are not reported."""
        self._calls: dict[str, str] = {}
        self._seen: deque[Frame] = deque(maxlen=SEEN)
        self._handlers: dict[type[Frame], Handler | None] = {
            TextFrame: self._text,
            LLMRequestFrame: self._requested,
            ResponseEndFrame: self._ended,
            InterimTranscriptionFrame: self._understood,
            TranscriptionFrame: self._understood,
            InputAudioFrame: self._report_levels if levels else None,
            UserStartedSpeakingFrame: self._once(self._user_started),
            UserStoppedSpeakingFrame: self._once(self._user_stopped),
            InputTextFrame: self._once(self._typed),
            BotStartedSpeakingFrame: self._once(self._bot_started),
            BotStoppedSpeakingFrame: self._once(self._bot_stopped),
            ResponsePlayedFrame: self._once(self._played),
            ResponseCutFrame: self._once(self._response_cut),
            CancelFrame: self._once(self._cancelled),
            ResponseCommittedFrame: self._once(self._committed),
            ToolCallFrame: self._once(self._called),
            ToolResultFrame: self._once(self._returned),
            ServiceMetricsFrame: self._once(self._measured),
            ErrorFrame: self._once(self._failed),
        }

    def handler(self, kind: type[Frame]) -> Handler | None:
        """Return the handler for a frame class; None for most classes."""
        if kind not in self._handlers:
            self._handlers[kind] = next((self._handlers[one] for one in kind.__mro__ if one in self._handlers), None)
        return self._handlers[kind]

    def _once(self, handle: Callable[[int, Any], None]) -> Handler:
        def once(observation: Observation, frame: Frame) -> None:
            if self._is_new(frame):
                handle(observation.t_ns, frame)

        return once

    def _is_new(self, frame: Frame) -> bool:
        if any(frame is one for one in self._seen):
            return False
        self._seen.append(frame)
        return True

    def send_state(self) -> None:
        """Send the current state to a new client."""
        self._state = ""
        self._update_state()

    def _update_state(self) -> None:
        """Derive the state (speaking, hearing, thinking, listening), and report a change."""
        if self._speaking:
            state = "speaking"
        elif self._user_speaks:
            state = "hearing"
        elif any(reply.asked and reply.held is None for reply in self._replies.values()):
            state = "thinking"
        else:
            state = "listening"
        if state != self._state:
            self._state = state
            self._app("voxline.state", state=state)

    def _app(self, kind: str, **data: Any) -> None:
        self._channel.tell("server-message", {"type": kind, **data})

    def _report_levels(self, observation: Observation, frame: InputAudioFrame) -> None:
        if observation.t_ns >= self._levels_ns:
            self._levels_ns = observation.t_ns + LEVELS_NS
            for kind, dbfs in (("user", self._transport.input_dbfs), ("bot", self._transport.output_dbfs)):
                self._channel.tell(f"{kind}-audio-level", {"value": round(min(1.0, 10 ** (dbfs / 20)), 4)})

    # --- the user -----------------------------------------------------------------------------------------------

    def _user_started(self, t_ns: int, frame: UserStartedSpeakingFrame) -> None:
        self._user_speaks = True
        self._channel.tell("user-started-speaking")
        self._update_state()

    def _user_stopped(self, t_ns: int, frame: UserStoppedSpeakingFrame) -> None:
        self._user_speaks = False
        self._waiting.spoke(t_ns - round(frame.silence_ms * NS_PER_MS), t_ns)
        self._channel.tell("user-stopped-speaking")
        self._update_state()

    def _typed(self, t_ns: int, frame: InputTextFrame) -> None:
        self._waiting.typed(t_ns)

    def _is_of_transcriber(self, source: Source | None) -> bool:
        origin = self._transcriber if source is None else source[0]
        self._transcriber = self._transcriber or origin
        return origin == self._transcriber

    def _understood(self, observation: Observation, frame: InterimTranscriptionFrame | TranscriptionFrame) -> None:
        if not self._is_new(frame) or not self._is_of_transcriber(observation.source):
            return
        final = isinstance(frame, TranscriptionFrame)
        if final:
            self._waiting.understood(observation.t_ns, frame.text)
        if frame.text.strip():
            moment = datetime.fromtimestamp(self._wall_s(), UTC).isoformat(timespec="milliseconds")
            data = {"text": frame.text, "final": final, "timestamp": moment, "user_id": "user"}
            self._channel.tell("user-transcription", data)

    # --- the response: generated ----------------------------------------------------------------------------------

    def _reply(self, response: int) -> Reply | None:
        """Return the record of a response; None if it was cut or is finished."""
        reply = self._replies.get(response)
        if reply is None and response > self._cut:
            reply = self._replies[response] = Reply(response, position_ms=-self._transport.lead_ms)
            while self._unnumbered:
                self._reporter.text(reply, self._unnumbered.popleft())
            if len(self._replies) > REPLIES:
                self._forget(next(iter(self._replies.values())))
        return reply

    def _forget(self, reply: Reply) -> None:
        self._replies.pop(reply.response, None)
        if self._playing is reply:
            self._playing = None

    def _requested(self, observation: Observation, frame: LLMRequestFrame) -> None:
        reply = None if observation.source is None else self._reply(observation.response)
        if reply is None or reply.asked:
            return
        reply.asked = reply.model_works = True
        reply.held = [] if frame.speculative else None
        words = next((message.text for message in reversed(frame.messages) if message.role == "user"), "")
        if words:
            self._reporter.tell(reply, "user-llm-text", {"text": words})
        self._reporter.tell(reply, "bot-llm-started")
        self._update_state()

    def _committed(self, t_ns: int, frame: ResponseCommittedFrame) -> None:
        reply = self._replies.get(frame.response)
        if reply is not None:
            self._reporter.commit(reply)
            self._update_state()

    def _text(self, observation: Observation, frame: TextFrame) -> None:
        source = observation.source
        if source is None or not frame.text.strip():
            return
        if not observation.response:
            # From a plain handler: the voice opens the response.
            self._unnumbered_source = self._unnumbered_source or source
            if self._unnumbered_source == source:
                self._unnumbered.append(frame.text)
            return
        reply = self._reply(observation.response)
        if reply is None:
            return
        # The same text is observed again further on, and processors may push changed text.
        reply.source = reply.source or source
        if reply.source != source:
            return
        self._waiting.mark("reply", observation.t_ns)
        if reply.asked:
            self._reporter.tell(reply, "bot-llm-text", {"text": frame.text})
        self._reporter.text(reply, frame.text)

    def _ended(self, observation: Observation, frame: ResponseEndFrame) -> None:
        reply = self._replies.get(observation.response)
        if reply is not None:
            self._generated(reply, voice=observation.at_tail)

    def _generated(self, reply: Reply, *, voice: bool) -> None:
        if reply.model_works:
            reply.model_works = False
            self._reporter.tell(reply, "bot-llm-stopped")
        if voice and reply.voice_works:
            reply.voice_works = False
            self._reporter.tell(reply, "bot-tts-stopped")

    def buffered(self, t_ns: int, frame: OutputAudioFrame, response: int) -> None:
        """Note audio of a response at the output."""
        reply = self._reply(response)
        if reply is None:
            return
        self._waiting.mark("reply", t_ns)
        self._waiting.mark("voice", t_ns)
        if not reply.voice_works:
            reply.voice_works = True
            self._reporter.tell(reply, "bot-tts-started")
        if frame.words and not reply.spoken.segments:
            # A recorded sentence: its text was not observed before.
            glued = [word.text if word.glued or not at else f" {word.text}" for at, word in enumerate(frame.words)]
            self._reporter.text(reply, "".join(glued))
        reply.spoken.hear(frame.duration_ms, frame.words)

    # --- the response: heard --------------------------------------------------------------------------------------

    def pass_time(self, t_ns: int) -> None:
        """Report words heard by now. Called per inbox entry, every 20 ms during playback: no timer is needed."""
        reply = self._playing
        if reply is not None:
            position_ms = reply.position_ms + (t_ns - self._played_ns) / NS_PER_MS
            self._played_ns = t_ns
            reply.position_ms = min(position_ms, reply.spoken.made_ms)
            self._reporter.progress(reply, reply.spoken.played(reply.position_ms))

    def _bot_started(self, t_ns: int, frame: BotStartedSpeakingFrame) -> None:
        reply = self._reply(frame.response)
        self._speaking = frame.response
        if reply is None:
            return
        self._reporter.commit(reply)
        if reply.position_ms <= 0:
            turn = self._waiting.heard(t_ns)
            if turn is not None:
                self._channel.tell("server-message", turn)
        else:
            # It continues after the user spoke over it, which was not a turn.
            self._waiting.over()
        self._playing, self._played_ns = reply, t_ns
        self._channel.tell("bot-started-speaking")
        self._update_state()

    def _bot_stopped(self, t_ns: int, frame: BotStoppedSpeakingFrame) -> None:
        self.pass_time(t_ns)
        self._playing = None
        self._speaking = 0
        self._channel.tell("bot-stopped-speaking")
        self._update_state()

    def _played(self, t_ns: int, frame: ResponsePlayedFrame) -> None:
        reply = self._replies.get(frame.response)
        if reply is not None:
            self._generated(reply, voice=True)
            self._reporter.commit(reply)
            self._reporter.progress(reply, reply.spoken.finish())
            self._over(reply)

    def _response_cut(self, t_ns: int, frame: ResponseCutFrame) -> None:
        reply = self._replies.get(frame.response)
        if reply is not None:
            if frame.heard_ms:
                self._reporter.progress(reply, reply.spoken.cut(frame.heard_text))
            self._cut_short(reply, round(frame.heard_ms), frame.heard_text, frame.reason)

    def _cancelled(self, t_ns: int, frame: CancelFrame) -> None:
        """End responses without audio at the output; the playout ledger reports the others."""
        self._cut = max(self._cut, frame.response)
        self._unnumbered.clear()
        for reply in [*self._replies.values()]:
            if reply.response <= frame.response and not reply.spoken.made_ms:
                self._cut_short(reply, 0, "", frame.reason)

    def _cut_short(self, reply: Reply, heard_ms: int, heard_text: str, reason: str) -> None:
        """Report a cut response, except a speculative one that was never used."""
        if reply.held is None:
            self._generated(reply, voice=True)
            self._channel.tell("bot-interrupted")
            if reply.spoken.segments:
                data = {"response": reply.response, "heard": heard_text, "heard_ms": heard_ms, "reason": reason}
                self._app("voxline.cut", **data)
        self._over(reply)

    def _over(self, reply: Reply) -> None:
        self._forget(reply)
        self._update_state()

    # --- tools, metrics, errors -------------------------------------------------------------------------------------

    def _called(self, t_ns: int, frame: ToolCallFrame) -> None:
        self._calls[frame.call_id] = frame.name
        if len(self._calls) > CALLS:
            del self._calls[next(iter(self._calls))]
        named = self._named(frame.name)
        self._channel.tell("llm-function-call-started", named)
        data = {**named, "tool_call_id": frame.call_id}
        if self._tools == "full":
            data["arguments"] = _json(frame.arguments)
        self._channel.tell("llm-function-call-in-progress", data)

    def _returned(self, t_ns: int, frame: ToolResultFrame) -> None:
        data = {**self._named(self._calls.pop(frame.call_id, "")), "tool_call_id": frame.call_id, "cancelled": False}
        if self._tools == "full":
            data["result"] = frame.text
        self._channel.tell("llm-function-call-stopped", data)

    def _named(self, name: str) -> dict[str, Any]:
        return {} if self._tools == "none" or not name else {"function_name": name}

    def _measured(self, t_ns: int, frame: ServiceMetricsFrame) -> None:
        """Report times in s, as in the standard's examples."""
        who = frame.service or frame.kind
        data = {"processing": [{"processor": who, "value": round(frame.total_ms / 1000, 4)}]}
        if frame.first_ms is not None:
            data["ttfb"] = [{"processor": who, "value": round(frame.first_ms / 1000, 4)}]
        if frame.kind == "tts":
            data["characters"] = [{"processor": who, "value": frame.amount}]
        self._channel.tell("metrics", data)

    def _failed(self, t_ns: int, frame: ErrorFrame) -> None:
        """Report the type only: the text of an exception may name files, addresses and keys."""
        why = f"Something went wrong in the bot ({frame.error or 'error'})."
        self._channel.tell("error", {"error": why, "message": why, "fatal": False})


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {}
