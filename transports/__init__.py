"""Transports: where a conversation meets the world. Those that need an extra are imported from their own modules."""

from .base import InputTransport, OutputTransport, Transport
from .file import FileTransport
from .memory import MemoryTransport

__all__ = ["FileTransport", "InputTransport", "MemoryTransport", "OutputTransport", "Transport"]
