"""The session, as code outside of the pipeline sees it.

::

    controller = SessionController(greeting="Hello.")
    session = controller.session
    session.on(State.INTERRUPTED, lambda event: print("oh"))
    outcome = await session.say("Your taxi is here.")
    async for event in session.events(): ...

What is asked here enters the pipeline by its inbox, in order, and is recorded there. Nothing here waits for a lock.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, overload

from ...pipeline.clock import NS_PER_S
from ...pipeline.frames import Message
from . import commands
from .data import Interruption, SessionData, Transition, Turn
from .events import SessionEvent, StateChanged, UserSaid
from .listeners import Cleanup, EventStream, Hook
from .session_port import Link
from .settings import SessionSettings
from .snapshot import SessionSnapshot, diagnostics_of, snapshot_of
from .speech_handle import SpeechHandle
from .states import ACTIVE, OPEN, OVER, State
from .summary import SessionSummary, Statistics, statistics_of, summary_of

E = TypeVar("E", bound=SessionEvent)


class Session:
    """One conversation: its state, what was said, and what can be asked of it. `SessionController.session` is one."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._asked: SessionSettings | None = None
        """The newest settings that were asked for: the order may still be on its way."""

    @property
    def data(self) -> SessionData:
        """Everything that is known, as `step` left it. A value: nothing comes of changing it."""
        return self._link.data

    # --- where it stands ----------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Where it stands."""
        return self.data.state

    @property
    def time_in_state_s(self) -> float:
        """For how long."""
        return (self._now_ns - self.data.since_ns) / NS_PER_S

    @property
    def is_active(self) -> bool:
        """Whether a conversation is going on."""
        return self.state in ACTIVE

    @property
    def can_accept_input(self) -> bool:
        """Whether what the user says now is taken. What they type is, muted or not, while a conversation goes on."""
        return self.state in OPEN and not self.data.muted

    @property
    def settings(self) -> SessionSettings:
        """What it was asked to do; `update` changes it."""
        return self.data.settings

    @property
    def history(self) -> tuple[Message, ...]:
        """What was said, and of the bot what was heard: as a model is told it."""
        return self.data.messages

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The newest turns, of both sides and of tools; as many as `SessionSettings.history_turns`."""
        return self.data.turns

    @property
    def interruptions(self) -> tuple[Interruption, ...]:
        """The newest interruptions."""
        return self.data.interruptions

    @property
    def transitions(self) -> tuple[Transition, ...]:
        """The newest changes of state."""
        return self.data.transitions

    @property
    def statistics(self) -> Statistics:
        """Counts, rates and means over all of the session."""
        return statistics_of(self.data.counts)

    def summary(self) -> SessionSummary:
        """All that is counted, for a person (``str``) and as JSON (``to_json()``)."""
        return summary_of(self.data, self._now_ns)

    def snapshot(self) -> SessionSnapshot:
        """Its records and settings, to go on with in another process: ``SessionController(resume=snapshot)``."""
        return snapshot_of(self.data)

    def diagnostics(self) -> dict[str, Any]:
        """What it is doing, what it waits for and what is due when: for a log, without a word of what was said."""
        return diagnostics_of(self.data, self._now_ns)

    @property
    def _now_ns(self) -> int:
        return self.data.since_ns if self._link.clock is None else self._link.clock.now_ns()

    # --- asking for something -----------------------------------------------------------------------------------------

    def say(self, text: str, *, allow_interruptions: bool = True) -> SpeechHandle:
        """Let the bot say something, when it and the user are silent; what is asked first is said first."""
        number, handle = self._link.handle()
        self._link.order(commands.SayFrame(text, number, allow_interruptions))
        return handle

    def send_message(self, text: str, *, interrupt: bool = True) -> SpeechHandle:
        """The user's turn, typed. The handle is of its answer. ``interrupt``: the bot is cut for it, or it waits."""
        number, handle = self._link.handle()
        self._link.order(commands.MessageFrame(text, number, interrupt))
        return handle

    def interrupt(self, reason: str = "interrupted") -> None:
        """Cut what the bot says, and drop what waits to be said."""
        self._link.order(commands.InterruptOrderFrame(reason))

    def pause(self) -> None:
        """Both sides wait: the bot is silent at once, and the user is not listened to."""
        self._link.order(commands.PauseFrame())

    def resume(self) -> None:
        """Go on after `pause`, where the bot was silenced."""
        self._link.order(commands.ResumeFrame())

    def start_listening(self) -> None:
        """Listen to the microphone."""
        self._link.order(commands.ListenOrderFrame(True))

    def stop_listening(self) -> None:
        """Do not. Text, buttons and code go on."""
        self._link.order(commands.ListenOrderFrame(False))

    def press_to_talk(self, *, pressed: bool = True) -> None:
        """The user's button: `PushToTalk` hears of it."""
        self._link.order(commands.ButtonFrame(pressed))

    def touch(self) -> None:
        """Something happened that the pipeline cannot see: the session is not idle."""
        self._link.order(commands.TouchFrame())

    def update(self, **fields: Any) -> SessionSettings:
        """Change settings; returns all of them. Limits count from where they counted before.

        Raises `SettingsError`.
        """
        settings = self._asked = (self._asked or self.data.settings).changed(**fields)
        self._link.order(commands.SettingsFrame(settings.model_dump_json()))
        return settings

    def close(self, reason: str = "closed", *, goodbye: str | None = None, now: bool = False) -> None:
        """End the session: what is being said and what waits is played, then ``goodbye`` (None: what the settings
        have for the reason), and the pipeline ends. ``now``: without all that.
        """
        self._link.order(commands.CloseFrame(reason, goodbye, now))

    # --- being told ---------------------------------------------------------------------------------------------------

    @overload
    def on(
        self, what: State | tuple[State, State], hook: Callable[[StateChanged], object], *, once: bool = False
    ) -> Callable[[], None]: ...

    @overload
    def on(self, what: type[E], hook: Callable[[E], object], *, once: bool = False) -> Callable[[], None]: ...

    def on(
        self, what: State | tuple[State, State] | type[SessionEvent], hook: Hook, *, once: bool = False
    ) -> Callable[[], None]:
        """Call ``hook(event)`` when a state is entered, on a transition (before, after), or for a class of events.

        Plain or async; hooks run beside the pipeline, in order, one at a time. One that raises is logged, and the
        others run. Returns a function that takes the hook back.
        """
        return self._link.hooks.add(what, hook, once=once)

    def events(self, *, bound: int = 1_000) -> EventStream:
        """An async iterator over what happens from now on, to the end. More than ``bound`` unread: the oldest go."""
        stream = EventStream(bound, self._link.streams)
        if self.state in OVER:
            stream.end()
        return stream

    async def wait_for(self, *states: State, timeout_s: float | None = None) -> State:
        """Wait until it stands in one of the states, or has since stood there; returns which.

        Raises `TimeoutError`, and `SessionError` where the session is over and will not get there.
        """
        if self.state in states:
            return self.state
        names = " or ".join(one.name for one in states)
        # It may have left the state again before whoever waits runs.
        changed = await self._next(StateChanged, lambda event: event.after in states, f"to be {names}", timeout_s)
        return changed.after

    async def wait_for_input(self, timeout_s: float | None = None) -> Turn:
        """Wait for the user's next turn. Raises as `wait_for` does."""
        said = await self._next(UserSaid, lambda event: True, "to hear the user", timeout_s)
        return said.turn

    async def _next(self, kind: type[E], wanted: Callable[[E], bool], what: str, timeout_s: float | None) -> E:
        """Wait for the first event of a kind that is wanted."""
        found: list[E] = []

        def see(event: SessionEvent) -> None:
            if isinstance(event, kind) and wanted(event):
                found.append(event)

        take_back = self._link.hooks.watch(see)
        try:
            await self._link.until(lambda: bool(found), what, timeout_s)
        finally:
            take_back()
        return found[0]

    def on_close(self, cleanup: Cleanup) -> None:
        """Call ``cleanup()``, plain or async, when the session is over: the last registered first, each once."""
        self._link.cleanups.append(cleanup)
