"""Commands to a session, and the session's notes to itself: frames that carry their own rule.

A command is one class here: its fields, and `apply`, the rule that `step` calls. The method of `Session` that sends it
is the only other place that knows it. Commands enter by the inbox like every frame, so a recording contains them, and a
replay needs no caller.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...pipeline.errors import ProcessorError
from ...pipeline.frames import InputFrame, UrgentFrame
from . import interruptions, lifecycle, limits, responses, turns
from .data import InterruptionKind, Speech, SpeechKind, SpeechOutcome
from .settings import SessionSettings
from .transition import Button, Transition


@dataclass(frozen=True, slots=True)
class SessionCommandFrame(InputFrame):
    """The base of all commands. The controller takes every subclass from its inbox."""

    def apply(self, transition: Transition) -> None:
        """Carry the command out: change ``transition.data``, and add effects. Called by `step`."""
        raise ProcessorError(f"{type(self).__name__} needs a method apply(transition), the rule of the command.")

    def refuse(self, transition: Transition) -> None:
        """Answer the command after the session has ended. A command with a handle resolves it here."""


# --- commands of code outside of the pipeline ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SayCommandFrame(SessionCommandFrame):
    """Say a text. ``handle``: number of the `SpeechHandle` that receives the outcome."""

    text: str
    handle: int
    interruptible: bool = True

    def apply(self, transition: Transition) -> None:
        """Queue the text."""
        data = transition.data
        if data.lifecycle.ending is not None or not self.text.strip():
            self.refuse(transition)
            return
        data.bot.queue = (*data.bot.queue, Speech(SpeechKind.SAY, self.text, self.handle, self.interruptible))

    def refuse(self, transition: Transition) -> None:
        """Resolve the handle as dropped."""
        transition.resolve((self.handle,), SpeechOutcome.DROPPED)


@dataclass(frozen=True, slots=True)
class MessageCommandFrame(SessionCommandFrame):
    """Take a typed message of the user. ``interrupt``: cut the bot for it; otherwise the message waits."""

    text: str
    handle: int = 0
    interrupt: bool = True

    def apply(self, transition: Transition) -> None:
        """Add the text to the user's turn."""
        data = transition.data
        if data.lifecycle.ending is not None or not self.text.strip():
            self.refuse(transition)
            return
        transition.note_activity()
        data.lifecycle.idle_step = 0
        if self.interrupt and data.bot.response is not None and data.bot.response.interruptible:
            interruptions.interrupt(transition, "the user typed")
        turns.add(transition, self.text, typed=True, handle=self.handle)

    def refuse(self, transition: Transition) -> None:
        """Resolve the handle as dropped."""
        transition.resolve((self.handle,), SpeechOutcome.DROPPED)


@dataclass(frozen=True, slots=True)
class InterruptCommandFrame(SessionCommandFrame):
    """Cut the bot and drop its queue. ``handle``: only that speech, playing or queued."""

    reason: str = "interrupted"
    handle: int = 0

    def apply(self, transition: Transition) -> None:
        """Cut the response, or drop one speech from the queue."""
        bot = transition.data.bot
        if not self.handle:
            interruptions.interrupt(transition, self.reason)
        elif bot.response is not None and self.handle in bot.response.handles:
            responses.cut(transition, InterruptionKind.MANUAL, self.reason, keep_queue=True)
        else:
            dropped = [one.handle for one in bot.queue if one.handle == self.handle]
            transition.resolve(dropped, SpeechOutcome.DROPPED)
            bot.queue = tuple(one for one in bot.queue if one.handle != self.handle)


@dataclass(frozen=True, slots=True)
class PauseCommandFrame(SessionCommandFrame):
    """Pause both sides."""

    def apply(self, transition: Transition) -> None:
        """Pause."""
        lifecycle.pause(transition)


@dataclass(frozen=True, slots=True)
class ResumeCommandFrame(SessionCommandFrame):
    """Resume after a pause."""

    def apply(self, transition: Transition) -> None:
        """Resume."""
        lifecycle.resume(transition)


@dataclass(frozen=True, slots=True)
class ListenCommandFrame(SessionCommandFrame):
    """Turn the microphone on or off."""

    on: bool

    def apply(self, transition: Transition) -> None:
        """Listen, or stop listening."""
        lifecycle.listen(transition, on=self.on)


@dataclass(frozen=True, slots=True)
class TalkButtonCommandFrame(SessionCommandFrame):
    """Press or release the user's talk button."""

    pressed: bool

    def apply(self, transition: Transition) -> None:
        """Pass the button to the input."""
        transition.do(Button(self.pressed))


@dataclass(frozen=True, slots=True)
class TouchCommandFrame(SessionCommandFrame):
    """Report activity that the pipeline cannot see."""

    def apply(self, transition: Transition) -> None:
        """Restart the idle time."""
        transition.note_activity()
        transition.restart_idle_time()
        transition.data.lifecycle.idle_step = 0


@dataclass(frozen=True, slots=True)
class UpdateCommandFrame(SessionCommandFrame):
    """Replace the settings. ``settings``: a complete `SessionSettings`, as JSON."""

    settings: str

    def apply(self, transition: Transition) -> None:
        """Replace the settings."""
        transition.data.settings = SessionSettings.model_validate_json(self.settings)


@dataclass(frozen=True, slots=True)
class CloseCommandFrame(SessionCommandFrame):
    """Close the session. ``goodbye``: said before the end; None: the settings' goodbye for the reason.

    ``now``: cut all speech, and say no goodbye.
    """

    reason: str
    goodbye: str | None = None
    now: bool = False
    failed: bool = False

    def apply(self, transition: Transition) -> None:
        """Begin to close."""
        lifecycle.close(transition, self.reason, self.goodbye, now=self.now, failed=self.failed)


# --- notes of the controller -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SessionStartedFrame(SessionCommandFrame):
    """The pipeline runs. ``created_ns``: the time at which its processors started."""

    created_ns: int = 0

    def apply(self, transition: Transition) -> None:
        """Start the session."""
        lifecycle.start(transition, self.created_ns)


@dataclass(frozen=True, slots=True)
class SessionTimerFrame(SessionCommandFrame):
    """The session's first deadline has passed."""

    def apply(self, transition: Transition) -> None:
        """Handle the deadlines that have passed."""
        limits.run_due(transition)


@dataclass(frozen=True, slots=True)
class ResponseFailedFrame(SessionCommandFrame):
    """An error was reported. ``response``: the number of the response that it belongs to; 0 for none."""

    message: str
    source: str
    response: int

    def apply(self, transition: Transition) -> None:
        """Publish the error, and mark the response as failed."""
        transition.error(self.message, self.source)
        responses.failed(transition, self.response)


@dataclass(frozen=True, slots=True)
class SessionStoppedFrame(SessionCommandFrame):
    """The pipeline has ended. ``reason`` applies if nobody closed the session before."""

    reason: str
    failed: bool = False

    def apply(self, transition: Transition) -> None:
        """End the session."""
        lifecycle.stop(transition, self.reason, failed=self.failed)


@dataclass(frozen=True, slots=True)
class CutElsewhereFrame(UrgentFrame):
    """Another processor cut the bot, and every processor has handled the cancel frame."""

    response: int
    reason: str


@dataclass(frozen=True, slots=True)
class HookCallsFrame(InputFrame):
    """Events wait for the session's hooks. Posted only if a hook wants one of them."""
