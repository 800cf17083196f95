"""What happens in a pipeline, as messages for the client. Fed by the tap in `rtvi.py`, with frames and their times."""

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
"""Responses that are not over; then the oldest is forgotten."""
CALLS = 64
"""Tools that run, whose names are kept for their results."""
LOOSE = 32
"""Texts of a response that has no number yet; then the oldest is forgotten."""
LATELY = 32
"""EventMapper that were seen already: one frame comes by at each processor that names its class."""
LEVELS_NS = 100 * NS_PER_MS

Source = tuple[str, str]
"""Who sent a frame, and who gets it; the second is empty where it is taken from the inbox."""


class Observation(NamedTuple):
    """Where a frame comes by: in the inbox, at a processor, or (``source`` is None) at an end."""

    t_ns: int
    response: int
    source: Source | None
    at_tail: bool = False


Way = Callable[[Observation, Any], None]


class EventMapper:
    """Keeps what it has to know to tell it once, and in order."""

    def __init__(
        self, channel: Channel, transport: ClientTransport, *, tools: str, levels: bool, wall_s: Callable[[], float]
    ) -> None:
        self._channel = channel
        self._transport = transport
        self._tools = tools
        self._levels_ns = 0
        self._wall_s = wall_s
        self._narration = ReplyReporter(channel.tell, lambda: channel.major)
        self._waiting = TurnLatency()
        self._replies: dict[int, Reply] = {}
        self._loose: deque[str] = deque(maxlen=LOOSE)
        """Texts on their way to a voice, of whose response the number is not known yet."""
        self._loose_source: Source | None = None
        self._playing: Reply | None = None
        self._played_ns = 0
        """Until when what was played is counted."""
        self._speaking = 0
        """The response that is heard."""
        self._user_speaks = False
        self._cut = 0
        self._state = ""
        self._transcriber = ""
        """Who understands the user: what others make of it is not what was said."""
        self._calls: dict[str, str] = {}
        self._seen: deque[Frame] = deque(maxlen=LATELY)
        self._ways: dict[type[Frame], Way | None] = {
            TextFrame: self._text,
            LLMRequestFrame: self._asked,
            ResponseEndFrame: self._ended,
            InterimTranscriptionFrame: self._understood,
            TranscriptionFrame: self._understood,
            InputAudioFrame: self._tell_levels if levels else None,
            UserStartedSpeakingFrame: self._once(self._user_started),
            UserStoppedSpeakingFrame: self._once(self._user_stopped),
            InputTextFrame: self._once(self._typed),
            BotStartedSpeakingFrame: self._once(self._bot_started),
            BotStoppedSpeakingFrame: self._once(self._bot_stopped),
            ResponsePlayedFrame: self._once(self._played),
            ResponseCutFrame: self._once(self._was_cut),
            CancelFrame: self._once(self._cancelled),
            ResponseCommittedFrame: self._once(self._committed),
            ToolCallFrame: self._once(self._called),
            ToolResultFrame: self._once(self._returned),
            ServiceMetricsFrame: self._once(self._measured),
            ErrorFrame: self._once(self._failed),
        }

    def way(self, kind: type[Frame]) -> Way | None:
        """What to do with frames of a class; None, for nearly all that flow: nothing."""
        if kind not in self._ways:
            self._ways[kind] = next((self._ways[one] for one in kind.__mro__ if one in self._ways), None)
        return self._ways[kind]

    def _once(self, told: Callable[[int, Any], None]) -> Way:
        def once(sight: Observation, frame: Frame) -> None:
            if self._is_news(frame):
                told(sight.t_ns, frame)

        return once

    def _is_news(self, frame: Frame) -> bool:
        if any(frame is one for one in self._seen):
            return False
        self._seen.append(frame)
        return True

    def tell_state(self) -> None:
        """Tell whose turn it is, to who is new."""
        self._state = ""
        self._look()

    def _look(self) -> None:
        """Derive from the facts whose turn it is, and tell where that is another one's."""
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

    def _tell_levels(self, sight: Observation, frame: InputAudioFrame) -> None:
        if sight.t_ns >= self._levels_ns:
            self._levels_ns = sight.t_ns + LEVELS_NS
            for kind, dbfs in (("user", self._transport.input_dbfs), ("bot", self._transport.output_dbfs)):
                self._channel.tell(f"{kind}-audio-level", {"value": round(min(1.0, 10 ** (dbfs / 20)), 4)})

    # --- the user -----------------------------------------------------------------------------------------------

    def _user_started(self, t_ns: int, frame: UserStartedSpeakingFrame) -> None:
        self._user_speaks = True
        self._channel.tell("user-started-speaking")
        self._look()

    def _user_stopped(self, t_ns: int, frame: UserStoppedSpeakingFrame) -> None:
        self._user_speaks = False
        self._waiting.spoke(t_ns - round(frame.silence_ms * NS_PER_MS), t_ns)
        self._channel.tell("user-stopped-speaking")
        self._look()

    def _typed(self, t_ns: int, frame: InputTextFrame) -> None:
        self._waiting.typed(t_ns)

    def _is_of_transcriber(self, source: Source | None) -> bool:
        origin = self._transcriber if source is None else source[0]
        self._transcriber = self._transcriber or origin
        return origin == self._transcriber

    def _understood(self, sight: Observation, frame: InterimTranscriptionFrame | TranscriptionFrame) -> None:
        if not self._is_news(frame) or not self._is_of_transcriber(sight.source):
            return
        final = isinstance(frame, TranscriptionFrame)
        if final:
            self._waiting.understood(sight.t_ns, frame.text)
        if frame.text.strip():
            moment = datetime.fromtimestamp(self._wall_s(), UTC).isoformat(timespec="milliseconds")
            told = {"text": frame.text, "final": final, "timestamp": moment, "user_id": "user"}
            self._channel.tell("user-transcription", told)

    # --- the bot's answer: made -----------------------------------------------------------------------------------

    def _reply(self, response: int) -> Reply | None:
        """What is known of a response; None where it is over or cut, and of no interest any more."""
        reply = self._replies.get(response)
        if reply is None and response > self._cut:
            reply = self._replies[response] = Reply(response, position_ms=-self._transport.lead_ms)
            while self._loose:
                self._narration.text(reply, self._loose.popleft())
            if len(self._replies) > REPLIES:
                self._forget(next(iter(self._replies.values())))
        return reply

    def _forget(self, reply: Reply) -> None:
        self._replies.pop(reply.response, None)
        if self._playing is reply:
            self._playing = None

    def _asked(self, sight: Observation, frame: LLMRequestFrame) -> None:
        reply = None if sight.source is None else self._reply(sight.response)
        if reply is None or reply.asked:
            return
        reply.asked = reply.model_works = True
        reply.held = [] if frame.speculative else None
        words = next((message.text for message in reversed(frame.messages) if message.role == "user"), "")
        if words:
            self._narration.tell(reply, "user-llm-text", {"text": words})
        self._narration.tell(reply, "bot-llm-started")
        self._look()

    def _committed(self, t_ns: int, frame: ResponseCommittedFrame) -> None:
        reply = self._replies.get(frame.response)
        if reply is not None:
            self._narration.wanted(reply)
            self._look()

    def _text(self, sight: Observation, frame: TextFrame) -> None:
        source = sight.source
        if source is None or not frame.text.strip():
            return
        if not sight.response:
            # Of a plain handler: what makes it heard opens the response.
            self._loose_source = self._loose_source or source
            if self._loose_source == source:
                self._loose.append(frame.text)
            return
        reply = self._reply(sight.response)
        if reply is None:
            return
        # The same text comes by again on its way, and what a processor makes of it is text, too.
        reply.source = reply.source or source
        if reply.source != source:
            return
        self._waiting.mark("reply", sight.t_ns)
        if reply.asked:
            self._narration.tell(reply, "bot-llm-text", {"text": frame.text})
        self._narration.text(reply, frame.text)

    def _ended(self, sight: Observation, frame: ResponseEndFrame) -> None:
        reply = self._replies.get(sight.response)
        if reply is not None:
            self._works_no_more(reply, voice=sight.at_tail)

    def _works_no_more(self, reply: Reply, *, voice: bool) -> None:
        if reply.model_works:
            reply.model_works = False
            self._narration.tell(reply, "bot-llm-stopped")
        if voice and reply.voice_works:
            reply.voice_works = False
            self._narration.tell(reply, "bot-tts-stopped")

    def buffered(self, t_ns: int, frame: OutputAudioFrame, response: int) -> None:
        """Audio of a response is at the output."""
        reply = self._reply(response)
        if reply is None:
            return
        self._waiting.mark("reply", t_ns)
        self._waiting.mark("voice", t_ns)
        if not reply.voice_works:
            reply.voice_works = True
            self._narration.tell(reply, "bot-tts-started")
        if frame.words and not reply.spoken.segments:
            # A recorded sentence: nobody has seen its text before.
            glued = [word.text if word.glued or not at else f" {word.text}" for at, word in enumerate(frame.words)]
            self._narration.text(reply, "".join(glued))
        reply.spoken.hear(frame.duration_ms, frame.words)

    # --- the bot's answer: heard ----------------------------------------------------------------------------------

    def pass_time(self, t_ns: int) -> None:
        """While audio is played, entries come to the inbox each 20 ms: no timer is needed to tell of words."""
        reply = self._playing
        if reply is not None:
            position_ms = reply.position_ms + (t_ns - self._played_ns) / NS_PER_MS
            self._played_ns = t_ns
            reply.position_ms = min(position_ms, reply.spoken.made_ms)
            self._narration.progress(reply, reply.spoken.played(reply.position_ms))

    def _bot_started(self, t_ns: int, frame: BotStartedSpeakingFrame) -> None:
        reply = self._reply(frame.response)
        self._speaking = frame.response
        if reply is None:
            return
        self._narration.wanted(reply)
        if reply.position_ms <= 0:
            turn = self._waiting.heard(t_ns)
            if turn is not None:
                self._channel.tell("server-message", turn)
        else:
            # It goes on after what was said over it, which was no turn of the user's.
            self._waiting.over()
        self._playing, self._played_ns = reply, t_ns
        self._channel.tell("bot-started-speaking")
        self._look()

    def _bot_stopped(self, t_ns: int, frame: BotStoppedSpeakingFrame) -> None:
        self.pass_time(t_ns)
        self._playing = None
        self._speaking = 0
        self._channel.tell("bot-stopped-speaking")
        self._look()

    def _played(self, t_ns: int, frame: ResponsePlayedFrame) -> None:
        reply = self._replies.get(frame.response)
        if reply is not None:
            self._works_no_more(reply, voice=True)
            self._narration.wanted(reply)
            self._narration.progress(reply, reply.spoken.finish())
            self._over(reply)

    def _was_cut(self, t_ns: int, frame: ResponseCutFrame) -> None:
        reply = self._replies.get(frame.response)
        if reply is not None:
            if frame.heard_ms:
                self._narration.progress(reply, reply.spoken.cut(frame.heard_text))
            self._cut_short(reply, round(frame.heard_ms), frame.heard_text, frame.reason)

    def _cancelled(self, t_ns: int, frame: CancelFrame) -> None:
        """Of what is at the output already, the playout ledger has the last word."""
        self._cut = max(self._cut, frame.response)
        self._loose.clear()
        for reply in [*self._replies.values()]:
            if reply.response <= frame.response and not reply.spoken.made_ms:
                self._cut_short(reply, 0, "", frame.reason)

    def _cut_short(self, reply: Reply, heard_ms: int, heard_text: str, reason: str) -> None:
        """What was a guess, and in vain, is not told of."""
        if reply.held is None:
            self._works_no_more(reply, voice=True)
            self._channel.tell("bot-interrupted")
            if reply.spoken.segments:
                told = {"response": reply.response, "heard": heard_text, "heard_ms": heard_ms, "reason": reason}
                self._app("voxline.cut", **told)
        self._over(reply)

    def _over(self, reply: Reply) -> None:
        self._forget(reply)
        self._look()

    # --- beside -----------------------------------------------------------------------------------------------------

    def _called(self, t_ns: int, frame: ToolCallFrame) -> None:
        self._calls[frame.call_id] = frame.name
        if len(self._calls) > CALLS:
            del self._calls[next(iter(self._calls))]
        named = self._named(frame.name)
        self._channel.tell("llm-function-call-started", named)
        told = {**named, "tool_call_id": frame.call_id}
        if self._tools == "full":
            told["arguments"] = _json(frame.arguments)
        self._channel.tell("llm-function-call-in-progress", told)

    def _returned(self, t_ns: int, frame: ToolResultFrame) -> None:
        told = {**self._named(self._calls.pop(frame.call_id, "")), "tool_call_id": frame.call_id, "cancelled": False}
        if self._tools == "full":
            told["result"] = frame.text
        self._channel.tell("llm-function-call-stopped", told)

    def _named(self, name: str) -> dict[str, Any]:
        return {} if self._tools == "none" or not name else {"function_name": name}

    def _measured(self, t_ns: int, frame: ServiceMetricsFrame) -> None:
        """Times in s, as the standard's examples have them."""
        who = frame.service or frame.kind
        told = {"processing": [{"processor": who, "value": round(frame.total_ms / 1000, 4)}]}
        if frame.first_ms is not None:
            told["ttfb"] = [{"processor": who, "value": round(frame.first_ms / 1000, 4)}]
        if frame.kind == "tts":
            told["characters"] = [{"processor": who, "value": frame.amount}]
        self._channel.tell("metrics", told)

    def _failed(self, t_ns: int, frame: ErrorFrame) -> None:
        """Its kind only: what an exception says may name files, addresses and keys."""
        why = f"Something went wrong in the bot ({frame.error or 'error'})."
        self._channel.tell("error", {"error": why, "message": why, "fatal": False})


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {}
