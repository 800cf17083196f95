"""The input: whatever comes from the user is one stream, in chunks of 20 ms, at one rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxline.pipeline import InputAudioFrame, InputEndedFrame, Samples, TransportError
from voxline.pipeline.audio import SILENCE_DBFS, mono, rms_dbfs
from voxline.tests.scale import examples
from voxline.tests.transports.peers import Ears
from voxline.transports.base import Transport
from voxline.transports.input import InputChunker
from voxline.transports.memory import MemoryTransport

RATE = 16_000
CHUNK = 320
CHUNK_NS = 20_000_000


def tone(count: int, rate: int, hz: float = 440, at: int = 0) -> Samples:
    return np.rint(10_000 * np.sin(2 * np.pi * hz * np.arange(at, at + count) / rate)).astype(np.int16)


def stereo(samples: Samples) -> Samples:
    """Two channels whose mean it is."""
    return np.stack([samples, samples], axis=1)


def joined(frames: list[InputAudioFrame]) -> Samples:
    return np.concatenate([np.zeros(0, np.int16), *(frame.samples for frame in frames)])


def is_well_formed(frames: list[InputAudioFrame], rate: int = RATE) -> bool:
    return all(
        frame.samples.shape == (rate // 50,) and frame.sample_rate == rate and frame.samples.dtype == np.int16
        for frame in frames
    )


SIZES = st.lists(st.integers(0, 2_000), min_size=1, max_size=40)


# --- the shape of it ------------------------------------------------------------------------------------------------


@settings(max_examples=examples(100))
@given(SIZES, st.lists(st.booleans(), min_size=40, max_size=40), st.integers(0, 10**12))
def test_at_its_own_rate_every_sample_comes_out_once_whatever_pieces_it_came_in(
    sizes: list[int], in_stereo: list[bool], begun_ns: int
):
    shape, sound, out, at = InputChunker(RATE), tone(sum(sizes), RATE), list[InputAudioFrame](), 0
    for size, two in zip(sizes, in_stereo, strict=False):
        piece = sound[at : at + size]
        pts_ns = begun_ns + at * 1_000_000_000 // RATE
        out += shape(InputAudioFrame(stereo(piece) if two else piece, RATE, pts_ns))
        at += size
        assert at - len(out) * CHUNK < CHUNK, "less than a chunk is held back"
    for number, frame in enumerate(out):
        assert frame.pts_ns is not None
        assert abs(frame.pts_ns - begun_ns - number * CHUNK_NS) <= 1
    out += shape.flush()
    assert is_well_formed(out)
    assert joined(out)[: len(sound)].tolist() == sound.tolist()
    assert not joined(out)[len(sound) :].any()
    assert len(joined(out)) - len(sound) < CHUNK


@settings(max_examples=60)
@given(
    st.sampled_from([8_000, 11_025, 16_000, 22_050, 24_000, 44_100, 48_000]),
    st.sampled_from([8_000, 16_000, 24_000, 48_000]),
    SIZES,
)
def test_at_another_rate_the_pieces_make_the_same_sound_as_one_piece(in_rate: int, rate: int, sizes: list[int]):
    sound = tone(sum(sizes), in_rate)
    once = InputChunker(rate)
    whole = joined(once(InputAudioFrame(sound, in_rate)) + once.flush())
    shape, out, at = InputChunker(rate), list[InputAudioFrame](), 0
    for size in sizes:
        out += shape(InputAudioFrame(sound[at : at + size], in_rate))
        at += size
        assert at / in_rate - len(out) * 0.02 < 0.02 + 0.005, "a chunk, and the resampler's few ms"
    out += shape.flush()
    assert is_well_formed(out, rate)
    assert len(joined(out)) == len(whole)
    assert np.abs(joined(out).astype(int) - whole).max(initial=0) <= 1
    assert abs(len(whole) - len(sound) * rate / in_rate) <= rate // 50 + 1


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from([8_000, 16_000, 22_050, 48_000]), st.integers(100, 2_000), st.booleans()),
        min_size=1,
        max_size=30,
    )
)
def test_the_rate_may_change_at_any_moment_and_nothing_is_lost(pieces: list[tuple[int, int, bool]]):
    """(FFmpeg's resampler shortens what is less than 100 samples in all.)"""
    shape, out, said_s = InputChunker(RATE), list[InputAudioFrame](), 0.0
    for rate, size, two in pieces:
        piece = np.full(size, 1_000, np.int16)
        out += shape(InputAudioFrame(stereo(piece) if two else piece, rate, round(said_s * 1e9)))
        said_s += size / rate
    told = [(number, frame.pts_ns) for number, frame in enumerate(out)]
    out += shape.flush()
    assert is_well_formed(out)
    assert said_s <= len(joined(out)) / RATE + 1.1 * len(pieces) / RATE
    assert len(joined(out)) / RATE < said_s + 0.02 + 1.1 * len(pieces) / RATE
    for number, pts_ns in told:
        assert pts_ns is not None
        # Each change of rate rounds to a sample.
        assert abs(pts_ns - number * CHUNK_NS) < 70_000 * (len(pieces) + 1)


def test_what_fits_already_passes_as_it_is():
    shape, frame = InputChunker(RATE), InputAudioFrame(tone(CHUNK, RATE), RATE, 7)
    assert shape(frame)[0] is frame


def test_times_stay_right_through_the_resampler():
    shape, out = InputChunker(RATE), list[InputAudioFrame]()
    for number in range(100):
        frame = InputAudioFrame(tone(960, 48_000, at=number * 960), 48_000, 5_000_000_000 + number * CHUNK_NS)
        out += shape(frame)
    begun = [frame.pts_ns for frame in out]
    assert begun[0] is not None
    assert abs(begun[0] - 5_000_000_000) < 100_000
    assert all(abs(pts_ns - begun[0] - number * CHUNK_NS) < 100_000 for number, pts_ns in enumerate(begun) if pts_ns)


def test_the_times_are_those_of_the_sound():
    """A click comes out at the time at which it went in."""
    for in_rate, size in [(16_000, 77), (48_000, 960), (44_100, 441), (8_000, 160)]:
        shape, out = InputChunker(RATE), list[InputAudioFrame]()
        sound = np.zeros(in_rate, np.int16)
        click = in_rate * 7 // 13
        sound[click - in_rate // 1_000 : click + in_rate // 1_000] = 20_000
        for at in range(0, in_rate, size):
            out += shape(InputAudioFrame(sound[at : at + size], in_rate, at * 1_000_000_000 // in_rate))
        for frame in out:
            loud = np.flatnonzero(np.abs(frame.samples) > 10_000)
            if len(loud):
                assert frame.pts_ns is not None
                at_s = frame.pts_ns / 1e9 + loud[0] / RATE
                assert abs(at_s - (click / in_rate - 0.001)) < 0.0008
                break
        else:
            pytest.fail("there was a click")


def test_audio_without_times_has_none():
    shape = InputChunker(RATE)
    assert [frame.pts_ns for frame in shape(InputAudioFrame(tone(1_000, RATE), RATE))] == [None] * 3


def test_the_mean_of_two_channels_is_heard():
    shape = InputChunker(RATE)
    both = np.stack([np.full(CHUNK, 100, np.int16), np.full(CHUNK, 300, np.int16)], axis=1)
    (frame,) = shape(InputAudioFrame(both, RATE))
    assert frame.samples.tolist() == mono(both).tolist() == [200] * CHUNK


def test_nothing_at_all_is_nothing():
    shape = InputChunker(RATE)
    assert shape(InputAudioFrame(np.zeros(0, np.int16), RATE)) == []
    assert shape(InputAudioFrame(np.zeros(0, np.int16), 48_000)) == []
    assert shape.flush() == []


def test_a_rate_that_has_no_20_ms_is_refused_when_the_transport_is_made():
    with pytest.raises(TransportError, match="11025 Hz has no whole number"):
        MemoryTransport(sample_rate=11_025)


# --- in a pipeline --------------------------------------------------------------------------------------------------


async def test_what_callbacks_deliver_has_the_same_shape_as_what_is_received(harness: Any):
    transport, ears = Transport(), Ears()
    bench = await harness([transport.input(), ears])
    sound = tone(48_000, 48_000)
    for at in range(0, 48_000, 700):
        transport.deliver(InputAudioFrame(stereo(sound[at : at + 700]), 48_000))
    await bench.settle()
    frames = [frame for _, frame in ears.audio()]
    assert len(frames) == 49
    assert is_well_formed(frames)


async def test_the_last_that_was_received_is_filled_up_and_heard_before_the_end(harness: Any):
    class Short(Transport):
        async def receive(self):  # type: ignore[no-untyped-def]
            yield InputAudioFrame(np.full(CHUNK + 1, 5, np.int16), RATE)

    transport, ears = Short(), Ears()
    bench = await harness([transport.input(), ears])
    await bench.settle()
    assert [type(frame) for frame in ears.frames] == [InputAudioFrame, InputAudioFrame, InputEndedFrame]
    assert ears.audio()[1][1].samples.tolist() == [5] + [0] * (CHUNK - 1)


async def test_another_worker_hears_nothing_of_the_caller_before(harness: Any):
    transport = Transport()
    for value in (1, 2):
        ears = Ears()
        bench = await harness([transport.input(), ears])
        transport.deliver(InputAudioFrame(np.full(CHUNK + 100, value, np.int16), RATE, 0))
        await bench.settle()
        ((_, frame),) = ears.audio()
        assert frame.samples.tolist() == [value] * CHUNK
        assert frame.pts_ns == 0
        await bench.close()


# --- mute and levels ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("calls", [False, True])
async def test_who_is_muted_is_silence_of_the_same_length(harness: Any, calls: bool):
    transport, ears = MemoryTransport(), Ears()
    bench = await harness([transport.input(), ears])

    async def say() -> None:
        sound = np.full(CHUNK, 500, np.int16)
        if calls:
            transport.deliver(InputAudioFrame(sound, RATE))
        else:
            transport.say(sound)
        await bench.advance(ms=20)

    await say()
    transport.mute()
    await say()
    await say()
    transport.mute(on=False)
    await say()
    assert [int(frame.samples[0]) for _, frame in ears.audio()] == [500, 0, 0, 500]
    assert is_well_formed([frame for _, frame in ears.audio()])


async def test_who_is_muted_before_the_worker_runs_is_not_heard(harness: Any):
    transport, ears = MemoryTransport(), Ears()
    transport.mute()
    transport.say(np.full(CHUNK, 500, np.int16))
    bench = await harness([transport.input(), ears])
    await bench.advance(ms=20)
    ((_, frame),) = ears.audio()
    assert not frame.samples.any()


async def test_the_level_is_that_of_the_newest_20_ms_also_of_who_is_muted(harness: Any):
    transport = MemoryTransport()
    assert transport.input_dbfs == SILENCE_DBFS
    bench = await harness([transport.input(), Ears()])
    transport.mute()
    for amplitude in (20_000, 200):
        sound = np.full(CHUNK, amplitude, np.int16)
        transport.say(sound)
        await bench.advance(ms=20)
        assert transport.input_dbfs == pytest.approx(rms_dbfs(sound))


async def test_the_users_audio_is_not_changed_by_a_mute(harness: Any):
    transport, sound = MemoryTransport(), np.full(CHUNK, 500, np.int16)
    bench = await harness([transport.input(), Ears()])
    transport.mute()
    transport.deliver(InputAudioFrame(sound, RATE))
    await bench.settle()
    assert sound.all()
