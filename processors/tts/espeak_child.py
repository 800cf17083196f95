"""Child process of `espeak_process.EspeakProcess`: eSpeak NG through ctypes, one voice, one utterance at a time.

libespeak-ng has global state (two calls at once crash) and is GPL-3, so it is loaded in this process only. Layouts
and numbers are those of speak_lib.h of eSpeak NG 1.52.
"""

import ctypes
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, cast

from ..subprocess.child import ChildHost, Refused, Request

_SYNCHRONOUS = 2
"""AUDIO_OUTPUT_SYNCHRONOUS: espeak_Synth returns at the end of the text. RETRIEVAL calls back in another thread."""
_DONT_EXIT = 0x8000
_BUFFER_MS = 40
_CHARS_UTF8 = 1
_POS_CHARACTER = 1
_RATE, _PITCH = 1, 3
_EVENT_END, _EVENT_WORD = 0, 1
_LISTED_VOICES = 12
"""Number of voices that the error for an unknown one lists."""


class _EspeakEvent(ctypes.Structure):
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


class _EspeakVoice(ctypes.Structure):
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


_EventPointer = ctypes.POINTER(_EspeakEvent)
_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, _EventPointer)


class _Loader(Protocol):
    """The used part of `espeakng_loader`, which has no type annotations."""

    def get_library_path(self) -> str: ...
    def get_data_path(self) -> str: ...


class _Events(Protocol):
    def __getitem__(self, index: int, /) -> _EspeakEvent: ...


class _Synthesiser:
    """The operations of this child."""

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
            # The usual cause is a path longer than its buffer of 160 bytes, which it truncates silently.
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
        # Control characters would be commands to eSpeak. They become one blank each, so that offsets stay valid;
        # a lone surrogate cannot be encoded and becomes a question mark.
        plain = "".join(" " if ord(char) < 32 and char != "\n" else char for char in self._text)
        data = plain.encode("utf-8", errors="replace")
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
            raise Refused(f"there is no voice {voice!r}. {_similar(name, _voices(library))}", unknown_voice=voice)
        if plus:
            # eSpeak ignores an unknown variant without an error.
            variants = sorted(os.listdir(os.path.join(data, "voices", "!v")))
            if variant not in variants:
                near = _similar(variant, variants)
                raise Refused(f"there is no voice {voice!r}: no variant {variant!r}. {near}", unknown_voice=voice)
            library.espeak_SetVoiceByName(os.fsencode(voice))


def _words(events: _Events) -> Iterator[_EspeakEvent]:
    index = 0
    while events[index].type != _EVENT_END:
        if events[index].type == _EVENT_WORD:
            yield events[index]
        index += 1


def _voices(library: ctypes.CDLL) -> list[str]:
    list_voices = library.espeak_ListVoices
    list_voices.restype = ctypes.POINTER(ctypes.POINTER(_EspeakVoice))
    voices = list_voices(None)
    codes: set[str] = set()
    index = 0
    while voices[index]:
        # Entries of (priority byte, language code, NUL); the first is the voice's own language.
        codes.add(voices[index].contents.languages[1:].decode())
        index += 1
    return sorted(codes)


def _similar(name: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name.lower(), known, n=4, cutoff=0.5)
    near += [one for one in known if one[:2] == name[:2].lower() and one not in near]
    near += [one for one in known if one.startswith("en") and one not in near]
    shown = (near or known)[:_LISTED_VOICES]
    return f"There are {len(known)}, such as: {', '.join(shown)}"


def main() -> None:
    """Answer requests until the parent is gone."""
    host = ChildHost()
    synthesiser = _Synthesiser()
    host.serve({"start": synthesiser.start, "speak": synthesiser.speak})


if __name__ == "__main__":
    main()
