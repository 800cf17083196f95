"""Opus by libopus: what goes in comes out, and what is lost or broken does no harm."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxline.pipeline import Samples, SettingsError, TransportError
from voxline.tests.scale import examples
from voxline.transports.webrtc import opus
from voxline.transports.webrtc.opus import Decoder, Encoder, packet_ticks

RATE = 24_000


def tone(hz: float, ms: float, rate: int = RATE, level: float = 8_000) -> Samples:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(rate * ms / 1000)) / rate)).astype(np.int16)


def packets(samples: Samples, encoder: Encoder | None = None) -> list[bytes]:
    encoder = encoder or Encoder(RATE)
    size = encoder.frame_samples
    return [encoder.encode(samples[at : at + size]) for at in range(0, len(samples) - size + 1, size)]


def peak_hz(samples: Samples, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax()) * rate / len(samples)


def rms(samples: Samples) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0


def decoded(line: list[bytes], decoder: Decoder | None = None) -> Samples:
    decoder = decoder or Decoder()
    parts = [decoder.decode(packet) for packet in line]
    return np.concatenate([part for part in parts if part is not None])


@pytest.mark.parametrize("rate", opus.RATES)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_tone_is_the_same_tone_after_it(rate: int, channels: int) -> None:
    line = packets(tone(440, 1000, rate), Encoder(rate, channels))
    heard = decoded(line)
    assert len(heard) == 16_000
    assert heard.dtype == np.int16
    assert peak_hz(heard[4_000:], 16_000) == pytest.approx(440, abs=2)
    assert rms(heard[4_000:]) == pytest.approx(8_000 / 2**0.5, rel=0.1)


def test_two_channels_keep_their_own_sound() -> None:
    both = np.stack([tone(300, 500), tone(1_000, 500)], axis=1)
    encoder = Encoder(RATE, 2, bit_rate=64_000)
    line = [encoder.encode(both[at : at + 480]) for at in range(0, len(both), 480)]
    heard = decoded(line)
    spectrum = np.abs(np.fft.rfft(heard[2_000:]))
    scale = len(heard[2_000:]) / 16_000
    assert spectrum[round(300 * scale)] > 10 * np.median(spectrum)
    assert spectrum[round(1_000 * scale)] > 10 * np.median(spectrum)


def test_a_packet_says_how_long_it_is() -> None:
    assert {packet_ticks(packet) for packet in packets(tone(440, 200))} == {960}
    assert packet_ticks(Encoder(RATE).silence()) == 960
    assert packet_ticks(b"") == 0
    # Code 3 with 48 frames of 2.5 ms is the longest that is allowed, 49 are not (RFC 6716, section 3.2.5).
    assert packet_ticks(bytes([16 << 3 | 3, 48])) == 5_760
    assert packet_ticks(bytes([16 << 3 | 3, 49])) == 0
    assert packet_ticks(bytes([3])) == 0


@pytest.mark.parametrize("loss_percent", [0, 10])
def test_ready_silence_is_silent_after_speech_and_speech_after_it_is_whole(loss_percent: int) -> None:
    encoder, decoder = Encoder(RATE, loss_percent=loss_percent), Decoder()
    loud = decoded(packets(tone(200, 400), encoder), decoder)
    assert rms(loud[-2_000:]) > 3_000
    tail = [encoder.encode_silence() for _ in range(3)]
    quiet = decoded([*tail, *[encoder.silence()] * 100], decoder)
    # -55 dB of full scale at most while the filters die away, and then nothing.
    assert np.abs(quiet[960:]).max() < 60
    assert rms(quiet[3_200:]) < 1
    again = decoded(packets(tone(200, 400), encoder), decoder)
    assert peak_hz(again[1_600:], 16_000) == pytest.approx(200, abs=3)


def test_a_change_of_the_codec_within_silence_is_not_heard() -> None:
    """As the sender does it, when a line begins to lose packets."""
    plain, copying, decoder = Encoder(RATE), Encoder(RATE, loss_percent=10), Decoder()
    line = [*packets(tone(200, 300), plain), *[plain.encode_silence()] * 3, plain.silence(), *[copying.silence()] * 20]
    heard = decoded([*line, *packets(tone(200, 300), copying)], decoder)
    quiet = heard[(15 + 3) * 320 : (15 + 20) * 320]
    assert np.abs(quiet).max() < 60
    assert peak_hz(heard[-3_200:], 16_000) == pytest.approx(200, abs=6)


def test_ready_silence_is_made_once_for_all_encoders() -> None:
    assert Encoder(RATE).silence() is Encoder(RATE).silence()
    assert len(Encoder(RATE).silence()) < 5


def test_a_lost_packet_comes_back_from_the_copy_in_the_next_one() -> None:
    """Better than the guess: measured against what was said."""
    rng = np.random.default_rng(1)
    # A voice-like sound, whose pitch and level change.
    t = np.arange(RATE * 2) / RATE
    pitch = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 1.3 * t)) / RATE
    sound = np.sum([np.sin(k * pitch) / k for k in range(1, 12)], axis=0) * (1 + np.sin(2 * np.pi * 3 * t))
    voice = (sound * 2_500 + rng.normal(0, 20, len(t))).astype(np.int16)
    line = packets(voice, Encoder(RATE, loss_percent=20))
    whole = decoded(line)

    def heard(how: str) -> Samples:
        decoder = Decoder()
        parts: list[Samples] = []
        for index, packet in enumerate(line):
            if index % 5 == 4 and index + 1 < len(line):
                parts.append(decoder.recover(line[index + 1], 960) if how == "copy" else decoder.conceal(960))
            else:
                part = decoder.decode(packet)
                assert part is not None
                parts.append(part)
        return np.concatenate(parts)

    copied, guessed = heard("copy"), heard("guess")
    assert len(copied) == len(guessed) == len(whole)
    error_copied = np.mean(np.square(copied.astype(np.float64) - whole)) ** 0.5
    error_guessed = np.mean(np.square(guessed.astype(np.float64) - whole)) ** 0.5
    assert error_copied < 0.6 * error_guessed


def test_a_guess_goes_on_with_the_sound_and_fades() -> None:
    decoder = Decoder()
    decoded(packets(tone(200, 400), Encoder(RATE, loss_percent=10)), decoder)
    first = decoder.conceal(960)
    assert len(first) == 320
    assert rms(first) > 1_000
    assert rms([decoder.conceal(960) for _ in range(30)][-1]) < 200


@settings(max_examples=examples(300))
@given(st.binary(max_size=200))
def test_bytes_that_are_no_packet_do_no_harm(data: bytes) -> None:
    decoder = Decoder()
    samples = decoder.decode(data)
    assert samples is None or (samples.dtype == np.int16 and 0 < len(samples) <= 1_920)
    assert len(decoder.recover(data or b"\x00", 960)) == 320
    assert decoder.decode(Encoder(RATE).silence()) is not None


def test_what_is_given_out_is_not_written_to_again() -> None:
    decoder, line = Decoder(), packets(tone(440, 200))
    first = decoder.decode(line[3])
    assert first is not None
    before = first.copy()
    for packet in line:
        decoder.decode(packet)
    assert np.array_equal(first, before)


def test_what_opus_does_not_know_is_refused() -> None:
    with pytest.raises(SettingsError, match="48000"):
        Encoder(22_050)
    with pytest.raises(SettingsError, match="bit/s"):
        Encoder(RATE, bit_rate=1)
    with pytest.raises(SettingsError, match="48000"):
        Decoder(44_100)


def test_without_a_library_the_error_says_where_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    opus.library.cache_clear()
    monkeypatch.setattr(opus, "_candidates", lambda: ["libnosuchthing.so"])
    try:
        with pytest.raises(TransportError, match="pip install"):
            Encoder(RATE)
    finally:
        opus.library.cache_clear()


def test_the_library_that_pyav_brings_is_found_first() -> None:
    names = opus._candidates()
    assert names
    assert "opus" in names[0]
