"""Twilio's Media Streams: a telephone call, by ``<Connect><Stream>``.

What is known of the protocol is from Twilio's documentation, "Media Streams - WebSocket Messages": JSON text; audio is
µ-law of 8 kHz in base64 both ways. What Twilio is sent it buffers and plays in order. ``clear`` empties that buffer,
and ``mark`` comes back when all that was sent before it has been played, or was cleared.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, cast

from ...pipeline.client_frames import ClientMessageFrame
from ...pipeline.clock import NS_PER_MS
from ...pipeline.frames import ClientConnectedFrame, ClientDisconnectedFrame, InputAudioFrame, Samples
from . import mulaw
from .serializers import (
    INVALID,
    MAX_ID_CHARACTERS,
    POLICY,
    UNSUPPORTED,
    Decoded,
    MarkPlayed,
    MessageError,
    Serializer,
    read_json,
    read_text,
)

RATE = 8_000


def signed_by_twilio(auth_token: str, signature: str, url: str, parameters: Mapping[str, str] | None = None) -> bool:
    """Check Twilio's signature of a request; True where Twilio has sent it.

    ``auth_token``: of your account at Twilio. ``signature``: the header ``X-Twilio-Signature``. ``url``: to the letter
    as Twilio was told it; of a stream it begins with ``wss://``. ``parameters``: of the form that a webhook is posted
    with; the request of a stream has none.

    From Twilio's documentation, "Webhooks security": HMAC-SHA1 of the address and of the parameters, sorted by name, in
    base64.
    """
    text = url + "".join(name + value for name, value in sorted((parameters or {}).items()))
    made = base64.b64encode(hmac.digest(auth_token.encode(), text.encode(errors="replace"), "sha1"))
    return hmac.compare_digest(made, signature.encode(errors="replace"))


class TwilioSerializer(Serializer):
    """A telephone call. Keys that the caller presses come as ``ClientMessageFrame("dtmf", '{"digit": "5"}')``.

    The call's own facts come once, as ``ClientMessageFrame("start", ...)`` with ``callSid`` and ``customParameters``
    (what ``<Parameter>`` said in the TwiML), before the first audio.
    """

    output_rate: int = RATE
    announced: ClassVar[bool] = True

    def __init__(self) -> None:
        self.stream_sid = ""
        """Which stream it is; empty before ``start``."""
        self.call_sid = ""
        self._head = ""

    def begin(self) -> Sequence[str | bytes]:
        """Twilio speaks first."""
        self.stream_sid = self.call_sid = self._head = ""
        return ()

    def decode(self, message: str | bytes) -> Sequence[Decoded]:
        """One of connected, start, media, mark, dtmf and stop. What is new to us is ignored: a call goes on."""
        if not isinstance(message, str):
            raise MessageError(UNSUPPORTED, "Media Streams are text, and this is a binary message.")
        data = read_json(message)
        event = read_text(data, "event", MAX_ID_CHARACTERS)
        if event == "start":
            return self._start(data)
        if event not in ("media", "mark", "dtmf", "stop"):
            return ()
        if not self.stream_sid:
            raise MessageError(POLICY, f"{event} before start.")
        if data.get("streamSid") != self.stream_sid:
            raise MessageError(POLICY, f"{event} of another stream.")
        what = _part(data, event)
        match event:
            case "media":
                return self._media(what)
            case "mark":
                return [MarkPlayed(read_text(what, "name", MAX_ID_CHARACTERS))]
            case "dtmf":
                return [ClientMessageFrame("dtmf", json.dumps({"digit": read_text(what, "digit", 1)}))]
            case _:
                return [ClientDisconnectedFrame("the call has ended")]

    def encode_audio(self, samples: Samples) -> str | bytes:
        """A media message."""
        payload = binascii.b2a_base64(mulaw.encode(samples), newline=False).decode()
        return f'{self._head}"event": "media", "media": {{"payload": "{payload}"}}}}'

    def clear(self) -> str | bytes | None:
        """A clear message."""
        return f'{self._head}"event": "clear"}}'

    def mark(self, name: str) -> str | bytes | None:
        """A mark message."""
        return f'{self._head}"event": "mark", "mark": {{"name": {json.dumps(name)}}}}}'

    def _start(self, data: dict[str, Any]) -> Sequence[Decoded]:
        if self.stream_sid:
            raise MessageError(POLICY, "There was a start already.")
        start = _part(data, "start")
        form = _part(start, "mediaFormat")
        if (form.get("encoding"), form.get("sampleRate"), form.get("channels")) != ("audio/x-mulaw", RATE, 1):
            raise MessageError(UNSUPPORTED, "A stream is audio/x-mulaw of 8000 Hz in one channel.")
        stream_sid = read_text(start, "streamSid", MAX_ID_CHARACTERS)
        if not stream_sid:
            raise MessageError(INVALID, "streamSid is empty.")
        self.call_sid = read_text(start, "callSid", MAX_ID_CHARACTERS)
        self.stream_sid = stream_sid
        self._head = f'{{"streamSid": {json.dumps(stream_sid)}, '
        facts: dict[str, Any] = {"callSid": self.call_sid, "customParameters": start.get("customParameters", {})}
        return [ClientConnectedFrame(), ClientMessageFrame("start", json.dumps(facts))]

    def _media(self, media: dict[str, Any]) -> Sequence[Decoded]:
        if media.get("track", "inbound") != "inbound":
            return ()
        try:
            payload = base64.b64decode(read_text(media, "payload"), validate=True)
        except (ValueError, binascii.Error):
            raise MessageError(INVALID, "payload is no base64.") from None
        return [InputAudioFrame(mulaw.decode(payload), RATE, _milliseconds(media.get("timestamp")) * NS_PER_MS)]


def _part(data: dict[str, Any], name: str) -> dict[str, Any]:
    part = data.get(name)
    if not isinstance(part, dict):
        raise MessageError(INVALID, f"{name} is missing, or no JSON object.")
    return cast("dict[str, Any]", part)


def _milliseconds(timestamp: object) -> int:
    """Parse a timestamp, in ms since the begin of the stream, from text."""
    if not isinstance(timestamp, str) or not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 12:
        raise MessageError(INVALID, "timestamp is a number of ms, as text.")
    return int(timestamp)
