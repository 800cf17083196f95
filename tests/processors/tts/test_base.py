"""Voices: a text in, speech with its words out, whatever goes wrong in between."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, ClassVar, Unpack

import numpy as np
import pytest
from voxline.pipeline import OutputAudioFrame, ResponseEndFrame, TextFrame
from voxline.pipeline.clock import Wait
from voxline.pipeline.errors import BadAnswerError, BadRequestError, ServiceDownError
from voxline.pipeline.frames import ServiceMetricsFrame
from voxline.pipeline.testing import Bench, Harness
from voxline.processors.service.base import Limits, ServiceSettings, settings_of
from voxline.processors.tts.base import TTS
from voxline.processors.tts.word_timing import SpeechChunk, WordStart

RATE = 1_000
"""One sample is one ms."""
HANG = "(hangs)"
Step = SpeechChunk | float | Exception | str


def chunk(ms: int, *words: tuple[int, float]) -> SpeechChunk:
    return SpeechChunk(np.full(ms, ms, np.int16), RATE, tuple(WordStart(offset, at) for offset, at in words))


class Voice(TTS):
    """Speaks by a script, a list of steps for each time that it is asked; without one, 100 ms for each word."""

    reports_words: ClassVar[bool] = True

    def __init__(self, *script: Sequence[Any], **limits: Unpack[Limits]) -> None:
        self.settings = settings_of("Voice", ServiceSettings, **{"backoff_s": 0.0, **limits})
        self.script = [*script]
        self.asked: list[str] = []
        self.closed = 0

    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        self.asked.append(text)
        steps = self.script.pop(0) if self.script else self.words(text)
        try:
            for step in steps:
                if isinstance(step, Exception):
                    raise step
                if step == HANG:
                    await Wait()
                elif isinstance(step, float):
                    await self.clock.sleep(step)
                else:
                    yield step
        finally:
            self.closed += 1

    def words(self, text: str) -> list[SpeechChunk]:
        found: list[SpeechChunk] = []
        at = 0
        for word in text.split():
            at = text.index(word, at)
            found.append(chunk(100, (at, 0.0)))
            at += len(word)
        return found


class Mute(Voice):
    """One that does not tell when words begin."""

    reports_words: ClassVar[bool] = False


def audio(bench: Bench) -> list[OutputAudioFrame]:
    return [frame for frame in bench.down if isinstance(frame, OutputAudioFrame)]


def heard(bench: Bench) -> list[str]:
    return [word.text for frame in audio(bench) for word in frame.words]


def metrics(bench: Bench) -> list[ServiceMetricsFrame]:
    return [frame for frame in bench.up if isinstance(frame, ServiceMetricsFrame)]


async def test_a_text_is_its_speech_with_its_words(harness: Harness):
    bench = await harness(Voice())
    await bench.send(TextFrame("Ten meters on."), ResponseEndFrame())
    assert bench.down[-1] == ResponseEndFrame()
    assert heard(bench) == ["Ten", "meters", "on."]
    assert sum(frame.duration_ms for frame in audio(bench)) == 300


async def test_markup_is_not_spoken_and_the_words_are_the_written_ones(harness: Harness):
    voice = Voice()
    bench = await harness(voice)
    await bench.send(TextFrame("**Turn** [left](https://example.com), _please_."))
    assert voice.asked == ["Turn left, please."]
    assert " ".join(heard(bench)) == "**Turn** [left](https://example.com), _please_."


async def test_a_long_text_is_spoken_sentence_by_sentence_and_an_emoji_goes_with_the_one_before_it(harness: Harness):
    voice = Voice()
    bench = await harness(voice)
    await bench.send(TextFrame("Ten meters on. Then left! 😀"))
    assert [text.strip() for text in voice.asked] == ["Ten meters on.", "Then left!"]
    assert " ".join(heard(bench)) == "Ten meters on. Then left! 😀"


@pytest.mark.parametrize("text", ["", " ", "\n\n", "😀", "---"])
async def test_unspeakable_text_is_not_sent_to_the_voice(harness: Harness, text: str):
    voice = Voice()
    bench = await harness(voice)
    await bench.send(TextFrame(text), ResponseEndFrame())
    assert bench.down == [ResponseEndFrame()]
    assert voice.asked == []


@pytest.mark.parametrize("text", ["...", "?!", "—", "…"])
async def test_a_text_without_a_letter_may_have_no_sound(harness: Harness, text: str):
    bench = await harness(Voice([]))
    await bench.send(TextFrame(text), ResponseEndFrame())
    assert bench.down == [ResponseEndFrame()]


async def test_a_voice_that_says_nothing_of_a_text_has_failed_and_is_asked_again(harness: Harness):
    voice = Voice([], [chunk(0)])
    bench = await harness(voice)
    await bench.send(TextFrame("Ten."))
    assert heard(bench) == ["Ten."]
    assert metrics(bench)[0].errors == ("BadAnswerError", "BadAnswerError")


async def test_one_that_never_says_anything_is_an_error_without_the_text(harness: Harness):
    bench = await harness(Voice([], attempts=1))
    await bench.send(TextFrame("Ten."))
    bench.expect_error("^Voice produced no audio for a text of 4 characters", error="BadAnswerError")


async def test_the_first_sound_goes_out_when_it_is_there(harness: Harness):
    """And does not wait for the next one."""
    bench = await harness(Voice([0.2, chunk(100, (0, 0.0)), 0.3, chunk(100, (4, 0.0)), 0.3, chunk(100)]))
    await bench.send(TextFrame("Ten meters on."))
    await bench.advance(200)
    assert heard(bench) == ["Ten"]
    await bench.advance(300)
    assert heard(bench) == ["Ten", "meters"]
    await bench.advance(300)
    assert heard(bench) == ["Ten", "meters", "on."]
    assert metrics(bench)[0].first_ms == 200
    assert metrics(bench)[0].total_ms == 800


async def test_words_that_a_voice_never_tells_of_are_not_lost(harness: Harness):
    bench = await harness(Voice([chunk(100, (0, 0.0)), chunk(100)]))
    await bench.send(TextFrame("Here I am."))
    assert heard(bench) == ["Here", "I am."]
    before = 0.0
    for frame in audio(bench):
        if "I am." in [word.text for word in frame.words]:
            break
        before += frame.duration_ms
    assert before >= 100


async def test_an_untimed_voice_gives_the_text_as_one_word_at_once(harness: Harness):
    bench = await harness(Mute([0.1, chunk(100), 0.1, chunk(50)]))
    await bench.send(TextFrame("Ten meters on."))
    await bench.advance(100)
    assert [(frame.duration_ms, [word.text for word in frame.words]) for frame in audio(bench)] == [
        (100, ["Ten meters on."])
    ]
    await bench.advance(100)
    assert [(frame.duration_ms, len(frame.words)) for frame in audio(bench)] == [(100, 1), (50, 0)]


@pytest.mark.parametrize("kind", [ServiceDownError, BadAnswerError])
async def test_after_a_failure_it_goes_on_with_the_last_word_that_was_begun(harness: Harness, kind: type[Exception]):
    voice = Voice([chunk(100, (0, 0.0)), chunk(60, (4, 20.0)), kind("Gone.")])
    bench = await harness(voice)
    await bench.send(TextFrame("Ten meters on, then left."), ResponseEndFrame())
    assert voice.asked == ["Ten meters on, then left.", "meters on, then left."]
    assert heard(bench) == ["Ten", "meters", "on,", "then", "left."]
    assert sum(frame.duration_ms for frame in audio(bench)) == 100 + 60 + 400
    assert metrics(bench)[0].errors == (kind.__name__,)


async def test_one_that_stops_in_the_middle_is_late_and_the_rest_is_said_by_the_next_attempt(harness: Harness):
    voice = Voice([chunk(100, (0, 0.0)), chunk(60, (4, 20.0)), HANG], between_timeout_s=2)
    bench = await harness(voice)
    await bench.send(TextFrame("Ten meters on."))
    await bench.advance(1_999)
    assert voice.asked == ["Ten meters on."]
    await bench.advance(1)
    assert voice.asked == ["Ten meters on.", "meters on."]
    assert heard(bench) == ["Ten", "meters", "on."]


async def test_speech_before_a_permanent_failure_is_pushed_with_its_words(harness: Harness):
    voice = Voice([chunk(100, (0, 0.0)), chunk(60, (4, 0.0)), BadRequestError("Too long.")])
    bench = await harness(voice)
    await bench.send(TextFrame("Ten meters on."), response=1)
    bench.expect_error("Too long.", error="BadRequestError", processor="Voice")
    assert heard(bench) == ["Ten", "meters"]
    assert metrics(bench) == [ServiceMetricsFrame("", "tts", 1, 0.0, 0.0, 4, ("BadRequestError",))]
    # Nobody wants the rest of an answer with a hole.
    await bench.send(TextFrame("Then left."), response=1)
    assert heard(bench) == ["Ten", "meters"]
    await bench.send(TextFrame("Next."), response=2)
    assert heard(bench)[-1] == "Next."


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(10, np.float32),
        np.zeros((10, 2), np.int16),
        np.zeros(10, np.int32),
        b"\0" * 10,
        None,
    ],
)
async def test_audio_that_is_none_is_an_error_that_says_what_it_was(harness: Harness, samples: Any):
    bench = await harness(Voice([SpeechChunk(samples, RATE)], attempts=1))
    await bench.send(TextFrame("Ten."))
    error = bench.expect_error("int16", error="BadAnswerError")
    assert str(getattr(samples, "dtype", type(samples).__name__)) in error.message
    await bench.send(TextFrame("Ten."), response=2)
    assert heard(bench) == ["Ten."]


async def test_a_rate_that_is_none_is_an_error(harness: Harness):
    bench = await harness(Voice([SpeechChunk(np.zeros(10, np.int16), 0)], attempts=1))
    await bench.send(TextFrame("Ten."))
    bench.expect_error("Hz", error="BadAnswerError")


@pytest.mark.parametrize("ms", [0, 50, 150])
async def test_an_interruption_stops_the_voice_and_the_next_text_is_heard_alone(harness: Harness, ms: float):
    voice = Voice([0.1, chunk(100, (0, 0.0)), 0.1, chunk(100, (4, 0.0)), HANG])
    bench = await harness(voice)
    await bench.send(TextFrame("Ten meters on."), response=1)
    await bench.advance(ms)
    await bench.interrupt()
    assert voice.closed == 1
    bench.clear()
    await bench.advance(5_000)
    await bench.send(TextFrame("Left."), response=2)
    assert heard(bench) == ["Left."]
    assert [one.response for one in metrics(bench)] == [2]


async def test_texts_are_spoken_in_their_order_and_frames_stay_between_them(harness: Harness):
    bench = await harness(Voice())
    await bench.send(TextFrame("One."), TextFrame("😀"), TextFrame("Two three."), ResponseEndFrame())
    assert heard(bench) == ["One.", "Two", "three."]
    assert bench.down[-1] == ResponseEndFrame()


async def test_words_of_a_text_without_spaces_are_glued(harness: Harness):
    bench = await harness(Voice([chunk(100, (0, 0.0), (1, 30.0), (2, 60.0))]))
    await bench.send(TextFrame("你好吗"))
    assert [(word.text, word.glued) for frame in audio(bench) for word in frame.words] == [
        ("你", True), ("好", True), ("吗", True)
    ]  # fmt: skip


async def test_a_failed_response_of_one_run_does_not_mute_the_next(harness: Harness):
    """The numbers of responses begin anew."""
    voice = Voice([ServiceDownError("down")], attempts=1)
    first = await harness(voice)
    await first.send(TextFrame("One."), response=1)
    assert [error.error for error in first.errors] == ["ServiceDownError"]
    await first.close()
    second = await harness(voice)
    await second.send(TextFrame("Two."), response=1)
    assert heard(second) == ["Two."]
