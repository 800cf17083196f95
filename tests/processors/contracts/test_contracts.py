"""The contract suites: good voices pass, and each rule catches one that breaks it."""

import asyncio
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, ClassVar

import numpy as np
import pytest
from voxline.pipeline import (
    Frame,
    OutputAudioFrame,
    TextFrame,
    handles,
)
from voxline.pipeline.clock import Clock, Wait
from voxline.pipeline.errors import AuthenticationError, ServiceDownError, ServiceError
from voxline.pipeline.processor import AudioFormat
from voxline.processors import EspeakTTS, ScriptedTTS
from voxline.processors.contracts import (
    check_tts,
)
from voxline.processors.service.base import ServiceSettings
from voxline.processors.tts.base import TTS
from voxline.processors.tts.word_timing import SpeechChunk, WordStart
from voxline.tests.processors.contracts.contract_checks import (
    AGAIN,
    ALONE,
    ENDS,
    LEFT,
    NO_LOG,
    ODD,
    WORDS,
    break_it,
    break_it_later,
    caught,
)

SECRET = "sk-secret-0123"
TEXT = "Turn left after ten meters."
log = logging.getLogger("an adapter")


# --- voices -----------------------------------------------------------------------------------------------------------


class Good(TTS):
    """A voice that keeps the contract: 60 ms for each word."""

    reports_words: ClassVar[bool] = True
    broken = False
    open = False

    def makes(self) -> dict[type[Frame], AudioFormat]:
        return {OutputAudioFrame: AudioFormat((1_000,), (1,))}

    async def connect(self) -> None:
        self.open = True
        self.broken = False

    async def disconnect(self) -> None:
        self.open = False

    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        if self.broken:
            raise ServiceDownError("It is away.")
        for word in re.finditer(r"\S+", text):
            await self.clock.sleep(0.01)
            yield self.chunk(word.start())

    def chunk(self, offset: int) -> SpeechChunk:
        return SpeechChunk(np.full(60, 9, np.int16), 1_000, (WordStart(offset, 5.0),))


class Untimed(Good):
    reports_words: ClassVar[bool] = False

    def chunk(self, offset: int) -> SpeechChunk:
        return SpeechChunk(np.full(60, 9, np.int16), 1_000)


class Locked(Good):
    async def connect(self) -> None:
        raise AuthenticationError("It does not take this key. Set ANOTHER_KEY.")


@pytest.mark.parametrize("kind", [Good, Untimed])
@pytest.mark.parametrize("break_", [break_it, break_it_later])
async def test_a_good_voice_passes(kind: type[Good], break_: Callable[[Any], Any]):
    await check_tts(kind, break_=break_, cannot_connect=Locked, secrets=[SECRET])


class SaysNothing(Good):
    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        for nothing in ():
            yield nothing


class SaysItOnce(Good):
    said = False

    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        if not self.said:
            async for chunk in super().speak(text):
                yield chunk
        self.said = True


class Hangs(Good):
    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        yield self.chunk(0)
        await Wait()


class DoesNotConnect(Good):
    async def connect(self) -> None:
        raise ServiceDownError("It is away.")


class ClosesSlowly(Good):
    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        ended = False
        try:
            async for chunk in super().speak(text):
                yield chunk
            ended = True
        finally:
            if not ended:
                await self.clock.sleep(30)


class ComplainsWhenClosed(Good):
    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        ended = False
        try:
            async for chunk in super().speak(text):
                yield chunk
            ended = True
        finally:
            if not ended:
                raise KeyError("closed")


class Leftovers(Good):
    """Says the rest of what was interrupted in front of the next text."""

    rest = ""

    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        text, self.rest = f"{self.rest} {text}", text
        async for chunk in super().speak(text):
            yield chunk
        self.rest = ""


class FailsAfterClosing(Good):
    closed = False

    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        if self.closed:
            raise ServiceError("It is confused.")
        self.closed = True
        async for chunk in super().speak(text):
            yield chunk
        self.closed = False


class NeedsConnect(Good):
    async def disconnect(self) -> None:
        if not self.open:
            raise ServiceError("It is not connected.")
        await super().disconnect()


class ConnectsOnce(Good):
    count = 0

    async def connect(self) -> None:
        self.count += 1
        if self.count == 2:
            raise ServiceError("It is connected already.")
        await super().connect()


class KeepsTheClock(Good):
    """Of its first pipeline, whose time has ended."""

    first: Clock | None = None

    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        self.first = self.first or self.clock
        await self.first.sleep(0.1)
        async for chunk in super().speak(text):
            yield chunk


class OneAtATime(Good):
    at_work: ClassVar[list[Any]] = []

    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        if self.at_work:
            raise ServiceError("Another one is speaking.")
        self.at_work.append(self)
        try:
            async for chunk in super().speak(text):
                yield chunk
        finally:
            self.at_work.clear()


class StopsAll(Good):
    stopped: ClassVar[list[Any]] = []

    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        if self.stopped and self.stopped.pop() is not self:
            return
        ended = False
        try:
            async for chunk in super().speak(text):
                yield chunk
            ended = True
        finally:
            if not ended:
                self.stopped[:] = [self]


class KeySettings(ServiceSettings):
    key: str = SECRET


class KeyInSettings(Good):
    settings = KeySettings()


class RaisesWhatItLikes(Good):
    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        if self.broken:
            raise KeyError("voice")
        async for chunk in super().speak(text):
            yield chunk


class NeverFails(Good):
    async def connect(self) -> None:
        self.open = True

    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        self.broken = False
        async for chunk in super().speak(text):
            yield chunk


class TellsTheKey(Good):
    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        if self.broken:
            raise ServiceError(f"It does not take {SECRET}.")
        async for chunk in super().speak(text):
            yield chunk


class TellsTheText(TellsTheKey):
    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        if self.broken:
            raise ServiceError(f"It cannot say {text!r}.")
        async for chunk in super().speak(text):
            yield chunk


class StaysBroken(Good):
    async def connect(self) -> None:
        self.open = True


class Floats(Good):
    def chunk(self, offset: int) -> SpeechChunk:
        return SpeechChunk(np.full(60, 0.5, np.float32), 1_000, (WordStart(offset, 5.0),))  # type: ignore[arg-type]


class NoChunks(Good):
    def chunk(self, offset: int) -> Any:
        return OutputAudioFrame(np.full(60, 9, np.int16), 1_000)


class Inaudible(Good):
    def chunk(self, offset: int) -> SpeechChunk:
        return SpeechChunk(np.zeros(60, np.int16), 1_000, (WordStart(offset, 5.0),))


class AnotherRate(Good):
    def chunk(self, offset: int) -> SpeechChunk:
        return SpeechChunk(np.full(60, 9, np.int16), 1_000 + 100 * (offset > 5), (WordStart(offset, 5.0),))


class NoRate(Good):
    def makes(self) -> dict[type[Frame], AudioFormat]:
        return {}


class TellsNoWords(Good):
    def chunk(self, offset: int) -> SpeechChunk:
        return SpeechChunk(np.full(60, 9, np.int16), 1_000)


class WordsBackwards(Good):
    def chunk(self, offset: int) -> SpeechChunk:
        return SpeechChunk(np.full(60, 9, np.int16), 1_000, (WordStart(len(TEXT) - 1 - offset, 5.0),))


class WordsBeyondTheText(Good):
    def chunk(self, offset: int) -> SpeechChunk:
        return SpeechChunk(np.full(60, 9, np.int16), 1_000, (WordStart(offset + 10, 5.0),))


class WordsBeyondTheSound(Good):
    def chunk(self, offset: int) -> SpeechChunk:
        return SpeechChunk(np.full(60, 9, np.int16), 1_000, (WordStart(offset, 500.0),))


class WordsInNoOrder(Good):
    def chunk(self, offset: int) -> SpeechChunk:
        return SpeechChunk(np.full(60, 9, np.int16), 1_000, (WordStart(offset, 5.0 if offset % 2 else 80.0),))


class AfraidOfEmoji(Good):
    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        text.encode("latin-1")
        async for chunk in super().speak(text):
            yield chunk


class ConfusedByLines(Good):
    confused = False

    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        if self.confused:
            raise ServiceError("It is confused.")
        self.confused = "\n" in text
        async for chunk in super().speak(text):
            yield chunk


class OneWordAPipeline(Good):
    @handles(TextFrame)
    async def speak_text(self, frame: TextFrame) -> AsyncIterator[Frame]:
        yield OutputAudioFrame(np.full(60, 9, np.int16), 1_000)


class LeavesAFile(Good):
    async def connect(self) -> None:
        kept.append(os.fdopen(os.open("/dev/null", os.O_RDONLY)))


class LeavesASocket(Good):
    async def connect(self) -> None:
        kept.append(socket.socket())


def child() -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


class LeavesAProcess(Good):
    async def connect(self) -> None:
        kept.append(child())


class LeavesATask(Good):
    async def connect(self) -> None:
        kept.append(asyncio.get_running_loop().create_task(asyncio.Event().wait()))


kept: list[Any] = []


class LogsTheText(Good):
    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        log.warning("saying %s", text)
        async for chunk in super().speak(text):
            yield chunk


class LogsTheKey(Good):
    async def connect(self) -> None:
        await super().connect()
        log.error("connecting with %s", SECRET)


@pytest.mark.parametrize(
    ("kind", "rule", "came"),
    [
        (SaysNothing, AGAIN, "nothing"),
        (SaysItOnce, AGAIN, "came:     0"),
        (Hangs, AGAIN, "waits for ever"),
        (DoesNotConnect, AGAIN, "It is away."),
        (ClosesSlowly, ENDS, "did not end"),
        (ComplainsWhenClosed, ENDS, "KeyError"),
        (Leftovers, ALONE, "as it was alone"),
        (FailsAfterClosing, ALONE, "It is confused."),
        (NeedsConnect, "disconnect() without connect(), and twice", "It is not connected."),
        (ConnectsOnce, "after disconnect(), connect() works again", "It is connected already."),
        (KeepsTheClock, "can run again, in another pipeline", ""),
        (OneAtATime, "two of them work at the same time", "Another one is speaking."),
        (StopsAll, "an interruption of one does nothing to the other", "came:     0"),
        (KeyInSettings, "settings have no secret", "(it)"),
        (RaisesWhatItLikes, "raises a ServiceError", "KeyError"),
        (NeverFails, "raises a ServiceError", "none"),
        (TellsTheKey, "no message of an error has a secret", "(it)"),
        (TellsTheText, "no message of an error has a secret", "(it)"),
        (StaysBroken, "after a failure, disconnect() and connect() make it work again", "It is away."),
        (Floats, "chunks of int16", "float32"),
        (NoChunks, AGAIN, "OutputAudioFrame"),
        (Inaudible, "chunks of int16", "silence"),
        (AnotherRate, "the rate that makes() says", "1100"),
        (NoRate, "the rate that makes() says", "None"),
        (TellsNoWords, "reports_words matches", "0 words"),
        (WordsBackwards, WORDS, "that grow"),
        (WordsBeyondTheText, WORDS, "0 to 26"),
        (WordsBeyondTheSound, WORDS, "starts from 0"),
        (WordsInNoOrder, WORDS, "do not fall"),
        (AfraidOfEmoji, ODD, "UnicodeEncodeError"),
        (ConfusedByLines, ODD, "It is confused."),
        (OneWordAPipeline, "in a pipeline, a text is speech", "''"),
        (LogsTheText, NO_LOG, "saying (it)"),
        (LogsTheKey, NO_LOG, "connecting with (it)"),
    ],
)
async def test_a_broken_voice_is_caught_by_its_rule(kind: type[Good], rule: str, came: str):
    await caught(check_tts(kind, text=TEXT, break_=break_it, secrets=[SECRET]), rule, kind.__name__, came)


@pytest.mark.skipif(sys.platform != "linux", reason="files and processes are seen on Linux only")
@pytest.mark.parametrize(
    ("kind", "came"),
    [(LeavesAFile, "/dev/null"), (LeavesASocket, "socket"), (LeavesAProcess, "process")],
)
async def test_what_is_left_behind_is_caught(kind: type[Good], came: str):
    try:
        await caught(check_tts(kind, text=TEXT), LEFT, came)
    finally:
        for one in kept:
            if isinstance(one, subprocess.Popen):
                one.kill()
                one.wait()
                assert one.stdin is not None
                one.stdin.close()
            else:
                one.close()
        kept.clear()


async def test_a_task_that_is_left_behind_is_caught():
    await caught(check_tts(LeavesATask, text=TEXT), AGAIN, "A task outlives its processor")
    kept.clear()


class OpenToAll(Good):
    """Takes any key."""


class Mumbles(Good):
    async def connect(self) -> None:
        raise KeyError("model")


class SaysTheKey(Good):
    async def connect(self) -> None:
        raise AuthenticationError(f"It does not take {SECRET}.")


class TellsATale(Good):
    async def connect(self) -> None:
        raise AuthenticationError("It does not take this key.\nTraceback:\n...")


@pytest.mark.parametrize(
    ("kind", "rule", "came"),
    [
        (OpenToAll, "connect() finds out what is wrong", "one that works"),
        (Mumbles, "connect() finds out what is wrong", "KeyError"),
        (TellsATale, "connect() finds out what is wrong", "Traceback"),
        (SaysTheKey, "no message of an error has a secret", "(it)"),
    ],
)
async def test_a_start_that_does_not_say_what_is_wrong_is_caught(kind: type[Good], rule: str, came: str):
    await caught(check_tts(Good, cannot_connect=kind, secrets=[SECRET]), rule, came)


@pytest.mark.parametrize("timed", [True, False])
async def test_the_scripted_voice_passes(timed: bool):
    await check_tts(
        lambda: ScriptedTTS(timed=timed, delay_ms=20),
        cannot_connect=lambda: ScriptedTTS(connects=[AuthenticationError("No key.")]),
    )


async def test_espeak_keeps_the_contract():
    pytest.importorskip("espeakng_loader")

    def kill(voice: EspeakTTS) -> None:
        assert voice._process is not None
        assert voice._process.pid is not None
        os.kill(voice._process.pid, signal.SIGKILL)

    await check_tts(EspeakTTS, break_=kill, cannot_connect=lambda: EspeakTTS("xx-none"))
