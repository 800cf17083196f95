"""What the messages of a peer mean, and what is said of those that mean nothing."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxline.pipeline import (
    ClientConnectedFrame,
    ClientDisconnectedFrame,
    ClientMessageFrame,
    InputAudioFrame,
    InputTextFrame,
    InterruptRequestFrame,
    ServerMessageFrame,
    TransportError,
)
from voxline.tests.transports.websocket.peers import START, STREAM, Phone, tone
from voxline.transports.websocket import (
    ForeignMessage,
    MarkPlayed,
    MessageError,
    RawSerializer,
    Serializer,
    TwilioSerializer,
)

PHONE = Phone()


def raw() -> RawSerializer:
    """One whose client has started."""
    serializer = RawSerializer()
    serializer.begin()
    serializer.decode(START)
    return serializer


def call() -> TwilioSerializer:
    """One whose call has started."""
    serializer = TwilioSerializer()
    serializer.begin()
    serializer.decode(PHONE.connected())
    serializer.decode(PHONE.start())
    return serializer


def refusal(serializer: Serializer, *messages: str | bytes) -> MessageError:
    *before, last = messages
    for message in before:
        serializer.decode(message)
    with pytest.raises(MessageError) as caught:
        serializer.decode(last)
    assert len(str(caught.value).encode()) <= 123
    return caught.value


# --- raw --------------------------------------------------------------------------------------------------------------


def test_the_client_is_told_at_which_rate_it_will_hear():
    assert RawSerializer(output_rate=16_000).begin() == ['{"type": "start", "sample_rate": 16000}']


def test_a_start_says_that_audio_can_go_both_ways():
    assert RawSerializer().decode(START) == [ClientConnectedFrame()]


@given(st.lists(st.lists(st.integers(-32_768, 32_767), max_size=50), max_size=10), st.integers(8_000, 48_000))
def test_audio_is_16_bits_little_endian_and_counts_its_time(chunks: list[list[int]], rate: int):
    serializer = RawSerializer()
    serializer.decode(json.dumps({"type": "start", "sample_rate": rate}))
    count = 0
    for chunk in chunks:
        samples = np.array(chunk, np.int16)
        decoded = serializer.decode(samples.astype("<i2").tobytes())
        assert decoded == [InputAudioFrame(samples, rate, count * 1_000_000_000 // rate)]
        count += len(samples)


def test_audio_for_the_client_is_the_same():
    assert RawSerializer().encode_audio(np.array([1, -2, 300], np.int16)) == b"\x01\x00\xfe\xff\x2c\x01"


@pytest.mark.parametrize(
    ("message", "frame"),
    [
        ({"type": "text", "text": "Hello."}, InputTextFrame("Hello.")),
        ({"type": "text", "text": "", "interrupt": False}, InputTextFrame("", False)),
        ({"type": "interrupt"}, InterruptRequestFrame()),
        ({"type": "message", "kind": "menu"}, ClientMessageFrame("menu")),
        (
            {"type": "message", "kind": "menu", "data": {"page": 2}, "id": "7"},
            ClientMessageFrame("menu", '{"page": 2}', "7"),
        ),
    ],
)
def test_json_is_text_interruptions_and_messages_of_the_client(message: dict[str, Any], frame: object):
    assert raw().decode(json.dumps(message)) == [frame]


def test_rtvi_is_not_ours_and_is_passed_on():
    text = json.dumps({"label": "rtvi-ai", "type": "client-ready", "id": "1", "data": {}})
    assert raw().decode(text) == [ForeignMessage(text)]


def test_a_text_that_only_mentions_rtvi_is_a_text():
    assert raw().decode('{"type": "text", "text": "rtvi-ai"}') == [InputTextFrame("rtvi-ai")]


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (ServerMessageFrame('{"page": 3}'), {"type": "message", "data": {"page": 3}}),
        (ServerMessageFrame("[1]", reply_to="7"), {"type": "message", "data": [1], "reply_to": "7"}),
        (ServerMessageFrame("null", "7", "not there"), {"type": "message", "reply_to": "7", "error": "not there"}),
    ],
)
def test_the_bots_messages_are_json(message: ServerMessageFrame, expected: dict[str, Any]):
    encoded = RawSerializer().encode(message)
    assert encoded is not None
    assert json.loads(encoded) == expected


def test_a_message_of_the_bot_that_is_no_json_is_refused_and_not_repeated():
    with pytest.raises(MessageError, match=r"json\.dumps") as caught:
        RawSerializer().encode(ServerMessageFrame("secret"))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("message", "code", "why"),
    [
        ("", 1007, "JSON object"),
        ("{", 1007, "JSON object"),
        ("[]", 1007, "JSON object"),
        ("[" * 60_000, 1007, "JSON object"),
        ('{"type": ' + "1" * 5_000 + "}", 1007, "JSON object"),
        ('{"type": NaN}', 1007, "JSON object"),
        ("{}", 1003, "type must be start, text"),
        ('{"type": ["start"]}', 1003, "type must be start, text"),
        ('{"type": "launch"}', 1003, "type must be start, text"),
        (START, 1008, "start was sent already"),
        ('{"type": "text"}', 1007, "text is missing"),
        ('{"type": "text", "text": 5}', 1007, "text is missing or not a string"),
        ('{"type": "text", "text": "\\ud800"}', 1007, "surrogate"),
        ('{"type": "text", "text": "a", "interrupt": "no"}', 1007, "true or false"),
        ('{"type": "message"}', 1007, "kind is missing"),
        ('{"type": "message", "kind": "' + "k" * 129 + '"}', 1007, "more than 128"),
        ('{"type": "message", "kind": "a", "id": 1}', 1007, "id is missing or not a string"),
        (b"\x00", 1007, "even number of bytes"),
    ],
)
def test_what_means_nothing_is_refused_with_a_code_and_a_reason(message: str | bytes, code: int, why: str):
    error = refusal(raw(), message)
    assert error.code == code
    assert why in str(error)
    assert isinstance(error, TransportError)


@pytest.mark.parametrize("rate", [None, 0, -1, 7_999, 48_001, 16_000.0, "16000", True, 10**400])
def test_a_rate_that_cannot_be_is_refused(rate: object):
    assert "8000 to 48000 Hz" in str(refusal(RawSerializer(), json.dumps({"type": "start", "sample_rate": rate})))


def test_audio_before_start_is_refused():
    error = refusal(RawSerializer(), b"\x00\x00")
    assert (error.code, "Audio before" in str(error)) == (1008, True)


def test_a_new_client_starts_anew():
    serializer = raw()
    serializer.decode(bytes(640))
    serializer.begin()
    assert "Audio before" in str(refusal(serializer, bytes(640)))
    serializer.decode(START)
    (frame,) = serializer.decode(bytes(640))
    assert isinstance(frame, InputAudioFrame)
    assert frame.pts_ns == 0


# --- Twilio -----------------------------------------------------------------------------------------------------------


def test_a_call_begins_with_its_facts():
    serializer = TwilioSerializer()
    assert serializer.decode(PHONE.connected()) == ()
    assert serializer.decode(PHONE.start(name="Ada")) == [
        ClientConnectedFrame(),
        ClientMessageFrame("start", json.dumps({"callSid": "CA0", "customParameters": {"name": "Ada"}})),
    ]
    assert (serializer.stream_sid, serializer.call_sid) == (STREAM, "CA0")


def test_a_calls_audio_is_mulaw_at_8000_hz_with_its_time():
    (frame,) = call().decode(PHONE.media(tone(20, 8_000), chunk=3))
    assert isinstance(frame, InputAudioFrame)
    assert (frame.sample_rate, len(frame.samples), frame.pts_ns) == (8_000, 160, 60_000_000)
    assert np.max(np.abs(frame.samples - tone(20, 8_000))) < 8_000 / 16


def test_the_callers_keys_are_messages():
    assert call().decode(PHONE.dtmf("#")) == [ClientMessageFrame("dtmf", '{"digit": "#"}')]


def test_a_mark_says_what_was_played_and_stop_is_good_bye():
    serializer = call()
    assert serializer.decode(PHONE.message("mark", mark={"name": "4"})) == [MarkPlayed("4")]
    assert serializer.decode(PHONE.stop()) == [ClientDisconnectedFrame("the call has ended")]


def test_what_the_bot_says_is_not_heard_by_it():
    media = PHONE.message("media", media={"track": "outbound", "chunk": "1", "timestamp": "0", "payload": "/w=="})
    assert call().decode(media) == ()


def test_an_event_that_is_new_to_us_does_not_end_the_call():
    serializer = call()
    assert serializer.decode(PHONE.message("weather", weather={"rain": True})) == ()
    assert len(serializer.decode(PHONE.media(tone(20, 8_000)))) == 1


def test_media_mark_and_clear_name_the_stream():
    serializer = call()
    assert json.loads(serializer.encode_audio(np.zeros(2, np.int16))) == {
        "event": "media",
        "streamSid": STREAM,
        "media": {"payload": "//8="},
    }
    assert json.loads(serializer.mark("1") or "") == {"event": "mark", "streamSid": STREAM, "mark": {"name": "1"}}
    assert json.loads(serializer.clear() or "") == {"event": "clear", "streamSid": STREAM}
    assert serializer.encode(ServerMessageFrame("1")) is None


def changed(message: str, **changes: Any) -> str:
    """A message with parts of its inner object changed, or left out (None)."""
    data = json.loads(message)
    inner = data[data["event"]]
    for name, value in changes.items():
        inner[name] = value
        if value is None:
            del inner[name]
    return json.dumps(data)


@pytest.mark.parametrize(
    ("message", "code", "why"),
    [
        (b"\xff\xff", 1003, "binary"),
        ("hello", 1007, "JSON object"),
        ('{"event": 1}', 1007, "event is missing"),
        (PHONE.start(), 1008, "start was sent already"),
        (PHONE.media(tone(20, 8_000)).replace(STREAM, "MZ1"), 1008, "another stream"),
        (PHONE.stop().replace(STREAM, "MZ1"), 1008, "another stream"),
        (PHONE.message("media"), 1007, "media is missing"),
        (PHONE.message("media", media=[]), 1007, "media is missing"),
        (changed(PHONE.media(tone(20, 8_000)), payload="$$$$"), 1007, "not base64"),
        (changed(PHONE.media(tone(20, 8_000)), payload="/w"), 1007, "not base64"),
        (changed(PHONE.media(tone(20, 8_000)), payload="ü"), 1007, "not base64"),
        (changed(PHONE.media(tone(20, 8_000)), payload=None), 1007, "payload is missing"),
        (changed(PHONE.media(tone(20, 8_000)), timestamp=None), 1007, "number of ms"),
        (changed(PHONE.media(tone(20, 8_000)), timestamp="-1"), 1007, "number of ms"),
        (changed(PHONE.media(tone(20, 8_000)), timestamp="²"), 1007, "number of ms"),
        (changed(PHONE.dtmf("1"), digit="12"), 1007, "more than 1"),
        (PHONE.message("mark", mark={}), 1007, "name is missing"),
    ],
)
def test_what_no_call_says_is_refused(message: str | bytes, code: int, why: str):
    error = refusal(call(), message)
    assert (error.code, why in str(error)) == (code, True), error


def test_media_before_start_is_refused():
    assert refusal(TwilioSerializer(), PHONE.connected(), PHONE.media(tone(20, 8_000))).code == 1008


@pytest.mark.parametrize(
    "change",
    [
        {"mediaFormat": None},
        {"mediaFormat": {"encoding": "audio/l16", "sampleRate": 8000, "channels": 1}},
        {"mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 16000, "channels": 1}},
        {"mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 2}},
        {"streamSid": None},
        {"streamSid": ""},
        {"streamSid": "M" * 129},
        {"callSid": 5},
    ],
)
def test_a_start_that_cannot_be_is_refused(change: dict[str, Any]):
    refusal(TwilioSerializer(), changed(PHONE.start(), **change))


# --- a thousand mutations of each -------------------------------------------------------------------------------------

KINDS: dict[str, tuple[type[RawSerializer] | type[TwilioSerializer], bool, str | bytes]] = {
    "raw start": (RawSerializer, False, START),
    "raw audio": (RawSerializer, True, tone(20).tobytes()),
    "raw text": (RawSerializer, True, '{"type": "text", "text": "My secret is 1234.", "interrupt": false}'),
    "raw interrupt": (RawSerializer, True, '{"type": "interrupt"}'),
    "raw message": (RawSerializer, True, '{"type": "message", "kind": "k", "data": {"a": [1, 2.5e3]}, "id": "x"}'),
    "rtvi": (RawSerializer, True, '{"label": "rtvi-ai", "type": "send-text", "id": "1", "data": {"content": "a"}}'),
    "connected": (TwilioSerializer, False, PHONE.connected()),
    "start": (TwilioSerializer, False, PHONE.start(name="Ada")),
    "media": (TwilioSerializer, True, PHONE.media(tone(20, 8_000))),
    "mark": (TwilioSerializer, True, PHONE.message("mark", mark={"name": "12"})),
    "dtmf": (TwilioSerializer, True, PHONE.dtmf("5")),
    "stop": (TwilioSerializer, True, PHONE.stop()),
}


def mutated(message: str | bytes, chance: random.Random) -> str | bytes:
    """The message with something done to it."""
    data = bytearray(message.encode() if isinstance(message, str) else message)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        end = min(len(data), at + chance.randint(0, 12))
        match chance.randrange(5):
            case 0:
                data[at:end] = b""
            case 1:
                data[at:at] = chance.randbytes(chance.randint(1, 8))
            case 2:
                data[at:at] = data[at:end] * chance.randint(1, 50)
            case 3:
                data[at:at] = chance.choice([b"{", b"[", b'"', b"null", b"1e999", b"-1", b"\\ud800", b"\\u0000", b","])
            case _:
                data[at:end] = bytes(byte ^ 1 << chance.randrange(8) for byte in data[at:end])
    if isinstance(message, bytes):
        return bytes(data)
    return data.decode("utf-8", "replace")


@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_mutations_are_understood_or_refused(kind: str):
    make, started, message = KINDS[kind]
    chance = random.Random(kind)
    refused: list[MessageError] = []
    for _ in range(1_000):
        serializer = make()
        serializer.begin()
        if started:
            serializer.decode(START if make is RawSerializer else PHONE.start())
        try:
            for decoded in serializer.decode(mutated(message, chance)):
                # What was understood can be written down: nothing in it breaks a log, a recording or the next program.
                repr(decoded).encode()
        except MessageError as error:
            refused.append(error)
    assert len(refused) > 300
    assert {error.code for error in refused} <= {1003, 1007, 1008}
    assert all(len(str(error).encode()) <= 123 and "secret" not in str(error) for error in refused)
