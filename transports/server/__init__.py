"""A server for voice bots: WebRTC, WebSockets and a page, one pipeline for each connection. Needs the extra ``webrtc``.

::

    from voxline.transports.server import ServerSettings, serve

    asyncio.run(serve(make_pipeline, ServerSettings(port=8000)))

See `docs/guide/serving.md`.
"""

from ...pipeline.errors import MissingExtraError

try:
    import aiohttp as _aiohttp  # noqa: F401  # pyright: ignore[reportUnusedImport]
except ImportError as error:
    raise MissingExtraError("The server", "aiohttp", "webrtc") from error

from ..caller import Caller
from .conversations import ServedConversation
from .credentials import make_credential
from .refusals import Refusal
from .server import Server
from .serving import serve
from .settings import ServerSettings

__all__ = [
    "Caller",
    "Refusal",
    "ServedConversation",
    "Server",
    "ServerSettings",
    "make_credential",
    "serve",
]
