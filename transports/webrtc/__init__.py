"""WebRTC: browsers, apps and bridges as users. Needs the extra ``webrtc``."""

from .aiortc_adapter import IceServer
from .transport import WebRTCTransport

__all__ = ["IceServer", "WebRTCTransport"]
