"""Commands: one is added as docs/design/session.md says, and no step runs within another."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass

import pytest
from voxline.pipeline import Frame, InputTextFrame, LLMRequestFrame, ProcessorError
from voxline.pipeline.frames import DOWNSTREAM, Direction
from voxline.processors.session import (
    Session,
    SessionController,
    SessionData,
    SpeechOutcome,
    State,
    StateTransition,
    step,
)
from voxline.processors.session.commands import SayCommandFrame, SessionCommandFrame
from voxline.processors.session.data import Speech, SpeechKind
from voxline.processors.session.transition import Listen, Transition
from voxline.processors.testing.session_bench import SessionBench


@dataclass(frozen=True, slots=True)
class HoldCommandFrame(SessionCommandFrame):
    """Announce a hold, and turn the microphone off."""

    words: str

    def apply(self, transition: Transition) -> None:
        """Queue the words first, and stop listening."""
        data = transition.data
        data.bot.queue = (Speech(SpeechKind.SAY, self.words), *data.bot.queue)
        data.lifecycle.listening = False
        transition.do(Listen(False))


class HoldingSession(Session):
    """A session with one more method."""

    def hold(self, words: str = "One moment, please.") -> None:
        """Announce a hold, and turn the microphone off."""
        self._port.send(HoldCommandFrame(words))


async def test_a_command_takes_one_frame_with_its_rule_and_one_method():
    async with SessionBench() as bench:
        session = HoldingSession(bench.controller._port)  # pyright: ignore[reportPrivateUsage]
        session.hold()
        await bench.advance(3_000)
        assert bench.said == [("assistant", "One moment, please.")]
        assert session.state is State.WAITING_FOR_INPUT
        change = next(one for one in session.transitions if one.after is State.PROCESSING)
        assert change == StateTransition(change.at_ns, State.WAITING_FOR_INPUT, State.PROCESSING, "HoldCommandFrame")


async def test_a_command_to_a_session_that_is_over_is_refused():
    async with SessionBench() as bench:
        bench.session.close("done")
        await bench.settle()
        speech = bench.session.say("too late")
        assert speech.outcome is SpeechOutcome.DROPPED
        data, effects = step(bench.session.data, HoldCommandFrame("too late"), 0, 1)
        assert data == bench.session.data
        assert effects == ()


@dataclass(frozen=True, slots=True)
class NoRuleFrame(SessionCommandFrame):
    """A command whose author forgot `apply`."""


def test_a_command_without_a_rule_is_named():
    with pytest.raises(ProcessorError, match=r"NoRuleFrame needs a method apply\(transition\)"):
        step(SessionData(), NoRuleFrame(), 0, 1)


# --- re-entrance -----------------------------------------------------------------------------------------------------


class ReentrantController(SessionController):
    """Steps while the effects of a step are carried out: a mistake."""

    def push(self, frame: Frame, direction: Direction = DOWNSTREAM, response: int | None = None) -> Awaitable[None]:
        """Handle a typed message before the model is asked."""
        if isinstance(frame, LLMRequestFrame):
            return self.take_command(SayCommandFrame("Again.", 0))
        return super().push(frame, direction, response)


async def test_a_step_during_a_step_is_an_error():
    async with SessionBench(["Hello."], controller=ReentrantController()) as bench:
        await bench.send(InputTextFrame("hello"))
        (error,) = bench.errors
        assert "SayCommandFrame came while the effects of another step were carried out" in error.message


async def test_the_session_names_the_number_that_the_kernel_opens():
    async with SessionBench(["Hello.", "Hello again."]) as bench:
        await bench.types("hello")
        await bench.advance(3_000)
        await bench.types("hello")
        assert bench.session.data.bot.response is not None
        assert bench.session.data.bot.response.number == 2
        assert bench.controller.next_response == 3
        await bench.advance(3_000)
        assert [turn.response for turn in bench.session.turns] == [1, 1, 2, 2]
