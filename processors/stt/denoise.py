"""Remove steady noise (a fan, a road, a hissing line) from speech before recognition.

An acoustic model that was trained on quiet recordings finds "f" and "s" in white noise. Here each frequency gets a gain
that depends on its level above the noise: the log-spectral amplitude estimator of Ephraim and Malah ("Speech
enhancement using a minimum mean-square error log-spectral amplitude estimator", IEEE Trans. ASSP 33(2), 1985), with
their decision-directed estimate of the signal-to-noise ratio. The noise is learned from the audio before the speech,
and from later frames without speech.

In a quiet room the audio passes unchanged.
"""

import numpy as np
import numpy.typing as npt

Reals = npt.NDArray[np.float64]

FRAME = 512
"""32 ms at 16 kHz."""
HOP = 128
LEAD_FRAMES = 25
"""200 ms of audio for the first estimate of the noise. Callers feed 300 ms from before the start of speech."""
SMOOTHING = 0.95
"""Smoothing of the signal-to-noise ratio. The usual 0.98 smears the short sounds ("t", "k") of commands."""
LEAST_GAIN = 0.1
"""-20 dB: the remaining noise keeps the decoder's silence model in its known range."""
LEAST_SNR = 10**-2.5
MOST_SNR = 1_000.0
COMFORT = 10.0
"""RMS (int16) of the white noise that is added. It fills the gaps that the gains leave, where musical tones would be
recognised as vowels.
"""
HARMLESS_NOISE = 30.0
"""RMS (int16, -61 dBFS) of harmless noise. Removing it costs words: the language model then returned "what'll avoid
day" for "what a lovely day".
"""
NOISE_RANGE = 4.0
"""6 dB: steady noise varies by less from one frame to the next, speech by more."""
LEAST_POWER = 1e-3
"""Avoids a division by zero in digital silence."""
LEARNING = 0.05
"""Weight of a frame without speech in the noise estimate: a time constant of 160 ms."""
NO_SPEECH = 0.15
"""Mean log-likelihood ratio of speech (Sohn, Kim and Sung, IEEE Signal Processing Letters 6(1), 1999) below which a
frame is noise.
"""
_WINDOW: Reals = np.sqrt(np.hanning(FRAME + 1)[:-1])
_GAIN_OF_OVERLAP = FRAME / HOP / 2


class Denoiser:
    """One utterance: int16 little-endian at 16 kHz in, the same length out, 24 ms later and at the start 200 ms."""

    def __init__(self) -> None:
        self._input: Reals = np.zeros(FRAME - HOP)
        self._sum: Reals = np.zeros(FRAME)
        self._noise: Reals | None = None
        self._passes = False
        """True in a quiet room."""
        self._speech: Reals | None = None
        """Estimated power of the speech in the last frame."""
        self._given = self._taken = 0
        self._skip = FRAME - HOP
        """Output samples left to drop: they belong to the zeros before the utterance."""
        # A fixed seed: the result of recognition must not depend on chance.
        self._random = np.random.default_rng(1)

    def feed(self, pcm: bytes | memoryview) -> bytes:
        """Add audio. Returns the audio that is ready."""
        if self._passes:
            return bytes(pcm)
        samples = np.frombuffer(pcm, "<i2").astype(np.float64)
        self._taken += len(samples)
        self._input = np.concatenate([self._input, samples])
        if self._noise is None and self._taken < LEAD_FRAMES * HOP + FRAME:
            return b""
        return self._advance()

    def flush(self) -> bytes:
        """End the utterance and return the rest. Do not feed any more."""
        if self._passes or not self._taken:
            return b""
        self._input = np.concatenate([self._input, np.zeros(FRAME)])
        rest = self._advance()
        return rest[: 2 * (self._taken - self._given + len(rest) // 2)]

    def _advance(self) -> bytes:
        count = (len(self._input) - FRAME) // HOP + 1
        if count < 1:
            return b""
        frames = np.lib.stride_tricks.sliding_window_view(self._input, FRAME)[::HOP][:count] * _WINDOW
        spectra = np.fft.rfft(frames)
        powers = np.abs(spectra) ** 2
        if self._noise is None:
            # The first frames overlap the zeros before the audio.
            before = FRAME // HOP - 1
            self._noise = _noise_of(powers[before : before + LEAD_FRAMES] if count > before else powers)
            # Parseval: the window's mean square is a half, and rfft returns half of the spectrum.
            if 2 * float(self._noise.sum()) / (FRAME * FRAME / 2) < HARMLESS_NOISE * HARMLESS_NOISE:
                self._passes = True
                return _to_pcm(self._input[FRAME - HOP : FRAME - HOP + self._taken])
        gains = np.stack([self._gain(power) for power in powers])
        cleaned = np.fft.irfft(spectra * gains) * (_WINDOW / _GAIN_OF_OVERLAP)
        made: list[Reals] = []
        for frame in cleaned:
            self._sum += frame
            made.append(self._sum[:HOP].copy())
            self._sum = np.concatenate([self._sum[HOP:], np.zeros(HOP)])
        self._input = self._input[count * HOP :]
        out = np.concatenate(made)
        skipped = min(self._skip, len(out))
        self._skip -= skipped
        out = out[skipped:]
        out = out + self._random.standard_normal(len(out)) * COMFORT
        self._given += len(out)
        return _to_pcm(out)

    def _gain(self, power: Reals) -> Reals:
        """Compute the gain of each frequency, and update the noise."""
        noise = self._noise
        assert noise is not None
        after = np.minimum(power / noise, MOST_SNR)
        above = np.maximum(after - 1, 0)
        before = above if self._speech is None else SMOOTHING * self._speech / noise + (1 - SMOOTHING) * above
        before = np.maximum(before, LEAST_SNR)
        share = before / (1 + before)
        both = after * share
        gain = np.minimum(share * np.exp(0.5 * exponential_integral(both)), 1)
        self._speech = gain * gain * power
        if float(np.mean(both - np.log1p(before))) < NO_SPEECH:
            self._noise = (1 - LEARNING) * noise + LEARNING * np.maximum(power, LEAST_POWER)
        return np.maximum(gain, LEAST_GAIN)


def _to_pcm(samples: Reals) -> bytes:
    return np.clip(np.round(samples), -32768, 32767).astype("<i2").tobytes()


def _noise_of(powers: Reals) -> Reals:
    """Estimate the noise from the first frames: the mean of the quietest ones, because others may contain speech.

    Averaged over five neighbouring frequencies, because 200 ms is too short for each alone.
    """
    loudness = powers.sum(axis=1)
    mean = powers[loudness <= loudness.min() * NOISE_RANGE + 1].mean(axis=0)
    return np.convolve(np.pad(mean, 2, mode="edge"), np.ones(5) / 5, "valid") + LEAST_POWER


def exponential_integral(x: Reals) -> Reals:
    """E1(x) for x > 0, within 5e-5 (Abramowitz and Stegun, "Handbook of Mathematical Functions", 5.1.53 and 5.1.56)."""
    x = np.maximum(x, 1e-8)
    small = np.minimum(x, 1)
    series = small * (
        0.99999193 - small * (0.24991055 - small * (0.05519968 - small * (0.00976004 - small * 0.00107857)))
    )
    large = np.maximum(x, 1)
    ratio = (large * (large + 2.334733) + 0.250621) / (large * (large + 3.330657) + 1.681534)
    return np.where(x < 1, series - 0.57721566 - np.log(small), ratio * np.exp(-large) / large)
