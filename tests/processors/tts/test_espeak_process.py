"""eSpeak NG in its process."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable

import numpy as np
import numpy.typing as npt
import psutil
import pytest
from voxline.pipeline.clock import SystemClock
from voxline.pipeline.errors import MissingExtraError, ServiceError
from voxline.processors.subprocess.parent import ServiceCrashed
from voxline.processors.tts.espeak_process import SAMPLE_RATE, EspeakChunk, EspeakProcess, EspeakWord

pytest.importorskip("espeakng_loader")

MakeVoice = Callable[..., EspeakProcess]
LONG = "This is a very long story about a rover that went to the moon. " * 300


@pytest.fixture
async def make_voice() -> AsyncIterator[MakeVoice]:
    """Makes voices, not started, and closes them after the test."""
    voices: list[EspeakProcess] = []

    def make(**settings: object) -> EspeakProcess:
        voices.append(EspeakProcess(sleep=SystemClock().sleep, **settings))  # pyright: ignore[reportArgumentType]
        return voices[-1]

    yield make
    for voice in voices:
        await voice.close()


@pytest.fixture
async def voice(make_voice: MakeVoice) -> EspeakProcess:
    started = make_voice()
    await started.start()
    return started


async def say(voice: EspeakProcess, text: str) -> tuple[npt.NDArray[np.int16], list[EspeakWord]]:
    """All samples and words of a text."""
    with voice.speak(text) as speech:
        chunks = [chunk async for chunk in speech]
    samples = [chunk.samples for chunk in chunks]
    return np.concatenate([np.zeros(0, np.int16), *samples]), [word for chunk in chunks for word in chunk.words]


async def test_speech_comes_in_chunks_in_time_with_its_words(voice: EspeakProcess):
    text = "Hello, the rover is at café 42 😀 now. Où est-il?"
    with voice.speak(text) as speech:
        chunks = [chunk async for chunk in speech]
    assert len(chunks) > 20
    at = 0
    for chunk in chunks:
        assert chunk.samples.dtype == np.int16
        assert len(chunk.samples) <= SAMPLE_RATE // 10
        assert chunk.start_ms == at * 1000 // SAMPLE_RATE
        at += len(chunk.samples)
    assert 2 * SAMPLE_RATE < at < 8 * SAMPLE_RATE
    assert max(int(np.abs(chunk.samples.astype(np.int32)).max()) for chunk in chunks if len(chunk.samples)) > 3000
    words = [word for chunk in chunks for word in chunk.words]
    assert [word.text for word in words][:4] == ["Hello", "the", "rover", "is"]
    assert "42" in [word.text for word in words]
    assert all(text.startswith(word.text, word.char_offset) for word in words)
    assert [word.start_ms for word in words] == sorted(word.start_ms for word in words)
    assert words[-1].char_offset >= text.index("est")
    assert words[-1].start_ms < at * 1000 // SAMPLE_RATE


async def test_a_word_is_reported_in_or_before_the_chunk_in_which_it_begins(voice: EspeakProcess):
    with voice.speak("One two three four. Five six, seven!") as speech:
        async for chunk in speech:
            for word in chunk.words:
                assert word.start_ms >= chunk.start_ms


def about(length: int) -> object:
    """eSpeak never speaks a text twice alike: a vowel's phase is carried over, and a pause with it."""
    return pytest.approx(length, rel=0.03)


async def test_cancelled_in_mid_speech_the_next_text_is_heard_alone(voice: EspeakProcess):
    wanted, _ = await say(voice, "Stop now.")
    for chunks_heard in (0, 1, 5, 50):
        with voice.speak(LONG) as speech:
            for _ in range(chunks_heard):
                await anext(speech)
        samples, words = await say(voice, "Stop now.")
        assert [word.text for word in words] == ["Stop", "now"]
        assert len(samples) == about(len(wanted))


async def test_a_task_cancelled_while_it_waits_for_a_chunk_stops_the_speech(voice: EspeakProcess):
    heard: list[EspeakChunk] = []

    async def speak() -> None:
        with voice.speak(LONG) as speech:
            async for chunk in speech:
                heard.append(chunk)
                if len(heard) == 3:
                    speaking.cancel()

    speaking = asyncio.create_task(speak())
    with pytest.raises(asyncio.CancelledError):
        await speaking
    # Reading answers that have arrived does not wait, and only a wait can be cancelled.
    count = len(heard)
    assert count < 100
    _, words = await say(voice, "Next one.")
    assert len(heard) == count
    assert [word.text for word in words] == ["Next", "one"]


async def test_a_speech_that_was_left_open_is_ended_by_the_next(voice: EspeakProcess):
    left = voice.speak(LONG)
    await anext(left)
    _, words = await say(voice, "Next one.")
    assert [word.text for word in words] == ["Next", "one"]
    with pytest.raises(ServiceError, match="withdrawn"):
        await anext(left)


@pytest.mark.parametrize(
    "text", ["", " ", "...", "\n\n", "a\x01+50p\x00b", "\ud800 lone", "<b>[[h@]]</b>", "😀" * 50, "x" * 5000]
)
async def test_odd_text_is_spoken_or_silent_but_never_an_error(voice: EspeakProcess, text: str):
    _, words = await say(voice, text)
    assert all(text[word.char_offset :].startswith(word.text) for word in words)
    assert len((await say(voice, "fine"))[0]) > SAMPLE_RATE // 4


async def test_voice_rate_and_pitch_change_the_sound(make_voice: MakeVoice):
    lengths: dict[str, int] = {}
    for name, settings in {
        "plain": {},
        "fast": {"rate_wpm": 350},
        "german": {"voice": "de"},
        "variant": {"voice": "en-us+f3", "pitch": 80},
    }.items():
        voice = make_voice(**settings)
        await voice.start()
        lengths[name] = len((await say(voice, "The quick brown fox jumps over the lazy dog."))[0])
    assert lengths["fast"] < lengths["plain"] * 0.7
    assert lengths["german"] != lengths["plain"]
    assert lengths["variant"] > SAMPLE_RATE


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("en-uss", r"eSpeak NG: there is no voice 'en-uss'. There are \d+, such as: en-us, "),
        ("en-us+nobody", r"no voice 'en-us\+nobody': no variant 'nobody'. There are \d+, such as: "),
        ("", r"there is no voice ''. There are \d+, such as: .*en-us"),
    ],
)
async def test_the_error_for_an_unknown_voice_lists_similar_ones(make_voice: MakeVoice, name: str, error: str):
    voice = make_voice(voice=name)
    with pytest.raises(ServiceError, match=error):
        await voice.start()
    assert voice.pid is None


@pytest.mark.parametrize("settings", [{"rate_wpm": 79}, {"rate_wpm": 451}, {"pitch": -1}, {"pitch": 100}])
def test_settings_out_of_range_raise(make_voice: MakeVoice, settings: dict[str, int]):
    with pytest.raises(ValueError, match="eSpeak accepts"):
        make_voice(**settings)


async def test_two_voices_speak_at_once_in_two_processes(make_voice: MakeVoice):
    one, two = make_voice(), make_voice(voice="de")
    await one.start()
    await two.start()
    assert one.pid != two.pid
    alone = [await say(one, "One two three."), await say(two, "Eins zwei drei.")]
    together = await asyncio.gather(say(one, "One two three."), say(two, "Eins zwei drei."))
    for (samples, words), (alone_samples, alone_words) in zip(together, alone, strict=True):
        assert len(samples) == about(len(alone_samples))
        assert [word.text for word in words] == [word.text for word in alone_words]


async def test_a_voice_killed_in_mid_speech_raises_and_starts_again(voice: EspeakProcess):
    assert voice.pid is not None
    with voice.speak(LONG) as speech:
        await anext(speech)
        os.kill(voice.pid, signal.SIGKILL)
        with pytest.raises(ServiceCrashed, match=r"^eSpeak NG ended unexpectedly \(exit code -9, SIGKILL\)"):
            async for _ in speech:
                pass
    await voice.start()
    assert len((await say(voice, "back again"))[0]) > SAMPLE_RATE // 4


async def test_twenty_starts_and_closes_in_mid_speech_leave_nothing(make_voice: MakeVoice):
    voice = make_voice()
    await voice.start()
    await voice.close()
    process = psutil.Process()
    descriptors, children = process.num_fds(), len(process.children())
    for _ in range(20):
        await voice.start()
        await anext(voice.speak(LONG))
        await voice.close()
    assert process.num_fds() == descriptors
    assert len(process.children()) == children


def not_found(name: str) -> None:
    """Replacement of `find_spec`: no package is installed."""


async def test_a_missing_package_raises_before_the_start(make_voice: MakeVoice, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", not_found)
    voice = make_voice()
    with pytest.raises(MissingExtraError, match=r"eSpeak NG needs the package espeakng-loader.*\[speech\]'?$"):
        await voice.start()
    assert voice.pid is None
