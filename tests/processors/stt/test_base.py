"""Recognisers: the audio of an utterance in, what was said out, whatever goes wrong in between."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from typing import Any, Unpack

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxline.pipeline import (
    InputAudioFrame,
    InputEndedFrame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from voxline.pipeline.clock import Wait
from voxline.pipeline.errors import AuthenticationError, BadAnswerError, ServiceDownError
from voxline.pipeline.frames import HeardWord, Samples, ServiceMetricsFrame
from voxline.pipeline.testing import Bench, Harness
from voxline.processors.service.base import settings_of
from voxline.processors.stt.base import STT, STTLimits, STTSettings
from voxline.processors.stt.utterance import Transcript
from voxline.processors.testing.scripted import ScriptedSTT
from voxline.tests.scale import examples

HANG = "(hangs)"
FINAL = "(says what it has heard)"
INTERIM = "(says what it has heard so far)"
SILENT = "(ends without a word)"
Step = int | float | str | Exception | Transcript | tuple[str, int]
"""Chunks to read, a wait in s, an error, something to say."""


def numbers(samples: Iterable[Any]) -> str:
    return " ".join(map(str, samples))


class Ears(STT):
    """Understands the numbers of the samples that it hears. One sample is one ms.

    ``script``: the steps of each attempt; then it hears the rest and says it.
    """

    sample_rate = 1_000

    def __init__(self, *script: Sequence[Step], **limits: Unpack[STTLimits]) -> None:
        self.settings = settings_of("Ears", STTSettings, **{"backoff_s": 0.0, "preroll_ms": 0.0, **limits})
        self.script = [*script]
        self.connects = self.attempts = self.closed = 0

    async def connect(self) -> None:
        self.connects += 1

    async def transcribe(self, audio: AsyncIterator[Samples]) -> AsyncGenerator[Transcript]:
        self.attempts += 1
        heard: list[int] = []
        told: int = 0
        try:
            steps: Sequence[Step] = self.script.pop(0) if self.script else []
            for step in steps:
                if isinstance(step, Exception):
                    raise step
                elif isinstance(step, Transcript):
                    yield step
                elif isinstance(step, int):
                    for _ in range(step):
                        heard += (await anext(audio, np.zeros(0, np.int16))).tolist()
                elif isinstance(step, float):
                    await self.clock.sleep(step)
                elif isinstance(step, tuple):
                    # All but the last ms of what it has heard.
                    upto = max(told, len(heard) - step[1])
                    yield Transcript(numbers(heard[told:upto]), end_ms=upto)
                    told = upto
                elif step == HANG:
                    await Wait()
                elif step == FINAL:
                    yield Transcript(numbers(heard[told:]))
                    told = len(heard)
                elif step == INTERIM:
                    yield Transcript(numbers(heard[told:]), final=False)
                elif step == SILENT:
                    return
            async for samples in audio:
                heard += samples.tolist()
            yield Transcript(numbers(heard[told:]))
        finally:
            self.closed += 1


class Talk:
    """Somebody who talks: frames of 20 ms, whose samples are numbered from 0."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.ms = 0

    async def audio(self, frames: int) -> None:
        for _ in range(frames):
            samples = np.arange(self.ms, self.ms + 20).astype(np.int16)
            self.ms += 20
            await self.bench.advance(20)
            await self.bench.send(InputAudioFrame(samples, 1_000))

    async def starts(self, onset_ms: float = 0) -> None:
        await self.bench.send(UserStartedSpeakingFrame(onset_ms))

    async def stops(self) -> None:
        await self.bench.send(UserStoppedSpeakingFrame(500))

    async def says(self, frames: int) -> None:
        await self.starts()
        await self.audio(frames)
        await self.stops()


async def talk_of(harness: Harness, ears: Ears, **options: Any) -> Talk:
    return Talk(await harness(ears, **options))


def finals(bench: Bench) -> list[TranscriptionFrame]:
    return [frame for frame in bench.down if isinstance(frame, TranscriptionFrame)]


def heard(bench: Bench) -> list[int]:
    return [int(number) for frame in finals(bench) for number in frame.text.split()]


def metrics(bench: Bench) -> list[ServiceMetricsFrame]:
    return [frame for frame in bench.up if isinstance(frame, ServiceMetricsFrame)]


# --- utterances -------------------------------------------------------------------------------------------------------


async def test_speech_between_start_and_stop_is_one_transcription(harness: Harness):
    talk = await talk_of(harness, Ears())
    await talk.audio(3)
    await talk.says(5)
    await talk.audio(3)
    assert heard(talk.bench) == [*range(60, 160)]
    assert [(frame.more, frame.failed, frame.audio_ms) for frame in finals(talk.bench)] == [(False, False, 100)]


async def test_audio_and_events_pass_on(harness: Harness):
    talk = await talk_of(harness, Ears(), passes=[InputAudioFrame, UserStartedSpeakingFrame, UserStoppedSpeakingFrame])
    await talk.says(5)
    assert len(talk.bench.down) == 8


@pytest.mark.parametrize(("onset_ms", "preroll_ms", "start"), [(0, 0, 100), (40, 0, 60), (40, 30, 20), (45, 0, 40)])
async def test_it_hears_from_the_first_sound_on_and_a_little_before(
    harness: Harness, onset_ms: float, preroll_ms: float, start: int
):
    """In whole frames: the first holds the moment."""
    talk = await talk_of(harness, Ears(preroll_ms=preroll_ms))
    await talk.audio(5)
    await talk.starts(onset_ms)
    await talk.audio(1)
    await talk.stops()
    assert heard(talk.bench) == [*range(start, 120)]


async def test_of_what_was_before_no_more_is_there_than_was_heard(harness: Harness):
    talk = await talk_of(harness, Ears(preroll_ms=300))
    await talk.audio(2)
    await talk.starts(500)
    await talk.stops()
    assert heard(talk.bench) == [*range(40)]


async def test_two_utterances_are_two(harness: Harness):
    talk = await talk_of(harness, Ears())
    await talk.says(2)
    await talk.audio(2)
    await talk.says(2)
    assert [frame.text for frame in finals(talk.bench)] == [numbers(range(40)), numbers(range(80, 120))]


async def test_nothing_understood_is_an_empty_text(harness: Harness):
    talk = await talk_of(harness, Ears([SILENT], [9, Transcript(""), SILENT]))
    await talk.says(2)
    await talk.says(2)
    assert [frame.text for frame in finals(talk.bench)] == ["", ""]


async def test_interim_texts_are_pushed(harness: Harness):
    talk = await talk_of(harness, Ears([1, INTERIM, 1, INTERIM]))
    await talk.says(3)
    told = [frame for frame in talk.bench.down if isinstance(frame, InterimTranscriptionFrame | TranscriptionFrame)]
    assert [(type(frame).__name__, len(frame.text.split())) for frame in told] == [
        ("InterimTranscriptionFrame", 20),
        ("InterimTranscriptionFrame", 40),
        ("TranscriptionFrame", 60),
    ]


async def test_pieces_say_that_more_comes_and_the_last_does_not(harness: Harness):
    talk = await talk_of(harness, Ears([2, FINAL, 1, FINAL]))
    await talk.says(5)
    assert [(len(frame.text.split()), frame.more, frame.audio_ms) for frame in finals(talk.bench)] == [
        (40, True, 40),
        (20, True, 20),
        (40, False, 40),
    ]


async def test_several_after_the_end_are_pieces_too(harness: Harness):
    talk = await talk_of(harness, Ears([9, ("", 30), FINAL]))
    await talk.says(3)
    assert [(len(frame.text.split()), frame.more) for frame in finals(talk.bench)] == [
        (30, True),
        (30, True),
        (0, False),
    ]


async def test_a_piece_without_words_is_not_pushed(harness: Harness):
    talk = await talk_of(harness, Ears([2, Transcript("")]))
    await talk.says(3)
    assert [frame.more for frame in finals(talk.bench)] == [False]


async def test_one_that_has_said_all_while_the_user_speaks_is_done_when_they_stop(harness: Harness):
    talk = await talk_of(harness, Ears([2, FINAL, SILENT]))
    await talk.says(5)
    assert [(len(frame.text.split()), frame.more) for frame in finals(talk.bench)] == [(40, True), (0, False)]
    await talk.says(1)
    assert finals(talk.bench)[-1].text == numbers(range(100, 120))


async def test_its_words_have_the_times_of_the_utterance(harness: Harness):
    words = (HeardWord("one", 0.0, 10.0),)
    first: list[Step] = [2, Transcript("one", words=words, end_ms=20), ServiceDownError("Gone.")]
    talk = await talk_of(harness, Ears(first, [1, Transcript("two", words=words), SILENT]))
    await talk.says(5)
    told = [frame.words for frame in finals(talk.bench) if frame.text]
    assert told == [(HeardWord("one", 0.0, 10.0),), (HeardWord("one", 20.0, 30.0),)]


async def test_metrics_count_from_the_end_of_the_speech(harness: Harness):
    talk = await talk_of(harness, Ears([3, 9, 0.15, FINAL, SILENT]))
    await talk.says(3)
    await talk.bench.advance(1_000)
    assert metrics(talk.bench) == [ServiceMetricsFrame("Ears", "stt", 0, 150.0, 150.0, 60.0, ())]
    assert finals(talk.bench)[0].decode_ms == 150


async def test_the_input_may_end_in_the_middle_of_a_word(harness: Harness):
    talk = await talk_of(harness, Ears())
    await talk.starts()
    await talk.audio(3)
    await talk.bench.send(InputEndedFrame())
    assert heard(talk.bench) == [*range(60)]
    assert isinstance(talk.bench.down[-1], TranscriptionFrame)


# --- deadlines --------------------------------------------------------------------------------------------------------


async def test_the_user_may_speak_as_long_as_they_like(harness: Harness):
    ears = Ears(first_timeout_s=1, between_timeout_s=1)
    talk = await talk_of(harness, ears)
    await talk.says(500)
    assert (ears.attempts, len(heard(talk.bench))) == (1, 10_000)


async def test_a_user_who_says_nothing_may_do_so_for_hours(harness: Harness):
    ears = Ears(first_timeout_s=1)
    talk = await talk_of(harness, ears)
    await talk.starts()
    await talk.bench.advance(3_600_000)
    await talk.stops()
    assert (ears.attempts, len(finals(talk.bench))) == (1, 1)


async def test_the_deadline_begins_when_the_user_has_stopped(harness: Harness):
    ears = Ears([50, HANG], first_timeout_s=2)
    talk = await talk_of(harness, ears)
    await talk.says(50)
    await talk.bench.advance(1_999)
    assert ears.attempts == 1
    await talk.bench.advance(1)
    assert (ears.attempts, heard(talk.bench)) == (2, [*range(1_000)])
    assert metrics(talk.bench)[0].errors == ("ServiceTimeout",)


async def test_one_that_hangs_while_the_user_speaks_is_noticed_and_what_they_said_is_heard_again(harness: Harness):
    ears = Ears([10, HANG], first_timeout_s=2)
    talk = await talk_of(harness, ears)
    await talk.says(300)
    assert (ears.attempts, ears.connects) == (2, 2)
    assert heard(talk.bench) == [*range(6_000)]
    assert finals(talk.bench)[0].decode_ms == 0


# --- failures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ServiceDownError, BadAnswerError])
@pytest.mark.parametrize("chunks", [0, 1, 4, 9])
async def test_after_a_failure_all_audio_without_a_final_text_is_read_again(
    harness: Harness, kind: type[Exception], chunks: int
):
    ears = Ears([chunks, kind("Gone.")])
    talk = await talk_of(harness, ears)
    await talk.says(9)
    assert heard(talk.bench) == [*range(180)]
    assert metrics(talk.bench)[0].errors == (kind.__name__,)
    assert len(finals(talk.bench)) == 1


async def test_final_texts_are_not_repeated_after_a_failure(harness: Harness):
    ears = Ears([4, ("", 30), 1, ServiceDownError("Gone.")], [2, FINAL, ServiceDownError("Gone.")])
    talk = await talk_of(harness, ears)
    await talk.says(9)
    assert heard(talk.bench) == [*range(180)]
    assert [frame.audio_ms for frame in finals(talk.bench)] == [50, 70, 60]


async def test_of_a_long_utterance_the_newest_is_heard_again(harness: Harness):
    ears = Ears([50, ServiceDownError("Gone.")], replay_s=0.2)
    talk = await talk_of(harness, ears)
    await talk.says(60)
    assert heard(talk.bench) == [*range(800, 1_200)]


async def test_a_failure_after_the_last_final_text_loses_nothing(harness: Harness):
    ears = Ears([9, FINAL, ServiceDownError("Gone.")])
    talk = await talk_of(harness, ears)
    await talk.says(9)
    await talk.bench.advance(10_000)
    assert heard(talk.bench) == [*range(180)]
    assert [frame.more for frame in finals(talk.bench)][-1] is False
    assert not any(frame.failed for frame in finals(talk.bench))


async def test_if_all_fail_there_is_a_failed_frame_and_an_error_and_the_next_utterance_works(
    harness: Harness,
):
    ears = Ears(*[[1, ServiceDownError("Gone.")]] * 3)
    talk = await talk_of(harness, ears)
    await talk.starts()
    await talk.audio(6)
    assert finals(talk.bench) == []
    await talk.stops()
    talk.bench.expect_error("Gone.", error="ServiceDownError", processor="Ears")
    assert [(frame.text, frame.more, frame.failed) for frame in finals(talk.bench)] == [("", False, True)]
    assert metrics(talk.bench)[0].errors == ("ServiceDownError",) * 3
    await talk.says(2)
    assert finals(talk.bench)[-1].text == numbers(range(120, 160))
    assert not finals(talk.bench)[-1].failed


async def test_final_texts_before_the_last_failure_stay(harness: Harness):
    ears = Ears([2, FINAL, AuthenticationError("No key.")])
    talk = await talk_of(harness, ears)
    await talk.starts()
    await talk.audio(3)
    await talk.stops()
    talk.bench.expect_error("No key.")
    assert [(len(frame.text.split()), frame.more, frame.failed) for frame in finals(talk.bench)] == [
        (40, True, False),
        (0, False, True),
    ]


async def test_speech_during_a_retry_is_transcribed_afterwards(harness: Harness):
    ears = Ears([9, HANG], first_timeout_s=3)
    talk = await talk_of(harness, ears)
    await talk.says(9)
    await talk.audio(9)
    await talk.says(9)
    await talk.bench.advance(5_000)
    assert [frame.text for frame in finals(talk.bench)] == [numbers(range(180)), numbers(range(360, 540))]


async def test_many_failures_in_a_row_do_not_end_the_conversation(harness: Harness):
    ears = Ears(*[[ServiceDownError("Gone.")]] * 30, attempts=1)
    talk = await talk_of(harness, ears)
    for _ in range(30):
        await talk.says(1)
        assert talk.bench.errors.pop().message == "Gone."
    await talk.says(1)
    assert len(finals(talk.bench)) == 31


async def test_at_the_end_of_the_run_it_is_closed(harness: Harness):
    ears = Ears([2, HANG])
    talk = await talk_of(harness, ears)
    await talk.starts()
    await talk.audio(3)
    await talk.bench.close()
    assert ears.closed == 1


# --- whatever happens -------------------------------------------------------------------------------------------------

ERRORS = [ServiceDownError("Gone."), BadAnswerError("What?"), OSError()]
STEPS = st.one_of(
    st.integers(0, 4),
    st.sampled_from([FINAL, INTERIM, HANG, 0.03, 0.5]),
    st.integers(0, 50).map(lambda ms: ("", ms)),
    st.sampled_from(ERRORS),
)
FRAMES = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 60), st.integers(0, 12)), min_size=1, max_size=4
)  # audio before, onset, audio


@settings(max_examples=examples(150))
@given(script=st.lists(st.lists(STEPS, max_size=5), max_size=6), talks=FRAMES, preroll_ms=st.sampled_from([0, 20, 100]))
def test_not_one_sample_is_lost_or_doubled_whatever_fails(
    script: list[list[Step]], talks: list[tuple[int, int, int]], preroll_ms: float
):
    """The texts of an utterance are its samples, each once and in order; one frame ends it."""

    async def run() -> None:
        ears = Ears(*script, attempts=50, preroll_ms=preroll_ms, first_timeout_s=1, between_timeout_s=1)
        bench = Bench(ears)
        await bench.start()
        talk = Talk(bench)
        wanted: list[list[int]] = []
        try:
            for before, onset_ms, frames in talks:
                await talk.audio(before)
                back = -(-(onset_ms + preroll_ms) // 20) * 20
                begin = max(0, talk.ms - round(back))
                await talk.starts(onset_ms)
                await talk.audio(frames)
                await talk.stops()
                wanted.append([*range(begin, talk.ms)])
                # So that the next one is not older than the 10 s that wait.
                await bench.advance(60_000)
            assert list(bench.errors) == []
            told = finals(bench)
        finally:
            failures = await bench.stop()
        assert failures == []
        got: list[list[int]] = [[]]
        for frame in told:
            assert not frame.failed
            got[-1] += [int(number) for number in frame.text.split()]
            if not frame.more:
                got.append([])
        assert got == [*wanted, []]
        assert sum(frame.audio_ms for frame in told) <= sum(map(len, wanted))

    asyncio.run(run())


async def test_the_shortest_replay_there_can_be(harness: Harness):
    bench = await harness(ScriptedSTT(["hello"], replay_s=1e-6))
    chunk = InputAudioFrame(np.ones(320, np.int16), 16_000)
    await bench.send(UserStartedSpeakingFrame(0), chunk, chunk, UserStoppedSpeakingFrame())
    assert [frame.text for frame in bench.down if isinstance(frame, TranscriptionFrame)] == ["hello"]
