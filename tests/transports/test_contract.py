"""`check_transport`: good transports pass, and each rule catches one that breaks it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from voxline.pipeline import Frame, InputAudioFrame, Samples, TransportError
from voxline.pipeline.clock import Wait
from voxline.pipeline.tasks import spawn
from voxline.tests.transports.peers import CallbackPeer, FilePeer, MemoryPeer
from voxline.transports.base import Transport
from voxline.transports.contracts import ContractFailure, ContractPeer, HeardAudio, check_transport
from voxline.transports.contracts import rules as rules_of_it
from voxline.transports.contracts.sound import PITCHES, Take, pitches_in, tones
from voxline.transports.memory import MemoryTransport

MS = 1_000_000
CHUNK_NS = 20 * MS
Pair = tuple[Transport, ContractPeer]


def pair(make: Callable[[], MemoryTransport], peer: Callable[[Any], ContractPeer] = MemoryPeer) -> Callable[[], Pair]:
    def made() -> Pair:
        transport = make()
        return transport, peer(transport)

    return made


class CannotOpen(MemoryTransport):
    async def open(self) -> None:
        raise TransportError("There is no such device. These are there: none.")


# --- those that keep it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lead_ms", "output_rate"), [(0, 24_000), (20, 8_000), (45, 22_050), (200, 48_000)])
async def test_the_memory_transport_keeps_it(lead_ms: float, output_rate: int):
    report = await check_transport(
        pair(lambda: MemoryTransport(lead_ms=lead_ms, output_rate=output_rate, sample_rate=8_000)),
        cannot_open=CannotOpen,
    )
    assert len(report.checked) == len(rules_of_it.RULES) - 2 + 4
    assert [rule[:16] for rule, _ in report.skipped] == ["a user who vanis", "a user who does "]
    assert "1000 ms" in str(report)


async def test_a_transport_of_callbacks_keeps_it_at_any_rate():
    report = await check_transport(pair(MemoryTransport, CallbackPeer))
    assert len([rule for rule, _ in report.checked if "arrives" in rule]) == 6


async def test_a_transport_behind_a_bad_line_keeps_it_with_its_tolerance():
    await check_transport(
        pair(lambda: MemoryTransport(delay_ms=80), lambda transport: MemoryPeer(transport, late_ms=100))
    )


@pytest.mark.parametrize("rate", [16_000, 24_000])
async def test_the_file_transport_keeps_it(rate: int, tmp_path: Path):
    def make() -> Pair:
        peer = FilePeer(tmp_path, (8_000, 16_000, 44_100), output_rate=rate)
        peer.talk.unlink(missing_ok=True)
        return peer.transport, peer

    report = await check_transport(make)
    assert len(report.checked) == 16


class Lively(MemoryPeer):
    """Says silence all the time, until it is gone without a word; may stop to read."""

    gone_s = 8

    async def connect(self) -> None:
        self.transport.say(np.zeros(90 * self.transport.sample_rate, np.int16))

    async def say(self, samples: Samples, sample_rate: int) -> None:
        if len(self.transport._coming) > 1_000:
            self._stop()
        await super().say(samples, sample_rate)

    async def vanish(self) -> None:
        self._stop()

    async def close(self) -> None:
        self._stop()
        await super().close()

    def _stop(self) -> None:
        self.transport._coming.clear()
        self.transport._said_ns = self.transport._to_bot._last_ns = 0


async def test_a_transport_that_notices_who_is_gone_keeps_it():
    report = await check_transport(pair(lambda: MemoryTransport(silent_timeout_s=5), Lively))
    assert any(rule.startswith("a user who vanishes") for rule, _ in report.checked)


class Socket(MemoryTransport):
    """What is sent waits in a buffer that the other end empties, with a bound. ``bound``: None for none."""

    def __init__(self, bound: int | None = 50) -> None:
        super().__init__()
        self.buffer: deque[tuple[Samples, int]] = deque(maxlen=bound)
        self.stalled = False

    def send(self, samples: Samples, due_ns: int) -> None:
        if self.stalled:
            self.buffer.append((samples.copy(), due_ns))
        else:
            super().send(samples, due_ns)


class Slow(MemoryPeer):
    def stall(self, *, on: bool) -> None:
        assert isinstance(self.transport, Socket)
        self.transport.stalled = on


async def test_a_transport_with_a_bound_for_who_does_not_read_keeps_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rules_of_it, "SLOW_RESPONSES", 3)
    report = await check_transport(pair(Socket, Slow), only="a user who does not read")
    assert any(rule.startswith("a user who does not read") for rule, _ in report.checked)


# --- those that break it --------------------------------------------------------------------------------------------


async def broken(
    rule: str, make: Callable[[], MemoryTransport], peer: Callable[[Any], ContractPeer] = MemoryPeer, **options: Any
) -> str:
    """The check fails, by this rule."""
    with pytest.raises(ContractFailure) as failure:
        await check_transport(pair(make, peer), only="" if rule.startswith("when it is over") else rule, **options)
    message = str(failure.value)
    found = [part for part in message.split("\n\n")[1:] if part.startswith(f"rule:     {rule}")]
    assert found, f"another rule: {message}"
    return "\n\n".join(found)


class Swaps(MemoryTransport):
    """Sends each two chunks in the wrong order."""

    first: tuple[Samples, int] | None = None

    def send(self, samples: Samples, due_ns: int) -> None:
        if self.first is None:
            self.first = samples, due_ns
            return
        (before, before_ns), self.first = self.first, None
        super().send(samples, before_ns)
        super().send(before, due_ns)


class Counts(MemoryTransport):
    count = 0

    def counted(self) -> bool:
        self.count += 1
        return self.count % 10 == 0


class Drops(Counts):
    def send(self, samples: Samples, due_ns: int) -> None:
        if not self.counted():
            super().send(samples, due_ns)


class Doubles(Counts):
    def send(self, samples: Samples, due_ns: int) -> None:
        super().send(samples, due_ns)
        if self.counted():
            super().send(samples, due_ns)


class Silent(MemoryTransport):
    def send(self, samples: Samples, due_ns: int) -> None:
        super().send(np.where(samples > 100, samples - 1, samples), due_ns)


@pytest.mark.parametrize(
    ("make", "came"), [(Swaps, "others from"), (Drops, "ms"), (Doubles, "ms"), (Silent, "others from 0")]
)
async def test_what_is_not_heard_as_it_was_said_is_found(make: Callable[[], MemoryTransport], came: str):
    assert came in await broken("what the bot says is heard", make)


class Drifts(MemoryTransport):
    """Its card has a slow quartz."""

    def send(self, samples: Samples, due_ns: int) -> None:
        super().send(samples, due_ns)
        base_ns = self._heard[0].at_ns
        late_ns = (self._heard[-1].at_ns - base_ns) // 10_000
        self._heard[-1] = HeardAudio(self._heard[-1].at_ns + late_ns, samples)


class Bursts(MemoryTransport):
    """Sends five at a time."""

    def send(self, samples: Samples, due_ns: int) -> None:
        super().send(samples, due_ns)
        if len(self._heard) % 5 == 0:
            self._heard[-5:] = [HeardAudio(due_ns, one.samples) for one in self._heard[-5:]]


class Late(MemoryTransport):
    def send(self, samples: Samples, due_ns: int) -> None:
        super().send(samples, due_ns)
        self._heard[-1] = HeardAudio(due_ns + 100 * MS, samples)


@pytest.mark.parametrize(("make", "came"), [(Drifts, "4.9"), (Bursts, "80 ms"), (Late, "100 ms")])
async def test_what_is_not_heard_in_its_time_is_found(make: Callable[[], MemoryTransport], came: str):
    assert came in await broken("20 ms are heard each 20 ms", make)


async def test_a_record_that_comes_long_before_the_sound_is_found():
    assert "told 100 ms before" in await broken("the record of a response that was played", Late)


class Anchored(MemoryTransport):
    """Begins its schedule anew when it was late."""

    off_ns = 0

    def send(self, samples: Samples, due_ns: int) -> None:
        self.off_ns = max(self.off_ns, self.clock.now_ns() - due_ns)
        super().send(samples, due_ns)
        self._heard[-1] = HeardAudio(due_ns + self.off_ns, samples)


class GivesUp(MemoryTransport):
    """Drops what is late."""

    def send(self, samples: Samples, due_ns: int) -> None:
        if self.clock.now_ns() - due_ns < 50 * MS:
            super().send(samples, due_ns)


@pytest.mark.parametrize("make", [Anchored, GivesUp])
async def test_who_does_not_get_over_a_stall_is_found(make: Callable[[], MemoryTransport]):
    await broken("after a stall of the event loop", make)


class Deaf(MemoryTransport):
    """Has 200 ms in hand, and takes no orders."""

    def __init__(self) -> None:
        super().__init__(lead_ms=200)

    def clear(self) -> None:
        pass

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass


async def test_a_cut_that_is_heard_late_is_found():
    found = await broken("a cut is silence within one step", Deaf)
    assert "10 pieces after it, the last 195 ms later" in found
    assert "520 ms heard, as the record says" in await broken("the record of a cut says what was heard", Deaf)


class Slowly(MemoryTransport):
    """Needs 60 ms to be ready again after it has cleared."""

    deaf = 0

    def clear(self) -> None:
        super().clear()
        self.deaf = 3

    def send(self, samples: Samples, due_ns: int) -> None:
        if self.deaf:
            self.deaf -= 1
        else:
            super().send(samples, due_ns)


async def test_who_loses_the_beginning_of_the_next_response_is_found():
    await broken("the next response is heard at once after a cut", Slowly)


class Forgets(MemoryTransport):
    """Clears more than it should."""

    def clear(self) -> None:
        super().clear()
        del self._heard[-2:]


async def test_a_record_that_says_more_than_was_heard_is_found():
    assert "480 ms" in await broken("the record of a cut says what was heard", Forgets)


class HaltsByForgetting(MemoryTransport):
    def __init__(self) -> None:
        super().__init__(lead_ms=100)

    def pause(self) -> None:
        self.clear()


class Stutters(MemoryTransport):
    """Says the last 20 ms again when it goes on."""

    def resume(self) -> None:
        super().resume()
        self._heard.append(HeardAudio(self.clock.now_ns(), self._heard[-1].samples))


@pytest.mark.parametrize(
    ("make", "came"), [(Deaf, "10 pieces of sound"), (HaltsByForgetting, "19"), (Stutters, "2020 ms")]
)
async def test_a_pause_that_is_none_or_costs_sound_is_found(make: Callable[[], MemoryTransport], came: str):
    assert came in await broken("a pause is silence within one step", make)


class KeepsInPause(MemoryTransport):
    """A cut does not reach what it keeps in a pause."""

    def __init__(self) -> None:
        super().__init__(lead_ms=100)

    def clear(self) -> None:
        if not self._paused:
            super().clear()


async def test_what_is_heard_after_a_pause_though_it_was_cut_is_found():
    await broken("a response that is cut in a pause", KeepsInPause)


class Stops(MemoryTransport):
    """Plays nothing any more when nobody listens."""

    async def receive(self) -> AsyncIterator[Frame]:
        self.listening = True
        try:
            async for frame in super().receive():
                yield frame
        finally:
            self.listening = False

    def send(self, samples: Samples, due_ns: int) -> None:
        if self.listening:
            super().send(samples, due_ns)


async def test_an_answer_that_is_lost_when_the_worker_is_stopped_is_found():
    await broken("a worker that is stopped while the bot speaks", Stops)


class Flushes(MemoryTransport):
    """Plays the rest when it is closed."""

    def __init__(self) -> None:
        super().__init__(lead_ms=400)

    async def close(self) -> None:
        self._heard += [HeardAudio(due_ns, samples) for due_ns, samples in self._ahead]
        await super().close()


async def test_what_is_heard_after_a_worker_was_cancelled_is_found():
    await broken("a worker that is cancelled", Flushes)


class Unnoticed(MemoryPeer):
    gone_s = end_s = 2

    async def close(self) -> None:
        pass

    async def vanish(self) -> None:
        pass


async def test_a_user_who_is_gone_and_nobody_notices_is_found():
    assert "within 2 s\ncame:     neither" in await broken("a user who hangs up", MemoryTransport, Unnoticed)
    await broken("a user who vanishes", MemoryTransport, Unnoticed)


class Announced(MemoryPeer):
    announced = True
    end_s = 1


async def test_a_client_that_is_not_announced_is_found():
    assert "a ClientConnectedFrame within 1 s" in await broken("what the bot says", MemoryTransport, Announced)


async def test_a_buffer_without_a_bound_is_found(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rules_of_it, "SLOW_RESPONSES", 3)
    assert "MiB" in await broken("a user who does not read", lambda: Socket(bound=None), Slow)


class Loses(MemoryTransport):
    async def receive(self) -> AsyncIterator[Frame]:
        count = 0
        async for frame in super().receive():
            count += 1
            if count % 5:
                yield frame


class Lies(MemoryTransport):
    """Says another rate than it has."""

    async def receive(self) -> AsyncIterator[Frame]:
        async for frame in super().receive():
            assert isinstance(frame, InputAudioFrame)
            yield frame.with_samples(frame.samples, 12_000)


class Stands(MemoryTransport):
    """Its times stand still."""

    async def receive(self) -> AsyncIterator[Frame]:
        async for frame in super().receive():
            assert isinstance(frame, InputAudioFrame)
            yield InputAudioFrame(frame.samples, frame.sample_rate, 0)


class Mute(MemoryTransport):
    async def receive(self) -> AsyncIterator[Frame]:
        await Wait()
        for nothing in ():
            yield nothing


@pytest.mark.parametrize("make", [Loses, Lies, Stands, Mute])
async def test_what_does_not_arrive_as_it_was_said_is_found(make: Callable[[], MemoryTransport]):
    await broken("what the user says arrives", make)


class Once(MemoryTransport):
    opened = False

    async def open(self) -> None:
        if self.opened:
            raise TransportError("The port is taken.")
        self.opened = True


async def test_what_cannot_be_used_again_is_found():
    assert "The port is taken." in await broken("when a worker has ended", Once)


class LeavesATask(MemoryTransport):
    async def open(self) -> None:
        async def forever() -> None:
            await Wait()

        self.task = spawn(forever(), "forever")


class LeavesATimer(MemoryTransport):
    async def open(self) -> None:
        self.clock.call_at(self.clock.now_ns() + 10**15, self.hang_up)


class Raises(MemoryTransport):
    async def close(self) -> None:
        raise OSError("it is gone already")


@pytest.mark.parametrize(
    ("make", "came"),
    [(LeavesATask, "A task is left: forever"), (LeavesATimer, "hang_up()"), (Raises, "it is gone already")],
)
async def test_what_is_left_when_it_is_over_is_found(
    make: Callable[[], MemoryTransport], came: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("voxline.transports.contracts.call.GRACE_S", 0.05)
    assert came in await broken("when it is over nothing is left", make)


class Wrong(MemoryTransport):
    async def open(self) -> None:
        raise ValueError("no")


class Long(MemoryTransport):
    async def open(self) -> None:
        raise TransportError("Traceback:\n  a line\n  another")


@pytest.mark.parametrize(
    ("fails", "came"), [(MemoryTransport, "one that does"), (Wrong, "ValueError"), (Long, "Traceback")]
)
async def test_an_open_that_fails_in_a_bad_way_is_found(fails: Callable[[], MemoryTransport], came: str):
    assert came in await broken("an open() that fails", MemoryTransport, cannot_open=fails)


class Hangs(MemoryPeer):
    async def connect(self) -> None:
        await Wait()


async def test_who_hangs_is_found():
    assert "do not hang" in await broken("what the bot says", MemoryTransport, Hangs, patience_s=0.1)


class Clumsy(MemoryPeer):
    async def say(self, samples: Samples, sample_rate: int) -> None:
        raise RuntimeError("no microphone")


async def test_an_exception_is_told_with_its_rule_and_the_others_are_checked_all_the_same():
    found = await broken("what the user says arrives", MemoryTransport, Clumsy)
    assert "RuntimeError: no microphone" in found


async def test_all_that_is_broken_is_told_at_once():
    with pytest.raises(ContractFailure) as failure:
        await check_transport(pair(Deaf))
    message = str(failure.value)
    assert message.startswith("Deaf breaks the contract of a transport.")
    assert message.count("rule:     ") >= 4
    assert message.count("expected: ") == message.count("came:     ") == message.count("rule:     ")


# --- the sounds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000, 48_000])
def test_tones_are_known_by_their_pitch_after_loss_and_noise(rate: int):
    sound = tones(1_400, rate)
    assert pitches_in(sound, rate) == list(PITCHES)
    noise = np.random.default_rng(1).normal(0, 1_500, len(sound))
    assert pitches_in(np.clip(sound + noise, -32_768, 32_767).astype(np.int16), rate) == list(PITCHES)
    assert sound.all(), "no sample is 0"


def test_a_take_says_when_and_how_much_was_heard_and_what_holes_it_had():
    sound, silence = tones(20, 16_000), np.zeros(320, np.int16)
    pieces = [silence, sound, sound, silence, sound, silence]
    take = Take([HeardAudio(number * CHUNK_NS, one) for number, one in enumerate(pieces)], 16_000, exact=False)
    assert (take.begun_ns, take.ended_ns, take.ms, take.hole_ms) == (20 * MS, 100 * MS, 60, 20)
    assert [late for _, late in take.lateness_ms()] == [0, 0, 0]
