"""Twilio Media Streams: a telephone call, by ``<Connect><Stream>``.

Source: Twilio's documentation, "Media Streams - WebSocket Messages". Messages are JSON text; audio is µ-law at 8 kHz in
base64, both ways. Twilio buffers sent audio and plays it in order. ``clear`` empties that buffer, and ``mark`` is
returned when all audio sent before it has been played or cleared.
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
    """Verify the signature of a request, which proves that Twilio sent it.

    ``auth_token``: token of your Twilio account. ``signature``: the header ``X-Twilio-Signature``. ``url``: exactly as
    configured at Twilio; for a stream it starts with ``wss://``. ``parameters``: form fields of a webhook; the request
    of a stream has none.

    From Twilio's documentation, "Webhooks security": HMAC-SHA1 of the address and of the parameters, sorted by name, in
    base64.
    """
    text = url + "".join(name + value for name, value in sorted((parameters or {}).items()))
    made = base64.b64encode(hmac.digest(auth_token.encode(), text.encode(errors="replace"), "sha1"))
    return hmac.compare_digest(made, signature.encode(errors="replace"))


class TwilioSerializer(Serializer):
    """A telephone call. Pressed keys arrive as ``ClientMessageFrame("dtmf", '{"digit": "5"}')``.

    Details of the call arrive once, as ``ClientMessageFrame("start", ...)`` with ``callSid`` and ``customParameters``
    (from ``<Parameter>`` in the TwiML), before the first audio.
    """

    output_rate: int = RATE
    announced: ClassVar[bool] = True

    def __init__(self) -> None:
        self.stream_sid = ""
        """Id of the stream; empty before ``start``."""
        self.call_sid = ""
        self._head = ""

    def begin(self) -> Sequence[str | bytes]:
        """Reset. Twilio sends the first message."""
        self.stream_sid = self.call_sid = self._head = ""
        return ()

    def decode(self, message: str | bytes) -> Sequence[Decoded]:
        """Decode a start, media, mark, dtmf or stop. Other events are ignored, so that the call continues."""
        if not isinstance(message, str):
            raise MessageError(UNSUPPORTED, "Media Streams are text; this is a binary message.")
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
        """Return a media message."""
        payload = binascii.b2a_base64(mulaw.encode(samples), newline=False).decode()
        return f'{self._head}"event": "media", "media": {{"payload": "{payload}"}}}}'

    def clear(self) -> str | bytes | None:
        """Return a clear message."""
        return f'{self._head}"event": "clear"}}'

    def mark(self, name: str) -> str | bytes | None:
        """Return a mark message."""
        return f'{self._head}"event": "mark", "mark": {{"name": {json.dumps(name)}}}}}'

    def _start(self, data: dict[str, Any]) -> Sequence[Decoded]:
        if self.stream_sid:
            raise MessageError(POLICY, "start was sent already.")
        start = _part(data, "start")
        form = _part(start, "mediaFormat")
        if (form.get("encoding"), form.get("sampleRate"), form.get("channels")) != ("audio/x-mulaw", RATE, 1):
            raise MessageError(UNSUPPORTED, "A stream must be audio/x-mulaw at 8000 Hz with one channel.")
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
            raise MessageError(INVALID, "payload is not base64.") from None
        return [InputAudioFrame(mulaw.decode(payload), RATE, _milliseconds(media.get("timestamp")) * NS_PER_MS)]


def _part(data: dict[str, Any], name: str) -> dict[str, Any]:
    part = data.get(name)
    if not isinstance(part, dict):
        raise MessageError(INVALID, f"{name} is missing or not a JSON object.")
    return cast("dict[str, Any]", part)


def _milliseconds(timestamp: object) -> int:
    """Parse a timestamp: ms since the start of the stream, as text."""
    if not isinstance(timestamp, str) or not timestamp.isascii() or not timestamp.isdigit() or len(timestamp) > 12:
        raise MessageError(INVALID, "timestamp must be a number of ms, as text.")
    return int(timestamp)
