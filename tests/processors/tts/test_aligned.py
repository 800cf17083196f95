"""Voices that tell no word times, and get them by comparison."""

import asyncio
import gc
import os
import signal
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any, ClassVar

import numpy as np
import pytest
from voxline.pipeline import OutputAudioFrame, ResponseEndFrame, TextFrame
from voxline.pipeline.clock import SystemClock
from voxline.pipeline.errors import ServiceDownError, ServiceError
from voxline.pipeline.testing import Bench, Harness
from voxline.processors import EspeakTTS, Fallback, PiperTTS, ScriptedTTS
from voxline.processors.service.base import ServiceSettings
from voxline.processors.tts import aligned, base
from voxline.processors.tts.align import Features, Reference
from voxline.processors.tts.aligned import PIECE_MS, REFERENCE_TIMEOUT_MS, ReferenceVoice
from voxline.processors.tts.base import TTS
from voxline.processors.tts.word_timing import SpeechChunk, WordStart

from .sounds import RATE, say

TEXT = "the old ferry left its berth before anyone could count how many people were still missing"
CHUNK = RATE // 50


class Voice(TTS):
    """Says words as sounds, slower than the reference. ``faults``: an attempt ends with this after so many ms."""

    align_words = True

    def __init__(self, *faults: tuple[float, Exception], realtime: bool = False, chunk: int = CHUNK) -> None:
        self.settings = ServiceSettings(backoff_s=0)
        self.faults = [*faults]
        self.asked: list[str] = []
        self._realtime = realtime
        self._chunk = chunk

    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        self.asked.append(text)
        sound, _ = said(text)
        until_ms, fault = self.faults.pop(0) if self.faults else (1e9, None)
        for at in range(0, len(sound), self._chunk):
            if at * 1000 / RATE >= until_ms and fault is not None:
                raise fault
            yield SpeechChunk(sound[at : at + self._chunk], RATE)
            if self._realtime:
                await self.clock.sleep(self._chunk / RATE)


def said(text: str) -> tuple[Any, list[tuple[int, float]]]:
    return say(text.strip(), pace=1.25, seed=7)


class Book:
    """Texts for the reference, and the time of its answers."""

    def __init__(self) -> None:
        self.there = True
        self.open = asyncio.Event()
        self.open.set()
        self.turns = 0
        """Time of the event loop that it uses."""
        self.fault: Exception | None = None
        self.asked: list[str] = []
        self.under_way = self.closed = 0
        self.languages: list[str] = []


@pytest.fixture
def book(monkeypatch: pytest.MonkeyPatch) -> Book:
    book = Book()

    class Scripted:
        def __init__(self, clock: object, language: str) -> None:
            book.languages.append(language)

        async def start(self) -> bool:
            return book.there

        async def close(self) -> None:
            book.closed += 1

        async def say(self, text: str) -> Reference:
            book.asked.append(text)
            book.under_way += 1
            try:
                await book.open.wait()
                for _ in range(book.turns):
                    turn = asyncio.get_running_loop().create_future()
                    asyncio.get_running_loop().call_soon(turn.set_result, None)
                    await turn
            finally:
                book.under_way -= 1
            if book.fault is not None:
                raise book.fault
            sound, words = say(text.strip())
            return Reference(*Features(RATE).push(sound), [start_ms for _, start_ms in words])

    monkeypatch.setattr(base, "ReferenceVoice", Scripted)
    return book


def told(bench: Bench) -> list[tuple[str, float, float]]:
    """Each word: when it begins, and how much sound there was with it, in ms."""
    found, at_ms = list[tuple[str, float, float]](), 0.0
    for frame in bench.down:
        if isinstance(frame, OutputAudioFrame):
            found += [(word.text, at_ms + word.start_ms, at_ms + frame.duration_ms) for word in frame.words]
            at_ms += frame.duration_ms
    return found


def words_of(bench: Bench) -> str:
    return " ".join(word for word, _, _ in told(bench))


def sound_of(bench: Bench) -> np.ndarray[Any, np.dtype[np.int16]]:
    return np.concatenate([frame.samples for frame in bench.down if isinstance(frame, OutputAudioFrame)])


def exact(bench: Bench, texts: Sequence[str] = (TEXT,)) -> bool:
    """Check that most words have the right start, and none is far off."""
    truth, at_ms = list[float](), 0.0
    for text in texts:
        sound, words = said(text)
        truth += [at_ms + start_ms for _, start_ms in words]
        at_ms += len(sound) * 1000 / RATE + 1
    off = [abs(start_ms - right) for (_, start_ms, _), right in zip(told(bench), truth, strict=True)]
    return sorted(off)[len(off) // 2] <= 25 and sorted(off)[-2] <= 100


@pytest.mark.parametrize("realtime", [True, False])
@pytest.mark.parametrize("chunk", [77, CHUNK, 4 * RATE])
async def test_words_are_reported_with_their_times_after_they_have_begun(
    harness: Harness, book: Book, realtime: bool, chunk: int
):
    bench = await harness(Voice(realtime=realtime, chunk=chunk))
    await bench.send(TextFrame(TEXT), ResponseEndFrame())
    await bench.advance(20_000)
    assert words_of(bench) == TEXT
    assert exact(bench)
    # A word that may already be heard is reported early; others wait for more certainty.
    late = sorted(by_ms - start_ms for _, start_ms, by_ms in told(bench))
    assert late[0] > 0
    assert late[len(late) // 2] <= 200 if realtime and chunk < RATE else 300 <= late[len(late) // 2] <= 700
    sound, _ = said(TEXT)
    assert np.array_equal(sound_of(bench)[: len(sound)], sound)
    assert max(frame.duration_ms for frame in bench.down if isinstance(frame, OutputAudioFrame)) <= PIECE_MS
    assert book.under_way == 0


async def test_no_sound_waits_for_the_reference_and_its_words_come_with_the_sound_after_it(
    harness: Harness, book: Book
):
    book.open.clear()
    bench = await harness(Voice(realtime=True))
    await bench.send(TextFrame(TEXT), ResponseEndFrame())
    await bench.advance(REFERENCE_TIMEOUT_MS - 100)
    assert len(sound_of(bench)) * 1000 / RATE >= REFERENCE_TIMEOUT_MS - 100
    assert told(bench) == []
    book.open.set()
    await bench.advance(20_000)
    assert words_of(bench) == TEXT
    assert exact(bench)


async def test_with_a_late_reference_the_text_is_one_word_from_the_beginning(harness: Harness, book: Book):
    book.open.clear()
    bench = await harness(Voice(realtime=True))
    await bench.send(TextFrame(TEXT), ResponseEndFrame())
    await bench.advance(REFERENCE_TIMEOUT_MS + 100)
    assert [(word, start_ms) for word, start_ms, _ in told(bench)] == [(TEXT, 0.0)]
    await bench.advance(20_000)
    assert words_of(bench) == TEXT
    assert bench.down[-1] == ResponseEndFrame()
    assert book.under_way == 0, "it is not made any longer"


@pytest.mark.parametrize("kind", [ServiceError, ServiceDownError, ValueError])
async def test_one_that_fails_costs_the_times_and_nothing_else(harness: Harness, book: Book, kind: type[Exception]):
    book.fault = kind("no")
    bench = await harness(Voice())
    await bench.send(TextFrame(TEXT), ResponseEndFrame())
    assert [(word, start_ms) for word, start_ms, _ in told(bench)] == [(TEXT, 0.0)]
    book.fault = None
    bench.clear()
    await bench.send(TextFrame(TEXT), ResponseEndFrame(), response=2)
    assert exact(bench)


async def test_the_end_of_a_short_text_waits_for_the_reference(harness: Harness, book: Book):
    book.turns = 1_000
    bench = await harness(Voice())
    await bench.send(TextFrame("one two"), TextFrame("three four"))
    assert words_of(bench) == "one two three four"
    assert len({start_ms for _, start_ms, _ in told(bench)}) == 4


@pytest.mark.parametrize("align", [True, False])
async def test_without_the_extra_and_where_it_is_switched_off_it_is_as_ever(harness: Harness, book: Book, align: bool):
    book.there = False
    voice = Voice()
    voice.align_words = align
    bench = await harness(voice)
    await bench.send(TextFrame(TEXT), ResponseEndFrame())
    assert [(word, start_ms) for word, start_ms, _ in told(bench)] == [(TEXT, 0.0)]
    assert book.asked == []
    assert book.languages == (["en"] if align else [])


async def test_each_sentence_has_its_own_reference(harness: Harness, book: Book):
    texts = ("The old ferry left its berth.", "Nobody could count the people.", "They were still missing.")
    bench = await harness(Voice())
    await bench.send(TextFrame(" ".join(texts)), ResponseEndFrame())
    assert words_of(bench) == " ".join(texts)
    assert exact(bench, texts)
    assert [text.strip() for text in book.asked] == [*texts]


async def test_after_a_failure_it_goes_on_with_the_word_that_was_under_way(harness: Harness, book: Book):
    _, words = said(TEXT)
    offset, begin_ms = words[8]
    voice = Voice((begin_ms + 150, ServiceDownError("gone")))
    bench = await harness(voice)
    await bench.send(TextFrame(TEXT), ResponseEndFrame())
    assert words_of(bench) == TEXT
    assert voice.asked[1] == TEXT[offset:]
    assert [text.strip() for text in book.asked] == [TEXT, TEXT[offset:]]


async def test_a_fallback_that_tells_times_goes_on_in_the_middle(harness: Harness, book: Book):
    class Timed(Voice):
        reports_words: ClassVar[bool] = True

        async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
            self.asked.append(text)
            sound, words = said(text)
            yield SpeechChunk(sound, RATE, tuple(WordStart(*word) for word in words))

    _, words = said(TEXT)
    second = Timed()
    bench = await harness(Fallback([Voice((words[5][1] + 150, ServiceDownError("gone"))), second]))
    await bench.send(TextFrame(TEXT), ResponseEndFrame())
    assert words_of(bench) == TEXT
    assert second.asked == [TEXT[words[5][0] :]]
    assert len(book.asked) == 1


@pytest.mark.parametrize("ms", [0, 60, 700, 2_000])
async def test_an_interruption_ends_the_reference_too(harness: Harness, book: Book, ms: float):
    if ms < 100:
        book.open.clear()
    bench = await harness(Voice(realtime=True))
    await bench.send(TextFrame(TEXT), response=1)
    await bench.advance(ms)
    await bench.interrupt()
    assert book.under_way == 0
    book.open.set()
    bench.clear()
    await bench.send(TextFrame("one two three"), ResponseEndFrame(), response=2)
    await bench.advance(10_000)
    assert words_of(bench) == "one two three"
    await bench.close()
    assert book.closed == 1


async def test_a_voice_that_tells_times_needs_none(harness: Harness, book: Book):
    class Timed(Voice):
        reports_words: ClassVar[bool] = True

    await harness(Timed())
    assert book.languages == []


def test_voices_of_people_are_aligned_and_tones_are_not():
    assert PiperTTS.align_words
    assert not ScriptedTTS.align_words


# --- with eSpeak NG itself --------------------------------------------------------------------------------------------


class Secretive(EspeakTTS):
    """Keeps the times of its words to itself; ``words`` has them."""

    reports_words: ClassVar[bool] = False
    align_words = True
    words: list[float]

    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        made_ms = 0.0
        self.words = []
        async for chunk in super().speak(text):
            self.words += [made_ms + word.start_ms for word in chunk.words]
            made_ms += chunk.duration_ms
            yield SpeechChunk(chunk.samples, chunk.sample_rate)


@pytest.mark.parametrize("rate_wpm", [130, 220])
async def test_the_words_of_a_real_voice_are_found(harness: Harness, rate_wpm: int):
    pytest.importorskip("espeakng_loader")
    text = "Nobody remembered who had planted apple trees behind their church, but every autumn people came."
    voice = Secretive("en-us+f3", rate_wpm=rate_wpm, pitch=70)
    bench = await harness(voice, patience_s=60)
    await bench.send(TextFrame(text), ResponseEndFrame())
    assert words_of(bench) == text
    off = sorted(abs(start_ms - right) for (_, start_ms, _), right in zip(told(bench), voice.words, strict=True))
    assert off[len(off) // 2] <= 20
    assert off[-2] <= 80


async def test_a_language_that_it_does_not_speak_is_not_aligned(harness: Harness, caplog: pytest.LogCaptureFixture):
    pytest.importorskip("espeakng_loader")
    voice = Voice()
    voice.language = "xx"
    bench = await harness(voice, patience_s=60)
    await bench.send(TextFrame(TEXT), ResponseEndFrame())
    assert [(word, start_ms) for word, start_ms, _ in told(bench)] == [(TEXT, 0.0)]
    assert "interpolated" in caplog.text


async def test_a_reference_whose_process_has_died_is_made_anew():
    pytest.importorskip("espeakng_loader")
    voice = ReferenceVoice(SystemClock(), "en")
    assert await voice.start()
    pid = voice._espeak.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    with suppress(ServiceError):
        await voice.say("Nobody hears this.")
    assert len((await voice.say("But this.")).words) == 2
    await voice.close()


async def test_a_reference_that_spells_a_text_is_none():
    pytest.importorskip("espeakng_loader")
    voice = ReferenceVoice(SystemClock(), "en")
    assert await voice.start()
    with pytest.raises(ServiceError, match="language"):
        await voice.say("你好，世界。今天天气很好。")
    assert len((await voice.say("The weather is fine.")).words) == 4
    await voice.close()


def test_a_reference_that_is_too_slow_to_start_leaves_nothing(monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("espeakng_loader")
    monkeypatch.setattr(aligned, "START_TIMEOUT_S", 0.02)

    async def start() -> None:
        assert not await ReferenceVoice(SystemClock(), "en").start()

    # A pipe that is still there when the event loop is closed is an error here.
    asyncio.run(start())
    gc.collect()


async def test_an_interruption_while_the_event_loop_has_its_turn_is_no_error():
    loop, errors = asyncio.get_running_loop(), list[dict[str, Any]]()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    waiting = asyncio.ensure_future(aligned._turn())
    # Cancelled in the turn in which it would be woken.
    loop.call_soon(waiting.cancel)
    await asyncio.wait([waiting])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert waiting.cancelled()
    assert errors == []
