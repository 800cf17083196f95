"""The file transport: any sound file in, in time; a stereo recording of both sides out, to the sample."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from voxline.pipeline import (
    AudioFormat,
    Frame,
    FrameProcessor,
    InputAudioFrame,
    InputEndedFrame,
    LifecycleError,
    Outcome,
    OutputAudioFrame,
    Pipeline,
    PipelineWorker,
    ResponseEndFrame,
    Samples,
    TransportError,
    VirtualClock,
    handles,
)
from voxline.transports.file import BOT, CALLER, AudioReader, FileTransport, StereoWriter

NS_PER_MS = 1_000_000


full_disk = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")


def tone(seconds: float, rate: int = 16_000, hz: float = 440.0) -> Samples:
    return (np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate) * 10_000).astype(np.int16)


def wav(path: Path, samples: Samples, rate: int = 16_000, subtype: str = "PCM_16") -> Path:
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


def contents(path: Path) -> bytes:
    return path.read_bytes()


class Ear(FrameProcessor):
    """Hears the caller, and answers after ``answer_at_ms`` with ``answer``."""

    def __init__(self, answer: Samples | None = None, answer_at_ms: float = 0, rate: int = 24_000) -> None:
        self.heard: list[tuple[float, InputAudioFrame]] = []
        self.ended_ms: float | None = None
        self._answer, self._at_ms, self._rate = answer, answer_at_ms, rate

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        return {OutputAudioFrame: AudioFormat((self._rate,), (1,))}

    @handles(InputAudioFrame)
    async def hear(self, frame: InputAudioFrame) -> None:
        at_ms = self.now_ns / NS_PER_MS
        self.heard.append((at_ms, frame))
        if self._answer is not None and at_ms >= self._at_ms:
            answer, self._answer = self._answer, None
            await self.push(OutputAudioFrame(answer, self._rate), response=self.new_response())
            await self.push(ResponseEndFrame(), response=1)

    @handles(InputEndedFrame)
    async def hang_up(self, frame: InputEndedFrame) -> None:
        self.ended_ms = self.now_ns / NS_PER_MS

    def samples(self) -> Samples:
        return np.concatenate([frame.samples for _, frame in self.heard])


async def run(transport: FileTransport, ear: Ear) -> Outcome:
    pipeline = Pipeline([transport.input(), ear, transport.output()])
    return await PipelineWorker(pipeline, clock=VirtualClock()).run()


# --- in -----------------------------------------------------------------------------------------------------


async def test_a_file_is_heard_in_time(tmp_path: Path):
    sound, ear = tone(0.1), Ear()
    transport = FileTransport(input=wav(tmp_path / "in.wav", sound), tail_ms=40)
    outcome = await run(transport, ear)
    assert outcome == Outcome("ended")
    begun = ear.heard[0][0] - 20
    assert [at - begun for at, _ in ear.heard] == [20, 40, 60, 80, 100, 120, 140], "when each 20 ms are over"
    assert [frame.pts_ns for _, frame in ear.heard] == [20 * k * NS_PER_MS for k in range(7)]
    assert ear.samples().tolist() == sound.tolist() + [0] * 640
    assert ear.ended_ms == ear.heard[-1][0]


async def test_the_last_20_ms_are_filled_up(tmp_path: Path):
    ear = Ear()
    await run(FileTransport(input=wav(tmp_path / "in.wav", tone(0.031)), tail_ms=0), ear)
    assert len(ear.samples()) == 640


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [
        ("stereo.wav", 44_100, 2, "PCM_16"),
        ("small.wav", 8_000, 1, "PCM_U8"),
        ("float.wav", 48_000, 1, "FLOAT"),
        ("wide.wav", 22_050, 2, "PCM_24"),
        ("phone.wav", 8_000, 1, "ULAW"),
        ("five.wav", 16_000, 5, "PCM_16"),
        ("packed.flac", 32_000, 1, "PCM_16"),
        ("vorbis.ogg", 44_100, 1, "VORBIS"),
        ("song.mp3", 44_100, 1, "MPEG_LAYER_III"),
    ],
)
def test_any_format_becomes_mono_at_16_khz(tmp_path: Path, name: str, rate: int, channels: int, subtype: str):
    sound = np.stack([tone(1.0, rate).astype(np.float32) / 32_768] * channels, axis=1)
    soundfile.write(tmp_path / name, sound, rate, subtype=subtype)
    reader = AudioReader(tmp_path / name, 16_000)
    read = reader.read(100_000)
    reader.close()
    assert read.dtype == np.int16
    assert len(read) == pytest.approx(16_000, abs={"song.mp3": 1_200, "vorbis.ogg": 64}.get(name, 2))
    middle = read[4_000:12_000].astype(float)
    assert np.sqrt(np.mean(middle**2)) == pytest.approx(10_000 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize(("name", "codec"), [("talk.m4a", "aac"), ("talk.webm", "libopus")])
def test_what_soundfile_does_not_read_is_read_with_av(tmp_path: Path, name: str, codec: str):
    container: Any
    with av.open(str(tmp_path / name), "w") as container:
        stream: Any = container.add_stream(codec, rate=48_000, layout="mono")  # pyright: ignore[reportUnknownMemberType]
        frame = av.AudioFrame.from_ndarray(tone(1.0, 48_000).reshape(1, -1), "s16", "mono")
        frame.sample_rate = 48_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    reader = AudioReader(tmp_path / name, 16_000)
    read = reader.read(100_000)
    reader.close()
    assert len(read) == pytest.approx(16_000, abs=1_200)
    assert np.abs(read).max() > 8_000


@pytest.mark.parametrize(
    ("name", "subtype"), [("song.mp3", "MPEG_LAYER_III"), ("talk.ogg", "VORBIS"), ("in.wav", "PCM_16")]
)
def test_reading_a_bit_at_a_time_is_reading_it_whole(tmp_path: Path, name: str, subtype: str):
    soundfile.write(tmp_path / name, tone(2.0) / 32_768, 16_000, subtype=subtype)
    whole, parts = AudioReader(tmp_path / name, 16_000), AudioReader(tmp_path / name, 16_000)
    expected = whole.read(100_000)
    pieces = [parts.read(320) for _ in range(110)]
    assert np.concatenate(pieces).tolist() == expected.tolist()
    reference, _ = soundfile.read(tmp_path / name, dtype="float32")
    assert np.abs(expected[1_000:30_000] / 32_768 - reference[1_000:30_000]).max() < 0.001


def test_loud_floats_are_clipped_and_no_numbers_are_silence(tmp_path: Path):
    soundfile.write(tmp_path / "in.wav", np.array([2.0, -2.0, np.nan, 0.5], np.float32), 16_000, subtype="FLOAT")
    assert AudioReader(tmp_path / "in.wav", 16_000).read(9).tolist() == [32_767, -32_768, 0, 16_384]


def test_a_file_of_hours_takes_no_memory(tmp_path: Path):
    """Four hours at 44.1 kHz stereo, 2.5 GB, that are a hole in the disk."""
    path = wav(tmp_path / "long.wav", np.zeros((1, 2), np.int16), 44_100)
    with path.open("r+b") as file:
        size = 4 * 3_600 * 44_100 * 4
        header = bytearray(file.read(44))
        header[4:8] = (size + 36).to_bytes(4, "little")
        header[40:44] = size.to_bytes(4, "little")
        file.seek(0)
        file.write(header)
        file.truncate(44 + size)
    reader = AudioReader(path, 16_000)
    reader.read(16_000)
    tracemalloc.start()
    try:
        for _ in range(60 * 50):
            assert len(reader.read(320)) == 320
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        reader.close()
    assert peak < 1_000_000


def missing(path: Path) -> Path:
    return path / "nobody.wav"


def empty(path: Path) -> Path:
    (path / "empty.wav").touch()
    return path / "empty.wav"


def no_audio(path: Path) -> Path:
    (path / "notes.wav").write_text("Call me tomorrow. " * 100)
    return path / "notes.wav"


def raw(path: Path) -> Path:
    (path / "noise.raw").write_bytes(bytes(range(1, 200)))
    return path / "noise.raw"


def silent_header(path: Path) -> Path:
    return wav(path / "header.wav", np.zeros(0, np.int16))


def folder(path: Path) -> Path:
    return path


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (missing, "There is no file .*nobody.wav .*Give the path of a sound file: WAV, FLAC"),
        (empty, r"empty.wav is empty \(0 bytes\)"),
        (no_audio, "notes.wav (is not a readable sound file|contains no audio). Use WAV"),
        (raw, "noise.raw (is not a readable sound file|contains no audio)"),
        (silent_header, "header.wav is an empty sound file"),
        (folder, "is a folder. Give a sound file"),
    ],
)
async def test_what_cannot_be_played_is_said_before_the_first_frame(
    tmp_path: Path, make: Callable[[Path], Path], says: str
):
    before = contents(wav(tmp_path / "talk.wav", tone(0.1)))
    ear = Ear()
    with pytest.raises(LifecycleError, match=says) as raised:
        await run(FileTransport(input=make(tmp_path), output=tmp_path / "talk.wav"), ear)
    assert isinstance(raised.value.__cause__, TransportError)
    assert ear.heard == []
    assert contents(tmp_path / "talk.wav") == before, "an older recording is not lost"


async def test_a_missing_input_leaves_no_output(tmp_path: Path):
    with pytest.raises(LifecycleError, match="There is no file"):
        await run(FileTransport(input=tmp_path / "nobody.wav", output=tmp_path / "talk.wav"), Ear())
    assert not os.listdir(tmp_path)


async def test_a_file_that_is_cut_off_is_heard_as_far_as_it_goes(tmp_path: Path):
    path = wav(tmp_path / "in.wav", tone(1.0))
    path.write_bytes(path.read_bytes()[:16_044])
    ear = Ear()
    assert (await run(FileTransport(input=path, tail_ms=0), ear)).reason == "ended"
    assert ear.samples()[:8_000].tolist() == tone(0.5).tolist()


def test_a_transport_without_an_input_says_so():
    with pytest.raises(TransportError, match="has no input"):
        FileTransport(output="talk.wav").input()


# --- out ----------------------------------------------------------------------------------------------------


async def test_both_sides_stand_where_they_were_heard(tmp_path: Path):
    caller = tone(1.0)
    transport = FileTransport(
        input=wav(tmp_path / "in.wav", caller), output=tmp_path / "talk.wav", output_rate=16_000, tail_ms=0
    )
    ear = Ear(tone(0.3), 400, 16_000)
    outcome = await run(transport, ear)
    assert outcome.errors == ()
    talk, rate = soundfile.read(tmp_path / "talk.wav", dtype="int16")
    assert rate == 16_000
    assert len(talk) == 16_000
    assert talk[:, 0].tolist() == caller.tolist()
    assert talk[:6_400, 1].tolist() == [0] * 6_400, "the answer is asked for when 400 ms are heard"
    assert talk[6_400 : 6_400 + 4_800, 1].tolist() == tone(0.3).tolist()
    assert not talk[6_400 + 4_800 :, 1].any()


async def test_the_bot_may_finish_when_the_caller_has_ended(tmp_path: Path):
    transport = FileTransport(input=wav(tmp_path / "in.wav", tone(0.2)), output=tmp_path / "talk.wav", tail_ms=100)
    await run(transport, Ear(tone(2.0, 24_000), 200))
    talk, rate = soundfile.read(tmp_path / "talk.wav", dtype="int16")
    assert rate == 24_000
    assert len(talk) == round(2.2 * 24_000)
    assert talk[-48_000:, 1].tolist() == tone(2.0, 24_000).tolist()


async def test_the_same_run_gives_the_same_recording(tmp_path: Path):
    path = wav(tmp_path / "in.wav", tone(0.5, 44_100), 44_100)
    recordings: list[bytes] = []
    for _ in range(2):
        await run(FileTransport(input=path, output=tmp_path / "talk.wav"), Ear(tone(0.3, 24_000), 100))
        recordings.append(contents(tmp_path / "talk.wav"))
    assert recordings[0] == recordings[1]


async def test_the_recording_must_not_replace_its_caller(tmp_path: Path):
    path = wav(tmp_path / "in.wav", tone(0.1))
    with pytest.raises(LifecycleError, match="both the caller's file and the recording"):
        await run(FileTransport(input=path, output=path), Ear())
    assert soundfile.info(path).frames == 1_600


@pytest.mark.parametrize(
    ("output", "says"),
    [
        ("folder", "is a folder. Give the name of the WAV file"),
        ("nowhere/talk.wav", "There is no folder .*nowhere: create it first"),
        ("in.wav/talk.wav", "cannot be written: Not a directory"),
        pytest.param("/dev/full", "/dev/full cannot be written: No space left on device", marks=full_disk),
    ],
)
async def test_what_cannot_be_written_is_said_before_the_first_frame(tmp_path: Path, output: str, says: str):
    (tmp_path / "folder").mkdir()
    ear = Ear()
    with pytest.raises(LifecycleError, match=says):
        await run(FileTransport(input=wav(tmp_path / "in.wav", tone(0.1)), output=tmp_path / output), ear)
    assert ear.heard == []


# --- the writer ---------------------------------------------------------------------------------------------


def test_the_recording_can_be_played_while_it_is_written(tmp_path: Path):
    with StereoWriter(tmp_path / "talk.wav", 8_000) as writer:
        for second in range(20):
            writer.write(CALLER, second * 8_000, tone(1.0, 8_000))
        info = soundfile.info(tmp_path / "talk.wav")
        assert info.frames >= (20 - 7) * 8_000
    assert soundfile.info(tmp_path / "talk.wav").frames == 160_000


def test_what_nothing_was_written_to_is_silence(tmp_path: Path):
    with StereoWriter(tmp_path / "talk.wav", 8_000) as writer:
        writer.write(BOT, 100_000, np.full(10, 7, np.int16))
    talk, _ = soundfile.read(tmp_path / "talk.wav", dtype="int16")
    assert talk.shape == (100_010, 2)
    assert not talk[:100_000].any()
    assert talk[100_000:, 1].tolist() == [7] * 10


def test_the_two_sides_may_be_some_seconds_apart(tmp_path: Path):
    left, right = tone(30.0, 8_000), tone(30.0, 8_000, 300.0)
    with StereoWriter(tmp_path / "talk.wav", 8_000) as writer:
        for second in range(33):
            if second < 30:
                writer.write(CALLER, second * 8_000, left[second * 8_000 : (second + 1) * 8_000])
            if second >= 3:
                at = (second - 3) * 8_000
                writer.write(BOT, at, right[at : at + 8_000])
    talk, _ = soundfile.read(tmp_path / "talk.wav", dtype="int16")
    assert talk[:, 0].tolist() == left.tolist()
    assert talk[:, 1].tolist() == right.tolist()
    assert writer.late == 0


def test_what_comes_too_late_is_counted(tmp_path: Path):
    with StereoWriter(tmp_path / "talk.wav", 8_000) as writer:
        writer.write(CALLER, 0, tone(20.0, 8_000))
        writer.write(BOT, 0, tone(1.0, 8_000))
        assert writer.late == 8_000


def test_a_recording_of_hours_takes_no_memory(tmp_path: Path):
    """An hour of silence goes to the disk in blocks of a second."""
    with StereoWriter(tmp_path / "talk.wav", 1_000) as writer:
        tracemalloc.start()
        try:
            writer.write(BOT, 3_600 * 1_000, np.ones(1, np.int16))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 200_000
    assert soundfile.info(tmp_path / "talk.wav").frames == 3_600 * 1_000 + 1


def test_nothing_written_leaves_no_file(tmp_path: Path):
    StereoWriter(tmp_path / "talk.wav", 8_000).close()
    assert list(tmp_path.iterdir()) == []


@full_disk
def test_a_disk_that_fills_up_ends_the_recording_and_says_so_once(tmp_path: Path):
    writer = StereoWriter(tmp_path / "talk.wav", 8_000)
    writer._file.close()
    writer._file = open("/dev/full", "wb")  # noqa: SIM115
    with pytest.raises(TransportError, match=r"ends after \d.* s: No space left"):
        writer.write(CALLER, 0, tone(20.0, 8_000))
    writer.write(CALLER, 160_000, tone(20.0, 8_000))
    writer.close()
