"""What the bot says when something was lost: an answer, a part of one, or what the user said."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from voxline.pipeline import (
    ErrorFrame,
    Message,
    Pipeline,
    PipelineWorker,
    ServiceDownError,
    SettingsError,
    TranscriptionFrame,
    VirtualClock,
)
from voxline.processors import ScriptedLLM, SessionController, SessionSettings, SpeechOutcome
from voxline.processors.llm.base import LLM, Piece, ToolSpec
from voxline.processors.session.events import SessionErrorReported
from voxline.processors.testing.session_bench import SessionBench
from voxline.processors.tts.base import TTS
from voxline.processors.tts.word_timing import SpeechChunk
from voxline.transports.memory import MemoryTransport

SORRY = "Sorry, once more please."


class Model(LLM):
    """Answers with what it was given, a sentence each; an exception is raised there."""

    def __init__(self, *answers: Sequence[str | Exception]) -> None:
        self.answers = iter(answers)
        self.settings = self.settings.model_copy(update={"attempts": 1})

    async def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Piece]:
        for piece in next(self.answers):
            await self.clock.sleep(0.2)
            if isinstance(piece, Exception):
                raise piece
            yield piece


DOWN = ServiceDownError("The model is down.")


async def test_an_answer_that_fails_before_its_first_word_is_apologised_for_at_once():
    async with SessionBench(model=Model([DOWN], ["It is nine. "]), apology=SORRY) as bench:
        handle = bench.session.send_message("what time is it")
        await bench.advance(300)
        assert handle.outcome is SpeechOutcome.FAILED
        assert [error.error for error in bench.errors] == ["ServiceDownError"]
        await bench.advance(2_000)
        await bench.user_says("what time is it")
        await bench.advance(3_000)
        asked = ("user", "what time is it")
        assert bench.said == [asked, ("assistant", SORRY), asked, ("assistant", "It is nine.")]


async def test_an_answer_that_breaks_off_is_heard_as_far_as_it_goes_and_apologised_for():
    async with SessionBench(model=Model(["It is nine. And ", DOWN]), apology=SORRY) as bench:
        await bench.user_says("what time is it")
        await bench.advance(5_000)
        assert bench.said[1:] == [("assistant", "It is nine."), ("assistant", SORRY)]


async def test_without_an_apology_nothing_is_made_up():
    async with SessionBench(model=Model([DOWN])) as bench:
        await bench.user_says("what time is it")
        await bench.advance(5_000)
        assert bench.said == [("user", "what time is it")]


async def test_an_answer_that_was_cut_by_the_user_is_not_apologised_for():
    async with SessionBench(model=Model(["One two three four. ", DOWN], ["Yes. "]), apology=SORRY) as bench:
        await bench.user_says("count")
        await bench.advance(1_000)
        assert [error.error for error in bench.errors] == ["ServiceDownError"]
        await bench.user_says("stop it now")
        await bench.advance(5_000)
        assert SORRY not in [text for _, text in bench.said]


async def test_an_apology_that_fails_is_not_apologised_for():
    async with SessionBench(["Fine."], apology=SORRY) as bench:
        await bench.user_says("hello")
        await bench.advance(300)
        for _ in range(5):
            response = bench.session.data.bot.response
            await bench.send_upstream(ErrorFrame("no voice", "TTS"), response=response.number if response else 0)
            await bench.advance(1_500)
        assert [text for _, text in bench.said].count(SORRY) == 1


async def test_words_that_no_recogniser_could_hear_are_apologised_for_and_not_asked_about():
    async with SessionBench(["Fine."], apology=SORRY, answer_unclear=True) as bench:
        await bench.user_starts()
        await bench.advance(500)
        await bench.user_stops(None)
        await bench.send(TranscriptionFrame("", failed=True))
        await bench.advance(3_000)
        assert isinstance(bench.model, ScriptedLLM)
        assert not bench.model.requests
        assert bench.said == [("assistant", SORRY)]
        assert [event.source for event in bench.events if isinstance(event, SessionErrorReported)] == ["STT"]
        await bench.user_says("hello")
        await bench.advance(3_000)
        assert bench.said[-1] == ("assistant", "Fine.")


async def test_a_recogniser_that_says_nothing_is_apologised_for_once():
    async with SessionBench(["Fine."], apology=SORRY, endpointing={"transcript_timeout_ms": 1_000}) as bench:
        await bench.user_starts()
        await bench.advance(500)
        await bench.user_stops(None)
        await bench.advance(900)
        assert bench.said == []
        await bench.advance(3_000)
        assert bench.said == [("assistant", SORRY)]
        await bench.send(TranscriptionFrame("", failed=True))
        await bench.advance(5_000)
        assert bench.said == [("assistant", SORRY)]


async def test_words_that_were_heard_before_the_failure_are_answered():
    async with SessionBench(["Fine."], apology=SORRY) as bench:
        await bench.user_starts()
        await bench.send(TranscriptionFrame("how are you", more=True))
        await bench.user_stops(None)
        await bench.send(TranscriptionFrame("", failed=True))
        await bench.advance(3_000)
        assert bench.said == [("user", "how are you"), ("assistant", "Fine.")]


# --- from a file -----------------------------------------------------------------------------------------------------


class Mute(TTS):
    """A voice that is down."""

    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        raise ServiceDownError("The voice is down.")
        yield


async def test_a_recorded_apology_is_heard_where_no_voice_is_left(tmp_path: Path):
    beep = (8_000 * np.sin(np.arange(8_000) / 4)).astype(np.int16)
    path = tmp_path / "sorry.wav"
    soundfile.write(path, beep, 16_000)
    transport, clock = MemoryTransport(output_rate=16_000), VirtualClock()
    controller = SessionController(apology=SORRY, apology_file=path)
    pipeline = Pipeline([transport.input(), controller, ScriptedLLM(["Fine."]), Mute(), transport.output()])
    worker = PipelineWorker(pipeline, clock=clock)
    running = asyncio.ensure_future(worker.run())
    await clock.sleep(0.1)
    controller.session.send_message("how are you")
    await clock.sleep(10)
    await worker.stop()
    await running
    heard = np.concatenate([chunk.samples for chunk in transport.heard])
    assert np.array_equal(heard[np.flatnonzero(heard)[0] - 1 :][: len(beep)], beep)
    assert [(turn.text, turn.audio_ms) for turn in controller.session.turns[1:]] == [(SORRY, 500.0)]


@pytest.mark.parametrize("content", [None, b"", b"no audio at all"])
def test_a_file_that_cannot_be_said_is_told_at_once(tmp_path: Path, content: bytes | None):
    path = tmp_path / "sorry.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"apology_file.*sorry.wav"):
        SessionSettings(apology_file=path)


def test_a_recording_that_is_no_apology_is_told_at_once(tmp_path: Path):
    path = tmp_path / "book.wav"
    soundfile.write(path, np.zeros(31 * 8_000, np.int16), 8_000)
    with pytest.raises(SettingsError, match=r"book.wav is 31.0 s long.*up to 30 s"):
        SessionSettings(apology_file=path)


# --- that nobody needs any more --------------------------------------------------------------------------------------


async def test_who_says_it_again_by_themselves_is_not_asked_to_after_the_answer():
    async with SessionBench(["Fine."], apology=SORRY) as bench:
        await bench.user_starts()
        await bench.advance(500)
        await bench.user_stops(None)
        await bench.user_starts()
        await bench.send(TranscriptionFrame("", failed=True))
        await bench.advance(500)
        await bench.user_stops("hello there")
        await bench.advance(6_000)
        assert bench.said == [("user", "hello there"), ("assistant", "Fine.")]


async def test_what_nobody_listened_to_is_not_apologised_for():
    async with SessionBench(["Fine."], apology=SORRY) as bench:
        bench.session.stop_listening()
        await bench.settle()
        await bench.user_starts()
        await bench.advance(500)
        await bench.user_stops(None)
        bench.session.start_listening()
        await bench.settle()
        await bench.send(TranscriptionFrame("", failed=True))
        await bench.advance(6_000)
        assert bench.said == []


async def test_a_recording_that_is_gone_by_then_is_replaced_by_the_words(tmp_path: Path):
    path = tmp_path / "sorry.wav"
    soundfile.write(path, np.zeros(8_000, np.int16), 8_000)
    async with SessionBench(model=Model([DOWN]), apology=SORRY) as bench:
        bench.session.update(apology_file=path)
        await bench.settle()
        path.unlink()
        handle = bench.session.send_message("what time is it")
        await bench.advance(300)
        assert handle.outcome is SpeechOutcome.FAILED
        assert [error.error for error in bench.errors] == ["ServiceDownError"]
        await bench.advance(3_000)
        assert bench.said[1:] == [("assistant", SORRY)]
