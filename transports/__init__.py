"""Transports: where a conversation meets the world. Those that need an extra are imported from their own modules."""

from .base import Transport
from .file import FileTransport
from .input import InputTransport
from .memory import MemoryTransport
from .output import OutputTransport

__all__ = ["FileTransport", "InputTransport", "MemoryTransport", "OutputTransport", "Transport"]
