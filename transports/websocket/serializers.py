"""Serializers: what the messages of a peer mean, and how a peer is spoken to. Pure: no sockets, no clock.

A protocol is a class with `decode` and `encode_audio`; the rest has defaults. `RawSerializer` is ours, for pages and
apps; `TwilioSerializer` (twilio.py) is the telephone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn, cast

import numpy as np

from ...pipeline.client_frames import ClientMessageFrame, InterruptRequestFrame, ServerMessageFrame
from ...pipeline.clock import NS_PER_S
from ...pipeline.errors import TransportError
from ...pipeline.frames import ClientConnectedFrame, Frame, InputAudioFrame, InputTextFrame, Samples

UNSUPPORTED = 1003
"""Close code of a kind of message that is not taken. This and the next ones: RFC 6455, section 7.4.1."""
INVALID = 1007
"""Close code of a message that cannot be read."""
POLICY = 1008
"""Close code of a message that is not allowed."""

MIN_RATE, MAX_RATE = 8_000, 48_000
"""Sample rates that a client may announce, in Hz."""
MAX_ID_CHARACTERS = 128


class MessageError(TransportError):
    """A peer said what cannot be: its connection is closed with ``code`` and the message, which repeats nothing of it.

    At most 123 bytes of the message fit (RFC 6455, section 5.5).
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class MarkPlayed:
    """The peer has played all that it was sent before the mark of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class ForeignMessage:
    """A message of another protocol (RTVI): for `WebSocketTransport.on_message`."""

    text: str


Decoded = Frame | MarkPlayed | ForeignMessage
"""Meanings of a message."""


class Serializer:
    """One protocol, with one peer at a time. Derive, and write `decode` and `encode_audio`."""

    output_rate: int = 24_000
    """At which rate `encode_audio` gets its samples, in Hz."""
    announced: ClassVar[bool] = False
    """The peer says when audio can go both ways: `decode` gives a `ClientConnectedFrame` then. Else: from the
    beginning.
    """

    def begin(self) -> Sequence[str | bytes]:
        """A new peer is there: forget the one before. Gives what it is to be told first."""
        return ()

    def decode(self, message: str | bytes) -> Sequence[Decoded]:
        """Decode a message. Audio may have any rate; a `ClientDisconnectedFrame` ends the connection.

        Raises `MessageError`.
        """
        raise NotImplementedError

    def encode_audio(self, samples: Samples) -> str | bytes:
        """20 ms for the peer to play: int16 mono at `output_rate`."""
        raise NotImplementedError

    def encode(self, message: ServerMessageFrame) -> str | bytes | None:
        """A message for the peer's program; None where it has none. Raises `MessageError`, and nothing is sent."""
        return None

    def clear(self) -> str | bytes | None:
        """Says: forget what you have not played. None where the protocol cannot."""
        return None

    def mark(self, name: str) -> str | bytes | None:
        """Asks the peer to tell when it has played what it was sent so far: `MarkPlayed`. None: it cannot."""
        return None


class RawSerializer(Serializer):
    """16-bit PCM in binary messages (little-endian, mono), and JSON for the rest. See `docs/guide/websocket.md`.

    ``output_rate``: of what the client gets, in Hz. The client says its own rate in ``start``.
    """

    announced: ClassVar[bool] = True

    def __init__(self, *, output_rate: int = 24_000) -> None:
        self.output_rate = output_rate
        self._rate: int | None = None
        self._samples = 0

    def begin(self) -> Sequence[str | bytes]:
        """Tell the client what it will hear."""
        self._rate, self._samples = None, 0
        return [json.dumps({"type": "start", "sample_rate": self.output_rate})]

    def decode(self, message: str | bytes) -> Sequence[Decoded]:
        """Audio, or one of start, text, interrupt and message; RTVI is passed on."""
        if not isinstance(message, str):
            return [self._audio(message)]
        data = read_json(message)
        if data.get("label") == "rtvi-ai":
            return [ForeignMessage(message)]
        match data.get("type"):
            case "start":
                return [self._start(data)]
            case "text":
                interrupt = data.get("interrupt", True)
                if not isinstance(interrupt, bool):
                    _refuse("A text's interrupt is true or false.")
                return [InputTextFrame(read_text(data, "text"), interrupt)]
            case "interrupt":
                return [InterruptRequestFrame()]
            case "message":
                kind = read_text(data, "kind", MAX_ID_CHARACTERS)
                identifier = read_text(data, "id", MAX_ID_CHARACTERS) if "id" in data else ""
                return [ClientMessageFrame(kind, json.dumps(data.get("data")), identifier)]
            case _:
                raise MessageError(UNSUPPORTED, "A message's type is start, text, interrupt or message.")

    def encode_audio(self, samples: Samples) -> str | bytes:
        """Its bytes."""
        return samples.astype("<i2", copy=False).tobytes()

    def encode(self, message: ServerMessageFrame) -> str | bytes | None:
        """A JSON object of the type message."""
        told: dict[str, Any] = {"type": "message"}
        if message.reply_to:
            told["reply_to"] = message.reply_to
        if message.error:
            return json.dumps(told | {"error": message.error})
        try:
            return json.dumps(told | {"data": json.loads(message.data)})
        except ValueError:
            raise MessageError(INVALID, "ServerMessageFrame: data is no JSON. Make it with json.dumps().") from None

    def clear(self) -> str | bytes | None:
        """A JSON object of the type clear."""
        return '{"type": "clear"}'

    def _start(self, data: dict[str, Any]) -> Frame:
        rate = data.get("sample_rate")
        if type(rate) is not int or not MIN_RATE <= rate <= MAX_RATE:
            _refuse(f"start needs a sample_rate of {MIN_RATE} to {MAX_RATE} Hz.")
        if self._rate is not None:
            _refuse("There was a start already.", POLICY)
        self._rate = rate
        return ClientConnectedFrame()

    def _audio(self, data: bytes) -> Frame:
        if self._rate is None:
            _refuse('Audio before {"type": "start", "sample_rate": ...}.', POLICY)
        if len(data) % 2:
            _refuse("Audio is 16 bits a sample: an even number of bytes.")
        samples = np.frombuffer(data, "<i2").astype(np.int16, copy=False)
        pts_ns = self._samples * NS_PER_S // self._rate
        self._samples += len(samples)
        return InputAudioFrame(samples, self._rate, pts_ns)


# --- for those who write one ------------------------------------------------------------------------------------------


def read_json(message: str) -> dict[str, Any]:
    """A JSON object of a text message. Raises `MessageError` for whatever else it is."""
    try:
        data: Any = json.loads(message, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise MessageError(INVALID, "A text message is a JSON object, and this one is none.") from None
    if not isinstance(data, dict):
        _refuse("A text message is a JSON object, and this one is none.")
    return cast("dict[str, Any]", data)


def read_text(data: dict[str, Any], name: str, most: int | None = None) -> str:
    """A text in a JSON object, of at most so many characters. Raises `MessageError`."""
    text = data.get(name)
    if not isinstance(text, str):
        _refuse(f"{name} is missing, or no text.")
    if most is not None and len(text) > most:
        _refuse(f"{name} has more than {most} characters.")
    try:
        text.encode()
    except UnicodeEncodeError:
        _refuse(f"{name} has half a surrogate pair.")
    return text


def _no_number(_: str) -> NoReturn:
    raise ValueError


def _refuse(why: str, code: int = INVALID) -> NoReturn:
    raise MessageError(code, why)
