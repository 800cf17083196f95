"""eSpeak NG in a process of its own: a small, quick, many-tongued synthesiser that needs no model.

    espeak = EspeakProcess(sleep=clock.sleep)
    await espeak.start()
    with espeak.speak("Turning left.") as speech:
        async for chunk in speech:
            play(chunk.samples)

The same text is never quite the same sound twice (by 1 % in length): it carries a state from one to the next.
It makes speech hundreds of times faster than it is heard; while nobody reads, it waits. Leaving the `with`
block, or being cancelled inside it, stops it within a chunk, and the next `speak()` begins at once.
libespeak-ng is GPL-3, hence an extra, and in a process of its own.
"""

from dataclasses import dataclass
from typing import Self, cast

import numpy as np
import numpy.typing as npt

from ...pipeline.errors import ServiceError
from ..subprocess.parent import ChildProcess, Replies, Sleep, require_package
from ..subprocess.wire import Message, WireError

SAMPLE_RATE = 22_050
RATES_WPM = (80, 450)
PITCHES = (0, 99)


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """Where a word stands, in the text and in the sound.

    `text` is the word as written, `char_offset` its place in the text (code points, from 0), `start_ms` when
    it begins to sound, from the start of the utterance. eSpeak says "I am" in one go: then only "I" is told,
    so a word reaches to the next one's offset.
    """

    text: str
    char_offset: int
    start_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class SpeechChunk:
    """Some 60 ms of speech: int16 mono at 22050 Hz, read-only, starting `start_ms` into the utterance.

    `words` begin in this chunk or shortly after it. `samples` can be empty where only a word is told.
    """

    samples: npt.NDArray[np.int16]
    start_ms: int
    words: tuple[SpokenWord, ...]


class Speech:
    """What `EspeakProcess.speak` gives: chunks by `async for`, until `close()` or the end of `with`."""

    def __init__(self, replies: Replies, text: str) -> None:
        self._replies = replies
        self._text = text
        self._told = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> SpeechChunk:
        message = await self._replies.__anext__()
        return SpeechChunk(
            samples=np.frombuffer(message.payload, dtype="<i2"),
            start_ms=_ms(int(message.number("start"))),
            words=self._words(message),
        )

    def close(self) -> None:
        """Stop speaking. Never waits."""
        self._replies.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _words(self, message: Message) -> tuple[SpokenWord, ...]:
        words: list[SpokenWord] = []
        for item in message.items("words"):
            if not isinstance(item, list) or len(cast(list[object], item)) != 3:
                raise WireError(f"not a word: {item!r}")
            offset, length, sample = cast(list[int], item)
            text = self._text[offset : offset + length].strip()
            # "42" is told as two words that overlap, and a smiley with the blank after it.
            if text and offset >= self._told:
                words.append(SpokenWord(text, offset, _ms(sample)))
                self._told = offset + length
        return tuple(words)


class EspeakProcess:
    """A voice in a process. Errors are ServiceError and its kind.

    `voice` is a language code ("en-us", "de", "fr-fr"), with a variant if wanted ("en-us+f3"); `rate_wpm` 80
    to 450 words per minute; `pitch` 0 to 99. `sleep` is the clock's, in seconds. Two voices at once are two
    of these.
    """

    def __init__(self, *, sleep: Sleep, voice: str = "en-us", rate_wpm: int = 175, pitch: int = 50) -> None:
        for what, value, (low, high) in (("rate_wpm", rate_wpm, RATES_WPM), ("pitch", pitch, PITCHES)):
            if not low <= value <= high:
                raise ValueError(f"{what} is {value}, and eSpeak takes {low} to {high}")
        self._voice = voice
        self._rate_wpm = rate_wpm
        self._pitch = pitch
        self._child = ChildProcess("eSpeak NG", "voxline.processors.tts.espeak_child", sleep=sleep)

    @property
    def pid(self) -> int | None:
        """The process's number while it runs, else None."""
        return self._child.pid

    async def start(self) -> None:
        """Start the process. Raises ServiceError for an unknown voice; the text has some that there are."""
        require_package("eSpeak NG", "espeakng_loader", "espeakng-loader", "speech")
        await self._child.start()
        try:
            answer = await self._child.request("start", voice=self._voice, rate=self._rate_wpm, pitch=self._pitch)
            if (rate := int(answer.number("sample_rate"))) != SAMPLE_RATE:
                raise ServiceError(f"eSpeak NG speaks at {rate} Hz; voxline expects {SAMPLE_RATE}")
        except ServiceError:
            await self._child.close()
            raise
        except BaseException:
            self._child.kill()
            raise

    def speak(self, text: str) -> Speech:
        """Speak a text (plain, any length; markup is read aloud). What was being spoken is stopped."""
        return Speech(self._child.stream("speak", text=text), text)

    async def close(self) -> None:
        """End the process and wait until it is gone. Does nothing if there is none."""
        await self._child.close()


def _ms(samples: int) -> int:
    return samples * 1000 // SAMPLE_RATE
