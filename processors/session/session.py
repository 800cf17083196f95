"""`Session`: one conversation, as code outside of the pipeline sees it.

::

    controller = SessionController(greeting="Hello.")
    session = controller.session
    session.on(State.INTERRUPTED, lambda event: print("oh"))
    outcome = await session.say("Your taxi is here.")
    async for event in session.events(): ...

Every command enters the pipeline by its inbox, in order, and is recorded there. No method waits for a lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from ...pipeline.clock import NS_PER_S
from ...pipeline.frames import Message
from . import commands
from .data import Interruption, SessionData, StateTransition, Turn
from .events import SessionEvent, StateChanged, UserSaid
from .listeners import Cleanup, EventStream, Hook
from .session_port import SessionPort
from .settings import SessionSettings
from .snapshot import SessionSnapshot, diagnostics_of, snapshot_of
from .speech_handle import SpeechHandle
from .states import ACTIVE, OPEN, OVER, State
from .summary import SessionStatistics, SessionSummary, statistics_of, summary_of

E = TypeVar("E", bound=SessionEvent)


class Session:
    """One conversation: its state, its history, and its commands. `SessionController.session` is an instance."""

    def __init__(self, port: SessionPort) -> None:
        self._port = port
        self._newest_settings: SessionSettings | None = None
        """The settings of the newest `update`, whose command may still be queued."""

    @property
    def data(self) -> SessionData:
        """The complete data after the newest `step`. Read it only: changes have no effect on the session."""
        return self._port.data

    # --- reading ------------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Current state."""
        return self.data.state

    @property
    def time_in_state_s(self) -> float:
        """Time since the newest change of the state."""
        return (self._now_ns - self.data.state_since_ns) / NS_PER_S

    @property
    def is_active(self) -> bool:
        """True while a conversation runs."""
        return self.state in ACTIVE

    @property
    def can_accept_input(self) -> bool:
        """True while the session takes the user's speech. Typed text is taken even while muted."""
        return self.state in OPEN and not self.data.muted

    @property
    def settings(self) -> SessionSettings:
        """Current settings; `update` changes them."""
        return self.data.settings

    @property
    def history(self) -> tuple[Message, ...]:
        """The conversation as a model receives it: the user's words, and the heard words of the bot."""
        return self.data.messages

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The newest turns of both sides and of tools, up to `SessionSettings.history_turns`."""
        return self.data.history.turns

    @property
    def interruptions(self) -> tuple[Interruption, ...]:
        """The newest interruptions."""
        return self.data.history.interruptions

    @property
    def transitions(self) -> tuple[StateTransition, ...]:
        """The newest changes of the state."""
        return self.data.history.transitions

    @property
    def statistics(self) -> SessionStatistics:
        """Counts, rates and means over the whole session."""
        return statistics_of(self.data.history.counts)

    def summary(self) -> SessionSummary:
        """Summarise the session: ``str`` for a person, ``to_json()`` for a program."""
        return summary_of(self.data, self._now_ns)

    def snapshot(self) -> SessionSnapshot:
        """Save history and settings, for ``SessionController(resume=snapshot)`` in another process."""
        return snapshot_of(self.data)

    def diagnostics(self) -> dict[str, Any]:
        """Describe state, deadlines and transitions for a log, without any words of the conversation."""
        return diagnostics_of(self.data, self._now_ns)

    @property
    def _now_ns(self) -> int:
        return self.data.state_since_ns if self._port.clock is None else self._port.clock.now_ns()

    # --- commands -----------------------------------------------------------------------------------------------------

    def say(self, text: str, *, allow_interruptions: bool = True) -> SpeechHandle:
        """Let the bot say a text once both sides are silent. Texts are said in the order of the calls."""
        number, handle = self._port.handle()
        self._port.send(commands.SayCommandFrame(text, number, allow_interruptions))
        return handle

    def send_message(self, text: str, *, interrupt: bool = True) -> SpeechHandle:
        """Send a typed message of the user. The handle belongs to its answer.

        ``interrupt``: cut the bot for the message; otherwise the message waits until the bot has finished.
        """
        number, handle = self._port.handle()
        self._port.send(commands.MessageCommandFrame(text, number, interrupt))
        return handle

    def interrupt(self, reason: str = "interrupted") -> None:
        """Cut the bot, and drop its queued speech."""
        self._port.send(commands.InterruptCommandFrame(reason))

    def pause(self) -> None:
        """Pause both sides: the bot falls silent at once, and the user is not heard."""
        self._port.send(commands.PauseCommandFrame())

    def resume(self) -> None:
        """Resume after `pause`. The bot continues where it was paused."""
        self._port.send(commands.ResumeCommandFrame())

    def start_listening(self) -> None:
        """Turn the microphone on."""
        self._port.send(commands.ListenCommandFrame(True))

    def stop_listening(self) -> None:
        """Turn the microphone off. Text, buttons and code still work."""
        self._port.send(commands.ListenCommandFrame(False))

    def press_to_talk(self, *, pressed: bool = True) -> None:
        """Press or release the user's talk button, which `PushToTalk` receives."""
        self._port.send(commands.TalkButtonCommandFrame(pressed))

    def touch(self) -> None:
        """Report activity that the pipeline cannot see: the idle time starts again."""
        self._port.send(commands.TouchCommandFrame())

    def update(self, **fields: Any) -> SessionSettings:
        """Change settings. Returns all of them. Limits count from the same time as before.

        Raises `SettingsError`.
        """
        settings = self._newest_settings = (self._newest_settings or self.data.settings).changed(**fields)
        self._port.send(commands.UpdateCommandFrame(settings.model_dump_json()))
        return settings

    def close(self, reason: str = "closed", *, goodbye: str | None = None, now: bool = False) -> None:
        """Close the session: play current and queued speech, say ``goodbye``, and end the pipeline.

        ``goodbye``: None takes the settings' goodbye for the reason. ``now``: cut all speech, and say no goodbye.
        """
        self._port.send(commands.CloseCommandFrame(reason, goodbye, now))

    # --- events -------------------------------------------------------------------------------------------------------

    @overload
    def on(
        self, trigger: State | tuple[State, State], hook: Callable[[StateChanged], object], *, once: bool = False
    ) -> Callable[[], None]: ...

    @overload
    def on(self, trigger: type[E], hook: Callable[[E], object], *, once: bool = False) -> Callable[[], None]: ...

    def on(
        self, trigger: State | tuple[State, State] | type[SessionEvent], hook: Hook, *, once: bool = False
    ) -> Callable[[], None]:
        """Call ``hook(event)`` when a state is entered, on a transition (before, after), or for a class of events.

        Plain or async. Hooks run beside the pipeline, in order, one at a time. An exception in a hook is logged, and
        the other hooks run. Returns a function that removes the hook.
        """
        return self._port.hooks.add(trigger, hook, once=once)

    def events(self, *, bound: int = 1_000) -> EventStream:
        """Iterate over all events from now to the end. With more than ``bound`` unread, the oldest are dropped."""
        stream = EventStream(bound, self._port.streams)
        if self.state in OVER:
            stream.end()
        return stream

    async def wait_for(self, *states: State, timeout_s: float | None = None) -> State:
        """Wait until the session is in one of the states, or has been since the call. Returns that state.

        Raises `TimeoutError`, and `SessionError` if the session ends without reaching one.
        """
        if self.state in states:
            return self.state
        names = " or ".join(one.name for one in states)
        # The session may leave the state before the waiting task runs.
        changed = await self._next(StateChanged, lambda event: event.after in states, f"to be {names}", timeout_s)
        return changed.after

    async def wait_for_input(self, timeout_s: float | None = None) -> Turn:
        """Wait for the user's next turn. Raises the same errors as `wait_for`."""
        said = await self._next(UserSaid, lambda event: True, "to hear the user", timeout_s)
        return said.turn

    async def _next(self, kind: type[E], wanted: Callable[[E], bool], aim: str, timeout_s: float | None) -> E:
        """Wait for the first wanted event of a class."""
        found: list[E] = []

        def watch(event: SessionEvent) -> None:
            if isinstance(event, kind) and wanted(event):
                found.append(event)

        remove = self._port.hooks.watch(watch)
        try:
            await self._port.until(lambda: bool(found), aim, timeout_s)
        finally:
            remove()
        return found[0]

    def on_close(self, cleanup: Cleanup) -> None:
        """Call ``cleanup()``, plain or async, after the session has ended: the last registered first, each once."""
        self._port.cleanups.append(cleanup)
