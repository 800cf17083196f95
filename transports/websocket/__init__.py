"""WebSocket transport: for your own pages and apps, Twilio telephone calls, and other protocols by a serializer.

Needs the extra ``websocket``. See `docs/guide/websocket.md`.
"""

from ...pipeline.errors import MissingExtraError

try:
    import aiohttp as aiohttp
except ImportError as error:
    raise MissingExtraError("WebSocketTransport", "aiohttp", "websocket") from error

from .serializers import Decoded, ForeignMessage, MarkPlayed, MessageError, RawSerializer, Serializer
from .transport import WebSocketTransport
from .twilio import TwilioSerializer, signed_by_twilio

__all__ = [
    "Decoded",
    "ForeignMessage",
    "MarkPlayed",
    "MessageError",
    "RawSerializer",
    "Serializer",
    "TwilioSerializer",
    "WebSocketTransport",
    "signed_by_twilio",
]
