"""The process that `espeak.EspeakProcess` talks to: eSpeak NG through ctypes, one voice, one utterance at a
time.

libespeak-ng has global state (two calls at once crash), and is GPL-3: it lives in this process and nowhere
else. Layouts and numbers are those of speak_lib.h of eSpeak NG 1.52.
"""

import ctypes
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, cast

from ..subprocess.child import ChildHost, Refused, Request

_SYNCHRONOUS = 2
"""AUDIO_OUTPUT_SYNCHRONOUS: espeak_Synth returns when all is said. RETRIEVAL calls back in another thread."""
_DONT_EXIT = 0x8000
_BUFFER_MS = 40
_CHARS_UTF8 = 1
_POS_CHARACTER = 1
_RATE, _PITCH = 1, 3
_EVENT_END, _EVENT_WORD = 0, 1
_NEAR = 12
"""How many voices the error for an unknown one lists."""


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )
    type: int
    text_position: int
    length: int
    sample: int


class _Voice(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    )
    languages: bytes


_EventPointer = ctypes.POINTER(_Event)
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, _EventPointer)


class _Loader(Protocol):
    """What is used of `espeakng_loader`, which carries no types."""

    def get_library_path(self) -> str: ...
    def get_data_path(self) -> str: ...


class _Events(Protocol):
    def __getitem__(self, index: int, /) -> _Event: ...


class _Speaker:
    """The operations."""

    def __init__(self) -> None:
        self._library: ctypes.CDLL | None = None
        self._request: Request | None = None
        self._text = ""
        self._spoken = 0
        self._callback = _Callback(self._take_chunk)

    def start(self, request: Request) -> Mapping[str, object]:
        import espeakng_loader  # pyright: ignore[reportMissingImports, reportMissingTypeStubs]

        loader = cast(_Loader, espeakng_loader)
        library = self._library = ctypes.CDLL(loader.get_library_path())
        data = loader.get_data_path()
        rate = cast(int, library.espeak_Initialize(_SYNCHRONOUS, _BUFFER_MS, os.fsencode(data), _DONT_EXIT))
        if rate <= 0:
            # A path beyond its buffer (160 bytes) is the usual cause: it is cut off without a word.
            raise Refused(f"espeak_Initialize failed with {rate}; its data is in {data}")
        library.espeak_SetSynthCallback(self._callback)
        self._set_voice(library, request.message.text("voice"), data)
        library.espeak_SetParameter(_RATE, int(request.message.number("rate")), 0)
        library.espeak_SetParameter(_PITCH, int(request.message.number("pitch")), 0)
        return {"sample_rate": rate}

    def speak(self, request: Request) -> Mapping[str, object]:
        library = self._library
        assert library is not None
        self._request, self._text, self._spoken = request, request.message.text("text"), 0
        # One character for one, so that positions hold: control characters would be commands to eSpeak, and a
        # lone surrogate is no text.
        said = "".join(" " if ord(char) < 32 and char != "\n" else char for char in self._text)
        data = said.encode("utf-8", errors="replace")
        synth = cast(Callable[..., int], library.espeak_Synth)
        error = synth(data, ctypes.c_size_t(len(data) + 1), 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None)
        if error:
            raise Refused(f"espeak_Synth failed with {error}")
        return {"samples": self._spoken}

    def _take_chunk(self, samples: int | None, count: int, events: _Events) -> int:
        request = self._request
        if request is None or request.cancelled:
            return 1
        words = [[event.text_position - 1, event.length, event.sample] for event in _words(events)]
        pcm = ctypes.string_at(samples, count * 2) if samples and count > 0 else b""
        if pcm or words:
            request.reply({"words": words, "start": self._spoken}, pcm)
        self._spoken += len(pcm) // 2
        return 1 if request.cancelled else 0

    def _set_voice(self, library: ctypes.CDLL, voice: str, data: str) -> None:
        name, plus, variant = voice.partition("+")
        if not name or library.espeak_SetVoiceByName(os.fsencode(name)):
            raise Refused(f"there is no voice {voice!r}. {_near(name, _voices(library))}")
        if plus:
            # eSpeak takes any variant and uses none if it does not know it.
            variants = sorted(os.listdir(os.path.join(data, "voices", "!v")))
            if variant not in variants:
                raise Refused(f"there is no voice {voice!r}: no variant {variant!r}. {_near(variant, variants)}")
            library.espeak_SetVoiceByName(os.fsencode(voice))


def _words(events: _Events) -> Iterator[_Event]:
    index = 0
    while events[index].type != _EVENT_END:
        if events[index].type == _EVENT_WORD:
            yield events[index]
        index += 1


def _voices(library: ctypes.CDLL) -> list[str]:
    list_voices = library.espeak_ListVoices
    list_voices.restype = ctypes.POINTER(ctypes.POINTER(_Voice))
    voices = list_voices(None)
    codes: set[str] = set()
    index = 0
    while voices[index]:
        # A list of (priority byte, language code, NUL); the first is the voice's own.
        codes.add(voices[index].contents.languages[1:].decode())
        index += 1
    return sorted(codes)


def _near(name: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name.lower(), known, n=4, cutoff=0.5)
    near += [one for one in known if one[:2] == name[:2].lower() and one not in near]
    near += [one for one in known if one.startswith("en") and one not in near]
    shown = (near or known)[:_NEAR]
    return f"There are {len(known)}, such as: {', '.join(shown)}"


def main() -> None:
    """Serve until the parent goes away."""
    host = ChildHost()
    speaker = _Speaker()
    host.serve({"start": speaker.start, "speak": speaker.speak})


if __name__ == "__main__":
    main()
