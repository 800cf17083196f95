"""The process that `piper.PiperTTS` talks to: one Piper voice, one text at a time.

piper-tts is GPL-3 and holds the GIL: it lives in this process and nowhere else. The voice is put together here and not
by `PiperVoice.load`, which would take all cores.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ..subprocess.child import ChildHost, Refused, Request
from ..subprocess.model_files import first_line, read_head, read_json, refuse_other

MODEL = "the .onnx file of a Piper voice"
CONFIG = "the .onnx.json file that belongs to a Piper voice"
_INPUTS = ("input", "input_lengths", "scales")
_CHUNK_MS = 100
"""What is told at once: an interruption is exact to this, and a player can begin with it."""
_RATES = (8_000, 48_000)
_SPEAKERS_SHOWN = 8


class _Session:
    """An onnxruntime session whose runs can be stopped from another thread, between two operators."""

    def __init__(self, path: Path, threads: int) -> None:
        runtime = self._runtime = cast(Any, import_module("onnxruntime"))
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # A busy server has better things to do than to wait for the next sentence in a loop.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._running: Any = None
        self.request: Request | None = None

    def stop(self) -> None:
        """Stop the run that is under way. In the reader's thread."""
        running = self._running
        if running is not None:
            running.terminate = True

    def run(self, outputs: object, feeds: object) -> Any:
        """As `InferenceSession.run`."""
        options = self._running = self._runtime.RunOptions()
        options.log_severity_level = 4
        # A cancel before the line above was not seen by `stop`, one after it is.
        if self.request is not None and self.request.cancelled:
            options.terminate = True
        try:
            return self._session.run(outputs, feeds, options)
        finally:
            self._running = None


class Speaker:
    """The operations: see `ChildHost.serve`."""

    def __init__(self) -> None:
        self._piper: Any = None
        self._voice: Any = None
        self._session: _Session | None = None

    def stop(self) -> None:
        """The parent has lost interest."""
        if self._session is not None:
            self._session.stop()

    def start(self, request: Request) -> Mapping[str, object]:
        message = request.message
        model = Path(message.text("model"))
        config_path = Path(message.text("config") or f"{model}.json")
        takes = read_head(model, MODEL).inputs
        if missing := [name for name in _INPUTS if name not in takes]:
            refuse_other(model, f"it has no input {missing[0]!r} (it has {', '.join(takes) or 'none'})", MODEL)
        config = read_json(config_path, CONFIG)
        _check_config(config, config_path, several="sid" in takes)
        self._piper = cast(Any, import_module("piper"))
        try:
            made = self._piper.PiperConfig.from_dict(config)
        except Exception as error:
            refuse_other(config_path, first_line(error), CONFIG)
        try:
            self._session = _Session(model, int(message.number("threads", 1)))
        except Exception as error:  # onnxruntime's have no base of their own
            refuse_other(model, f"onnxruntime says {first_line(error, model)}", MODEL)
        self._voice = self._piper.PiperVoice(session=self._session, config=made)
        self._wanted(request)
        self._try(model, config_path)
        return {"sample_rate": made.sample_rate, "speakers": made.num_speakers}

    def speak(self, request: Request) -> Mapping[str, object]:
        assert self._session is not None
        wanted = self._wanted(request)
        self._session.request = request
        text = _harmless(request.message.text("text"))
        rate = int(self._voice.config.sample_rate)
        try:
            for samples in self._sentences(text, wanted):
                for start in range(0, len(samples), rate * _CHUNK_MS // 1000):
                    if request.cancelled:
                        return {}
                    request.reply({}, samples[start : start + rate * _CHUNK_MS // 1000].tobytes())
        except Refused:
            raise
        except Exception as error:
            if request.cancelled:
                return {}
            # Not its message: the text may stand in there.
            raise Refused(f"the voice failed with {type(error).__name__}") from None
        return {}

    def _sentences(self, text: str, wanted: object) -> Iterator[npt.NDArray[np.int16]]:
        for chunk in self._voice.synthesize(text, wanted):
            samples = np.atleast_1d(chunk.audio_float_array)
            if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
                raise Refused(f"the voice gave no sound, but numbers of shape {samples.shape}")
            yield np.asarray(chunk.audio_int16_array, "<i2")

    def _wanted(self, request: Request) -> object:
        """How it is to be spoken. Refuses a speaker that there is not."""
        message = request.message
        given = {
            name: message.number(name)
            for name in ("length_scale", "noise_scale", "noise_w_scale", "volume")
            if message.header.get(name) is not None
        }
        return self._piper.SynthesisConfig(speaker_id=self._speaker_of(message.header.get("speaker")), **given)

    def _speaker_of(self, speaker: object) -> int | None:
        config = self._voice.config
        if speaker is None:
            return None
        names = cast(Mapping[str, int], config.speaker_id_map)
        if isinstance(speaker, str) and speaker in names:
            return int(names[speaker])
        count = max(1, int(config.num_speakers))
        if isinstance(speaker, int) and 0 <= speaker < count:
            return speaker
        shown = ", ".join([*names][:_SPEAKERS_SHOWN])
        dots = ", ..." if len(names) > _SPEAKERS_SHOWN else ""
        there = f"0 to {count - 1}" + (f", or by name: {shown}{dots}" if names else "")
        raise Refused(f"the voice has no speaker {speaker!r}; there are {there}.")

    def _try(self, model: Path, config: Path) -> None:
        """Speak a sound: what cannot work is found now."""
        try:
            # Digits are in every language.
            found = sum(len(samples) for samples in self._sentences("1", self._piper.SynthesisConfig()))
        except ModuleNotFoundError as error:
            raise Refused(f"the voice {model} needs the package {error.name}, which is not installed.") from None
        except Refused as refused:
            refuse_other(model, str(refused), MODEL)
        except Exception as error:
            why = f"a first sound failed with {first_line(error, model)}"
            raise Refused(f"{model} and {config} do not fit each other: {why}; they should be of one voice.") from None
        if not found:
            refuse_other(config, "it knows no phoneme of a first sound", CONFIG)


def _harmless(text: str) -> str:
    """A text that is only text to Piper: to it, double brackets are phonemes, and a NUL is the end."""
    said = "".join(" " if ord(char) < 32 else char for char in text).replace("[[", "[ [")
    return said.encode(errors="replace").decode()


def _check_config(config: Mapping[str, object], path: Path, *, several: bool) -> None:
    """Refuse settings that are of no Piper voice, or of another one."""
    audio, espeak = config.get("audio"), config.get("espeak")
    rate = cast(dict[str, object], audio).get("sample_rate") if isinstance(audio, dict) else None
    voice = cast(dict[str, object], espeak).get("voice") if isinstance(espeak, dict) else None
    ids = config.get("phoneme_id_map")
    if not (isinstance(rate, int) and _RATES[0] <= rate <= _RATES[1]):
        refuse_other(path, f"its audio.sample_rate is {rate!r}, not {_RATES[0]} to {_RATES[1]}", CONFIG)
    if not isinstance(voice, str):
        refuse_other(path, f"its espeak.voice is {voice!r}, not a text", CONFIG)
    if not isinstance(ids, dict) or not {"_", "^", "$"} <= ids.keys():
        refuse_other(path, "its phoneme_id_map is missing, or has no _, ^ and $", CONFIG)
    symbols, speakers = config.get("num_symbols"), config.get("num_speakers")
    if not isinstance(symbols, int) or not isinstance(speakers, int):
        refuse_other(path, "its num_symbols or num_speakers is missing", CONFIG)
    if several != (speakers > 1):
        has = "several speakers" if several else "one speaker"
        refuse_other(path, f"it is of {speakers} speakers, and the model has {has}", CONFIG)
    if config.get("phoneme_type") == "pinyin":
        raise Refused(f"{path} is of a Chinese voice, for which Piper would download another model: not supported.")


def main() -> None:
    """Serve until the parent goes away."""
    host = ChildHost()
    # What cannot be spoken would be told there, letter by letter, and a crash tells the last lines.
    logging.disable(logging.CRITICAL)
    speaker = Speaker()
    host.on_cancel = speaker.stop
    host.serve({"start": speaker.start, "speak": speaker.speak})


if __name__ == "__main__":
    main()
