"""Push to talk: a button marks the user's speech, instead of a voice detector."""

from __future__ import annotations

from dataclasses import dataclass

from ...pipeline.clock import TimerHandle
from ...pipeline.errors import SettingsError
from ...pipeline.frames import (
    UPSTREAM,
    InputAudioFrame,
    InputEndedFrame,
    InputFrame,
    ListenFrame,
    TalkButtonFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from ...pipeline.processor import FrameProcessor, handles


@dataclass(frozen=True, slots=True)
class ButtonStuckFrame(InputFrame):
    """Internal to `PushToTalk`: the button has been down for ``max_press_ms``."""


class PushToTalk(FrameProcessor):
    """Converts `TalkButtonFrame`, which ends here, to `UserStartedSpeakingFrame` and `UserStoppedSpeakingFrame`.

    The button's frames may come from both sides: downstream from the client, or upstream from the session. A second
    press, and a release without a press, are ignored. A button that is down for ``max_press_ms`` is treated as stuck,
    and released; so is a pressed button when the input ends, and when a `ListenFrame` stops listening. Until one starts
    listening again, presses are ignored and no audio passes.

    Otherwise all audio passes, pressed or not, at 0.5 µs per frame: an STT decodes only between the two events, and
    keeps the audio before them, so a user who speaks before pressing loses no first sound (`PocketSphinxSTT`: 300 ms).

    Raises `SettingsError` for an invalid ``max_press_ms``.
    """

    def __init__(self, *, max_press_ms: float = 60_000) -> None:
        if not max_press_ms > 0:
            raise SettingsError(f"PushToTalk: max_press_ms is a duration above 0, not {max_press_ms}.")
        self._max_press_ms = max_press_ms
        self._release_timer: TimerHandle | None = None
        """While pressed: the timer that releases a stuck button."""
        self._listens = True

    @handles(TalkButtonFrame)
    @handles(TalkButtonFrame, direction=UPSTREAM)
    async def press(self, frame: TalkButtonFrame) -> None:
        """Press or release the button."""
        if not frame.pressed:
            await self._release()
        elif self._release_timer is None and self._listens:
            self._release_timer = self.post_after(self._max_press_ms, ButtonStuckFrame())
            await self.push(UserStartedSpeakingFrame())

    @handles(ButtonStuckFrame)
    async def release_stuck(self, frame: ButtonStuckFrame) -> None:
        """Release a stuck button."""
        await self._release()

    @handles(ListenFrame, direction=UPSTREAM)
    async def switch_listening(self, frame: ListenFrame) -> None:
        """Start or stop to accept presses and audio."""
        self._listens = frame.on
        if not frame.on:
            await self._release()
        await self.push(frame, UPSTREAM)

    @handles(InputAudioFrame)
    async def hear(self, frame: InputAudioFrame) -> None:
        """Pass the audio on."""
        if self._listens:
            await self.push(frame)

    @handles(InputEndedFrame)
    async def hang_up(self, frame: InputEndedFrame) -> None:
        """Release the button with the end of the input."""
        await self._release()
        await self.push(frame)

    async def _release(self) -> None:
        if self._release_timer is not None:
            self._release_timer.cancel()
            self._release_timer = None
            await self.push(UserStoppedSpeakingFrame())
