"""Child process of `pocketsphinx_process.PocketSphinxProcess`: one or two PocketSphinx decoders on one audio stream.

A grammar decoder finds its grammar in any audio, so an LM decoder (the wheel's trigram model) runs beside it, and the
parent compares the two. Both decode while audio arrives, so the end of an utterance costs little. Steady noise is
removed first (`denoise.py`).
"""

import resource
from collections.abc import Mapping
from typing import Protocol, cast

from ..subprocess.child import ChildHost, Refused, Request
from .denoise import Denoiser
from .recogniser_child import RecogniserChild

_BYTES_PER_MS = 32
_BLOCK = 640
"""Bytes per call of a decoder (20 ms): a cancel or a partial result never waits for more."""


class _Hyp(Protocol):
    hypstr: str


class _Decoder(Protocol):
    """The used part of `pocketsphinx.Decoder`, which has no type annotations."""

    def start_utt(self) -> None: ...
    def process_raw(self, data: bytes, /) -> object: ...
    def end_utt(self) -> None: ...
    def hyp(self) -> _Hyp | None: ...
    def get_cmn(self, update: bool, /) -> str: ...
    def set_cmn(self, mean: str, /) -> object: ...
    def lookup_word(self, word: str, /) -> str | None: ...
    def add_jsgf_string(self, name: str, grammar: str, /) -> None: ...
    def activate_search(self, name: str, /) -> None: ...


def _make_decoder(**config: object) -> _Decoder:
    from pocketsphinx import Decoder  # pyright: ignore[reportMissingImports, reportUnknownVariableType]

    # fwdflat=False: WER 0.21 instead of 0.25, and a faster end (13 recordings of people). maxhmmpf=3000 instead of
    # 30000: 40 % less CPU, and unclear speech ends in 20-30 ms instead of 60-110; of 28 short sentences one result
    # changed, to the right one. At 2000 two got worse.
    return cast(_Decoder, Decoder(samprate=16000, fwdflat=False, maxhmmpf=3000, loglevel="FATAL", **config))


class PocketSphinxChild(RecogniserChild):
    """Two decoders, their denoiser and the cepstral mean of the caller."""

    def __init__(self) -> None:
        self._lm: _Decoder | None = None
        self._grammar: _Decoder | None = None
        self._denoiser = Denoiser()
        self._mean = ""
        self._open = False
        self._bytes = 0
        self._cpu_ms = 0.0

    def start(self, request: Request) -> None:
        grammar = request.message.text("grammar")
        if grammar:
            self._grammar = _make_decoder(lm=None, bestpath=False)
            words = [str(word) for word in request.message.items("words")]
            unknown = [word for word in words if self._grammar.lookup_word(word) is None]
            if unknown:
                raise Refused("unknown words: " + " ".join(unknown), unknown_words=unknown)
            try:
                self._grammar.add_jsgf_string("grammar", grammar)
            except (ValueError, RuntimeError) as error:
                raise Refused(f"the decoder refuses the grammar: {error}") from error
            self._grammar.activate_search("grammar")
        self._lm = _make_decoder()

    def begin(self, request: Request) -> None:
        for decoder in self._decoders():
            if self._open:
                decoder.end_utt()
            decoder.set_cmn(request.message.text("mean") or self._mean)
            decoder.start_utt()
        self._mean = request.message.text("mean") or self._mean
        self._denoiser = Denoiser()
        self._open = True
        self._bytes = 0
        self._cpu_ms = 0.0

    def feed(self, request: Request) -> None:
        started = _cpu_ms()
        pcm = request.message.payload
        self._decode(self._denoiser.feed(pcm))
        self._bytes += len(pcm)
        self._cpu_ms += _cpu_ms() - started

    def partial(self, request: Request) -> Mapping[str, object]:
        return self._hypotheses()

    def finish(self, request: Request) -> Mapping[str, object]:
        started = _cpu_ms()
        self._decode(self._denoiser.flush())
        for decoder in self._decoders():
            decoder.end_utt()
        self._open = False
        self._cpu_ms += _cpu_ms() - started
        found = self._hypotheses()
        if found["lm"]:
            # The mean of a cough would spoil the next utterance, so only speech changes it. Without the explicit update
            # the mean changes in some utterances and not in others.
            assert self._lm is not None
            self._mean = self._lm.get_cmn(True)
        return {
            **found,
            "mean": self._mean,
            "audio_ms": self._bytes // _BYTES_PER_MS,
            "decode_ms": round(self._cpu_ms, 1),
        }

    def _decode(self, pcm: bytes) -> None:
        for start in range(0, len(pcm), _BLOCK):
            block = pcm[start : start + _BLOCK]
            for decoder in self._decoders():
                decoder.process_raw(block)

    def _hypotheses(self) -> Mapping[str, object]:
        """Text of each decoder; with a grammar also its phones."""
        texts: dict[str, object] = {}
        for name, decoder in (("lm", self._lm), ("grammar", self._grammar)):
            if decoder is not None:
                hyp = decoder.hyp() if self._bytes else None
                texts[name] = hyp.hypstr if hyp else ""
                if self._grammar is not None:
                    words = str(texts[name]).split()
                    texts[f"{name}_phones"] = " ".join(decoder.lookup_word(word) or "" for word in words)
        return texts

    def _decoders(self) -> list[_Decoder]:
        return [decoder for decoder in (self._grammar, self._lm) if decoder is not None]


def _cpu_ms() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return (usage.ru_utime + usage.ru_stime) * 1e3


def main() -> None:
    """Answer requests until the parent is gone."""
    PocketSphinxChild().serve(ChildHost())


if __name__ == "__main__":
    main()
