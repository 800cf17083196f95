"""PocketSphinx as a processor, on the caller of examples/audio: a real process, virtual time."""

import json
import os
import signal
import wave
from pathlib import Path

import numpy as np
import pytest
from voxline.pipeline import (
    FormatError,
    Frame,
    InputAudioFrame,
    InputEndedFrame,
    MissingExtraError,
    Pipeline,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from voxline.pipeline.testing import Bench, Harness
from voxline.processors import PocketSphinxSTT
from voxline.processors.stt.jsgf import GrammarError
from voxline.transports.memory import MemoryTransport

pytest.importorskip("pocketsphinx")

AUDIO = Path(__file__).parents[2] / "examples" / "audio"
TURNS = {turn["text"]: turn for turn in json.loads((AUDIO / "caller.json").read_text())["turns"]}
GRAMMAR = "#JSGF V1.0;\ngrammar g;\npublic <c> = turn left | turn right | stop | go forward ten meters;\n"
ONSET_MS, SILENCE_MS = 200, 500


async def bench_of(harness: Harness, stt: PocketSphinxSTT) -> Bench:
    # Real work is being done while virtual time stands still: a loaded machine may take its time.
    return await harness(stt, patience_s=60)


def audio(start_ms: int, end_ms: int) -> list[InputAudioFrame]:
    with wave.open(str(AUDIO / "caller.wav")) as recording:
        samples = np.frombuffer(recording.readframes(recording.getnframes()), np.int16)
    return [InputAudioFrame(samples[at * 16 : at * 16 + 320], 16_000) for at in range(start_ms, end_ms, 20)]


async def say(bench: Bench, text: str, *, stop: Frame | None = None) -> None:
    """Send what a voice detector would: audio from 700 ms before, and its two events."""
    turn = TURNS[text]
    start, end = turn["start_ms"] // 20 * 20, turn["end_ms"] // 20 * 20
    await listen(bench, start - 700, start + ONSET_MS)
    await bench.send(UserStartedSpeakingFrame(ONSET_MS))
    await listen(bench, start + ONSET_MS, end + SILENCE_MS)
    await bench.send(stop or UserStoppedSpeakingFrame(SILENCE_MS))


async def listen(bench: Bench, start_ms: int, end_ms: int) -> None:
    for frame in audio(start_ms, end_ms):
        await bench.send(frame)


def transcripts(bench: Bench) -> list[TranscriptionFrame]:
    return [frame for frame in bench.down if isinstance(frame, TranscriptionFrame)]


def pid(bench: Bench) -> int:
    stt = bench.processor
    assert isinstance(stt, PocketSphinxSTT)
    assert stt._sphinx.pid is not None
    return stt._sphinx.pid


async def test_an_utterance_is_one_transcript_and_takes_no_virtual_time(harness: Harness):
    bench = await bench_of(harness, PocketSphinxSTT(GRAMMAR))
    await say(bench, "turn left")
    length = TURNS["turn left"]["end_ms"] // 20 * 20 - TURNS["turn left"]["start_ms"] // 20 * 20
    assert transcripts(bench) == [TranscriptionFrame("turn left", length + 300 + SILENCE_MS, 0.0)]
    assert bench.now_ms == 0


async def test_frames_pass_as_they_are_and_the_words_come_behind_the_silence(harness: Harness):
    bench = await bench_of(harness, PocketSphinxSTT(GRAMMAR))
    await say(bench, "stop")
    assert isinstance(bench.down[-1], TranscriptionFrame)
    assert isinstance(bench.down[-2], UserStoppedSpeakingFrame)
    kinds = [type(frame) for frame in bench.down[:-2]]
    assert kinds.count(UserStartedSpeakingFrame) == 1
    assert kinds.count(InputAudioFrame) == len(kinds) - 1


async def test_one_utterance_after_the_other(harness: Harness):
    bench = await bench_of(harness, PocketSphinxSTT(GRAMMAR))
    for text in ("go forward ten meters", "turn left", "what a lovely day it is today", "stop"):
        await say(bench, text)
    texts = [frame.text for frame in transcripts(bench)]
    assert texts[:2] + texts[3:] == ["go forward ten meters", "turn left", "stop"]
    # No sentence of the grammar: what the language model heard.
    assert "lovely day" in texts[2]


async def test_without_a_grammar_it_is_the_language_model_s_words(harness: Harness):
    bench = await bench_of(harness, PocketSphinxSTT())
    await say(bench, "go back three meters")
    assert [frame.text for frame in transcripts(bench)] == ["go back three meters"]


async def test_speech_without_a_word_is_an_empty_transcript(harness: Harness):
    bench = await bench_of(harness, PocketSphinxSTT())
    await bench.send(UserStartedSpeakingFrame(200), InputAudioFrame(np.zeros(3_200, np.int16), 16_000))
    await bench.send(UserStoppedSpeakingFrame(500))
    assert transcripts(bench) == [TranscriptionFrame("", 200.0, 0.0)]


async def test_silence_is_not_listened_to(harness: Harness):
    bench = await bench_of(harness, PocketSphinxSTT())
    await listen(bench, 0, 900)
    await bench.send(UserStoppedSpeakingFrame(500), InputEndedFrame())
    assert transcripts(bench) == []


async def test_a_caller_who_hangs_up_in_mid_speech_is_understood(harness: Harness):
    bench = await bench_of(harness, PocketSphinxSTT(GRAMMAR))
    await say(bench, "turn left", stop=InputEndedFrame())
    assert [frame.text for frame in transcripts(bench)] == ["turn left"]


async def test_a_recogniser_that_dies_in_mid_speech_is_told_once_and_the_next_utterance_is_heard(
    harness: Harness,
):
    bench = await bench_of(harness, PocketSphinxSTT(GRAMMAR))
    start = TURNS["turn left"]["start_ms"] // 20 * 20
    await bench.send(UserStartedSpeakingFrame(200))
    await listen(bench, start, start + 400)
    os.kill(pid(bench), signal.SIGKILL)
    await listen(bench, start + 400, start + 800)
    await bench.send(UserStoppedSpeakingFrame(500))
    bench.expect_error("PocketSphinx ended unexpectedly", error="ServiceCrashed", processor="PocketSphinxSTT")
    assert [frame.text for frame in transcripts(bench)] == [""]
    await say(bench, "stop")
    assert [frame.text for frame in transcripts(bench)] == ["", "stop"]


async def test_a_recogniser_that_dies_in_the_silence_is_started_again_for_the_next_utterance(harness: Harness):
    bench = await bench_of(harness, PocketSphinxSTT(GRAMMAR))
    await say(bench, "stop")
    stt = bench.processor
    assert isinstance(stt, PocketSphinxSTT)
    os.kill(pid(bench), signal.SIGKILL)
    while stt._sphinx.pid is not None:
        await bench.settle()
    await bench.send(UserStartedSpeakingFrame(200))
    bench.expect_error("had ended, and was started again", processor="PocketSphinxSTT")
    await bench.send(UserStoppedSpeakingFrame(500))
    await say(bench, "turn left")
    assert [frame.text for frame in transcripts(bench)] == ["stop", "", "turn left"]


def test_a_grammar_that_is_none_is_told_at_once():
    with pytest.raises(GrammarError):
        PocketSphinxSTT("public <c> = stop")


def test_audio_at_another_rate_is_found_when_the_pipeline_is_built():
    with pytest.raises(FormatError, match=r"PocketSphinxSTT takes 16000 Hz, mono"):
        Pipeline([MemoryTransport(sample_rate=8_000).input(), PocketSphinxSTT()])


def nothing_is_installed(name: str) -> None:
    """In the place of `importlib.util.find_spec`."""


def test_without_the_package_the_error_has_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", nothing_is_installed)
    with pytest.raises(MissingExtraError, match=r"pocketsphinx.*pip install 'voxline\[speech\]'"):
        PocketSphinxSTT()
