"""WebRTC: browsers, apps and bridges as users. Needs the extra ``webrtc``."""

from .seams import IceServer
from .transport import WebRTCTransport

__all__ = ["IceServer", "WebRTCTransport"]
