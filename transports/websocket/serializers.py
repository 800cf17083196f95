"""Serializers: translate between a peer's messages and frames. Pure: no sockets, no clock.

A protocol is a class with `decode` and `encode_audio`; the rest has defaults. `RawSerializer` is voxline's protocol
for pages and apps; `TwilioSerializer` (twilio.py) is for telephone calls.
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
"""Close code for an unsupported kind of message. Close codes: RFC 6455, section 7.4.1."""
INVALID = 1007
"""Close code for a malformed message."""
POLICY = 1008
"""Close code for a message that is not allowed."""

MIN_RATE, MAX_RATE = 8_000, 48_000
"""Range of sample rates that a client may announce, in Hz."""
MAX_ID_CHARACTERS = 128


class MessageError(TransportError):
    """An invalid message of a peer. The connection is closed with ``code`` and this text, which quotes no input.

    At most 123 bytes of the text fit (RFC 6455, section 5.5).
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class MarkPlayed:
    """Report of the peer: all audio sent before the mark ``name`` has been played."""

    name: str


@dataclass(frozen=True, slots=True)
class ForeignMessage:
    """Message of another protocol (RTVI), passed to `WebSocketTransport.on_message`."""

    text: str


Decoded = Frame | MarkPlayed | ForeignMessage
"""Result of decoding a message."""


class Serializer:
    """A protocol, for one peer at a time. Derive, and write `decode` and `encode_audio`."""

    output_rate: int = 24_000
    """Sample rate of the audio passed to `encode_audio`, in Hz."""
    announced: ClassVar[bool] = False
    """True: the peer says when audio can flow, and `decode` returns a `ClientConnectedFrame` then. False: audio flows
    from the start.
    """

    def begin(self) -> Sequence[str | bytes]:
        """Reset for a new peer. Return the messages to send first."""
        return ()

    def decode(self, message: str | bytes) -> Sequence[Decoded]:
        """Decode a message. Audio may have any rate; a `ClientDisconnectedFrame` says goodbye.

        Raises `MessageError`.
        """
        raise NotImplementedError

    def encode_audio(self, samples: Samples) -> str | bytes:
        """Encode 20 ms for the peer to play: int16 mono at `output_rate`."""
        raise NotImplementedError

    def encode(self, message: ServerMessageFrame) -> str | bytes | None:
        """Encode a message for the peer's program; None if unsupported. Raises `MessageError` to send nothing."""
        return None

    def clear(self) -> str | bytes | None:
        """Encode a request to drop unplayed audio; None if the protocol has none."""
        return None

    def mark(self, name: str) -> str | bytes | None:
        """Encode a request to report (`MarkPlayed`) when the audio sent so far has been played; None if unsupported."""
        return None


class RawSerializer(Serializer):
    """16-bit PCM in binary messages (little-endian, mono), JSON for all else. See `docs/guide/websocket.md`.

    ``output_rate``: rate of the audio sent to the client, in Hz. The client announces its own rate in ``start``.
    """

    announced: ClassVar[bool] = True

    def __init__(self, *, output_rate: int = 24_000) -> None:
        self.output_rate = output_rate
        self._rate: int | None = None
        self._samples = 0

    def begin(self) -> Sequence[str | bytes]:
        """Return the start message, which announces the output rate."""
        self._rate, self._samples = None, 0
        return [json.dumps({"type": "start", "sample_rate": self.output_rate})]

    def decode(self, message: str | bytes) -> Sequence[Decoded]:
        """Decode audio, or a start, text, interrupt or message; RTVI messages are passed on."""
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
                    _refuse("A text's interrupt must be true or false.")
                return [InputTextFrame(read_text(data, "text"), interrupt)]
            case "interrupt":
                return [InterruptRequestFrame()]
            case "message":
                kind = read_text(data, "kind", MAX_ID_CHARACTERS)
                identifier = read_text(data, "id", MAX_ID_CHARACTERS) if "id" in data else ""
                return [ClientMessageFrame(kind, json.dumps(data.get("data")), identifier)]
            case _:
                raise MessageError(UNSUPPORTED, "A message's type must be start, text, interrupt or message.")

    def encode_audio(self, samples: Samples) -> str | bytes:
        """Return the samples as bytes."""
        return samples.astype("<i2", copy=False).tobytes()

    def encode(self, message: ServerMessageFrame) -> str | bytes | None:
        """Return a JSON object of type ``message``."""
        message_data: dict[str, Any] = {"type": "message"}
        if message.reply_to:
            message_data["reply_to"] = message.reply_to
        if message.error:
            return json.dumps(message_data | {"error": message.error})
        try:
            return json.dumps(message_data | {"data": json.loads(message.data)})
        except ValueError:
            raise MessageError(INVALID, "ServerMessageFrame: data is not JSON. Use json.dumps().") from None

    def clear(self) -> str | bytes | None:
        """Return a JSON object of type ``clear``."""
        return '{"type": "clear"}'

    def _start(self, data: dict[str, Any]) -> Frame:
        rate = data.get("sample_rate")
        if type(rate) is not int or not MIN_RATE <= rate <= MAX_RATE:
            _refuse(f"start needs a sample_rate of {MIN_RATE} to {MAX_RATE} Hz.")
        if self._rate is not None:
            _refuse("start was sent already.", POLICY)
        self._rate = rate
        return ClientConnectedFrame()

    def _audio(self, data: bytes) -> Frame:
        if self._rate is None:
            _refuse('Audio before {"type": "start", "sample_rate": ...}.', POLICY)
        if len(data) % 2:
            _refuse("Audio has 16 bits per sample: send an even number of bytes.")
        samples = np.frombuffer(data, "<i2").astype(np.int16, copy=False)
        pts_ns = self._samples * NS_PER_S // self._rate
        self._samples += len(samples)
        return InputAudioFrame(samples, self._rate, pts_ns)


# --- for authors of serializers ---------------------------------------------------------------------------------------


def read_json(message: str) -> dict[str, Any]:
    """Parse a text message as a JSON object. Raises `MessageError` otherwise."""
    try:
        data: Any = json.loads(message, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise MessageError(INVALID, "A text message must be a JSON object.") from None
    if not isinstance(data, dict):
        _refuse("A text message must be a JSON object.")
    return cast("dict[str, Any]", data)


def read_text(data: dict[str, Any], name: str, most: int | None = None) -> str:
    """Return a text field of a JSON object, with at most ``most`` characters. Raises `MessageError`."""
    text = data.get(name)
    if not isinstance(text, str):
        _refuse(f"{name} is missing or not a string.")
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
