"""The session controller, which decides. What it decides stands in `step.py`; this carries it out."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...pipeline.client_frames import InterruptRequestFrame
from ...pipeline.clock import TimerHandle
from ...pipeline.errors import SettingsError
from ...pipeline.frames import (
    UPSTREAM,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    ClientConnectedFrame,
    ClientDisconnectedFrame,
    ErrorFrame,
    Frame,
    InputEndedFrame,
    InputTextFrame,
    InterimTranscriptionFrame,
    KeepAliveFrame,
    ListenFrame,
    LLMRequestFrame,
    PausePlayoutFrame,
    ResponseCommittedFrame,
    ResponseCutFrame,
    ResponseEndFrame,
    ResponsePlayedFrame,
    ResumePlayoutFrame,
    TalkButtonFrame,
    TextFrame,
    ToolCallFrame,
    ToolResultFrame,
    TranscriptionFrame,
    TurnProbabilityFrame,
    UsageFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from ...pipeline.jobs import Stream
from ...pipeline.processor import FrameProcessor, handles, streams
from . import limits
from .apology_audio import Recordings
from .commands import (
    ORDERS,
    CutElsewhereFrame,
    FailedFrame,
    NewsFrame,
    OpenedFrame,
    SessionFrame,
    StartFrame,
    StopFrame,
    TimeFrame,
)
from .data import SessionData
from .endpointing import Endpointing
from .limits import Due
from .session import Session
from .session_port import Link
from .settings import EndpointingSettings, SessionSettings
from .snapshot import SessionSnapshot, restored
from .step import step
from .transition import Ask, Button, Cancel, Commit, Effect, End, KeepAlive, Listen, Pause, Resolve, Say, Tell

Mute = Callable[[SessionData], bool]
"""A mute strategy: whether the user is not listened to, as a function of the session and of nothing else."""

AWAITED = frozenset({Due.TURN_OVER, Due.GUESS, Due.TRANSCRIPT, Due.CONFIRM, Due.DISMISS, Due.RECORD})
"""What a pipeline that drains waits for: somebody's words depend on it."""

log = logging.getLogger(__name__)


class SessionController(FrameProcessor):
    """Takes turns: asks for an answer when the user's turn has ended, and cuts the bot when the user wants the turn.

    Stands between STT and LLM. `session` is for code outside of the pipeline: state, events, `say`, `close` and the
    rest. ``settings``: a `SessionSettings`, or its fields by name. ``mute``: names as in the settings, and strategies
    of your own. ``endpointing``: as in the settings, or a strategy of your own in the place of the named ones.
    ``resume``: a `Session.snapshot`, whose history this session goes on with (and whose settings, if none are given).

    Raises `SettingsError` for settings that cannot be.
    """

    def __init__(
        self,
        settings: SessionSettings | None = None,
        *,
        mute: Sequence[Mute | str] = (),
        endpointing: Endpointing | EndpointingSettings | Mapping[str, Any] | str | None = None,
        resume: SessionSnapshot | None = None,
        **fields: Any,
    ) -> None:
        if settings is None and resume is not None:
            settings = resume.settings
        if named := [one for one in mute if isinstance(one, str)]:
            fields["mute"] = named
        if endpointing is not None and not callable(endpointing):
            fields["endpointing"], endpointing = endpointing, None
        settings = SessionSettings(**fields) if settings is None else settings.changed(**fields)
        data = SessionData(settings, tuple(one for one in mute if callable(one)), endpointing)
        self._link = Link(data if resume is None else restored(resume, data))
        self.session = Session(self._link)
        """The session, for code outside of the pipeline."""
        self._recordings = Recordings()
        if settings.apology_file is not None:
            # Read now: the handler that plays it is not to wait for a disk, and the file may be gone by then.
            self._recordings.frame(settings.apology_file, settings.apology)
        self._timer: TimerHandle | None = None
        self._due_ns: int | None = None

    async def start(self) -> None:
        """Say that the pipeline runs: a fact, so that a replay greets as well."""
        self._link.running(self.clock, self.post)
        self.post(StartFrame(self.now_ns))
        self._link.flush()

    async def stop(self) -> None:
        """Close the session: whoever waits for it is told, hooks run, and then what was registered to clean up."""
        reason = self.ending or "ended"
        await self._decide(StopFrame(reason, failed=reason == "failed"), over=True)
        await self._link.ended()

    def idle(self) -> bool:
        """False while the user's words wait for something that is due soon."""
        return not any(due in AWAITED for _, due in limits.deadlines(self._link.data))

    # --- what happens -------------------------------------------------------------------------------------------------

    @handles(
        UserStartedSpeakingFrame,
        UserStoppedSpeakingFrame,
        InterimTranscriptionFrame,
        TranscriptionFrame,
        TurnProbabilityFrame,
        InputTextFrame,
        InputEndedFrame,
        InterruptRequestFrame,
        ClientConnectedFrame,
        ClientDisconnectedFrame,
        CancelFrame,
    )
    async def hear(self, frame: Frame) -> None:
        """Of the user."""
        if isinstance(frame, CancelFrame):
            # Decided when all have seen it: what follows must not be at the output before it is.
            self.post(CutElsewhereFrame(frame.response, frame.reason))
            return
        await self.push(frame)
        await self._decide(frame)

    @handles(
        BotStartedSpeakingFrame,
        BotStoppedSpeakingFrame,
        ResponsePlayedFrame,
        ResponseCutFrame,
        ErrorFrame,
        UsageFrame,
        ToolCallFrame,
        ToolResultFrame,
        direction=UPSTREAM,
    )
    async def learn(self, frame: Frame) -> None:
        """Of the bot's side."""
        await self.push(frame, UPSTREAM)
        if isinstance(frame, ErrorFrame):
            frame = FailedFrame(frame.message, frame.processor or "?", self.response)
        await self._decide(frame)

    @handles(CutElsewhereFrame)
    async def admit(self, frame: CutElsewhereFrame) -> None:
        """Somebody else has cut the bot."""
        await self._decide(CancelFrame(frame.response, frame.reason))

    @handles(*ORDERS)
    async def obey(self, frame: SessionFrame) -> None:
        """What is asked from outside, and what is due."""
        if isinstance(frame, TimeFrame):
            self._timer = self._due_ns = None
        await self._decide(frame)

    @handles(NewsFrame)
    async def keep_news(self, frame: NewsFrame) -> None:
        """It is for the stream beside, and for nobody else."""

    @streams(NewsFrame)
    async def run_hooks(self, frames: Stream[NewsFrame]) -> AsyncIterator[Frame]:
        """Call the hooks, one after another, beside the pipeline."""
        async for _ in frames:
            await self._link.hooks.run()
        for nothing in ():
            yield nothing

    # --- what is to be done -------------------------------------------------------------------------------------------

    async def _decide(self, event: Frame, *, over: bool = False) -> None:
        link = self._link
        try:
            link.data, effects = step(link.data, event, self.now_ns)
            for effect in effects:
                if over:
                    self._tell(effect)
                else:
                    await self._do(effect)
        finally:
            # Also where a rule is broken: a session without its timer would stand still, and say nothing.
            if not over:
                link.changed()
                self._set_timer()

    async def _do(self, effect: Effect) -> None:
        match effect:
            case Cancel(response, reason):
                self.interrupt(reason, response=response)
            case Ask(messages, speculative):
                await self.push(LLMRequestFrame(messages, speculative), response=await self._open())
            case Say(text, recorded):
                response = await self._open()
                said = self._said(text, recorded)
                await self.push(said, response=response)
                await self.push(ResponseEndFrame(), response=response)
            case Commit(response):
                await self.push(ResponseCommittedFrame(response))
            case Pause(on):
                await self.push(PausePlayoutFrame() if on else ResumePlayoutFrame())
            case Listen(on):
                await self.push(ListenFrame(on), UPSTREAM)
            case Button(pressed):
                await self.push(TalkButtonFrame(pressed), UPSTREAM)
            case KeepAlive():
                await self.push(KeepAliveFrame())
                await self.push(KeepAliveFrame(), UPSTREAM)
            case End(reason):
                self.end(reason)
            case _:
                self._tell(effect)

    def _said(self, text: str, recorded: Path | None) -> Frame:
        if recorded is not None:
            try:
                return self._recordings.frame(recorded, text)
            except SettingsError as error:
                # It was there when the settings were made. Better a voice, if there is one, than nothing.
                log.error("%s: %s", self.path, error)
        return TextFrame(text)

    def _tell(self, effect: Effect) -> None:
        match effect:
            case Resolve(handle, outcome, heard):
                self._link.resolve(handle, outcome, heard)
            case Tell(event):
                if self._link.tell(event):
                    self.post(NewsFrame())
            case _:
                pass

    async def _open(self) -> int:
        response = self.new_response()
        await self._decide(OpenedFrame(response))
        return response

    def _set_timer(self) -> None:
        """One timer, for whatever is due first."""
        due_ns = limits.next_ns(self._link.data)
        if due_ns == self._due_ns:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due_ns = due_ns
        self._timer = None if due_ns is None else self.post_at(due_ns, TimeFrame())
