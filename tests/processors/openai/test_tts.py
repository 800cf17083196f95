"""Voice over real HTTP: streamed PCM, and answers that are not PCM."""

from contextlib import aclosing
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxline.pipeline import OutputAudioFrame, ResponseEndFrame, TextFrame
from voxline.pipeline.errors import BadAnswerError, RateLimitError, ServiceDownError, ServiceError
from voxline.pipeline.testing import Bench, Harness
from voxline.pipeline.testing.material import join
from voxline.processors.openai import OpenAITTS
from voxline.processors.openai.errors import RequestInfo
from voxline.processors.openai.tts import _PCM
from voxline.processors.tts.word_timing import SpeechChunk
from voxline.tests.processors.openai.live import IMPATIENT, Live
from voxline.tests.processors.openai.server import MODELS, SPEECH, FakeOpenAI, Reply, cut_into, speech

HELLO = "Hello there, rover."
PCM = speech(HELLO).tobytes()


def voice(server: FakeOpenAI, **options: Any) -> OpenAITTS:
    tts = OpenAITTS("tts", base_url=server.url, **options)
    # What the server gives is no speech in which words could be found.
    tts.align_words = False
    return tts


async def bench_of(harness: Harness, tts: OpenAITTS) -> Bench:
    return await harness(tts, patience_s=60)


async def spoken(server: FakeOpenAI, harness: Harness, **options: Any) -> list[SpeechChunk]:
    tts = voice(server, **options)
    await bench_of(harness, tts)
    async with aclosing(tts.speak(HELLO)) as chunks:
        return [chunk async for chunk in chunks]


async def failure_of(server: FakeOpenAI, harness: Harness) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await spoken(server, harness)
    return caught.value


def audio(bench: Bench) -> list[OutputAudioFrame]:
    return [frame for frame in bench.down if isinstance(frame, OutputAudioFrame)]


async def test_a_text_is_spoken(server: FakeOpenAI, harness: Harness):
    bench = await bench_of(harness, voice(server))
    await bench.send(TextFrame(HELLO), ResponseEndFrame(), response=1)
    frames = audio(bench)
    assert np.array_equal(join(frames), speech(HELLO))
    assert all(frame.sample_rate == 24_000 and frame.duration_ms <= 100 for frame in frames)
    assert " ".join(word.text for frame in frames for word in frame.words) == HELLO
    assert bench.down[-1] == ResponseEndFrame()
    assert server.asked(SPEECH)[0].body == {
        "model": "tts", "voice": "alloy", "input": HELLO, "response_format": "pcm",
    }  # fmt: skip


async def test_what_is_set_is_sent(server: FakeOpenAI, harness: Harness):
    await spoken(server, harness, voice="onyx", speed=1.5, instructions="Whisper.", extra_body={"seed": 1})
    body = server.asked(SPEECH)[0].body
    assert (body["voice"], body["speed"], body["instructions"], body["seed"]) == ("onyx", 1.5, "Whisper.", 1)


async def test_a_server_may_have_another_rate(server: FakeOpenAI, harness: Harness):
    chunks = await spoken(server, harness, sample_rate=22_050)
    assert {chunk.sample_rate for chunk in chunks} == {22_050}


@given(st.lists(st.integers(1, 701), max_size=40))
def test_samples_that_are_cut_in_two_are_whole(sizes: list[int]):
    pcm = _PCM(RequestInfo("tts", "host", "m"), 24_000)
    found = [samples for piece in cut_into(PCM[:9_000], sizes) for samples in pcm.add(piece, "")]
    found += pcm.end("")
    assert np.array_equal(np.concatenate(found), speech(HELLO)[:4_500])
    assert all(samples.dtype == np.int16 and 0 < len(samples) <= 2_400 for samples in found)


@pytest.mark.parametrize("count", [1, 2, 3, 15, 17])
def test_a_very_short_answer_is_whole(count: int):
    pcm = _PCM(RequestInfo("tts", "host", "m"), 24_000)
    found = [*pcm.add(PCM[:count], ""), *pcm.end("")]
    assert b"".join(samples.tobytes() for samples in found) == PCM[: count // 2 * 2]


async def test_half_a_sample_at_the_end_is_dropped(server: FakeOpenAI, harness: Harness):
    server.script(SPEECH, Reply((PCM[:4_001],), content_type="audio/pcm"))
    chunks = await spoken(server, harness)
    assert sum(len(chunk.samples) for chunk in chunks) == 2_000


async def test_audio_comes_as_it_is_made(server: FakeOpenAI, harness: Harness):
    server.script(SPEECH, Reply((PCM[:4_800], PCM[4_800:]), content_type="audio/pcm", hang_after=1))
    tts = voice(server)
    await bench_of(harness, tts)
    async with aclosing(tts.speak(HELLO)) as chunks:
        assert len((await anext(chunks)).samples) == 2_400
    await server.idle()
    assert server.closed_early == 1


ERROR = {"error": {"message": HELLO, "type": "server_error", "code": None}}


@pytest.mark.parametrize(
    "reply",
    [
        Reply.json(ERROR),
        Reply.json({"detail": HELLO}),
        Reply(Reply.json(ERROR).pieces, content_type="audio/pcm"),
        Reply((b"<!DOCTYPE html><title>Hi</title>",), content_type="text/html"),
        Reply((b"\n<html>Hi, this is a page</html>",), content_type="application/octet-stream"),
        Reply((b"RIFF\x24\x00\x00\x00WAVEfmt " + PCM,), content_type="audio/wav"),
        Reply((b"ID3\x04" + PCM,), content_type="audio/pcm"),
        Reply((b"\xff\xf3\x44\xc4" + PCM,), content_type="audio/mpeg"),
        Reply((b"OggS" + PCM,), content_type="audio/ogg"),
        Reply((b"ID3",), content_type=None),
    ],
)
async def test_an_answer_that_is_not_audio_is_a_bad_answer(server: FakeOpenAI, harness: Harness, reply: Reply):
    server.script(SPEECH, reply)
    error = await failure_of(server, harness)
    assert type(error) is BadAnswerError
    assert "rover" not in str(error)


async def test_an_error_with_a_known_code_becomes_a_typed_error(server: FakeOpenAI, harness: Harness):
    server.script(SPEECH, Reply.json({"error": {"message": "", "type": "tokens", "code": "rate_limit_exceeded"}}))
    assert type(await failure_of(server, harness)) is RateLimitError


async def test_no_audio_at_all_is_asked_for_again(server: FakeOpenAI, harness: Harness):
    server.script(SPEECH, Reply((), content_type="audio/pcm"))
    bench = await bench_of(harness, voice(server))
    await bench.send(TextFrame(HELLO), response=1)
    await bench.advance(ms=1_000)
    assert np.array_equal(join(audio(bench)), speech(HELLO))


async def test_a_voice_that_breaks_off_goes_on_with_the_rest(server: FakeOpenAI, harness: Harness):
    text = "One two three four five six seven eight nine ten eleven twelve."
    whole = speech(text).tobytes()
    server.script(SPEECH, Reply(cut_into(whole, [9_600] * 5), content_type="audio/pcm", cut_after=48_001))
    bench = await bench_of(harness, voice(server))
    await bench.send(TextFrame(text), response=1)
    await bench.advance(ms=1_000)
    first, second = (request.body["input"] for request in server.asked(SPEECH))
    assert first == text
    assert text.endswith(second)
    assert 0 < len(second) < len(text)
    assert " ".join(word.text for frame in audio(bench) for word in frame.words) == text


async def test_a_connection_that_is_gone_is_a_voice_that_is_down(server: FakeOpenAI, harness: Harness):
    server.script(SPEECH, Reply((PCM,), content_type="audio/pcm", cut_after=101))
    assert type(await failure_of(server, harness)) is ServiceDownError


async def test_an_interruption_stops_the_voice(server: FakeOpenAI):
    server.script(SPEECH, Reply((PCM[:4_800], PCM[4_800:]), content_type="audio/pcm", hang_after=1))
    async with Live(voice(server)) as live:
        live.send(TextFrame(HELLO), response=1)
        await live.out(OutputAudioFrame)
        await live.interrupt()
        await server.until(lambda: server.closed_early == 1)
        live.send(TextFrame("Yes."), ResponseEndFrame(), response=2)
        await live.out(ResponseEndFrame)
        assert live.errors == []
    assert len(server.asked(SPEECH)) == 2


async def test_a_voice_that_hangs_is_given_up(server: FakeOpenAI):
    server.script(SPEECH, Reply(hang_after=-1), Reply((PCM[:2_400],), content_type="audio/pcm", hang_after=1))
    async with Live(voice(server, **IMPATIENT)) as live:
        live.send(TextFrame(HELLO), ResponseEndFrame(), response=1)
        await live.out(ResponseEndFrame)
        assert live.errors == []
    assert len(server.asked(SPEECH)) >= 3


async def test_sentences_share_one_connection(server: FakeOpenAI, harness: Harness):
    bench = await bench_of(harness, voice(server))
    for text in ("One.", "Two.", "Three."):
        await bench.send(TextFrame(text), response=1)
    assert all(one.peer == other.peer for one, other in pairwise(server.requests))
    assert [request.path for request in server.requests] == [MODELS, SPEECH, SPEECH, SPEECH]
