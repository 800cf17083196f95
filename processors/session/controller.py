"""The session controller: feeds events to `step`, and carries out the effects that `step` returns."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...pipeline.client_frames import InterruptRequestFrame
from ...pipeline.clock import TimerHandle
from ...pipeline.errors import ProcessorError, SettingsError
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
from .apology_audio import ApologyAudio
from .commands import (
    CutElsewhereFrame,
    HookCallsFrame,
    ResponseFailedFrame,
    SessionCommandFrame,
    SessionStartedFrame,
    SessionStoppedFrame,
    SessionTimerFrame,
)
from .data import SessionData
from .endpointing import Endpointing
from .limits import Due
from .session import Session
from .session_port import SessionPort
from .settings import EndpointingSettings, SessionSettings
from .snapshot import SessionSnapshot, restored
from .step import step
from .transition import Ask, Button, Cancel, Commit, Effect, EndPipeline, KeepAlive, Listen, Pause, Resolve, Say, Tell

Mute = Callable[[SessionData], bool]
"""A mute strategy: a function of the session's data, and of nothing else. True: the user is not listened to."""

DRAIN_WAITS_FOR = frozenset({Due.TURN_OVER, Due.GUESS, Due.TRANSCRIPT, Due.CONFIRM, Due.DISMISS, Due.RECORD})
"""Deadlines that a draining pipeline waits for: the user's words depend on them."""

log = logging.getLogger(__name__)


class SessionController(FrameProcessor):
    """Takes turns: asks for an answer when the user's turn has ended, and cuts the bot when the user wants the turn.

    Stands between STT and LLM. `session` is for code outside of the pipeline: state, events, `say`, `close` and the
    rest. ``settings``: a `SessionSettings`, or its fields by name. ``mute``: names as in the settings, and custom
    strategies. ``endpointing``: as in the settings, or a custom strategy. ``resume``: a `Session.snapshot` whose
    history this session continues (and whose settings, if none are given).

    Raises `SettingsError` for invalid settings.
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
        self._port = SessionPort(data if resume is None else restored(resume, data))
        self.session = Session(self._port)
        """The session, for code outside of the pipeline."""
        self._apology_audio = ApologyAudio()
        if settings.apology_file is not None:
            # Read the file now: a handler must not wait for a disk, and the file may be gone by then.
            self._apology_audio.frame(settings.apology_file, settings.apology)
        self._timer: TimerHandle | None = None
        self._timer_ns: int | None = None
        self._deciding = False

    async def start(self) -> None:
        """Post the start of the session as a frame, so that a replay says the greeting as well."""
        self._port.open(self.clock, self.post)
        self.post(SessionStartedFrame(self.now_ns))
        self._port.flush()

    async def stop(self) -> None:
        """Close the session: resolve every handle, run the hooks, and then the clean-ups."""
        reason = self.ending or "ended"
        await self._decide(SessionStoppedFrame(reason, failed=reason == "failed"), stopping=True)
        await self._port.close()

    def idle(self) -> bool:
        """False while a deadline that the user's words depend on is near."""
        return not any(due in DRAIN_WAITS_FOR for _, due in limits.deadlines(self._port.data))

    # --- events -------------------------------------------------------------------------------------------------------

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
    async def take_user_event(self, frame: Frame) -> None:
        """Pass facts of the user's side on, and decide."""
        if isinstance(frame, CancelFrame):
            # Decide after every processor has handled the cancel frame: output must not overtake it.
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
    async def take_bot_event(self, frame: Frame) -> None:
        """Pass facts of the bot's side on, and decide."""
        await self.push(frame, UPSTREAM)
        if isinstance(frame, ErrorFrame):
            frame = ResponseFailedFrame(frame.message, frame.processor or "?", self.response)
        await self._decide(frame)

    @handles(CutElsewhereFrame)
    async def take_cut(self, frame: CutElsewhereFrame) -> None:
        """Decide after another processor cut the bot."""
        await self._decide(CancelFrame(frame.response, frame.reason))

    @handles(SessionCommandFrame)
    async def take_command(self, frame: SessionCommandFrame) -> None:
        """Apply a command, or handle the deadlines that have passed."""
        if isinstance(frame, SessionTimerFrame):
            self._timer = self._timer_ns = None
        await self._decide(frame)

    @handles(HookCallsFrame)
    async def take_hook_calls(self, frame: HookCallsFrame) -> None:
        """Keep the frame from the other processors: it is for `run_hooks`."""

    @streams(HookCallsFrame)
    async def run_hooks(self, frames: Stream[HookCallsFrame]) -> AsyncIterator[Frame]:
        """Call the hooks, one after another, beside the pipeline."""
        async for _ in frames:
            await self._port.hooks.run()
        for nothing in ():
            yield nothing

    # --- effects ------------------------------------------------------------------------------------------------------

    async def _decide(self, event: Frame, *, stopping: bool = False) -> None:
        """Step the session, and carry out the effects. ``stopping``: nothing can be pushed any more."""
        if self._deciding:
            raise ProcessorError(
                f"{self.path}: {type(event).__name__} came while the effects of another step were carried out. Post "
                "the frame, so that it is handled afterwards."
            )
        port = self._port
        self._deciding = True
        try:
            port.data, effects = step(port.data, event, self.now_ns, 0 if stopping else self.next_response)
            for effect in effects:
                if stopping:
                    self._publish(effect)
                else:
                    await self._do(effect)
        finally:
            self._deciding = False
            # Set the timer even if a rule raised: a session without its timer would hang silently.
            if not stopping:
                port.changed()
                self._set_timer()

    async def _do(self, effect: Effect) -> None:
        match effect:
            case Cancel(response, reason):
                self.interrupt(reason, response=response)
            case Ask(response, messages, speculative):
                self._open(response)
                await self.push(LLMRequestFrame(messages, speculative), response=response)
            case Say(response, text, recorded):
                self._open(response)
                await self.push(self._speech(text, recorded), response=response)
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
            case EndPipeline(reason):
                self.end(reason)
            case _:
                self._publish(effect)

    def _open(self, response: int) -> None:
        opened = self.new_response()
        if opened != response:
            raise ProcessorError(f"{self.path}: the kernel opened response {opened}, and the session named {response}.")

    def _speech(self, text: str, recorded: Path | None) -> Frame:
        if recorded is not None:
            try:
                return self._apology_audio.frame(recorded, text)
            except SettingsError as error:
                # The file was readable when the settings were made. Fall back to the voice.
                log.error("%s: %s", self.path, error)
        return TextFrame(text)

    def _publish(self, effect: Effect) -> None:
        match effect:
            case Resolve(handle, outcome, heard):
                self._port.resolve(handle, outcome, heard)
            case Tell(event):
                if self._port.publish(event):
                    self.post(HookCallsFrame())
            case _:
                pass

    def _set_timer(self) -> None:
        """Set the one timer to the first deadline."""
        first_ns = limits.next_ns(self._port.data)
        if first_ns == self._timer_ns:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ns = first_ns
        self._timer = None if first_ns is None else self.post_at(first_ns, SessionTimerFrame())
