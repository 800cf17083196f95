"""PocketSphinx in its process, listening to the caller of examples/audio."""

import asyncio
import json
import os
import signal
import wave
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TypedDict

import numpy as np
import psutil
import pytest
from voxline.pipeline.clock import SystemClock
from voxline.pipeline.errors import MissingExtraError, ServiceError
from voxline.processors.stt.jsgf import GrammarError
from voxline.processors.stt.phone_similarity import phone_similarity
from voxline.processors.stt.pocketsphinx_process import CEPSTRAL_MEAN, Hypothesis, PocketSphinxProcess
from voxline.processors.subprocess.parent import ServiceCrashed
from voxline.tests.places import AUDIO

pytest.importorskip("pocketsphinx")

BYTES_PER_MS = 32
CHUNK = 20 * BYTES_PER_MS

ROVER_GRAMMAR = """#JSGF V1.0;
grammar rover;

public <command> = <move> | <turn> | <question> | stop | good bye;

<move> = go (forward | back | backward | backwards) <number> (meter | meters);
<turn> = turn (left | right | around);
<question> = where are you | what can you do;

<number> = <digit> | <teen> | <tens> [<digit>] | [one | a] hundred;
<digit> = one | two | three | four | five | six | seven | eight | nine;
<teen> = ten | eleven | twelve | thirteen | fourteen | fifteen | sixteen | seventeen | eighteen | nineteen;
<tens> = twenty | thirty | forty | fifty | sixty | seventy | eighty | ninety;
"""

HEAD = "#JSGF V1.0;\ngrammar rover;\n"


class Turn(TypedDict):
    """One line of caller.json."""

    text: str
    start_ms: int
    end_ms: int
    command: bool
    barge_in: bool


TURNS: list[Turn] = json.loads((AUDIO / "caller.json").read_text())["turns"]


def speech(turn: Turn, before_ms: int = 300, after_ms: int = 300) -> bytes:
    """Audio of a turn, as a voice detector would cut it, with pre-roll."""
    with wave.open(str(AUDIO / "caller.wav")) as recording:
        pcm = recording.readframes(recording.getnframes())
    return pcm[(turn["start_ms"] - before_ms) * BYTES_PER_MS : (turn["end_ms"] + after_ms) * BYTES_PER_MS]


def turn(text: str) -> bytes:
    return speech(next(turn for turn in TURNS if turn["text"] == text))


async def hear(sphinx: PocketSphinxProcess, pcm: bytes) -> Hypothesis:
    """Feed speech as a microphone would, and finish."""
    await sphinx.begin()
    for start in range(0, len(pcm), CHUNK):
        await sphinx.feed(pcm[start : start + CHUNK])
    return await sphinx.finish()


@pytest.fixture
async def sphinx() -> AsyncIterator[PocketSphinxProcess]:
    """Not started."""
    process = PocketSphinxProcess(sleep=SystemClock().sleep)
    yield process
    await process.close()


@pytest.mark.parametrize("after_ms", [200, 350, 500])
async def test_the_caller_s_commands_are_understood_and_his_chatter_is_not(sphinx: PocketSphinxProcess, after_ms: int):
    await sphinx.start(ROVER_GRAMMAR)
    for turn in TURNS:
        heard = await hear(sphinx, speech(turn, after_ms=after_ms))
        assert heard.in_grammar == turn["command"], heard
        assert heard.agreement is not None
        if turn["command"]:
            assert heard.text == turn["text"]
            assert heard.agreement >= 0.5
        else:
            assert heard.text == heard.lm_text
            assert phone_similarity(heard.text.split(), turn["text"].split()) >= 0.8
        assert heard.audio_ms == turn["end_ms"] - turn["start_ms"] + 300 + after_ms
        assert heard.decode_ms > 0


async def test_every_command_is_right_as_a_process_s_first_words(sphinx: PocketSphinxProcess):
    await sphinx.start(ROVER_GRAMMAR)
    for turn in TURNS:
        await sphinx.begin(CEPSTRAL_MEAN)
        await sphinx.feed(speech(turn))
        assert (await sphinx.finish()).in_grammar == turn["command"]


async def test_without_a_grammar_the_language_model_s_words_are_the_text(sphinx: PocketSphinxProcess):
    await sphinx.start()
    heard = await hear(sphinx, turn("go forward ten meters"))
    assert heard.text == heard.lm_text == "go forward ten meters"
    assert heard.in_grammar is None
    assert heard.agreement is None


async def test_a_partial_result_comes_before_the_end(sphinx: PocketSphinxProcess):
    await sphinx.start(ROVER_GRAMMAR)
    pcm = turn("go forward ten meters")
    await sphinx.begin()
    assert await sphinx.partial() == ""
    await sphinx.feed(pcm[: len(pcm) * 2 // 3])
    assert (await sphinx.partial()).startswith("go for")
    await sphinx.feed(pcm[len(pcm) * 2 // 3 :])
    assert (await sphinx.finish()).text == "go forward ten meters"


async def test_silence_noise_and_nothing_are_no_words(sphinx: PocketSphinxProcess):
    await sphinx.start(ROVER_GRAMMAR)
    noise = np.random.default_rng(3).integers(-2000, 2000, 16_000).astype("<i2").tobytes()
    for pcm in (b"", bytes(2), bytes(32_000), noise):
        heard = await hear(sphinx, pcm)
        assert heard.in_grammar is False, heard
    assert (await hear(sphinx, turn("turn left"))).text == "turn left"


async def test_the_cepstral_mean_is_carried_on_by_speech_and_can_move_to_another_process(
    sphinx: PocketSphinxProcess,
):
    await sphinx.start(ROVER_GRAMMAR)
    assert sphinx.cepstral_mean == CEPSTRAL_MEAN
    await hear(sphinx, bytes(3_200))
    assert sphinx.cepstral_mean == pytest.approx(CEPSTRAL_MEAN)
    await hear(sphinx, turn("go forward ten meters"))
    learned = sphinx.cepstral_mean
    assert learned != pytest.approx(CEPSTRAL_MEAN)
    await sphinx.close()
    await sphinx.start(ROVER_GRAMMAR)
    await sphinx.begin(learned)
    await sphinx.feed(turn("turn left"))
    assert (await sphinx.finish()).text == "turn left"
    with pytest.raises(ValueError, match="13 numbers"):
        await sphinx.begin([1.0, 2.0])


async def test_an_utterance_that_is_interrupted_anywhere_leaves_nothing_behind(sphinx: PocketSphinxProcess):
    await sphinx.start(ROVER_GRAMMAR)
    for method in (sphinx.finish, sphinx.partial):
        await sphinx.begin()
        await sphinx.feed(turn("go forward ten meters"))
        waiting = asyncio.create_task(method())
        asyncio.get_running_loop().call_soon(waiting.cancel)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await hear(sphinx, turn("turn left"))).text == "turn left"
    await sphinx.begin()
    await sphinx.feed(turn("where are you"))
    assert (await hear(sphinx, turn("turn left"))).text == "turn left"


async def test_methods_out_of_order_and_half_samples_raise(sphinx: PocketSphinxProcess):
    with pytest.raises(ServiceError, match=r"PocketSphinx is not running: call start\(\) first"):
        await sphinx.begin()
    await sphinx.start()
    for method in (sphinx.finish, sphinx.partial):
        with pytest.raises(ServiceError, match=r"without an utterance: call begin\(\) first"):
            await method()
    with pytest.raises(ServiceError, match=r"feed\(\) without an utterance"):
        await sphinx.feed(b"\0\0")
    await sphinx.begin()
    with pytest.raises(ValueError, match="3 bytes is not a whole number of 16-bit samples"):
        await sphinx.feed(b"\0\0\0")


async def test_a_killed_process_raises_and_starts_again(sphinx: PocketSphinxProcess):
    await sphinx.start()
    assert sphinx.pid is not None
    await sphinx.begin()
    os.kill(sphinx.pid, signal.SIGKILL)
    with pytest.raises(ServiceCrashed, match=r"^PocketSphinx ended unexpectedly \(exit code -9, SIGKILL\)"):
        await sphinx.finish()
    await sphinx.start()
    assert (await hear(sphinx, turn("turn left"))).text == "turn left"


@pytest.mark.parametrize(
    ("grammar", "error"),
    [
        (HEAD + "public <a> = go <way>;", "line 3 of the grammar: there is no rule <way>. There are: <a>"),
        (HEAD + "public <a> = go |\n(frobnicate;", "line 4 of the grammar: expected the ')'"),
        (
            HEAD + "public <a> = go |\nfrobnicate | qwertz;",
            "the grammar has words that the dictionary does not know: 'frobnicate' (line 4), 'qwertz' (line",
        ),
        (
            HEAD + "public <a> = Go;",
            "the grammar has words that the dictionary does not know: 'Go' (line 3). Its",
        ),
        ("", "line 1 of the grammar: expected the header"),
    ],
)
async def test_a_wrong_grammar_raises_at_the_start(sphinx: PocketSphinxProcess, grammar: str, error: str):
    with pytest.raises(GrammarError) as caught:
        await sphinx.start(grammar)
    assert str(caught.value).startswith(error)
    assert sphinx.pid is None
    assert not [child for child in psutil.Process().children() if "sphinx" in " ".join(child.cmdline())]


def not_found(name: str) -> None:
    """Replacement of `find_spec`: no package is installed."""


async def test_a_missing_package_raises_before_the_start(sphinx: PocketSphinxProcess, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", not_found)
    with pytest.raises(MissingExtraError, match=r"PocketSphinx needs the package pocketsphinx.*\[speech\]'?$"):
        await sphinx.start()
    assert sphinx.pid is None


PEOPLE = sorted(Path(os.environ.get("VOXLINE_SPEECH", "nowhere")).glob("*.wav"))


@pytest.mark.skipif(not PEOPLE, reason="VOXLINE_SPEECH names no folder with recordings of people")
async def test_people_s_voices_are_taken_and_refused_rightly(sphinx: PocketSphinxProcess):
    await sphinx.start(ROVER_GRAMMAR)
    for path in PEOPLE:
        with wave.open(str(path)) as recording:
            pcm = recording.readframes(recording.getnframes())
        heard = await hear(sphinx, pcm)
        assert heard.in_grammar == (path.stem == "go-forward"), heard
        if heard.in_grammar:
            assert heard.text == "go forward ten meters"
