"""The transport, in virtual time and without a network: peers that come and go, pacing, cuts, marks, slow peers."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from voxline.pipeline import (
    BotStoppedSpeakingFrame,
    ClientConnectedFrame,
    ClientDisconnectedFrame,
    ClientMessageFrame,
    InputTextFrame,
    InterruptRequestFrame,
    OutputAudioFrame,
    PausePlayoutFrame,
    Pipeline,
    PipelineWorker,
    ResponseCutFrame,
    ResponseEndFrame,
    ResponsePlayedFrame,
    ResumePlayoutFrame,
    ServerMessageFrame,
    SpokenWord,
    VirtualClock,
)
from voxline.tests.transports.websocket.conftest import MakeStage
from voxline.tests.transports.websocket.peers import START, FakeSocket, Notes, Stage, loud, tone
from voxline.transports.websocket import RawSerializer, TwilioSerializer, WebSocketTransport

MS = 24
"""Samples in a millisecond of what the raw client hears."""


def speech(ms: float, *words: tuple[str, float]) -> OutputAudioFrame:
    return OutputAudioFrame(tone(ms, 24_000), 24_000, tuple(SpokenWord(text, at) for text, at in words))


async def answer(stage: Stage, ms: float, *words: tuple[str, float], response: int = 1) -> None:
    await stage.bench.send(speech(ms, *words), ResponseEndFrame(), response=response)


# --- coming and going -------------------------------------------------------------------------------------------------


async def test_a_client_is_connected_when_it_has_started(stages: MakeStage):
    stage = await stages()
    socket = await stage.connect('{"type": "text", "text": "early"}')
    assert socket.texts == [{"type": "start", "sample_rate": 24_000}]
    assert stage.notes.rest == [InputTextFrame("early")]
    await stage.say(socket, START)
    assert stage.notes.rest[1:] == [ClientConnectedFrame()]


async def test_a_client_of_a_protocol_without_a_start_is_connected_at_once(stages: MakeStage):
    class Bare(RawSerializer):
        announced = False

    stage = await stages(Bare())
    await stage.connect(START)
    assert stage.notes.rest[0] == ClientConnectedFrame()


async def test_what_the_client_says_comes_in_order(stages: MakeStage):
    stage = await stages()
    socket = await stage.connect()
    for message in (
        '{"type": "text", "text": "Hello.", "interrupt": false}',
        '{"type": "interrupt"}',
        '{"type": "message", "kind": "menu", "data": [1], "id": "7"}',
    ):
        await stage.say(socket, message)
    assert stage.notes.rest[1:] == [
        InputTextFrame("Hello.", False),
        InterruptRequestFrame(),
        ClientMessageFrame("menu", "[1]", "7"),
    ]


async def test_the_clients_audio_comes_at_the_pipelines_rate_in_20_ms(stages: MakeStage):
    stage = await stages(sample_rate=16_000)
    socket = await stage.connect('{"type": "start", "sample_rate": 48000}')
    said = tone(200, 48_000)
    for at in range(0, len(said), 128 * 4):
        await stage.say(socket, said[at : at + 128 * 4].tobytes())
    heard = np.concatenate([frame.samples for frame in stage.notes.audio])
    assert {(frame.sample_rate, len(frame.samples)) for frame in stage.notes.audio} == {(16_000, 320)}
    assert len(heard) >= 16_000 * 180 // 1000
    assert np.max(np.abs(heard[320:-320] - tone(200)[320 : len(heard) - 320].astype(np.int32))) < 800


@pytest.mark.parametrize("code", [1000, 0])
async def test_a_client_that_says_good_bye_ends_the_conversation(stages: MakeStage, code: int):
    stage = await stages()
    socket = await stage.connect()
    await socket.hang_up(code)
    await stage.ended()
    assert (await stage.bench.worker.finished()).reason == "ended"
    assert stage.notes.rest[-1] == ClientDisconnectedFrame("the client closed the connection")


@pytest.mark.parametrize("how", ["vanish", "leave the page"])
async def test_a_client_that_is_lost_may_come_back(stages: MakeStage, how: str):
    stage = await stages(reconnect_s=20)
    socket = await stage.connect()
    await (socket.vanish() if how == "vanish" else socket.hang_up(1001))
    await stage.advance(19_999)
    assert stage.bench.worker.running
    await stage.connect()
    await stage.advance(60_000)
    connected = [type(frame) for frame in stage.notes.rest]
    assert connected == [ClientConnectedFrame, ClientDisconnectedFrame, ClientConnectedFrame]
    assert stage.bench.worker.running


async def test_the_conversation_of_a_client_that_does_not_come_back_ends(stages: MakeStage):
    stage = await stages(reconnect_s=20)
    socket = await stage.connect()
    await socket.vanish()
    await stage.advance(20_000)
    assert (await stage.bench.worker.finished()).reason == "ended"


async def test_a_worker_that_nobody_connects_to_ends(stages: MakeStage):
    stage = await stages(connect_timeout_s=5)
    await stage.advance(4_999)
    assert stage.bench.worker.running
    await stage.advance(1)
    assert (await stage.bench.worker.finished()).reason == "ended"


async def test_a_client_that_connects_and_never_starts_does_not_keep_the_worker(stages: MakeStage):
    stage = await stages(connect_timeout_s=5)
    socket = await stage.connect('{"type": "interrupt"}')
    await stage.advance(5_000)
    assert (await stage.bench.worker.finished()).reason == "ended"
    await stage.ended()
    assert socket.closed == (1000, "The conversation is over.")


async def test_a_silent_client_is_cut_off_and_may_come_back(stages: MakeStage):
    stage = await stages(silent_timeout_s=10, reconnect_s=20)
    socket = await stage.connect()
    await stage.advance(9_000)
    await stage.say(socket, bytes(640))
    await stage.advance(9_999)
    assert socket.closed is None
    await stage.advance(1)
    await asyncio.wait_for(stage.ended(), 30)
    assert socket.closed == (1008, "Time is up: nothing came for 10 s.")
    assert stage.notes.rest[-1] == ClientDisconnectedFrame("nothing came for 10 s")
    await stage.connect()
    assert stage.notes.rest[-1] == ClientConnectedFrame()


async def test_another_client_takes_the_place_of_the_first(stages: MakeStage):
    stage = await stages()
    first = await stage.connect()
    second = await stage.connect()
    assert first.closed == (1000, "Another connection took the place of this one.")
    assert second.closed is None
    assert stage.notes.rest == [
        ClientConnectedFrame(),
        ClientDisconnectedFrame("another connection took its place"),
        ClientConnectedFrame(),
    ]
    await answer(stage, 20)
    assert (len(first.audio), len(second.audio)) == (0, 1)
    await stage.advance(30_000)
    assert stage.bench.worker.running


async def test_the_end_of_the_worker_closes_the_connection(stages: MakeStage):
    stage = await stages()
    socket = await stage.connect()
    await stage.bench.worker.stop()
    await stage.ended()
    assert socket.closed == (1000, "The conversation is over.")


async def test_who_connects_after_the_end_has_hung_up_is_told_so(stages: MakeStage):
    stage = await stages()
    stage.transport.hang_up()
    socket = FakeSocket()
    await stage.transport.serve(socket)
    assert socket.closed == (1000, "The conversation is over.")


async def test_a_client_may_connect_before_the_worker_runs_and_another_after_it_has_ended():
    transport, notes = WebSocketTransport(), Notes()

    async def conversation(text: str) -> None:
        worker = PipelineWorker(Pipeline([transport.input(), notes, transport.output()]), clock=VirtualClock())
        socket = FakeSocket()
        serving = asyncio.create_task(transport.serve(socket))
        await socket.say(START)
        await socket.say(json.dumps({"type": "text", "text": text}))
        await socket.hang_up()
        assert (await worker.run()).reason == "ended"
        await serving

    await conversation("one")
    await conversation("two")
    gone = ClientDisconnectedFrame("the client closed the connection")
    assert notes.rest == [
        ClientConnectedFrame(),
        InputTextFrame("one"),
        gone,
        ClientConnectedFrame(),
        InputTextFrame("two"),
        gone,
    ]


async def test_a_client_that_talks_before_there_is_a_worker_is_bounded():
    transport = WebSocketTransport()
    transport.input()
    socket = FakeSocket()
    serving = asyncio.create_task(transport.serve(socket))
    await socket.say(START)
    for _ in range(2_000):
        if socket.closed is None:
            await socket.say(bytes(640))
    await serving
    assert socket.closed == (1013, "The bot does not run yet.")


# --- what is wrong ----------------------------------------------------------------------------------------------------


async def test_a_client_that_speaks_wrongly_is_told_why_and_the_worker_goes_on(stages: MakeStage):
    stage = await stages()
    socket = await stage.connect()
    await stage.say(socket, b"\x00")
    await stage.ended()
    assert socket.closed == (1007, "Audio has 16 bits per sample: send an even number of bytes.")
    assert stage.notes.rest[-1] == ClientDisconnectedFrame(
        "Audio has 16 bits per sample: send an even number of bytes."
    )
    await stage.connect()
    assert stage.notes.rest[-1] == ClientConnectedFrame()


async def test_a_serializer_that_fails_says_nothing_of_what_was_said(
    stages: MakeStage, caplog: pytest.LogCaptureFixture
):
    class Broken(RawSerializer):
        def decode(self, message: str | bytes) -> list[InputTextFrame]:
            raise KeyError(message)

    stage = await stages(Broken())
    socket = await stage.connect("my secret")
    assert socket.closed == (1011, "The message could not be processed.")
    shown = [record for record in caplog.records if record.levelname != "DEBUG"]
    assert [record.getMessage() for record in shown] == [
        "WebSocketTransport: KeyError while reading a message; the connection is closed"
    ]
    assert all(record.exc_info is None for record in shown)


async def test_audio_that_comes_faster_than_it_is_spoken_is_refused_after_10_s(stages: MakeStage):
    stage = await stages()
    socket = await stage.connect()
    for _ in range(10):
        await stage.say(socket, bytes(32_000))
    assert socket.closed is None
    await stage.advance(1_000)
    await stage.say(socket, bytes(32_000))
    assert socket.closed is None
    await stage.say(socket, bytes(32_000))
    assert socket.closed == (1008, "Audio is 10 s ahead: send it as fast as it is spoken.")


async def test_who_sends_only_while_a_button_is_held_is_silent_a_second_later(stages: MakeStage):
    stage = await stages()
    socket = await stage.connect()
    # Three seconds at once: a network had them.
    await stage.say(socket, tone(3_000).tobytes())
    await stage.advance(3_979)
    assert len(stage.notes.audio) == 150
    await stage.advance(21)
    silence = np.concatenate([frame.samples for frame in stage.notes.audio[150:]])
    assert len(silence) == 16_000
    assert not silence.any()
    # Once, until something comes again.
    await stage.advance(60_000)
    assert len(stage.notes.audio) == 200
    await stage.say(socket, tone(20).tobytes())
    await stage.advance(2_000)
    assert len(stage.notes.audio) == 251


async def test_of_a_client_that_is_lost_no_silence_is_made(stages: MakeStage):
    stage = await stages()
    socket = await stage.connect()
    await stage.say(socket, tone(20).tobytes())
    await socket.vanish()
    await stage.advance(5_000)
    assert len(stage.notes.audio) == 1


async def test_more_messages_than_a_thousand_in_a_second_are_refused(stages: MakeStage):
    stage = await stages()
    socket = await stage.connect()
    for _ in range(998):
        await socket.say('{"type": "interrupt"}')
    await stage.advance(1_000)
    for _ in range(1_000):
        await socket.say('{"type": "interrupt"}')
    assert socket.closed is None
    await socket.say('{"type": "interrupt"}')
    assert socket.closed == (1008, "More than 1000 messages per second.")


# --- speaking ---------------------------------------------------------------------------------------------------------


async def test_speech_leaves_in_20_ms_with_the_lead_before_it_is_due(stages: MakeStage):
    stage = await stages(lead_ms=60)
    socket = await stage.connect()
    await answer(stage, 400)
    await stage.advance(1_000)
    assert [at for at, _ in socket.audio] == [max(0.0, 20.0 * slot - 60) for slot in range(20)]
    assert b"".join(data for _, data in socket.audio) == tone(400, 24_000).tobytes()


async def test_an_interruption_is_a_clear_within_the_step_and_nothing_after_it(stages: MakeStage):
    stage = await stages(lead_ms=60)
    socket = await stage.connect()
    await stage.bench.send(speech(2_000), response=1)
    await stage.advance(505)
    before = len(socket.sent)
    await stage.bench.interrupt()
    assert [json.loads(message) for _, message in socket.sent[before:]] == [{"type": "clear"}]
    assert socket.sent[-1][0] == stage.bench.now_ms == 505
    await stage.bench.send(speech(500), response=1)
    await stage.advance(2_000)
    assert len(socket.sent) == before + 1
    (cut,) = [fact for fact in stage.notes.facts if isinstance(fact, ResponseCutFrame)]
    # The lead is not counted: the client has forgotten it.
    assert cut.heard_ms == 520


async def test_a_pause_is_silence_at_once_and_loses_nothing(stages: MakeStage):
    stage = await stages(lead_ms=60)
    socket = await stage.connect()
    await answer(stage, 1_000)
    await stage.advance(505)
    before = len(socket.sent)
    await stage.bench.send(PausePlayoutFrame())
    assert socket.texts[1:] == [{"type": "clear"}]
    await stage.advance(1_000)
    assert len(socket.sent) == before + 1
    await stage.bench.send(ResumePlayoutFrame())
    await stage.advance(1_000)
    chunks = [data for _, data in socket.audio]
    # 26 are being heard or over, and the 3 after them were forgotten by the client: these come again.
    assert chunks[29:32] == chunks[26:29]
    assert b"".join(chunks[:26] + chunks[29:]) == tone(1_000, 24_000).tobytes()
    (played,) = [fact for fact in stage.notes.facts if isinstance(fact, ResponsePlayedFrame)]
    assert played.heard_ms == 1_000


async def test_a_protocol_that_cannot_clear_is_heard_to_the_end_of_its_lead(stages: MakeStage):
    class Deaf(RawSerializer):
        def clear(self) -> None:
            return None

    stage = await stages(Deaf(), lead_ms=60)
    socket = await stage.connect()
    await answer(stage, 1_000)
    await stage.advance(505)
    await stage.bench.send(PausePlayoutFrame())
    await stage.advance(1_000)
    await stage.bench.send(ResumePlayoutFrame())
    await stage.advance(1_000)
    assert b"".join(data for _, data in socket.audio) == tone(1_000, 24_000).tobytes()


async def test_a_worker_that_is_cancelled_is_silent_at_once(stages: MakeStage):
    stage = await stages(TwilioSerializer(), lead_ms=200)
    socket = await stage.connect()
    await stage.bench.send(speech(2_000), response=1)
    await stage.advance(500)
    stage.bench.worker.cancel()
    await stage.ended()
    assert stage.phone.clears == [500_000_000]
    assert socket.closed == (1000, "The conversation is over.")


async def test_what_follows_an_interruption_is_heard(stages: MakeStage):
    stage = await stages()
    socket = await stage.connect()
    await stage.bench.send(speech(2_000), response=1)
    await stage.advance(300)
    await stage.bench.interrupt()
    before = len(socket.audio)
    await answer(stage, 100, response=2)
    await stage.advance(500)
    assert len(socket.audio) == before + 5


async def test_nothing_is_sent_before_a_client_can_hear_it(stages: MakeStage):
    stage = await stages()
    socket = await stage.connect('{"type": "interrupt"}')
    await answer(stage, 100)
    await stage.advance(500)
    assert socket.audio == []


def test_a_replay_needs_no_peer_and_no_clock():
    """Handlers run in one, and nothing is opened."""
    transport = WebSocketTransport()
    transport.send(tone(20, 24_000), 0)
    transport.pause()
    transport.resume()
    transport.clear()
    transport.tell(ServerMessageFrame("1"))
    assert not transport.send_message("2")
    assert transport.dropped_messages == 2


async def test_messages_of_the_bot_reach_the_clients_program(stages: MakeStage):
    stage = await stages()
    socket = await stage.connect()
    await stage.bench.send(ServerMessageFrame('{"page": 2}', reply_to="7"))
    assert stage.transport.send_message('{"label": "rtvi-ai"}')
    assert socket.texts[1:] == [{"type": "message", "reply_to": "7", "data": {"page": 2}}, {"label": "rtvi-ai"}]


async def test_a_message_that_is_no_json_is_an_error_and_the_connection_stays(stages: MakeStage):
    stage = await stages()
    socket = await stage.connect()
    await stage.bench.send(ServerMessageFrame("{"))
    stage.bench.expect_error("json.dumps")
    assert socket.closed is None


async def test_messages_go_to_the_hook_where_there_is_one(stages: MakeStage):
    stage = await stages()
    told: list[ServerMessageFrame] = []
    stage.transport.on_tell = told.append
    socket = await stage.connect()
    await stage.bench.send(ServerMessageFrame("1"))
    assert told == [ServerMessageFrame("1")]
    assert len(socket.sent) == 1


async def test_rtvi_goes_to_the_hook_and_is_refused_without_one(stages: MakeStage):
    stage = await stages()
    got: list[str] = []
    stage.transport.on_message = got.append
    socket = await stage.connect()
    message = '{"label": "rtvi-ai", "type": "client-ready", "id": "1"}'
    await stage.say(socket, message)
    assert got == [message]
    stage.transport.on_message = None
    await stage.say(socket, message)
    assert socket.closed == (1008, "RTVI messages are not accepted here.")


# --- slow peers -------------------------------------------------------------------------------------------------------


async def test_a_client_that_takes_nothing_has_a_bound_and_is_told_of_once_and_recovers(stages: MakeStage):
    stage = await stages(queue_ms=1_000, lead_ms=0)
    socket = await stage.connect()
    socket.stalled = True
    await stage.bench.send(speech(6_000), response=1)
    await stage.advance(3_000)
    assert socket.wire.waiting == (1_000 + 20) * MS * 2
    stage.bench.expect_error("has not read 1000 ms", error="TransportError")
    assert len(stage.bench.errors) == 1
    assert stage.transport.dropped_ms == 3_000 - 1_020 + 20
    # Half of it is taken, and what comes now is heard.
    socket.stalled, socket.wire.waiting = False, 500 * MS * 2
    before = len(socket.audio)
    await stage.advance(1_000)
    assert len(socket.audio) - before == 50
    # The next time is told of again.
    socket.wire.waiting = 1_001 * MS * 2
    await stage.advance(100)
    stage.bench.expect_error("has not read 1000 ms")


async def test_messages_for_a_client_that_reads_none_are_bounded(stages: MakeStage, caplog: pytest.LogCaptureFixture):
    stage = await stages()
    socket = await stage.connect()
    socket.stalled = True
    sent = [stage.transport.send_message("x" * 65_536) for _ in range(10)]
    assert sent == [True] * 5 + [False] * 5
    assert socket.wire.waiting == 5 * 65_536
    assert stage.transport.dropped_messages == 5
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "WebSocketTransport: the client does not read its messages; they are dropped"
    ]


async def test_what_a_lost_client_did_not_take_is_not_kept(stages: MakeStage):
    stage = await stages()
    socket = await stage.connect()
    socket.stalled = True
    stage.transport.send_message("x" * 1_000)
    await socket.vanish()
    await stage.ended()
    assert (socket.wire.aborted, socket.wire.waiting) == (True, 0)


# --- what was played --------------------------------------------------------------------------------------------------


async def test_a_call_hears_what_was_said_and_marks_tell_how_late(stages: MakeStage):
    stage = await stages(TwilioSerializer(), lead_ms=60)
    socket = await stage.connect()
    assert stage.transport.output_rate == 8_000
    assert stage.transport.playout_delay_ms is None
    await answer(stage, 1_000)
    await stage.advance(1_500, socket)
    heard = np.concatenate([samples for _, samples in stage.phone.heard])
    # The resampler holds back a millisecond, and the last 20 ms are filled up.
    assert 1_000 <= len(heard) / 8 <= 1_040
    assert loud(heard[400:7_600])
    starts = [at // 1_000_000 for at, _ in stage.phone.heard]
    assert starts == [20 * slot for slot in range(len(starts))]
    assert stage.transport.playout_delay_ms is not None
    assert 0 <= stage.transport.playout_delay_ms <= 5
    assert stage.phone.marks == []


async def test_one_mark_is_out_at_a_time(stages: MakeStage):
    stage = await stages(TwilioSerializer(), lead_ms=60)
    socket = await stage.connect()
    await answer(stage, 1_000)
    await stage.advance(500)
    assert [text["mark"]["name"] for text in socket.texts if text["event"] == "mark"] == ["1"]


async def test_an_interrupted_call_is_silent_at_once_and_history_is_what_was_heard(stages: MakeStage):
    stage = await stages(TwilioSerializer(), lead_ms=60)
    socket = await stage.connect()
    words = [(f"w{number}", 200.0 * number) for number in range(15)]
    await stage.bench.send(speech(3_000, *words), response=1)
    await stage.advance(1_005, socket)
    await stage.bench.interrupt()
    (cut,) = [fact for fact in stage.notes.facts if isinstance(fact, ResponseCutFrame)]
    assert stage.phone.clears == [1_005_000_000]
    heard_ms = stage.phone.heard_ms(stage.now_ns)
    assert heard_ms == 1_005
    assert 0 <= cut.heard_ms - heard_ms < 20
    assert cut.heard_text == "w0 w1 w2 w3 w4 w5"
    await stage.advance(2_000, socket)
    assert stage.phone.heard_ms(stage.now_ns) == heard_ms


async def test_a_mark_that_was_cleared_says_nothing(stages: MakeStage):
    stage = await stages(TwilioSerializer(), lead_ms=60)
    socket = await stage.connect()
    await stage.bench.send(speech(3_000), response=1)
    await stage.advance(10)
    await stage.bench.interrupt()
    await stage.advance(100, socket)
    assert stage.phone.marks == []
    assert stage.transport.playout_delay_ms is None


async def test_the_call_ends_when_the_caller_has_heard_the_last_word(stages: MakeStage):
    stage = await stages(TwilioSerializer(), lead_ms=60)
    socket = await stage.connect()
    stage.phone.end_ns = stage.now_ns + 200_000_000
    await answer(stage, 500)
    await stage.advance(10)
    stopping = asyncio.create_task(stage.bench.worker.stop())
    while not stopping.done():
        await stage.advance(5, socket)
        for _ in range(3):
            await asyncio.sleep(0)
    assert socket.closed == (1000, "The conversation is over.")
    assert stage.notes.facts[-1] == BotStoppedSpeakingFrame(1)
    # The caller's side is 200 ms behind.
    assert 700 <= stage.bench.now_ms <= 760


async def test_a_caller_that_answers_no_marks_is_waited_for_a_second(stages: MakeStage):
    stage = await stages(TwilioSerializer())
    socket = await stage.connect()
    await answer(stage, 100)
    await stage.advance(200)
    stopping = asyncio.create_task(stage.bench.worker.stop())
    await stage.advance(990)
    assert socket.closed is None
    await stage.advance(20)
    await stopping
    assert socket.closed is not None


async def test_a_caller_that_hangs_up_ends_the_conversation(stages: MakeStage):
    stage = await stages(TwilioSerializer())
    socket = await stage.connect()
    await stage.say(socket, stage.phone.dtmf("5"))
    await stage.say(socket, stage.phone.stop())
    assert (await stage.bench.worker.finished()).reason == "ended"
    assert stage.notes.rest[1:] == [
        ClientMessageFrame("start", '{"callSid": "CA0", "customParameters": {}}'),
        ClientMessageFrame("dtmf", '{"digit": "5"}'),
        ClientDisconnectedFrame("the call has ended"),
    ]
    assert socket.closed == (1000, "Good bye.")
