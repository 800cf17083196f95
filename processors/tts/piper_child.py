"""Child process of `piper.PiperTTS`: one Piper voice, one text at a time.

piper-tts is GPL-3 and holds the GIL, so it is loaded in this process only. The voice is assembled here and not by
`PiperVoice.load`, which would use all cores.
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
"""Audio per answer: the resolution of an interruption, and enough for a player to start."""
_RATES = (8_000, 48_000)
_SPEAKERS_SHOWN = 8


class _StoppableSession:
    """An onnxruntime session whose runs can be stopped from another thread, between two operators."""

    def __init__(self, path: Path, threads: int) -> None:
        runtime = self._runtime = cast(Any, import_module("onnxruntime"))
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Without this, idle threads spin while they wait for the next sentence.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4
        self._session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._running: Any = None
        self.request: Request | None = None

    def stop(self) -> None:
        """Stop the current run. Called in the reader's thread."""
        running = self._running
        if running is not None:
            running.terminate = True

    def run(self, outputs: object, feeds: object) -> Any:
        """Run the model, like `InferenceSession.run`."""
        options = self._running = self._runtime.RunOptions()
        options.log_severity_level = 4
        # `stop` misses a cancel that arrived before the line above.
        if self.request is not None and self.request.cancelled:
            options.terminate = True
        try:
            return self._session.run(outputs, feeds, options)
        finally:
            self._running = None


class PiperSynthesiser:
    """The operations of this child: see `ChildHost.serve`."""

    def __init__(self) -> None:
        self._piper: Any = None
        self._voice: Any = None
        self._session: _StoppableSession | None = None

    def stop(self) -> None:
        """Stop synthesis, because the parent has withdrawn the question."""
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
            self._session = _StoppableSession(model, int(message.number("threads", 1)))
        except Exception as error:  # onnxruntime's exceptions have no common base
            refuse_other(model, f"onnxruntime says {first_line(error, model)}", MODEL)
        self._voice = self._piper.PiperVoice(session=self._session, config=made)
        self._options(request)
        self._try(model, config_path)
        return {"sample_rate": made.sample_rate, "speakers": made.num_speakers}

    def speak(self, request: Request) -> Mapping[str, object]:
        assert self._session is not None
        options = self._options(request)
        self._session.request = request
        text = _plain(request.message.text("text"))
        rate = int(self._voice.config.sample_rate)
        try:
            for samples in self._sentences(text, options):
                for start in range(0, len(samples), rate * _CHUNK_MS // 1000):
                    if request.cancelled:
                        return {}
                    request.reply({}, samples[start : start + rate * _CHUNK_MS // 1000].tobytes())
        except Refused:
            raise
        except Exception as error:
            if request.cancelled:
                return {}
            # Without its message, which may contain the text.
            raise Refused(f"the voice failed with {type(error).__name__}") from None
        return {}

    def _sentences(self, text: str, options: object) -> Iterator[npt.NDArray[np.int16]]:
        for chunk in self._voice.synthesize(text, options):
            samples = np.atleast_1d(chunk.audio_float_array)
            if samples.ndim != 1 or not len(samples) or not np.isfinite(samples).all():
                raise Refused(f"the voice produced invalid sound, of shape {samples.shape}")
            yield np.asarray(chunk.audio_int16_array, "<i2")

    def _options(self, request: Request) -> object:
        """Read the options of a request. Refuse an unknown speaker."""
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
        """Speak one sound, so that files that do not work fail at the start."""
        try:
            # Every language has digits.
            found = sum(len(samples) for samples in self._sentences("1", self._piper.SynthesisConfig()))
        except ModuleNotFoundError as error:
            raise Refused(f"the voice {model} needs the package {error.name}, which is not installed.") from None
        except Refused as refused:
            refuse_other(model, str(refused), MODEL)
        except Exception as error:
            why = f"a first sound failed with {first_line(error, model)}"
            raise Refused(
                f"{model} and {config} do not fit each other: {why}; both should belong to one voice."
            ) from None
        if not found:
            refuse_other(config, "it has no phonemes for a first sound", CONFIG)


def _plain(text: str) -> str:
    """Escape a text for Piper, which takes double brackets as phonemes, and a NUL as the end."""
    plain = "".join(" " if ord(char) < 32 else char for char in text).replace("[[", "[ [")
    return plain.encode(errors="replace").decode()


def _check_config(config: Mapping[str, object], path: Path, *, several: bool) -> None:
    """Refuse settings of another kind, or of another voice."""
    audio, espeak = config.get("audio"), config.get("espeak")
    rate = cast(dict[str, object], audio).get("sample_rate") if isinstance(audio, dict) else None
    voice = cast(dict[str, object], espeak).get("voice") if isinstance(espeak, dict) else None
    ids = config.get("phoneme_id_map")
    if not (isinstance(rate, int) and _RATES[0] <= rate <= _RATES[1]):
        refuse_other(path, f"its audio.sample_rate is {rate!r}, not {_RATES[0]} to {_RATES[1]}", CONFIG)
    if not isinstance(voice, str):
        refuse_other(path, f"its espeak.voice is {voice!r}, not a string", CONFIG)
    if not isinstance(ids, dict) or not {"_", "^", "$"} <= ids.keys():
        refuse_other(path, "its phoneme_id_map is missing, or has no _, ^ and $", CONFIG)
    symbols, speakers = config.get("num_symbols"), config.get("num_speakers")
    if not isinstance(symbols, int) or not isinstance(speakers, int):
        refuse_other(path, "its num_symbols or num_speakers is missing", CONFIG)
    if several != (speakers > 1):
        has = "several speakers" if several else "one speaker"
        refuse_other(path, f"it has {speakers} speakers, and the model {has}", CONFIG)
    if config.get("phoneme_type") == "pinyin":
        raise Refused(f"{path} belongs to a Chinese voice: not supported, because Piper would download another model.")


def main() -> None:
    """Answer requests until the parent is gone."""
    host = ChildHost()
    # The logs would contain unpronounceable text, and a crash reports the last lines.
    logging.disable(logging.CRITICAL)
    synthesiser = PiperSynthesiser()
    host.on_cancel = synthesiser.stop
    host.serve({"start": synthesiser.start, "speak": synthesiser.speak})


if __name__ == "__main__":
    main()
