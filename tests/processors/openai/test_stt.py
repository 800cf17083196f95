"""Recogniser over real HTTP: uploads of utterances, and their transcripts."""

import io
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest
import soundfile
from voxline.pipeline import (
    Frame,
    InterimTranscriptionFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from voxline.pipeline.errors import BadAnswerError, BadRequestError, ServiceDownError, ServiceError
from voxline.pipeline.frames import HeardWord, Samples
from voxline.pipeline.testing import Bench, Harness
from voxline.pipeline.testing.material import chunks, noise, tone
from voxline.processors.openai import OpenAISTT
from voxline.processors.stt.utterance import Transcript
from voxline.tests.processors.openai.live import IMPATIENT, Live
from voxline.tests.processors.openai.server import TRANSCRIPTIONS, FakeOpenAI, Reply

GPT = "gpt-4o-mini-transcribe"
SPEECH = tone(300, ms=1_000)


def ears(server: FakeOpenAI, model: str = "whisper-1", language: str | None = None, **options: Any) -> OpenAISTT:
    return OpenAISTT(model, language, base_url=server.url, **options)


async def bench_of(harness: Harness, stt: OpenAISTT) -> Bench:
    return await harness(stt, patience_s=60)


async def pieces_of(samples: Samples) -> AsyncIterator[Samples]:
    for at in range(0, len(samples), 320):
        yield samples[at : at + 320]


async def heard(
    server: FakeOpenAI, harness: Harness, samples: Samples = SPEECH, model: str = "whisper-1", **options: Any
) -> list[Transcript]:
    stt = ears(server, model, **options)
    await bench_of(harness, stt)
    async with aclosing(stt.transcribe(pieces_of(samples))) as transcripts:
        return [transcript async for transcript in transcripts]


async def failure_of(server: FakeOpenAI, harness: Harness, model: str = "whisper-1") -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await heard(server, harness, model=model)
    return caught.value


def turn(samples: Samples = SPEECH) -> list[Frame]:
    return [UserStartedSpeakingFrame(), *chunks(samples), UserStoppedSpeakingFrame()]


def transcripts(frames: list[Frame]) -> list[TranscriptionFrame]:
    return [frame for frame in frames if isinstance(frame, TranscriptionFrame)]


async def test_an_utterance_is_told_with_its_words(server: FakeOpenAI, harness: Harness):
    bench = await bench_of(harness, ears(server))
    await bench.send(*turn())
    [told] = transcripts(bench.down)
    assert (told.text, told.audio_ms, told.failed, told.more) == ("1000 ms", 1_000, False, False)
    assert told.words == (HeardWord("1000", 0, 500), HeardWord("ms", 500, 1_000))
    [request] = server.asked(TRANSCRIPTIONS)
    assert request.body == {
        "model": "whisper-1", "response_format": "verbose_json", "timestamp_granularities": "word",
    }  # fmt: skip


@pytest.mark.parametrize("upload", ["wav", "flac"])
async def test_the_audio_arrives_as_it_was(server: FakeOpenAI, harness: Harness, upload: Any):
    samples = noise(1_330, seed=3)
    assert (await heard(server, harness, samples, upload=upload))[0].text == "1330 ms"
    found, rate = soundfile.read(io.BytesIO(server.asked(TRANSCRIPTIONS)[0].file), dtype="int16")
    assert rate == 16_000
    assert np.array_equal(found, samples)


async def test_a_local_server_gets_wav(server: FakeOpenAI, harness: Harness):
    await heard(server, harness)
    assert server.asked(TRANSCRIPTIONS)[0].file.startswith(b"RIFF")


async def test_what_is_set_is_sent(server: FakeOpenAI, harness: Harness):
    await heard(server, harness, language="de", prompt="Rover", temperature=0.5, words=False, extra_body={"vad": "on"})
    assert server.asked(TRANSCRIPTIONS)[0].body == {
        "model": "whisper-1", "response_format": "json", "language": "de", "prompt": "Rover", "temperature": "0.5",
        "vad": "on",
    }  # fmt: skip


async def test_a_model_that_knows_no_words_is_asked_without(server: FakeOpenAI, harness: Harness):
    server.refuses = {"verbose_json"}
    bench = await bench_of(harness, ears(server))
    await bench.send(*turn())
    await bench.send(*turn())
    # The second one is heard with 300 ms from before its start.
    assert [(told.text, told.words) for told in transcripts(bench.down)] == [("1000 ms", ()), ("1300 ms", ())]
    formats = [request.body["response_format"] for request in server.asked(TRANSCRIPTIONS)]
    assert formats == ["verbose_json", "json", "json"]


async def test_a_newer_model_streams(server: FakeOpenAI, harness: Harness):
    bench = await bench_of(harness, ears(server, GPT))
    await bench.send(*turn())
    told = [frame for frame in bench.down if isinstance(frame, TranscriptionFrame | InterimTranscriptionFrame)]
    assert [(type(frame).__name__, frame.text) for frame in told] == [
        ("InterimTranscriptionFrame", "1000"),
        ("InterimTranscriptionFrame", "1000 ms"),
        ("TranscriptionFrame", "1000 ms"),
    ]


async def test_a_model_that_cannot_stream_is_asked_without(server: FakeOpenAI, harness: Harness):
    server.refuses = {"stream"}
    assert [told.text for told in await heard(server, harness, model=GPT)] == ["1000 ms"]
    assert [request.body.get("stream") for request in server.asked(TRANSCRIPTIONS)] == ["true", None]


async def test_a_model_that_does_not_stream_though_asked_is_understood(server: FakeOpenAI, harness: Harness):
    server.script(TRANSCRIPTIONS, Reply.json({"text": " hello \n"}))
    assert [told.text for told in await heard(server, harness, model=GPT)] == ["hello"]


async def test_the_streams_of_other_servers_are_understood(server: FakeOpenAI, harness: Harness):
    def chunk(content: str, finish: str | None = None) -> dict[str, object]:
        return {"object": "transcription.chunk", "choices": [{"delta": {"content": content}, "finish_reason": finish}]}

    server.script(TRANSCRIPTIONS, Reply.events(chunk(" go"), chunk(" left"), chunk("", "stop")))
    told = await heard(server, harness, streaming=True)
    assert [(one.text, one.final) for one in told] == [("go", False), ("go left", False), ("go left", True)]


async def test_a_long_utterance_is_sent_in_pieces(server: FakeOpenAI, harness: Harness):
    bench = await bench_of(harness, ears(server, piece_ms=2_000))
    for frame in turn(noise(5_000)):
        await bench.send(frame)
    told = transcripts(bench.down)
    assert [one.more for one in told] == [True] * (len(told) - 1) + [False]
    lengths = [int(one.text.split()[0]) for one in told]
    assert sum(lengths) == 5_000
    assert all(length <= 2_000 for length in lengths)
    assert [one.audio_ms for one in told] == lengths
    assert len(told) >= 3
    assert [one.words[0].start_ms for one in told] == [sum(lengths[:number]) for number in range(len(told))]


async def test_a_click_is_not_sent(server: FakeOpenAI, harness: Harness):
    assert [told.text for told in await heard(server, harness, SPEECH[:1_000])] == [""]
    assert server.asked(TRANSCRIPTIONS) == []


async def test_malformed_word_times_do_not_lose_the_text(server: FakeOpenAI, harness: Harness):
    words = [{"word": "go", "start": 0.1, "end": 90}, {"word": " ", "start": 0, "end": 0}]
    server.script(TRANSCRIPTIONS, Reply.json({"text": "go", "words": words}))
    for odd in (7, [1]):
        server.script(TRANSCRIPTIONS, Reply.json({"text": "go", "words": odd}))
    assert (await heard(server, harness))[0].words == (HeardWord("go", 100, 1_000),)
    assert (await heard(server, harness))[0] == Transcript("go", end_ms=1_000)
    assert (await heard(server, harness))[0] == Transcript("go", end_ms=1_000)


DELTA = {"type": "transcript.text.delta", "delta": "go"}


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply.json({"txt": "go"}), BadAnswerError),
        (Reply((b"<html>go</html>",), content_type="text/html"), BadAnswerError),
        (Reply.json({"error": {"message": "go", "type": "server_error"}}), ServiceDownError),
        (Reply.json({"error": {"message": "go", "code": "audio_too_short"}}, 400), BadRequestError),
        (Reply.events(DELTA, done=False), ServiceDownError),
        (Reply.events(DELTA, "{{{"), BadAnswerError),
        (Reply.events(DELTA, {"error": {"message": "go", "code": "server_error"}}), ServiceDownError),
        (Reply(Reply.events(DELTA).pieces, content_type="text/event-stream", cut_after=70), ServiceDownError),
        (Reply((b'{"text": "go"}',), cut_after=5), ServiceDownError),
    ],
)
async def test_an_answer_that_is_not_a_transcript(
    server: FakeOpenAI, harness: Harness, reply: Reply, kind: type[ServiceError]
):
    server.script(TRANSCRIPTIONS, reply)
    assert type(await failure_of(server, harness)) is kind


async def test_after_a_failure_all_of_it_is_heard_again(server: FakeOpenAI, harness: Harness):
    server.script(TRANSCRIPTIONS, Reply.error(500), Reply((b'{"text": "go"}',), cut_after=5))
    bench = await bench_of(harness, ears(server))
    await bench.send(*turn())
    await bench.advance(ms=2_000)
    assert [(told.text, told.failed) for told in transcripts(bench.down)] == [("1000 ms", False)]
    assert len({request.file for request in server.asked(TRANSCRIPTIONS)}) == 1


async def test_a_server_that_hangs_is_given_up(server: FakeOpenAI):
    server.script(TRANSCRIPTIONS, Reply(hang_after=-1), Reply((b'{"text": "go"}',), hang_after=1))
    async with Live(ears(server, **IMPATIENT)) as live:
        live.send(*turn())
        await live.out(TranscriptionFrame)
        assert [told.text for told in transcripts(live.down)] == ["1000 ms"]
    await server.idle()
    assert server.closed_early >= 2
