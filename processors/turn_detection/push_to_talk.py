"""Push to talk: a button says when the user speaks. Stands in the place of the voice detector."""

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
    """`PushToTalk`'s own: the button has been down for as long as it may be."""


class PushToTalk(FrameProcessor):
    """Makes `UserStartedSpeakingFrame` and `UserStoppedSpeakingFrame` of `TalkButtonFrame`, which ends here.

    The button's frames may come from both sides: from the client, downstream, or from the session, upstream. What
    changes nothing (a second press, a release without one) does nothing. A button that is down for ``max_press_ms``
    is taken to be stuck, and let go; so it is where the input ends, and where a `ListenFrame` says not to listen.
    Until one says to listen again, no press counts and no audio passes.

    Otherwise all audio passes, pressed or not, at 0.5 µs a frame: an STT decodes only between the two events, and keeps
    what came before for itself, so that who speaks and then presses loses no first sound (`PocketSphinxSTT`: 300 ms).

    Raises `SettingsError` for a ``max_press_ms`` that is no length.
    """

    def __init__(self, *, max_press_ms: float = 60_000) -> None:
        if not max_press_ms > 0:
            raise SettingsError(f"PushToTalk: max_press_ms is a length above 0, not {max_press_ms}.")
        self._max_press_ms = max_press_ms
        self._stuck: TimerHandle | None = None
        """While it is pressed: the timer that lets it go."""
        self._listens = True

    @handles(TalkButtonFrame)
    @handles(TalkButtonFrame, direction=UPSTREAM)
    async def turn(self, frame: TalkButtonFrame) -> None:
        """Press it, or let it go."""
        if not frame.pressed:
            await self._let_go()
        elif self._stuck is None and self._listens:
            self._stuck = self.post_after(self._max_press_ms, ButtonStuckFrame())
            await self.push(UserStartedSpeakingFrame())

    @handles(ButtonStuckFrame)
    async def free(self, frame: ButtonStuckFrame) -> None:
        """Nobody speaks for so long."""
        await self._let_go()

    @handles(ListenFrame, direction=UPSTREAM)
    async def heed(self, frame: ListenFrame) -> None:
        """Take presses and audio, or not."""
        self._listens = frame.on
        if not frame.on:
            await self._let_go()
        await self.push(frame, UPSTREAM)

    @handles(InputAudioFrame)
    async def hear(self, frame: InputAudioFrame) -> None:
        """Hand the audio on."""
        if self._listens:
            await self.push(frame)

    @handles(InputEndedFrame)
    async def hang_up(self, frame: InputEndedFrame) -> None:
        """Nobody is left to press."""
        await self._let_go()
        await self.push(frame)

    async def _let_go(self) -> None:
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None
            await self.push(UserStoppedSpeakingFrame())
