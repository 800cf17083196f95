"""The session controller, which decides. What it decides stands in `states.py`; this carries it out."""

from __future__ import annotations

from collections.abc import Collection

from ...pipeline.frames import (
    UPSTREAM,
    BotStartedSpeakingFrame,
    Frame,
    LLMRequestFrame,
    Message,
    ResponseCutFrame,
    ResponseEndFrame,
    ResponsePlayedFrame,
    TextFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from ...pipeline.processor import FrameProcessor, handles
from .states import (
    Ask,
    Close,
    Effect,
    Interrupt,
    Opened,
    Say,
    Session,
    SessionStartedFrame,
    Settings,
    State,
    step,
)


class SessionController(FrameProcessor):
    """Takes turns: asks for an answer when the user's turn has ended, and cuts the bot when the user speaks.

    Stands between STT and LLM. A turn has ended when the user is silent and their words are there; words that
    come later join it. Every answer is a response of its own, so an interruption finds all of it.

    ``instructions``: the system message that begins every request. ``greeting``: what the bot says first.
    ``farewells``: user turns, word for word, that end the session once their answer is played to its end.
    ``answer_unclear``: speech without an intelligible word is a turn too, with an empty text; otherwise it is
    none. ``history_turns``: how many turns a request tells of, at most.
    """

    def __init__(
        self,
        *,
        instructions: str = "",
        greeting: str = "",
        farewells: Collection[str] = (),
        answer_unclear: bool = False,
        history_turns: int = 100,
    ) -> None:
        if isinstance(farewells, str):
            farewells = (farewells,)
        if history_turns < 1:
            raise ValueError(f"history_turns is {history_turns}, and the turn that is asked about is one.")
        self._session = Session(Settings(instructions, greeting, frozenset(farewells), answer_unclear, history_turns))

    @property
    def state(self) -> State:
        """Where the session stands."""
        return self._session.state

    @property
    def history(self) -> tuple[Message, ...]:
        """What was said and heard so far."""
        return self._session.messages

    async def start(self) -> None:
        """Say that the session has begun; a fact, so that a replay greets as well."""
        if self._session.settings.greeting:
            self.post(SessionStartedFrame())

    @handles(SessionStartedFrame)
    async def begin(self, frame: SessionStartedFrame) -> None:
        """Greet."""
        await self._decide(frame)

    @handles(UserStartedSpeakingFrame, UserStoppedSpeakingFrame, TranscriptionFrame)
    async def hear(self, frame: Frame) -> None:
        """Of the user."""
        await self.push(frame)
        await self._decide(frame)

    @handles(BotStartedSpeakingFrame, ResponsePlayedFrame, ResponseCutFrame, direction=UPSTREAM)
    async def learn(self, frame: Frame) -> None:
        """Of what was heard."""
        await self.push(frame, UPSTREAM)
        await self._decide(frame)

    async def _decide(self, event: Frame) -> None:
        self._session, effects = step(self._session, event, self.now_ns)
        for effect in effects:
            await self._do(effect)

    async def _do(self, effect: Effect) -> None:
        match effect:
            case Interrupt(reason):
                self.interrupt(reason)
            case Ask(messages):
                await self.push(LLMRequestFrame(messages), response=self._open())
            case Say(text):
                response = self._open()
                await self.push(TextFrame(text), response=response)
                await self.push(ResponseEndFrame(), response=response)
            case Close(reason):
                self.end(reason)

    def _open(self) -> int:
        response = self.new_response()
        self._session, _ = step(self._session, Opened(response), self.now_ns)
        return response
