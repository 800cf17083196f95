"""PocketSphinx as a processor, on the caller of examples/audio: a real process, virtual time."""

import asyncio
import json
import os
import signal
import wave
from itertools import pairwise

import numpy as np
import pytest
from voxline.pipeline import (
    FormatError,
    Frame,
    InputAudioFrame,
    InputEndedFrame,
    InterimTranscriptionFrame,
    MissingExtraError,
    Pipeline,
    ServiceMetricsFrame,
    SettingsError,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from voxline.pipeline.testing import Bench, Harness
from voxline.pipeline.testing.material import chunks, join
from voxline.processors import PocketSphinxSTT
from voxline.processors.stt.jsgf import GrammarError
from voxline.processors.stt.pocketsphinx_process import PocketSphinxProcess
from voxline.tests.places import AUDIO
from voxline.transports.memory import MemoryTransport

pytest.importorskip("pocketsphinx")

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


def interims(bench: Bench) -> list[str]:
    return [frame.text for frame in bench.down if isinstance(frame, InterimTranscriptionFrame)]


def pid(bench: Bench) -> int:
    stt = bench.processor
    assert isinstance(stt, PocketSphinxSTT)
    assert stt._process is not None
    assert stt._process.pid is not None
    return stt._process.pid


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


async def test_a_recogniser_that_dies_in_mid_speech_hears_it_again_from_its_start(harness: Harness):
    bench = await bench_of(harness, PocketSphinxSTT(GRAMMAR))
    start = TURNS["turn left"]["start_ms"] // 20 * 20
    await bench.send(UserStartedSpeakingFrame(200))
    await listen(bench, start, start + 400)
    os.kill(pid(bench), signal.SIGKILL)
    await listen(bench, start + 400, start + 1_200)
    await bench.send(UserStoppedSpeakingFrame(500))
    await bench.advance(1_000)
    assert [frame.text for frame in transcripts(bench)] == ["turn left"]
    (metrics,) = [frame for frame in bench.up if isinstance(frame, ServiceMetricsFrame)]
    assert metrics.errors == ("ServiceCrashed",)


async def test_a_recogniser_that_dies_in_the_silence_is_started_again_for_the_next_utterance(harness: Harness):
    bench = await bench_of(harness, PocketSphinxSTT(GRAMMAR))
    await say(bench, "stop")
    stt = bench.processor
    assert isinstance(stt, PocketSphinxSTT)
    os.kill(pid(bench), signal.SIGKILL)
    while stt.alive():
        await bench.settle()
    await say(bench, "turn left")
    assert [frame.text for frame in transcripts(bench)] == ["stop", "turn left"]


# --- before the end ------------------------------------------------------------------------------------------


async def test_while_the_user_speaks_it_tells_what_it_has_heard_so_far(harness: Harness):
    bench = await bench_of(harness, PocketSphinxSTT(GRAMMAR, interim_ms=100))
    await say(bench, "go forward ten meters")
    told = interims(bench)
    assert told[0] == "go"
    assert "go forward ten" in told
    assert told[-1] == "go forward ten meters"
    assert "" not in told
    assert all(one != next for one, next in pairwise(told))
    kinds = [type(frame) for frame in bench.down]
    last = len(kinds) - 1 - kinds[::-1].index(InterimTranscriptionFrame)
    assert last < kinds.index(UserStoppedSpeakingFrame) < kinds.index(TranscriptionFrame)


async def test_stop_is_reported_long_before_the_silence_that_ends_it(harness: Harness):
    bench = await bench_of(harness, PocketSphinxSTT(GRAMMAR, interim_ms=100))
    await say(bench, "stop")
    first = next(n for n, frame in enumerate(bench.down) if frame == InterimTranscriptionFrame("stop"))
    end = next(n for n, frame in enumerate(bench.down) if isinstance(frame, UserStoppedSpeakingFrame))
    assert sum(frame.duration_ms for frame in bench.down[first:end] if isinstance(frame, InputAudioFrame)) > 300


async def test_a_grammar_s_words_are_not_reported_for_other_speech(harness: Harness):
    bench = await bench_of(harness, PocketSphinxSTT(GRAMMAR, interim_ms=100))
    await say(bench, "what a lovely day it is today")
    told = interims(bench)
    assert len(told) > 5
    assert not {"stop", "turn left", "turn right"} & {*told}


async def test_partial_texts_are_requested_at_the_interval_only(harness: Harness, monkeypatch: pytest.MonkeyPatch):
    asked: list[float] = []
    partial = PocketSphinxProcess.partial

    async def count(self: PocketSphinxProcess) -> str:
        asked.append(0)
        return await partial(self)

    monkeypatch.setattr(PocketSphinxProcess, "partial", count)
    bench = await bench_of(harness, PocketSphinxSTT(GRAMMAR, interim_ms=500))
    await say(bench, "go forward ten meters")
    # 2.1 s with what came before and the silence after.
    assert len(asked) == 4
    await say(bench, "go forward ten meters")
    assert len(asked) == 8
    bench = await bench_of(harness, PocketSphinxSTT(GRAMMAR))
    await say(bench, "stop")
    assert len(asked) == 8
    assert interims(bench) == []


async def test_the_same_words_in_the_next_utterance_are_reported_again(harness: Harness):
    bench = await bench_of(harness, PocketSphinxSTT(GRAMMAR, interim_ms=200))
    await say(bench, "stop")
    await say(bench, "stop")
    assert interims(bench).count("stop") == 2


async def test_a_recogniser_that_dies_between_two_interims_hears_it_again(harness: Harness):
    bench = await bench_of(harness, PocketSphinxSTT(GRAMMAR, interim_ms=100))
    start = TURNS["turn left"]["start_ms"] // 20 * 20
    await bench.send(UserStartedSpeakingFrame(200))
    await listen(bench, start, start + 400)
    os.kill(pid(bench), signal.SIGKILL)
    await listen(bench, start + 400, start + 1_200)
    await bench.send(UserStoppedSpeakingFrame(500))
    await bench.advance(1_000)
    assert [frame.text for frame in transcripts(bench)] == ["turn left"]


async def test_a_pipeline_that_is_cancelled_while_it_is_asked_leaves_nothing_behind(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
):
    entered = asyncio.Event()
    partial = PocketSphinxProcess.partial

    async def slow(self: PocketSphinxProcess) -> str:
        entered.set()
        return await partial(self)

    monkeypatch.setattr(PocketSphinxProcess, "partial", slow)
    bench = await bench_of(harness, PocketSphinxSTT(interim_ms=100))
    for frame in [UserStartedSpeakingFrame(0), *audio(1_000, 1_900)]:
        bench.worker.post(frame)
    await entered.wait()
    await bench.close()


# --- long speech ---------------------------------------------------------------------------------------------

MONOLOGUE = [
    "go forward ten meters",
    "turn left",
    "where are you",
    "what a lovely day it is today",
    "go back three meters",
    "stop",
    "good bye",
]


def monologue(pause_ms: int = 120) -> list[InputAudioFrame]:
    """All of it in one breath."""
    parts: list[np.ndarray] = []
    room = join(audio(100, 100 + pause_ms // 20 * 20))
    for text in MONOLOGUE:
        turn = TURNS[text]
        parts += [room, join(audio(turn["start_ms"], turn["end_ms"]))]
    return chunks(np.concatenate([*parts, room]))


async def breathe(bench: Bench, frames: list[InputAudioFrame]) -> None:
    await bench.send(UserStartedSpeakingFrame(0))
    for frame in frames:
        await bench.send(frame)


@pytest.mark.parametrize("piece_ms", [2_000, 4_000])
async def test_long_speech_is_transcribed_in_pieces_and_no_word_is_lost_or_doubled(harness: Harness, piece_ms: int):
    bench = await bench_of(harness, PocketSphinxSTT(piece_ms=piece_ms))
    frames = monologue()
    await breathe(bench, frames)
    early = transcripts(bench)
    assert len(early) >= 8_000 // piece_ms - 1
    await bench.send(UserStoppedSpeakingFrame(500))
    said = transcripts(bench)
    assert len(said) == len(early) + 1
    words = " ".join(frame.text for frame in said).replace("goodbye", "good bye").split()
    # The language model's text for "what a lovely day" is not certain; all around it is.
    head, tail = "go forward ten meters turn left where are you", "go back three meters stop good bye"
    assert words[:9] == head.split()
    assert words[-7:] == tail.split()
    assert "lovely day" in " ".join(words[9:-7])
    assert len(words[9:-7]) in (6, 7, 8)
    # And no sample.
    assert sum(frame.audio_ms for frame in said) == pytest.approx(sum(frame.duration_ms for frame in frames))
    assert all(piece_ms / 2 <= frame.audio_ms <= piece_ms for frame in early)


async def test_a_short_utterance_and_one_without_a_bound_are_whole(harness: Harness):
    for stt, ms in ((PocketSphinxSTT(), 3_000), (PocketSphinxSTT(piece_ms=0), 17_000)):
        bench = await bench_of(harness, stt)
        await breathe(bench, (monologue() * 10)[: ms // 20])
        assert transcripts(bench) == []
        await bench.send(UserStoppedSpeakingFrame(500))
        assert [frame.audio_ms for frame in transcripts(bench)] == [ms]
        await bench.close()


async def test_with_a_grammar_nothing_is_cut(harness: Harness):
    bench = await bench_of(harness, PocketSphinxSTT(GRAMMAR, piece_ms=1_000))
    await say(bench, "go forward ten meters")
    assert [frame.text for frame in transcripts(bench)] == ["go forward ten meters"]


async def test_a_piece_without_words_is_not_pushed_unless_it_is_the_last(harness: Harness):
    bench = await bench_of(harness, PocketSphinxSTT(piece_ms=1_000))
    await breathe(bench, chunks(np.zeros(16_000 * 3, np.int16)))
    assert transcripts(bench) == []
    await bench.send(UserStoppedSpeakingFrame(500))
    (last,) = transcripts(bench)
    assert last.text == ""
    assert 0 < last.audio_ms < 1_000


async def test_the_interims_of_a_piece_are_its_own(harness: Harness):
    bench = await bench_of(harness, PocketSphinxSTT(piece_ms=2_000, interim_ms=200))
    await breathe(bench, monologue()[:200])
    words = [frame for frame in bench.down if isinstance(frame, TranscriptionFrame | InterimTranscriptionFrame)]
    first = next(n for n, frame in enumerate(words) if isinstance(frame, TranscriptionFrame))
    assert words[first].text == "go forward ten meters"
    after = [frame.text for frame in words[first + 1 :] if isinstance(frame, InterimTranscriptionFrame)]
    assert after
    assert not any(text.startswith("go") for text in after)


async def test_a_recogniser_that_dies_in_a_piece_hears_that_again_and_no_more(harness: Harness):
    bench = await bench_of(harness, PocketSphinxSTT(piece_ms=2_000))
    frames = monologue()
    await breathe(bench, frames[:120])
    before = len(transcripts(bench))
    assert before
    os.kill(pid(bench), signal.SIGKILL)
    for frame in [*frames[120:], UserStoppedSpeakingFrame(500)]:
        await bench.send(frame)
    await bench.advance(1_000)
    heard = transcripts(bench)
    assert [frame.more for frame in heard] == [True] * (len(heard) - 1) + [False]
    text = " ".join(frame.text for frame in heard)
    assert text.count("forward") == 1
    assert text.count("go back three meters") == 1


@pytest.mark.parametrize(
    "settings", [{"interim_ms": -1}, {"interim_ms": float("nan")}, {"piece_ms": -1}, {"piece_ms": 999}]
)
def test_impossible_settings_raise(settings: dict[str, float]):
    with pytest.raises(SettingsError, match=f"PocketSphinxSTT: {next(iter(settings))} is .*, and should "):
        PocketSphinxSTT(**settings)  # pyright: ignore[reportArgumentType]


# --- wrong from the start ------------------------------------------------------------------------------------


def test_a_wrong_grammar_raises_in_the_constructor():
    with pytest.raises(GrammarError):
        PocketSphinxSTT("public <c> = stop")


def test_audio_at_another_rate_is_found_when_the_pipeline_is_built():
    with pytest.raises(FormatError, match=r"PocketSphinxSTT takes 16000 Hz, mono"):
        Pipeline([MemoryTransport(sample_rate=8_000).input(), PocketSphinxSTT()])


def nothing_is_installed(name: str) -> None:
    """Replacement of `importlib.util.find_spec`."""


def test_without_the_package_the_error_has_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", nothing_is_installed)
    with pytest.raises(MissingExtraError, match=r"pocketsphinx.*pip install .*\[speech\]"):
        PocketSphinxSTT()


async def test_a_wrong_grammar_raises_in_update(harness: Harness):
    stt = PocketSphinxSTT()
    await harness(stt)
    with pytest.raises(GrammarError):
        stt.update(grammar="go forward")
    assert stt.settings.grammar is None
