"""eSpeak NG in a process of its own: a small, fast, multilingual synthesiser that needs no model.

    espeak = EspeakProcess(sleep=clock.sleep)
    await espeak.start()
    with espeak.speak("Turning left.") as speech:
        async for chunk in speech:
            play(chunk.samples)

The same text never sounds exactly the same twice (its length varies by 1 %), because the library carries a state
over. It synthesises hundreds of times faster than real time, and waits while nobody reads. Leaving the `with` block,
or being cancelled inside it, stops it within a chunk, and the next `speak()` starts at once. libespeak-ng is GPL-3,
hence an extra, and in a process of its own.
"""

from dataclasses import dataclass
from typing import Self, cast

import numpy as np
import numpy.typing as npt

from ...pipeline.errors import BadRequestError, ServiceError
from ..subprocess.parent import ChildProcess, Replies, ServiceRefused, Sleep, require_package
from ..subprocess.wire import WireError, WireMessage

SAMPLE_RATE = 22_050
RATES_WPM = (80, 450)
PITCHES = (0, 99)


@dataclass(frozen=True, slots=True)
class EspeakWord:
    """Position of a word in the text and in the sound.

    ``text``: the word as written; ``char_offset``: its offset in the text (code points, from 0); ``start_ms``: its
    start, from the start of the utterance. eSpeak speaks "I am" as one word and reports only "I", so a word extends to
    the next one's offset.
    """

    text: str
    char_offset: int
    start_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class EspeakChunk:
    """Some 60 ms of speech: int16 mono at 22,050 Hz, read-only, starting ``start_ms`` into the utterance.

    ``words`` begin in this chunk or shortly after it. ``samples`` is empty if the chunk carries only words.
    """

    samples: npt.NDArray[np.int16]
    start_ms: int
    words: tuple[EspeakWord, ...]


class EspeakUtterance:
    """The chunks of one text, by `async for`, until `close()` or the end of `with`. Made by `EspeakProcess.speak`."""

    def __init__(self, replies: Replies, text: str) -> None:
        self._replies = replies
        self._text = text
        self._reported_to = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> EspeakChunk:
        message = await self._replies.__anext__()
        return EspeakChunk(
            samples=np.frombuffer(message.payload, dtype="<i2"),
            start_ms=_ms(int(message.number("start"))),
            words=self._words(message),
        )

    def close(self) -> None:
        """Stop the synthesis. Never waits."""
        self._replies.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _words(self, message: WireMessage) -> tuple[EspeakWord, ...]:
        words: list[EspeakWord] = []
        for item in message.items("words"):
            if not isinstance(item, list) or len(cast(list[object], item)) != 3:
                raise WireError(f"not a word with offset, length and sample: {item!r}")
            offset, length, sample = cast(list[int], item)
            text = self._text[offset : offset + length].strip()
            # eSpeak reports "42" as two overlapping words, and a smiley with the blank after it.
            if text and offset >= self._reported_to:
                words.append(EspeakWord(text, offset, _ms(sample)))
                self._reported_to = offset + length
        return tuple(words)


class EspeakProcess:
    """One voice in a process. Raises `ServiceError` and its subclasses.

    ``voice``: a language code ("en-us", "de", "fr-fr"), optionally with a variant ("en-us+f3"); ``rate_wpm``: 80 to
    450 words per minute; ``pitch``: 0 to 99; ``sleep``: the clock's, in seconds. Two voices at once need two objects.
    """

    def __init__(self, *, sleep: Sleep, voice: str = "en-us", rate_wpm: int = 175, pitch: int = 50) -> None:
        for what, value, (low, high) in (("rate_wpm", rate_wpm, RATES_WPM), ("pitch", pitch, PITCHES)):
            if not low <= value <= high:
                raise ValueError(f"{what} is {value}; eSpeak accepts {low} to {high}")
        self._voice = voice
        self._rate_wpm = rate_wpm
        self._pitch = pitch
        self._child = ChildProcess("eSpeak NG", "voxline.processors.tts.espeak_child", sleep=sleep)

    @property
    def pid(self) -> int | None:
        """Process id while the process runs, else None."""
        return self._child.pid

    async def start(self) -> None:
        """Start the process. Raises `BadRequestError` for an unknown voice; the text lists similar ones."""
        require_package("eSpeak NG", "espeakng_loader", "espeakng-loader", "speech")
        await self._child.start()
        try:
            answer = await self._child.request("start", voice=self._voice, rate=self._rate_wpm, pitch=self._pitch)
            if (rate := int(answer.number("sample_rate"))) != SAMPLE_RATE:
                raise ServiceError(f"eSpeak NG speaks at {rate} Hz; voxline expects {SAMPLE_RATE}")
        except ServiceError as error:
            await self._child.close()
            if isinstance(error, ServiceRefused) and error.answer.header.get("unknown_voice"):
                raise BadRequestError(str(error)) from None
            raise
        except BaseException:
            self._child.kill()
            raise

    def speak(self, text: str) -> EspeakUtterance:
        """Speak a text (plain, any length; markup is read aloud). Stops the text that is being spoken."""
        return EspeakUtterance(self._child.stream("speak", text=text), text)

    async def close(self) -> None:
        """End the process and wait until it is gone. Does nothing if there is none."""
        await self._child.close()


def _ms(samples: int) -> int:
    return samples * 1000 // SAMPLE_RATE
